//! [`Error`]: the error type of a run.

use std::fmt;
use std::path::{Path, PathBuf};

use fulgurite_data::DataError;
use fulgurite_fabric::FabricError;
use fulgurite_fabric::loggers::LoggerError;
use fulgurite_torch::{TorchError, printable};

use crate::hook::Hook;
use crate::signals::Signal;

/// Any error: the error type of user code. `?` converts every error into it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The result of user code: the steps and hooks of modules, and the hooks of callbacks.
pub type Result<T, E = BoxError> = std::result::Result<T, E>;

/// An error that prevented or ended a run.
///
/// An error returned by a user's hook is available as the [`source`](std::error::Error::source): unchanged, unless libtorch's C++
/// frames stand in its messages ([`readable_error`](fulgurite_torch::readable_error)).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid trainer argument or combination of arguments.
    #[error("{0}")]
    Config(String),
    /// The module does not implement a method that this entry point needs.
    #[error("{entry} needs `{method}`, and `{module}` does not implement it; implement `LightningModule::{method}`{}", hint(.method))]
    MissingMethod {
        /// The entry point, such as `fit`.
        entry: &'static str,
        /// The method.
        method: &'static str,
        /// The module's type.
        module: String,
    },
    /// Neither loaders were passed nor are there a module's own, which this entry point needs.
    #[error("{entry} needs `{method}`, and `{owner}` does not implement it; implement `{}`", or_pass(.entry, .method, *.of_data_module))]
    MissingLoaders {
        /// The entry point, such as `fit`.
        entry: &'static str,
        /// The method.
        method: &'static str,
        /// The type of the module, or of the data module.
        owner: String,
        /// Whether a data module was passed.
        of_data_module: bool,
    },
    /// A hook of a module or callback failed.
    #[error("{owner}::{hook} failed{}: {}", at(.epoch, .batch_idx), .source)]
    Hook {
        /// The module's type, or the callback's state key.
        owner: String,
        /// The hook.
        hook: Hook,
        /// The epoch, 0-based, if any.
        epoch: Option<u64>,
        /// The batch of the epoch, 0-based, if any.
        batch_idx: Option<usize>,
        /// The error it returned.
        source: BoxError,
    },
    /// A hook of a module or callback panicked.
    #[error("{owner}::{hook} panicked{}: {message}", at(.epoch, .batch_idx))]
    Panic {
        /// The module's type, or the callback's state key.
        owner: String,
        /// The hook.
        hook: Hook,
        /// The epoch, 0-based, if any.
        epoch: Option<u64>,
        /// The batch of the epoch, 0-based, if any.
        batch_idx: Option<usize>,
        /// The panic message.
        message: String,
    },
    /// The loss that `training_step` returned is invalid.
    #[error("training_step of `{module}` returned {problem}")]
    Loss {
        /// The module's type.
        module: String,
        /// What is wrong, and what to do instead.
        problem: String,
    },
    /// A value could not be logged.
    #[error("log({name:?}) in {hook}: {problem}")]
    Log {
        /// The metric name.
        name: String,
        /// The hook in which it was logged.
        hook: Hook,
        /// What is wrong, and what to do instead.
        problem: String,
    },
    /// A value to monitor was never logged.
    #[error("{who} monitors `{monitor}`, which was not logged; logged so far: {}. {}", list(.available), how_to_log(.monitor, *.without_validation))]
    MissingMonitor {
        /// What monitors it, such as a callback.
        who: String,
        /// The name.
        monitor: String,
        /// The names of the metrics that were logged.
        available: Vec<String>,
        /// Whether there was no validation batch, so that nothing could be logged in one.
        without_validation: bool,
    },
    /// A loader failed to produce a batch, or to answer a question about itself.
    #[error("the {stage} data loader failed{}", at_batch(.source, *.batch_idx))]
    Data {
        /// The stage, such as `training`.
        stage: &'static str,
        /// The batch, 0-based; `None` outside of a pass.
        batch_idx: Option<usize>,
        /// The underlying error.
        source: DataError,
    },
    /// A checkpoint cannot be used.
    #[error("checkpoint {}: {problem}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do instead.
        problem: String,
    },
    /// A signal such as Ctrl-C ended the run: an evaluation or a prediction, which have no partial result, or a fit of which
    /// [`Outcome::completed`](crate::Outcome::completed) was required.
    #[error("{}{}", how_it_ended(*.signal), resume_from(.checkpoint))]
    Interrupted {
        /// The signal.
        signal: Signal,
        /// The checkpoint of the fit to resume from, if one was written.
        checkpoint: Option<PathBuf>,
    },
    /// An entry point that was called after a signal had ended another one of the same trainer.
    #[error(
        "{entry} was not run, because the run before it was {}{}; if it is to go on nevertheless, call `trainer.continue_after_interruption()` first",
        how_it_ended(*.signal), resume_from(.checkpoint)
    )]
    AfterInterruption {
        /// The entry point, such as `validate`.
        entry: &'static str,
        /// The signal.
        signal: Signal,
        /// The checkpoint of the fit to resume from, if one was written.
        checkpoint: Option<PathBuf>,
    },
    /// The profiler failed.
    #[error("the profiler failed {doing}: {source}")]
    Profiler {
        /// What it was doing, such as `in its summary`.
        doing: &'static str,
        /// The underlying error.
        source: BoxError,
    },
    /// An error of the fabric.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// A logger could not write.
    #[error(transparent)]
    Logger(#[from] LoggerError),
    /// An optimizer or scheduler rejected its settings or state.
    #[error(transparent)]
    Optim(#[from] fulgurite_optim::OptimError),
    /// A metric could not be computed.
    #[error(transparent)]
    Metric(#[from] fulgurite_metrics::MetricError),
    /// A libtorch operation failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// The error returned by the default of an optional method, which indicates that the method is not implemented.
/// Not visible to user code.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not implemented")]
pub(crate) struct NotImplemented(&'static str);

/// The error returned by the default of an optional method. A module that only knows at run time which methods it has,
/// such as a wrapper, can return it too.
///
/// # Errors
///
/// Always returns an error.
pub fn not_implemented<T>(method: &'static str) -> Result<T> {
    Err(NotImplemented(method).into())
}

/// The number of training batches was requested before the training loader was available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the number of training batches is not known yet; return this error from `configure_optimizers`, which is then called again, or call it from `on_train_start` on"
)]
pub struct TrainDataNeeded;

impl Error {
    /// The signal that ended the run, if one did. A `main` may exit with its [`exit_code`](Signal::exit_code).
    pub fn signal(&self) -> Option<Signal> {
        match self {
            Error::Interrupted { signal, .. } | Error::AfterInterruption { signal, .. } => Some(*signal),
            _ => None,
        }
    }

    pub(crate) fn of_signal(signal: Signal) -> Error {
        Error::Interrupted { signal, checkpoint: None }
    }

    /// Whether other processes of the run did not respond.
    pub(crate) fn is_of_lost_ranks(&self) -> bool {
        use fulgurite_torch::distributed::DistributedError::{ConnectionLost, RanksMissing, Timeout};

        fn search(error: &(dyn std::error::Error + 'static)) -> bool {
            // Transparent errors are not among their own sources.
            if let Some(Error::Fabric(FabricError::Torch(inner)) | Error::Torch(inner)) = error.downcast_ref() {
                return is_lost(inner);
            }
            if let Some(FabricError::Torch(inner)) = error.downcast_ref() {
                return is_lost(inner);
            }
            error.downcast_ref().is_some_and(is_lost) || error.source().is_some_and(search)
        }

        fn is_lost(error: &TorchError) -> bool {
            let TorchError::Distributed(error) = error else { return false };
            matches!(**error, Timeout { .. } | ConnectionLost { .. } | RanksMissing { .. })
        }
        search(self)
    }

    /// The method that is not implemented, if that is the cause.
    pub(crate) fn not_implemented(&self) -> Option<&'static str> {
        let Error::Hook { source, .. } = self else { return None };
        source.downcast_ref().map(|NotImplemented(method)| *method)
    }
}

/// As a [`BoxError`] does, for what takes either.
impl AsRef<dyn std::error::Error + Send + Sync> for Error {
    fn as_ref(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }
}

/// The message and its causes, so that a `main` that returns an error prints something readable. Control characters are
/// escaped, because messages quote files and other processes.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.to_string()))
    }
}

/// What a signal did to a run.
pub(crate) fn how_it_ended(signal: Signal) -> String {
    match signal {
        Signal::Interrupt => "interrupted by Ctrl-C".to_owned(),
        signal => format!("ended by {signal}"),
    }
}

/// What follows the message of a run that was ended.
fn resume_from(checkpoint: &Option<PathBuf>) -> String {
    checkpoint.as_deref().map(Path::display).map_or(String::new(), |path| format!("; resume from {path}"))
}

fn at(epoch: &Option<u64>, batch_idx: &Option<usize>) -> String {
    match (epoch, batch_idx) {
        (Some(epoch), Some(batch)) => format!(" (epoch {epoch}, batch {batch})"),
        (Some(epoch), None) => format!(" (epoch {epoch})"),
        (None, Some(batch)) => format!(" (batch {batch})"),
        (None, None) => String::new(),
    }
}

/// Where a loader failed, and why; a batch that the error names too is named once.
fn at_batch(error: &DataError, batch_idx: Option<usize>) -> String {
    match (batch_idx, error) {
        (None, error) => format!(": {error}"),
        (Some(idx), DataError::Source { source, batch }) if *batch == idx => format!(" at batch {idx}: {source}"),
        (Some(idx), error) => format!(" at batch {idx}: {error}"),
    }
}

/// Advice for a value that was not logged.
fn how_to_log(name: &str, without_validation: bool) -> String {
    if without_validation {
        return format!(
            "This run has no validation batch: give a validation loader with data if it is a value of validation, log it with `step.log({name:?}, ..)` in a training step, or monitor one of these"
        );
    }
    format!("Log it with `step.log({name:?}, ..)`, or monitor one of these")
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

fn hint(method: &str) -> &'static str {
    match method {
        "configure_optimizers" => ", or return `Optimizers::none()` from it to train without one",
        _ => "",
    }
}

fn or_pass(entry: &str, method: &str, of_data_module: bool) -> String {
    match of_data_module {
        true => format!("LightningDataModule::{method}"),
        false => format!("LightningModule::{method}`, or pass a loader to `{entry}"),
    }
}
