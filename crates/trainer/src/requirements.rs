//! Reports everything that a configuration needs and that is not available, in one sentence.

use fulgurite_engine::Error;
use fulgurite_engine::config::TrainerConfig;
use fulgurite_fabric::strategy::Strategies;
use fulgurite_fabric::{FabricError, accelerator};

const UNSUPPORTED_PRECISIONS: [&str; 2] = ["transformer-engine", "transformer-engine-float16"];

/// Checks that the machine and this version support the configuration. `missing` lists what is known to be missing.
///
/// # Errors
///
/// Fails if anything is missing, or the strategy is unknown. The message lists everything that is missing.
pub(crate) fn check(config: &TrainerConfig, missing: &[String]) -> Result<(), Error> {
    let TrainerConfig { accelerator, strategy, precision, .. } = config;
    let mut of_version = Vec::new();
    match Strategies::check(strategy.name()) {
        Ok(()) => {}
        Err(FabricError::NotInThisVersion { what }) => of_version.push(what),
        Err(unknown) => return Err(Error::Config(unknown.to_string())),
    }
    if UNSUPPORTED_PRECISIONS.contains(&precision.as_str()) {
        of_version.push(format!("precision `{precision}`"));
    }
    of_version.extend(missing.iter().cloned());
    let of_machine = match accelerator.as_str() {
        "tpu" => Some("this machine has no TPU that can be used".to_owned()),
        name => match accelerator::accelerator(name) {
            Err(FabricError::AcceleratorUnavailable { .. }) => {
                Some(format!("this machine has no {} that can be used", if name == "mps" { "MPS" } else { "GPU" }))
            }
            Err(unknown @ (FabricError::Removed { .. } | FabricError::Unknown { .. })) => {
                return Err(Error::Config(unknown.to_string()));
            }
            _ => None,
        },
    };
    let is_known_to_fabric = accelerator != "tpu";
    if of_version.is_empty() && (of_machine.is_none() || is_known_to_fabric) {
        // The fabric reports unknown devices and accelerators.
        return Ok(());
    }
    let of_version =
        (!of_version.is_empty()).then(|| format!("this version does not support {} yet", list(&of_version)));
    let reasons: Vec<String> = of_machine.into_iter().chain(of_version).collect();
    Err(Error::Config(format!("this configuration cannot run here: {}", reasons.join(", and "))))
}

fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
