//! Callbacks: things that watch a run, and may step in.

mod callback;
mod early_stopping;
mod lambda;
mod lr_monitor;
mod model_checkpoint;
mod model_summary;
mod on_exception_checkpoint;
mod prediction_writer;
mod progress_bar;
mod pruning;
mod timer;

pub use callback::{Callback, Role};
pub use early_stopping::{EarlyStopping, EarlyStoppingOptions, StoppingReason};
pub use lambda::LambdaCallback;
pub use lr_monitor::LearningRateMonitor;
pub use model_checkpoint::{Mode, ModelCheckpoint, SaveLast};
pub use model_summary::ModelSummary;
pub use on_exception_checkpoint::{OnExceptionCheckpoint, OnExceptionCheckpointOptions};
pub use prediction_writer::{PredictionWriter, WriteInterval, WritePredictions};
pub use progress_bar::ProgressBar;
pub use pruning::{ModelPruning, ModelPruningOptions, PruningAmount, PruningFn};
pub use timer::Timer;
