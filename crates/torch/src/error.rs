//! [`TorchError`], and how a message from the C++ bridge becomes one.

use std::ffi::{CStr, c_char};

use crate::distributed::DistributedError;
use crate::tch::{Device, Kind, TchError};

/// What goes wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// libtorch threw, in a call that went through Fulgurite's own bridge. The message is libtorch's.
    #[error("{0}")]
    Bridge(String),
    /// libtorch threw, in a call that went through `tch`.
    #[error(transparent)]
    Tch(#[from] TchError),
    /// Processes that should work together, and cannot.
    #[error(transparent)]
    Distributed(Box<DistributedError>),
    /// A backward pass of something that is not one number.
    #[error(
        "the loss has shape {shape:?}, and only a scalar can be differentiated; reduce it, for example with `.mean(None)`"
    )]
    LossNotScalar {
        /// The shape of the loss.
        shape: Vec<i64>,
    },
    /// A backward pass of something that no parameter took part in.
    #[error(
        "the loss has no gradient: it depends on no parameter that requires one; was it computed under no_grad, \
         detached, or are all parameters frozen?"
    )]
    LossWithoutGradient,
    /// A state dict that does not fit a model.
    #[error("the state dict does not fit the model:\n\t{}", .problems.join("\n\t"))]
    StateDict {
        /// Everything wrong, one sentence each.
        problems: Vec<String>,
    },
    /// An environment variable that should hold a seed.
    #[error(
        "PL_GLOBAL_SEED is {given:?}, which is not a seed; set it to an integer from 0 to {max}, or unset it",
        max = u64::MAX
    )]
    Seed {
        /// What it holds.
        given: String,
    },
    /// A value that should be a saved state of random number generators.
    #[error("not a state of random number generators: {message}")]
    RngState {
        /// What it is instead.
        message: String,
    },
    /// A read of one number out of something else.
    #[error("a tensor of shape {shape:?} is not one number; reduce it first, for example with `.mean(None)`")]
    NotANumber {
        /// The shape of the tensor.
        shape: Vec<i64>,
    },
    /// A CUDA device that this machine does not have, or that this libtorch cannot use.
    #[error("there is no CUDA device {index}; usable here: {there}")]
    NoCudaDevice {
        /// The device asked for.
        index: usize,
        /// How many there are.
        there: usize,
    },
    /// Autocast to a kind that it does not cast to.
    #[error("operations cannot be cast to {kind:?}; autocast takes Half or BFloat16")]
    AutocastKind {
        /// The kind asked for.
        kind: Kind,
    },
    /// Autocast on a device that has none.
    #[error("there is no autocast on {device:?}; it is for CPU, CUDA and MPS")]
    AutocastDevice {
        /// The device asked for.
        device: Device,
    },
    /// Items beyond the end of a tensor.
    #[error("{start}..{} was asked for, and there are {available} items", start.saturating_add(*len))]
    OutOfRange {
        /// The first item asked for.
        start: usize,
        /// How many were asked for.
        len: usize,
        /// How many there are.
        available: usize,
    },
    /// A file that is something else than a checkpoint.
    #[error("not a PyTorch checkpoint: {reason}")]
    NotACheckpoint {
        /// What it is, as far as one can see.
        reason: String,
    },
    /// A checkpoint that was cut or changed.
    #[error("the checkpoint is damaged: {reason}; use an earlier one")]
    DamagedCheckpoint {
        /// What does not fit.
        reason: String,
    },
    /// A checkpoint that may be sound, and holds what is not read.
    #[error("the checkpoint cannot be read: {reason}")]
    UnsupportedCheckpoint {
        /// What it holds, and what to do.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot {doing} the checkpoint: {source}")]
    CheckpointIo {
        /// What was being done.
        doing: &'static str,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// A value that a checkpoint cannot hold.
    #[error("{} cannot be written to a checkpoint: {reason}", if .at.is_empty() { "the value".into() } else { format!("`{at}`") })]
    Unwritable {
        /// The way to the value, such as `state_dict.fc.weight`; empty for the whole.
        at: String,
        /// Why, and what to do.
        reason: String,
    },
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
    // SAFETY: the bridge returns null or a NUL-terminated string made with malloc, which nobody else holds.
    let message = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: as above, and it is not used after this.
    unsafe { fulgurite_error_free(error) };
    Err(TorchError::Bridge(message))
}
