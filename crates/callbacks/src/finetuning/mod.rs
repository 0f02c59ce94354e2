//! Finetuning: parts of a module are frozen at first and trained from later epochs on.
//!
//! A part is named by the beginning of its variables' paths in the `VarStore`: `"backbone"` is what was created under
//! `vars.root() / "backbone"`.

mod backbone;
mod groups;
mod layers;

use std::any::Any;

use fulgurite_engine::{Callback, Loss, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_optim::Optimizer;
use fulgurite_torch::Dict;

use groups::GroupRecords;
use layers::FrozenStatistics;

pub use backbone::{Backbone, BackboneFinetuning, BackboneFinetuningOptions};
pub use layers::{Unfreeze, filter_params, freeze, make_trainable, unfreeze_and_add_param_group};

/// What is frozen before training, and what is unfrozen when: the custom part of a [`BaseFinetuning`].
///
/// ```
/// use fulgurite::callbacks::finetuning::{self, BaseFinetuning, Finetuning, Unfreeze};
/// use fulgurite::optim::Optimizer;
/// use fulgurite::prelude::*;
/// use fulgurite::ModuleView;
///
/// /// Trains the feature extractor from an epoch on.
/// struct FeatureExtractor { unfreeze_at_epoch: u64 }
///
/// impl Finetuning for FeatureExtractor {
///     fn freeze_before_training(&mut self, module: &mut dyn ModuleView) -> Result<()> {
///         Ok(finetuning::freeze(module.vars(), &["feature_extractor"], true)?)
///     }
///
///     fn finetune_function(
///         &mut self,
///         trainer: &mut TrainerState,
///         module: &mut dyn ModuleView,
///         epoch: u64,
///         optimizer: &mut dyn Optimizer,
///     ) -> Result<()> {
///         if epoch == self.unfreeze_at_epoch {
///             let (vars, how) = (module.vars(), Unfreeze::default());
///             finetuning::unfreeze_and_add_param_group(trainer, vars, &["feature_extractor"], optimizer, how)?;
///         }
///         Ok(())
///     }
/// }
///
/// let trainer = Trainer::builder().callback(BaseFinetuning::with(FeatureExtractor { unfreeze_at_epoch: 10 }));
/// ```
pub trait Finetuning: Send + 'static {
    /// Freezes the parameters that are not trained at first. Called before `configure_optimizers`, which gives the
    /// optimizer [`params::trainable_parameters`](fulgurite_torch::params::trainable_parameters).
    ///
    /// # Errors
    ///
    /// Any error ends the run.
    fn freeze_before_training(&mut self, module: &mut dyn ModuleView) -> Result<()>;

    /// Unfreezes the parameters that are trained from `epoch` (0-based) on. Called at the start of each epoch for each
    /// optimizer.
    ///
    /// # Errors
    ///
    /// Any error ends the run.
    fn finetune_function(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        epoch: u64,
        optimizer: &mut dyn Optimizer,
    ) -> Result<()>;

    /// The key of its state in checkpoints.
    fn state_key(&self) -> String {
        fulgurite_torch::short_type_name::<Self>().to_owned()
    }

    /// State to save in checkpoints, besides the parameter groups.
    fn state_dict(&self) -> Result<Dict> {
        Ok(Dict::new())
    }

    /// Restores the state returned by [`state_dict`](Finetuning::state_dict).
    ///
    /// # Errors
    ///
    /// Fails if the state belongs to another type.
    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        let _ = state;
        Ok(())
    }
}

/// Runs a [`Finetuning`], like Lightning's callback of the same name: freezes in time, and remembers the parameter
/// groups, so that a checkpoint from after an unfreezing can be resumed from.
///
/// Batch norms whose weights are frozen keep their running statistics.
pub struct BaseFinetuning<F> {
    finetuning: F,
    records: GroupRecords,
    statistics: Option<FrozenStatistics>,
}

impl<F: Finetuning> BaseFinetuning<F> {
    /// Runs `finetuning`.
    pub fn with(finetuning: F) -> BaseFinetuning<F> {
        BaseFinetuning { finetuning, records: GroupRecords::default(), statistics: None }
    }
}

impl<F: Finetuning> Callback for BaseFinetuning<F> {
    fn state_key(&self) -> String {
        self.finetuning.state_key()
    }

    fn state_dict(&self) -> Result<Dict> {
        let mut state = self.records.state_dict();
        for (key, value) in self.finetuning.state_dict()?.iter() {
            state.set(key.clone(), value.clone());
        }
        Ok(state)
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.finetuning.load_state_dict(state)?;
        self.records.load_state_dict(state)
    }

    fn setup(&mut self, _: &mut TrainerState, module: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        if stage != TrainerFn::Fit {
            return Ok(());
        }
        self.records = GroupRecords::default();
        self.finetuning.freeze_before_training(module)
    }

    fn on_fit_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        Ok(self.records.restore(trainer, module.vars())?)
    }

    /// When resuming within an epoch, its start hook is not called again.
    fn on_train_start(&mut self, _: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        self.statistics = FrozenStatistics::find(module.vars())?;
        Ok(())
    }

    fn on_train_epoch_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        let epoch = trainer.current_epoch();
        for index in 0..trainer.num_optimizers() {
            let done = trainer.with_optimizer(index, |trainer, optimizer| {
                let before = optimizer.param_groups().len();
                self.finetuning.finetune_function(trainer, module, epoch, optimizer)?;
                self.records.store(module.vars(), index, before, optimizer)
            });
            done??;
        }
        self.statistics = FrozenStatistics::find(module.vars())?;
        Ok(())
    }

    fn on_train_batch_end(
        &mut self,
        _: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        if let Some(statistics) = &mut self.statistics {
            statistics.put_back()?;
        }
        Ok(())
    }
}
