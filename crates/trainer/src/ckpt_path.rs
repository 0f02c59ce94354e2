//! Which checkpoint `ckpt_path` means.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::callbacks::{Callback, Role};
use crate::engine::Engine;
use crate::error::Error;
use crate::state::TrainerFn;

impl Engine {
    /// The file that `ckpt_path` means; `None` for a start without one.
    pub(crate) fn resolve_ckpt_path(&mut self, ckpt_path: Option<String>) -> Result<Option<PathBuf>, Error> {
        let Some(ckpt_path) = ckpt_path else { return Ok(self.default_checkpoint()) };
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
                let last = self.newest(|_| true);
                if last.is_none() {
                    self.state.warn("ckpt_path=\"last\" was asked for, and there is no last checkpoint, so this is a fresh start; `ModelCheckpoint::save_last` writes one");
                }
                return Ok(last);
            }
            "hpc" => return wrong("this version writes no checkpoints for a cluster's scheduler; give a path"),
            registry if registry == "registry" || registry.starts_with("registry:") => {
                return wrong("there is no model registry here; download the file, and give its path");
            }
            path => PathBuf::from(path),
        };
        if !path.is_file() {
            let problem = "there is no such file; check the path, or leave ckpt_path out to start afresh".into();
            return Err(Error::Checkpoint { path, problem });
        }
        Ok(Some(path))
    }

    /// Where a fit starts that was given no checkpoint: from what an error left, if a callback is there for that.
    fn default_checkpoint(&mut self) -> Option<PathBuf> {
        let left = match self.state.entry {
            TrainerFn::Fit => self.newest(|callback| callback.resumes_by_itself())?,
            _ => return None,
        };
        self.state.warn(&format!(
            "an error ended the last run, so this one goes on from {}; set ckpt_path to start from another",
            left.display()
        ));
        Some(left)
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

    /// The newest of the last checkpoints of some callbacks.
    fn newest(&mut self, which: impl Fn(&dyn Callback) -> bool) -> Option<PathBuf> {
        let written = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        let Engine { state, callbacks } = self;
        let callbacks = callbacks.iter().map(Box::as_ref);
        let callbacks = callbacks.filter(|callback| callback.role() == Role::Checkpoint && which(*callback));
        let all = callbacks.flat_map(|callback| callback.last_checkpoints(state));
        let dated = all.filter_map(|path| Some((written(&path)?, path)));
        dated.max_by_key(|(time, _): &(SystemTime, PathBuf)| *time).map(|(_, path)| path)
    }
}
