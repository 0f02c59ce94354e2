//! [`PruningCallback`].

use fulgurite_engine::{Callback, Error, ModuleView, Result, TrainerState};
use fulgurite_search::{Pruner, SearchError, Study, TrialState};

/// Reports a monitored value to a trial after each validation, and stops the run if a pruner wants that: Optuna's
/// `PyTorchLightningPruningCallback`. The step is the epoch, as there.
///
/// It also ends the trial: as pruned, as complete with the last value, or as failed if an error or a signal ends the run or the
/// value never came. With several ranks, that of rank zero does it; a stop is common to all.
pub struct PruningCallback {
    study: Study,
    trial: usize,
    monitor: String,
    pruner: Option<Pruner>,
    /// What was reported last.
    value: Option<f64>,
    is_pruned: bool,
    has_ended: bool,
}

impl PruningCallback {
    /// Reports `monitor` to the trial with this [`id`](fulgurite_search::Trial::id), and stops nothing. The study is one that was
    /// opened for it, since several may be open on one journal.
    pub fn new(study: Study, trial: usize, monitor: impl Into<String>) -> PruningCallback {
        let monitor = monitor.into();
        PruningCallback { study, trial, monitor, pruner: None, value: None, is_pruned: false, has_ended: false }
    }

    /// Stops the run when the pruner says so.
    #[must_use]
    pub fn pruner(mut self, pruner: Pruner) -> PruningCallback {
        self.pruner = Some(pruner);
        self
    }

    /// Whether it has stopped the run.
    pub fn is_pruned(&self) -> bool {
        self.is_pruned
    }

    fn tell(&mut self, state: TrialState, value: Option<f64>) -> Result<()> {
        if std::mem::replace(&mut self.has_ended, true) {
            return Ok(());
        }
        Ok(self.study.tell(self.trial, state, value).map_err(failed)?)
    }
}

fn failed(error: SearchError) -> Error {
    Error::Config(format!("a trial cannot be reported: {error}"))
}

impl Callback for PruningCallback {
    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if trainer.is_sanity_checking() || !trainer.is_global_zero() || self.has_ended {
            return Ok(());
        }
        let Some(value) = trainer.callback_metrics()?.get(&self.monitor).map(|value| value.to_f64()) else {
            let logged: Vec<&str> = trainer.callback_metrics()?.keys().map(String::as_str).collect();
            let problem = format!(
                "PruningCallback monitors `{}`, which was not logged; there are: {}",
                self.monitor,
                logged.join(", ")
            );
            trainer.warn(&problem);
            return Ok(());
        };
        self.value = Some(value);
        let epoch = i64::try_from(trainer.current_epoch()).unwrap_or(i64::MAX);
        self.study.report(self.trial, epoch, value).map_err(failed)?;
        let Some(pruner) = &mut self.pruner else { return Ok(()) };
        if self.study.should_prune(self.trial, pruner).map_err(failed)? {
            self.is_pruned = true;
            trainer.request_stop(format!("the trial was pruned at epoch {epoch}, with `{}` at {value}", self.monitor));
        }
        Ok(())
    }

    fn on_train_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if !trainer.is_global_zero() {
            return Ok(());
        }
        match self.value {
            value if self.is_pruned => self.tell(TrialState::Pruned, value),
            Some(value) if !trainer.is_interrupted() => self.tell(TrialState::Complete, Some(value)),
            _ => self.tell(TrialState::Fail, None),
        }
    }

    fn on_exception(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, _: &Error) -> Result<()> {
        if trainer.is_global_zero() { self.tell(TrialState::Fail, None) } else { Ok(()) }
    }
}
