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
pub use lr_monitor::LearningRateMonitor;
pub use model_checkpoint::{Mode, ModelCheckpoint, SaveLast};
pub use model_summary::{LayerSummary, ModelSummary, ModelSummaryOptions, Summary};
pub use progress_bar::ProgressBar;
pub use timer::Timer;
