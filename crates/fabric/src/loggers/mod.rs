//! Loggers: where metrics, hyper-parameters, texts, images and histograms are written.

#[cfg(feature = "trackers")]
mod bins;
mod checkpoint_news;
#[cfg(feature = "trackers")]
mod checkpoints;
#[cfg(feature = "trackers")]
mod comet;
mod csv;
mod dummy;
mod error;
mod files;
#[cfg(test)]
#[cfg(unix)]
mod full_disk;
mod hparams;
mod image;
#[cfg(feature = "trackers")]
mod json;
#[cfg(feature = "trackers")]
mod log_model;
mod logger;
mod memory;
#[cfg(feature = "trackers")]
mod mlflow;
mod python_format;
#[cfg(feature = "trackers")]
mod remote;
#[cfg(feature = "trackers")]
mod resume;
mod run_folder;
mod tensorboard;
#[cfg(feature = "trackers")]
mod trackio;
#[cfg(feature = "trackers")]
mod wandb;
mod yaml;

pub use checkpoint_news::CheckpointNews;
#[cfg(feature = "trackers")]
pub use comet::{CometLogger, CometLoggerOptions, CometMode};
pub use csv::{CsvLogger, CsvLoggerOptions};
pub use dummy::DummyLogger;
pub use error::LoggerError;
pub use hparams::flatten_hparams;
pub use image::{make_grid, save_image};
#[cfg(feature = "trackers")]
pub use log_model::LogModel;
pub use logger::{Logger, RunStatus};
pub use memory::{Logged, MemoryLogger};
#[cfg(feature = "trackers")]
pub use mlflow::{MLFlowLogger, MLFlowLoggerOptions};
#[cfg(feature = "trackers")]
pub use resume::Resume;
pub use run_folder::Version;
pub use tensorboard::{TensorBoardLogger, TensorBoardLoggerOptions};
#[cfg(feature = "trackers")]
pub use trackio::{TrackioLogger, TrackioLoggerOptions};
#[cfg(feature = "trackers")]
pub use wandb::{FilePolicy, WandbLogger, WandbLoggerOptions, WandbMode};
