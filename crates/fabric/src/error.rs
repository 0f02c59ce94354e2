//! What can go wrong before a loop runs.

use std::path::PathBuf;
use std::time::Duration;

use fulgurite_optim::OptimError;
use fulgurite_torch::TorchError;
use fulgurite_torch::tch::TchError;

use crate::ScalerError;

/// A hardware or numerics choice that this machine, or this build, does not support.
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
        /// The supported values.
        known: &'static [&'static str],
    },
    /// An unknown name.
    #[error("unknown {what} `{given}`; {advice}")]
    UnknownName {
        /// The setting, such as `strategy`.
        what: &'static str,
        /// What was given.
        given: String,
        /// The nearest name, or all of them.
        advice: String,
    },
    /// A name of an earlier version of Lightning.
    #[error("{what} `{given}` no longer exists: {hint}")]
    Removed {
        /// The setting, such as `strategy`.
        what: &'static str,
        /// What was given.
        given: String,
        /// Why it was removed, and what to write instead.
        hint: &'static str,
    },
    /// An invalid setting, or an invalid combination of settings; the text says what to do.
    #[error("{0}")]
    Setting(String),
    /// A module that cannot be created.
    #[error("cannot create the module: {0}")]
    Module(Box<dyn std::error::Error + Send + Sync>),
    /// A feature of Lightning that this version does not have.
    #[error("this version does not support {what} yet")]
    NotInThisVersion {
        /// What was requested.
        what: String,
    },
    /// The accelerator is not usable on this machine.
    #[error("accelerator `{name}` is not usable on this machine; usable here: {}", .usable.join(", "))]
    AcceleratorUnavailable {
        /// What was requested.
        name: &'static str,
        /// The usable accelerators.
        usable: Vec<&'static str>,
    },
    /// More devices were requested than exist.
    #[error(
        "devices={requested} was requested, but accelerator `{accelerator}` has {available} here; set devices to {available} or fewer"
    )]
    TooManyDevices {
        /// The accelerator.
        accelerator: &'static str,
        /// What was requested.
        requested: String,
        /// The number of available ones.
        available: usize,
    },
    /// No device was requested.
    #[error("devices=0 was requested; a run needs at least one device, so set devices to 1")]
    NoDevice,
    /// A device index out of range.
    #[error(
        "device {index} was requested, but accelerator `{accelerator}` has {available}; choose an index below that"
    )]
    NoSuchDevice {
        /// The accelerator.
        accelerator: &'static str,
        /// The requested index.
        index: usize,
        /// The number of available ones.
        available: usize,
    },
    /// An invalid device list.
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
    /// The environment variables contradict each other or the arguments, or are incomplete.
    #[error("{message}")]
    Environment {
        /// What contradicts what, and what to do.
        message: String,
    },
    /// The processes of a run could not be started or watched.
    #[error("cannot start the run's processes: {message}")]
    Launch {
        /// What went wrong and what to do.
        message: String,
    },
    /// Ranks did not connect within the timeout.
    #[error("{}", missing_ranks(.missing, *.world_size, .address, *.waited))]
    MissingRanks {
        /// The missing ranks, and how they ended if that is known.
        missing: Vec<(usize, Option<String>)>,
        /// The number of expected ranks.
        world_size: usize,
        /// The address of the rendezvous.
        address: String,
        /// The timeout.
        waited: Duration,
    },
    /// The ranks do not belong to one run.
    #[error("{message}")]
    RanksDiffer {
        /// Which ranks, and what differs.
        message: String,
    },
    /// An error of the gradient scaler.
    #[error(transparent)]
    Scaler(#[from] ScalerError),
    /// The optimizer refused its step.
    #[error(transparent)]
    Optimizer(#[from] OptimError),
    /// The gradients cannot be clipped.
    #[error(
        "the norm of the gradients is {norm}, so they cannot be clipped to a norm; look for the cause in the loss, or set error_if_nonfinite to false"
    )]
    NormNotFinite {
        /// Their norm.
        norm: f64,
    },
    /// An error of a logger.
    #[error(transparent)]
    Logger(#[from] crate::loggers::LoggerError),
    /// libtorch refused an operation.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<TchError> for FabricError {
    fn from(error: TchError) -> FabricError {
        FabricError::Torch(error.into())
    }
}

impl FabricError {
    /// An unknown name, with the nearest of those known, if one is near.
    pub(crate) fn unknown(what: &'static str, given: &str, known: &[String]) -> FabricError {
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let advice = match nearest(given, &names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("choose one of {}", known.join(", ")),
        };
        FabricError::UnknownName { what, given: given.to_owned(), advice }
    }

    pub(crate) fn environment(message: impl Into<String>) -> FabricError {
        FabricError::Environment { message: message.into() }
    }

    pub(crate) fn launch(message: impl Into<String>) -> FabricError {
        FabricError::Launch { message: message.into() }
    }
}

fn missing_ranks(missing: &[(usize, Option<String>)], world_size: usize, address: &str, waited: Duration) -> String {
    const SHOWN: usize = 16;
    let name = |(rank, ended): &(usize, Option<String>)| match ended {
        Some(how) => format!("{rank} (which {how})"),
        None => rank.to_string(),
    };
    let mut names: Vec<String> = missing.iter().take(SHOWN).map(name).collect();
    if missing.len() > SHOWN {
        names.push(format!("{} more", missing.len() - SHOWN));
    }
    let (ranks, were_they, they) = match missing.len() {
        1 => ("rank", "was it", "it"),
        _ => ("ranks", "were they", "they"),
    };
    let mut message = format!(
        "{ranks} {} of {world_size} did not connect to {address} within {:.1} s",
        names.join(", "),
        waited.as_secs_f64()
    );
    if missing.iter().all(|(_, ended)| ended.is_none()) {
        message.push_str(&format!("; {were_they} started, and can {they} reach that address?"));
    }
    message
}

/// Names of other libraries, with those of Fulgurite and Lightning.
const OTHER_NAMES: [(&str, &str); 10] = [
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
fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = given.to_ascii_lowercase();
    let translated = OTHER_NAMES.iter().find(|(other, name)| *other == lower && known.contains(name));
    let scored = || known.iter().map(|name| (strsim::jaro_winkler(&lower, name), *name));
    let near = || scored().filter(|(score, _)| *score >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    translated.map(|(_, name)| *name).or_else(|| near().map(|(_, name)| name))
}

fn advice(given: &str, known: &[&'static str]) -> String {
    nearest(given, known).map_or("choose".into(), |near| format!("did you mean `{near}`? Else choose"))
}
