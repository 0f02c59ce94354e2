//! [`Optimizers`]: what `configure_optimizers` returns.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{LrScheduler, OptimError, Optimizer};

/// When a scheduler is stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// At the end of an epoch.
    #[default]
    Epoch,
    /// After an optimizer step.
    Step,
}

/// A scheduler and when to step it: Lightning's scheduler dict.
#[non_exhaustive]
pub struct LrSchedulerConfig {
    /// The scheduler.
    pub scheduler: Box<dyn LrScheduler>,
    /// Index of its optimizer.
    pub optimizer: usize,
    /// Per epoch or per optimizer step.
    pub interval: Interval,
    /// Step it every this many intervals, 1 or more. Steps are counted in optimizer steps over the whole run.
    pub frequency: u64,
    /// Name of the logged value that `ReduceLROnPlateau` monitors.
    pub monitor: Option<String>,
    /// Whether a missing monitored value is an error (otherwise a warning, and the step is skipped).
    pub strict: bool,
    /// Name for the learning-rate monitor.
    pub name: Option<String>,
}

impl LrSchedulerConfig {
    /// `scheduler`, stepped once per epoch.
    pub fn new(scheduler: impl LrScheduler + 'static) -> LrSchedulerConfig {
        LrSchedulerConfig::from(Box::new(scheduler) as Box<dyn LrScheduler>)
    }

    /// Steps it per epoch or per optimizer step.
    #[must_use]
    pub fn interval(mut self, interval: Interval) -> Self {
        self.interval = interval;
        self
    }

    /// Steps it every `frequency` intervals.
    #[must_use]
    pub fn frequency(mut self, frequency: u64) -> Self {
        self.frequency = frequency;
        self
    }

    /// The logged value to monitor.
    #[must_use]
    pub fn monitor(mut self, name: impl Into<String>) -> Self {
        self.monitor = Some(name.into());
        self
    }

    /// Whether a missing monitored value is an error.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Name for the learning-rate monitor.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl From<Box<dyn LrScheduler>> for LrSchedulerConfig {
    fn from(scheduler: Box<dyn LrScheduler>) -> LrSchedulerConfig {
        LrSchedulerConfig {
            scheduler,
            optimizer: 0,
            interval: Interval::Epoch,
            frequency: 1,
            monitor: None,
            strict: true,
            name: None,
        }
    }
}

impl<S: LrScheduler + 'static> From<S> for LrSchedulerConfig {
    fn from(scheduler: S) -> LrSchedulerConfig {
        LrSchedulerConfig::new(scheduler)
    }
}

impl fmt::Debug for LrSchedulerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LrSchedulerConfig")
            .field("scheduler", &self.scheduler.name())
            .field("optimizer", &self.optimizer)
            .field("interval", &self.interval)
            .field("frequency", &self.frequency)
            .field("monitor", &self.monitor)
            .finish_non_exhaustive()
    }
}

/// Optimizers, and their schedulers attached to them.
pub type BuiltOptimizers = (Vec<Box<dyn Optimizer>>, Vec<LrSchedulerConfig>);

/// The optimizers of a run and their schedulers.
///
/// Any optimizer's builder converts into it with `.into()`; an error of the builder's options is kept and returned by
/// [`Optimizers::build`], which the trainer calls.
#[derive(Default)]
pub struct Optimizers {
    optimizers: Vec<Box<dyn Optimizer>>,
    frequencies: Vec<Option<u64>>,
    schedulers: Vec<LrSchedulerConfig>,
    error: Option<OptimError>,
}

impl Optimizers {
    /// No optimizer, for modules that train without gradients.
    pub fn none() -> Optimizers {
        Optimizers::default()
    }

    /// Adds a scheduler for the optimizer added last.
    #[must_use]
    pub fn scheduler(mut self, scheduler: impl Into<LrSchedulerConfig>) -> Optimizers {
        let mut config = scheduler.into();
        config.optimizer = self.optimizers.len().saturating_sub(1);
        self.schedulers.push(config);
        self
    }

    /// The number of consecutive steps of the optimizer added last, when several take turns in the order they were
    /// added.
    #[must_use]
    pub fn frequency(mut self, steps: u64) -> Optimizers {
        if let Some(last) = self.frequencies.last_mut() {
            *last = Some(steps);
        }
        self
    }

    /// The number of consecutive steps of each optimizer, where it was set.
    pub fn frequencies(&self) -> &[Option<u64>] {
        &self.frequencies
    }

    /// Adds another optimizer.
    #[must_use]
    pub fn and(mut self, more: impl Into<Optimizers>) -> Optimizers {
        let mut more = more.into();
        for config in &mut more.schedulers {
            config.optimizer += self.optimizers.len();
        }
        self.optimizers.append(&mut more.optimizers);
        self.frequencies.append(&mut more.frequencies);
        self.schedulers.append(&mut more.schedulers);
        self.error = self.error.or(more.error);
        self
    }

    /// From the result of an optimizer's builder.
    pub fn from_result(optimizer: Result<Box<dyn Optimizer>, OptimError>) -> Optimizers {
        match optimizer {
            Ok(optimizer) => {
                Optimizers { optimizers: vec![optimizer], frequencies: vec![None], ..Optimizers::default() }
            }
            Err(error) => Optimizers { error: Some(error), ..Optimizers::default() },
        }
    }

    /// Attaches each scheduler to its optimizer, and returns both.
    ///
    /// # Errors
    ///
    /// Fails if an option of an optimizer or a scheduler is missing or out of range, or a scheduler has no optimizer.
    pub fn build(mut self) -> Result<BuiltOptimizers, OptimError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        for config in &mut self.schedulers {
            let optimizer = self.optimizers.get_mut(config.optimizer).ok_or(OptimError::SchedulerWithoutOptimizer)?;
            config.scheduler.attach(optimizer.as_mut())?;
        }
        Ok((self.optimizers, self.schedulers))
    }
}
