//! The methods for a custom training loop: Lightning's Fabric.

use std::any::Any;
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use fulgurite_data::{BoxLoader, IntoLoader, Loader, Shard};
use fulgurite_optim::Optimizer;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Path as ModulePath, Value, VarStore, params, printable, rng, tensor_id};

use super::Fabric;
use crate::{Commit, FabricError, Pass, ReduceOp};

/// A custom training loop. What a loop over `tch` changes to run on several processes, in another precision, or on
/// another device:
///
/// ```no_run
/// use fulgurite_data::{DataLoader, InMemory, Loader};
/// use fulgurite_fabric::{Fabric, FabricError};
/// use fulgurite_optim::{Optimizer, SGD};
/// use fulgurite_torch::tch::{Tensor, nn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut fabric = Fabric::builder().devices(2).strategy("ddp").build()?;
/// let (vars, layer) = fabric.init_module(|root| Ok::<_, FabricError>(nn::linear(root, 1, 1, Default::default())))?;
/// let mut optimizer = fabric.setup(&vars, SGD::new(&vars).lr(0.1).build()?)?;
/// let loader = fabric.setup_dataloader(DataLoader::new(InMemory::new((0..64).map(|x| x as f32))).batch_size(8))?;
/// for batch in loader.iter(0, 0)? {
///     let x = fabric.to_device(batch?).unsqueeze(1);
///     optimizer.zero_grad()?;
///     let loss = fabric.forward(|| (x.apply(&layer) - &x).square().mean(x.kind()))?;
///     fabric.backward(&loss)?;
///     fabric.optimizer_step(optimizer.as_mut())?;
/// }
/// # Ok(()) }
/// ```
impl Fabric {
    // Set-up ----------------------------------------------------------------------------------------------------------

    /// Creates a module whose parameters are on the device and of the precision's kind: `make` gets the root of their
    /// `VarStore`, which also switches the module's layers between training and evaluation. It runs within
    /// [`model_init_context`](Fabric::model_init_context).
    ///
    /// # Errors
    ///
    /// Fails if `make` does, or if the strategy cannot enter its context for new modules.
    pub fn init_module<T, E>(
        &self,
        make: impl FnOnce(&ModulePath<'_>) -> Result<T, E>,
    ) -> Result<(VarStore, T), FabricError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let _context = self.model_init_context()?;
        let mut vars = VarStore::new(self.device());
        vars.set_kind(self.precision().init_kind());
        let module = make(&vars.root()).map_err(|error| FabricError::Module(error.into()))?;
        Ok((vars, module))
    }

    /// Sets a module and its optimizer up for training: [`setup_module`](Fabric::setup_module),
    /// [`setup_training`](Fabric::setup_training) and [`setup_optimizers`](Fabric::setup_optimizers).
    ///
    /// # Errors
    ///
    /// Fails as these methods do.
    pub fn setup(
        &mut self,
        vars: &dyn Parameters,
        optimizer: Box<dyn Optimizer>,
    ) -> Result<Box<dyn Optimizer>, FabricError> {
        self.setup_module(vars)?;
        self.setup_training(vars)?;
        self.setup_optimizers(vars, [optimizer.as_ref()])?;
        Ok(optimizer)
    }

    /// Checks that the optimizers of a module can be stepped.
    ///
    /// # Errors
    ///
    /// Fails if an optimizer has parameters that are not the module's, or if the precision or the strategy cannot step
    /// it.
    pub fn setup_optimizers<'o>(
        &mut self,
        vars: &dyn Parameters,
        optimizers: impl IntoIterator<Item = &'o dyn Optimizer>,
    ) -> Result<(), FabricError> {
        let of_module: HashSet<usize> =
            params::named_parameters(vars).iter().map(|(_, parameter)| tensor_id(parameter)).collect();
        for optimizer in optimizers {
            let mut parameters = optimizer.param_groups().iter().flat_map(|group| &group.params);
            if parameters.any(|parameter| !of_module.contains(&tensor_id(parameter))) {
                return Err(FabricError::Setting(format!(
                    "{} was created for parameters that are not the module's; create it from the parameters of the module that is set up",
                    optimizer.name()
                )));
            }
            self.precision().check_optimizer(optimizer)?;
            self.strategy().check_optimizer(optimizer)?;
        }
        Ok(())
    }

    /// Distributes a loader: each process gets its share of the data, with the same number of batches. A loader without
    /// indexed items, such as a stream, is returned unchanged.
    ///
    /// # Errors
    ///
    /// Fails if the strategy's rank of this process is not below its world size.
    pub fn setup_dataloader<L: IntoLoader>(&self, loader: L) -> Result<BoxLoader<L::Batch>, FabricError> {
        let loader = loader.into_loader();
        let ranks = self.ranks();
        if ranks.world_size == 1 {
            return Ok(loader);
        }
        let shard =
            Shard::new(ranks.world_size, ranks.global).map_err(|error| FabricError::Setting(error.to_string()))?;
        Ok(loader.shard(shard).unwrap_or(loader))
    }

    /// Moves a batch to the device, and converts its floating-point tensors to the kind of the precision.
    pub fn to_device<B: fulgurite_data::Batch>(&self, batch: B) -> B {
        self.convert_input(batch).to_device(self.device())
    }

    /// Seeds all random number generators, equally on every process, so that all create the same parameters. Returns
    /// the seed.
    ///
    /// # Errors
    ///
    /// Fails if the random number generator of a device cannot be seeded.
    pub fn seed_everything(&self, seed: u64) -> Result<u64, FabricError> {
        Ok(rng::seed_everything(seed)?)
    }

    // Steps -----------------------------------------------------------------------------------------------------------

    /// The forward pass of a training step, in the context of the precision and the strategy. The backward pass of what
    /// it returns gives every process the mean of the gradients, except within
    /// [`no_backward_sync`](Fabric::no_backward_sync).
    ///
    /// # Errors
    ///
    /// Fails if the device does not support autocast, or if the strategy cannot enter its context.
    pub fn forward<T>(&mut self, forward: impl FnOnce() -> T) -> Result<T, FabricError> {
        self.begin_micro_batch(self.syncs_gradients)?;
        let _context = self.forward_context(Pass::Training)?;
        Ok(forward())
    }

    /// Steps within which every process keeps its own gradients, as the first ones of an accumulation window: they are
    /// sent with those of the first step after it. No effect if `enabled` is `false`.
    pub fn no_backward_sync<T>(&mut self, enabled: bool, steps: impl FnOnce(&mut Fabric) -> T) -> T {
        let before = self.syncs_gradients;
        self.syncs_gradients &= !enabled;
        let returned = steps(self);
        self.syncs_gradients = before;
        returned
    }

    // Communication ---------------------------------------------------------------------------------------------------

    /// Blocks until every process has called it.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    pub fn barrier(&self) -> Result<(), FabricError> {
        self.strategy().barrier("fabric")
    }

    /// Broadcasts the value of process `source` to all; tensors are returned on the CPU.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    pub fn broadcast(&self, value: impl Into<Value>, source: usize) -> Result<Value, FabricError> {
        self.strategy().broadcast(value.into(), source)
    }

    /// Gathers the tensors of all processes, stacked: `[world_size, ...]`. Without a gradient.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout, or if the tensors differ in shape.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, FabricError> {
        Ok(Tensor::f_stack(&self.strategy().all_gather(tensor)?, 0)?)
    }

    /// Reduces the tensors of all processes to one, on every process. Without a gradient.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout, or if the tensors differ in shape.
    pub fn all_reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<Tensor, FabricError> {
        self.strategy().reduce(tensor, op)
    }

    /// Calls `act` on rank zero first, such as a download, and then on the others. With `local`, on the first process
    /// of each node first.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    pub fn rank_zero_first<T>(&self, local: bool, act: impl FnOnce() -> T) -> Result<T, FabricError> {
        let is_first = if local { self.local_rank() == 0 } else { self.is_global_zero() };
        let first = if is_first { Ok(act()) } else { Err(act) };
        self.barrier()?;
        Ok(first.unwrap_or_else(|act| act()))
    }

    // Files, logs, callbacks ------------------------------------------------------------------------------------------

    /// Writes a state, such as `Dict::new().with("model", params::state_dict(&vars)?)`, as `torch.save` does. Rank zero
    /// writes; the call returns on every rank once the file is complete.
    ///
    /// # Errors
    ///
    /// Fails on every rank if the file cannot be written.
    pub fn save(&mut self, path: impl AsRef<Path>, state: &Dict) -> Result<(), FabricError> {
        let commit = Commit { path: path.as_ref().into(), ..Commit::default() };
        self.save_checkpoint(&Value::Dict(state.clone()), &commit)?;
        // Where checkpoints are written in the background, this one is waited for.
        self.checkpoint_io().wait().map_or(Ok(()), |failure| Err(failure.error))
    }

    /// [`save`](Fabric::save) of the entries of each dict in `state` for which `filter(key of the dict, name)` is
    /// `true`.
    ///
    /// # Errors
    ///
    /// Fails as [`save`](Fabric::save) does.
    pub fn save_filtered(
        &mut self,
        path: impl AsRef<Path>,
        state: &Dict,
        filter: impl Fn(&str, &str) -> bool,
    ) -> Result<(), FabricError> {
        let filtered = state.iter().map(|(key, value)| match (key.as_str(), value.as_dict()) {
            (Some(of), Some(entries)) => {
                let keeps = |name: &Value| name.as_str().is_none_or(|name| filter(of, name));
                let kept = entries.iter().filter(|(name, _)| keeps(name));
                (key.clone(), Value::Dict(kept.map(|(name, value)| (name.clone(), value.clone())).collect()))
            }
            _ => (key.clone(), value.clone()),
        });
        self.save(path, &filtered.collect())
    }

    /// Reads what [`save`](Fabric::save) or `torch.save` wrote, on every process; tensors are on the CPU.
    ///
    /// # Errors
    ///
    /// Fails if the file is missing, damaged, or not a checkpoint.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<Dict, FabricError> {
        let path = path.as_ref();
        match self.load_checkpoint(path)? {
            Value::Dict(state) => Ok(state),
            other => Err(FabricError::Checkpoint {
                path: path.into(),
                message: format!("it contains a {}, not a dict", other.type_name()),
            }),
        }
    }

    /// Sends a value to every logger, on rank zero.
    ///
    /// # Errors
    ///
    /// Fails if a logger cannot write.
    pub fn log(&mut self, name: &str, value: f64, step: i64) -> Result<(), FabricError> {
        self.log_dict(&[(name, value)], step)
    }

    /// Sends values to every logger, on rank zero.
    ///
    /// # Errors
    ///
    /// Fails if a logger cannot write.
    pub fn log_dict(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), FabricError> {
        if !self.is_global_zero() {
            return Ok(());
        }
        Ok(self.loggers.iter_mut().try_for_each(|logger| logger.log_metrics(metrics, step))?)
    }

    /// Prints a line to standard output, on rank zero; control characters are escaped ([`printable`]).
    pub fn print(&self, line: &str) {
        if self.is_global_zero() {
            // A closed pipe is not an error: its reader has read enough.
            let _ = writeln!(std::io::stdout(), "{}", printable(line));
        }
    }

    /// Calls `hook` on every callback of type `C`, in order.
    ///
    /// ```
    /// use fulgurite_fabric::Fabric;
    ///
    /// struct Best(f64);
    ///
    /// let mut fabric = Fabric::builder().accelerator("cpu").build()?;
    /// fabric.callbacks.push(Box::new(Best(f64::INFINITY)));
    /// fabric.call(|best: &mut Best| best.0 = best.0.min(0.3));
    /// # Ok::<(), fulgurite_fabric::FabricError>(())
    /// ```
    pub fn call<C: Any>(&mut self, mut hook: impl FnMut(&mut C)) {
        self.callbacks.iter_mut().filter_map(|callback| callback.downcast_mut()).for_each(&mut hook);
    }
}
