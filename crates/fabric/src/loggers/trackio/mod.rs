//! [`TrackioLogger`].

mod options;

use std::fs;
use std::path::{Path, PathBuf};

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;
use fulgurite_trackers::trackio::{
    Inbox, Place, Run, SERVICE, Server, check_project, histogram, image, markdown, metric_key, number,
};
use fulgurite_trackers::{Courier, Entry, Outbox, Pace, Service, run_id, utc_now};
use serde_json::{Map, Value};

use super::bins::Bins;
use super::files::write_atomically;
use super::image::Png;
use super::json::to_object;
use super::remote::{Sender, is_run_id, plain_folder, runs_in, user};
use super::{Logger, LoggerError, Resume, RunStatus};
pub use options::TrackioLoggerOptions;

const LOGGER: &str = "TrackioLogger";

/// What a run's folder says of it, so that a program which goes on with it knows its name.
const RUN_FILE: &str = "trackio-run.json";

/// The number of bins of a histogram, as in Trackio.
const BINS: usize = 64;

/// Logs to [Trackio](https://github.com/gradio-app/trackio), the dashboard of Hugging Face. Needs the cargo feature `trackers`.
///
/// Without a server, values go into the inbox in Trackio's folder on this machine (`TRACKIO_DIR`), as files from which
/// `trackio show` takes them; no network is used, and no Python. With `server_url` (`TRACKIO_SERVER_URL`) a dashboard elsewhere
/// gets them, with the token of `TRACKIO_WRITE_TOKEN`; with `space_id` (`TRACKIO_SPACE_ID`) a Space of Hugging Face, with the
/// token of `HF_TOKEN`. Tokens are neither printed nor written.
///
/// Training never waits for any of them. What is logged goes into an outbox, a file in the run's folder, and a thread brings it
/// from there to where it belongs. What is left at the end of the run stays in the outbox, and `fulgurite sync` sends it later.
/// Only a server that cannot be reached when the run begins, and a token that it refuses then, are errors.
///
/// The [name](Logger::name) is the project, and the [version](Logger::version) the run's identifier, so checkpoints are in
/// `save_dir/PROJECT/RUN/checkpoints`. A run that is resumed from there goes on with the same run of Trackio. Images, histograms
/// and texts are shown, hyper-parameters are the configuration, and what `DeviceStatsMonitor` logs are system metrics.
///
/// ```no_run
/// use fulgurite_fabric::loggers::{Logger, RunStatus, TrackioLogger};
///
/// let mut logger = TrackioLogger::new("digits").name("wide").config("team", "vision");
/// logger.log_metrics(&[("loss", 0.25)], 0)?;
/// logger.finalize(RunStatus::Success)?;
/// # Ok::<(), fulgurite_fabric::loggers::LoggerError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct TrackioLogger {
    options: TrackioLoggerOptions,
    /// The project as a folder.
    name: String,
    /// None before it starts.
    run: Option<Run>,
    folder: PathBuf,
    suggested: Option<String>,
    is_connected: bool,
    sender: Sender,
    /// The configuration, and whether Trackio has it as it is.
    config: Map<String, Value>,
    has_config: bool,
}

impl From<TrackioLoggerOptions> for TrackioLogger {
    fn from(options: TrackioLoggerOptions) -> TrackioLogger {
        TrackioLogger {
            name: plain_folder(&options.project),
            run: None,
            folder: PathBuf::new(),
            suggested: None,
            is_connected: false,
            sender: Sender::new(LOGGER),
            config: Map::new(),
            has_config: false,
            options,
        }
    }
}

impl TrackioLogger {
    /// A logger of a run in this project. Nothing is written or asked before the first call of a trainer or the first value.
    pub fn new(project: impl Into<String>) -> TrackioLogger {
        TrackioLoggerOptions { project: project.into(), ..TrackioLoggerOptions::default() }.into()
    }

    /// An entry of the run's configuration.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<Value>) -> TrackioLogger {
        self.options.config.insert(key.into(), value.into());
        self
    }

    fn root(&self) -> &Path {
        self.options.save_dir.as_deref().unwrap_or(Path::new("."))
    }

    fn place(&self) -> Place {
        Place::of(self.options.space_id.as_deref(), self.options.server_url.as_deref())
    }

    /// The server of a place elsewhere.
    fn server(&self, place: &Place) -> Result<Option<Server>, LoggerError> {
        let server = match place {
            Place::Here(_) => return Ok(None),
            Place::Server(url) => Server::from_env(url, Pace::default()),
            Place::Space(id) => Server::space_from_env(id, Pace::default()),
        };
        server.map(Some).map_err(|error| self.sender.failed(error))
    }

    /// The run to go on with, whose configuration is known, or a new one.
    fn choose_run(&mut self, server: Option<&Server>) -> Result<Run, LoggerError> {
        if let Some(run) = self.run.take() {
            // The entry points of a trainer are one run.
            return Ok(run);
        }
        let id = match self.suggested.take() {
            Some(id) => Some(id),
            None => self.earlier_run(server)?,
        };
        // What Trackio has is replaced as a whole, so it is not by less.
        self.has_config = id.is_some() && self.options.config.is_empty();
        let id = id.unwrap_or_else(run_id);
        let held = run_of(&self.root().join(&self.name).join(&id)).map(|run| run.name);
        let name = self.options.name.clone().or(held);
        let name = name.unwrap_or_else(|| format!("run-{}", id.get(..8).unwrap_or(&id)));
        Ok(Run { project: self.options.project.clone(), name, id })
    }

    /// The run of this name that is to go on.
    fn earlier_run(&self, server: Option<&Server>) -> Result<Option<String>, LoggerError> {
        let (project, resume) = (&self.options.project, self.options.resume);
        let Some(name) = &self.options.name else {
            if resume == Resume::Must {
                return Err(LoggerError::other(LOGGER, "resume=must goes on with the run of a name; give `name`"));
            }
            return Ok(None);
        };
        if resume == Resume::Never {
            return Ok(None);
        }
        let found = match server {
            Some(server) => server.find_run(project, name).map_err(|error| self.sender.failed(error))?,
            None => self.run_here(name),
        };
        if found.is_none() && resume == Resume::Must {
            let place = server.map_or_else(|| self.root().display().to_string(), |server| server.url().to_owned());
            let problem = format!(
                "resume=must, but the project {project:?} has no run {name:?} in {place}; correct `name`, or write resume=allow"
            );
            return Err(LoggerError::other(LOGGER, problem));
        }
        Ok(found)
    }

    /// The latest run of this name that a program began in this folder.
    fn run_here(&self, name: &str) -> Option<String> {
        let folder = self.root().join(&self.name);
        let began = |id: &String| {
            let file = folder.join(id).join(RUN_FILE);
            fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
        };
        runs_in(&folder).filter(|id| run_of(&folder.join(id)).is_some_and(|run| run.name == name)).max_by_key(began)
    }

    /// Adds an entry to the outbox.
    fn post(&mut self, entry: &Entry) -> Result<(), LoggerError> {
        self.begin()?;
        self.sender.post(entry)
    }

    /// A loop of one's own has no trainer that does it.
    fn begin(&mut self) -> Result<(), LoggerError> {
        if self.sender.has_begun() {
            return Ok(());
        }
        self.connect()?;
        self.start()
    }

    /// Adds a row to the outbox, with the configuration if that is new.
    fn post_row(&mut self, row: &[(&str, Value)], step: i64) -> Result<(), LoggerError> {
        self.begin()?;
        let Some(run) = &self.run else { return Ok(()) };
        let config = (!self.has_config).then_some(&self.config);
        let entry = run.metrics(row.iter().map(|(name, value)| (*name, value.clone())), step, config);
        self.sender.post(&entry)?;
        self.has_config = true;
        Ok(())
    }

    /// What Trackio's own client says of a run, and what the user does.
    fn first_config(&self) -> Map<String, Value> {
        let mut config = self.options.config.clone();
        config.insert("_Username".into(), user().into());
        config.insert("_Created".into(), utc_now().into());
        config.insert("_Group".into(), self.options.group.clone().into());
        config
    }
}

impl Logger for TrackioLogger {
    fn class(&self) -> &str {
        LOGGER
    }

    fn connect(&mut self) -> Result<(), LoggerError> {
        if self.is_connected {
            return Ok(());
        }
        check_project(&self.options.project).map_err(|problem| LoggerError::other(LOGGER, problem))?;
        if let Some(key) = self.options.config.keys().find(|key| key.starts_with('_')) {
            let problem =
                format!("config has {key:?}, and names that begin with `_` are Trackio's own; choose another");
            return Err(LoggerError::other(LOGGER, problem));
        }
        if let Some(server) = self.server(&self.place())? {
            server.check().map_err(|error| self.sender.failed(error))?;
        }
        self.is_connected = true;
        Ok(())
    }

    fn start(&mut self) -> Result<(), LoggerError> {
        if self.sender.has_begun() {
            return Ok(());
        }
        let place = self.place();
        let server = self.server(&place)?;
        let run = self.choose_run(server.as_ref())?;
        self.folder = self.root().join(&self.name).join(&run.id);
        let target = place.target().to_value();
        let outbox = Outbox::open(&self.folder, SERVICE, &target).map_err(LoggerError::write(LOGGER, &self.folder))?;
        let file = self.folder.join(RUN_FILE);
        let text = serde_json::to_vec(&run).unwrap_or_default();
        write_atomically(&file, &text).map_err(LoggerError::write(LOGGER, &file))?;
        let (service, pace): (Box<dyn Service>, Pace) = match (server, &place) {
            (Some(server), _) => (Box::new(server.writer()), Pace::default()),
            (None, Place::Here(folder)) => {
                (Box::new(Inbox::open(folder).map_err(|error| self.sender.failed(error))?), Inbox::pace())
            }
            (None, _) => return Ok(()),
        };
        let courier = Courier::start(outbox, service, pace).map_err(|error| self.sender.failed(error))?;
        self.sender.begin(courier);
        self.run = Some(run);
        if self.config.is_empty() {
            self.config = self.first_config();
        }
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &str {
        self.run.as_ref().map_or("", |run| &run.id)
    }

    fn save_dir(&self) -> Option<&Path> {
        Some(self.root())
    }

    /// The folder of checkpoints and of what is not sent yet; none before the run is known.
    fn log_dir(&self) -> Option<&Path> {
        self.run.as_ref().map(|_| self.folder.as_path())
    }

    /// Goes on with the run of this identifier. The versions of other loggers are ignored.
    fn suggest_version(&mut self, version: &str) {
        if self.run.is_none() && is_run_id(version) {
            self.suggested = Some(version.to_owned());
        }
    }

    fn runs(&self) -> Vec<String> {
        runs_in(&self.root().join(&self.name)).collect()
    }

    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        if metrics.is_empty() {
            return Ok(());
        }
        for (name, _) in metrics {
            let key = metric_key(name);
            if key != *name {
                self.sender.warn_once(name, || format!("Trackio has {name:?} itself, so it is logged as {key:?}"));
            }
        }
        let row: Vec<(&str, Value)> = metrics.iter().map(|(name, value)| (*name, number(*value))).collect();
        self.post_row(&row, step)
    }

    fn log_system(&mut self, stats: &[(&str, f64)], _: i64) -> Result<(), LoggerError> {
        self.begin()?;
        let Some(run) = &self.run else { return Ok(()) };
        let entry = run.system_metrics(stats.iter().map(|(name, value)| (*name, number(*value))));
        self.sender.post(&entry)
    }

    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError> {
        self.begin()?;
        for (key, value) in to_object(params) {
            // The logger's own entries are not replaced.
            let is_new = !key.starts_with('_') && self.config.get(&key) != Some(&value);
            if is_new {
                self.config.insert(key, value);
                self.has_config = false;
            }
        }
        Ok(())
    }

    fn log_text(&mut self, tag: &str, text: &str, step: i64) -> Result<(), LoggerError> {
        self.post_row(&[(tag, markdown(text))], step)
    }

    fn log_image(&mut self, tag: &str, tensor: &Tensor, step: i64) -> Result<(), LoggerError> {
        let png = Png::encode(tag, tensor)?;
        self.begin()?;
        let Some(run) = &self.run else { return Ok(()) };
        let media = run.media(step);
        self.post(&Entry::Content { path: media.clone(), bytes: png.encoded })?;
        self.post_row(&[(tag, image(&media))], step)
    }

    fn log_histogram(&mut self, tag: &str, values: &Tensor, step: i64) -> Result<(), LoggerError> {
        let Some(bins) = Bins::of(tag, values, BINS)? else { return Ok(()) };
        self.post_row(&[(tag, histogram(&bins.edges, &bins.counts))], step)
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
        if !self.has_config {
            // Trackio learns of a run, and of its configuration, by a row.
            self.post_row(&[], 0)?;
        }
        if let Some(left) = self.sender.finish(status, self.options.finish_timeout)? {
            self.sender.warn(left);
        } else if let Place::Here(folder) = self.place() {
            let name = self.run.as_ref().map_or("", |run| &run.name);
            let (folder, project) = (folder.display(), &self.options.project);
            self.sender.warn_once("where", || {
                format!("the run {name} is in {folder}; `trackio show --project {project:?}` shows it")
            });
        }
        Ok(())
    }
}

/// What a run's folder says of it.
fn run_of(folder: &Path) -> Option<Run> {
    serde_json::from_slice(&fs::read(folder.join(RUN_FILE)).ok()?).ok()
}
