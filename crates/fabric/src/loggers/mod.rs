//! Loggers: where metrics, hyper-parameters, texts, images and histograms are written.

#[cfg(feature = "trackers")]
mod bins;
mod checkpoint_news;
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
mod logger;
mod memory;
#[cfg(feature = "trackers")]
mod mlflow;
mod python_format;
#[cfg(feature = "trackers")]
mod remote;
mod run_folder;
mod tensorboard;
#[cfg(feature = "trackers")]
mod trackio;
mod yaml;

pub use checkpoint_news::CheckpointNews;
pub use csv::{CsvLogger, CsvLoggerOptions};
pub use dummy::DummyLogger;
pub use error::LoggerError;
pub use hparams::flatten_hparams;
pub use image::{make_grid, save_image};
pub use logger::{Logger, RunStatus};
pub use memory::{Logged, MemoryLogger};
#[cfg(feature = "trackers")]
pub use mlflow::{LogModel, MLFlowLogger, MLFlowLoggerOptions};
pub use run_folder::Version;
pub use tensorboard::{TensorBoardLogger, TensorBoardLoggerOptions};
#[cfg(feature = "trackers")]
pub use trackio::{Resume, TrackioLogger, TrackioLoggerOptions};
