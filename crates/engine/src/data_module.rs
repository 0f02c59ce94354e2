//! [`LightningDataModule`], and loaders passed directly to an entry point.

use fulgurite_data::{Batch, BoxLoader, IntoLoader, Loader};
use fulgurite_torch::{Dict, Value};

use crate::error::{BoxError, Error, NotImplemented, Result, not_implemented};
use crate::stage::TrainerFn;
use crate::state::TrainerState;

/// The loaders of a stage. Any loader converts into `Loaders`; [`and`](Loaders::and) adds another.
///
/// ```
/// use fulgurite::prelude::*;
/// # let (clean, noisy) = (vec![Tensor::from(1)], vec![Tensor::from(2)]);
///
/// let loaders: Loaders<Tensor> = Loaders::from(clean).and(noisy);
/// assert_eq!(loaders.0.len(), 2);
/// ```
pub struct Loaders<B>(pub Vec<BoxLoader<B>>);

impl<B> Loaders<B> {
    /// No loader.
    pub fn none() -> Loaders<B> {
        Loaders(Vec::new())
    }

    /// Adds a loader. An evaluation iterates over the loaders one after the other, and distinguishes them by
    /// `dataloader_idx`.
    #[must_use]
    pub fn and(mut self, loader: impl IntoLoader<Batch = B>) -> Loaders<B>
    where
        B: Batch,
    {
        self.0.push(loader.into_loader());
        self
    }
}

impl<L: IntoLoader> From<L> for Loaders<L::Batch> {
    fn from(loader: L) -> Self {
        Loaders(vec![loader.into_loader()])
    }
}

/// Data for every stage: downloaded once, set up in every process, torn down at the end.
///
/// ```
/// use fulgurite::prelude::*;
///
/// struct Numbers;
///
/// impl LightningDataModule for Numbers {
///     type Batch = (Tensor, Tensor);
///
///     fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
///         let x = Tensor::randn([64, 1], (Kind::Float, Device::Cpu));
///         let dataset = TensorDataset::new((x.shallow_clone(), &x * 3.0))?;
///         Ok(DataLoader::new(dataset).batch_size(8).shuffle(true).into())
///     }
/// }
/// ```
#[expect(unused_variables, reason = "the defaults of hooks do nothing with their arguments")]
pub trait LightningDataModule: Send {
    /// The batch type of its loaders.
    type Batch: Batch;

    /// Downloads and prepares data, once per node. State that is set here is not visible to other processes.
    fn prepare_data(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called in every process when an entry point begins.
    fn setup(&mut self, trainer: &mut TrainerState, stage: TrainerFn) -> Result<()> {
        Ok(())
    }

    /// The training loader.
    fn train_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        not_implemented("train_dataloader")
    }

    /// The validation loaders.
    fn val_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        not_implemented("val_dataloader")
    }

    /// The test loaders.
    fn test_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        not_implemented("test_dataloader")
    }

    /// The prediction loaders.
    fn predict_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        not_implemented("predict_dataloader")
    }

    /// Called in every process when an entry point ends, also after an error.
    fn teardown(&mut self, trainer: &mut TrainerState, stage: TrainerFn) -> Result<()> {
        Ok(())
    }

    /// Called when an error ends the run.
    fn on_exception(&mut self, trainer: &mut TrainerState, error: &Error) -> Result<()> {
        Ok(())
    }

    /// State to save in checkpoints.
    fn state_dict(&self) -> Result<Dict> {
        Ok(Dict::new())
    }

    /// Restores the state returned by [`state_dict`](Self::state_dict).
    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        Ok(())
    }

    /// Hyper-parameters, saved in checkpoints and sent to loggers together with the module's.
    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new())
    }

    /// Sets a hyper-parameter, such as the batch size, for the tuner. Returns `false` if there is none with that name.
    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        Ok(false)
    }

    /// Its name, the key of its state in checkpoints: that of the type by default.
    fn name(&self) -> &str {
        fulgurite_torch::short_type_name::<Self>()
    }
}

/// Data passed to an entry point. Converted from `&mut` data modules, loaders, tuples of loaders, or `()` for the
/// module's own loader methods. If loaders are passed for training only, or for validation only, the others are still
/// the module's own.
pub struct Data<'a, B>(pub(crate) Source<'a, B>);

impl<B> Data<'_, B> {
    /// Validation loaders for a fit that uses the module's own training loader.
    ///
    /// ```
    /// # use fulgurite::prelude::*;
    /// # use fulgurite::Data;
    /// # fn demo<M: LightningModule<Batch = Tensor>>(mut trainer: Trainer, mut model: M) -> Result<()> {
    /// trainer.fit(&mut model, Data::val(vec![Tensor::from(1)]))?.completed()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn val(loaders: impl Into<Loaders<B>>) -> Self {
        Data(Source::Loaders(Handed::Nothing, Handed::Loaders(loaders.into())))
    }

    /// The data passed for the entry point itself.
    fn of_entry_point(loaders: Loaders<B>) -> Self {
        Data(Source::Loaders(Handed::Loaders(loaders), Handed::Nothing))
    }
}

pub(crate) enum Source<'a, B> {
    DataModule(&'a mut dyn LightningDataModule<Batch = B>),
    /// The data passed for the entry point, and for validation within fit.
    Loaders(Handed<B>, Handed<B>),
    /// The module's own loader methods.
    Module,
}

impl<B> Source<'_, B> {
    /// Whether loaders were passed, for validation within fit (`of_fit_validation`) or for the entry point itself.
    /// If not, they are requested.
    pub(crate) fn is_handed_over(&self, of_fit_validation: bool) -> bool {
        let Source::Loaders(first, val) = self else { return false };
        !matches!(if of_fit_validation { val } else { first }, Handed::Nothing)
    }
}

/// Loaders that were passed for a stage.
pub(crate) enum Handed<B> {
    /// No loaders were passed: the module's are used.
    Nothing,
    /// The loaders are available.
    Loaders(Loaders<B>),
    /// The run has taken the loaders.
    Taken,
}

impl<B> Handed<B> {
    /// Passes the loaders to the run; `None` if that was done before, or if an empty list was passed.
    pub(crate) fn take(&mut self) -> Option<Loaders<B>> {
        match std::mem::replace(self, Handed::Taken) {
            Handed::Loaders(loaders) if !loaders.0.is_empty() => Some(loaders),
            _ => None,
        }
    }
}

/// Types that an entry point accepts as data. `K` is inferred: it distinguishes the implementation for every [`Loader`]
/// from the others.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not data for batches of `{B}`",
    note = "pass `&mut` a `LightningDataModule`, a `Loader` such as a `DataLoader`, `(train, val)` loaders, `Loaders`, `Data::val` of validation loaders alone, or `()` for the module's own loader methods; the loader's batch must be the module's `Batch`"
)]
pub trait IntoData<'a, B, K = ()> {
    /// Converts the value into [`Data`].
    fn into_data(self) -> Data<'a, B>;
}

/// Marker for [`IntoData`]: the value is a loader.
#[derive(Debug)]
pub enum OneLoader {}

impl<'a, B: Batch, D: LightningDataModule<Batch = B>> IntoData<'a, B> for &'a mut D {
    fn into_data(self) -> Data<'a, B> {
        Data(Source::DataModule(self))
    }
}

impl<'a, B> IntoData<'a, B> for Data<'a, B> {
    fn into_data(self) -> Data<'a, B> {
        self
    }
}

impl<'a, B: Batch> IntoData<'a, B> for () {
    fn into_data(self) -> Data<'a, B> {
        Data(Source::Module)
    }
}

impl<'a, B: Batch> IntoData<'a, B> for Loaders<B> {
    fn into_data(self) -> Data<'a, B> {
        Data::of_entry_point(self)
    }
}

impl<'a, B: Batch> IntoData<'a, B> for Vec<B> {
    fn into_data(self) -> Data<'a, B> {
        Data::of_entry_point(self.into())
    }
}

impl<'a, B: Batch, L: Loader<Batch = B> + 'static> IntoData<'a, B, OneLoader> for L {
    fn into_data(self) -> Data<'a, B> {
        Data::of_entry_point(self.into())
    }
}

impl<'a, B, T, V> IntoData<'a, B> for (T, V)
where
    T: Into<Loaders<B>>,
    V: Into<Loaders<B>>,
{
    fn into_data(self) -> Data<'a, B> {
        Data(Source::Loaders(Handed::Loaders(self.0.into()), Handed::Loaders(self.1.into())))
    }
}

/// Requests the loaders of a stage from a data source. `None` if it has none.
pub(crate) fn request<B>(loaders: Result<Loaders<B>>) -> Result<Option<Loaders<B>>, BoxError> {
    match loaders {
        Ok(Loaders(list)) if list.is_empty() => Ok(None),
        Ok(loaders) => Ok(Some(loaders)),
        Err(error) if error.is::<NotImplemented>() => Ok(None),
        Err(error) => Err(error),
    }
}
