//! The model: its layers, what it learns from, and how it is optimized.

use fulgurite::cli::FromConfig;
use fulgurite::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What can be set of the model: `--model.lr 1e-3`, or `model:` in a file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ClassifierConfig {
    /// Width of the hidden layer.
    hidden: i64,
    /// Learning rate.
    lr: f64,
}

impl Default for ClassifierConfig {
    fn default() -> ClassifierConfig {
        ClassifierConfig {
            hidden: 64,
            lr: 3e-3,
        }
    }
}

/// A perceptron with one hidden layer.
pub struct Classifier {
    vars: nn::VarStore,
    net: nn::Sequential,
    config: ClassifierConfig,
}

impl FromConfig for Classifier {
    type Config = ClassifierConfig;

    fn from_config(config: ClassifierConfig) -> Result<Classifier> {
        let vars = nn::VarStore::new(Device::Cpu);
        let net = nn::sequential()
            .add(nn::flatten())
            .add(nn::linear(8 * 8, config.hidden))
            .add(nn::relu())
            .add(nn::linear(config.hidden, 10))
            .at(vars.root() / "net")?;
        Ok(Classifier { vars, net, config })
    }
}

impl Classifier {
    /// Validation and test do the same under different names.
    fn evaluate(
        &self,
        stage: &str,
        (images, labels): (Tensor, Tensor),
        step: &mut Step,
    ) -> Result<()> {
        let logits = self.net.forward(&images);
        step.log(
            &format!("{stage}_loss"),
            logits.cross_entropy_for_logits(&labels),
        )
        .prog_bar();
        step.log(&format!("{stage}_acc"), logits.accuracy_for_logits(&labels))
            .prog_bar();
        Ok(())
    }
}

impl LightningModule for Classifier {
    /// Images of shape `[batch, 1, 8, 8]`, and the digits that they show.
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (images, labels): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.net.forward(&images).cross_entropy_for_logits(&labels);
        step.log("train_loss", &loss).prog_bar();
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        self.evaluate("val", batch, step)
    }

    fn test_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        self.evaluate("test", batch, step)
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(AdamW::new(&self.vars).lr(self.config.lr).into())
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::from_serialize(&self.config))
    }

    /// `tune` sets the learning rate that it has found.
    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        match (name, value.as_float()) {
            ("lr", Some(lr)) => self.config.lr = lr,
            _ => return Ok(false),
        }
        Ok(true)
    }
}
