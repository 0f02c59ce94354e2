//! [`Diagnostics`]: checks for silent mistakes during the first batches. Each finding is reported once.

mod data_wait;
mod dead_parameters;
mod losses;
mod shapes;

use std::time::Instant;

use data_wait::DataWait;
pub(crate) use data_wait::Phase;
use dead_parameters::DeadParameters;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::{Cuda, Device};
pub(crate) use losses::{Losses, LostLoss, Place};

/// The checks of a fit.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    dead: DeadParameters,
    wait: DataWait,
    pub losses: Losses,
}

impl Diagnostics {
    /// Called when training begins.
    pub(crate) fn start(vars: &dyn Parameters) -> Diagnostics {
        Diagnostics { dead: DeadParameters::of(vars), ..Diagnostics::default() }
    }

    /// After a backward pass, or before an optimizer steps: notes which parameters have a gradient.
    pub(crate) fn look_at_gradients(&mut self) {
        self.dead.look();
    }

    /// Which parameters have had no gradient up to the end of `epoch`; once.
    pub(crate) fn report_dead_parameters(&mut self, epoch: u64) -> Option<String> {
        self.dead.report(epoch)
    }

    /// Starts a timer; `None` when enough was measured.
    pub(crate) fn start_timer(&self) -> Option<Instant> {
        self.wait.start_timer()
    }

    /// Stops a timer, and adds its time to a phase.
    pub(crate) fn stop_timer(&mut self, phase: Phase, timer: Option<Instant>) {
        self.wait.stop_timer(phase, timer);
    }

    /// Whether training waits for data; once, as soon as enough batches were measured.
    pub(crate) fn report_data_wait(&mut self, device: Device, epoch_is_over: bool) -> Option<String> {
        if !self.wait.is_due(epoch_is_over) {
            return None;
        }
        if let Device::Cuda(index) = device {
            // Pending GPU work counts as training time.
            let timer = self.wait.start_timer();
            Cuda::synchronize(index as i64);
            self.wait.stop_timer(Phase::Work, timer);
        }
        self.wait.report()
    }
}
