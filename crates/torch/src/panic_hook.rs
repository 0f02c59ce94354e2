//! What a panic with an error of libtorch prints, and where it was.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Once;

use crate::libtorch_error::{LibtorchError, has_frames, shows_frames};
use crate::printable;

thread_local! {
    /// How many calls of `catch_panic` this thread is in.
    static CATCHING: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic with an error of libtorch was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on a panic of `tch` with an error of libtorch prints the message and the line of the program that it came from,
/// not libtorch's C++ frames. Nothing is printed where the panic becomes an error that says so. With
/// `TORCH_SHOW_CPP_STACKTRACES=1`, and for all other panics, the hook that was there before is called.
pub fn shorten_panics() {
    static ONCE: Once = Once::new();
    // A hook cannot be changed by a thread that panics.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            let text = info.payload_as_str().filter(|text| has_frames(text));
            match text.filter(|_| !shows_frames()) {
                Some(text) => report(info, &LibtorchError::parse(text)),
                None => before(info),
            }
        }));
    });
}

#[expect(clippy::print_stderr, reason = "this is what a panic says")]
fn report(info: &PanicHookInfo<'_>, error: &LibtorchError) {
    let place = caller(&Backtrace::force_capture().to_string());
    let wants_backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    if CATCHING.get() == 0 || wants_backtrace {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let at = place.clone().or_else(|| info.location().map(ToString::to_string)).unwrap_or_default();
        eprintln!("{}", printable(&format!("thread '{name}' panicked at {at}:\n{error}")));
    }
    if wants_backtrace {
        eprintln!("{}", printable(&Backtrace::force_capture().to_string()));
    }
    PLACE.set(place);
}

/// Runs `work` while a panic in it is known to become an error. Where a panic of libtorch came from is returned with it.
pub(crate) fn while_catching<T>(work: impl FnOnce() -> T) -> (T, Option<String>) {
    CATCHING.set(CATCHING.get() + 1);
    PLACE.take();
    let returned = work();
    CATCHING.set(CATCHING.get() - 1);
    (returned, PLACE.take())
}

/// The first function of a backtrace that belongs to the program, as `src/main.rs:12`, if its line is known.
fn caller(backtrace: &str) -> Option<String> {
    const NOT_THE_PROGRAM: [&str; 9] = [
        "std::",
        "core::",
        "alloc::",
        "tch::",
        "rust_begin_unwind",
        "__rust",
        "fulgurite_torch::",
        "fulgurite_nn::",
        "fulgurite_metrics::",
    ];
    let mut lines = backtrace.lines();
    while let Some(line) = lines.next() {
        let Some((number, name)) = line.trim_start().split_once(": ") else { continue };
        if number.parse::<usize>().is_err() {
            continue;
        }
        let name = name.trim_start_matches(['<', '&', '*']);
        if NOT_THE_PROGRAM.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        // Without a function of the program in between, the trainer itself called libtorch.
        let at = lines.next()?.trim_start().strip_prefix("at ")?;
        if name.starts_with("fulgurite") {
            return None;
        }
        let (place, _column) = at.rsplit_once(':')?;
        return Some(place.trim_start_matches("./").to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_line_of_the_program() {
        let of = |program: &str| {
            format!(
                "   0: std::backtrace_rs::backtrace::trace\n             at /rustc/1/library/std/src/lib.rs:1:2\n   \
                 1: core::result::Result<T,E>::unwrap\n   2: tch::wrappers::tensor_generated::<impl tch::Tensor>::matmul\n\
                 \n             at /root/tch/src/tensor.rs:3:4\n   \
                 3: <tch::nn::linear::Linear as tch::nn::module::Module>::forward\n   4: {program}"
            )
        };
        let ours = of(
            "<program::Net as fulgurite_engine::LightningModule>::training_step\n             at ./src/main.rs:12:9\n",
        );
        assert_eq!(caller(&ours).as_deref(), Some("src/main.rs:12"));
        assert_eq!(caller(&of("program::Net::training_step\n   5: main")), None);
        assert_eq!(
            caller(&of("fulgurite_engine::engine::run\n             at crates/engine/src/engine.rs:1:1\n")),
            None
        );
    }
}
