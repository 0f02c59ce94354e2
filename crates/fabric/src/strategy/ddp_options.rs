//! [`DdpOptions`].

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fulgurite_torch::distributed::Compression;

/// Options of [`DdpStrategy`](super::DdpStrategy): those of `torch.nn.parallel.DistributedDataParallel` and Lightning's
/// `DDPStrategy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, derive_setters::Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option)]
#[non_exhaustive]
pub struct DdpOptions {
    /// Whether some parameters may not contribute to the loss. Costs a traversal of the autograd graph in every step.
    pub find_unused_parameters: bool,
    /// Whether every step uses the same parameters in the same way, which enables optimizations.
    pub static_graph: bool,
    /// Whether gradients are views of the communication buckets, which saves a copy and memory.
    pub gradient_as_bucket_view: bool,
    /// Size of a bucket of gradients, in MB (2^20 bytes).
    pub bucket_cap_mb: f64,
    /// Whether the buffers of rank zero, such as a batch norm's running mean, are broadcast before each training step.
    pub broadcast_buffers: bool,
    /// The communication hook that compresses gradients to 16 bits: `fp16_compress_hook` or `bf16_compress_hook`.
    #[serde(with = "hook_name")]
    #[schemars(with = "Option<String>")]
    pub ddp_comm_hook: Option<Compression>,
    /// The timeout of the rendezvous and of collective operations: `hours:minutes:seconds`.
    #[serde(with = "time")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

impl Default for DdpOptions {
    fn default() -> DdpOptions {
        DdpOptions {
            find_unused_parameters: false,
            static_graph: false,
            gradient_as_bucket_view: false,
            bucket_cap_mb: 25.0,
            broadcast_buffers: true,
            ddp_comm_hook: None,
            timeout: Duration::from_secs(30 * 60),
        }
    }
}

/// PyTorch's names of the communication hooks.
mod hook_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::Compression;

    pub(super) fn serialize<S: Serializer>(hook: &Option<Compression>, serializer: S) -> Result<S::Ok, S::Error> {
        let name = hook.map(|hook| match hook {
            Compression::Fp16 => "fp16_compress_hook",
            Compression::Bf16 => "bf16_compress_hook",
        });
        name.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Compression>, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        // In PyTorch, hooks are functions of a module.
        match name.as_deref().map(|name| name.rsplit('.').next().unwrap_or(name)) {
            None => Ok(None),
            Some("fp16_compress_hook") => Ok(Some(Compression::Fp16)),
            Some("bf16_compress_hook") => Ok(Some(Compression::Bf16)),
            Some(other) => Err(de::Error::custom(format!(
                "ddp_comm_hook {other:?} is neither fp16_compress_hook nor bf16_compress_hook"
            ))),
        }
    }
}

/// Durations in Python's format, `0:30:00`, or with two digits of days before.
mod time {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = time.as_secs();
        serializer.serialize_str(&format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The limit on hours prevents an overflow of the seconds.
        let parts: Option<Vec<u64>> = text.split(':').map(|part| part.parse::<u32>().ok().map(u64::from)).collect();
        let seconds = match parts.as_deref() {
            Some(&[hours, minutes @ 0..60, seconds @ 0..60]) => (hours * 60 + minutes) * 60 + seconds,
            Some(&[days, hours @ 0..24, minutes @ 0..60, seconds @ 0..60]) => {
                ((days * 24 + hours) * 60 + minutes) * 60 + seconds
            }
            _ => 0,
        };
        if seconds == 0 {
            let message =
                format!("timeout {text:?} is not a positive duration; write hours:minutes:seconds, such as 0:30:00");
            return Err(de::Error::custom(message));
        }
        Ok(Duration::from_secs(seconds))
    }
}
