//! Loggers: where metrics, hyper-parameters, texts, images and histograms are written.

mod csv;
mod dummy;
mod error;
mod files;
#[cfg(test)]
#[cfg(unix)]
mod full_disk;
mod hparams;
mod logger;
mod memory;
mod python_format;
mod run_folder;
mod tensorboard;
mod yaml;

pub use csv::{CsvLogger, CsvLoggerOptions};
pub use dummy::DummyLogger;
pub use error::LoggerError;
pub use hparams::flatten_hparams;
pub use logger::{Logger, RunStatus};
pub use memory::{Logged, MemoryLogger};
pub use run_folder::Version;
pub use tensorboard::{TensorBoardLogger, TensorBoardLoggerOptions, make_grid, save_image};
