//! Checkpoint I/O: where a run's state goes and comes from.

use std::path::Path;

use fulgurite_torch::{Value, serialization};

use crate::FabricError;

/// Writes, reads and removes checkpoints.
pub trait CheckpointIo: Send {
    /// Writes `checkpoint` to `path`; either the whole file is there afterwards, or what was there before.
    ///
    /// # Errors
    ///
    /// What the file system said.
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError>;

    /// Reads the checkpoint at `path`, its tensors on the CPU.
    ///
    /// # Errors
    ///
    /// A missing, truncated or foreign file.
    fn load(&mut self, path: &Path) -> Result<Value, FabricError>;

    /// Removes the checkpoint at `path`, if it is there.
    ///
    /// # Errors
    ///
    /// What the file system said.
    fn remove(&mut self, path: &Path) -> Result<(), FabricError>;
}

/// `.ckpt` files in PyTorch's own layout, on a local file system.
#[derive(Debug, Default)]
pub struct TorchCheckpointIo;

impl CheckpointIo for TorchCheckpointIo {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        let failed = |message: String| FabricError::Checkpoint { path: path.into(), message };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| failed(format!("its folder cannot be made: {error}; choose another dirpath")))?;
        }
        serialization::save(path, checkpoint).map_err(|error| failed(error.to_string()))
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        serialization::load(path)
            .map_err(|error| FabricError::Checkpoint { path: path.into(), message: error.to_string() })
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FabricError::Checkpoint { path: path.into(), message: format!("cannot be removed: {error}") })
            }
            _ => Ok(()),
        }
    }
}
