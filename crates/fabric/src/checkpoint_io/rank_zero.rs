//! [`RankZeroCheckpointIo`]: rank zero writes and broadcasts the outcome.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulgurite_torch::distributed::ProcessGroup;
use fulgurite_torch::{Dict, Value, serialization};

use super::{Alias, CheckpointIo, Commit, CommitFailure, CommitState, StoredFile};
use crate::FabricError;

/// Checkpoint I/O of a run with several processes: rank zero writes, removes and inspects files, and broadcasts the
/// outcome, so that all ranks act alike, whether or not their machines share a file system. Every rank loads checkpoints
/// itself.
///
/// Every call but [`poll`](CheckpointIo::poll) and [`commit_state`](CheckpointIo::commit_state) is a collective operation. A background failure is returned by the next
/// [`wait`](CheckpointIo::wait). A process that has [abandoned](ProcessGroup::abandon) the group writes nothing more,
/// since a checkpoint is incomplete without the part of the others. It can still wait for commits that it has started.
pub struct RankZeroCheckpointIo {
    inner: Box<dyn CheckpointIo>,
    group: ProcessGroup,
}

impl RankZeroCheckpointIo {
    /// Uses `inner` on rank zero of a group on the CPU.
    pub fn new(inner: Box<dyn CheckpointIo>, group: ProcessGroup) -> RankZeroCheckpointIo {
        RankZeroCheckpointIo { inner, group }
    }

    /// Runs `act` on rank zero and broadcasts its outcome.
    fn on_rank_zero<T>(
        &mut self,
        path: &Path,
        act: impl FnOnce(&mut dyn CheckpointIo) -> Result<T, FabricError>,
        to_value: impl FnOnce(&T) -> Value,
        from_value: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, FabricError> {
        if self.group.is_abandoned() {
            return Err(FabricError::Checkpoint {
                path: path.into(),
                message: "nothing is written or removed after an error of one process, because a checkpoint needs all processes; resume from the last checkpoint".into(),
            });
        }
        if self.group.rank() == 0 {
            let outcome = act(self.inner.as_mut());
            let message = match &outcome {
                Ok(found) => Dict::new().with("found", to_value(found)),
                Err(error) => Dict::new().with("error", reason(error).as_str()),
            };
            self.send(&Value::Dict(message))?;
            return outcome;
        }
        let received = self.receive()?;
        let failed = |message: String| FabricError::Checkpoint { path: path.into(), message };
        let malformed = || failed("the outcome that rank 0 broadcast is malformed: it is not a dict".into());
        let outcome = received.as_dict().ok_or_else(malformed)?;
        match (outcome.get("found").and_then(from_value), outcome.str("error")) {
            (Some(found), _) => Ok(found),
            (None, Ok(message)) => Err(failed(message.to_owned())),
            (None, Err(error)) => Err(failed(format!("the outcome that rank 0 broadcast is malformed: {error}"))),
        }
    }

    fn send(&self, value: &Value) -> Result<(), FabricError> {
        let mut bytes = Vec::new();
        serialization::write_to(&mut bytes, value)?;
        self.group.broadcast_bytes(Some(&bytes), 0)?;
        Ok(())
    }

    fn receive(&self) -> Result<Value, FabricError> {
        let bytes = self.group.broadcast_bytes(None, 0)?;
        Ok(serialization::load_from(std::io::Cursor::new(bytes))?)
    }
}

impl CheckpointIo for RankZeroCheckpointIo {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        self.on_rank_zero(path, |io| io.save(checkpoint, path), nothing, is_nothing)
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.inner.load(path)
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        self.on_rank_zero(path, |io| io.remove(path), nothing, is_nothing)
    }

    fn alias(&mut self, path: &Path, alias: &Alias) -> Result<(), FabricError> {
        self.on_rank_zero(path, |io| io.alias(path, alias), nothing, is_nothing)
    }

    fn commit(&mut self, checkpoint: &Value, commit: &Commit) -> Result<(), FabricError> {
        self.on_rank_zero(&commit.path, |io| io.commit(checkpoint, commit), nothing, is_nothing)
    }

    fn exists(&mut self, path: &Path) -> Result<bool, FabricError> {
        self.on_rank_zero(path, |io| io.exists(path), |there| Value::Bool(*there), Value::as_bool)
    }

    fn verify(&mut self, path: &Path) -> Result<(), FabricError> {
        self.on_rank_zero(path, |io| io.verify(path), nothing, is_nothing)
    }

    fn outline(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.on_rank_zero(path, |io| io.outline(path), Value::clone, |outline| Some(outline.clone()))
    }

    fn list(&mut self, folder: &Path) -> Result<Vec<StoredFile>, FabricError> {
        self.on_rank_zero(folder, |io| io.list(folder), |files| files_to_value(files), files_from_value)
    }

    fn list_below(&mut self, folder: &Path, depth: usize) -> Result<Vec<StoredFile>, FabricError> {
        self.on_rank_zero(folder, |io| io.list_below(folder, depth), |files| files_to_value(files), files_from_value)
    }

    fn poll(&mut self) -> Option<CommitFailure> {
        None
    }

    /// What rank zero knows, which need not ask the others.
    fn commit_state(&self, commit: &Commit) -> CommitState {
        self.inner.commit_state(commit)
    }

    fn wait(&mut self) -> Option<CommitFailure> {
        if self.group.is_abandoned() {
            return self.inner.wait();
        }
        if self.group.rank() == 0 {
            let failure = self.inner.wait();
            let message = failure.as_ref().map_or(Value::None, failure_to_value);
            // If the broadcast fails, so does the next collective operation, which returns the error.
            let _ = self.send(&message);
            return failure;
        }
        failure_from_value(&self.receive().ok()?)
    }
}

impl fmt::Debug for RankZeroCheckpointIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RankZeroCheckpointIo").field("group", &self.group.name()).finish_non_exhaustive()
    }
}

fn nothing(_: &()) -> Value {
    Value::None
}

fn is_nothing(_: &Value) -> Option<()> {
    Some(())
}

/// The message without the path, which every rank has.
fn reason(error: &FabricError) -> String {
    match error {
        FabricError::Checkpoint { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

fn path_to_value(path: &Path) -> Value {
    path.to_string_lossy().as_ref().into()
}

fn paths(value: &Value) -> Option<Vec<PathBuf>> {
    value.as_list()?.iter().map(|path| path.as_str().map(PathBuf::from)).collect()
}

fn files_to_value(files: &[StoredFile]) -> Value {
    Value::List(files.iter().map(file_to_value).collect())
}

fn files_from_value(files: &Value) -> Option<Vec<StoredFile>> {
    files.as_list()?.iter().map(file_from_value).collect()
}

fn file_to_value(file: &StoredFile) -> Value {
    let since = file.modified.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Value::Dict(
        Dict::new()
            .with("path", path_to_value(&file.path))
            .with("seconds", since.as_secs() as i64)
            .with("nanoseconds", i64::from(since.subsec_nanos()))
            .with("size", file.size as i64),
    )
}

fn file_from_value(value: &Value) -> Option<StoredFile> {
    let file = value.as_dict()?;
    let number = |name: &str| file.int(name).ok().and_then(|number| u64::try_from(number).ok());
    let nanoseconds = u32::try_from(number("nanoseconds")?).ok()?;
    let modified: SystemTime = UNIX_EPOCH.checked_add(Duration::new(number("seconds")?, nanoseconds))?;
    Some(StoredFile { path: file.str("path").ok()?.into(), modified, size: number("size")? })
}

fn failure_to_value(failure: &CommitFailure) -> Value {
    let CommitFailure { commit, error } = failure;
    let remove = commit.remove.iter().map(|path| path_to_value(path));
    let mut dict = Dict::new()
        .with("path", path_to_value(&commit.path))
        .with("remove", remove.collect::<Vec<_>>())
        .with("error", reason(error).as_str());
    if let Some(alias) = &commit.alias {
        dict.set("alias", path_to_value(&alias.path));
        dict.set("link", alias.link);
    }
    Value::Dict(dict)
}

fn failure_from_value(value: &Value) -> Option<CommitFailure> {
    let dict = value.as_dict()?;
    let path = PathBuf::from(dict.str("path").ok()?);
    let alias =
        dict.str("alias").ok().map(|alias| Alias { path: alias.into(), link: dict.bool("link").unwrap_or(false) });
    let error = FabricError::Checkpoint { path: path.clone(), message: dict.str("error").ok()?.to_owned() };
    Some(CommitFailure { commit: Commit { path, alias, remove: paths(dict.get("remove")?)? }, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_failures_survive_the_conversion() {
        let file = StoredFile {
            path: "runs/last.ckpt".into(),
            modified: UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
            size: 77,
        };
        assert_eq!(file_from_value(&file_to_value(&file)), Some(file));

        let alias = Some(Alias { path: "last.ckpt".into(), link: true });
        let commit = Commit { path: "a.ckpt".into(), alias, remove: vec!["b.ckpt".into()] };
        let error = FabricError::Checkpoint { path: "a.ckpt".into(), message: "the disk is full".into() };
        let failure = failure_from_value(&failure_to_value(&CommitFailure { commit: commit.clone(), error })).unwrap();
        assert_eq!((failure.commit, failure.error.to_string()), (commit, "checkpoint a.ckpt: the disk is full".into()));
    }
}
