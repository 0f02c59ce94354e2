//! Callbacks: things that watch a run, and may step in.

mod averaged_model;
mod callback;
mod early_stopping;
pub mod finetuning;
mod gradient_accumulation;
mod lr_monitor;
mod model_checkpoint;
mod model_summary;
mod progress_bar;
mod stochastic_weight_averaging;
mod timer;
mod tuning;
mod weight_averaging;

pub use callback::{Callback, Role};
pub use early_stopping::{EarlyStopping, EarlyStoppingOptions, StoppingReason};
pub use finetuning::{BackboneFinetuning, BackboneFinetuningOptions, BaseFinetuning, Finetuning};
pub use gradient_accumulation::{GradientAccumulationScheduler, GradientAccumulationSchedulerOptions};
pub use lr_monitor::LearningRateMonitor;
pub use model_checkpoint::{Mode, ModelCheckpoint, SaveLast};
pub use model_summary::ModelSummary;
pub use progress_bar::ProgressBar;
pub use stochastic_weight_averaging::{
    AnnealingStrategy, EpochStart, StochasticWeightAveraging, StochasticWeightAveragingOptions, SwaLrs,
};
pub use timer::Timer;
pub use tuning::{BatchSizeFinder, LearningRateFinder};

pub(crate) use tuning::TuneRequest;
pub use weight_averaging::{
    AveragingMoment, EMAWeightAveraging, EMAWeightAveragingOptions, WeightAveraging, WeightAveragingOptions,
};
