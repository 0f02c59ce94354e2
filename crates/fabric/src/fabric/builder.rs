//! [`FabricBuilder`]: the configuration of a [`Fabric`], and how one is created from it.

use std::collections::BTreeMap;

use derive_setters::Setters;
use fulgurite_torch::distributed::{Backend, GroupOptions, ProcessGroup};
use fulgurite_torch::runtime;
use fulgurite_torch::tch::Device;

use super::{Fabric, on_rank_zero};
use crate::environments::{self, ClusterEnvironment};
use crate::launcher::LaunchPlan;
use crate::precision::Named;
use crate::strategy::{
    Groups, Ranks, SINGLE_DEVICE, Strategies, Strategy, StrategyChoice, StrategyContext, Unlaunched,
};
use crate::{DefaultCheckpointIo, Devices, FabricError, accelerator, precision};

/// The configuration of a [`Fabric`]. Created by [`Fabric::builder`].
#[derive(Debug, Clone, Setters)]
#[non_exhaustive]
pub struct FabricBuilder {
    /// The kind of device: `auto`, `cpu`, `cuda`, `gpu`, `mps`.
    #[setters(into)]
    pub accelerator: String,
    /// The devices of each node, one process per device.
    #[setters(into)]
    pub devices: Devices,
    /// The number of nodes.
    pub num_nodes: usize,
    /// How the run spreads over processes: `auto`, `single_device`, `ddp` and its variants, a registered name, or
    /// [`DdpOptions`](crate::DdpOptions).
    #[setters(into)]
    pub strategy: StrategyChoice,
    /// How numbers are represented, such as `32-true` or `bf16-mixed`.
    #[setters(into)]
    pub precision: String,
    /// Whether batch norms in training see the batches of all processes as one. No effect with one process.
    pub sync_batchnorm: bool,
    /// Values that must be equal in all processes, by name, as text. If one differs, no process starts the run.
    pub configuration: BTreeMap<String, String>,
    /// Environment variables, by name, for the processes that this one starts.
    pub rank_variables: BTreeMap<String, String>,
}

impl Fabric {
    /// A builder with Lightning's defaults.
    pub fn builder() -> FabricBuilder {
        FabricBuilder::default()
    }

    /// A fabric in one process, or those of a launcher, on `devices` of `accelerator`, in `precision`.
    ///
    /// Also tunes the process once: see [`runtime::tune_allocator`](fulgurite_torch::runtime::tune_allocator) and
    /// [`runtime::adapt_waiting`](fulgurite_torch::runtime::adapt_waiting).
    ///
    /// # Errors
    ///
    /// Fails as [`FabricBuilder::build`] does.
    pub fn new(accelerator: &str, devices: &Devices, precision: &str) -> Result<Fabric, FabricError> {
        Fabric::builder().accelerator(accelerator).devices(devices.clone()).precision(precision).build()
    }
}

impl FabricBuilder {
    /// Creates the fabric and [launches](Fabric::launch) it: if the configuration has several processes that are not
    /// started yet, this call starts them, and does not return.
    ///
    /// # Errors
    ///
    /// Fails as [`configure`](FabricBuilder::configure) and [`Fabric::launch`] do.
    pub fn build(self) -> Result<Fabric, FabricError> {
        let mut fabric = self.configure()?;
        fabric.launch()?;
        Ok(fabric)
    }

    /// Creates the fabric, which starts processes only when it is [launched](Fabric::launch). In a process that was
    /// started for the run, this is the rendezvous with the others.
    ///
    /// Also tunes a process of the run once: see [`runtime::tune_allocator`](fulgurite_torch::runtime::tune_allocator) and
    /// [`runtime::adapt_waiting`](fulgurite_torch::runtime::adapt_waiting).
    ///
    /// # Errors
    ///
    /// Fails if a name is unknown, if this machine does not have the accelerator or device, if environment variables
    /// contradict the arguments, or if a process does not connect.
    pub fn configure(self) -> Result<Fabric, FabricError> {
        let accelerator = accelerator::accelerator(&self.accelerator)?;
        Strategies::check(self.strategy.name())?;
        Strategies::check_options(self.strategy.name(), self.strategy.options())?;
        let environment = environments::current()?;
        let is_process = environment.creates_processes_externally();
        let started = environment.place().local_world_size.filter(|_| is_process).map(|reported| reported.count);
        let is_single = self.strategy.name() == SINGLE_DEVICE;
        let devices = self.devices.resolve(accelerator.as_ref(), started.filter(|_| !is_single))?;
        let world_size = devices.len().checked_mul(self.num_nodes).ok_or_else(|| {
            let (devices, nodes) = (devices.len(), self.num_nodes);
            FabricError::Setting(format!("devices={devices} on each of num_nodes={nodes} are more than can be counted"))
        })?;
        if is_single && world_size > 1 {
            return Err(Strategies::refuse_single_device(world_size));
        }
        let launch_plan = match world_size > 1 && !is_process {
            true => Some(self.launch_plan(environment.as_ref(), devices.len())?),
            false => None,
        };
        let (device, strategy) = match &launch_plan {
            Some(plan) => {
                let ranks = Ranks {
                    node: environment.place().node_rank,
                    world_size: plan.world_size(),
                    ..Ranks::SINGLE_PROCESS
                };
                let strategy = Unlaunched::new(self.strategy.name().to_owned(), devices[0], ranks);
                (devices[0], Box::new(strategy) as Box<dyn Strategy>)
            }
            None => self.meet(environment.as_ref(), accelerator.name(), &devices, world_size)?,
        };
        let Named { precision, warnings } = precision::precision(&self.precision, device)?;
        Ok(Fabric {
            accelerator: accelerator.name(),
            num_nodes: self.num_nodes,
            precision,
            checkpoint_io: on_rank_zero(strategy.as_ref(), Box::new(DefaultCheckpointIo::new())),
            strategy,
            launch_plan,
            warnings,
            syncs_gradients: true,
            loggers: Vec::new(),
            callbacks: Vec::new(),
        })
    }

    fn launch_plan(&self, environment: &dyn ClusterEnvironment, devices: usize) -> Result<LaunchPlan, FabricError> {
        let plan = LaunchPlan::new(environment, devices, self.num_nodes)?.timeout(self.strategy.timeout()?);
        Ok(self.rank_variables.iter().fold(plan, |plan, (name, value)| plan.variable(name, value)))
    }

    /// Joins the other processes of the run, if any; returns the device and the strategy of this one.
    fn meet(
        &self,
        environment: &dyn ClusterEnvironment,
        accelerator: &'static str,
        devices: &[Device],
        world_size: usize,
    ) -> Result<(Device, Box<dyn Strategy>), FabricError> {
        let (ranks, groups) = match world_size {
            1 => (Ranks::SINGLE_PROCESS, None),
            _ => {
                environment.validate_settings(devices.len(), self.num_nodes)?;
                let (ranks, groups) = self.connect(environment, accelerator)?;
                (ranks, Some(groups))
            }
        };
        runtime::tune_allocator();
        runtime::adapt_waiting();
        fulgurite_torch::shorten_panics();
        let device = devices[ranks.local];
        let strategy = Strategies::make(StrategyContext {
            name: self.strategy.name().to_owned(),
            device,
            ranks,
            groups,
            options: self.strategy.options().clone(),
            sync_batchnorm: self.sync_batchnorm,
        })?;
        Ok((device, strategy))
    }

    /// Joins the other processes.
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
        let strategy = self.strategy.to_string();
        let facts = [("strategy", strategy.as_str()), ("precision", &self.precision)].into_iter();
        let facts = facts.chain(self.configuration.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let facts: Vec<(&str, &str)> = facts.collect();
        let timeout = self.strategy.timeout()?;
        let store = environments::rendezvous(environment, &facts, timeout)?;
        let group = |backend, name: &str| {
            let options = GroupOptions { backend, timeout, name: name.into(), ..GroupOptions::default() };
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

impl Default for FabricBuilder {
    fn default() -> FabricBuilder {
        FabricBuilder {
            accelerator: "auto".into(),
            devices: Devices::Auto,
            num_nodes: 1,
            strategy: "auto".into(),
            precision: "32-true".into(),
            sync_batchnorm: false,
            configuration: BTreeMap::new(),
            rank_variables: BTreeMap::new(),
        }
    }
}
