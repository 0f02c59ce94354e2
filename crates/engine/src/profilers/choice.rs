//! A profiler by its name.

use super::{AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler};
use crate::error::Error;

/// The names of profilers.
pub const PROFILERS: [&str; 3] = ["simple", "advanced", "pytorch"];

/// The profiler of a name, with its default options; in capitals or not.
///
/// # Errors
///
/// Fails if there is no profiler with that name.
pub fn profiler(name: &str) -> Result<Box<dyn Profiler>, Error> {
    match name.to_lowercase().as_str() {
        "simple" => Ok(Box::new(SimpleProfiler::new())),
        "advanced" => Ok(Box::new(AdvancedProfiler::new())),
        "pytorch" => Ok(Box::new(PyTorchProfiler::new())),
        _ => Err(Error::Config(format!(
            "profiler={name} is not known; write one of {}, or pass a `Profiler`",
            PROFILERS.join(", ")
        ))),
    }
}

/// The argument of `TrainerBuilder::profiler`: a profiler, or the name of one.
pub enum ProfilerChoice {
    /// The name of one.
    Name(String),
    /// A profiler.
    Given(Box<dyn Profiler>),
}

impl From<&str> for ProfilerChoice {
    fn from(name: &str) -> ProfilerChoice {
        ProfilerChoice::Name(name.to_owned())
    }
}

impl From<String> for ProfilerChoice {
    fn from(name: String) -> ProfilerChoice {
        ProfilerChoice::Name(name)
    }
}

impl<P: Profiler> From<P> for ProfilerChoice {
    fn from(profiler: P) -> ProfilerChoice {
        ProfilerChoice::Given(Box::new(profiler))
    }
}
