//! The learning-rate range test.

use std::any::Any;
use std::path::Path;

use derive_setters::Setters;
use fulgurite_torch::{Dict, Value, to_host_f64};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plot;
use crate::callbacks::Callback;
use crate::error::{Error, Result};
use crate::loops::Run;
use crate::loss::Loss;
use crate::module::{LightningModule, ModuleView};
use crate::state::TrainerState;

/// How the learning rate rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrFindMode {
    /// By the same factor each step.
    #[default]
    Exponential,
    /// By the same amount each step.
    Linear,
}

/// Options of the learning-rate range test: of [`Tuner::lr_find`](super::Tuner::lr_find) and of the callback
/// [`LearningRateFinder`](crate::callbacks::LearningRateFinder).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "crate::callbacks::LearningRateFinder", field = "options"))]
#[non_exhaustive]
pub struct LearningRateFinderOptions {
    /// The rate to begin with.
    pub min_lr: f64,
    /// The rate to end with.
    pub max_lr: f64,
    /// Optimizer steps from the one to the other.
    pub num_training: u64,
    /// Whether the rate rises exponentially or linearly.
    pub mode: LrFindMode,
    /// The test ends early when the smoothed loss is above this many times its best; none for never. Where the loss goes below
    /// zero, times means nothing: the test ends when the loss is above its best by this many times, less one, the larger of
    /// its best and its first, without their signs.
    #[setters(strip_option = false, into)]
    pub early_stop_threshold: Option<f64>,
    /// Whether the module's hyper-parameter is set to the suggestion.
    pub update_attr: bool,
    /// The hyper-parameter; empty for `lr` or `learning_rate`, whichever the module has.
    #[setters(into)]
    pub attr_name: String,
}

impl Default for LearningRateFinderOptions {
    fn default() -> LearningRateFinderOptions {
        LearningRateFinderOptions {
            min_lr: 1e-8,
            max_lr: 1.0,
            num_training: 100,
            mode: LrFindMode::Exponential,
            early_stop_threshold: Some(4.0),
            update_attr: true,
            attr_name: String::new(),
        }
    }
}

impl LearningRateFinderOptions {
    /// Checks the options against each other.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Config(message));
        let (min, max) = (self.min_lr, self.max_lr);
        if !(min > 0.0 && max > min && max.is_finite()) {
            return wrong(format!(
                "lr_find from min_lr={min} to max_lr={max} cannot rise; write 0 < min_lr < max_lr, such as 1e-8 and 1"
            ));
        }
        if self.num_training < 3 {
            return wrong(format!(
                "lr_find with num_training={} has too few points for a slope; write 3 or more, better 100",
                self.num_training
            ));
        }
        Ok(())
    }

    /// The rate of a step, counted from 0, as Lightning's schedulers count it.
    fn lr(&self, step: u64) -> f64 {
        if step == 0 {
            return self.min_lr;
        }
        let share = (step + 1) as f64 / self.num_training as f64;
        match self.mode {
            LrFindMode::Exponential => self.min_lr * (self.max_lr / self.min_lr).powf(share),
            LrFindMode::Linear => self.min_lr + share * (self.max_lr - self.min_lr),
        }
    }
}

/// What a learning-rate range test found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LrFind {
    /// The learning rate of each step.
    pub lr: Vec<f64>,
    /// The smoothed loss after each step; NaN for a batch that was skipped.
    pub loss: Vec<f64>,
    /// How the rate rose.
    pub mode: LrFindMode,
}

impl LrFind {
    /// The rate at which the loss falls fastest; `None` with fewer than two usable points.
    pub fn suggestion(&self) -> Option<f64> {
        self.suggestion_between(10, 1)
    }

    /// The same without the first `skip_begin` and the last `skip_end` points, which mislead.
    pub fn suggestion_between(&self, skip_begin: usize, skip_end: usize) -> Option<f64> {
        self.suggested_index(skip_begin, skip_end).map(|index| self.lr[index])
    }

    fn suggested_index(&self, skip_begin: usize, skip_end: usize) -> Option<usize> {
        let end = self.loss.len().saturating_sub(skip_end);
        let usable: Vec<usize> = (skip_begin..end).filter(|&i| self.loss[i].is_finite()).collect();
        if usable.len() < 2 {
            return None;
        }
        let point = |i: usize| (self.lr[usable[i]], self.loss[usable[i]]);
        let slopes = (0..usable.len()).map(|i| slope(&point, i, usable.len() - 1));
        let steepest = slopes.enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?.0;
        Some(usable[steepest])
    }

    /// Ranks saw other losses, and must go on with one learning rate.
    fn become_that_of_rank_zero(&mut self, state: &TrainerState) -> Result<(), Error> {
        if !state.is_distributed() {
            return Ok(());
        }
        let list = |numbers: &[f64]| Value::List(numbers.iter().map(|number| Value::Float(*number)).collect());
        let told = Dict::new().with("lr", list(&self.lr)).with("loss", list(&self.loss));
        let told = state.fabric.strategy().broadcast(Value::Dict(told), 0)?;
        let numbers = |name: &str| {
            let list = told.as_dict().and_then(|told| told.get(name)).and_then(Value::as_list).unwrap_or_default();
            list.iter().filter_map(Value::as_float).collect()
        };
        (self.lr, self.loss) = (numbers("lr"), numbers("loss"));
        Ok(())
    }

    /// The curve for a terminal, with the suggestion under it.
    pub fn plot(&self) -> String {
        plot::terminal(self)
    }

    /// Writes the curve, with the suggestion marked, to an SVG file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save_plot(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let marked = self.suggested_index(10, 1);
        plot::svg(self, marked, path.as_ref())
    }
}

/// The numeric gradient at a point: second order inside, one-sided at the ends, as `torch.gradient`.
fn slope(point: &impl Fn(usize) -> (f64, f64), i: usize, last: usize) -> f64 {
    let one_sided = |a: usize, b: usize| {
        let ((x0, y0), (x1, y1)) = (point(a), point(b));
        (y1 - y0) / (x1 - x0)
    };
    match i {
        0 => one_sided(0, 1),
        i if i == last => one_sided(last - 1, last),
        i => {
            let ((x0, y0), (x1, y1), (x2, y2)) = (point(i - 1), point(i), point(i + 1));
            let (left, right) = (x1 - x0, x2 - x1);
            -right / (left * (left + right)) * y0
                + (right - left) / (left * right) * y1
                + left / (right * (left + right)) * y2
        }
    }
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// The range test. `as_tuner`: nothing follows, so there must be a hyper-parameter to set.
    pub(crate) fn lr_find(
        &mut self,
        options: &LearningRateFinderOptions,
        as_tuner: bool,
    ) -> Result<Option<LrFind>, Error> {
        options.validate()?;
        let state = &self.engine.state;
        if state.config.fast_dev_run > 0 {
            state.warn("the learning-rate finder does nothing under fast_dev_run");
            return Ok(None);
        }
        let optimizers = state.run.optimizers.len();
        if optimizers != 1 {
            return Err(Error::Config(format!(
                "the learning-rate finder needs one optimizer, and configure_optimizers returned {optimizers}"
            )));
        }
        let attribute = self.lr_attribute(options, as_tuner)?;

        let before = self.set_aside()?;
        self.engine.callbacks = vec![Box::new(RangeTest::new(options.clone(), self.engine.state.global_step()))];
        let tried = self.trial(options.num_training);
        let test = self.engine.callbacks.pop();
        self.put_back(before)?;
        tried?;
        self.engine.state.forget_wishes_of_trial()?;
        let found = test.and_then(|test| (test as Box<dyn Any>).downcast::<RangeTest>().ok());
        let Some(mut found) = found.map(|test| test.found) else { return Ok(None) };
        found.become_that_of_rank_zero(&self.engine.state)?;
        self.take_suggestion(&found, attribute.as_deref(), options.update_attr)?;
        Ok(Some(found))
    }

    /// The hyper-parameter to set.
    fn lr_attribute(&self, options: &LearningRateFinderOptions, as_tuner: bool) -> Result<Option<String>, Error> {
        if !options.update_attr {
            return Ok(None);
        }
        let hparams = self.module.hparams();
        let candidates = match options.attr_name.as_str() {
            "" => vec!["lr", "learning_rate"],
            name => vec![name],
        };
        let found = candidates.iter().find(|name| hparams.get(name).is_some());
        match found {
            Some(name) => Ok(Some((*name).to_owned())),
            None if as_tuner || !options.attr_name.is_empty() => Err(Error::Config(format!(
                "the learning-rate finder sets a hyper-parameter, and `{}` has no `{}`; return it from `hparams` and set it in `set_hparam`, name another with attr_name, or turn update_attr off",
                self.module.name(),
                candidates.join("` or `")
            ))),
            None => Ok(None),
        }
    }

    /// Lets the module and its optimizer go on with the suggestion.
    fn take_suggestion(&mut self, found: &LrFind, attribute: Option<&str>, update: bool) -> Result<(), Error> {
        let Some(lr) = found.suggestion() else {
            self.engine.state.warn(
                "the learning-rate finder has too few points for a suggestion; raise num_training, or give it more data",
            );
            return Ok(());
        };
        self.engine.state.print(&format!("learning-rate finder: {lr:.3e}, of {} steps", found.lr.len()));
        if !update {
            return Ok(());
        }
        for group in self.engine.state.optimizers().flat_map(|optimizer| optimizer.param_groups_mut()) {
            group.lr = lr;
        }
        if let Some(name) = attribute
            && !self.set_hparam(name, &Value::Float(lr))?
        {
            return Err(Error::Config(format!(
                "`{}` returns `{name}` from `hparams`, and its `set_hparam` does not know it; set the field there and return true",
                self.module.name()
            )));
        }
        Ok(())
    }
}

/// Raises the learning rate, and notes the smoothed loss.
struct RangeTest {
    options: LearningRateFinderOptions,
    /// The step that the run was at before.
    first_step: u64,
    average: f64,
    /// How many losses it is of.
    averaged: f64,
    /// The first smoothed loss, and the best.
    first_and_best: Option<(f64, f64)>,
    found: LrFind,
}

impl RangeTest {
    /// How much of the average a new loss leaves as it is.
    const SMOOTHING: f64 = 0.98;

    fn new(options: LearningRateFinderOptions, first_step: u64) -> RangeTest {
        let found = LrFind { lr: Vec::new(), loss: Vec::new(), mode: options.mode };
        RangeTest { options, first_step, average: 0.0, averaged: 0.0, first_and_best: None, found }
    }

    /// Takes a loss into the average, and returns that, corrected for its beginning at zero.
    fn smooth(&mut self, loss: f64) -> f64 {
        self.averaged += 1.0;
        self.average = Self::SMOOTHING * self.average + (1.0 - Self::SMOOTHING) * loss;
        // Lightning counts one step more.
        self.average / (1.0 - Self::SMOOTHING.powf(self.averaged + 1.0))
    }

    /// Whether a smoothed loss is that of a learning rate which is much too high.
    fn diverges(&self, smoothed: f64) -> bool {
        let (Some(threshold), Some((first, best))) = (self.options.early_stop_threshold, self.first_and_best) else {
            return false;
        };
        let bound = if best >= 0.0 { threshold * best } else { best + (threshold - 1.0) * first.abs().max(-best) };
        smoothed > bound
    }

    fn note(&mut self, smoothed: f64) {
        self.found.loss.push(smoothed);
        let (first, best) = self.first_and_best.unwrap_or((smoothed, smoothed));
        self.first_and_best = Some((first, if smoothed < best { smoothed } else { best }));
    }
}

impl Callback for RangeTest {
    fn on_train_batch_start(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        let lr = self.options.lr(trainer.global_step() - self.first_step);
        for group in trainer.optimizers().flat_map(|optimizer| optimizer.param_groups_mut()) {
            group.lr = lr;
        }
        if !trainer.is_accumulating() {
            self.found.lr.push(lr);
        }
        Ok(())
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        outputs: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        if trainer.is_accumulating() {
            return Ok(());
        }
        if trainer.run.step_skipped {
            // It is tried again with the next batch.
            self.found.lr.pop();
            return Ok(());
        }
        let Some(loss) = outputs.loss() else {
            self.found.loss.push(f64::NAN);
            return Ok(());
        };
        let smoothed = self.smooth(to_host_f64(loss)?);
        if self.diverges(smoothed) {
            trainer.request_stop("the loss of the learning-rate finder diverges");
        }
        self.note(smoothed);
        Ok(())
    }
}
