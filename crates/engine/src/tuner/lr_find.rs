//! The learning-rate range test.

use std::any::Any;

use fulgurite_torch::{Dict, Value, to_host_f64};

use super::curve::LrFind;
use super::options::LearningRateFinderOptions;
use crate::callback::Callback;
use crate::error::{Error, Result};
use crate::loops::Run;
use crate::loss::Loss;
use crate::module::LightningModule;
use crate::module_view::ModuleView;
use crate::scope::Scope;
use crate::state::TrainerState;

impl<M: LightningModule> Run<'_, '_, M> {
    /// The range test. `as_tuner`: nothing follows, so there must be a hyper-parameter to set.
    pub(crate) fn lr_find(
        &mut self,
        options: &LearningRateFinderOptions,
        as_tuner: bool,
    ) -> Result<Option<LrFind>, Error> {
        options.validate()?;
        let state = self.state();
        if state.config.fast_dev_run > 0 {
            state.warn("the learning-rate finder does nothing under fast_dev_run");
            return Ok(None);
        }
        let optimizers = state.num_optimizers();
        if optimizers != 1 {
            return Err(Error::Config(format!(
                "the learning-rate finder needs one optimizer, and configure_optimizers returned {optimizers}"
            )));
        }
        let attribute = self.lr_attribute(options, as_tuner)?;

        let test = self.with_trials(|run, _| {
            run.engine.callbacks = vec![Box::new(RangeTest::new(options.clone(), run.engine.state.global_step()))];
            run.trial(options.num_training)?;
            Ok(run.engine.callbacks.pop())
        })?;
        self.state().forget_requests_of_trial()?;
        let found = test.and_then(|test| (test as Box<dyn Any>).downcast::<RangeTest>().ok());
        let Some(mut found) = found.map(|test| test.found) else { return Ok(None) };
        self.engine.state.take_curve_of_rank_zero(&mut found)?;
        self.take_suggestion(&found, attribute.as_deref(), options.update_attr)?;
        Ok(Some(found))
    }

    /// The hyper-parameter to set.
    fn lr_attribute(&self, options: &LearningRateFinderOptions, as_tuner: bool) -> Result<Option<String>, Error> {
        if !options.update_attr {
            return Ok(None);
        }
        let hparams = self.engine.state.hparams_of(self.module)?;
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

    /// Sets the suggested learning rate in the module and its optimizer.
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

impl TrainerState {
    /// Ranks had different losses, and must continue with one learning rate.
    fn take_curve_of_rank_zero(&self, found: &mut LrFind) -> Result<(), Error> {
        if !self.is_distributed() {
            return Ok(());
        }
        let list = |numbers: &[f64]| Value::List(numbers.iter().map(|number| Value::Float(*number)).collect());
        let told = Dict::new().with("lr", list(&found.lr)).with("loss", list(&found.loss));
        let told = self.fabric.strategy().broadcast(Value::Dict(told), 0)?;
        let numbers = |name: &str| {
            let list = told.as_dict().and_then(|told| told.get(name)).and_then(Value::as_list).unwrap_or_default();
            list.iter().filter_map(Value::as_float).collect()
        };
        (found.lr, found.loss) = (numbers("lr"), numbers("loss"));
        Ok(())
    }
}

/// Increases the learning rate, and records the smoothed loss.
struct RangeTest {
    options: LearningRateFinderOptions,
    /// The step that the run was at before.
    first_step: u64,
    average: f64,
    /// The number of losses in the average.
    averaged: f64,
    /// The first smoothed loss, and the best.
    first_and_best: Option<(f64, f64)>,
    found: LrFind,
}

impl RangeTest {
    /// The decay of the moving average of the loss.
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
        if trainer.step_was_skipped() {
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
