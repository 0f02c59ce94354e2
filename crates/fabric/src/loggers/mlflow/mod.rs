//! [`MLFlowLogger`].

mod model_files;
mod options;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;
use fulgurite_trackers::mlflow::{MAX_PARAM, NewRun, RUN_NAME, Run, SERVICE, Server, Target, context_tags, metric_key};
use fulgurite_trackers::{Courier, Entry, Outbox, Pace, RunEnd, TrackerError, now_ms, run_id};

use super::checkpoints::{Checkpoints, Waiting};
use super::image::Png;
use super::log_model::LogModel;
use super::python_format::display;
use super::remote::{is_run_id, not_sent, patience, plain_folder, runs_in, variable};
use super::{CheckpointNews, Logger, LoggerError, RunStatus, flatten_hparams};
use model_files::as_files;
pub use options::MLFlowLoggerOptions;

const LOGGER: &str = "MLFlowLogger";

/// Logs to an [MLflow](https://mlflow.org) server: Lightning's `MLFlowLogger`. Needs the cargo feature `trackers`.
///
/// Training never waits for the server. What is logged goes into an outbox, a file in the run's folder, and a thread sends
/// it from there, with the time at which it was logged; a server that fails or is away is tried again. What is left at the end
/// of the run stays in the outbox, and `fulgurite sync` sends it later. Only a server that cannot be reached when the run
/// begins, and names or keys that it refuses then, are errors.
///
/// Keys are those of MLflow: `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or `MLFLOW_TRACKING_TOKEN`, or
/// `~/.mlflow/credentials`. They are neither printed nor written.
///
/// The [name](Logger::name) is the experiment's number, and the [version](Logger::version) the run's identifier, so
/// checkpoints are in `save_dir/EXPERIMENT/RUN/checkpoints`. A run that is resumed from there goes on with the same run of
/// MLflow. Images become its images, texts files, statistics of the machine its system metrics, and hyper-parameters its parameters,
/// as in Python (`True`, `[1, 2]`).
/// Histograms are left out, because MLflow has none.
///
/// Differences from Lightning: a server is needed (MLflow itself no longer writes runs into folders, which Lightning's default
/// does); a run that goes on is `RUNNING` again, and one that a signal ends is `KILLED`; hyper-parameters are cut
/// at 6000 characters, not 250; and the first value of one that changes is kept, with a warning.
///
/// ```no_run
/// use fulgurite_fabric::loggers::{LogModel, Logger, MLFlowLogger, RunStatus};
///
/// let mut logger = MLFlowLogger::new("digits")
///     .tracking_uri("http://127.0.0.1:5000")
///     .run_name("wide")
///     .tag("team", "vision")
///     .log_model(LogModel::All);
/// logger.log_metrics(&[("loss", 0.25)], 0)?;
/// logger.finalize(RunStatus::Success)?;
/// # Ok::<(), fulgurite_fabric::loggers::LoggerError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct MLFlowLogger {
    options: MLFlowLoggerOptions,
    /// The experiment's number, or its name as long as that is not known.
    name: String,
    /// The run's identifier; empty before it starts.
    version: String,
    folder: PathBuf,
    suggested: Option<String>,
    is_connected: bool,
    /// Where values go between `start` and `finalize`.
    courier: Option<Courier>,
    checkpoints: Checkpoints,
    warned: HashSet<String>,
    warnings: Vec<String>,
}

impl From<MLFlowLoggerOptions> for MLFlowLogger {
    fn from(options: MLFlowLoggerOptions) -> MLFlowLogger {
        MLFlowLogger {
            name: options.experiment_name.clone(),
            version: String::new(),
            folder: PathBuf::new(),
            suggested: None,
            is_connected: false,
            courier: None,
            checkpoints: Checkpoints::default(),
            warned: HashSet::new(),
            warnings: Vec::new(),
            options,
        }
    }
}

impl MLFlowLogger {
    /// A logger of a run in this experiment. Nothing is asked of the server before the first call of a trainer or the first
    /// value.
    pub fn new(experiment_name: impl Into<String>) -> MLFlowLogger {
        MLFlowLoggerOptions { experiment_name: experiment_name.into(), ..MLFlowLoggerOptions::default() }.into()
    }

    /// A tag of the run.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> MLFlowLogger {
        self.options.tags.insert(key.into(), value.into());
        self
    }

    fn root(&self) -> &Path {
        self.options.save_dir.as_deref().unwrap_or(Path::new("."))
    }

    /// The address of the server; empty if none is known.
    fn address(&self) -> String {
        self.options.tracking_uri.clone().or_else(|| variable("MLFLOW_TRACKING_URI")).unwrap_or_default()
    }

    fn server(&self) -> Result<Server, LoggerError> {
        Server::from_env(&self.address(), Pace::default()).map_err(failed)
    }

    fn given_run(&self) -> Option<String> {
        self.options.run_id.clone().or_else(|| variable("MLFLOW_RUN_ID"))
    }

    /// The run as it is created.
    fn new_run(&self) -> NewRun {
        let options = &self.options;
        let is_default = options.experiment_name == MLFlowLoggerOptions::default().experiment_name;
        let by_variable = |name: &str| variable(name).filter(|_| is_default);
        let mut tags: BTreeMap<String, String> = context_tags().into_iter().collect();
        tags.extend(options.tags.clone());
        if let Some(name) = &options.run_name {
            tags.remove(RUN_NAME);
            tags.insert(RUN_NAME.into(), name.clone());
        }
        let mut new = NewRun::new(by_variable("MLFLOW_EXPERIMENT_NAME").unwrap_or(options.experiment_name.clone()));
        new.experiment_id = by_variable("MLFLOW_EXPERIMENT_ID");
        new.artifact_location.clone_from(&options.artifact_location);
        new.run_name.clone_from(&options.run_name);
        new.tags = tags.into_iter().collect();
        new.start_ms = now_ms();
        new
    }

    fn start_offline(&mut self) -> Result<(), LoggerError> {
        // The entry points of a trainer are one run.
        let own = Some(self.version.clone()).filter(|id| !id.is_empty());
        let given = own.or_else(|| self.given_run()).or_else(|| self.suggested.clone());
        let id = given.unwrap_or_else(run_id);
        self.settle(plain_folder(&self.options.experiment_name), id);
        let target = Target::offline(&self.address(), self.new_run());
        let outbox = Outbox::go_on(&self.folder, SERVICE, &target.to_value());
        let outbox = outbox.map_err(LoggerError::write(LOGGER, &self.folder))?;
        self.courier = Some(Courier::without_service(outbox));
        self.post(&Entry::status(RunEnd::Running))
    }

    /// The run to go on with, or a new one.
    fn run(&mut self, server: &Server) -> Result<(Run, bool), LoggerError> {
        let own = Some(self.version.clone()).filter(|id| !id.is_empty());
        if let Some(id) = own.or_else(|| self.given_run()) {
            let run = server.find_run(&id).map_err(failed)?;
            let run = run.ok_or_else(|| {
                let problem = format!(
                    "there is no run {id} at {}, or it was deleted; correct run_id or MLFLOW_RUN_ID",
                    server.url()
                );
                LoggerError::other(LOGGER, problem)
            });
            return Ok((run?, true));
        }
        if let Some(id) = self.suggested.take() {
            if let Some(run) = server.find_run(&id).map_err(failed)? {
                return Ok((run, true));
            }
            self.warnings.push(format!("the run {id} is not at {}, so a new one begins", server.url()));
        }
        Ok((server.create_run(&self.name, &self.new_run()).map_err(failed)?, false))
    }

    fn settle(&mut self, name: String, version: String) {
        self.folder = self.root().join(&name).join(&version);
        (self.name, self.version) = (name, version);
    }

    /// Adds an entry to the outbox.
    fn post(&mut self, entry: &Entry) -> Result<(), LoggerError> {
        if self.courier.is_none() {
            // A loop of one's own has no trainer that does it.
            self.connect()?;
            self.start()?;
        }
        let Some(courier) = &self.courier else { return Ok(()) };
        courier.post(entry).map_err(failed)?;
        if self.options.synchronous == Some(true) {
            courier.send_within(Duration::from_secs(self.options.finish_timeout)).map_err(failed)?;
        }
        Ok(())
    }

    /// Adds values under the names that MLflow takes.
    fn post_values(&mut self, values: impl Iterator<Item = (String, f64)>, step: i64) -> Result<(), LoggerError> {
        let values: Vec<_> = values.filter_map(|(name, value)| Some((self.key(&name)?, value))).collect();
        if values.is_empty() { Ok(()) } else { self.post(&Entry::metrics(values, step)) }
    }

    /// The name that MLflow takes, with a warning if it is another one.
    fn key(&mut self, name: &str) -> Option<String> {
        let key = metric_key(name);
        if key.as_deref() != Some(name) && self.warned.insert(name.to_owned()) {
            self.warnings.push(match &key {
                Some(key) => format!("MLflow does not take the name {name:?}, so it is logged as {key:?}"),
                None => format!("MLflow does not take the name {name:?}, so it is not logged; choose letters, digits, `_`, `.`, `-` and `/`"),
            });
        }
        key.map(|key| key.into_owned())
    }

    fn send_checkpoints(&mut self) -> Result<(), LoggerError> {
        const MOST_WAITING: usize = 8;
        let folder = self.folder.join("waiting");
        let waiting = Waiting { folder: &folder, most: MOST_WAITING };
        let unsent = self.checkpoints.unsent((self.options.log_model == LogModel::All).then_some(waiting));
        unsent.into_iter().try_for_each(|checkpoint| self.post(&as_files(checkpoint)))
    }
}

impl Logger for MLFlowLogger {
    fn class(&self) -> &str {
        LOGGER
    }

    fn connect(&mut self) -> Result<(), LoggerError> {
        if self.is_connected {
            return Ok(());
        }
        if self.options.offline {
            self.name = plain_folder(&self.options.experiment_name);
            self.is_connected = true;
            return Ok(());
        }
        let server = self.server()?;
        self.name = match self.given_run() {
            // The run says which experiment it is of.
            Some(_) => self.run(&server)?.0.experiment_id,
            None => server.experiment(&self.new_run()).map_err(failed)?,
        };
        self.is_connected = true;
        Ok(())
    }

    fn start(&mut self) -> Result<(), LoggerError> {
        if self.courier.is_some() {
            return Ok(());
        }
        if self.options.offline {
            return self.start_offline();
        }
        let server = self.server()?;
        let (run, goes_on) = self.run(&server)?;
        self.settle(run.experiment_id.clone(), run.run_id.clone());
        let target = Target::run(server.url(), &run).to_value();
        let outbox = Outbox::open(&self.folder, SERVICE, &target).map_err(LoggerError::write(LOGGER, &self.folder))?;
        let courier = Courier::start(outbox, Box::new(server.writer(run)), Pace::default()).map_err(failed)?;
        self.courier = Some(courier);
        if goes_on { self.post(&Entry::status(RunEnd::Running)) } else { Ok(()) }
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

    /// The folder of checkpoints and of what is not sent yet; none before the run is known.
    fn log_dir(&self) -> Option<&Path> {
        (!self.version.is_empty()).then_some(&self.folder)
    }

    /// Goes on with the run of this identifier, unless one was given. The versions of other loggers are ignored.
    fn suggest_version(&mut self, version: &str) {
        if self.version.is_empty() && self.given_run().is_none() && is_run_id(version) {
            self.suggested = Some(version.to_owned());
        }
    }

    fn runs(&self) -> Vec<String> {
        let given = self.given_run();
        runs_in(&self.root().join(&self.name)).filter(|name| given.as_ref().is_none_or(|given| given == name)).collect()
    }

    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        let prefix = self.options.prefix.clone();
        let name = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
        self.post_values(metrics.iter().map(|(metric, value)| (name(metric), *value)), step)
    }

    fn log_system(&mut self, stats: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        self.post_values(stats.iter().map(|(name, value)| (format!("system/{name}"), *value)), step)
    }

    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError> {
        let mut flat = Vec::new();
        for (name, value) in flatten_hparams(params) {
            let text: String = display(&value).chars().take(MAX_PARAM).collect();
            flat.extend(self.key(&name).map(|key| (key, text)));
        }
        self.post(&Entry::Params(flat))
    }

    fn log_text(&mut self, tag: &str, text: &str, step: i64) -> Result<(), LoggerError> {
        let Some(key) = self.key(tag) else { return Ok(()) };
        self.post(&Entry::Content { path: format!("text/{key}/{step}.txt"), bytes: text.as_bytes().to_vec() })
    }

    fn log_image(&mut self, tag: &str, image: &Tensor, step: i64) -> Result<(), LoggerError> {
        let Some(key) = self.key(tag) else { return Ok(()) };
        let png = Png::encode(tag, image)?;
        // MLflow's page of a run finds images by these names.
        let path = format!("images/{}+step+{step}+timestamp+{}+{}.png", key.replace('/', "~"), now_ms(), uuid());
        self.post(&Entry::Content { path, bytes: png.encoded })?;
        if self.warned.insert("mlflow.loggedImages".into()) {
            self.post(&Entry::Tags(vec![("mlflow.loggedImages".into(), "True".into())]))?;
        }
        Ok(())
    }

    fn after_save_checkpoint(&mut self, news: &CheckpointNews) -> Result<(), LoggerError> {
        if self.options.log_model == LogModel::Never {
            return Ok(());
        }
        if Checkpoints::is_out_of_reach(news) && self.warned.insert("out of reach".into()) {
            self.warnings.push("checkpoints in an object store are not uploaded to MLflow; write them to a local folder, or leave log_model out".into());
        }
        self.checkpoints.note(news);
        if self.options.log_model == LogModel::All || news.save_top_k < 0 { self.send_checkpoints() } else { Ok(()) }
    }

    fn take_warnings(&mut self) -> Vec<String> {
        if let Some(courier) = &self.courier {
            self.warnings.extend(courier.take_warnings());
        }
        std::mem::take(&mut self.warnings)
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        self.courier.as_ref().map_or(Ok(()), |courier| courier.save().map_err(failed))
    }

    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError> {
        if self.courier.is_none() {
            return Ok(());
        }
        if self.options.log_model != LogModel::Never {
            self.send_checkpoints()?;
        }
        let patience = patience(status, self.options.finish_timeout);
        let end = match status {
            RunStatus::Success => RunEnd::Success,
            RunStatus::Failed => RunEnd::Failed,
            RunStatus::Interrupted => RunEnd::Interrupted,
        };
        self.post(&Entry::status(end))?;
        let Some(courier) = self.courier.take() else { return Ok(()) };
        let place = courier.path().parent().unwrap_or(courier.path()).display().to_string();
        if self.options.offline {
            courier.save().map_err(failed)?;
            self.warnings.push(format!("this run is in {place}; `fulgurite sync {place}` sends it"));
            return Ok(());
        }
        let finished = courier.finish(patience).map_err(failed)?;
        self.warnings.extend(finished.warnings);
        if let Some(left) = finished.left {
            self.warnings.push(not_sent(&left, "values", &place));
        }
        Ok(())
    }
}

fn failed(error: TrackerError) -> LoggerError {
    LoggerError::other(LOGGER, error)
}

fn uuid() -> String {
    let id = run_id();
    format!("{}-{}-4{}-a{}-{}", &id[..8], &id[8..12], &id[13..16], &id[17..20], &id[20..])
}
