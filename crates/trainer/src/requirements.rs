//! What a configuration asks for and is not here: one sentence that names all of it.

use fulgurite_fabric::{Devices, FabricError, accelerator};

use crate::config::TrainerConfig;
use crate::error::Error;

const STRATEGIES: [&str; 2] = ["auto", "single_device"];

/// Lightning's names (with their suffixes, such as `ddp_find_unused_parameters_true` and `deepspeed_stage_2`).
const STRATEGIES_ELSEWHERE: [&str; 11] = [
    "ddp",
    "ddp_fork",
    "ddp_notebook",
    "ddp_spawn",
    "deepspeed",
    "dp",
    "fsdp",
    "fsdp_cpu_offload",
    "model_parallel",
    "single_xla",
    "xla",
];

const PRECISIONS_ELSEWHERE: [&str; 2] = ["transformer-engine", "transformer-engine-float16"];

/// Checks what the machine and this version have to offer. `missing` is what somebody found missing before.
///
/// # Errors
///
/// Everything that is missing; an unknown strategy.
pub(crate) fn check(config: &TrainerConfig, missing: &[String]) -> Result<(), Error> {
    let TrainerConfig { accelerator, devices, strategy, num_nodes, precision, .. } = config;
    let mut of_version = Vec::new();
    let base = strategy.split("_find_unused").next().and_then(|name| name.split("_stage_").next()).unwrap_or(strategy);
    if STRATEGIES_ELSEWHERE.contains(&base) {
        of_version.push(format!("strategy `{strategy}`"));
    } else if !STRATEGIES.contains(&strategy.as_str()) {
        let unknown = FabricError::Unknown { what: "strategy", given: strategy.clone(), known: &STRATEGIES };
        return Err(Error::Config(unknown.to_string()));
    }
    if PRECISIONS_ELSEWHERE.contains(&precision.as_str()) {
        of_version.push(format!("precision `{precision}`"));
    }
    if *num_nodes > 1 {
        of_version.push(format!("several machines (num_nodes={num_nodes})"));
    }
    of_version.extend(missing.iter().cloned());
    let of_machine = match accelerator.as_str() {
        "tpu" | "hpu" => Some(format!("this machine has no {} that can be used", accelerator.to_uppercase())),
        name => match accelerator::accelerator(name) {
            Err(FabricError::AcceleratorUnavailable { .. }) => {
                Some(format!("this machine has no {} that can be used", if name == "mps" { "MPS" } else { "GPU" }))
            }
            _ => None,
        },
    };
    let is_known_to_fabric = !["tpu", "hpu"].contains(&accelerator.as_str());
    if of_version.is_empty() && (of_machine.is_none() || is_known_to_fabric) {
        // A device or accelerator alone: the fabric says what there is.
        return Ok(());
    }
    let several = match devices {
        Devices::Count(count) if *count > 1 => Some(count.to_string()),
        Devices::Indices(indices) if indices.len() > 1 => Some(format!("{indices:?}")),
        _ => None,
    };
    if let Some(several) = several {
        of_version.insert(0, format!("several devices (devices={several})"));
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
