//! What can go wrong before a loop runs.

use std::path::PathBuf;

use fulgurite_optim::OptimError;
use fulgurite_torch::tch::TchError;

use crate::ScalerError;

/// A hardware or numerics choice that this machine, or this build, cannot honour.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FabricError {
    /// A name that is not one of a closed list.
    #[error("unknown {what} `{given}`; {} one of {}", advice(.given, .known), .known.join(", "))]
    Unknown {
        /// The setting, such as `accelerator`.
        what: &'static str,
        /// What was given.
        given: String,
        /// What there is.
        known: &'static [&'static str],
    },
    /// The accelerator is known, and not usable here.
    #[error("accelerator `{name}` is not usable on this machine; usable here: {}", .usable.join(", "))]
    AcceleratorUnavailable {
        /// What was asked for.
        name: &'static str,
        /// What could be used.
        usable: Vec<&'static str>,
    },
    /// More devices than one process can drive.
    #[error("devices={requested} was asked for, and this version drives one device per run; set devices to 1")]
    TooManyDevices {
        /// What was asked for.
        requested: usize,
    },
    /// No device at all.
    #[error("devices=0 was asked for; a run needs at least one device, so set devices to 1")]
    NoDevice,
    /// A device index that is not there.
    #[error(
        "device {index} was asked for, and accelerator `{accelerator}` has {available}; choose an index below that"
    )]
    NoSuchDevice {
        /// The accelerator.
        accelerator: &'static str,
        /// The index asked for.
        index: usize,
        /// How many there are.
        available: usize,
    },
    /// A device list in a form that means nothing.
    #[error(
        "devices={given:?} is not a device list; write a count (1), a list of indices (\"0,\" or \"0,1\"), -1 or \"auto\""
    )]
    DeviceList {
        /// What was given.
        given: String,
    },
    /// A checkpoint could not be read or written.
    #[error("checkpoint {}: {message}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What went wrong and what to do.
        message: String,
    },
    /// The gradient scaler.
    #[error(transparent)]
    Scaler(#[from] ScalerError),
    /// The optimizer refused its step.
    #[error(transparent)]
    Optimizer(#[from] OptimError),
    /// Gradients were to be clipped, and cannot be.
    #[error(
        "the norm of the gradients is {norm}, so they cannot be clipped to a norm; look for the cause in the loss, or set error_if_nonfinite to false"
    )]
    NormNotFinite {
        /// Their norm.
        norm: f64,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// The C++ bridge refused an operation.
    #[error(transparent)]
    Bridge(#[from] fulgurite_torch::TorchError),
}

/// How others call what Fulgurite and Lightning call by one of their names.
const ELSEWHERE: [(&str, &str); 10] = [
    ("fp16", "16-mixed"),
    ("float16", "16-mixed"),
    ("half", "16-true"),
    ("bfloat16", "bf16-mixed"),
    ("fp32", "32-true"),
    ("float32", "32-true"),
    ("float", "32-true"),
    ("fp64", "64-true"),
    ("float64", "64-true"),
    ("double", "64-true"),
];

/// The name that was meant, if one is near.
fn nearest(given: &str, known: &[&'static str]) -> Option<&'static str> {
    let lower = given.to_ascii_lowercase();
    let translated = ELSEWHERE.iter().find(|(other, name)| *other == lower && known.contains(name));
    let scored = || known.iter().map(|name| (strsim::jaro_winkler(&lower, name), *name));
    let near = || scored().filter(|(score, _)| *score >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    translated.map(|(_, name)| *name).or_else(|| near().map(|(_, name)| name))
}

fn advice(given: &str, known: &[&'static str]) -> String {
    nearest(given, known).map_or("choose".into(), |near| format!("did you mean `{near}`? Else choose"))
}
