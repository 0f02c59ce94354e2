//! [`CsvLogger`].

mod table;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fulgurite_torch::Dict;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::{AppendFile, write_atomically};
use super::hparams::{HPARAMS_FILE, merge, write_hparams};
use super::run_folder::{DEFAULT_NAME, RunFolder, Version};
use super::{Logger, LoggerError, RunStatus};
use table::Table;

const LOGGER: &str = "CsvLogger";

/// Rows older than this are written with the next one, regardless of the interval, so that slow runs can be watched.
const FLUSH_AFTER: Duration = Duration::from_secs(10);

/// Logs metrics to `metrics.csv` and hyper-parameters to `hparams.yaml` in `save_dir/name/version_N`: Lightning's
/// `CSVLogger`.
///
/// The format is that of Lightning: the columns are `step` and every metric logged so far, sorted; the cell of a metric that
/// was not logged is empty; a new metric rewrites the file with the longer header (to a temporary file, which is then
/// renamed). Numbers are formatted as in Python; `epoch` as an integer.
///
/// Differences: rows are buffered until the flush interval is over, ten seconds have passed, or
/// [`save`](Logger::save), [`finalize`](Logger::finalize) or drop, where Lightning's trainer saves after every row.
/// An existing `metrics.csv` in the folder of the version is renamed to `metrics.old.N.csv` instead of removed.
///
/// ```
/// use fulgurite_fabric::loggers::{CsvLogger, Logger, RunStatus};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let save_dir = folder.path();
/// let mut logger = CsvLogger::new(save_dir).name("mnist").flush_logs_every_n_steps(50);
/// logger.log_metrics(&[("loss", 0.25), ("epoch", 0.0)], 0)?;
/// logger.log_metrics(&[("acc", 0.75)], 1)?;
/// logger.finalize(RunStatus::Success)?;
///
/// let text = std::fs::read_to_string(save_dir.join("mnist/version_0/metrics.csv"))?;
/// assert_eq!(text, "acc,epoch,loss,step\r\n,0,0.25,0\r\n0.75,,,1\r\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CsvLogger {
    run: RunFolder,
    prefix: String,
    flush_every: i64,
    table: Table,
    file: Option<MetricsFile>,
    hparams: Dict,
    /// The step interval and the time of the last flush; `None` before the first row.
    flushed: Option<(i64, Instant)>,
}

/// The file as it was last rewritten, open for appending rows.
#[derive(Debug)]
struct MetricsFile {
    path: PathBuf,
    header: String,
    file: AppendFile,
}

/// Options of [`CsvLogger`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CsvLoggerOptions {
    /// The parent of the experiment's folder; the trainer's `default_root_dir` by default.
    pub save_dir: Option<PathBuf>,
    /// The experiment's name; empty for versions directly below the save folder.
    pub name: String,
    /// The run's version: a number for `version_N`, a text as it is; the next free number by default.
    pub version: Option<Version>,
    /// A text put before every metric's name, joined by `-`.
    pub prefix: String,
    /// Rows are written to the file every so many steps.
    pub flush_logs_every_n_steps: u32,
}

impl Default for CsvLoggerOptions {
    fn default() -> CsvLoggerOptions {
        CsvLoggerOptions {
            save_dir: None,
            name: DEFAULT_NAME.into(),
            version: None,
            prefix: String::new(),
            flush_logs_every_n_steps: 100,
        }
    }
}

impl From<CsvLoggerOptions> for CsvLogger {
    fn from(options: CsvLoggerOptions) -> CsvLogger {
        let CsvLoggerOptions { save_dir, name, version, prefix, flush_logs_every_n_steps } = options;
        let logger = CsvLogger::new(save_dir.unwrap_or_else(|| ".".into()))
            .name(name)
            .prefix(prefix)
            .flush_logs_every_n_steps(flush_logs_every_n_steps);
        match version {
            Some(version) => logger.version(version),
            None => logger,
        }
    }
}

impl CsvLogger {
    /// A logger that writes below `save_dir`. Nothing is created before the first value, or the first call of
    /// [`version`](Logger::version) or [`log_dir`](Logger::log_dir).
    pub fn new(save_dir: impl Into<PathBuf>) -> CsvLogger {
        CsvLogger {
            run: RunFolder::new(save_dir.into()),
            prefix: String::new(),
            flush_every: 100,
            table: Table::default(),
            file: None,
            hparams: Dict::new(),
            flushed: None,
        }
    }

    /// The experiment's name, `lightning_logs` by default; empty for versions directly below the save folder.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> CsvLogger {
        self.run.set_name(name.into());
        self
    }

    /// The run's version: a number for `version_N`, a text as it is; by default the next free number.
    #[must_use]
    pub fn version(mut self, version: impl Into<Version>) -> CsvLogger {
        self.run.set_version(version.into());
        self
    }

    /// A text put before every metric's name, joined by `-`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> CsvLogger {
        self.prefix = prefix.into();
        self
    }

    /// Rows are written to the file every `n` steps; 100 by default.
    #[must_use]
    pub fn flush_logs_every_n_steps(mut self, n: u32) -> CsvLogger {
        self.flush_every = i64::from(n.max(1));
        self
    }

    fn flush(&mut self) -> Result<(), LoggerError> {
        if self.table.rows().is_empty() {
            return Ok(());
        }
        match &mut self.file {
            Some(open) if open.header == self.table.header() => {
                let appended = open.file.append(self.table.rows().as_bytes());
                appended.map_err(|error| LoggerError::write(LOGGER, &open.path)(error))?;
            }
            _ => {
                let path = self.run.path().join("metrics.csv");
                self.rewrite(&path).map_err(LoggerError::write(LOGGER, &path))?;
            }
        }
        self.table.clear_rows();
        Ok(())
    }

    /// Rewrites the file with a longer header.
    fn rewrite(&mut self, path: &Path) -> std::io::Result<()> {
        self.run.create()?;
        let header = self.table.header().to_owned();
        let mut text = header.clone();
        let earlier = fs::read_to_string(path).unwrap_or_default();
        match self.file.as_ref().and_then(|open| earlier.strip_prefix(open.header.as_str())) {
            Some(rows) => self.table.widen(rows, &mut text),
            // A file of another run, or one that was modified during this run.
            None => set_aside(path)?,
        }
        text.push_str(self.table.rows());
        let file = write_atomically(path, text.as_bytes())?;
        self.file = Some(MetricsFile { path: path.to_owned(), header, file });
        self.table.widened();
        Ok(())
    }

    fn take_over(&mut self, path: &Path, step: i64) -> std::io::Result<()> {
        let text = fs::read_to_string(path)?;
        let Some(rows) = self.table.take_over(&text, step) else { return Ok(()) };
        let header = self.table.header().to_owned();
        let file = write_atomically(path, (header.clone() + &rows).as_bytes())?;
        self.file = Some(MetricsFile { path: path.to_owned(), header, file });
        Ok(())
    }

    fn flush_due(&self, step: i64) -> bool {
        self.flushed.is_none_or(|(interval, at)| interval != self.interval(step) || at.elapsed() >= FLUSH_AFTER)
    }

    /// The number of complete intervals after `step`.
    fn interval(&self, step: i64) -> i64 {
        step.saturating_add(1).div_euclid(self.flush_every)
    }
}

impl Logger for CsvLogger {
    fn name(&self) -> &str {
        self.run.name()
    }

    fn version(&self) -> &str {
        self.run.version()
    }

    fn save_dir(&self) -> Option<&Path> {
        Some(self.run.save_dir())
    }

    fn log_dir(&self) -> Option<&Path> {
        Some(self.run.path())
    }

    fn suggest_version(&mut self, version: &str) {
        self.run.suggest_version(version);
    }

    fn runs(&self) -> Vec<String> {
        self.run.runs()
    }

    /// Continues a `metrics.csv` in the folder, without the rows of later steps. Identical rows of `step` itself are not
    /// written twice.
    fn resume_after(&mut self, step: i64) -> Result<(), LoggerError> {
        let path = self.run.path().join("metrics.csv");
        if self.file.is_some() || !path.exists() {
            return Ok(());
        }
        self.take_over(&path, step).map_err(LoggerError::write(LOGGER, &path))
    }

    /// Adds a row. A metric named `step` is dropped: that column holds the argument.
    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        if self.flushed.is_none() {
            self.run.create().map_err(LoggerError::write(LOGGER, self.run.path()))?;
            self.flushed = Some((step.div_euclid(self.flush_every), Instant::now()));
        }
        self.table.push(&self.prefix, metrics, step);
        if self.flush_due(step) {
            self.flush()?;
            self.flushed = Some((self.interval(step), Instant::now()));
        }
        Ok(())
    }

    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError> {
        merge(&mut self.hparams, params);
        let written = self.run.create().and_then(|folder| write_hparams(folder, &self.hparams));
        written.map_err(|error| LoggerError::write(LOGGER, &self.run.path().join(HPARAMS_FILE))(error))
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        self.flush()?;
        let Some(MetricsFile { path, file, .. }) = &mut self.file else { return Ok(()) };
        file.sync().map_err(LoggerError::write(LOGGER, path))
    }

    fn finalize(&mut self, _status: RunStatus) -> Result<(), LoggerError> {
        self.save()
    }
}

impl Drop for CsvLogger {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!("the last rows could not be written: {error}");
        }
    }
}

/// Renames a `metrics.csv` of another run to the first free `metrics.old.N.csv`.
fn set_aside(path: &Path) -> std::io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let free = (0_u64..).map(|n| path.with_file_name(format!("metrics.old.{n}.csv"))).find(|old| !old.exists());
    if let Some(old) = free {
        tracing::warn!("{} exists and was renamed to {}", path.display(), old.display());
        fs::rename(path, old)?;
    }
    Ok(())
}
