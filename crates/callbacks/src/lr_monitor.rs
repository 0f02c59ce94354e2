//! [`LearningRateMonitor`]: logs learning rates.

use std::any::Any;
use std::collections::HashSet;

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Callback, Error, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_optim::{Interval, Momentum, Optimizer, ParamGroup};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Logs the current learning rates, and adds them to the metrics that callbacks see.
///
/// The name is the scheduler's, or `lr-AdamW` after the optimizer's class, with `-1`, `-2`, … for further ones of a
/// class, and with `/pg1`, `/pg2`, … or `/` and the group's name when there are several parameter groups. Values of a
/// step are written before it, at the logging interval; those of an epoch at its start.
///
/// ```
/// use fulgurite::prelude::*;
///
/// let rates = LearningRateMonitor::new().logging_interval(Interval::Step).log_momentum(true);
/// let trainer = Trainer::builder().callback(rates);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct LearningRateMonitor {
    options: LearningRateMonitorOptions,
    sources: Vec<Source>,
    series: Vec<Series>,
}

/// Options of [`LearningRateMonitor`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "LearningRateMonitor", field = "options"))]
#[non_exhaustive]
pub struct LearningRateMonitorOptions {
    /// When to log; by default each scheduler at its own interval, and optimizers without a scheduler at both.
    #[setters(strip_option = false, into)]
    pub logging_interval: Option<Interval>,
    /// Also logs the momentum, or the first beta of Adam-like optimizers, under the name and `-momentum`.
    pub log_momentum: bool,
    /// Also logs the weight decay, under the name and `-weight_decay`.
    pub log_weight_decay: bool,
    /// A prefix for each name.
    #[setters(into)]
    pub log_key_prefix: String,
}

impl Configurable for LearningRateMonitor {
    type Options = LearningRateMonitorOptions;

    fn from_options(options: LearningRateMonitorOptions) -> Result<LearningRateMonitor, Error> {
        Ok(LearningRateMonitor { options, ..LearningRateMonitor::default() })
    }
}

/// An optimizer to read, for a scheduler or for itself.
#[derive(Debug, Clone)]
struct Source {
    optimizer: usize,
    /// Its scheduler's interval; without a scheduler it is read at both.
    interval: Option<Interval>,
}

/// A parameter group of a source, and what it is written under.
#[derive(Debug, Clone)]
struct Series {
    source: usize,
    group: usize,
    name: String,
    momentum: String,
    weight_decay: String,
    lrs: Vec<f64>,
}

type Row<'a> = SmallVec<[(&'a str, f64); 16]>;

impl LearningRateMonitor {
    /// Each scheduler at its own interval, optimizers without one at every step and every epoch.
    pub fn new() -> LearningRateMonitor {
        LearningRateMonitor::default()
    }

    /// The learning rates written so far under each name.
    pub fn lrs(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.series.iter().map(|series| (series.name.as_str(), series.lrs.as_slice()))
    }

    /// Writes what belongs to `interval`.
    fn write(&mut self, trainer: &mut TrainerState, interval: Interval) -> Result<()> {
        if self.options.logging_interval.is_some_and(|only| only != interval) {
            return Ok(());
        }
        self.follow_changes(trainer)?;
        // What was logged before is known from here on too, as after every look at these metrics.
        let _ = trainer.callback_metrics()?;
        let by_scheduler = self.options.logging_interval.is_none();
        let x = trainer.progress().batches_that_stepped as i64;
        let mut row = Row::new();
        for series in &mut self.series {
            let Source { optimizer, interval: of_scheduler } = self.sources[series.source];
            if by_scheduler && of_scheduler.is_some_and(|own| own != interval) {
                continue;
            }
            let Some(group) = group(trainer, optimizer, series.group) else { continue };
            row.push((&series.name, group.lr));
            series.lrs.push(group.lr);
            if self.options.log_momentum {
                row.push((&series.momentum, momentum(group)));
            }
            if self.options.log_weight_decay {
                row.push((&series.weight_decay, group.weight_decay));
            }
        }
        if row.is_empty() {
            return Ok(());
        }
        for (name, value) in &row {
            trainer.set_callback_metric(name, *value);
        }
        for logger in trainer.loggers() {
            logger.log_metrics(&row, x)?;
        }
        Ok(())
    }

    /// Finds the names anew when groups were added to an optimizer or a scheduler replaced, and keeps what was written
    /// under the old ones.
    fn follow_changes(&mut self, trainer: &TrainerState) -> Result<(), Error> {
        let groups = |slot| optimizer(trainer, slot).map_or(0, |optimizer| optimizer.param_groups().len());
        let there: usize = self.sources.iter().map(|source| groups(source.optimizer)).sum();
        let schedulers = trainer.lr_schedulers().iter().map(|config| (config.optimizer, Some(config.interval)));
        let followed = self.sources.iter().filter(|source| source.interval.is_some());
        if there == self.series.len() && schedulers.eq(followed.map(|source| (source.optimizer, source.interval))) {
            return Ok(());
        }
        let before = std::mem::take(&mut self.series);
        let slots: Vec<usize> = self.sources.iter().map(|source| source.optimizer).collect();
        self.find_series(trainer)?;
        for old in before {
            let slot = slots[old.source];
            let same = |new: &&mut Series| self.sources[new.source].optimizer == slot && new.group == old.group;
            if let Some(new) = self.series.iter_mut().find(same) {
                new.lrs = old.lrs;
            }
        }
        Ok(())
    }

    /// Determines the values to log, and their names.
    fn find_series(&mut self, trainer: &TrainerState) -> Result<(), Error> {
        self.sources.clear();
        self.series.clear();
        let mut seen: Vec<String> = Vec::new();
        for config in trainer.lr_schedulers() {
            self.add(trainer, config.optimizer, config.name.as_deref(), Some(config.interval), &mut seen)?;
        }
        for slot in 0..trainer.num_optimizers() {
            if !self.sources.iter().any(|source| source.optimizer == slot) {
                self.add(trainer, slot, None, None, &mut seen)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        trainer: &TrainerState,
        slot: usize,
        name: Option<&str>,
        interval: Option<Interval>,
        seen: &mut Vec<String>,
    ) -> Result<(), Error> {
        let Some(optimizer) = optimizer(trainer, slot) else { return Ok(()) };
        let name = match name {
            Some(name) => name.to_owned(),
            None => {
                let class = optimizer.name();
                let twins = seen.iter().filter(|other| *other == class).count();
                seen.push(class.to_owned());
                if twins == 0 { format!("lr-{class}") } else { format!("lr-{class}-{twins}") }
            }
        };
        let groups = optimizer.param_groups();
        let mut names = HashSet::new();
        for (index, group) in groups.iter().enumerate() {
            let suffix = match &group.name {
                Some(name) => format!("/{name}"),
                None if groups.len() > 1 => format!("/pg{}", index + 1),
                None => String::new(),
            };
            let name = format!("{}{name}{suffix}", self.options.log_key_prefix);
            if !names.insert(suffix) {
                return Err(Error::Config(format!(
                    "LearningRateMonitor would write two parameter groups as `{name}`; give the groups of {} different names",
                    optimizer.name()
                )));
            }
            self.series.push(Series {
                source: self.sources.len(),
                group: index,
                momentum: format!("{name}-momentum"),
                weight_decay: format!("{name}-weight_decay"),
                name,
                lrs: Vec::new(),
            });
        }
        self.sources.push(Source { optimizer: slot, interval });
        Ok(())
    }
}

impl Callback for LearningRateMonitor {
    fn setup(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        if stage == TrainerFn::Fit && trainer.loggers().is_empty() {
            return Err(Error::Config(
                "LearningRateMonitor writes to loggers, and the trainer has none; add one with `Trainer::builder().logger(..)`, or leave the monitor out".into(),
            )
            .into());
        }
        Ok(())
    }

    fn on_train_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.find_series(trainer)?;
        let has_none = |optimizer: &mut (dyn Optimizer + 'static)| {
            optimizer.param_groups().iter().any(|group| group.momentum == Momentum::None)
        };
        if self.options.log_momentum && trainer.optimizers().any(has_none) {
            trainer.warn(
                "LearningRateMonitor::log_momentum is on, and some optimizers have no momentum; 0 is written for them",
            );
        }
        Ok(())
    }

    fn on_train_epoch_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.write(trainer, Interval::Epoch)
    }

    fn on_train_batch_start(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        if trainer.should_update_logs() { self.write(trainer, Interval::Step) } else { Ok(()) }
    }
}

fn optimizer(trainer: &TrainerState, slot: usize) -> Option<&dyn Optimizer> {
    trainer.optimizer(slot)
}

fn group(trainer: &TrainerState, slot: usize, index: usize) -> Option<&ParamGroup> {
    optimizer(trainer, slot)?.param_groups().get(index)
}

fn momentum(group: &ParamGroup) -> f64 {
    match group.momentum {
        Momentum::None => 0.0,
        Momentum::Momentum(momentum) | Momentum::Betas(momentum, _) => momentum,
    }
}
