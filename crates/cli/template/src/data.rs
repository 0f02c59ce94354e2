//! The data: what the model is trained, validated and tested on.

use fulgurite::cli::FromConfig;
use fulgurite::data::Subset;
use fulgurite::data::datasets::{Digits, ImageDataset};
use fulgurite::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What can be set of the data: `--data.batch_size 32`, or `data:` in a file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DigitDataConfig {
    /// Images per step.
    batch_size: usize,
    /// Threads that load data.
    num_workers: usize,
}

impl Default for DigitDataConfig {
    fn default() -> DigitDataConfig {
        DigitDataConfig {
            batch_size: 64,
            num_workers: 0,
        }
    }
}

/// The handwritten digits that come with Fulgurite.
pub struct DigitData {
    digits: Digits,
    config: DigitDataConfig,
}

impl FromConfig for DigitData {
    type Config = DigitDataConfig;

    fn from_config(config: DigitDataConfig) -> Result<DigitData> {
        Ok(DigitData {
            digits: Digits::load()?,
            config,
        })
    }
}

impl DigitData {
    fn loader(&self, part: &Subset<ImageDataset>) -> DataLoader<Subset<ImageDataset>> {
        DataLoader::new(part.clone())
            .batch_size(self.config.batch_size)
            .num_workers(self.config.num_workers)
    }
}

impl LightningDataModule for DigitData {
    type Batch = (Tensor, Tensor);

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(self.loader(&self.digits.train).shuffle(true).into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(self.loader(&self.digits.val).into())
    }

    fn test_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(self.loader(&self.digits.test).into())
    }

    /// `tune --tune.method scale_batch_size` sets the batch size.
    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        match (name, value.as_int()) {
            ("batch_size", Some(size)) => self.config.batch_size = usize::try_from(size)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}
