//! The fabric's loggers as [`Configurable`](super::Configurable) classes.

#[cfg(feature = "trackers")]
use fulgurite_fabric::loggers::{
    CometLogger, CometLoggerOptions, MLFlowLogger, MLFlowLoggerOptions, TrackioLogger, TrackioLoggerOptions,
    WandbLogger, WandbLoggerOptions,
};
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

#[cfg(feature = "trackers")]
impl Configurable for CometLogger {
    type Options = CometLoggerOptions;

    fn from_options(options: CometLoggerOptions) -> Result<CometLogger, Error> {
        if options.holds_key() {
            return Err(Error::Config(
                "api_key of CometLogger would be written to config.yaml; set COMET_API_KEY instead".into(),
            ));
        }
        Ok(options.into())
    }
}

#[cfg(feature = "trackers")]
impl Configurable for MLFlowLogger {
    type Options = MLFlowLoggerOptions;

    fn from_options(options: MLFlowLoggerOptions) -> Result<MLFlowLogger, Error> {
        if options.holds_key() {
            return Err(Error::Config(
                "tracking_uri of MLFlowLogger holds a password, which would be written to config.yaml; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or put the address into MLFLOW_TRACKING_URI".into(),
            ));
        }
        Ok(options.into())
    }
}

#[cfg(feature = "trackers")]
impl Configurable for WandbLogger {
    type Options = WandbLoggerOptions;

    fn from_options(options: WandbLoggerOptions) -> Result<WandbLogger, Error> {
        Ok(options.into())
    }
}

#[cfg(feature = "trackers")]
impl Configurable for TrackioLogger {
    type Options = TrackioLoggerOptions;

    fn from_options(options: TrackioLoggerOptions) -> Result<TrackioLogger, Error> {
        if options.holds_key() {
            return Err(Error::Config(
                "server_url of TrackioLogger holds a token, which would be written to config.yaml; set TRACKIO_WRITE_TOKEN to it, or put the whole address into TRACKIO_SERVER_URL".into(),
            ));
        }
        Ok(options.into())
    }
}
