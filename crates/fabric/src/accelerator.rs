//! Accelerators: the kinds of device a run can be put on.

use std::borrow::Cow;
use std::str::FromStr;

use fulgurite_torch::tch::{Cuda, Device};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::FabricError;

/// A kind of device: how many there are, and which `tch` device an index means.
pub trait Accelerator: Send {
    /// Its registered name, such as `cuda`.
    fn name(&self) -> &'static str;

    /// How many devices of it this machine has; 0 when it is not usable.
    fn available(&self) -> usize;

    /// The `tch` device of an index.
    fn device(&self, index: usize) -> Device;
}

struct Cpu;
struct CudaGpu;
struct Mps;

impl Accelerator for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn available(&self) -> usize {
        1
    }

    fn device(&self, _index: usize) -> Device {
        Device::Cpu
    }
}

impl Accelerator for CudaGpu {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn available(&self) -> usize {
        if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 }
    }

    fn device(&self, index: usize) -> Device {
        Device::Cuda(index)
    }
}

impl Accelerator for Mps {
    fn name(&self) -> &'static str {
        "mps"
    }

    fn available(&self) -> usize {
        usize::from(fulgurite_torch::tch::utils::has_mps())
    }

    fn device(&self, _index: usize) -> Device {
        Device::Mps
    }
}

const KNOWN: &[&str] = &["auto", "cpu", "cuda", "gpu", "mps"];

/// The accelerator of a registered name: `cpu`, `cuda`, `mps`, `gpu` (MPS or CUDA, whichever is usable) or `auto`
/// (the same, else CPU).
///
/// # Errors
///
/// An unknown name, or one that is not usable on this machine; the message lists what is.
pub fn accelerator(name: &str) -> Result<Box<dyn Accelerator>, FabricError> {
    let gpu = || -> Option<Box<dyn Accelerator>> {
        [Box::new(Mps) as Box<dyn Accelerator>, Box::new(CudaGpu)].into_iter().find(|a| a.available() > 0)
    };
    let (asked, found): (&'static str, Option<Box<dyn Accelerator>>) = match name.to_ascii_lowercase().as_str() {
        "auto" => ("auto", Some(gpu().unwrap_or_else(|| Box::new(Cpu)))),
        "cpu" => ("cpu", Some(Box::new(Cpu))),
        "cuda" => ("cuda", Some(Box::new(CudaGpu))),
        "mps" => ("mps", Some(Box::new(Mps))),
        "gpu" => ("gpu", gpu()),
        _ => return Err(FabricError::Unknown { what: "accelerator", given: name.into(), known: KNOWN }),
    };
    found
        .filter(|accelerator| accelerator.available() > 0)
        .ok_or_else(|| FabricError::AcceleratorUnavailable { name: asked, usable: usable() })
}

fn usable() -> Vec<&'static str> {
    let all: [Box<dyn Accelerator>; 3] = [Box::new(Cpu), Box::new(CudaGpu), Box::new(Mps)];
    all.iter().filter(|a| a.available() > 0).map(|a| a.name()).collect()
}

/// Which devices of an accelerator to use: `auto`, a count, `-1` for all, or a list of indices (`"0,"`).
///
/// In files: `auto`, `1`, `"0,"` or `[0]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Devices {
    /// What is sensible for the accelerator: one device.
    #[default]
    Auto,
    /// The first n, or all of them (-1).
    Count(i64),
    /// These.
    Indices(Vec<usize>),
}

impl Devices {
    /// The one device a run of this version uses.
    ///
    /// # Errors
    ///
    /// No device, several, or one that is not there.
    pub fn resolve(&self, accelerator: &dyn Accelerator) -> Result<Device, FabricError> {
        let available = accelerator.available();
        let index = match self {
            Devices::Auto => 0,
            Devices::Count(0) => return Err(FabricError::NoDevice),
            Devices::Count(1) => 0,
            Devices::Count(-1) if available == 1 => 0,
            Devices::Count(-1) => return Err(FabricError::TooManyDevices { requested: available }),
            Devices::Count(n) => {
                let requested = usize::try_from(*n).map_err(|_| FabricError::DeviceList { given: n.to_string() })?;
                return Err(FabricError::TooManyDevices { requested });
            }
            Devices::Indices(indices) => match indices.as_slice() {
                [] => return Err(FabricError::NoDevice),
                [index] => *index,
                several => return Err(FabricError::TooManyDevices { requested: several.len() }),
            },
        };
        if index >= available {
            return Err(FabricError::NoSuchDevice { accelerator: accelerator.name(), index, available });
        }
        Ok(accelerator.device(index))
    }
}

impl From<i64> for Devices {
    fn from(count: i64) -> Devices {
        Devices::Count(count)
    }
}

impl From<Vec<usize>> for Devices {
    fn from(indices: Vec<usize>) -> Devices {
        Devices::Indices(indices)
    }
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Devices::Auto => serializer.serialize_str("auto"),
            Devices::Count(count) => serializer.serialize_i64(*count),
            Devices::Indices(indices) => indices.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Devices, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Count(i64),
            Indices(Vec<usize>),
            Text(String),
        }
        Ok(match Spelling::deserialize(deserializer)? {
            Spelling::Count(count) => Devices::Count(count),
            Spelling::Indices(indices) => Devices::Indices(indices),
            Spelling::Text(text) => text.parse().map_err(serde::de::Error::custom)?,
        })
    }
}

impl JsonSchema for Devices {
    fn schema_name() -> Cow<'static, str> {
        "Devices".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "const": "auto" },
                { "type": "integer" },
                { "type": "array", "items": { "type": "integer", "minimum": 0 } },
                { "type": "string" },
            ]
        })
    }
}

impl FromStr for Devices {
    type Err = FabricError;

    fn from_str(text: &str) -> Result<Devices, FabricError> {
        let bad = || FabricError::DeviceList { given: text.into() };
        if text == "auto" {
            Ok(Devices::Auto)
        } else if text.contains(',') {
            let indices = text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::parse);
            Ok(Devices::Indices(indices.collect::<Result<_, _>>().map_err(|_| bad())?))
        } else {
            text.parse().map(Devices::Count).map_err(|_| bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_without_a_gpu_is_the_cpu() {
        if !Cuda::is_available() {
            assert_eq!(accelerator("auto").unwrap().name(), "cpu");
        }
    }

    #[test]
    fn an_unusable_accelerator_lists_the_usable() {
        if !Cuda::is_available() {
            let error = accelerator("cuda").map(|_| ()).unwrap_err().to_string();
            assert_eq!(error, "accelerator `cuda` is not usable on this machine; usable here: cpu");
        }
        let error = accelerator("tpu").map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "unknown accelerator `tpu`; choose one of auto, cpu, cuda, gpu, mps");
    }

    #[test]
    fn devices_are_counts_lists_or_auto() {
        let resolve = |text: &str| text.parse::<Devices>().and_then(|d| d.resolve(&Cpu)).map_err(|e| e.to_string());
        assert_eq!(resolve("auto"), Ok(Device::Cpu));
        assert_eq!(resolve("1"), Ok(Device::Cpu));
        assert_eq!(resolve("-1"), Ok(Device::Cpu));
        assert_eq!(resolve("0,"), Ok(Device::Cpu));
        assert_eq!(
            resolve("0").unwrap_err(),
            "devices=0 was asked for; a run needs at least one device, so set devices to 1"
        );
        assert_eq!(
            resolve("2").unwrap_err(),
            "devices=2 was asked for, and this version drives one device per run; set devices to 1"
        );
        assert_eq!(
            resolve("3,").unwrap_err(),
            "device 3 was asked for, and accelerator `cpu` has 1; choose an index below that"
        );
        assert!(resolve("two").unwrap_err().starts_with("devices=\"two\" is not a device list"));
    }
}
