//! [`Fabric`]: the hardware, numerics and outputs of a run, without its loop.

use std::fmt;
use std::time::Duration;

use derive_setters::Setters;
use fulgurite_torch::distributed::{Backend, GroupOptions, ProcessGroup};
use fulgurite_torch::tch::{Device, nn};
use fulgurite_torch::{params, runtime};

use crate::environments::{self, ClusterEnvironment};
use crate::launcher::{self, LaunchPlan};
use crate::loggers::Logger;
use crate::precision::Named;
use crate::strategy::{DdpOptions, Groups, Ranks, Strategies, StrategyContext};
use crate::{
    CheckpointIo, DefaultCheckpointIo, Devices, FabricError, Precision, RankZeroCheckpointIo, Strategy, accelerator,
    precision,
};

/// What a [`Fabric`] is made of. Made by [`Fabric::builder`].
#[derive(Debug, Clone, Setters)]
#[non_exhaustive]
pub struct FabricBuilder {
    /// The kind of device: `auto`, `cpu`, `cuda`, `gpu`, `mps`.
    #[setters(into)]
    pub accelerator: String,
    /// The devices of each machine, one process each.
    #[setters(into)]
    pub devices: Devices,
    /// Machines in the run.
    pub num_nodes: usize,
    /// How the run spreads over processes: `auto`, `single_device`, `ddp` and its variants, or a registered name.
    #[setters(into)]
    pub strategy: String,
    /// How numbers are represented, such as `32-true` or `bf16-mixed`.
    #[setters(into)]
    pub precision: String,
    /// What `ddp` is told.
    pub ddp: DdpOptions,
    /// How long processes wait for each other, at the start and in a collective operation.
    pub timeout: Duration,
    /// Whatever must be the same in all processes, as text: where it differs, none of them begins.
    #[setters(into)]
    pub configuration: String,
}

impl FabricBuilder {
    /// The fabric. Where the configuration asks for several processes that nobody has started, the program starts itself
    /// once for each: this call does not return then, and ends the process with their exit code when they have ended.
    ///
    /// # Errors
    ///
    /// Unknown names; an accelerator or device this machine does not have; environment variables that contradict the
    /// arguments; a process that never came.
    pub fn build(self) -> Result<Fabric, FabricError> {
        let accelerator = accelerator::accelerator(&self.accelerator)?;
        Strategies::check(&self.strategy)?;
        let environment = environments::current()?;
        let is_process = environment.creates_processes_externally();
        let started = environment.place().local_world_size.filter(|_| is_process).map(|told| told.count);
        let is_single = self.strategy == "single_device";
        let devices = self.devices.resolve(accelerator.as_ref(), started.filter(|_| !is_single))?;
        let world_size = devices.len() * self.num_nodes;
        if is_single && world_size > 1 {
            return Err(FabricError::Setting(format!(
                "strategy `single_device` was asked for with {world_size} processes; write `ddp`, or set devices and num_nodes to 1"
            )));
        }
        let connected = match world_size {
            1 => None,
            _ if !is_process => {
                let plan = LaunchPlan::new(environment.as_ref(), devices.len(), self.num_nodes)?;
                // What comes after this is the ranks' work.
                std::process::exit(launcher::launch(&plan)?)
            }
            _ => {
                environment.validate_settings(devices.len(), self.num_nodes)?;
                Some(self.connect(environment.as_ref(), accelerator.name())?)
            }
        };
        runtime::tune_allocator();
        runtime::adapt_waiting();
        let (ranks, groups) = connected.map_or((Ranks::ALONE, None), |(ranks, groups)| (ranks, Some(groups)));
        let device = devices[ranks.local];
        let Named { precision, warnings } = precision::precision(&self.precision, device)?;
        let context = StrategyContext { name: self.strategy.clone(), device, ranks, groups, ddp: self.ddp.clone() };
        let mut fabric = Fabric {
            accelerator: accelerator.name(),
            num_nodes: self.num_nodes,
            strategy: Strategies::make(context)?,
            precision,
            checkpoint_io: Box::new(DefaultCheckpointIo::new()),
            warnings,
            loggers: Vec::new(),
        };
        fabric.set_checkpoint_io(Box::new(DefaultCheckpointIo::new()));
        Ok(fabric)
    }

    /// Meets the other processes.
    fn connect(
        &self,
        environment: &dyn ClusterEnvironment,
        accelerator: &'static str,
    ) -> Result<(Ranks, Groups), FabricError> {
        let place = environment.place();
        let ranks = Ranks {
            global: place.global_rank,
            local: place.local_rank,
            node: place.node_rank,
            world_size: place.world_size,
        };
        let facts =
            [("strategy", &self.strategy), ("precision", &self.precision), ("configuration", &self.configuration)];
        let facts = facts.map(|(name, value)| (name, value.as_str()));
        let store = environments::rendezvous(environment, &facts, self.timeout)?;
        let group = |backend, name: &str| {
            let options = GroupOptions { backend, timeout: self.timeout, name: name.into(), ..GroupOptions::default() };
            ProcessGroup::new(&store, ranks.global, ranks.world_size, &options)
        };
        let control = group(Backend::Gloo, "control")?;
        let device = match accelerator {
            "cuda" => group(Backend::Nccl, "gradients")?,
            _ => group(Backend::Gloo, "gradients")?,
        };
        Ok((ranks, Groups { device, control }))
    }
}

/// What a run stands on: devices, a precision, a strategy, loggers and checkpoint I/O.
///
/// The `Trainer` is loops and callbacks on a `Fabric`; a loop of your own can stand on one too.
///
/// ```
/// use fulgurite_fabric::Fabric;
///
/// let fabric = Fabric::builder().accelerator("cpu").precision("32-true").build().unwrap();
/// assert_eq!(fabric.world_size(), 1);
/// assert!(fabric.is_global_zero());
/// ```
pub struct Fabric {
    accelerator: &'static str,
    num_nodes: usize,
    strategy: Box<dyn Strategy>,
    precision: Box<dyn Precision>,
    checkpoint_io: Box<dyn CheckpointIo>,
    warnings: Vec<String>,
    /// The loggers, in the order given; the first decides directories.
    pub loggers: Vec<Box<dyn Logger>>,
}

impl Fabric {
    /// A builder with Lightning's defaults.
    pub fn builder() -> FabricBuilder {
        FabricBuilder {
            accelerator: "auto".into(),
            devices: Devices::Auto,
            num_nodes: 1,
            strategy: "auto".into(),
            precision: "32-true".into(),
            ddp: DdpOptions::default(),
            timeout: Duration::from_secs(30 * 60),
            configuration: String::new(),
        }
    }

    /// A fabric in one process, or those of a launcher, on `devices` of `accelerator`, in `precision`.
    ///
    /// Also tunes the process once: see [`runtime::tune_allocator`] and [`runtime::adapt_waiting`].
    ///
    /// # Errors
    ///
    /// As [`FabricBuilder::build`].
    pub fn new(accelerator: &str, devices: &Devices, precision: &str) -> Result<Fabric, FabricError> {
        Fabric::builder().accelerator(accelerator).devices(devices.clone()).precision(precision).build()
    }

    /// The accelerator's name.
    pub fn accelerator(&self) -> &'static str {
        self.accelerator
    }

    /// The device of this process.
    pub fn device(&self) -> Device {
        self.strategy.device()
    }

    /// The strategy.
    pub fn strategy(&self) -> &dyn Strategy {
        self.strategy.as_ref()
    }

    /// The strategy, to train with.
    pub fn strategy_mut(&mut self) -> &mut dyn Strategy {
        self.strategy.as_mut()
    }

    /// The precision.
    pub fn precision(&self) -> &dyn Precision {
        self.precision.as_ref()
    }

    /// The precision, to restore its state.
    pub fn precision_mut(&mut self) -> &mut dyn Precision {
        self.precision.as_mut()
    }

    /// What the user should know about what was asked for and is done, one sentence each; empty from then on.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Takes another precision, before the module is set up.
    pub fn set_precision(&mut self, precision: Box<dyn Precision>) {
        self.precision = precision;
    }

    /// Writes and reads checkpoints in another way. With several processes, rank zero writes, and tells the others.
    pub fn set_checkpoint_io(&mut self, checkpoint_io: Box<dyn CheckpointIo>) {
        self.checkpoint_io = match self.strategy.control_group() {
            Some(group) => Box::new(RankZeroCheckpointIo::new(checkpoint_io, group.clone())),
            None => checkpoint_io,
        };
    }

    /// Checkpoint I/O.
    pub fn checkpoint_io(&mut self) -> &mut dyn CheckpointIo {
        self.checkpoint_io.as_mut()
    }

    /// Where this process is among those of the run.
    pub fn ranks(&self) -> Ranks {
        self.strategy.ranks()
    }

    /// Machines in the run.
    pub fn num_nodes(&self) -> usize {
        self.num_nodes
    }

    /// Processes in the run.
    pub fn world_size(&self) -> usize {
        self.ranks().world_size
    }

    /// This process among all.
    pub fn global_rank(&self) -> usize {
        self.ranks().global
    }

    /// This process on its machine.
    pub fn local_rank(&self) -> usize {
        self.ranks().local
    }

    /// This machine among all.
    pub fn node_rank(&self) -> usize {
        self.ranks().node
    }

    /// Whether this process writes logs and checkpoints.
    pub fn is_global_zero(&self) -> bool {
        self.global_rank() == 0
    }

    /// Moves the parameters to the device and converts them to the precision, in place: every layer follows. With several
    /// processes, all get the parameters and buffers of rank zero.
    ///
    /// # Errors
    ///
    /// What libtorch said, such as out of memory; modules that differ between ranks.
    pub fn setup_module(&mut self, vars: &nn::VarStore) -> Result<(), FabricError> {
        self.precision.convert_module(vars)?;
        params::move_to(vars, self.device())?;
        self.strategy.setup_module(vars)
    }

    /// Prepares for training what was set up, before optimizers exist; and again when other parameters require a gradient.
    ///
    /// # Errors
    ///
    /// What the strategy's backend said.
    pub fn setup_training(&mut self, vars: &nn::VarStore) -> Result<(), FabricError> {
        self.strategy.setup_training(vars)
    }

    /// A forward pass of training begins. Its backward pass ends with the mean of the gradients of all processes, unless
    /// `syncs` is false, as it is within an accumulation window.
    ///
    /// # Errors
    ///
    /// What the strategy's backend said.
    pub fn begin_micro_batch(&mut self, syncs: bool) -> Result<(), FabricError> {
        self.strategy.begin_micro_batch(syncs)
    }

    /// Training is over: what only training needs is given back.
    pub fn end_training(&mut self) {
        self.strategy.end_training();
    }

    /// Gives back what the run held.
    ///
    /// # Errors
    ///
    /// What the strategy's backend said.
    pub fn teardown(&mut self) -> Result<(), FabricError> {
        self.strategy.teardown()
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fabric")
            .field("accelerator", &self.accelerator)
            .field("strategy", &self.strategy.name())
            .field("precision", &self.precision.name())
            .field("loggers", &self.loggers.len())
            .finish_non_exhaustive()
    }
}
