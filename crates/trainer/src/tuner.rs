//! The tuner: finds a learning rate and a batch size by trial runs.

use fulgurite_engine::{Error, IntoData, LightningModule, TrainerFn};

pub use fulgurite_engine::tuner::{
    BatchSizeFinderOptions, LearningRateFinderOptions, LrFind, LrFindMode, Reply, ScaleMode, TuneRequest,
};

use crate::entry_point::CkptPath;
use crate::trainer::Trainer;

/// Finds a learning rate or a batch size with short trial runs. Afterwards, model, optimizers, random number generators
/// and counters are restored.
///
/// ```no_run
/// # use fulgurite::prelude::*;
/// # use fulgurite::tuner::Tuner;
/// # fn demo<M: LightningModule, D: LightningDataModule<Batch = M::Batch>>(mut model: M, mut data: D) -> Result<()> {
/// let mut trainer = Trainer::builder().max_epochs(20).build()?;
/// let mut tuner = Tuner::new(&mut trainer);
/// tuner.scale_batch_size(&mut model, &mut data, Default::default())?;
/// if let Some(found) = tuner.lr_find(&mut model, &mut data, Default::default())? {
///     println!("{}", found.plot());
///     found.save_plot("lr_find.svg")?;
/// }
/// trainer.fit(&mut model, &mut data)?.completed()?;
/// # Ok(()) }
/// ```
pub struct Tuner<'a> {
    trainer: &'a mut Trainer,
    ckpt_path: Option<String>,
}

impl<'a> Tuner<'a> {
    /// Creates a tuner that runs its trials with the arguments of `trainer`.
    pub fn new(trainer: &'a mut Trainer) -> Tuner<'a> {
        Tuner { trainer, ckpt_path: None }
    }

    /// Sets the checkpoint whose weights the trials start from, as in
    /// [`EntryPoint::ckpt_path`](crate::EntryPoint::ckpt_path).
    pub fn ckpt_path(&mut self, ckpt_path: impl Into<CkptPath>) -> &mut Tuner<'a> {
        self.ckpt_path = ckpt_path.into().0;
        self
    }

    /// Trains for some steps while the learning rate rises, and suggests the rate at which the loss falls fastest
    /// (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017). With `update_attr`, the default, the
    /// module's hyper-parameter `lr` or `learning_rate` is set to it. `None` under `fast_dev_run`.
    ///
    /// # Errors
    ///
    /// Fails if options are invalid, the module does not have exactly one optimizer, the hyper-parameter does not
    /// exist, or a step fails in a trial.
    pub fn lr_find<'d, M: LightningModule, K>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'d, M::Batch, K>,
        options: LearningRateFinderOptions,
    ) -> Result<Option<LrFind>, Error> {
        self.trainer.engine().lr_find(module, data, self.ckpt_path.clone(), &options)
    }

    /// Finds the largest batch size that does not run out of memory, and sets the hyper-parameter `batch_size` of the
    /// data module or the module to it. `None` under `fast_dev_run`.
    ///
    /// # Errors
    ///
    /// Fails if options are invalid, loaders were passed directly, the hyper-parameter does not exist, or a step fails
    /// in a trial for a reason other than memory.
    pub fn scale_batch_size<'d, M: LightningModule, K>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'d, M::Batch, K>,
        options: BatchSizeFinderOptions,
    ) -> Result<Option<u64>, Error> {
        self.scale_batch_size_for(TrainerFn::Fit, module, data, options)
    }

    /// Like [`scale_batch_size`](Tuner::scale_batch_size), for the steps of an entry point other than `fit`.
    ///
    /// # Errors
    ///
    /// Fails as [`scale_batch_size`](Tuner::scale_batch_size) does.
    pub fn scale_batch_size_for<'d, M: LightningModule, K>(
        &mut self,
        entry: TrainerFn,
        module: &mut M,
        data: impl IntoData<'d, M::Batch, K>,
        options: BatchSizeFinderOptions,
    ) -> Result<Option<u64>, Error> {
        self.trainer.engine().scale_batch_size(entry, module, data, self.ckpt_path.clone(), &options)
    }
}
