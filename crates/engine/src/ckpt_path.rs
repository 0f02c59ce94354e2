//! Resolves `ckpt_path` to a checkpoint, and handles damaged files.

mod configuration;
mod files;
mod logs;
mod search;

use std::path::{Path, PathBuf};

use fulgurite_fabric::{FabricError, StoredFile};
use fulgurite_torch::Value;

pub(crate) use configuration::Configuration;
use files::{EXTENSION, folders_of, is_checkpoint};
use search::Wanted;

use crate::checkpointer::Checkpointer;
use crate::data_module::Source;
use crate::engine::Engine;
use crate::error::Error;
use crate::module::LightningModule;
use crate::stage::TrainerFn;
use crate::state::TrainerState;

/// The prefix of checkpoints for the next run of a scheduler's job, followed by a number.
const HPC_PREFIX: &str = "hpc_ckpt_";

/// A root folder holds experiments, those hold runs, and those hold `checkpoints`.
const DEPTH_OF_RUNS: usize = 3;

/// How many folders the names of another program's checkpoints have at most, as `val/loss=0.25` has one.
const DEPTH_OF_NAMES: usize = 2;

impl Engine {
    /// The file that `ckpt_path` resolves to; `None` to start from scratch.
    pub(crate) fn resolve_ckpt_path(
        &mut self,
        ckpt_path: Option<String>,
        configuration: &Configuration,
    ) -> Result<Option<PathBuf>, Error> {
        let Some(ckpt_path) = ckpt_path else { return self.default_checkpoint() };
        let wrong = |problem: &str| Err(Error::Config(format!("ckpt_path={ckpt_path:?} was requested, but {problem}")));
        let path = match ckpt_path.as_str() {
            "" => return wrong(&format!("an empty path names no checkpoint; {}", self.without_ckpt_path())),
            "best" if self.state.config.fast_dev_run > 0 => {
                return wrong("fast_dev_run writes no checkpoints; give a path, or leave ckpt_path out");
            }
            "best" => match self.best_checkpoint() {
                Some(best) => best,
                None => {
                    return wrong("no checkpoint has been written; fit first with a `ModelCheckpoint`, or give a path");
                }
            },
            "last" => {
                let last = self.last_checkpoints(|_| true)?;
                if last.is_empty() && self.needs_checkpoint() {
                    return wrong(
                        "there is no last checkpoint; `ModelCheckpoint::save_last` writes one, or give a path",
                    );
                }
                if last.is_empty() {
                    self.state.warn("ckpt_path=\"last\" was requested, but there is no last checkpoint, so this is a fresh start; `ModelCheckpoint::save_last` writes one");
                }
                return self.choose_path(last);
            }
            "hpc" => {
                let all = self.state.hpc_checkpoints()?;
                if all.is_empty() {
                    let root = self.state.default_root_dir();
                    return wrong(&format!("there is no {HPC_PREFIX}N{EXTENSION} in {}; give a path", root.display()));
                }
                return self.go_on(all, None);
            }
            "auto" => {
                let rehearsal = self.state.config.fast_dev_run > 0;
                let all = if rehearsal { Vec::new() } else { self.own_checkpoints()? };
                let nothing =
                    if all.is_empty() { "there is no checkpoint yet" } else { "there is no checkpoint to resume from" };
                return self.resume_or_start(all, Some(configuration), nothing);
            }
            registry if registry == "registry" || registry.starts_with("registry:") => {
                return wrong("there is no model registry here; download the file, and give its path");
            }
            folder if Path::new(folder).is_dir() => {
                let depth = DEPTH_OF_RUNS + self.depth_of_names().max(DEPTH_OF_NAMES);
                let files = self.state.fabric.checkpoint_io().list_below(Path::new(folder), depth)?;
                let files = files.into_iter().filter(|file| self.names_checkpoint(&file.path)).collect();
                return self.resume_or_start(files, None, &format!("there is no checkpoint in {folder}"));
            }
            path => PathBuf::from(path),
        };
        if !self.state.fabric.checkpoint_io().exists(&path)? {
            let is_word = path.components().count() == 1 && path.extension().is_none();
            let words = if is_word { "write a run folder, best, last, hpc or auto, " } else { "" };
            let problem = format!("there is no such file; {words}check the path, or {}", self.without_ckpt_path());
            return Err(Error::Checkpoint { path, problem });
        }
        Ok(Some(path))
    }

    fn is_fit(&self) -> bool {
        self.state.entry_point() == TrainerFn::Fit
    }

    /// Whether it is an error that the requested checkpoint does not exist. A fit starts from scratch, and a rehearsal
    /// with `fast_dev_run` has no checkpoints.
    fn needs_checkpoint(&self) -> bool {
        !self.is_fit() && self.state.config.fast_dev_run == 0
    }

    /// What to do to use no checkpoint.
    fn without_ckpt_path(&self) -> &'static str {
        match self.is_fit() {
            true => "leave ckpt_path out to start from scratch",
            false => "leave ckpt_path out to use the module as it is",
        }
    }

    /// The checkpoint of a fit without `ckpt_path`: that of the previous run of the scheduler's job, or one written on
    /// an error, if a callback does that.
    fn default_checkpoint(&mut self) -> Result<Option<PathBuf>, Error> {
        if !self.is_fit() || self.state.config.fast_dev_run > 0 {
            return Ok(None);
        }
        if let Some(job) = self.state.shutdown.job().cloned() {
            let all = self.state.hpc_checkpoints()?;
            if let Some(path) = self.go_on(all, None)? {
                self.state
                    .print(&format!("job {job} resumes from {}; set ckpt_path to start from another", path.display()));
                return Ok(Some(path));
            }
        }
        let left = self.last_checkpoints(|checkpointer| checkpointer.resumes_by_itself())?;
        let Some(left) = self.choose_path(left)? else { return Ok(None) };
        self.state.warn(&format!(
            "an error ended the last run, so this one resumes from {}; set ckpt_path to start from another",
            left.display()
        ));
        Ok(Some(left))
    }

    /// The best checkpoint of the first callback that has one.
    fn best_checkpoint(&self) -> Option<PathBuf> {
        let best: Vec<&Path> = self.checkpointers().filter_map(|checkpointer| checkpointer.best_model_path()).collect();
        if best.len() > 1 {
            self.state.warn("ckpt_path=\"best\" was requested, but several callbacks have a best checkpoint: that of the first is used");
        }
        best.first().map(|path| path.to_path_buf())
    }

    /// The last checkpoints of the given callbacks.
    fn last_checkpoints(&mut self, which: impl Fn(&dyn Checkpointer) -> bool) -> Result<Vec<StoredFile>, Error> {
        let Engine { state, callbacks, .. } = self;
        let checkpointers = callbacks.iter().filter_map(|callback| callback.checkpointer());
        let checkpointers = checkpointers.filter(|checkpointer| which(*checkpointer));
        let named: Vec<PathBuf> = checkpointers.flat_map(|checkpointer| checkpointer.last_checkpoints(state)).collect();
        let files = state.list_all(folders_of(&named))?;
        Ok(files.into_iter().filter(|file| named.contains(&file.path)).collect())
    }

    /// Every checkpoint of runs that this one may continue with.
    fn own_checkpoints(&mut self) -> Result<Vec<StoredFile>, Error> {
        let depth = self.depth_of_names();
        let mut folders: Vec<PathBuf> = Vec::new();
        if let Some(logger) = self.state.fabric.loggers.first() {
            let root = logger.save_dir().map(|dir| dir.join(logger.name()));
            let runs = logger.runs().into_iter().filter_map(|run| Some(root.as_ref()?.join(run)));
            let mut runs: Vec<PathBuf> = runs.collect();
            // A logger without numbered versions writes all runs to one folder.
            runs.extend(logger.log_dir().filter(|_| runs.is_empty()).map(Path::to_path_buf));
            folders.extend(runs.into_iter().map(|run| run.join("checkpoints")));
        } else {
            folders.push(self.state.default_root_dir().join("checkpoints"));
        }
        folders.extend(self.folders_of_callbacks());
        let mut files = Vec::new();
        for folder in folders {
            let below = self.state.fabric.checkpoint_io().list_below(&folder, depth)?;
            files.extend(below.into_iter().filter(|file| self.names_checkpoint(&file.path)));
        }
        files.extend(self.state.hpc_checkpoints()?);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Ok(files)
    }

    /// The folders that callbacks are configured to write to.
    fn folders_of_callbacks(&self) -> Vec<PathBuf> {
        let named: Vec<PathBuf> =
            self.checkpointers().filter_map(|checkpointer| checkpointer.interrupted_checkpoint()).collect();
        folders_of(&named)
    }

    /// The number of folder levels in the names of this run's checkpoints.
    fn depth_of_names(&self) -> usize {
        self.checkpointers().map(|checkpointer| checkpointer.checkpoint_depth()).max().unwrap_or(0)
    }

    fn names_checkpoint(&self, path: &Path) -> bool {
        is_checkpoint(path) || self.checkpointers().any(|checkpointer| checkpointer.names_checkpoint(path))
    }

    /// The intact file with the most progress, of the run that this trainer has trained, or else of the one that has written
    /// last. Others may have left theirs in the folder.
    fn choose_path(&mut self, files: Vec<StoredFile>) -> Result<Option<PathBuf>, Error> {
        let mut candidates = self.state.rank(files);
        match self.state.run_id() {
            Some(run_id) => candidates.prefer_run(run_id),
            None => candidates.prefer_newest_run(),
        }
        Ok(self.state.choose(candidates, Wanted::default())?.map(|chosen| chosen.path))
    }

    /// The intact checkpoint with the most progress that this entry point can start from, of `configuration` if given.
    /// The loggers continue in the folders of the run that wrote it.
    fn go_on(
        &mut self,
        files: Vec<StoredFile>,
        configuration: Option<&Configuration>,
    ) -> Result<Option<PathBuf>, Error> {
        let candidates = self.state.rank(files);
        let wanted = Wanted { resumable: self.is_fit(), configuration };
        let Some(chosen) = self.state.choose(candidates, wanted)? else { return Ok(None) };
        let mut own_folders = self.folders_of_callbacks();
        if hpc_number(&chosen.path).is_some() {
            own_folders.push(self.state.default_root_dir());
        }
        self.state.continue_logs(&chosen.path, &chosen.checkpoint, &own_folders);
        Ok(Some(chosen.path))
    }

    fn resume_or_start(
        &mut self,
        files: Vec<StoredFile>,
        configuration: Option<&Configuration>,
        nothing: &str,
    ) -> Result<Option<PathBuf>, Error> {
        let found = self.go_on(files, configuration)?;
        if found.is_none() && self.needs_checkpoint() {
            return Err(Error::Config(format!("{nothing}; give the path of one, or {}", self.without_ckpt_path())));
        }
        if found.is_none() {
            self.state.print(&format!("{nothing}, so this is a fresh start"));
        }
        Ok(found)
    }
}

impl Configuration {
    /// The configuration of a run of `module` on `data`.
    pub(crate) fn of<M: LightningModule>(
        state: &TrainerState,
        module: &M,
        data: &Source<'_, M::Batch>,
    ) -> Result<Configuration, Error> {
        Ok(Configuration::new(state.hparams_of(module)?, state.hparams_of_data(data)?))
    }
}

impl TrainerState {
    /// Reads a checkpoint. If it is damaged, the error names the one to use instead.
    pub(crate) fn load_checkpoint(&mut self, path: &Path) -> Result<Value, Error> {
        let error = match self.fabric.load_checkpoint(path) {
            Ok(checkpoint) => {
                self.saves.set_loaded_from(path);
                return Ok(checkpoint);
            }
            Err(error) => error,
        };
        let beside = self.list_all(folders_of(&[path.to_path_buf()])).unwrap_or_default();
        let beside = beside.into_iter().filter(|file| is_checkpoint(&file.path) && file.path != path);
        let intact = self.furthest_intact(beside);
        Err(match (error, intact) {
            (FabricError::Checkpoint { path, message }, Some(intact)) => Error::Checkpoint {
                path,
                problem: format!(
                    "{message}; the intact checkpoint with the most progress beside it is {}",
                    intact.display()
                ),
            },
            (error, _) => error.into(),
        })
    }

    /// The file in which a scheduler's job is saved for its next run: one above the highest existing number.
    pub(crate) fn next_hpc_path(&mut self) -> Result<PathBuf, Error> {
        let numbers = self.hpc_checkpoints()?.into_iter().filter_map(|file| hpc_number(&file.path));
        let highest = numbers.max().unwrap_or(0);
        Ok(self.default_root_dir().join(format!("{HPC_PREFIX}{}{EXTENSION}", highest.saturating_add(1))))
    }

    /// The checkpoints of earlier runs of the job.
    fn hpc_checkpoints(&mut self) -> Result<Vec<StoredFile>, Error> {
        let root = self.default_root_dir();
        let files = self.fabric.checkpoint_io().list(&root)?;
        Ok(files.into_iter().filter(|file| hpc_number(&file.path).is_some()).collect())
    }

    fn list_all(&mut self, folders: Vec<PathBuf>) -> Result<Vec<StoredFile>, Error> {
        let mut files: Vec<StoredFile> = Vec::new();
        for folder in folders {
            for file in self.fabric.checkpoint_io().list(&folder)? {
                if files.iter().all(|known| known.path != file.path) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

fn hpc_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(HPC_PREFIX)?.strip_suffix(EXTENSION)?.parse().ok()
}
