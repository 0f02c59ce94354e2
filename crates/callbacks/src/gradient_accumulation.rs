//! [`GradientAccumulationScheduler`]: changes `accumulate_grad_batches` from epoch to epoch.

use std::collections::BTreeMap;

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Callback, Error, ModuleView, Result, TrainerFn, TrainerState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Changes `accumulate_grad_batches` at the start of given epochs, like Lightning's callback of the same name.
///
/// The value also applies in an epoch that is resumed in the middle, where Lightning continues with 1, and
/// [`estimated_stepping_batches`](TrainerState::estimated_stepping_batches) takes the changes into account, where
/// Lightning uses the first value for all epochs.
///
/// ```
/// use fulgurite::prelude::*;
///
/// // One batch per step in epochs 0 to 3, two in epochs 4 to 7, four from then on.
/// let scheduler = GradientAccumulationScheduler::new([(4, 2), (8, 4)]);
/// let trainer = Trainer::builder().callback(scheduler);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct GradientAccumulationScheduler {
    options: GradientAccumulationSchedulerOptions,
}

/// Options of [`GradientAccumulationScheduler`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "GradientAccumulationScheduler", field = "options"))]
#[non_exhaustive]
pub struct GradientAccumulationSchedulerOptions {
    /// Batches per optimizer step, by the 0-based epoch from which they apply; 1 before the first.
    pub scheduling: BTreeMap<u64, u64>,
}

impl Configurable for GradientAccumulationScheduler {
    type Options = GradientAccumulationSchedulerOptions;

    fn from_options(options: GradientAccumulationSchedulerOptions) -> Result<Self, Error> {
        options.check()?;
        Ok(GradientAccumulationScheduler { options })
    }
}

impl GradientAccumulationSchedulerOptions {
    fn check(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Config(format!("GradientAccumulationScheduler: {message}")));
        if self.scheduling.is_empty() {
            return wrong("`scheduling` is empty; name at least one epoch and its number of batches".into());
        }
        if let Some((epoch, factor)) = self.scheduling.iter().find(|(_, factor)| **factor < 1) {
            return wrong(format!(
                "epoch {epoch} is to accumulate {factor} batches; an optimizer step needs 1 or more"
            ));
        }
        Ok(())
    }
}

impl GradientAccumulationScheduler {
    /// Batches per optimizer step, by the 0-based epoch from which they apply; 1 before the first.
    pub fn new(scheduling: impl IntoIterator<Item = (u64, u64)>) -> GradientAccumulationScheduler {
        let scheduling = scheduling.into_iter().collect();
        GradientAccumulationScheduler { options: GradientAccumulationSchedulerOptions { scheduling } }
    }
}

impl Callback for GradientAccumulationScheduler {
    fn setup(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        if stage != TrainerFn::Fit {
            return Ok(());
        }
        self.options.check()?;
        let wrong = |message: String| Err(Error::Config(format!("GradientAccumulationScheduler: {message}")).into());
        if !module.automatic_optimization() {
            return wrong(format!(
                "{} steps its optimizers itself, so it decides how many batches a step takes; leave the callback out",
                module.name()
            ));
        }
        let factor = trainer.config().accumulate_grad_batches;
        if factor != 1 {
            return wrong(format!(
                "the trainer has accumulate_grad_batches={factor} too; leave out that, or the callback"
            ));
        }
        let mut factors = self.options.scheduling.clone();
        factors.entry(0).or_insert(1);
        trainer.schedule_accumulation(factors)?;
        Ok(())
    }
}
