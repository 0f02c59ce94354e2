//! Arguments of the trainer and methods around its entry points, one by one.

mod ckpt_path;
mod environment;
mod explanations;
mod furthest;
mod lengths;
mod loaders;
mod outputs;
mod plugins;
mod table;

use fulgurite::data::{BatchIter, DataError, Loader};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite_test_support::{batches, quiet};

/// A weight that is moved by each batch, and written down wherever it is evaluated.
struct Weight {
    vars: nn::VarStore,
    w: Tensor,
    trained_on: Vec<f64>,
    evaluated: Vec<String>,
}

fn weight() -> Weight {
    let vars = nn::VarStore::new(Device::Cpu);
    let w = vars.root().var("w", &[], nn::Init::Const(1.0));
    Weight { vars, w, trained_on: Vec::new(), evaluated: Vec::new() }
}

impl Weight {
    fn w(&self) -> f64 {
        self.w.double_value(&[])
    }

    fn evaluate(&mut self, x: &Tensor, step: &mut Step) {
        self.evaluated.push(format!("{}.{}={x}", step.dataloader_idx(), step.batch_idx(), x = x.double_value(&[])));
        step.log("loss", &self.w * x);
    }
}

impl LightningModule for Weight {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new().with("width", 3))
    }

    fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> {
        self.trained_on.push(x.double_value(&[]));
        Ok((&self.w * x).into())
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        self.evaluate(&x, step);
        Ok(())
    }

    fn test_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        self.evaluate(&x, step);
        Ok(())
    }

    fn predict_step(&mut self, x: Tensor, step: &mut Step) -> Result<Value> {
        self.evaluated.push(format!("{}.{}", step.dataloader_idx(), step.batch_idx()));
        Ok((&self.w * x).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.125).into())
    }
}

/// Batches that say that they are shuffled.
struct Shuffled(Vec<f64>);

impl Loader for Shuffled {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        Some(self.0.len())
    }

    fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<Tensor>, DataError> {
        Ok(Box::new(batches(&self.0).into_iter().skip(skip).map(Ok)))
    }

    fn is_shuffled(&self) -> bool {
        true
    }
}
