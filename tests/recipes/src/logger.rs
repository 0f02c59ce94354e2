//! A logger: its options, and where it writes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fulgurite::config::Configurable;
use fulgurite::loggers::{LoggerError, RunStatus};
use fulgurite::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Writes a line of text for each value.
pub struct TextLogger {
    folder: PathBuf,
    file: Option<BufWriter<File>>,
}

/// Options of [`TextLogger`].
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextLoggerOptions {
    /// Where it writes; null is the trainer's `default_root_dir`.
    pub save_dir: Option<PathBuf>,
}

impl Configurable for TextLogger {
    type Options = TextLoggerOptions;

    fn from_options(options: TextLoggerOptions) -> Result<TextLogger, Error> {
        Ok(TextLogger { folder: options.save_dir.unwrap_or_else(|| ".".into()), file: None })
    }
}

impl TextLogger {
    fn write(&mut self, text: &str) -> Result<(), LoggerError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(BufWriter::new(open(&self.folder).map_err(failed)?)),
        };
        file.write_all(text.as_bytes()).map_err(failed)
    }
}

fn open(folder: &Path) -> std::io::Result<File> {
    std::fs::create_dir_all(folder)?;
    File::options().create(true).append(true).open(folder.join("values.txt"))
}

fn failed(error: std::io::Error) -> LoggerError {
    LoggerError::other("TextLogger", error)
}

impl Logger for TextLogger {
    fn name(&self) -> &str {
        "text"
    }

    fn version(&self) -> &str {
        ""
    }

    fn save_dir(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    fn log_dir(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        metrics.iter().try_for_each(|(name, value)| self.write(&format!("step {step}: {name} = {value}\n")))
    }

    fn log_hyperparams(&mut self, _: &Dict) -> Result<(), LoggerError> {
        Ok(())
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush().map_err(failed))
    }

    fn finalize(&mut self, _: RunStatus) -> Result<(), LoggerError> {
        self.save()
    }
}
