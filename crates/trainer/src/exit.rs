//! [`exit_code`]: how a program ends.

use std::error::Error as StdError;
use std::process::{ExitCode, Termination};

use fulgurite_engine::{Console, Error, Signal};

/// The exit code of a program, for what its `main` would return; an error is printed to standard error, in one line with its
/// causes. A run that a signal ended has the conventional code: 130 after Ctrl-C, 143 after SIGTERM.
///
/// [`#[fulgurite::main]`](crate::main) calls it. `E` is what [`Result`](crate::Result) has, [`Error`], or an `anyhow::Error`.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn train() -> fulgurite::Result<()> {
///     # Ok(())
/// }
///
/// fn main() -> ExitCode {
///     fulgurite::exit_code(train())
/// }
/// ```
pub fn exit_code<T, E>(result: Result<T, E>) -> ExitCode
where
    T: Termination,
    E: AsRef<dyn StdError + Send + Sync>,
{
    let error = match result {
        Ok(returned) => return returned.report(),
        Err(error) => error,
    };
    let error: &(dyn StdError + 'static) = error.as_ref();
    let ours = chain(error).into_iter().find_map(|cause| cause.downcast_ref::<Error>());
    // `fit` has said this by itself.
    if !matches!(ours, Some(Error::Interrupted { checkpoint: Some(_), .. })) {
        Console::stderr().print(&format!("error: {}", with_causes(error)));
    }
    ours.and_then(Error::signal).map_or(ExitCode::FAILURE, Signal::exit_code)
}

/// An error and its causes.
fn chain<'e>(error: &'e (dyn StdError + 'static)) -> Vec<&'e (dyn StdError + 'static)> {
    let mut chain = vec![error];
    while let Some(cause) = chain[chain.len() - 1].source() {
        chain.push(cause);
    }
    chain
}

/// The messages of an error and its causes, without those that another one quotes.
fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in chain(error) {
        let message = fulgurite_torch::readable_message(&cause.to_string());
        if !text.contains(&message) {
            let between = if text.is_empty() { "" } else { ": " };
            text += &format!("{between}{message}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use fulgurite_engine::BoxError;

    use super::*;

    #[test]
    fn each_cause_once() {
        let inner = std::io::Error::other("no space left");
        let outer: BoxError = Error::Hook {
            owner: "Net".into(),
            hook: fulgurite_engine::Hook::TrainingStep,
            epoch: Some(1),
            batch_idx: None,
            source: inner.into(),
        }
        .into();
        assert_eq!(with_causes(outer.as_ref()), "Net::training_step failed (epoch 1): no space left");
        let context = anyhow::Error::from_boxed(outer).context("training");
        assert_eq!(with_causes(context.as_ref()), "training: Net::training_step failed (epoch 1): no space left");
    }
}
