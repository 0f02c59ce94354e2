//! The subcommand `tune`.

use std::fmt::Write;

use fulgurite_engine::{Error, LightningDataModule, LightningModule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::trainer::Trainer;
use crate::tuner::{BatchSizeFinderOptions, LearningRateFinderOptions, Tuner};

/// The target of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// A learning rate.
    #[default]
    LrFind,
    /// A batch size.
    ScaleBatchSize,
    /// A batch size, and a learning rate with it.
    Both,
}

/// The options of `tune`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TuneOptions {
    /// What to find: a learning rate, a batch size, or a batch size and then a learning rate with it.
    method: Method,
    /// The learning-rate range test.
    lr_find: LearningRateFinderOptions,
    /// The batch-size finder.
    scale_batch_size: BatchSizeFinderOptions,
}

impl TuneOptions {
    /// Runs the trials. Returns what they found, as text.
    pub(super) fn run<M, D>(
        &self,
        trainer: &mut Trainer,
        model: &mut M,
        data: &mut D,
        ckpt_path: Option<&str>,
    ) -> Result<String, Error>
    where
        M: LightningModule,
        D: LightningDataModule<Batch = M::Batch>,
    {
        let mut text = String::new();
        if matches!(self.method, Method::ScaleBatchSize | Method::Both) {
            let options = self.scale_batch_size.clone();
            if let Some(size) = Tuner::new(trainer).ckpt_path(ckpt_path).scale_batch_size(model, &mut *data, options)? {
                let _ = writeln!(text, "{}: {size}", self.scale_batch_size.batch_arg_name);
            }
        }
        if matches!(self.method, Method::LrFind | Method::Both)
            && let Some(found) = Tuner::new(trainer).ckpt_path(ckpt_path).lr_find(model, data, self.lr_find.clone())?
        {
            let folder = trainer.state().log_dir();
            let path = folder.join("lr_find.svg");
            let made = std::fs::create_dir_all(&folder);
            made.map_err(|error| Error::Config(format!("{} cannot be created: {error}", folder.display())))?;
            found.save_plot(&path)?;
            let _ = writeln!(text, "{}\ndrawn in {}", found.plot(), path.display());
            if let Some(lr) = found.suggestion() {
                let _ = writeln!(text, "learning rate: {lr:.3e}");
            }
        }
        Ok(text)
    }
}
