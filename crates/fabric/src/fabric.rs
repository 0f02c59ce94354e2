//! [`Fabric`]: the hardware, numerics and outputs of a run, without its loop.

use std::fmt;

use fulgurite_torch::tch::{Device, nn};
use fulgurite_torch::{params, runtime};

use crate::loggers::Logger;
use crate::precision::Named;
use crate::{
    CheckpointIo, DefaultCheckpointIo, Devices, FabricError, Precision, SingleDeviceStrategy, Strategy, accelerator,
    precision,
};

/// What a run stands on: a device, a precision, a strategy, loggers and checkpoint I/O.
///
/// The `Trainer` is loops and callbacks on a `Fabric`; a loop of your own can stand on one too.
///
/// ```
/// use fulgurite_fabric::Fabric;
///
/// let fabric = Fabric::new("cpu", &1.into(), "32-true").unwrap();
/// assert_eq!(fabric.world_size(), 1);
/// assert!(fabric.is_global_zero());
/// ```
pub struct Fabric {
    accelerator: &'static str,
    strategy: Box<dyn Strategy>,
    precision: Box<dyn Precision>,
    checkpoint_io: Box<dyn CheckpointIo>,
    warnings: Vec<String>,
    /// The loggers, in the order given; the first decides directories.
    pub loggers: Vec<Box<dyn Logger>>,
}

impl Fabric {
    /// A fabric on one device of `accelerator_name`, in the precision of `precision_name`.
    ///
    /// Also tunes the process once: see [`runtime::tune_allocator`] and [`runtime::adapt_waiting`].
    ///
    /// # Errors
    ///
    /// Unknown names; an accelerator or device this machine does not have.
    pub fn new(accelerator_name: &str, devices: &Devices, precision_name: &str) -> Result<Fabric, FabricError> {
        let accelerator = accelerator::accelerator(accelerator_name)?;
        let device = devices.resolve(accelerator.as_ref())?;
        let Named { precision, warnings } = precision::precision(precision_name, device)?;
        runtime::tune_allocator();
        runtime::adapt_waiting();
        Ok(Fabric {
            accelerator: accelerator.name(),
            strategy: Box::new(SingleDeviceStrategy::new(device)),
            precision,
            checkpoint_io: Box::new(DefaultCheckpointIo::new()),
            warnings,
            loggers: Vec::new(),
        })
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

    /// Writes and reads checkpoints in another way.
    pub fn set_checkpoint_io(&mut self, checkpoint_io: Box<dyn CheckpointIo>) {
        self.checkpoint_io = checkpoint_io;
    }

    /// Checkpoint I/O.
    pub fn checkpoint_io(&mut self) -> &mut dyn CheckpointIo {
        self.checkpoint_io.as_mut()
    }

    /// Processes in the run.
    pub fn world_size(&self) -> usize {
        self.strategy.world_size()
    }

    /// This process among all.
    pub fn global_rank(&self) -> usize {
        self.strategy.global_rank()
    }

    /// Whether this process writes logs and checkpoints.
    pub fn is_global_zero(&self) -> bool {
        self.strategy.global_rank() == 0
    }

    /// Moves the parameters to the device and converts them to the precision, in place: every layer follows.
    ///
    /// # Errors
    ///
    /// What libtorch said, such as out of memory.
    pub fn setup_module(&self, vars: &nn::VarStore) -> Result<(), FabricError> {
        self.precision.convert_module(vars)?;
        params::move_to(vars, self.device())?;
        Ok(())
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
