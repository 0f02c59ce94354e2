//! A module whose validation losses are written down beforehand.

use std::path::Path;

use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{Console, TrainerBuilder};

/// Trains one linear layer; its n-th validation logs the n-th of `losses` as `val_loss`.
pub(crate) struct Scripted {
    vars: nn::VarStore,
    pub(crate) layer: nn::Linear,
    losses: Vec<f64>,
    validations: usize,
    /// `global_step` of each step that was saved, once.
    pub(crate) saves: Vec<i64>,
    /// Training fails in the step after this many.
    pub(crate) fails_after: Option<u64>,
    pub(crate) optimizers: fn(&Scripted) -> Optimizers,
}

impl Scripted {
    pub(crate) fn new(losses: &[f64]) -> Scripted {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root(), 4, 1, Default::default());
        let optimizers = |module: &Scripted| SGD::new(&module.vars).lr(0.01).into();
        Scripted { vars, layer, losses: losses.into(), validations: 0, saves: vec![], fails_after: None, optimizers }
    }
}

impl LightningModule for Scripted {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        if self.fails_after == Some(step.global_step()) {
            return Err("the disk melted".into());
        }
        let loss = batch.apply(&self.layer).square().mean(Kind::Float);
        step.log("train_loss", &loss);
        step.log("train_mean", &loss).epoch_only();
        Ok(loss.into())
    }

    fn validation_step(&mut self, _: Tensor, step: &mut Step) -> Result<()> {
        let loss = self.losses[self.validations.min(self.losses.len() - 1)];
        step.log("val_loss", Tensor::from(loss as f32));
        Ok(())
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        self.validations += usize::from(!trainer.is_sanity_checking());
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok((self.optimizers)(self))
    }

    fn on_save_checkpoint(&mut self, _: &mut TrainerState, checkpoint: &mut Dict) -> Result<()> {
        let step = checkpoint.int("global_step")?;
        if self.saves.last() != Some(&step) {
            self.saves.push(step);
        }
        Ok(())
    }
}

pub(crate) fn batches(n: usize) -> Vec<Tensor> {
    fulgurite_test_support::ones(n, [2, 4])
}

/// A trainer that says nothing and writes nothing but what its callbacks do.
pub(crate) fn quiet(root: &Path) -> TrainerBuilder {
    Trainer::builder()
        .num_sanity_val_steps(0)
        .accelerator("cpu")
        .no_logger()
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .default_root_dir(root)
        .console(Console::memory())
}
