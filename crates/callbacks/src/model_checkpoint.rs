//! [`ModelCheckpoint`]: writes checkpoints during training, and keeps the best.

mod continued;
mod hooks;
mod ledger;
mod loaded;
mod monitored;
mod naming;
mod options;
mod paths;
mod python_format;
mod save;
mod state;
mod top_k;

use std::path::{Path, PathBuf};
use std::time::Instant;

pub use fulgurite_optim::Mode;
pub(super) use monitored::{missing_monitor, python_str};
pub use options::{ModelCheckpointOptions, SaveLast};
pub(super) use paths::real_path;
pub(super) use python_format::python_float;

use super::before_loading::BeforeLoading;
use fulgurite_engine::Error;
use fulgurite_engine::config::{Configurable, Maximum};
use ledger::{Kept, Ledger};
use loaded::{Loaded, WrittenLater};
use top_k::TopK;

/// The file name of the checkpoint written on a signal, in the checkpoint folder.
const INTERRUPTED: &str = "interrupted.ckpt";

/// Writes checkpoints during `fit`, and keeps the best of them.
///
/// Without [`monitor`](ModelCheckpoint::monitor) it keeps the latest checkpoint; with it, the `save_top_k` best. The
/// files have Lightning's format and can be opened with `torch.load`. Options, names and rules are those of Lightning
/// 2.6, except that
///
/// - the last update of a run is always saved: when the last save of a run with the default triggers and no monitor was
///   made before its last optimizer step (validation within epochs, or every few epochs), one more is made at the end;
///   and with [`SaveLast::Copy`], `last.ckpt` contains the final weights of the run;
/// - a step or time trigger that falls on a batch after which validation runs waits for it, so that the monitored value
///   is never that of an earlier validation (`save_on_train_epoch_end(true)` turns that off), and a save that waits for
///   a value is made as soon as there is one;
/// - a step or time trigger never saves within an accumulation window, whose gradients would be lost;
/// - when fewer checkpoints are kept than in the run resumed from, those too many are removed;
/// - a save that fails is as if it had not been requested: nothing is removed, and the ranking is what it was.
///   [`on_save_error`](ModelCheckpoint::on_save_error) determines whether the run continues;
/// - in the ranking of a resumed run, files that no longer exist are dropped, and so are files that are not in the
///   folder, are not checkpoints or belong to another run: these are neither overwritten nor removed;
/// - what a run wrote after the checkpoint it is resumed from counts as its own: it keeps its place in the ranking, and
///   what is written from then on replaces it.
///
/// The folder may be a URL, such as `memory://runs/7` or `s3://bucket/runs/7`, where the run's
/// [`CheckpointIo`](fulgurite_fabric::CheckpointIo) knows what to do with it.
///
/// ```
/// use fulgurite::prelude::*;
/// use fulgurite::callbacks::SaveLast;
///
/// // `best-epoch=04-val_acc=0.98.ckpt` and two more, and `last.ckpt`.
/// let checkpoint = ModelCheckpoint::monitor("val_acc")
///     .mode(Mode::Max)
///     .save_top_k(3)
///     .filename("best-{epoch:02d}-{val_acc:.2f}")
///     .save_last(SaveLast::Copy);
/// let trainer = Trainer::builder().callback(checkpoint);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ModelCheckpoint {
    options: ModelCheckpointOptions,
    /// The resolved checkpoint folder; `None` until a run has started.
    dirpath: Option<PathBuf>,
    ledger: Ledger,
    last_time_checked: Option<Instant>,
    /// A step or time trigger fired and waits for the monitored value.
    deferred: bool,
    /// The folder of the run that was resumed, if it is a different one.
    resumed_dirpath: Option<PathBuf>,
    /// The state was restored from a checkpoint, whose files may no longer exist or belong to another run.
    is_restored: bool,
    before_loading: BeforeLoading<Ledger>,
    /// The checkpoint that the run was resumed from.
    loaded: Option<Loaded>,
    written_later: WrittenLater,
}

impl Default for ModelCheckpoint {
    fn default() -> ModelCheckpoint {
        ModelCheckpoint::with_options(ModelCheckpointOptions::default())
    }
}

impl Configurable for ModelCheckpoint {
    type Options = ModelCheckpointOptions;

    fn from_options(options: ModelCheckpointOptions) -> Result<ModelCheckpoint, Error> {
        Ok(ModelCheckpoint::with_options(options))
    }
}

impl ModelCheckpoint {
    /// Keeps the latest checkpoint, written at the end of every epoch.
    pub fn new() -> ModelCheckpoint {
        ModelCheckpoint::default()
    }

    /// Keeps the checkpoint with the best value of the metric logged as `name`.
    pub fn monitor(name: impl Into<String>) -> ModelCheckpoint {
        ModelCheckpoint::with_options(ModelCheckpointOptions { monitor: Some(name.into()), ..Default::default() })
    }

    fn with_options(options: ModelCheckpointOptions) -> ModelCheckpoint {
        ModelCheckpoint {
            dirpath: options.dirpath.as_deref().map(paths::real_path),
            ledger: Ledger::new(TopK::new(options.mode, options.save_top_k)),
            options,
            last_time_checked: None,
            deferred: false,
            resumed_dirpath: None,
            is_restored: false,
            before_loading: BeforeLoading::default(),
            loaded: None,
            written_later: WrittenLater::default(),
        }
    }

    /// The folder of the checkpoints. By default `checkpoints` in the folder of the first logger's run
    /// (`lightning_logs/version_0/checkpoints`), or in `default_root_dir` without a logger.
    pub fn dirpath(self, dirpath: impl AsRef<Path>) -> Self {
        ModelCheckpoint::with_options(ModelCheckpointOptions { dirpath: Some(dirpath.as_ref().into()), ..self.options })
    }

    /// Whether a lower (the default) or a higher monitored value is better.
    pub fn mode(self, mode: Mode) -> Self {
        ModelCheckpoint::with_options(ModelCheckpointOptions { mode, ..self.options })
    }

    /// How many checkpoints to keep: 1 by default, 0 for none, [`Maximum::Unlimited`] for all. Other values need a
    /// monitor.
    pub fn save_top_k(self, k: impl Into<Maximum>) -> Self {
        ModelCheckpoint::with_options(ModelCheckpointOptions { save_top_k: k.into(), ..self.options })
    }
}

impl ModelCheckpoint {
    /// The best checkpoint, or the latest one without a monitor.
    pub fn best_model_path(&self) -> Option<&Path> {
        self.kept().best_model_path.as_deref()
    }

    /// The monitored value of the best checkpoint.
    pub fn best_model_score(&self) -> Option<f64> {
        self.kept().best_model_score
    }

    /// The path of `last.ckpt`, once it is written.
    pub fn last_model_path(&self) -> Option<&Path> {
        self.kept().last_model_path.as_deref()
    }

    /// The checkpoints kept and their monitored values, in the order they were written; empty without a monitor.
    pub fn best_k_models(&self) -> &[(PathBuf, f64)] {
        &self.kept().top.models
    }

    /// The worst of the checkpoints kept, which the next better one replaces; `None` while fewer than `save_top_k` are
    /// kept.
    pub fn kth_best_model_path(&self) -> Option<&Path> {
        self.kept().top.kth_path.as_deref()
    }

    /// The monitored value of the last checkpoint that was accepted.
    pub fn current_score(&self) -> Option<f64> {
        self.kept().current_score
    }

    /// The folder of the checkpoints; `None` before the first run has resolved it.
    pub fn checkpoint_dir(&self) -> Option<&Path> {
        self.dirpath.as_deref()
    }

    fn kept(&self) -> &Kept {
        &self.ledger.now
    }

    fn every_n_train_steps_or_never(&self) -> u64 {
        self.options.every_n_train_steps.unwrap_or(0)
    }

    fn every_n_epochs_or_never(&self) -> u64 {
        self.options.every_n_epochs.unwrap_or(u64::from(self.has_default_trigger()))
    }

    fn has_default_trigger(&self) -> bool {
        self.options.every_n_train_steps.is_none()
            && self.options.train_time_interval.is_none()
            && self.options.every_n_epochs.is_none()
    }
}
