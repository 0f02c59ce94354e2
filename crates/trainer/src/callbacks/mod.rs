//! Callbacks: things that watch a run, and may step in.

mod callback;
mod early_stopping;
mod lr_monitor;
mod model_checkpoint;
mod model_summary;
mod progress_bar;
mod timer;

pub use callback::{Callback, Role};
pub use early_stopping::{EarlyStopping, EarlyStoppingOptions, StoppingReason};
pub use lr_monitor::{LearningRateMonitor, LearningRateMonitorOptions};
pub use model_checkpoint::{Mode, ModelCheckpoint, ModelCheckpointOptions, SaveLast};
pub use model_summary::ModelSummary;
pub use progress_bar::{ProgressBar, ProgressBarOptions};
pub use timer::{Timer, TimerOptions};
