//! Accelerators: the kinds of device a run can be put on.

use std::borrow::Cow;
use std::str::FromStr;

use fulgurite_torch::tch::{Cuda, Device};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::FabricError;
use crate::removed::{self, Place};

/// A kind of device: the number of devices, and the `tch` device of an index.
pub trait Accelerator: Send {
    /// Its registered name, such as `cuda`.
    fn name(&self) -> &'static str;

    /// The number of devices on this machine; 0 if the accelerator is not usable.
    fn available(&self) -> usize;

    /// The `tch` device of an index.
    fn device(&self, index: usize) -> Device;

    /// Whether several processes can share a device, as on the CPU.
    fn is_shared(&self) -> bool {
        false
    }
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

    fn is_shared(&self) -> bool {
        true
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
/// Fails if the name is unknown, or if the accelerator is not usable on this machine; the message lists those that are.
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
        _ => {
            let given = name.to_owned();
            return Err(match removed::hint(Place::Accelerator, name) {
                Some(hint) => FabricError::Removed { what: "accelerator", given, hint },
                None => FabricError::Unknown { what: "accelerator", given, known: KNOWN },
            });
        }
    };
    found
        .filter(|accelerator| accelerator.available() > 0)
        .ok_or_else(|| FabricError::AcceleratorUnavailable { name: asked, usable: usable() })
}

fn usable() -> Vec<&'static str> {
    let all: [Box<dyn Accelerator>; 3] = [Box::new(Cpu), Box::new(CudaGpu), Box::new(Mps)];
    all.iter().filter(|a| a.available() > 0).map(|a| a.name()).collect()
}

/// The maximum number of processes of a node.
const MAX_PROCESSES: usize = 4096;

/// Which devices of an accelerator to use: one, a count, all, or a list of indices.
///
/// In files and as text: `auto`, `1`, `-1` for all, and `"0,"` or `[0]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Devices {
    /// One device; under a launcher such as `torchrun`, one device per process that it started.
    #[default]
    Auto,
    /// All devices.
    All,
    /// The first n devices.
    Count(usize),
    /// The devices with these indices.
    Indices(Vec<usize>),
}

impl Devices {
    /// The devices that the processes of one node use, one each, in the order of their local ranks. `started` is how
    /// many processes of a node an external launcher has started, if that is known: the count that `auto` stands for.
    ///
    /// A count on the CPU is a number of processes. Elsewhere it is the first so many devices.
    ///
    /// # Errors
    ///
    /// Fails if no device is requested, all of the CPU, more devices than exist, a device that does not exist, or more
    /// than 4096 processes.
    pub fn resolve(&self, accelerator: &dyn Accelerator, started: Option<usize>) -> Result<Vec<Device>, FabricError> {
        let (available, has_copies) = (accelerator.available(), accelerator.is_shared());
        let too_many =
            |requested: String| FabricError::TooManyDevices { accelerator: accelerator.name(), requested, available };
        let beyond = |count: usize| {
            FabricError::Setting(format!(
                "devices={count} was requested, but a machine can have {MAX_PROCESSES} processes of a run; write a smaller \
                 number"
            ))
        };
        let first = |count: usize| match count {
            _ if !has_copies && count > available => Err(too_many(count.to_string())),
            _ if count > MAX_PROCESSES => Err(beyond(count)),
            _ => Ok((0..count).collect()),
        };
        let indices: Vec<usize> = match self {
            Devices::Auto => first(started.unwrap_or(1))?,
            Devices::Count(0) => return Err(FabricError::NoDevice),
            Devices::All if has_copies => {
                return Err(FabricError::Setting(
                    "all devices were requested (`Devices::All`, -1 in files), but processes on the CPU are as many as you like; write a number".into(),
                ));
            }
            Devices::All => first(available)?,
            Devices::Count(n) => first(*n)?,
            Devices::Indices(indices) if indices.is_empty() => return Err(FabricError::NoDevice),
            Devices::Indices(indices) if indices.len() > MAX_PROCESSES => return Err(beyond(indices.len())),
            Devices::Indices(indices) => indices.clone(),
        };
        if has_copies {
            return Ok(indices.into_iter().map(|index| accelerator.device(index)).collect());
        }
        if let Some((at, index)) = indices.iter().enumerate().find(|(at, index)| indices[..*at].contains(index)) {
            return Err(FabricError::Setting(format!(
                "devices={indices:?} names device {index} twice, at {}; a device is for one process",
                at + 1
            )));
        }
        if let Some(&index) = indices.iter().find(|index| **index >= available) {
            return Err(match self {
                Devices::Indices(_) => FabricError::NoSuchDevice { accelerator: accelerator.name(), index, available },
                _ => too_many(indices.len().to_string()),
            });
        }
        Ok(indices.into_iter().map(|index| accelerator.device(index)).collect())
    }
}

impl From<usize> for Devices {
    fn from(count: usize) -> Devices {
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
            Devices::All => serializer.serialize_i64(-1),
            Devices::Count(count) => count.serialize(serializer),
            Devices::Indices(indices) => indices.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Devices, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Count(usize),
            Negative(i64),
            Indices(Vec<usize>),
            Text(String),
        }
        Ok(match Spelling::deserialize(deserializer)? {
            Spelling::Count(count) => Devices::Count(count),
            Spelling::Negative(number) => number.to_string().parse().map_err(serde::de::Error::custom)?,
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
                { "type": "integer", "minimum": -1 },
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
        } else if text == "-1" {
            Ok(Devices::All)
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
        let error = accelerator("ipu").map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            error,
            "accelerator `ipu` no longer exists: IPUs left Lightning for the package lightning-graphcore; write `cpu`, `cuda` or \
             `mps`"
        );
    }

    #[test]
    fn devices_are_counts_lists_or_auto() {
        struct TwoGpus;
        impl Accelerator for TwoGpus {
            fn name(&self) -> &'static str {
                "cuda"
            }
            fn available(&self) -> usize {
                2
            }
            fn device(&self, index: usize) -> Device {
                Device::Cuda(index)
            }
        }
        let resolve = |accelerator: &dyn Accelerator, text: &str, started| {
            text.parse::<Devices>().and_then(|d| d.resolve(accelerator, started)).map_err(|e| e.to_string())
        };
        let cpu = |text| resolve(&Cpu, text, None);
        let gpu = |text| resolve(&TwoGpus, text, None);
        assert_eq!(cpu("auto"), Ok(vec![Device::Cpu]));
        assert_eq!(resolve(&Cpu, "auto", Some(3)), Ok(vec![Device::Cpu; 3]));
        assert_eq!(cpu("2"), Ok(vec![Device::Cpu; 2]));
        assert_eq!(cpu("0,"), Ok(vec![Device::Cpu]));
        assert_eq!(gpu("auto"), Ok(vec![Device::Cuda(0)]));
        assert_eq!(gpu("-1"), Ok(vec![Device::Cuda(0), Device::Cuda(1)]));
        assert_eq!(gpu("1,0"), Ok(vec![Device::Cuda(1), Device::Cuda(0)]));
        assert_eq!(
            cpu("0").unwrap_err(),
            "devices=0 was requested; a run needs at least one device, so set devices to 1"
        );
        assert_eq!(
            gpu("4").unwrap_err(),
            "devices=4 was requested, but accelerator `cuda` has 2 here; set devices to 2 or fewer"
        );
        assert_eq!(
            gpu("3,").unwrap_err(),
            "device 3 was requested, but accelerator `cuda` has 2; choose an index below that"
        );
        assert_eq!(gpu("1,1").unwrap_err(), "devices=[1, 1] names device 1 twice, at 2; a device is for one process");
        assert!(cpu("-1").unwrap_err().contains("write a number"));
        let many = "was requested, but a machine can have 4096 processes of a run; write a smaller number";
        assert_eq!(cpu("9223372036854775807").unwrap_err(), format!("devices=9223372036854775807 {many}"));
        assert_eq!(resolve(&Cpu, "auto", Some(usize::MAX)).unwrap_err(), format!("devices={} {many}", usize::MAX));
        assert_eq!(
            gpu("9223372036854775807").unwrap_err(),
            "devices=9223372036854775807 was requested, but accelerator `cuda` has 2 here; set devices to 2 or fewer"
        );
        assert!(cpu("-2").unwrap_err().starts_with("devices=\"-2\" is not a device list"));
        assert!(
            cpu("18446744073709551616")
                .unwrap_err()
                .starts_with("devices=\"18446744073709551616\" is not a device list")
        );
        assert!(gpu("9223372036854775807,").unwrap_err().starts_with("device 9223372036854775807 was requested"));
        assert!(cpu("two").unwrap_err().starts_with("devices=\"two\" is not a device list"));
    }

    #[test]
    fn files_write_minus_one_for_all_devices() {
        let all = [(Devices::Auto, "\"auto\""), (Devices::All, "-1"), (2.into(), "2"), (vec![0].into(), "[0]")];
        for (devices, written) in all {
            assert_eq!(serde_json::to_string(&devices).unwrap(), written);
            assert_eq!(serde_json::from_str::<Devices>(written).unwrap(), devices);
        }
        let below = serde_json::from_str::<Devices>("-2").unwrap_err().to_string();
        assert!(below.starts_with("devices=\"-2\" is not a device list"), "{below}");
    }
}
