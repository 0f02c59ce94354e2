//! [`CheckpointNews`].

use std::path::PathBuf;

use fulgurite_optim::Mode;

/// A checkpoint that a callback such as `ModelCheckpoint` has written, and what else it keeps, for
/// [`Logger::after_save_checkpoint`](super::Logger::after_save_checkpoint).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct CheckpointNews {
    /// Distinguishes callbacks: the key of its state.
    pub callback: String,
    /// The file.
    pub path: PathBuf,
    /// The optimizer steps that were taken when it was written.
    pub step: u64,
    /// The epoch in which it was written.
    pub epoch: u64,
    /// The monitored value of the file.
    pub score: Option<f64>,
    /// It is the best so far.
    pub is_best: bool,
    /// It is the last checkpoint, also under another name.
    pub is_last: bool,
    /// The last checkpoint, if the callback writes one.
    pub last: Option<PathBuf>,
    /// The best checkpoint, or the latest without a monitor.
    pub best: Option<PathBuf>,
    /// The monitored value of the best.
    pub best_score: Option<f64>,
    /// The checkpoints that are kept by their monitored value.
    pub best_k: Vec<(PathBuf, f64)>,
    /// The name of the monitored metric.
    pub monitor: Option<String>,
    /// Whether a low or a high value is better.
    pub mode: Mode,
    /// Whether a last checkpoint is written.
    pub save_last: bool,
    /// The last checkpoint is a link.
    pub last_is_link: bool,
    /// How many are kept; -1 for all.
    pub save_top_k: i64,
    /// Without what a run needs to be resumed.
    pub save_weights_only: bool,
    /// It is written every so many optimizer steps; 0 for never.
    pub every_n_train_steps: u64,
    /// It is written every so many epochs; 0 for never.
    pub every_n_epochs: u64,
}
