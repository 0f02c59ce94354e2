//! The errors of reading a checkpoint file.

use crate::error::TorchError;

/// The file is not what its writer wrote.
pub(super) fn damaged(reason: String) -> TorchError {
    TorchError::DamagedCheckpoint { reason }
}

/// The operating system failed to read it.
pub(super) fn read_failed(source: std::io::Error) -> TorchError {
    TorchError::CheckpointIo { doing: "read", source }
}
