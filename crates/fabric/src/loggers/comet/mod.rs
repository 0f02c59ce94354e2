//! [`CometLogger`].

mod options;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;
use fulgurite_trackers::comet::{Asset, Experiment, Kind, Mode, SERVICE, Server, archive, metrics, other, parameters};
use fulgurite_trackers::{Courier, Entry, Number, Outbox, Pace, RunEnd, run_id};
use serde_json::Map;

use super::checkpoints::{Checkpoints, Unsent, Waiting};
use super::image::Png;
use super::json::to_object;
use super::remote::{Sender, plain_folder, variable};
use super::tensorboard::histogram::Histogram;
use super::{CheckpointNews, LogModel, Logger, LoggerError, RunStatus};
pub use options::{CometLoggerOptions, CometMode};
use values::{flatten, histogram};

const LOGGER: &str = "CometLogger";

/// The project of experiments for which none is named.
const DEFAULT_PROJECT: &str = "general";

/// How often the server hears that a run that logs nothing is alive.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A server that is away must not fill the disk with second names of checkpoints.
const MOST_WAITING: usize = 8;

/// Logs to [Comet](https://www.comet.com): Lightning's `CometLogger`. Needs the cargo feature `trackers`.
///
/// With `online(false)` no server is asked: the end of the run writes an archive to `offline_directory`, which `comet upload`
/// sends; after a crash `fulgurite sync` writes it of what is there. Otherwise the server gets what is logged, over what
/// Comet's own client uses. Training never waits for it: what is logged goes into an outbox, a file in the run's folder, and a
/// thread sends it from there. What is left at the end of the run is sent later by `fulgurite sync`; a server that does not know
/// these calls gets an archive. The key is that of `COMET_API_KEY` or `~/.comet.config`; it is neither printed nor written.
///
/// The [name](Logger::name) is the project, and the [version](Logger::version) the experiment's key, so checkpoints are in
/// `save_dir/PROJECT/KEY/checkpoints`. A run that is resumed from there goes on with the same experiment. As in Lightning,
/// `epoch` is no metric but the epoch of the others, and nested hyper-parameters are joined by `|`.
///
/// Differences from Lightning: `log_model` uploads checkpoints, which its logger does not; and the end of a run is the end of
/// the experiment, until it goes on.
///
/// ```no_run
/// use fulgurite_fabric::loggers::{CometLogger, Logger, RunStatus};
///
/// let mut logger = CometLogger::new().project("digits").online(false);
/// logger.log_metrics(&[("loss", 0.25)], 0)?;
/// logger.finalize(RunStatus::Success)?;
/// # Ok::<(), fulgurite_fabric::loggers::LoggerError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct CometLogger {
    options: CometLoggerOptions,
    /// The project as a folder.
    name: String,
    /// The experiment's key; empty before it starts.
    version: String,
    folder: PathBuf,
    suggested: Option<String>,
    is_connected: bool,
    sender: Sender,
    /// The outbox becomes an archive at the end.
    archives: bool,
    /// The server turned out not to know a call.
    is_unsupported: Arc<AtomicBool>,
    checkpoints: Checkpoints,
    has_named: bool,
}

impl From<CometLoggerOptions> for CometLogger {
    fn from(options: CometLoggerOptions) -> CometLogger {
        CometLogger {
            name: plain_folder(options.project.as_deref().unwrap_or(DEFAULT_PROJECT)),
            version: String::new(),
            folder: PathBuf::new(),
            suggested: None,
            is_connected: false,
            sender: Sender::new(LOGGER),
            archives: false,
            is_unsupported: Arc::default(),
            checkpoints: Checkpoints::default(),
            has_named: false,
            options,
        }
    }
}

impl Default for CometLogger {
    fn default() -> CometLogger {
        CometLogger::new()
    }
}

impl CometLogger {
    /// A logger of a new experiment. Nothing is written or asked before the first call of a trainer or the first value.
    pub fn new() -> CometLogger {
        CometLoggerOptions::default().into()
    }

    fn root(&self) -> &Path {
        self.options.save_dir.as_deref().unwrap_or(Path::new("."))
    }

    fn project_name(&self) -> Option<String> {
        self.options.project.clone().or_else(|| variable("COMET_PROJECT_NAME"))
    }

    fn is_offline(&self) -> bool {
        self.options.online == Some(false)
    }

    fn given_key(&self) -> Option<String> {
        self.options.experiment_key.clone().or_else(|| variable("COMET_EXPERIMENT_KEY"))
    }

    fn server(&self) -> Result<Server, LoggerError> {
        let mut pace = Pace::default();
        pace.flush_after = Duration::from_secs(1);
        Server::from_env(self.options.api_key.as_deref(), pace).map_err(|error| self.sender.failed(error))
    }

    /// The experiment to go on with, or a new one.
    fn experiment(&mut self) -> Experiment {
        let own = Some(self.version.clone()).filter(|key| !key.is_empty());
        let goes_on = own.or_else(|| self.suggested.take());
        let mut experiment = Experiment::new(DEFAULT_PROJECT);
        experiment.mode = match self.options.mode {
            CometMode::Get => Mode::Get,
            CometMode::Create if goes_on.is_none() => Mode::Create,
            CometMode::GetOrCreate | CometMode::Create => Mode::GetOrCreate,
        };
        experiment.key = goes_on.or_else(|| self.given_key()).unwrap_or_else(run_id);
        experiment.project = self.project_name();
        experiment.workspace = self.options.workspace.clone().or_else(|| variable("COMET_WORKSPACE"));
        experiment.tags.clone_from(&self.options.tags);
        experiment
    }

    /// Adds an entry to the outbox.
    fn post(&mut self, entry: &Entry) -> Result<(), LoggerError> {
        if !self.sender.has_begun() {
            // A loop of one's own has no trainer that does it.
            self.connect()?;
            self.start()?;
        }
        self.sender.post(entry)
    }

    fn prefixed(&self, name: &str) -> String {
        let prefix = &self.options.prefix;
        if prefix.is_empty() { name.to_owned() } else { format!("{prefix}_{name}") }
    }

    /// Adds a file to the outbox.
    fn post_file(&mut self, kind: Kind, name: String, step: i64, content: &[u8]) -> Result<(), LoggerError> {
        let asset = Asset { kind, name, step: Some(step), metadata: Map::new() };
        self.post(&asset.with(content))
    }

    fn send_checkpoints(&mut self) -> Result<(), LoggerError> {
        let folder = self.folder.join("waiting");
        let waiting = Waiting { folder: &folder, most: MOST_WAITING };
        let waiting = (self.options.log_model == LogModel::All).then_some(waiting);
        for checkpoint in self.checkpoints.unsent(waiting) {
            let entry = self.as_model(checkpoint);
            self.post(&entry)?;
        }
        Ok(())
    }

    /// A file of the model that is called as the run.
    fn as_model(&self, checkpoint: Unsent) -> Entry {
        let mut metadata = to_object(&checkpoint.metadata("ModelCheckpoint"));
        metadata.insert("best".into(), checkpoint.is_best.into());
        let kind = Kind::Model(format!("model-{}", self.version));
        let asset = Asset { kind, name: checkpoint.file_name(), step: None, metadata };
        let remove = checkpoint.linked.is_some();
        asset.of_file(checkpoint.linked.as_deref().unwrap_or(&checkpoint.path), remove)
    }

    /// Puts what the outbox has into an archive, and says where it is.
    fn write_archive(&mut self, outbox: &Path) -> Result<(), LoggerError> {
        const TRIES: u32 = 40;
        let folder = self.options.offline_directory.clone();
        let folder = folder.or_else(|| variable("COMET_OFFLINE_DIRECTORY").map(PathBuf::from));
        let folder = folder.unwrap_or_else(|| self.root().to_owned());
        for _ in 0..TRIES {
            // The thread that has ended may hold the outbox for a moment.
            match archive(outbox, &folder).map_err(|error| self.sender.failed(error))? {
                Some(archive) => {
                    let place = archive.path.display().to_string();
                    self.sender.warn(format!("this run is in {place}; `comet upload {place}` sends it"));
                    return Ok(());
                }
                None if !outbox.exists() => return Ok(()),
                None => std::thread::sleep(Duration::from_millis(25)),
            }
        }
        let place = outbox.parent().unwrap_or(outbox).display().to_string();
        self.sender.warn(format!("this run is in {place}; `fulgurite sync {place}` makes an archive of it"));
        Ok(())
    }
}

impl Logger for CometLogger {
    fn class(&self) -> &str {
        LOGGER
    }

    fn connect(&mut self) -> Result<(), LoggerError> {
        if self.is_connected {
            return Ok(());
        }
        if let Some(key) = self.given_key().filter(|key| !Experiment::is_key(key)) {
            let shown: String = key.chars().take(60).collect();
            let problem = format!(
                "{shown:?} is no key of an experiment, which has 32 to 50 letters and digits; correct experiment_key or COMET_EXPERIMENT_KEY"
            );
            return Err(LoggerError::other(LOGGER, problem));
        }
        if !self.is_offline() {
            self.server()?;
        }
        self.name = plain_folder(self.project_name().as_deref().unwrap_or(DEFAULT_PROJECT));
        self.is_connected = true;
        Ok(())
    }

    fn start(&mut self) -> Result<(), LoggerError> {
        if self.sender.has_begun() {
            return Ok(());
        }
        let experiment = self.experiment();
        let server = if self.is_offline() { None } else { Some(self.server()?) };
        let address = server.as_ref().map(|server| server.url().to_owned());
        let writer = match server {
            None => None,
            Some(server) => {
                let writer = server.begin(&experiment).map_err(|error| self.sender.failed(error))?;
                if writer.is_none() {
                    self.sender.warn_once("unsupported", || {
                        "the server does not know what Comet's client asks, so an archive is written".into()
                    });
                }
                writer
            }
        };
        self.folder = self.root().join(&self.name).join(&experiment.key);
        self.archives = writer.is_none();
        let target = match (&writer, address) {
            (Some(_), Some(address)) => experiment.at(&address),
            _ => experiment.offline(),
        };
        // An archive is of the experiment, whenever it began.
        let opened = match writer {
            Some(_) => Outbox::open(&self.folder, SERVICE, &target.to_value()),
            None => Outbox::go_on(&self.folder, SERVICE, &target.to_value()),
        };
        let outbox = opened.map_err(LoggerError::write(LOGGER, &self.folder))?;
        let courier = match writer {
            None => Courier::without_service(outbox),
            Some(writer) => {
                self.is_unsupported = writer.unsupported();
                let mut pace = Pace::default();
                pace.flush_after = Duration::from_secs(1);
                pace.idle_after = Some(HEARTBEAT);
                Courier::start(outbox, Box::new(writer), pace).map_err(|error| self.sender.failed(error))?
            }
        };
        self.sender.begin(courier);
        self.version = experiment.key;
        self.post(&Entry::status(RunEnd::Running))?;
        if !self.has_named {
            self.has_named = true;
            self.post(&other("Created from", "fulgurite"))?;
            if let Some(name) = self.options.name.clone() {
                self.post(&other("Name", name))?;
            }
        }
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn save_dir(&self) -> Option<&Path> {
        Some(self.root())
    }

    /// The folder of checkpoints and of what is not sent yet; none before the experiment is known.
    fn log_dir(&self) -> Option<&Path> {
        (!self.version.is_empty()).then_some(&self.folder)
    }

    /// Goes on with the experiment of this key, unless one was given. The versions of other loggers are ignored.
    fn suggest_version(&mut self, version: &str) {
        if self.version.is_empty() && self.given_key().is_none() && Experiment::is_key(version) {
            self.suggested = Some(version.to_owned());
        }
    }

    fn runs(&self) -> Vec<String> {
        let folders = std::fs::read_dir(self.root().join(&self.name)).into_iter().flatten().flatten();
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        let given = self.given_key();
        let is_wanted = |name: &String| given.as_ref().is_none_or(|given| given == name);
        names.filter(|name| Experiment::is_key(name) && is_wanted(name)).collect()
    }

    fn log_metrics(&mut self, values: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        let epoch = values.iter().find(|(name, _)| *name == "epoch").map(|(_, epoch)| *epoch);
        let values: Vec<(String, f64)> = values
            .iter()
            .filter(|(name, _)| *name != "epoch")
            .map(|(name, value)| (self.prefixed(name), *value))
            .collect();
        if values.is_empty() {
            return Ok(());
        }
        let values = values.iter().map(|(name, value)| (name.as_str(), Number(*value)));
        self.post(&metrics(values, Some(step), epoch))
    }

    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError> {
        let flat = flatten(params);
        if flat.iter().any(|(name, _)| name.contains('|')) {
            self.post(&other("hasNestedParams", true))?;
        }
        if flat.is_empty() { Ok(()) } else { self.post(&parameters(flat)) }
    }

    fn log_text(&mut self, tag: &str, text: &str, step: i64) -> Result<(), LoggerError> {
        self.post_file(Kind::Text, tag.to_owned(), step, text.as_bytes())
    }

    fn log_image(&mut self, tag: &str, image: &Tensor, step: i64) -> Result<(), LoggerError> {
        let png = Png::encode(tag, image)?;
        self.post_file(Kind::Image, tag.to_owned(), step, &png.encoded)
    }

    /// NaN and values with an absolute value of 1e20 or more are not counted, as in Comet.
    fn log_histogram(&mut self, tag: &str, values: &Tensor, step: i64) -> Result<(), LoggerError> {
        let Some(held) = Histogram::of(tag, values)? else { return Ok(()) };
        self.post_file(Kind::Histogram, tag.to_owned(), step, histogram(&held).as_bytes())
    }

    fn after_save_checkpoint(&mut self, news: &CheckpointNews) -> Result<(), LoggerError> {
        if self.options.log_model == LogModel::Never {
            return Ok(());
        }
        if Checkpoints::is_out_of_reach(news) {
            self.sender.warn_once("out of reach", || {
                "checkpoints in an object store are not uploaded to Comet; write them to a local folder, or leave log_model out".into()
            });
        }
        self.checkpoints.note(news);
        if self.options.log_model == LogModel::All || news.save_top_k < 0 { self.send_checkpoints() } else { Ok(()) }
    }

    fn take_warnings(&mut self) -> Vec<String> {
        self.sender.take_warnings()
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        self.sender.save()
    }

    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError> {
        if !self.sender.has_begun() {
            return Ok(());
        }
        if self.options.log_model != LogModel::Never {
            self.send_checkpoints()?;
        }
        let end = match status {
            RunStatus::Success => RunEnd::Success,
            RunStatus::Failed => RunEnd::Failed,
            RunStatus::Interrupted => RunEnd::Interrupted,
        };
        self.post(&Entry::status(end))?;
        if self.archives {
            let Some(outbox) = self.sender.leave()? else { return Ok(()) };
            return self.write_archive(&outbox);
        }
        let Some(outbox) = self.sender.outbox() else { return Ok(()) };
        let Some(left) = self.sender.finish(status, self.options.finish_timeout)? else { return Ok(()) };
        if self.is_unsupported.load(Ordering::Relaxed) {
            return self.write_archive(&outbox);
        }
        self.sender.warn(left);
        Ok(())
    }
}
