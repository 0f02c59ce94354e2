//! A model that learns a line, with a metric of its own, and points of the line.

use fulgurite::cli::FromConfig;
use fulgurite::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metric::MaxError;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NoOptions {}

pub struct Line {
    vars: nn::VarStore,
    layer: nn::Linear,
    max_error: MaxError,
}

impl FromConfig for Line {
    type Config = NoOptions;

    fn from_config(_: NoOptions) -> Result<Line> {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(1, 1).at(&vars)?;
        Ok(Line { vars, layer, max_error: MaxError::default() })
    }
}

impl LightningModule for Line {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.layer.forward(&x).mse_loss(&y, tch::Reduction::Mean);
        step.log("train_loss", &loss);
        Ok(loss.into())
    }

    fn validation_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<()> {
        self.max_error.update(&self.layer.forward(&x), &y)?;
        step.log("max_error", &self.max_error);
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.1).into())
    }
}

pub struct Points;

impl FromConfig for Points {
    type Config = NoOptions;

    fn from_config(_: NoOptions) -> Result<Points> {
        Ok(Points)
    }
}

impl LightningDataModule for Points {
    type Batch = (Tensor, Tensor);

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        let x = Tensor::linspace(-1, 1, 16, (Kind::Float, Device::Cpu)).view([16, 1]);
        let y = &x * 2.0;
        Ok(DataLoader::new(TensorDataset::new((x, y))?).batch_size(4).into())
    }

    fn val_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        self.train_dataloader(trainer)
    }
}
