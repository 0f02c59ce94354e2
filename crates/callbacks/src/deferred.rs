//! [`Deferred`]: values that stay on their device until several are read at once.

use fulgurite_engine::{Error, TrainerState};
use fulgurite_torch::tch::{Device, Tensor};
use fulgurite_torch::{to_host_f64, to_host_f64s};

/// Values of steps that have not been read yet. Reading makes the host wait for the device, so values on a GPU are read
/// in batches.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    values: Vec<Tensor>,
    steps: Vec<StepOf>,
}

/// The step of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepOf {
    pub epoch: u64,
    pub batch_idx: usize,
}

impl Deferred {
    /// Stores a value of the current step.
    pub(super) fn push(&mut self, value: &Tensor, trainer: &TrainerState) {
        self.values.push(value.detach());
        self.steps.push(StepOf { epoch: trainer.current_epoch(), batch_idx: trainer.batch_idx().unwrap_or(0) });
    }

    /// Whether to read the values now: after `every_n_steps`; by default after every step on the CPU, where reading is
    /// free, and at the logging interval on other devices.
    pub(super) fn is_due(&self, every_n_steps: Option<u64>, trainer: &TrainerState) -> bool {
        let on_device = || if trainer.device() == Device::Cpu { 1 } else { trainer.config().log_every_n_steps };
        self.values.len() as u64 >= every_n_steps.unwrap_or_else(on_device).max(1)
    }

    /// Reads and removes all values.
    pub(super) fn read(&mut self, mut each: impl FnMut(StepOf, f64)) -> Result<(), Error> {
        if let ([value], [step]) = (self.values.as_slice(), self.steps.as_slice()) {
            each(*step, to_host_f64(value)?);
        } else {
            self.steps.iter().zip(to_host_f64s(&self.values)?).for_each(|(step, value)| each(*step, value));
        }
        self.values.clear();
        self.steps.clear();
        Ok(())
    }

    /// The values, still on their device.
    pub(super) fn values(&self) -> &[Tensor] {
        &self.values
    }
}

impl std::fmt::Display for StepOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch {}, batch {}", self.epoch, self.batch_idx)
    }
}
