//! A linear layer that measures a part of its step, and fails or panics when it is told to.

use std::path::Path;

use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{Console, TrainerBuilder};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Trouble {
    None,
    Error,
    Panic,
}

pub(crate) struct Line {
    vars: nn::VarStore,
    layer: nn::Linear,
    /// What happens in the step of this index.
    pub(crate) trouble: (usize, Trouble),
}

pub(crate) fn line() -> Line {
    let vars = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(vars.root(), 4, 1, Default::default());
    Line { vars, layer, trouble: (0, Trouble::None) }
}

impl LightningModule for Line {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = step.profile("encode", |step| -> Result<Tensor> {
            match self.trouble {
                (at, Trouble::Error) if at == step.batch_idx() => return Err("the disk melted".into()),
                (at, Trouble::Panic) if at == step.batch_idx() => panic!("the disk melted"),
                _ => {}
            }
            step.log("batch_idx", step.batch_idx() as f64);
            Ok(batch.apply(&self.layer).square().mean(Kind::Float))
        })?;
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        step.log("val_loss", batch.apply(&self.layer).square().mean(Kind::Float));
        Ok(())
    }

    fn test_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        step.log("test_loss", batch.apply(&self.layer).square().mean(Kind::Float));
        Ok(())
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        Ok(batch.apply(&self.layer).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.01).into())
    }

    fn on_train_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        trainer.profile("prepare labels", |_| ());
        Ok(())
    }
}

pub(crate) fn batches(n: usize) -> Vec<Tensor> {
    fulgurite_test_support::ones(n, [2, 4])
}

/// A trainer of one epoch that prints to `console`, and writes only its profile.
pub(crate) fn quiet(root: &Path, console: &Console) -> TrainerBuilder {
    fulgurite_test_support::quiet().num_sanity_val_steps(0).default_root_dir(root).console(console.clone())
}
/// The calls of an action in the last entry point.
pub(crate) fn calls(trainer: &Trainer, action: &str) -> u64 {
    let simple = trainer.profiler::<SimpleProfiler>().unwrap();
    simple.records().find(|(name, _)| *name == action).map_or(0, |(_, record)| record.calls)
}
