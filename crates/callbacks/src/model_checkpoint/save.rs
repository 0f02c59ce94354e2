//! One save: the name of the file, which others it replaces, and what is recorded about it.

use std::path::{Path, PathBuf};

use fulgurite_engine::config::Maximum;
use fulgurite_engine::{Error, Result, SaveRequest, Stage, TrainerState};
use fulgurite_fabric::loggers::CheckpointNews;
use fulgurite_torch::{Dict, Value};

use super::ledger::{Place, Save};
use super::naming::Template;
use super::paths::absolute;
use super::python_format::{Number, python_float};
use super::top_k::TopK;
use super::{INTERRUPTED, ModelCheckpoint, ModelCheckpointOptions, SaveLast, missing_monitor, python_str};

/// The subject of a save: the monitored value and the names derived from it, without version and extension.
pub(super) struct Candidate {
    current: Option<f64>,
    name: String,
    last_name: String,
    epoch: i64,
    step: i64,
    /// The first field of the name that has no value.
    unlogged: Option<String>,
    /// The same of the last name.
    last_unlogged: Option<String>,
}

impl Candidate {
    /// The value on rank zero: a step's value may differ between ranks, but there is one file.
    fn of_rank_zero(self, trainer: &TrainerState) -> Result<Candidate, Error> {
        if !trainer.is_distributed() {
            return Ok(self);
        }
        let mine = Dict::new()
            .with("current", self.current)
            .with("name", self.name.as_str())
            .with("last_name", self.last_name.as_str());
        let told = trainer.fabric().strategy().broadcast(Value::Dict(mine), 0)?;
        let Some(told) = told.as_dict() else { return Ok(self) };
        let name = |key: &str, mine: String| told.str(key).map_or(mine, str::to_owned);
        Ok(Candidate {
            current: told.float("current").ok(),
            name: name("name", self.name),
            last_name: name("last_name", self.last_name),
            ..self
        })
    }
}

/// A save to be requested.
pub(super) struct Plan {
    pub request: SaveRequest,
    place: Place,
    /// The name of the `last` checkpoint, if this is one.
    last: Option<PathBuf>,
}

impl ModelCheckpoint {
    /// The subject of a save at this moment.
    pub(super) fn candidate(&self, trainer: &mut TrainerState) -> Result<Candidate, Error> {
        // The current epoch, also after it is completed.
        let epoch = trainer.progress().epoch.current.ready.saturating_sub(1) as i64;
        let step = trainer.global_step() as i64;
        let metrics = trainer.callback_metrics()?;
        let logged = |name: &str| metrics.get(name).map(|value| value.to_f64());
        let (epoch, step) = (logged("epoch").map_or(epoch, |x| x as i64), logged("step").map_or(step, |x| x as i64));
        let value = |key: &str| match key {
            "epoch" => Number::Int(epoch),
            "step" => Number::Int(step),
            key => logged(key).map_or(Number::Int(0), Number::Float),
        };
        let current = match self.options.monitor.as_deref() {
            Some("epoch") => Some(epoch as f64),
            Some("step") => Some(step as f64),
            monitor => monitor.and_then(logged),
        };
        let equals = self.options.auto_insert_metric_name.then_some(self.options.checkpoint_equals_char.as_str());
        let render = |template: &str| Template::parse(template)?.render(equals, value);
        let filename = self.filename_template();
        let name = render(&filename).map_err(Error::Config)?;
        let is_unlogged = |key: &&str| !matches!(*key, "epoch" | "step") && logged(key).is_none();
        let unlogged = |template: &str| -> Result<Option<String>, Error> {
            let keys = Template::parse(template).map_err(Error::Config)?.keys().find(is_unlogged).map(str::to_owned);
            Ok(keys)
        };
        let (unlogged, last_unlogged) = (unlogged(&filename)?, unlogged(&self.options.checkpoint_name_last)?);
        let last_name = render(&self.options.checkpoint_name_last).map_err(Error::Config)?;
        Candidate { current, name, last_name, epoch, step, unlogged, last_unlogged }.of_rank_zero(trainer)
    }

    pub(super) fn filename_template(&self) -> String {
        if self.options.filename.is_empty() {
            format!("{{epoch}}{}{{step}}", self.options.checkpoint_join_char)
        } else {
            self.options.filename.clone()
        }
    }

    /// Plans a checkpoint if it is among the best, or the latest without a monitor. Otherwise `None`.
    pub(super) fn save_if_top_k(
        &mut self,
        trainer: &mut TrainerState,
        candidate: &Candidate,
    ) -> Result<Option<Plan>, Error> {
        if self.options.keeps_none() {
            return Ok(None);
        }
        let Some(monitor) = self.options.monitor.clone() else { return self.save_latest(trainer, candidate).map(Some) };
        let Some(current) = candidate.current else {
            let missing = missing_monitor(trainer, "ModelCheckpoint", &monitor);
            if trainer.has_validated() || trainer.stage() == Stage::Validate {
                return Err(missing);
            }
            trainer.warn(&format!("{missing} (so nothing is saved yet)"));
            return Ok(None);
        };
        let mut top = self.kept().top.clone();
        // The trigger fires again unless that checkpoint was better.
        let again = self.written_at_this_step(trainer, &candidate.name).filter(|path| !top.has_better(path, current));
        top.forget(again.as_slice());
        if top.accepts(current) {
            return self.save_best(trainer, candidate, &monitor, current, top, again).map(Some);
        }
        if self.options.verbose {
            let Candidate { epoch, step, .. } = candidate;
            let k = top.k.finite().unwrap_or(top.models.len() as u64);
            trainer.print(&format!("Epoch {epoch}, global step {step}: {} was not in top {k}", python_str(&monitor)));
        }
        Ok(None)
    }

    fn save_best(
        &self,
        trainer: &mut TrainerState,
        candidate: &Candidate,
        monitor: &str,
        current: f64,
        mut top: TopK,
        again: Option<PathBuf>,
    ) -> Result<Plan, Error> {
        let evicted = top.make_room();
        let path = self.free_path(trainer, candidate, again.as_ref().or(evicted.last()).map(PathBuf::as_path))?;
        let current = top.insert(&path, current);
        if self.options.verbose {
            let Candidate { epoch, step, .. } = candidate;
            let k = top.k.finite().unwrap_or(top.models.len() as u64);
            let best = top.best().map_or(current, |(_, score)| *score);
            trainer.print(&format!(
                "Epoch {epoch}, global step {step}: {} reached {current:.5} (best {best:.5}), saving model to {} as top {k}",
                python_str(monitor),
                python_str(&path.to_string_lossy())
            ));
        }
        let mut request = SaveRequest::new(&path);
        request.remove.extend(evicted.iter().filter(|old| self.may_remove(trainer, old, &path)).cloned());
        Ok(Plan { request, place: Place::Ranked { score: current, evicted }, last: None })
    }

    fn save_latest(&self, trainer: &mut TrainerState, candidate: &Candidate) -> Result<Plan, Error> {
        let previous = self.kept().best_model_path.as_deref();
        let again = self.written_at_this_step(trainer, &candidate.name);
        let path = self.free_path(trainer, candidate, again.as_deref().or(previous))?;
        let mut request = SaveRequest::new(&path);
        let removable =
            previous.filter(|old| self.options.save_top_k == Maximum::Of(1) && self.may_remove(trainer, old, &path));
        request.remove.extend(removable.map(Path::to_path_buf));
        Ok(Plan { request, place: Place::Latest, last: None })
    }

    /// A checkpoint named by the template, outside the ranking.
    pub(super) fn save_anyway(&self, trainer: &mut TrainerState, candidate: &Candidate) -> Result<Plan, Error> {
        let request = SaveRequest::new(self.free_path(trainer, candidate, None)?);
        Ok(Plan { request, place: Place::Outside, last: None })
    }

    /// Adds `last.ckpt` to the planned save, or plans it alone.
    pub(super) fn with_last(
        &self,
        trainer: &mut TrainerState,
        candidate: &Candidate,
        plan: Option<Plan>,
    ) -> Result<Option<Plan>, Error> {
        let Some(save_last) = self.options.save_last else { return Ok(plan) };
        let link = save_last == SaveLast::Link && !self.options.keeps_none();
        if plan.is_none() && link && self.kept().last_checkpoint_saved.is_some() {
            // The link leads to the newest checkpoint already.
            return Ok(None);
        }
        let beside = plan.as_ref().map(|plan| plan.request.path.as_path());
        let previous = self.kept().last_model_path.as_deref();
        warn_of_unlogged(trainer, "checkpoint_name_last", candidate.last_unlogged.as_deref());
        let again = self.written_at_this_step(trainer, &candidate.last_name);
        let path = self.free_path_beside(trainer, &candidate.last_name, again.as_deref().or(previous), beside)?;
        let mut plan = match plan {
            Some(Plan { mut request, place, .. }) => {
                (request.also, request.link) = (Some(path.clone()), link);
                Plan { request, place, last: None }
            }
            None => Plan { request: SaveRequest::new(&path), place: Place::Outside, last: None },
        };
        // First, because it may be a link to one of the others.
        let removable = previous.filter(|old| self.may_remove(trainer, old, &path));
        plan.request.remove.splice(0..0, removable.map(Path::to_path_buf));
        plan.last = Some(path);
        Ok(Some(plan))
    }

    /// Passes a request to the trainer, which writes the file as soon as the hook returns.
    pub(super) fn submit(&mut self, trainer: &mut TrainerState, plan: Option<Plan>) {
        let Some(Plan { mut request, place, last }) = plan else { return };
        request.weights_only = self.options.save_weights_only;
        request.on_error = self.options.on_save_error;
        for overdue in std::mem::take(&mut self.ledger.overdue) {
            let is_new = overdue == request.path || request.also.as_ref() == Some(&overdue);
            if !is_new && !request.remove.contains(&overdue) {
                request.remove.push(overdue);
            }
        }
        let (score, is_last) = (place.score(), last.is_some());
        self.ledger.add(Save { commit: request.commit(), place, last, step: trainer.global_step() });
        request.news = Some(self.news(trainer, &request.path, score, is_last));
        trainer.request_checkpoint(request);
    }

    /// What loggers learn of a checkpoint.
    fn news(&self, trainer: &TrainerState, path: &Path, score: Option<f64>, is_last: bool) -> CheckpointNews {
        let (kept, options) = (self.kept(), &self.options);
        let mut news = CheckpointNews::default();
        news.callback = self.lightning_state_key();
        news.path = path.to_owned();
        (news.step, news.epoch) = (trainer.global_step(), trainer.current_epoch());
        // `last` alone has the value of the last one that was ranked, as in Lightning.
        news.score = score.or(kept.current_score);
        news.is_best = kept.best_model_path.as_deref() == Some(path);
        news.is_last = is_last;
        news.last.clone_from(&kept.last_model_path);
        news.best.clone_from(&kept.best_model_path);
        news.best_score = kept.best_model_score;
        news.best_k.clone_from(&kept.top.models);
        news.monitor.clone_from(&options.monitor);
        news.mode = options.mode;
        news.save_last = options.save_last.is_some();
        news.last_is_link = options.save_last == Some(SaveLast::Link);
        news.save_top_k = options.save_top_k.finite().map_or(-1, |k| i64::try_from(k).unwrap_or(i64::MAX));
        news.save_weights_only = options.save_weights_only;
        news.every_n_train_steps = self.every_n_train_steps_or_never();
        news.every_n_epochs = self.every_n_epochs_or_never();
        news
    }

    /// The name of the candidate in the folder, with the first version suffix that is not taken; `own` may be overwritten.
    fn free_path(
        &self,
        trainer: &mut TrainerState,
        candidate: &Candidate,
        own: Option<&Path>,
    ) -> Result<PathBuf, Error> {
        warn_of_unlogged(trainer, "filename", candidate.unlogged.as_deref());
        self.free_path_beside(trainer, &candidate.name, own, None)
    }

    fn free_path_beside(
        &self,
        trainer: &mut TrainerState,
        name: &str,
        own: Option<&Path>,
        beside: Option<&Path>,
    ) -> Result<PathBuf, Error> {
        let folder = self.dirpath.clone().unwrap_or_default();
        let ModelCheckpointOptions { checkpoint_join_char: join_char, file_extension, .. } = &self.options;
        let mut path = folder.join(format!("{name}{file_extension}"));
        let mut version = 1;
        while self.options.enable_version_counter
            && Some(path.as_path()) != own
            && (Some(path.as_path()) == beside || is_checkpoint_taken(trainer, &path)?)
        {
            path = folder.join(format!("{name}{join_char}v{version}{file_extension}"));
            version += 1;
        }
        Ok(path)
    }

    /// The file of a name if the run wrote it at this step before it was resumed from an earlier one.
    fn written_at_this_step(&self, trainer: &TrainerState, name: &str) -> Option<PathBuf> {
        let path = self.dirpath.as_deref()?.join(format!("{name}{}", self.options.file_extension));
        let step = self.written_later.get(&path)?;
        (u64::try_from(*step) == Ok(trainer.global_step())).then_some(path)
    }

    /// The `last` checkpoints of a folder, of any version, and that of an interrupted run.
    pub(super) fn find_last(&self, trainer: &mut TrainerState, folder: &Path) -> Vec<PathBuf> {
        let Ok(last) = Template::parse(&self.options.checkpoint_name_last) else { return Vec::new() };
        let is_last = |path: &Path| {
            let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
            name.and_then(|name| name.strip_suffix(&self.options.file_extension)).is_some_and(|name| {
                last.may_have_made(name) || self.unversioned(name).is_some_and(|name| last.may_have_made(name))
            }) || name == Some(INTERRUPTED)
        };
        let files = trainer.checkpoint_io().list_below(folder, self.depth_of_names()).unwrap_or_default();
        files.into_iter().map(|file| file.path).filter(|path| is_last(path)).collect()
    }

    /// Whether `old` may be removed: it must not be the new file, the checkpoint the run was resumed from, or outside
    /// the folder. A link may always be removed.
    fn may_remove(&self, trainer: &TrainerState, old: &Path, new: &Path) -> bool {
        let is = |other: &Path| absolute(other) == absolute(old);
        old != new
            && (old.is_symlink() || !trainer.resumed_from().is_some_and(is))
            && self.dirpath.as_deref().is_some_and(|folder| absolute(old).starts_with(absolute(folder)))
    }

    /// Writes the checkpoints kept and their values to a YAML file, `best_k_models.yaml` in their folder by default,
    /// and returns its path.
    ///
    /// # Errors
    ///
    /// Fails if the folder is not known yet or cannot be written to.
    pub fn to_yaml(&self, path: Option<&Path>) -> Result<PathBuf, Error> {
        let path = match (path, &self.dirpath) {
            (Some(path), _) => path.to_path_buf(),
            (None, Some(folder)) => folder.join("best_k_models.yaml"),
            (None, None) => {
                return Err(Error::Config(
                    "to_yaml was called before a run determined the folder of the checkpoints; give a path, or fit first".into(),
                ));
            }
        };
        let mut yaml = String::new();
        for (model, score) in &self.kept().top.models {
            let score = python_float(*score).replace("inf", ".inf");
            yaml.push_str(&format!("{:?}: {score}\n", model.to_string_lossy()));
        }
        if yaml.is_empty() {
            yaml.push_str("{}\n");
        }
        std::fs::write(&path, yaml).map_err(|error| Error::Checkpoint {
            path: path.clone(),
            problem: format!("the list of the best checkpoints cannot be written: {error}; choose another path"),
        })?;
        Ok(path)
    }
}

/// Whether a file exists, or another callback requested it and it is about to be written.
fn is_checkpoint_taken(trainer: &mut TrainerState, path: &Path) -> Result<bool, Error> {
    Ok(trainer.is_checkpoint_requested(path) || trainer.checkpoint_io().exists(path)?)
}

/// Warns that the name of a file has a field without a value.
fn warn_of_unlogged(trainer: &TrainerState, option: &str, key: Option<&str>) {
    if let Some(key) = key {
        trainer.warn(&format!(
            "the file name of ModelCheckpoint has the field `{key}`, of which no value was logged before the save, so it is written as 0; correct `{option}`, or log the value earlier"
        ));
    }
}
