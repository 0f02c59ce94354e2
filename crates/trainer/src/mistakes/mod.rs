//! Mistakes that do not show: the trainer looks for them in the first batches, says what it found once, and stops looking.

mod data_wait;
mod dead_parameters;

use data_wait::DataWait;
pub(crate) use data_wait::Phase;
use dead_parameters::DeadParameters;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::{Cuda, Device};

use crate::state::TrainerState;

/// What a fit is being watched for.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    pub dead: DeadParameters,
    pub wait: DataWait,
}

impl TrainerState {
    /// Training begins.
    pub(crate) fn look_for_mistakes(&mut self, vars: &dyn Parameters) {
        self.mistakes = Mistakes { dead: DeadParameters::of(vars), wait: DataWait::default() };
    }

    /// Says which parameters get no gradient, once each optimizer had its turn or training is over.
    pub(crate) fn report_dead_parameters(&mut self, training_is_over: bool) {
        let cycle: u64 = self.run.frequencies.iter().sum();
        if (training_is_over || self.global_step() >= cycle)
            && let Some(warning) =
                self.mistakes.dead.report(self.run.progress.epoch.current.processed.saturating_sub(1))
        {
            self.warn(&warning);
        }
    }

    /// Says whether training waits for data, once enough batches were measured.
    pub(crate) fn report_data_wait(&mut self, epoch_is_over: bool) {
        if !self.mistakes.wait.is_due(epoch_is_over) {
            return;
        }
        if let Device::Cuda(index) = self.device() {
            // What the GPU has yet to do is work too.
            let clock = self.mistakes.wait.begin();
            Cuda::synchronize(index as i64);
            self.mistakes.wait.end(Phase::Work, clock);
        }
        if let Some(warning) = self.mistakes.wait.report() {
            self.warn(&warning);
        }
    }
}
