//! Checkpoints as artifacts.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::{Builder, JoinHandle};

use fulgurite_trackers::run_id;
use fulgurite_trackers::wandb::{Artifact, RunInfo};

use super::json::object;
use crate::loggers::checkpoints::Unsent;

/// Checkpoints whose digests are being computed, each in a thread of its own, in the order in which they were written.
#[derive(Debug, Default)]
pub(super) struct Models {
    threads: Vec<(String, JoinHandle<io::Result<Artifact>>)>,
}

impl Models {
    /// Reads a checkpoint in the background. Where it has no second name in `folder`, it is copied there.
    pub(super) fn add(&mut self, checkpoint: Unsent, run: &RunInfo, name: String, folder: &Path) -> io::Result<()> {
        let (run, folder, file_name) = (run.clone(), folder.to_owned(), checkpoint.file_name());
        let thread = Builder::new().name("checkpoint digest".into()).spawn(move || {
            let file = match &checkpoint.linked {
                Some(linked) => linked.clone(),
                None => {
                    fs::create_dir_all(&folder)?;
                    let copy = folder.join(run_id());
                    fs::copy(&checkpoint.path, &copy)?;
                    copy
                }
            };
            let mut artifact = Artifact::of_file(&run, "model", &name, "model.ckpt", &file)?;
            // Lightning names the class of the callback.
            artifact.metadata = object(&checkpoint.metadata("ModelCheckpoint"));
            artifact.aliases = vec!["latest".into()];
            artifact.aliases.extend(checkpoint.is_best.then(|| "best".into()));
            Ok(artifact)
        });
        self.threads.push((file_name, thread?));
        Ok(())
    }

    /// The artifacts that are ready, in order; with `wait`, all of them.
    pub(super) fn ready(&mut self, wait: bool) -> Vec<Result<Artifact, String>> {
        let count = self.threads.iter().take_while(|(_, thread)| wait || thread.is_finished()).count();
        let done = self.threads.drain(..count).map(|(name, thread)| match thread.join() {
            Ok(Ok(artifact)) => Ok(artifact),
            Ok(Err(error)) => Err(format!("the checkpoint {name} is not uploaded: {error}")),
            Err(_) => Err(format!("the checkpoint {name} is not uploaded: its digest could not be computed")),
        });
        done.collect()
    }
}
