//! [`TorchError`], and how a message from the C++ bridge becomes one.

use std::ffi::{CStr, c_char};

use crate::distributed::DistributedError;
use crate::libtorch_error::LibtorchError;
use crate::params::StateDictMismatch;
use crate::tch::{Device, Kind, TchError};

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// An exception of libtorch in a call through Fulgurite's own bridge. The message is libtorch's.
    #[error("{0}")]
    Bridge(String),
    /// An exception of libtorch in a call through `tch`.
    #[error(transparent)]
    Libtorch(LibtorchError),
    /// An error of distributed training.
    #[error(transparent)]
    Distributed(Box<DistributedError>),
    /// The backward pass of a tensor that is not a scalar.
    #[error(
        "the loss has shape {shape:?}, but only a scalar can be differentiated; reduce it, for example with `.mean(None)`"
    )]
    LossNotScalar {
        /// The shape of the loss.
        shape: Vec<i64>,
    },
    /// The backward pass of a tensor that depends on no parameter.
    #[error(
        "the loss has no gradient: it depends on no parameter that requires one; was it computed under no_grad, \
         detached, or are all parameters frozen?"
    )]
    LossWithoutGradient,
    /// A state dict that does not fit a model.
    #[error(
        "the state dict does not fit the model: {0}\n\tNothing was loaded. Load it into a model of the class and sizes that it was saved from; for another \
         model, rename its entries, leave out those of other shapes, and load the rest with `strict` off"
    )]
    StateDict(Box<StateDictMismatch>),
    /// Two tensors of a model that a state dict cannot distinguish.
    #[error("the model has two tensors of the name `{name}`; give one of them another name")]
    AmbiguousName {
        /// Their name.
        name: String,
    },
    /// The environment variable `PL_GLOBAL_SEED` is not a seed.
    #[error(
        "PL_GLOBAL_SEED is {given:?}, which is not a seed; set it to an integer from 0 to {max}, or unset it",
        max = u64::MAX
    )]
    Seed {
        /// The value of the variable.
        given: String,
    },
    /// A value that is not a saved state of random number generators.
    #[error("not a state of random number generators: {message}")]
    RngState {
        /// What is wrong with it.
        message: String,
    },
    /// A tensor that should be a scalar has another shape.
    #[error("a tensor of shape {shape:?} is not one number; reduce it first, for example with `.mean(None)`")]
    NotANumber {
        /// The shape of the tensor.
        shape: Vec<i64>,
    },
    /// A CUDA device that this machine does not have, or that this libtorch cannot use.
    #[error("there is no CUDA device {index}; usable here: {there}")]
    NoCudaDevice {
        /// The requested device.
        index: usize,
        /// The number of available ones.
        there: usize,
    },
    /// Autocast to an unsupported kind.
    #[error("operations cannot be cast to {kind:?}; autocast takes Half or BFloat16")]
    AutocastKind {
        /// The requested kind.
        kind: Kind,
    },
    /// Autocast on a device without it.
    #[error("there is no autocast on {device:?}; it is for CPU, CUDA and MPS")]
    AutocastDevice {
        /// The requested device.
        device: Device,
    },
    /// A range of items beyond the end of a tensor.
    #[error("{start}..{} was requested, but there are {available} items", start.saturating_add(*len))]
    OutOfRange {
        /// The first requested item.
        start: usize,
        /// The number of requested items.
        len: usize,
        /// The number of available ones.
        available: usize,
    },
    /// A file that is not a checkpoint.
    #[error("not a PyTorch checkpoint: {reason}")]
    NotACheckpoint {
        /// What the file appears to be.
        reason: String,
    },
    /// A truncated or corrupted checkpoint.
    #[error("the checkpoint is damaged: {reason}; use an earlier one")]
    DamagedCheckpoint {
        /// What is inconsistent.
        reason: String,
    },
    /// A valid checkpoint with unsupported content.
    #[error("the checkpoint cannot be read: {reason}")]
    UnsupportedCheckpoint {
        /// The unsupported content, and what to do.
        reason: String,
    },
    /// A call to the file system failed.
    #[error("cannot {doing} the checkpoint: {source}")]
    CheckpointIo {
        /// What failed, such as `write`.
        doing: &'static str,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// A value that a checkpoint cannot contain.
    #[error("{} cannot be written to a checkpoint: {reason}", if .at.is_empty() { "the value".into() } else { format!("`{at}`") })]
    Unwritable {
        /// The path of the value, such as `state_dict.fc.weight`; empty for the root.
        at: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl From<TchError> for TorchError {
    fn from(error: TchError) -> TorchError {
        TorchError::Libtorch(LibtorchError::from(&error))
    }
}

impl From<DistributedError> for TorchError {
    fn from(error: DistributedError) -> TorchError {
        TorchError::Distributed(Box::new(error))
    }
}

unsafe extern "C" {
    fn fulgurite_error_free(error: *mut c_char);
}

/// Takes over what a function of the bridge returned: null, or a message that is ours to free.
pub(crate) fn check(error: *mut c_char) -> Result<(), TorchError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the bridge returns null or a NUL-terminated string made with malloc, which has no other owner.
    let message = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: as above, and it is not used after this.
    unsafe { fulgurite_error_free(error) };
    Err(TorchError::Bridge(message))
}
