//! [`ModelCheckpoint`]: writes checkpoints while a run goes on, and keeps the best.

mod hooks;
mod mode;
mod naming;
mod python_format;
mod save;
mod state;
mod top_k;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use mode::Mode;
pub(super) use mode::{missing_monitor, python_str};
pub(super) use python_format::python_float;
pub(super) use save::real_path;
use top_k::TopK;

/// What `last.ckpt` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveLast {
    /// A file of its own. As long as the checkpoint it equals exists, both share their space on disk.
    Copy,
    /// A relative symbolic link to the newest checkpoint; a copy where links cannot be made.
    Link,
}

/// Writes checkpoints while [`fit`](crate::Trainer::fit) goes on, and keeps the best of them.
///
/// Without [`monitor`](ModelCheckpoint::monitor) it keeps the latest; with it, the `save_top_k` best. The files are
/// Lightning's: `torch.load` opens them. The options, names and rules are those of Lightning 2.6, except that
///
/// - the last update of a run is always saved: when the last save of a run with the default triggers and no monitor was
///   made before its last optimizer step (validation within epochs, or every few epochs), one more is made at the end;
///   and with [`SaveLast::Copy`], `last.ckpt` holds the weights the run ended with;
/// - a step or time trigger that falls on a batch after which validation runs waits for it, so that the monitored value
///   is never that of an earlier validation (`save_on_train_epoch_end(true)` turns that off), and a save that waits for
///   a value is made as soon as there is one;
/// - a step or time trigger never saves within an accumulation window, whose gradients would be lost;
/// - when fewer checkpoints are kept than in the run resumed from, those too many are removed.
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
    dirpath: Option<PathBuf>,
    filename: String,
    monitor: Option<String>,
    verbose: bool,
    save_last: Option<SaveLast>,
    save_on_exception: bool,
    save_weights_only: bool,
    auto_insert_metric_name: bool,
    every_n_train_steps: Option<u64>,
    train_time_interval: Option<Duration>,
    every_n_epochs: Option<u64>,
    save_on_train_epoch_end: Option<bool>,
    enable_version_counter: bool,
    join_char: String,
    equals_char: String,
    name_last: String,
    file_extension: String,

    top: TopK,
    current_score: Option<f64>,
    best_model_path: Option<PathBuf>,
    best_model_score: Option<f64>,
    last_model_path: Option<PathBuf>,
    last_checkpoint_saved: Option<PathBuf>,
    /// 0 before the first: no save is needed where no step was taken.
    last_step_saved: u64,
    last_time_checked: Option<Instant>,
    /// A step or time trigger went off and waits for the monitored value.
    deferred: bool,
    /// The folder of the run resumed from, when it was another.
    resumed_dirpath: Option<PathBuf>,
}

impl Default for ModelCheckpoint {
    fn default() -> ModelCheckpoint {
        ModelCheckpoint {
            dirpath: None,
            filename: String::new(),
            monitor: None,
            verbose: false,
            save_last: None,
            save_on_exception: false,
            save_weights_only: false,
            auto_insert_metric_name: true,
            every_n_train_steps: None,
            train_time_interval: None,
            every_n_epochs: None,
            save_on_train_epoch_end: None,
            enable_version_counter: true,
            join_char: "-".into(),
            equals_char: "=".into(),
            name_last: "last".into(),
            file_extension: ".ckpt".into(),
            top: TopK::new(Mode::Min, 1),
            current_score: None,
            best_model_path: None,
            best_model_score: None,
            last_model_path: None,
            last_checkpoint_saved: None,
            last_step_saved: 0,
            last_time_checked: None,
            deferred: false,
            resumed_dirpath: None,
        }
    }
}

impl ModelCheckpoint {
    /// Keeps the latest checkpoint, written at the end of every epoch.
    pub fn new() -> ModelCheckpoint {
        ModelCheckpoint::default()
    }

    /// Keeps the checkpoint with the best value of the metric logged as `name`.
    pub fn monitor(name: impl Into<String>) -> ModelCheckpoint {
        ModelCheckpoint { monitor: Some(name.into()), ..ModelCheckpoint::default() }
    }

    /// The folder of the checkpoints. By default `checkpoints` in the folder of the first logger's run
    /// (`lightning_logs/version_0/checkpoints`), or in `default_root_dir` without a logger.
    pub fn dirpath(mut self, dirpath: impl AsRef<Path>) -> Self {
        self.dirpath = Some(save::real_path(dirpath.as_ref()));
        self
    }

    /// The template of the file names, without extension; `{epoch}-{step}` by default.
    ///
    /// `{key}` stands for a logged value, or for `epoch` (0-based) or `step` (optimizer steps); what was not logged is
    /// 0. A format in the manner of Python may follow: `{val_loss:.2f}`, `{epoch:03d}`, `{acc:.1%}`.
    pub fn filename(mut self, filename: impl Into<String>) -> Self {
        self.filename = filename.into();
        self
    }

    /// Whether less (the default) or more of the monitored value is better.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.top = TopK::new(mode, self.top.k);
        self
    }

    /// How many checkpoints to keep: 1 by default, 0 for none, -1 for all. Without a monitor only these.
    pub fn save_top_k(mut self, k: i64) -> Self {
        self.top.k = k;
        self
    }

    /// Gives each checkpoint that is written a second name, `last.ckpt`; off by default.
    pub fn save_last(mut self, save_last: impl Into<Option<SaveLast>>) -> Self {
        self.save_last = save_last.into();
        self
    }

    /// Also saves when an error ends the run.
    pub fn save_on_exception(mut self, save: bool) -> Self {
        self.save_on_exception = save;
        self
    }

    /// Saves weights and hyper-parameters alone. Such a file can be evaluated, and not resumed from.
    pub fn save_weights_only(mut self, weights_only: bool) -> Self {
        self.save_weights_only = weights_only;
        self
    }

    /// Whether `{val_loss}` becomes `val_loss=0.25` (the default) or `0.25`. Turn it off when names of metrics contain
    /// `/`, which would make folders.
    pub fn auto_insert_metric_name(mut self, insert: bool) -> Self {
        self.auto_insert_metric_name = insert;
        self
    }

    /// Saves every `n` optimizer steps, counted over the whole run; 0 for never.
    pub fn every_n_train_steps(mut self, n: u64) -> Self {
        self.every_n_train_steps = Some(n);
        self
    }

    /// Saves when this much time has passed since the last time it did.
    pub fn train_time_interval(mut self, interval: Duration) -> Self {
        self.train_time_interval = Some(interval);
        self
    }

    /// Saves every `n` epochs; 0 for never. 1 when no other trigger is chosen.
    pub fn every_n_epochs(mut self, n: u64) -> Self {
        self.every_n_epochs = Some(n);
        self
    }

    /// Whether an epoch's save is made at the end of the training epoch or at the end of validation. By default at the
    /// end of validation if that runs within epochs, by time or not after each epoch, and else at the end of the epoch.
    pub fn save_on_train_epoch_end(mut self, save: impl Into<Option<bool>>) -> Self {
        self.save_on_train_epoch_end = save.into();
        self
    }

    /// Whether `-v1`, `-v2`, … is appended where a file of the same name exists (it is), or that file overwritten.
    pub fn enable_version_counter(mut self, enable: bool) -> Self {
        self.enable_version_counter = enable;
        self
    }

    /// Prints a line for each save and each rejection.
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.verbose = verbose;
        self
    }

    /// What joins the parts of a name: `-` (`CHECKPOINT_JOIN_CHAR`).
    pub fn checkpoint_join_char(mut self, text: impl Into<String>) -> Self {
        self.join_char = text.into();
        self
    }

    /// What stands between a metric's name and its value: `=` (`CHECKPOINT_EQUALS_CHAR`).
    pub fn checkpoint_equals_char(mut self, text: impl Into<String>) -> Self {
        self.equals_char = text.into();
        self
    }

    /// The name of the last checkpoint, which may be a template: `last` (`CHECKPOINT_NAME_LAST`).
    pub fn checkpoint_name_last(mut self, name: impl Into<String>) -> Self {
        self.name_last = name.into();
        self
    }

    /// The extension: `.ckpt` (`FILE_EXTENSION`).
    pub fn file_extension(mut self, extension: impl Into<String>) -> Self {
        self.file_extension = extension.into();
        self
    }
}

impl ModelCheckpoint {
    /// The best checkpoint, or the latest one without a monitor.
    pub fn best_model_path(&self) -> Option<&Path> {
        self.best_model_path.as_deref()
    }

    /// The monitored value of the best checkpoint.
    pub fn best_model_score(&self) -> Option<f64> {
        self.best_model_score
    }

    /// `last.ckpt`, once it is written.
    pub fn last_model_path(&self) -> Option<&Path> {
        self.last_model_path.as_deref()
    }

    /// The checkpoints kept and their monitored values, in the order they were written; empty without a monitor.
    pub fn best_k_models(&self) -> &[(PathBuf, f64)] {
        &self.top.models
    }

    /// The worst of the checkpoints kept, which a better one will replace; `None` while there is room.
    pub fn kth_best_model_path(&self) -> Option<&Path> {
        self.top.kth_path.as_deref()
    }

    /// The monitored value of the last checkpoint accepted.
    pub fn current_score(&self) -> Option<f64> {
        self.current_score
    }

    /// The folder of the checkpoints; `None` before a run found it out.
    pub fn checkpoint_dir(&self) -> Option<&Path> {
        self.dirpath.as_deref()
    }

    fn every_n_train_steps_or_never(&self) -> u64 {
        self.every_n_train_steps.unwrap_or(0)
    }

    fn every_n_epochs_or_never(&self) -> u64 {
        self.every_n_epochs.unwrap_or(u64::from(self.has_default_trigger()))
    }

    fn has_default_trigger(&self) -> bool {
        self.every_n_train_steps.is_none() && self.train_time_interval.is_none() && self.every_n_epochs.is_none()
    }
}
