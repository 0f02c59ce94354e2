//! A module whose losses and gradients its batches say.

use std::path::Path;

use fulgurite::loggers::MemoryLogger;
use fulgurite::optim::Optimizer;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{Console, OptimizerClosure, TrainerBuilder};

use crate::callbacks::scripted::quiet;

/// Trains a vector that stays where it is. The loss is the batch's mean times one plus the vector, and the
/// gradient that mean.
pub(crate) struct Watched {
    vars: nn::VarStore,
    w: Tensor,
    pub(crate) flops: Option<f64>,
}

impl Watched {
    pub(crate) fn new() -> Watched {
        let vars = nn::VarStore::new(Device::Cpu);
        let w = vars.root().zeros("w", &[1]);
        Watched { vars, w, flops: None }
    }
}

impl LightningModule for Watched {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        if batch.double_value(&[0]) == SKIP {
            return Ok(Loss::skip());
        }
        let loss = ((&self.w + 1.0) * batch.mean(Kind::Float)).sum(Kind::Float);
        step.log("train_loss", &loss);
        Ok(loss.into())
    }

    fn validation_step(&mut self, _: Tensor, _: &mut Step) -> Result<()> {
        Ok(())
    }

    fn test_step(&mut self, _: Tensor, _: &mut Step) -> Result<()> {
        Ok(())
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        Ok(batch.into())
    }

    fn flops_per_batch(&self) -> Option<f64> {
        self.flops
    }

    /// The parameters stay as they are, whatever the gradients.
    fn optimizer_step(&mut self, optimizer: &mut dyn Optimizer, closure: &mut OptimizerClosure<Self>) -> Result<()> {
        _ = closure.evaluate(self, optimizer)?;
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.1).into())
    }
}

/// A batch of this is left out.
pub(crate) const SKIP: f64 = -1.0;

/// A batch of two for each value.
pub(crate) fn values(values: &[f64]) -> Vec<Tensor> {
    values.iter().map(|value| Tensor::full([2], *value, (Kind::Float, Device::Cpu))).collect()
}

/// A run that was watched.
pub(crate) struct Watch {
    pub(crate) trainer: Trainer,
    pub(crate) outcome: Result<Outcome, Error>,
    pub(crate) logger: MemoryLogger,
    pub(crate) console: Console,
}

/// One epoch over `train`, logging every step.
pub(crate) fn watch(callback: impl Callback, train: &[f64], root: &Path) -> Watch {
    watch_with(callback, train, root, |builder| builder)
}

/// The same with other arguments.
pub(crate) fn watch_with(
    callback: impl Callback,
    train: &[f64],
    root: &Path,
    arguments: impl FnOnce(TrainerBuilder) -> TrainerBuilder,
) -> Watch {
    let (logger, console) = (MemoryLogger::new(), Console::memory());
    let builder = quiet(root).max_epochs(1).enable_checkpointing(false).log_every_n_steps(1);
    let builder = builder.console(console.clone()).logger(logger.clone()).callback(callback);
    let mut trainer = arguments(builder).build().unwrap();
    let outcome = trainer.fit(&mut Watched::new(), Loaders::from(values(train)));
    Watch { trainer, outcome, logger, console }
}
