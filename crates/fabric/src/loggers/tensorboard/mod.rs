//! [`TensorBoardLogger`].

mod event_file;
pub(super) mod histogram;
mod hparams;
mod proto;
mod summary;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hparams::{HPARAMS_FILE, merge, write_hparams};
use super::run_folder::{DEFAULT_NAME, RunFolder, Version};
use super::{Logger, LoggerError, RunStatus};
use crate::loggers::image::{Png, make_grid};
use event_file::EventFile;
use histogram::Histogram;
use summary::Tag;

const LOGGER: &str = "TensorBoardLogger";

/// The metric of the hyper-parameter table while there is no other.
const PLACEHOLDER_METRIC: (&str, f64) = ("hp_metric", -1.0);

/// Logs to event files for TensorBoard, and `hparams.yaml`, in `save_dir/name/version_N`: Lightning's
/// `TensorBoardLogger`.
///
/// Scalars, texts, images and histograms have the format of PyTorch's `SummaryWriter`; all scalars of one call share an
/// event. Nothing is created before the first value, or the first call of [`version`](Logger::version) or
/// [`log_dir`](Logger::log_dir).
///
/// Events are buffered until they reach 64 KiB, until the first event ten seconds after the last write, or until
/// [`save`](Logger::save), [`finalize`](Logger::finalize) or drop. After a failed write,
/// all earlier events in the file are readable.
///
/// Differences from Lightning: the end of the run, with its status, is recorded in the hyper-parameter table by
/// [`finalize`](Logger::finalize) and not at the start, so the table distinguishes running, failed and finished runs;
/// booleans are shown as such; logging equal hyper-parameters again writes nothing, so a later `test` does not reset
/// `hp_metric`.
///
/// ```
/// use fulgurite_fabric::loggers::{Logger, RunStatus, TensorBoardLogger};
/// use fulgurite_torch::Dict;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let save_dir = folder.path();
/// let mut logger = TensorBoardLogger::new(save_dir).name("mnist");
/// logger.log_hyperparams(&Dict::new().with("lr", 0.1))?;
/// logger.log_metrics(&[("loss", 0.25), ("acc", 0.75)], 0)?;
/// logger.log_text("notes", "first **try**", 0)?;
/// logger.finalize(RunStatus::Success)?;
/// assert!(save_dir.join("mnist/version_0/hparams.yaml").exists());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TensorBoardLogger {
    run: RunFolder,
    prefix: String,
    default_hp_metric: bool,
    events: Option<EventFile>,
    /// The files of [`log_scalars`](TensorBoardLogger::log_scalars), by folder.
    groups: Vec<(PathBuf, EventFile)>,
    hparams: Dict,
    hparams_written: bool,
    /// The hyper-parameters and metrics in TensorBoard's table.
    in_table: Option<(Dict, Vec<String>)>,
    session_open: bool,
}

/// Options of [`TensorBoardLogger`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TensorBoardLoggerOptions {
    /// The parent of the experiment's folder; the trainer's `default_root_dir` by default.
    pub save_dir: Option<PathBuf>,
    /// The experiment's name; empty for versions directly below the save folder.
    pub name: String,
    /// The run's version: a number for `version_N`, a text as it is; the next free number by default.
    pub version: Option<Version>,
    /// Whether hyper-parameters without a metric are shown beside a metric `hp_metric` of -1.
    pub default_hp_metric: bool,
    /// A text put before every tag, joined by `-`.
    pub prefix: String,
    /// A subfolder of the version's folder for all files.
    pub sub_dir: Option<PathBuf>,
}

impl Default for TensorBoardLoggerOptions {
    fn default() -> TensorBoardLoggerOptions {
        TensorBoardLoggerOptions {
            save_dir: None,
            name: DEFAULT_NAME.into(),
            version: None,
            default_hp_metric: true,
            prefix: String::new(),
            sub_dir: None,
        }
    }
}

impl From<TensorBoardLoggerOptions> for TensorBoardLogger {
    fn from(options: TensorBoardLoggerOptions) -> TensorBoardLogger {
        let TensorBoardLoggerOptions { save_dir, name, version, default_hp_metric, prefix, sub_dir } = options;
        let mut logger = TensorBoardLogger::new(save_dir.unwrap_or_else(|| ".".into()))
            .name(name)
            .default_hp_metric(default_hp_metric)
            .prefix(prefix);
        if let Some(version) = version {
            logger = logger.version(version);
        }
        match sub_dir {
            Some(sub_dir) => logger.sub_dir(sub_dir),
            None => logger,
        }
    }
}

impl TensorBoardLogger {
    /// A logger that writes below `save_dir`.
    pub fn new(save_dir: impl Into<PathBuf>) -> TensorBoardLogger {
        TensorBoardLogger {
            run: RunFolder::new(save_dir.into()),
            prefix: String::new(),
            default_hp_metric: true,
            events: None,
            groups: Vec::new(),
            hparams: Dict::new(),
            hparams_written: false,
            in_table: None,
            session_open: false,
        }
    }

    /// The experiment's name, `lightning_logs` by default; empty for versions directly below the save folder.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> TensorBoardLogger {
        self.run.set_name(name.into());
        self
    }

    /// The run's version: a number for `version_N`, a text as it is; by default the next free number.
    #[must_use]
    pub fn version(mut self, version: impl Into<Version>) -> TensorBoardLogger {
        self.run.set_version(version.into());
        self
    }

    /// A subfolder of the version's folder for all files.
    #[must_use]
    pub fn sub_dir(mut self, sub_dir: impl Into<PathBuf>) -> TensorBoardLogger {
        self.run.set_sub_dir(sub_dir.into());
        self
    }

    /// Whether hyper-parameters that come without a metric are shown beside a metric `hp_metric` of -1, until one of
    /// that name is logged. TensorBoard shows no hyper-parameters without a metric. On by default.
    #[must_use]
    pub fn default_hp_metric(mut self, on: bool) -> TensorBoardLogger {
        self.default_hp_metric = on;
        self
    }

    /// A text put before every tag, joined by `-`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> TensorBoardLogger {
        self.prefix = prefix.into();
        self
    }

    /// The event file, once there is one.
    pub fn event_file(&self) -> Option<&Path> {
        self.events.as_ref().map(EventFile::path)
    }

    /// Logs hyper-parameters with the metrics by which TensorBoard's table compares runs. The metrics are logged at `step`.
    ///
    /// # Errors
    ///
    /// Fails if the event file or `hparams.yaml` cannot be written.
    pub fn log_hyperparams_with_metrics(
        &mut self,
        params: &Dict,
        metrics: &[(&str, f64)],
        step: i64,
    ) -> Result<(), LoggerError> {
        self.write_hparams_file(params)?;
        if metrics.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = metrics.iter().map(|(name, _)| self.tag_text(name)).collect();
        if self.in_table.as_ref().is_some_and(|(held, shown)| held == params && *shown == names) {
            return Ok(());
        }
        self.log_metrics(metrics, step)?;
        let cells = hparams::cells(params);
        self.add(step, |out, _| hparams::experiment(out, &cells, names.iter().map(String::as_str)))?;
        self.add(step, |out, _| hparams::session_start(out, &cells))?;
        self.in_table = Some((params.clone(), names));
        self.session_open = true;
        Ok(())
    }

    /// Logs several scalars to one chart `main_tag`, one line each: PyTorch's `add_scalars`, which Lightning uses for a
    /// metric that is a dict. Each line is a separate run in a folder below the log folder.
    ///
    /// # Errors
    ///
    /// Fails if an event file cannot be written.
    pub fn log_scalars(&mut self, main_tag: &str, scalars: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        for (name, value) in scalars {
            let main = self.tag_text(main_tag);
            let folder = self.run.path().join(format!("{}_{name}", main.replace('/', "_")));
            let at = match self.groups.iter().position(|(of, _)| *of == folder) {
                Some(at) => at,
                None => {
                    let created = std::fs::create_dir_all(&folder).and_then(|()| EventFile::create(&folder));
                    self.groups.push((folder.clone(), created.map_err(LoggerError::write(LOGGER, &folder))?));
                    self.groups.len() - 1
                }
            };
            let events = &mut self.groups[at].1;
            let tag = Tag { prefix: "", name: &main, suffix: "" };
            let added = events.add_summary(step, |out| summary::scalar(out, tag, *value));
            added.map_err(|error| LoggerError::write(LOGGER, events.path())(error))?;
        }
        Ok(())
    }

    /// Logs a batch `[N, C, H, W]` as one image, eight side by side; see [`make_grid`].
    ///
    /// # Errors
    ///
    /// Fails if `images` has another shape, or if the event file cannot be written.
    pub fn log_images(&mut self, tag: &str, images: &Tensor, step: i64) -> Result<(), LoggerError> {
        let grid = make_grid(images, 8, 2)?;
        self.log_image(tag, &grid, step)
    }

    /// Adds an event whose summary `encode` writes, given the prefix of its tags.
    fn add(&mut self, step: i64, encode: impl FnOnce(&mut Vec<u8>, &str)) -> Result<(), LoggerError> {
        let prefix = std::mem::take(&mut self.prefix);
        let events = self.events();
        let added = events.and_then(|events| {
            let added = events.add_summary(step, |out| encode(out, &prefix));
            added.map_err(|error| LoggerError::write(LOGGER, events.path())(error))
        });
        self.prefix = prefix;
        added
    }

    /// The event file, which is created if necessary.
    fn events(&mut self) -> Result<&mut EventFile, LoggerError> {
        match &mut self.events {
            Some(events) => Ok(events),
            none => {
                let created = self.run.create().and_then(EventFile::create);
                Ok(none.insert(created.map_err(|error| LoggerError::write(LOGGER, self.run.path())(error))?))
            }
        }
    }

    fn flush(&mut self) -> Result<(), LoggerError> {
        let files = self.events.iter_mut().chain(self.groups.iter_mut().map(|(_, events)| events));
        for events in files {
            events.flush().map_err(|error| LoggerError::write(LOGGER, events.path())(error))?;
        }
        Ok(())
    }

    fn write_hparams_file(&mut self, params: &Dict) -> Result<(), LoggerError> {
        merge(&mut self.hparams, params);
        let written = self.run.create().and_then(|folder| write_hparams(folder, &self.hparams));
        written.map_err(|error| LoggerError::write(LOGGER, &self.run.path().join(HPARAMS_FILE))(error))?;
        self.hparams_written = true;
        Ok(())
    }

    fn tag_text(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.into() } else { format!("{}-{name}", self.prefix) }
    }
}

impl Logger for TensorBoardLogger {
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

    /// Marks where the run continues: TensorBoard discards events of later steps in earlier files of the folder.
    fn resume_after(&mut self, step: i64) -> Result<(), LoggerError> {
        let own = self.event_file().map(Path::to_path_buf);
        let files = std::fs::read_dir(self.run.path()).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_event_file =
            |path: &Path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains("tfevents"));
        if files.into_iter().any(|path| is_event_file(&path) && Some(&path) != own.as_ref()) {
            let events = self.events()?;
            let added = events.add_session_start(step + 1);
            added.map_err(|error| LoggerError::write(LOGGER, events.path())(error))?;
        }
        Ok(())
    }

    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        if metrics.is_empty() {
            return Ok(());
        }
        self.add(step, |out, prefix| {
            for (name, value) in metrics {
                summary::scalar(out, Tag { prefix, name, suffix: "" }, *value);
            }
        })
    }

    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError> {
        let metrics = [PLACEHOLDER_METRIC];
        self.log_hyperparams_with_metrics(params, if self.default_hp_metric { &metrics } else { &[] }, 0)
    }

    fn log_text(&mut self, tag: &str, text: &str, step: i64) -> Result<(), LoggerError> {
        self.add(step, |out, prefix| summary::text(out, Tag { prefix, name: tag, suffix: "/text_summary" }, text))
    }

    fn log_image(&mut self, tag: &str, image: &Tensor, step: i64) -> Result<(), LoggerError> {
        let png = Png::encode(tag, image)?;
        self.add(step, |out, prefix| summary::image(out, Tag { prefix, name: tag, suffix: "" }, &png))
    }

    /// NaN and values with an absolute value of 1e20 or more are not counted. If no value is left, the histogram is skipped
    /// with a warning.
    fn log_histogram(&mut self, tag: &str, values: &Tensor, step: i64) -> Result<(), LoggerError> {
        let Some(histogram) = Histogram::of(tag, values)? else {
            tracing::warn!("histogram `{tag}` at step {step} is skipped: none of its values is a number below 1e20");
            return Ok(());
        };
        self.add(step, |out, prefix| summary::histogram(out, Tag { prefix, name: tag, suffix: "" }, &histogram))
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        if !self.hparams_written {
            self.write_hparams_file(&Dict::new())?;
        }
        let files = self.events.iter_mut().chain(self.groups.iter_mut().map(|(_, events)| events));
        for events in files {
            events.save().map_err(|error| LoggerError::write(LOGGER, events.path())(error))?;
        }
        Ok(())
    }

    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError> {
        if self.events.is_none() {
            return Ok(());
        }
        if self.session_open {
            self.add(0, |out, _| hparams::session_end(out, status))?;
            self.session_open = false;
        }
        self.save()
    }
}

impl Drop for TensorBoardLogger {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!("the last events could not be written: {error}");
        }
    }
}
