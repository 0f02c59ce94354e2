//! [`WandbLogger`].

mod json;
mod models;
mod options;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};
use fulgurite_trackers::wandb::{
    self, GLOBAL_STEP, Item, MediaFile, RunInfo, RunLog, Server, json_number, put_media, run_id, wrong_project,
    wrong_run_id,
};
use fulgurite_trackers::{Checkout, TrackerError};

use super::bins::Bins;
use super::checkpoints::{Checkpoints, Waiting};
use super::image::Png;
use super::log_model::LogModel;
use super::python_format::display;
use super::remote::{not_sent, patience, variable};
use super::run_folder::DEFAULT_NAME;
use super::{CheckpointNews, Logger, LoggerError, Resume, RunStatus};
use models::Models;
pub use options::{FilePolicy, WandbLoggerOptions, WandbMode};

const LOGGER: &str = "WandbLogger";

/// How often statistics of the machine are logged at most, as by W&B's own client.
const SYSTEM_EVERY: Duration = Duration::from_secs(15);

/// W&B's own number of bins.
const BINS: usize = 64;

/// What W&B itself writes into every row.
const RESERVED: [&str; 4] = ["_step", "_runtime", "_timestamp", GLOBAL_STEP];

/// Logs to [Weights & Biases](https://wandb.ai): Lightning's `WandbLogger`. Needs the cargo feature `trackers`.
///
/// Everything is written to a file in the format of W&B's own client, `wandb/run-DATE-ID/run-ID.wandb`, which `wandb sync` and
/// `wandb leet` read. Training never waits for the server: unless `offline` is set, a thread sends the file while it grows. What
/// is left when the run ends, `fulgurite sync` or `wandb sync` sends later. Only a wrong key, or a server that cannot be
/// reached when the run begins, are errors.
///
/// The key is that of W&B: the variable `WANDB_API_KEY`, or `~/.netrc`, where `wandb login` puts it. It is neither printed nor
/// written.
///
/// The [name](Logger::name) is the project, and the [version](Logger::version) the run's identifier, so checkpoints are in
/// `save_dir/PROJECT/ID/checkpoints`. A run that is resumed from there goes on with the same run of W&B. Metrics are drawn over
/// `trainer/global_step`. Hyper-parameters keep their nesting.
///
/// Differences from Lightning: `offline` and `log_model` go together, since the file says which artifacts are to be uploaded;
/// artifacts are uploaded however a run ends; and nothing has to be called at the end, because each entry point of a trainer
/// ends the run, and the next one goes on with it.
///
/// ```
/// use fulgurite_fabric::loggers::{Logger, RunStatus, WandbLogger};
///
/// # let folder = tempfile::tempdir()?;
/// # let save_dir = folder.path();
/// let mut logger = WandbLogger::new("digits").save_dir(save_dir).name("wide").tags(["first"]).offline(true);
/// logger.log_metrics(&[("loss", 0.25)], 0)?;
/// logger.finalize(RunStatus::Success)?;
/// assert!(save_dir.join("wandb/latest-run/files").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct WandbLogger {
    options: WandbLoggerOptions,
    project: String,
    /// The run's identifier; empty before it starts.
    version: String,
    /// The folder of its checkpoints.
    folder: PathBuf,
    suggested: Option<String>,
    /// The user or team of the key; empty before the server was asked.
    viewer: String,
    /// Where values go between `start` and `finalize`.
    log: Option<RunLog>,
    /// The same of a run without a server after `finalize`: the entry points of a trainer write one file.
    ended: Option<RunLog>,
    checkpoints: Checkpoints,
    models: Models,
    system_logged: Option<Instant>,
    warned: HashSet<String>,
    warnings: Vec<String>,
}

impl From<WandbLoggerOptions> for WandbLogger {
    fn from(options: WandbLoggerOptions) -> WandbLogger {
        let project = options.project.clone().or_else(|| variable("WANDB_PROJECT"));
        WandbLogger {
            project: project.unwrap_or_else(|| DEFAULT_NAME.into()),
            version: String::new(),
            folder: PathBuf::new(),
            suggested: None,
            viewer: String::new(),
            log: None,
            ended: None,
            checkpoints: Checkpoints::default(),
            models: Models::default(),
            system_logged: None,
            warned: HashSet::new(),
            warnings: Vec::new(),
            options,
        }
    }
}

impl WandbLogger {
    /// A logger of a run in this project. Nothing is written or sent before the first call of a trainer or the first value.
    pub fn new(project: impl Into<String>) -> WandbLogger {
        WandbLoggerOptions { project: Some(project.into()), ..WandbLoggerOptions::default() }.into()
    }

    /// Labels of the run.
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> WandbLogger {
        self.options.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Logs a table, as Lightning's `log_table`: in each row a value for each column.
    ///
    /// # Errors
    ///
    /// Fails if a row has another length, or if the file cannot be written.
    ///
    /// ```
    /// use fulgurite_fabric::loggers::WandbLogger;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let mut logger = WandbLogger::new("digits").save_dir(folder.path()).offline(true);
    /// logger.log_table("wrong", &["file", "guess"], &[vec!["7.png".into(), 1.into()]], 100)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn log_table(
        &mut self,
        tag: &str,
        columns: &[&str],
        rows: &[Vec<Value>],
        step: i64,
    ) -> Result<(), LoggerError> {
        if let Some(row) = rows.iter().find(|row| row.len() != columns.len()) {
            let problem = format!(
                "the table `{tag}` has {} columns and a row of {} values; give each row a value for each column",
                columns.len(),
                row.len()
            );
            return Err(LoggerError::other(LOGGER, problem));
        }
        let names = columns.iter().map(|name| json::text(name)).collect::<Vec<_>>().join(", ");
        let cells = |row: &Vec<Value>| format!("[{}]", row.iter().map(json::to_json).collect::<Vec<_>>().join(", "));
        let data = rows.iter().map(cells).collect::<Vec<_>>().join(", ");
        let table = format!("{{\"columns\": [{names}], \"data\": [{data}]}}");
        self.medium(tag, "table", table.as_bytes(), "table.json", step, |file| {
            format!(
                "{{\"_type\": \"table-file\", \"path\": {}, \"sha256\": \"{}\", \"size\": {}, \"ncols\": {}, \"nrows\": {}, \"log_mode\": \"IMMUTABLE\"}}",
                json::text(&file.path), file.sha256, file.size, columns.len(), rows.len()
            )
        })
    }

    fn root(&self) -> &Path {
        self.options.save_dir.as_deref().or(self.options.dir.as_deref()).unwrap_or(Path::new("."))
    }

    /// The folder of the folder `wandb`.
    fn wandb_root(&self) -> PathBuf {
        let given = self.options.dir.clone().or_else(|| variable("WANDB_DIR").map(PathBuf::from));
        given.unwrap_or_else(|| self.root().to_owned())
    }

    fn chosen_mode(&self) -> Result<WandbMode, LoggerError> {
        if self.options.offline {
            return Ok(WandbMode::Offline);
        }
        let named = |name: &String| {
            let problem = format!("WANDB_MODE is {name:?}; set it to online, offline or disabled, or unset it");
            WandbMode::of_name(name).ok_or_else(|| LoggerError::other(LOGGER, problem))
        };
        let of_variable = variable("WANDB_MODE").as_ref().map(named).transpose();
        self.options.mode.map_or_else(|| Ok(of_variable?.unwrap_or(WandbMode::Online)), Ok)
    }

    fn chosen_resume(&self) -> Result<wandb::Resume, LoggerError> {
        let named = |name: &String| {
            let problem = format!("WANDB_RESUME is {name:?}; set it to allow, must, never or auto, or unset it");
            Resume::of_name(name).ok_or_else(|| LoggerError::other(LOGGER, problem))
        };
        let of_variable = variable("WANDB_RESUME").as_ref().map(named).transpose()?;
        Ok(match self.options.resume.or(of_variable) {
            Some(Resume::Must) => wandb::Resume::Must,
            Some(Resume::Never) => wandb::Resume::Never,
            Some(Resume::Allow | Resume::Auto) | None => wandb::Resume::Allow,
        })
    }

    fn given_run(&self) -> Option<String> {
        self.options.version.clone().or_else(|| self.options.id.clone()).or_else(|| variable("WANDB_RUN_ID"))
    }

    /// What is known of the run.
    fn info(&self) -> RunInfo {
        let options = &self.options;
        let or_variable =
            |given: &Option<String>, name: &str| given.clone().or_else(|| variable(name)).unwrap_or_default();
        let of_variable = variable("WANDB_TAGS").unwrap_or_default();
        let tags = of_variable.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned);
        let mut info = RunInfo::new(&self.version, &self.project);
        info.entity = or_variable(&options.entity, "WANDB_ENTITY");
        if info.entity.is_empty() {
            info.entity.clone_from(&self.viewer);
        }
        info.group = or_variable(&options.group, "WANDB_RUN_GROUP");
        info.job_type = or_variable(&options.job_type, "WANDB_JOB_TYPE");
        info.display_name = or_variable(&options.name, "WANDB_NAME");
        info.notes = or_variable(&options.notes, "WANDB_NOTES");
        info.sweep_id = variable("WANDB_SWEEP_ID").unwrap_or_default();
        info.tags = if options.tags.is_empty() { tags.collect() } else { options.tags.clone() };
        info.host = gethostname::gethostname().to_string_lossy().into_owned();
        info.git = Checkout::around_here().map(|checkout| (checkout.remote.unwrap_or_default(), checkout.commit));
        info
    }

    /// The run that is being logged. A loop of one's own has no trainer that starts it.
    fn log(&mut self) -> Result<Option<&mut RunLog>, LoggerError> {
        if self.log.is_none() {
            self.connect()?;
            self.start()?;
        }
        self.send_ready_models(false)?;
        Ok(self.log.as_mut())
    }

    /// The name in a row; `None` for one that W&B itself uses.
    fn key(&mut self, name: &str) -> Option<String> {
        let prefix = &self.options.prefix;
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
        if RESERVED.contains(&key.as_str()) {
            if self.warned.insert(key.clone()) {
                self.warnings
                    .push(format!("W&B uses the name {key:?} itself, so it is not logged; choose another one"));
            }
            return None;
        }
        Some(key)
    }

    fn row(&mut self, mut items: Vec<Item>, step: i64) -> Result<(), LoggerError> {
        items.push((GLOBAL_STEP.into(), step.to_string()));
        let Some(log) = self.log()? else { return Ok(()) };
        log.row(items).map_err(failed)
    }

    /// Writes a file, and a row that names it.
    fn medium(
        &mut self,
        tag: &str,
        kind: &str,
        bytes: &[u8],
        extension: &str,
        step: i64,
        value: impl FnOnce(&MediaFile) -> String,
    ) -> Result<(), LoggerError> {
        let Some(key) = self.key(tag) else { return Ok(()) };
        let Some(log) = self.log()? else { return Ok(()) };
        let file = put_media(log.folder(), kind, &key, log.next_row(), bytes, extension);
        let file = file.map_err(LoggerError::write(LOGGER, log.folder()))?;
        log.media(&file.path).map_err(failed)?;
        self.row(vec![(key, value(&file))], step)
    }

    /// Begins to read the checkpoints that are kept and not sent.
    fn read_models(&mut self) -> Result<(), LoggerError> {
        let Some(log) = &self.log else { return Ok(()) };
        let folder = log.folder().join("artifacts");
        // What W&B is to have of a run must be there until it is sent.
        let waiting = Waiting { folder: &folder, most: usize::MAX };
        for checkpoint in self.checkpoints.unsent(Some(waiting)) {
            let name = self.options.checkpoint_name.clone().unwrap_or_else(|| format!("model-{}", self.version));
            let added = self.models.add(checkpoint, log.info(), name, &folder);
            added.map_err(|error| LoggerError::other(LOGGER, error))?;
        }
        Ok(())
    }

    /// Logs the artifacts whose files are read.
    fn send_ready_models(&mut self, wait: bool) -> Result<(), LoggerError> {
        let Some(log) = &self.log else { return Ok(()) };
        for artifact in self.models.ready(wait) {
            match artifact {
                Ok(artifact) => log.artifact(artifact).map_err(failed)?,
                Err(problem) => self.warnings.push(problem),
            }
        }
        Ok(())
    }
}

impl Logger for WandbLogger {
    fn class(&self) -> &str {
        LOGGER
    }

    fn connect(&mut self) -> Result<(), LoggerError> {
        let given = self.given_run();
        let wrong = wrong_project(&self.project).or_else(|| given.as_deref().and_then(wrong_run_id));
        if let Some(problem) = wrong {
            return Err(LoggerError::other(LOGGER, problem));
        }
        if self.viewer.is_empty() && self.chosen_mode()? == WandbMode::Online {
            self.viewer = Server::from_env().and_then(|server| server.viewer()).map_err(failed)?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), LoggerError> {
        if self.log.is_some() {
            return Ok(());
        }
        if let Some(ended) = self.ended.take() {
            ended.go_on().map_err(failed)?;
            self.log = Some(ended);
            return Ok(());
        }
        // The entry points of a trainer are one run.
        let own = Some(self.version.clone()).filter(|id| !id.is_empty());
        let given = own.or_else(|| self.given_run()).or_else(|| self.suggested.take());
        self.version = given.unwrap_or_else(run_id);
        self.folder = self.root().join(&self.project).join(&self.version);
        self.log = match self.chosen_mode()? {
            WandbMode::Disabled => None,
            WandbMode::Offline => Some(RunLog::offline(&self.wandb_root(), self.info()).map_err(failed)?),
            WandbMode::Online => {
                let resume = self.chosen_resume()?;
                let server = Server::from_env().map_err(failed)?;
                Some(RunLog::online(&self.wandb_root(), self.info(), resume, server).map_err(failed)?)
            }
        };
        Ok(())
    }

    fn name(&self) -> &str {
        &self.project
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn save_dir(&self) -> Option<&Path> {
        Some(self.root())
    }

    /// The folder of checkpoints; none before the run is known. What is logged is in the folder `wandb`.
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
        let folders = fs::read_dir(self.root().join(&self.project)).into_iter().flatten().flatten();
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        match self.given_run() {
            Some(given) => names.filter(|name| *name == given).collect(),
            None => names.filter(|name| is_run_id(name)).collect(),
        }
    }

    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        let items: Vec<Item> =
            metrics.iter().filter_map(|(name, value)| Some((self.key(name)?, json_number(*value)))).collect();
        if items.is_empty() { Ok(()) } else { self.row(items, step) }
    }

    /// Writes them as other scalars, as Lightning does, and those that W&B has a place for also there.
    fn log_system(&mut self, stats: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        self.log_metrics(stats, step)?;
        if self.system_logged.is_some_and(|logged| logged.elapsed() < SYSTEM_EVERY) {
            return Ok(());
        }
        let items: Vec<Item> =
            stats.iter().filter_map(|(name, value)| Some((system_name(name)?.into(), json_number(*value)))).collect();
        if items.is_empty() {
            return Ok(());
        }
        self.system_logged = Some(Instant::now());
        let Some(log) = self.log()? else { return Ok(()) };
        log.stats(items).map_err(failed)
    }

    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError> {
        let items = params.iter().map(|(key, value)| (display(key), json::to_json(value))).collect();
        let Some(log) = self.log()? else { return Ok(()) };
        log.config(items).map_err(failed)
    }

    /// Logs a table with one cell.
    fn log_text(&mut self, tag: &str, text: &str, step: i64) -> Result<(), LoggerError> {
        self.log_table(tag, &["text"], &[vec![text.into()]], step)
    }

    fn log_image(&mut self, tag: &str, image: &Tensor, step: i64) -> Result<(), LoggerError> {
        let png = Png::encode(tag, image)?;
        self.medium(tag, "images", &png.encoded, "png", step, |file| {
            format!(
                "{{\"_type\": \"image-file\", \"path\": {}, \"sha256\": \"{}\", \"size\": {}, \"format\": \"png\", \"width\": {}, \"height\": {}}}",
                json::text(&file.path), file.sha256, file.size, png.width, png.height
            )
        })
    }

    /// Values that are not finite are left out.
    fn log_histogram(&mut self, tag: &str, values: &Tensor, step: i64) -> Result<(), LoggerError> {
        let Some(bins) = Bins::of(tag, values, BINS)? else {
            tracing::warn!("histogram `{tag}` at step {step} is skipped: none of its values is finite");
            return Ok(());
        };
        let Some(key) = self.key(tag) else { return Ok(()) };
        self.row(vec![(key, json::histogram(bins))], step)
    }

    fn after_save_checkpoint(&mut self, news: &CheckpointNews) -> Result<(), LoggerError> {
        if self.options.log_model == LogModel::Never || self.log()?.is_none() {
            return Ok(());
        }
        if Checkpoints::is_out_of_reach(news) && self.warned.insert("out of reach".into()) {
            self.warnings.push("checkpoints in an object store are not uploaded to W&B; write them to a local folder, or leave log_model out".into());
        }
        self.checkpoints.note(news);
        if self.options.log_model == LogModel::All || news.save_top_k < 0 { self.read_models() } else { Ok(()) }
    }

    fn take_warnings(&mut self) -> Vec<String> {
        if let Some(log) = &self.log {
            self.warnings.extend(log.take_warnings());
        }
        std::mem::take(&mut self.warnings)
    }

    fn stop_request(&mut self) -> Option<String> {
        let wants = self.log.as_ref().is_some_and(RunLog::wants_stop);
        wants.then(|| "it was stopped on its page of W&B".into())
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        self.send_ready_models(false)?;
        self.log.as_ref().map_or(Ok(()), |log| log.save().map_err(failed))
    }

    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError> {
        if self.options.log_model != LogModel::Never {
            self.read_models()?;
            self.send_ready_models(true)?;
        }
        let Some(log) = self.log.take() else { return Ok(()) };
        let patience = patience(status, self.options.finish_timeout);
        // A signal's code is that of SIGTERM.
        let code = match status {
            RunStatus::Success => 0,
            RunStatus::Failed => 1,
            RunStatus::Interrupted => 143,
        };
        if status == RunStatus::Interrupted && variable("SLURM_JOB_ID").is_some() {
            log.preempting().map_err(failed)?;
        }
        let place = log.folder().display().to_string();
        if !log.is_online() {
            log.end(code).map_err(failed)?;
            self.ended = Some(log);
            if self.warned.insert("offline".into()) {
                self.warnings
                    .push(format!("this run is in {place}; `wandb sync {place}` or `fulgurite sync {place}` sends it"));
            }
            return Ok(());
        }
        let finished = log.finish(code, patience).map_err(failed)?;
        self.warnings.extend(finished.warnings);
        if let Some(left) = finished.left {
            self.warnings.push(not_sent(&left, "values", &place));
        }
        Ok(())
    }
}

/// W&B's name of a statistic; `None` if it has no place for it.
fn system_name(name: &str) -> Option<&'static str> {
    Some(match name.rsplit('/').next()? {
        "cpu_percent" => "cpu",
        "cpu_vm_percent" => "memory_percent",
        "allocated_bytes.all.current" => "gpu.0.memoryAllocatedBytes",
        _ => return None,
    })
}

fn failed(error: TrackerError) -> LoggerError {
    LoggerError::other(LOGGER, error)
}

/// Whether it is an identifier that W&B or this program made, and no version of another logger.
fn is_run_id(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
