//! The built-in callbacks. They use only the public API of `fulgurite-engine`, like any other callback.

mod averaged_model;
mod before_loading;
mod deferred;
mod device_stats_monitor;
mod early_stopping;
pub mod finetuning;
mod gradient_accumulation;
mod gradient_norm;
mod lambda;
mod lr_monitor;
mod model_checkpoint;
mod model_summary;
mod on_exception_checkpoint;
mod prediction_writer;
mod progress_bar;
mod pruning;
mod spike_detection;
mod stochastic_weight_averaging;
mod terminate_on_nan;
mod throughput_monitor;
mod timer;
mod tuning;
mod weight_averaging;

pub use device_stats_monitor::{DeviceStatsMonitor, DeviceStatsMonitorOptions};
pub use early_stopping::{EarlyStopping, EarlyStoppingOptions, StoppingReason};
pub use finetuning::{BackboneFinetuning, BackboneFinetuningOptions, BaseFinetuning, Finetuning};
pub use gradient_accumulation::{GradientAccumulationScheduler, GradientAccumulationSchedulerOptions};
pub use gradient_norm::{GradientAction, GradientNorm, GradientNormOptions};
pub use lambda::LambdaCallback;
pub use lr_monitor::{LearningRateMonitor, LearningRateMonitorOptions};
pub use model_checkpoint::{Mode, ModelCheckpoint, ModelCheckpointOptions, SaveLast};
pub use model_summary::{LayerSummary, ModelSummary, ModelSummaryOptions, Summary};
pub use on_exception_checkpoint::{OnExceptionCheckpoint, OnExceptionCheckpointOptions};
pub use prediction_writer::{PredictionWriter, WriteInterval, WritePredictions};
pub use progress_bar::{ProgressBar, ProgressBarOptions};
pub use pruning::{ModelPruning, ModelPruningOptions, PruningAmount, PruningFn};
pub use spike_detection::{SpikeDetection, SpikeDetectionOptions, TrainingSpike};
pub use stochastic_weight_averaging::{
    AnnealingStrategy, EpochStart, StochasticWeightAveraging, StochasticWeightAveragingOptions, SwaLrs,
};
pub use terminate_on_nan::{TerminateOnNaN, TerminateOnNaNOptions};
pub use throughput_monitor::{ThroughputMonitor, ThroughputMonitorOptions};
pub use timer::{Timer, TimerOptions};
pub use tuning::{BatchSizeFinder, LearningRateFinder};
pub use weight_averaging::{
    AveragingMoment, EMAWeightAveraging, EMAWeightAveragingOptions, WeightAveraging, WeightAveragingOptions,
};
