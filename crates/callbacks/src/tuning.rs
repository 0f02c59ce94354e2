//! [`LearningRateFinder`] and [`BatchSizeFinder`]: run the tuner at the start of a run.

use fulgurite_engine::config::Configurable;
use fulgurite_engine::tuner::{
    BatchSizeFinderOptions, LearningRateFinderOptions, LrFind, LrFindMode, Reply, ScaleMode, TuneRequest,
};
use fulgurite_engine::{Callback, Error, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_torch::Dict;

fulgurite_engine::learning_rate_finder_options_setters!(LearningRateFinder, options);
fulgurite_engine::batch_size_finder_options_setters!(BatchSizeFinder, options);

/// Finds a learning rate before `fit` begins and trains with it, like Lightning's callback of the same name. See
/// `Tuner::lr_find`.
///
/// ```
/// use fulgurite::callbacks::LearningRateFinder;
/// use fulgurite::prelude::*;
///
/// let trainer = Trainer::builder().callback(LearningRateFinder::new().num_training(50).max_lr(0.1));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct LearningRateFinder {
    options: LearningRateFinderOptions,
    found: Reply<LrFind>,
}

impl LearningRateFinder {
    /// A range test over 100 steps from 1e-8 to 1.
    pub fn new() -> LearningRateFinder {
        LearningRateFinder::default()
    }

    /// The result of the range test in the last fit.
    pub fn found(&self) -> Option<LrFind> {
        self.found.get()
    }
}

impl Configurable for LearningRateFinder {
    type Options = LearningRateFinderOptions;

    fn from_options(options: LearningRateFinderOptions) -> Result<LearningRateFinder, Error> {
        options.validate()?;
        Ok(LearningRateFinder { options, found: Reply::default() })
    }
}

impl Callback for LearningRateFinder {
    fn setup(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        if stage == TrainerFn::Fit {
            let (options, found) = (self.options.clone(), self.found.clone());
            trainer.request_tuning(TuneRequest::LearningRate { options, found });
        }
        Ok(())
    }
}

/// Finds the largest batch size that fits into memory before an entry point begins, as Lightning's callback of this
/// name. A run that is resumed continues with the size that was found for it. See `Tuner::scale_batch_size`.
///
/// ```
/// use fulgurite::callbacks::BatchSizeFinder;
/// use fulgurite::prelude::*;
/// use fulgurite::tuner::ScaleMode;
///
/// let trainer = Trainer::builder().callback(BatchSizeFinder::new().mode(ScaleMode::BinSearch).max_val(1024));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct BatchSizeFinder {
    options: BatchSizeFinderOptions,
    optimal_batch_size: Reply<u64>,
}

impl BatchSizeFinder {
    /// Doubles the batch size, starting at 2, until memory runs out.
    pub fn new() -> BatchSizeFinder {
        BatchSizeFinder::default()
    }

    /// The result for the last entry point.
    pub fn optimal_batch_size(&self) -> Option<u64> {
        self.optimal_batch_size.get()
    }
}

impl Configurable for BatchSizeFinder {
    type Options = BatchSizeFinderOptions;

    fn from_options(options: BatchSizeFinderOptions) -> Result<BatchSizeFinder, Error> {
        options.validate()?;
        Ok(BatchSizeFinder { options, optimal_batch_size: Reply::default() })
    }
}

impl Callback for BatchSizeFinder {
    fn setup(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        let (options, size) = (self.options.clone(), self.optimal_batch_size.clone());
        trainer.request_tuning(TuneRequest::BatchSize { options, size });
        Ok(())
    }

    fn state_dict(&self) -> Result<Dict> {
        let found = self.optimal_batch_size.get().and_then(|size| i64::try_from(size).ok());
        Ok(found.map_or_else(Dict::new, |size| Dict::new().with("optimal_batch_size", size)))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.optimal_batch_size.set(Some(u64::try_from(state.int("optimal_batch_size")?)?));
        Ok(())
    }
}
