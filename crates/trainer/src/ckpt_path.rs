//! Which checkpoint `ckpt_path` means, and what is done where it is damaged.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use fulgurite_fabric::{FabricError, StoredFile};
use fulgurite_torch::{Dict, Value};

use crate::callbacks::{Callback, Role};
use crate::engine::Engine;
use crate::error::Error;
use crate::progress::ResumePoint;
use crate::state::{TrainerFn, TrainerState};

const EXTENSION: &str = ".ckpt";

/// Of checkpoints that the next run of a scheduler's job goes on from, followed by a number.
const HPC_PREFIX: &str = "hpc_ckpt_";

impl Engine {
    /// The file that `ckpt_path` means; `None` for a start without one.
    pub(crate) fn resolve_ckpt_path(&mut self, ckpt_path: Option<String>) -> Result<Option<PathBuf>, Error> {
        let Some(ckpt_path) = ckpt_path else { return self.default_checkpoint() };
        let wrong = |problem: &str| Err(Error::Config(format!("ckpt_path={ckpt_path:?} was asked for, and {problem}")));
        let path = match ckpt_path.as_str() {
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
                if last.is_empty() {
                    self.state.warn("ckpt_path=\"last\" was asked for, and there is no last checkpoint, so this is a fresh start; `ModelCheckpoint::save_last` writes one");
                }
                return self.newest_whole(last);
            }
            "hpc" => {
                let all = self.state.hpc_checkpoints()?;
                if all.is_empty() {
                    let root = self.state.default_root_dir();
                    return wrong(&format!("there is no {HPC_PREFIX}N{EXTENSION} in {}; give a path", root.display()));
                }
                return self.continue_newest(all);
            }
            "auto" => {
                let all = if self.state.config.fast_dev_run > 0 { Vec::new() } else { self.own_checkpoints()? };
                return self.continue_or_start(all, "there is no checkpoint yet");
            }
            registry if registry == "registry" || registry.starts_with("registry:") => {
                return wrong("there is no model registry here; download the file, and give its path");
            }
            folder if Path::new(folder).is_dir() => {
                let all = self.state.checkpoints_below(Path::new(folder))?;
                return self.continue_or_start(all, &format!("there is no checkpoint in {folder}"));
            }
            path => PathBuf::from(path),
        };
        if !self.state.fabric.checkpoint_io().exists(&path)? {
            let problem = "there is no such file; check the path, or leave ckpt_path out to start afresh".into();
            return Err(Error::Checkpoint { path, problem });
        }
        Ok(Some(path))
    }

    /// Where a fit starts that was given no checkpoint: where the scheduler's last run of the job was, or from what an
    /// error left, if a callback is there for that.
    fn default_checkpoint(&mut self) -> Result<Option<PathBuf>, Error> {
        if self.state.entry != TrainerFn::Fit || self.state.config.fast_dev_run > 0 {
            return Ok(None);
        }
        if let Some(job) = self.state.leaving.job.clone() {
            let all = self.state.hpc_checkpoints()?;
            if let Some(path) = self.continue_newest(all)? {
                self.state
                    .print(&format!("job {job} goes on from {}; set ckpt_path to start from another", path.display()));
                return Ok(Some(path));
            }
        }
        let left = self.last_checkpoints(|callback| callback.resumes_by_itself())?;
        let Some(left) = self.newest_whole(left)? else { return Ok(None) };
        self.state.warn(&format!(
            "an error ended the last run, so this one goes on from {}; set ckpt_path to start from another",
            left.display()
        ));
        Ok(Some(left))
    }

    fn checkpoint_callbacks(&self) -> impl Iterator<Item = &dyn Callback> {
        self.callbacks.iter().map(Box::as_ref).filter(|callback| callback.role() == Role::Checkpoint)
    }

    /// The best checkpoint of the first callback that has one.
    fn best_checkpoint(&self) -> Option<PathBuf> {
        let best: Vec<&Path> = self.checkpoint_callbacks().filter_map(Callback::best_model_path).collect();
        if best.len() > 1 {
            self.state.warn("ckpt_path=\"best\" was asked for, and several callbacks have a best checkpoint: that of the first is taken");
        }
        best.first().map(|path| path.to_path_buf())
    }

    /// The last checkpoints of some callbacks, newest first.
    fn last_checkpoints(&mut self, which: impl Fn(&dyn Callback) -> bool) -> Result<Vec<PathBuf>, Error> {
        let Engine { state, callbacks } = self;
        let callbacks = callbacks.iter().map(Box::as_ref);
        let callbacks = callbacks.filter(|callback| callback.role() == Role::Checkpoint && which(*callback));
        let named: Vec<PathBuf> = callbacks.flat_map(|callback| callback.last_checkpoints(state)).collect();
        let files = state.list_all(folders_of(&named))?;
        Ok(newest_first(files.into_iter().filter(|file| named.contains(&file.path))))
    }

    /// Every checkpoint of runs that this one may go on with, newest first.
    fn own_checkpoints(&mut self) -> Result<Vec<PathBuf>, Error> {
        let state = &self.state;
        let mut folders: Vec<PathBuf> = Vec::new();
        if let Some(logger) = state.fabric.loggers.first() {
            let root = logger.save_dir().map(|dir| dir.join(logger.name()));
            let runs = logger.runs().into_iter().filter_map(|run| Some(root.as_ref()?.join(run).join("checkpoints")));
            folders.extend(runs);
        } else {
            folders.push(state.default_root_dir().join("checkpoints"));
        }
        let named: Vec<PathBuf> = self.checkpoint_callbacks().filter_map(Callback::interrupted_checkpoint).collect();
        folders.extend(folders_of(&named));
        let hpc = self.state.hpc_checkpoints()?;
        let files = self.state.list_all(folders)?;
        let files = files.into_iter().filter(|file| is_checkpoint(&file.path));
        let hpc_files = self.state.list_all(folders_of(&hpc))?;
        let hpc_files = hpc_files.into_iter().filter(|file| hpc.contains(&file.path));
        Ok(newest_first(files.chain(hpc_files)))
    }

    /// The first of `candidates`, which are given newest first, that is whole; with a warning for each that is not. Where
    /// none is, the newest whole checkpoint beside them. `None` of none.
    fn newest_whole(&mut self, candidates: Vec<PathBuf>) -> Result<Option<PathBuf>, Error> {
        let Some(newest) = candidates.first().cloned() else { return Ok(None) };
        if let Some(whole) = candidates.iter().find(|path| self.state.is_whole(path)) {
            return Ok(Some(whole.clone()));
        }
        let beside = self.state.list_all(folders_of(&candidates))?;
        let beside = newest_first(beside.into_iter().filter(|file| is_checkpoint(&file.path)));
        let beside = beside.into_iter().filter(|path| !candidates.contains(path));
        if let Some(whole) = beside.into_iter().find(|path| self.state.is_whole(path)) {
            return Ok(Some(whole));
        }
        let problem = "is damaged, and there is no whole checkpoint beside it; bring one back from a backup, or move what is damaged away to start afresh".into();
        Err(Error::Checkpoint { path: newest, problem })
    }

    /// As [`newest_whole`](Engine::newest_whole), without those of weights alone for a fit; and the loggers go on in the
    /// folders of the run that wrote it.
    fn continue_newest(&mut self, mut candidates: Vec<PathBuf>) -> Result<Option<PathBuf>, Error> {
        while let Some(path) = self.newest_whole(candidates.clone())? {
            let loaded = self.state.fabric.checkpoint_io().load(&path)?;
            let Value::Dict(checkpoint) = loaded else { return Ok(Some(path)) };
            let can_go_on = checkpoint.get("optimizer_states").is_some() || self.state.entry != TrainerFn::Fit;
            if can_go_on || !candidates.contains(&path) {
                self.state.continue_logs(&path, &checkpoint);
                return Ok(Some(path));
            }
            candidates.retain(|candidate| *candidate != path);
        }
        Ok(None)
    }

    fn continue_or_start(&mut self, candidates: Vec<PathBuf>, nothing: &str) -> Result<Option<PathBuf>, Error> {
        let found = self.continue_newest(candidates)?;
        if found.is_none() {
            self.state.print(&format!("{nothing}, so this is a fresh start"));
        }
        Ok(found)
    }
}

impl TrainerState {
    /// Reads a checkpoint. Of a damaged one the error tells which to take instead.
    pub(crate) fn load_checkpoint(&mut self, path: &Path) -> Result<Value, Error> {
        let error = match self.fabric.checkpoint_io().load(path) {
            Ok(checkpoint) => return Ok(checkpoint),
            Err(error) => error,
        };
        let beside = self.list_all(folders_of(&[path.to_path_buf()])).unwrap_or_default();
        let beside = newest_first(beside.into_iter().filter(|file| is_checkpoint(&file.path) && file.path != path));
        let whole = beside.into_iter().find(|other| self.fabric.checkpoint_io().verify(other).is_ok());
        Err(match (error, whole) {
            (FabricError::Checkpoint { path, message }, Some(whole)) => Error::Checkpoint {
                path,
                problem: format!("{message}; the newest whole checkpoint beside it is {}", whole.display()),
            },
            (error, _) => error.into(),
        })
    }

    /// Where a run of a scheduler's job is saved for the next: after the highest number that is there.
    pub(crate) fn next_hpc_path(&mut self) -> Result<PathBuf, Error> {
        let highest = self.hpc_checkpoints()?.first().and_then(|path| hpc_number(path)).unwrap_or(0);
        Ok(self.default_root_dir().join(format!("{HPC_PREFIX}{}{EXTENSION}", highest + 1)))
    }

    /// The checkpoints of earlier runs of the job, the highest number first.
    fn hpc_checkpoints(&mut self) -> Result<Vec<PathBuf>, Error> {
        let root = self.default_root_dir();
        let files = self.fabric.checkpoint_io().list(&root)?;
        let mut numbered: Vec<(u64, PathBuf)> =
            files.into_iter().filter_map(|file| Some((hpc_number(&file.path)?, file.path))).collect();
        numbered.sort();
        Ok(numbered.into_iter().rev().map(|(_, path)| path).collect())
    }

    /// The checkpoints of a run folder, or of a folder of runs, newest first.
    fn checkpoints_below(&mut self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let subfolders = |folder: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
        };
        let mut folders = vec![folder.to_path_buf()];
        // A root folder holds experiments, those hold runs, and those hold `checkpoints`.
        let mut from = 0;
        for _ in 0..3 {
            let below: Vec<PathBuf> = folders[from..].iter().flat_map(|folder| subfolders(folder)).collect();
            from = folders.len();
            folders.extend(below);
        }
        let files = self.list_all(folders)?;
        Ok(newest_first(files.into_iter().filter(|file| is_checkpoint(&file.path))))
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

    fn is_whole(&mut self, path: &Path) -> bool {
        let verified = self.fabric.checkpoint_io().verify(path);
        if let Err(error) = &verified {
            self.warn(&format!("{error}; so an older checkpoint is looked for"));
        }
        verified.is_ok()
    }

    /// Has the loggers go on where the run that wrote a checkpoint logged.
    fn continue_logs(&mut self, path: &Path, checkpoint: &Dict) {
        let held = checkpoint.dict("fulgurite").and_then(|more| more.list("log_versions"));
        let held: Vec<&str> =
            held.map(|versions| versions.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
        let by_place = path.parent().and_then(Path::parent).and_then(Path::file_name).and_then(|name| name.to_str());
        for (index, logger) in self.fabric.loggers.iter_mut().enumerate() {
            let version =
                held.get(index).copied().or(by_place.filter(|name| logger.runs().iter().any(|run| run == name)));
            if let Some(version) = version {
                logger.suggest_version(version);
            }
        }
    }
}

impl TrainerState {
    /// Which run of each logger this is, for checkpoints.
    pub(crate) fn log_versions(&self) -> Vec<Value> {
        self.fabric.loggers.iter().map(|logger| logger.version().into()).collect()
    }

    /// Has the loggers drop what a run that this one goes on from logged after its checkpoint.
    pub(crate) fn continue_logging(&mut self, resume: &ResumePoint) -> Result<(), Error> {
        // The x-axis counts from 0, and moves on when a batch is over.
        let last = self.run.progress.batches_that_stepped as i64 - i64::from(!resume.batch_open);
        for logger in &mut self.fabric.loggers {
            logger.resume_after(last)?;
        }
        Ok(())
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(EXTENSION))
}

fn hpc_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(HPC_PREFIX)?.strip_suffix(EXTENSION)?.parse().ok()
}

fn folders_of(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = paths.iter().filter_map(|path| path.parent()).map(Path::to_path_buf).collect();
    folders.sort();
    folders.dedup();
    folders
}

fn newest_first(files: impl Iterator<Item = StoredFile>) -> Vec<PathBuf> {
    let mut files: Vec<StoredFile> = files.collect();
    files.sort_by_key(|file| Reverse(file.modified));
    files.into_iter().map(|file| file.path).collect()
}
