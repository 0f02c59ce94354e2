//! [`SpikeDetection`]: ends a run on a loss spike, and records the batches to skip.

use std::any::Any;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Callback, Error, Loss, ModuleView, Result, TrainerState, list_of};
use fulgurite_torch::{Dict, Value, to_host_f64};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mode;

/// The error that [`SpikeDetection`] ends a run with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "training spike: the loss of batch {batch_idx} is {loss}, after a running mean of {mean}; batches {batches:?} are recorded in {}. Resume from a checkpoint written before them and skip the batches recorded there (for example with `Loss::skip()` in training_step), or raise `rtol`",
    .path.display()
)]
#[non_exhaustive]
pub struct TrainingSpike {
    /// The batch of the epoch, 0-based.
    pub batch_idx: usize,
    /// The loss of the batch.
    pub loss: f64,
    /// The mean of the losses before it; NaN if it was the first.
    pub mean: f64,
    /// The batches to skip: the spike's, and the one before it.
    pub batches: Vec<i64>,
    /// The file that lists all batches to skip.
    pub path: PathBuf,
}

/// Ends `fit` with [`TrainingSpike`] when the loss jumps, and writes which batches to leave out
/// to `skip_batches.json`: the one of the spike, and the one before it, whose step may have caused it.
///
/// A loss is a spike if it is not finite, or if it is worse than the one before it and differs from the mean of the
/// last `window` losses by `atol` and by `rtol` times that mean. The loss is read after every batch, so a GPU is waited
/// for.
///
/// As in the original, except that `warmup` counts batches of the run and not of each epoch, that a loss which is not
/// finite never enters the mean, that the running mean is part of checkpoints and the tolerances are not, and that a
/// resumed run keeps what earlier runs noted in the file.
///
/// ```
/// use fulgurite::callbacks::SpikeDetection;
/// use fulgurite::prelude::*;
///
/// let trainer = Trainer::builder().callback(SpikeDetection::new().warmup(100).window(50).rtol(3.0));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SpikeDetection {
    options: SpikeDetectionOptions,
    last_val: f64,
    window: VecDeque<f64>,
    bad_batches: Vec<i64>,
}

/// Options of [`SpikeDetection`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "SpikeDetection", field = "options"))]
#[non_exhaustive]
pub struct SpikeDetectionOptions {
    /// Whether a lower or a higher value is better.
    pub mode: Mode,
    /// The number of losses in the running mean.
    pub window: usize,
    /// The number of initial batches in which no spike is detected.
    pub warmup: u64,
    /// Minimum absolute difference between a spike and the running mean.
    #[setters(into)]
    pub atol: Option<f64>,
    /// Minimum difference between a spike and the running mean, as a multiple of the mean.
    #[setters(into)]
    pub rtol: Option<f64>,
    /// The file to record batches in, or a folder for `skip_batches.json`; by default `default_root_dir`.
    #[setters(into, strip_option)]
    pub exclude_batches_path: Option<PathBuf>,
    /// Whether NaN and infinity are spikes.
    pub finite_only: bool,
}

impl Default for SpikeDetectionOptions {
    fn default() -> SpikeDetectionOptions {
        SpikeDetectionOptions {
            mode: Mode::Min,
            window: 10,
            warmup: 1,
            atol: None,
            rtol: Some(2.0),
            exclude_batches_path: None,
            finite_only: true,
        }
    }
}

impl Configurable for SpikeDetection {
    type Options = SpikeDetectionOptions;

    fn from_options(options: SpikeDetectionOptions) -> Result<SpikeDetection, Error> {
        options.check()?;
        Ok(SpikeDetection { options, ..SpikeDetection::default() })
    }
}

impl SpikeDetectionOptions {
    fn check(&self) -> Result<(), Error> {
        let is_negative =
            |tolerance: Option<f64>| tolerance.is_some_and(|tolerance| tolerance.is_nan() || tolerance < 0.0);
        let wrong = |problem: &str| Err(Error::Config(format!("SpikeDetection: {problem}")));
        match self {
            _ if self.window == 0 => wrong("window=0 losses have no mean; write 1 or more"),
            _ if is_negative(self.atol) || is_negative(self.rtol) => {
                wrong("atol and rtol are distances from the running mean, in both directions; write 0.0 or more")
            }
            _ => Ok(()),
        }
    }
}

impl SpikeDetection {
    /// A spike is a loss that is worse than the one before it, and differs from the mean of the last 10 by twice that
    /// mean.
    pub fn new() -> SpikeDetection {
        SpikeDetection::default()
    }

    /// The batches recorded so far: two per spike.
    pub fn bad_batches(&self) -> &[i64] {
        &self.bad_batches
    }

    fn running_mean(&self) -> f64 {
        self.window.iter().sum::<f64>() / self.window.len() as f64
    }

    fn is_spike(&self, loss: f64) -> bool {
        if self.options.finite_only && !loss.is_finite() {
            return true;
        }
        let is_better_or_same = match self.options.mode {
            Mode::Min => loss <= self.last_val,
            Mode::Max => loss >= self.last_val,
        };
        let mean = self.running_mean();
        let differs_by = |least: Option<f64>| least.is_none_or(|least| (loss - mean).abs() >= least);
        !is_better_or_same && differs_by(self.options.atol) && differs_by(self.options.rtol.map(|r| (r * mean).abs()))
    }

    /// Records the batch and the one before it.
    fn note(&mut self, trainer: &TrainerState, batch_idx: usize, loss: f64) -> Result<TrainingSpike> {
        let given = self.options.exclude_batches_path.clone().unwrap_or_else(|| trainer.default_root_dir());
        let is_file = given.extension().is_some_and(|extension| extension == "json");
        let path = if is_file { given } else { given.join("skip_batches.json") };
        let batch = batch_idx as i64;
        let batches: Vec<i64> = [batch - 1, batch].into_iter().filter(|batch| *batch >= 0).collect();
        if trainer.resumed_from().is_some() {
            let earlier = noted(&path);
            self.bad_batches.retain(|batch| !earlier.contains(batch));
            self.bad_batches.splice(0..0, earlier);
        }
        self.bad_batches.extend(&batches);
        if trainer.is_global_zero() {
            write_list(&path, &self.bad_batches).map_err(|error| {
                Error::Config(format!(
                    "SpikeDetection found a spike in batch {batch_idx} (loss {loss}), and cannot write {}: {error}; set exclude_batches_path to where it can",
                    path.display()
                ))
            })?;
        }
        Ok(TrainingSpike { batch_idx, loss, mean: self.running_mean(), batches, path })
    }
}

impl Callback for SpikeDetection {
    fn state_dict(&self) -> Result<Dict> {
        let path = self.options.exclude_batches_path.as_ref().map(|path| path.to_string_lossy().into_owned());
        Ok(Dict::new()
            .with("last_val", self.last_val)
            .with("mode", self.options.mode.name())
            .with("warmup", self.options.warmup)
            .with("atol", self.options.atol)
            .with("rtol", self.options.rtol)
            .with("bad_batches", self.bad_batches.iter().map(|batch| Value::Int(*batch)).collect::<Vec<_>>())
            .with("bad_batches_path", path)
            .with(
                "running",
                Dict::new().with("values", self.window.iter().map(|v| Value::Float(*v)).collect::<Vec<_>>()),
            )
            .with("mean", Dict::new()))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        // Tolerances are not restored: they may have been changed for resuming after a spike.
        self.last_val = state.float("last_val")?;
        self.bad_batches = list_of(state, "bad_batches", "int", Value::as_int)?;
        // The original saves no losses.
        self.window = match state.dict("running") {
            Ok(running) if running.get("values").is_some() => {
                list_of(running, "values", "float", Value::as_float)?.into()
            }
            _ => Default::default(),
        };
        Ok(())
    }

    fn setup(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, _: fulgurite_engine::TrainerFn) -> Result<()> {
        Ok(self.options.check()?)
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        outputs: &Loss,
        _: &dyn Any,
        batch_idx: usize,
    ) -> Result<()> {
        let Some(loss) = outputs.loss() else { return Ok(()) };
        let loss = to_host_f64(loss)?;
        let seen = trainer.progress().batch.total.ready;
        if seen > self.options.warmup && self.is_spike(loss) {
            return Err(self.note(trainer, batch_idx, loss)?.into());
        }
        if loss.is_finite() {
            self.last_val = loss;
            self.window.push_back(loss);
            while self.window.len() > self.options.window {
                self.window.pop_front();
            }
        }
        Ok(())
    }
}

/// Writes the list as Python's `json.dump(list, indent=4)`.
fn write_list(path: &Path, batches: &[i64]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let lines: Vec<String> = batches.iter().map(|batch| format!("    {batch}")).collect();
    std::fs::write(path, format!("[\n{}\n]", lines.join(",\n")))
}

/// The list in a file, if there is one.
fn noted(path: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}
