//! [`DdpStrategy`]: one module per process, one mean of their gradients.

use std::time::Duration;

use fulgurite_torch::distributed::{ProcessGroup, Reducer, ReducerOptions, Reduction, verify_parameters};
use fulgurite_torch::params::{named_buffers, named_parameters};
use fulgurite_torch::tch::{Device, Tensor, nn, no_grad};
use fulgurite_torch::{Value, serialization};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ranks, ReduceOp, Strategy};
use crate::FabricError;

pub use fulgurite_torch::distributed::Compression;

/// Options of [`DdpStrategy`]: those of `torch.nn.parallel.DistributedDataParallel` and Lightning's `DDPStrategy`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, derive_setters::Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option)]
#[non_exhaustive]
pub struct DdpOptions {
    /// Whether parameters may be left out of a loss. Costs a walk over the graph in every step.
    pub find_unused_parameters: bool,
    /// Promises that every step uses the same parameters in the same way.
    pub static_graph: bool,
    /// Keeps gradients in the buckets they are sent in, which saves a copy and their memory.
    pub gradient_as_bucket_view: bool,
    /// Size of a bucket of gradients, in MB (2^20 bytes).
    pub bucket_cap_mb: f64,
    /// Gives every rank the buffers of rank zero, such as batch norm's running means, before each step of training.
    pub broadcast_buffers: bool,
    /// Sends gradients in 16 bits.
    #[serde(with = "hook_name")]
    #[schemars(with = "Option<String>")]
    pub ddp_comm_hook: Option<Compression>,
    /// Seconds that processes wait for each other, at the start and in a collective operation, before all give up.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
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

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero());
        time.ok_or_else(|| D::Error::custom(format!("timeout {seconds} is no number of seconds above 0")))
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
        match Option::<String>::deserialize(deserializer)?.as_deref() {
            None => Ok(None),
            Some("fp16_compress_hook") => Ok(Some(Compression::Fp16)),
            Some("bf16_compress_hook") => Ok(Some(Compression::Bf16)),
            Some(other) => Err(de::Error::custom(format!(
                "ddp_comm_hook {other:?} is none of fp16_compress_hook and bf16_compress_hook"
            ))),
        }
    }
}

/// Distributed data parallel: every process has the whole module and its own part of the data, and each backward pass ends
/// with the mean of all gradients. PyTorch's `Reducer` sends them in buckets while the rest is still being computed.
///
/// Follows `torch.nn.parallel.DistributedDataParallel` (Li et al. 2020, <https://arxiv.org/abs/2006.15704>).
pub struct DdpStrategy {
    name: String,
    options: DdpOptions,
    device: Device,
    ranks: Ranks,
    /// Of the device's backend: gradients and metrics.
    group: ProcessGroup,
    /// On the CPU: decisions, values, barriers.
    control: ProcessGroup,
    training: Option<Training>,
}

struct Training {
    reducer: Reducer,
    /// Of the parameters it listens to.
    names: Vec<String>,
    buffers: Vec<Tensor>,
    syncs: bool,
}

impl DdpStrategy {
    /// A strategy over a group whose backend sends tensors of `device`, and one on the CPU, which may be the same.
    pub fn new(
        name: impl Into<String>,
        options: DdpOptions,
        device: Device,
        ranks: Ranks,
        group: ProcessGroup,
        control: ProcessGroup,
    ) -> DdpStrategy {
        DdpStrategy { name: name.into(), options, device, ranks, group, control, training: None }
    }

    /// The group of all ranks, whose backend sends tensors of the device.
    pub fn group(&self) -> &ProcessGroup {
        &self.group
    }
}

/// Trainable parameters that require a gradient, in the module's order, with their names.
fn trained(vars: &nn::VarStore) -> (Vec<String>, Vec<Tensor>) {
    named_parameters(vars).into_iter().filter(|(_, parameter)| parameter.requires_grad()).unzip()
}

fn buffers(vars: &nn::VarStore) -> Vec<Tensor> {
    named_buffers(vars).into_iter().map(|(_, buffer)| buffer).collect()
}

fn to_bytes(value: &Value) -> Result<Vec<u8>, FabricError> {
    let mut bytes = Vec::new();
    serialization::write_to(&mut bytes, value)?;
    Ok(bytes)
}

fn from_bytes(bytes: Vec<u8>) -> Result<Value, FabricError> {
    Ok(serialization::load_from(std::io::Cursor::new(bytes))?)
}

impl Strategy for DdpStrategy {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> Device {
        self.device
    }

    fn ranks(&self) -> Ranks {
        self.ranks
    }

    fn barrier(&self, name: &str) -> Result<(), FabricError> {
        tracing::debug!(name, "barrier");
        Ok(self.control.barrier()?)
    }

    fn broadcast(&self, value: Value, source: usize) -> Result<Value, FabricError> {
        let is_source = self.ranks.global == source;
        let mine = if is_source { Some(to_bytes(&value)?) } else { None };
        let bytes = self.control.broadcast_bytes(mine.as_deref(), source)?;
        if is_source { Ok(value) } else { from_bytes(bytes) }
    }

    fn all_gather_values(&self, value: Value) -> Result<Vec<Value>, FabricError> {
        let all = self.control.all_gather_bytes(&to_bytes(&value)?)?;
        all.into_iter().map(from_bytes).collect()
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, FabricError> {
        let _no_grad = fulgurite_torch::grad::NoGradGuard::new();
        Ok(self.group.all_gather(&tensor.to_device(self.device).contiguous())?)
    }

    fn reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<Tensor, FabricError> {
        let reduced = tensor.f_detach()?.f_to_device(self.device)?.f_contiguous()?.copy();
        let op = match op {
            ReduceOp::Mean => Reduction::Mean,
            ReduceOp::Sum => Reduction::Sum,
            ReduceOp::Min => Reduction::Min,
            ReduceOp::Max => Reduction::Max,
        };
        self.group.all_reduce(&reduced, op)?;
        Ok(reduced)
    }

    fn reduce_boolean_decision(&self, decision: bool, all: bool) -> Result<bool, FabricError> {
        let decision = Tensor::from_slice(&[u8::from(decision)]);
        self.control.all_reduce(&decision, if all { Reduction::Min } else { Reduction::Max })?;
        Ok(u8::try_from(&decision)? != 0)
    }

    fn control_group(&self) -> Option<&ProcessGroup> {
        Some(&self.control)
    }

    fn setup_module(&mut self, vars: &nn::VarStore) -> Result<(), FabricError> {
        let (names, parameters): (Vec<String>, Vec<Tensor>) = named_parameters(vars).into_iter().unzip();
        verify_parameters(&parameters, &names, &self.control)?;
        no_grad(|| -> Result<(), FabricError> {
            for tensor in parameters.iter().chain(&buffers(vars)) {
                self.group.broadcast(&tensor.detach(), 0)?;
            }
            Ok(())
        })
    }

    fn setup_training(&mut self, vars: &nn::VarStore) -> Result<(), FabricError> {
        let (names, parameters) = trained(vars);
        if names.is_empty() || self.training.as_ref().is_some_and(|training| training.names == names) {
            return Ok(());
        }
        // One reducer at a time listens to a parameter.
        self.training = None;
        let options = ReducerOptions {
            bucket_cap_mb: self.options.bucket_cap_mb,
            find_unused_parameters: self.options.find_unused_parameters,
            static_graph: self.options.static_graph,
            gradient_as_bucket_view: self.options.gradient_as_bucket_view,
            compression: self.options.ddp_comm_hook,
            names: names.clone(),
            ..ReducerOptions::default()
        };
        let reducer = Reducer::new(&parameters, &self.group, &options)?;
        let buffers = if self.options.broadcast_buffers { buffers(vars) } else { Vec::new() };
        self.training = Some(Training { reducer, names, buffers, syncs: true });
        Ok(())
    }

    fn begin_micro_batch(&mut self, syncs: bool) -> Result<(), FabricError> {
        let Some(training) = &mut self.training else { return Ok(()) };
        training.syncs = syncs;
        training.reducer.set_require_sync(syncs);
        if syncs {
            training.reducer.prepare_for_forward()?;
            for buffer in &training.buffers {
                self.group.broadcast(buffer, 0)?;
            }
        }
        Ok(())
    }

    fn before_backward(&mut self, loss: &Tensor) -> Result<(), FabricError> {
        match &mut self.training {
            Some(training) if training.syncs => Ok(training.reducer.prepare_for_backward(&[loss])?),
            _ => Ok(()),
        }
    }

    fn explain(&self, error: FabricError) -> FabricError {
        match (&self.training, error) {
            (Some(training), FabricError::Bridge(error)) => FabricError::Bridge(training.reducer.explain(error)),
            (_, error) => error,
        }
    }

    fn end_training(&mut self) {
        self.training = None;
    }

    fn teardown(&mut self) -> Result<(), FabricError> {
        self.training = None;
        Ok(())
    }
}
