//! The fabric's loggers as [`Configurable`](super::Configurable) classes.

use fulgurite_fabric::loggers::{CsvLogger, CsvLoggerOptions, TensorBoardLogger, TensorBoardLoggerOptions};

use super::Configurable;
use crate::error::Error;

impl Configurable for CsvLogger {
    const ALIASES: &'static [&'static str] = &["CSVLogger"];
    type Options = CsvLoggerOptions;

    fn from_options(options: CsvLoggerOptions) -> Result<CsvLogger, Error> {
        Ok(options.into())
    }
}

impl Configurable for TensorBoardLogger {
    type Options = TensorBoardLoggerOptions;

    fn from_options(options: TensorBoardLoggerOptions) -> Result<TensorBoardLogger, Error> {
        Ok(options.into())
    }
}
