//! [`DdpStrategy`]: one replica of the module per process, with averaged gradients.

use fulgurite_torch::distributed::{ProcessGroup, Reducer, ReducerOptions, SyncBatchNorm, verify_parameters};
use fulgurite_torch::params::Parameters;
use fulgurite_torch::params::{named_buffers, named_parameters};
use fulgurite_torch::tch::{Device, Tensor, no_grad};
use fulgurite_torch::{Value, serialization};

use super::{DdpOptions, Ranks, ReduceOp, Strategy};
use crate::{FabricError, Precision};

/// Distributed data parallel: every process has a replica of the module and its own part of the data, and each backward
/// pass averages the gradients. PyTorch's `Reducer` sends them in buckets while the rest is still being computed.
///
/// Follows `torch.nn.parallel.DistributedDataParallel` (Li et al. 2020, <https://arxiv.org/abs/2006.15704>).
pub struct DdpStrategy {
    name: String,
    options: DdpOptions,
    device: Device,
    ranks: Ranks,
    /// The group of the device's backend, for gradients and metrics.
    group: ProcessGroup,
    /// The group on the CPU, for decisions, values and barriers.
    control: ProcessGroup,
    sync_batch_norm: Option<SyncBatchNorm>,
    training: Option<Training>,
}

struct Training {
    reducer: Reducer,
    /// Of the module, in its order, with whether the reducer listens to it.
    parameters: Vec<(String, Tensor, bool)>,
    buffers: Vec<Tensor>,
    syncs: bool,
}

impl Training {
    /// Whether parameters were frozen or unfrozen since the reducer was made.
    fn is_outdated(&self) -> bool {
        self.parameters.iter().any(|(_, parameter, listens)| parameter.requires_grad() != *listens)
    }
}

impl DdpStrategy {
    /// Lightning's name of the class.
    pub const CLASS_NAME: &str = "DDPStrategy";

    /// A strategy on a group whose backend supports tensors of `device`, and one on the CPU, which may be the same.
    pub fn new(
        name: impl Into<String>,
        options: DdpOptions,
        device: Device,
        ranks: Ranks,
        group: ProcessGroup,
        control: ProcessGroup,
    ) -> DdpStrategy {
        DdpStrategy { name: name.into(), options, device, ranks, group, control, sync_batch_norm: None, training: None }
    }

    /// Synchronizes batch norms in training over all ranks from now on.
    ///
    /// # Errors
    ///
    /// Fails if libtorch does not accept the kernel for synchronized batch norms.
    pub fn synchronize_batch_norms(&mut self) -> Result<(), FabricError> {
        self.sync_batch_norm = Some(SyncBatchNorm::new(&self.group)?);
        Ok(())
    }

    /// Adds what the reducer knows about an error of the backward pass: the rank, the operation, the parameter.
    fn explain(&self, error: FabricError) -> FabricError {
        match (&self.training, error) {
            (Some(training), FabricError::Torch(error)) => FabricError::Torch(training.reducer.explain(error)),
            (_, error) => error,
        }
    }

    /// Makes a reducer of the parameters that require a gradient, if there are any.
    fn listen(&mut self, parameters: Vec<(String, Tensor)>, buffers: Vec<Tensor>) -> Result<(), FabricError> {
        let trained = parameters.iter().filter(|(_, parameter)| parameter.requires_grad());
        let (names, trained): (Vec<String>, Vec<Tensor>) =
            trained.map(|(name, parameter)| (name.clone(), parameter.shallow_clone())).unzip();
        if trained.is_empty() {
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
            names,
            ..ReducerOptions::default()
        };
        let reducer = Reducer::new(&trained, &self.group, &options)?;
        let listens = |(name, parameter): (String, Tensor)| {
            let listens = parameter.requires_grad();
            (name, parameter, listens)
        };
        let parameters = parameters.into_iter().map(listens).collect();
        self.training = Some(Training { reducer, parameters, buffers, syncs: true });
        Ok(())
    }

    /// The group of all ranks, whose backend supports tensors of the device.
    pub fn group(&self) -> &ProcessGroup {
        &self.group
    }
}

/// The buffers of the module, such as a batch norm's running mean.
fn buffers(vars: &dyn Parameters) -> Vec<Tensor> {
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

    fn class_name(&self) -> String {
        DdpStrategy::CLASS_NAME.to_owned()
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
        Ok(self.group.all_gather(&tensor.f_to_device(self.device)?.f_contiguous()?)?)
    }

    fn reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<Tensor, FabricError> {
        let tensor = tensor.f_detach()?;
        let reduced = tensor.f_to_device_(self.device, tensor.f_kind()?, false, true)?.f_contiguous()?;
        self.group.all_reduce(&reduced, op)?;
        Ok(reduced)
    }

    fn reduce_boolean_decision(&self, decision: bool, all: bool) -> Result<bool, FabricError> {
        let decision = Tensor::from_slice(&[u8::from(decision)]);
        self.control.all_reduce(&decision, if all { ReduceOp::Min } else { ReduceOp::Max })?;
        Ok(u8::try_from(&decision)? != 0)
    }

    fn control_group(&self) -> Option<&ProcessGroup> {
        Some(&self.control)
    }

    fn sync_batch_norm(&self) -> Option<&SyncBatchNorm> {
        self.sync_batch_norm.as_ref()
    }

    fn setup_module(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        let (names, parameters): (Vec<String>, Vec<Tensor>) = named_parameters(vars).into_iter().unzip();
        verify_parameters(&parameters, &names, &self.control)?;
        let all: Vec<Tensor> = parameters.iter().map(Tensor::detach).chain(buffers(vars)).collect();
        Ok(no_grad(|| self.group.broadcast_all(&all, 0))?)
    }

    fn setup_training(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        let parameters = named_parameters(vars);
        let is_known = |training: &Training| {
            let names = parameters.iter().map(|(name, _)| name);
            training.parameters.iter().map(|(name, ..)| name).eq(names) && !training.is_outdated()
        };
        if self.training.as_ref().is_some_and(is_known) {
            return Ok(());
        }
        let buffers = if self.options.broadcast_buffers { buffers(vars) } else { Vec::new() };
        self.listen(parameters, buffers)
    }

    fn begin_micro_batch(&mut self, syncs: bool) -> Result<(), FabricError> {
        if self.training.as_ref().is_some_and(Training::is_outdated)
            && let Some(Training { reducer, parameters, buffers, .. }) = self.training.take()
        {
            drop(reducer);
            let parameters = parameters.into_iter().map(|(name, parameter, _)| (name, parameter)).collect();
            self.listen(parameters, buffers)?;
        }
        let Some(training) = &mut self.training else { return Ok(()) };
        training.syncs = syncs;
        training.reducer.set_require_sync(syncs);
        if syncs {
            training.reducer.prepare_for_forward()?;
            self.group.broadcast_all(&training.buffers, 0)?;
        }
        Ok(())
    }

    /// PyTorch's DDP broadcasts the buffers before a forward pass of an evaluation too, unless the last pass of
    /// training only accumulated gradients; here they are always broadcast.
    fn begin_evaluation(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        match self.options.broadcast_buffers {
            true => Ok(no_grad(|| self.group.broadcast_all(&buffers(vars), 0))?),
            false => Ok(()),
        }
    }

    fn backward(&mut self, loss: &Tensor, precision: &mut dyn Precision) -> Result<(), FabricError> {
        if let Some(training) = self.training.as_mut().filter(|training| training.syncs) {
            training.reducer.prepare_for_backward(&[loss])?;
        }
        precision.backward(loss).map_err(|error| self.explain(error))
    }

    fn abandon(&self) {
        self.group.abandon();
        self.control.abandon();
    }

    fn end_training(&mut self) {
        self.training = None;
    }

    fn teardown(&mut self) -> Result<(), FabricError> {
        self.training = None;
        Ok(())
    }
}
