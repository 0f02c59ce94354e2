//! [`ModelPruning`]: prunes the least important parameters.

mod hooks;
mod method;
mod options;
mod parameter;
mod resample;

use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Error, Result};
use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use self::method::{CustomFn, Unstructured, prune_slices};
pub use self::options::{ModelPruningOptions, PruningAmount, PruningFn};
use self::parameter::Parameter;
use self::resample::ResampleFn;

type ByEpoch<T> = Box<dyn FnMut(u64) -> T + Send>;
type Filter = Box<dyn Fn(&str) -> bool + Send>;

/// Sets parameters to zero during `fit`, and keeps them there: Lightning's callback of this
/// name, with the methods of `torch.nn.utils.prune`.
///
/// At the end of every epoch it prunes `amount` of what is left. With the lottery ticket hypothesis, which is on by
/// default, the others then go back to the values they had when fit began. Pruned parameters get no gradient, and are
/// zero again after every batch; the optimizer's memory of them is cleared.
///
/// Differences from Lightning:
///
/// - parameters are named as in the module's `VarStore`, and checkpoints hold them under these names, with zeros; never
///   as `weight_orig` and `weight_mask`. The masks, and the first values, are in the callback's state, so that a resumed
///   run continues as if it had not been interrupted;
/// - `make_pruning_permanent(false)` keeps the masks in force for a later fit;
/// - pruning looks at the parameters as they are (there, as they were in the last forward pass);
/// - the first values are the same each time (there, on a CPU, they are trained on after the first time);
/// - nothing is pruned by `validate` outside fit.
///
/// ```
/// use fulgurite::callbacks::{ModelPruning, PruningFn};
/// use fulgurite::prelude::*;
///
/// // A tenth of the weights of what is left after each epoch, until epoch 10.
/// let pruning = ModelPruning::new(PruningFn::L1Unstructured)
///     .parameter_names(["weight"])
///     .amount(0.1)
///     .apply_pruning_by_epoch(|epoch| epoch < 10)
///     .use_lottery_ticket_hypothesis(false);
/// let trainer = Trainer::builder().callback(pruning);
/// ```
#[must_use]
pub struct ModelPruning {
    options: ModelPruningOptions,
    amount_by_epoch: Option<ByEpoch<PruningAmount>>,
    apply_by_epoch: Option<ByEpoch<bool>>,
    lottery_by_epoch: Option<ByEpoch<bool>>,
    filter: Option<Filter>,
    resample_with: Option<ResampleFn>,
    method: Option<CustomFn>,

    parameters: Vec<Parameter>,
    /// State restored from a checkpoint, until the parameters are known.
    restored: Option<Dict>,
}

impl Configurable for ModelPruning {
    type Options = ModelPruningOptions;

    fn from_options(options: ModelPruningOptions) -> Result<ModelPruning, Error> {
        options.check()?;
        Ok(ModelPruning {
            options,
            amount_by_epoch: None,
            apply_by_epoch: None,
            lottery_by_epoch: None,
            filter: None,
            resample_with: None,
            method: None,
            parameters: Vec::new(),
            restored: None,
        })
    }
}

impl ModelPruning {
    /// Prunes half of what is left at the end of every epoch, chosen by `pruning_fn` among all weights and biases
    /// together.
    pub fn new(pruning_fn: PruningFn) -> ModelPruning {
        ModelPruning {
            options: ModelPruningOptions { pruning_fn, ..ModelPruningOptions::default() },
            amount_by_epoch: None,
            apply_by_epoch: None,
            lottery_by_epoch: None,
            filter: None,
            resample_with: None,
            method: None,
            parameters: Vec::new(),
            restored: None,
        }
    }

    /// Prunes by a function custom (Lightning's `BasePruningMethod`). It is given all numbers that are left, in a
    /// row, and the amount, and returns a tensor of the same length: 0 for each number to prune.
    pub fn with_method(method: impl FnMut(&Tensor, PruningAmount) -> Result<Tensor> + Send + 'static) -> ModelPruning {
        ModelPruning { method: Some(Box::new(method)), ..ModelPruning::new(PruningFn::L1Unstructured) }
    }

    /// The parameters to prune, by their names in the `VarStore`, such as `fc1.weight`. By default all that
    /// [`parameter_names`](ModelPruning::parameter_names) selects.
    pub fn parameters_to_prune<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.options.parameters_to_prune = names.into_iter().map(Into::into).collect();
        self
    }

    /// The last parts of the names of parameters to prune, when none are named in full: `weight` and `bias` by default.
    pub fn parameter_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.options.parameter_names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Leaves out the parameters for whose names `filter` returns `false`.
    pub fn filter_parameters_to_prune(mut self, filter: impl Fn(&str) -> bool + Send + 'static) -> Self {
        self.filter = Some(Box::new(filter));
        self
    }

    /// How much to prune at the end of each epoch (0-based); 0 for nothing.
    pub fn amount_by_epoch<A: Into<PruningAmount>>(
        mut self,
        mut amount: impl FnMut(u64) -> A + Send + 'static,
    ) -> Self {
        self.amount_by_epoch = Some(Box::new(move |epoch| amount(epoch).into()));
        self
    }

    /// Whether to prune at the end of each epoch (0-based).
    pub fn apply_pruning_by_epoch(mut self, apply: impl FnMut(u64) -> bool + Send + 'static) -> Self {
        self.apply_by_epoch = Some(Box::new(apply));
        self
    }

    /// Whether what is left goes back to its first values after the pruning of each epoch (0-based).
    pub fn use_lottery_ticket_hypothesis_by_epoch(mut self, lottery: impl FnMut(u64) -> bool + Send + 'static) -> Self {
        self.lottery_by_epoch = Some(Box::new(lottery));
        self
    }

    /// Draws new values for [`resample_parameters`](ModelPruning::resample_parameters): it is given a parameter's name
    /// and its tensor to fill in place. By default, weights of two dimensions or more and the biases beside them are
    /// drawn as PyTorch's linear and convolutional layers draw them, other weights become 1 and other biases 0.
    pub fn resample_with(mut self, resample: impl FnMut(&str, &mut Tensor) -> Result<()> + Send + 'static) -> Self {
        self.resample_with = Some(Box::new(resample));
        self
    }

    /// The masks in force, by parameter: `bool`, true where it is kept.
    pub fn masks(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.parameters.iter().filter_map(|p| Some((p.name.as_str(), &p.mask.as_ref()?.keep)))
    }
}

impl ModelPruning {
    /// Prunes `amount` of what is left.
    fn prune(&mut self, amount: PruningAmount) -> Result<()> {
        if self.options.use_global_unstructured {
            return self.prune_together(amount);
        }
        for parameter in &mut self.parameters {
            let (values, mask) = (parameter.values()?, parameter.mask_or_ones()?);
            let keep = match unstructured(&self.options, &mut self.method) {
                Some(choice) => choice.prune(&values, &mask, amount, &parameter.name)?,
                None => prune_slices(&values, &mask, &self.options, amount, &parameter.name)?,
            };
            parameter.set_mask(keep)?;
        }
        Ok(())
    }

    fn prune_together(&mut self, amount: PruningAmount) -> Result<()> {
        let Some(choice) = unstructured(&self.options, &mut self.method) else { return Ok(()) };
        let flat = |tensor: Tensor| tensor.f_flatten(0, -1);
        let (mut values, mut masks) = (Vec::new(), Vec::new());
        for parameter in &self.parameters {
            values.push(flat(parameter.values()?)?);
            masks.push(flat(parameter.mask_or_ones()?)?);
        }
        let keep = choice.prune(&Tensor::f_cat(&values, 0)?, &Tensor::f_cat(&masks, 0)?, amount, "the parameters")?;
        let mut start = 0;
        for parameter in &mut self.parameters {
            let len = parameter.tensor.numel() as i64;
            parameter.set_mask(keep.f_narrow(0, start, len)?.f_view_as(&parameter.tensor)?.f_contiguous()?)?;
            start += len;
        }
        Ok(())
    }
}

/// The unstructured pruning method; `None` for structured pruning.
fn unstructured<'a>(options: &ModelPruningOptions, method: &'a mut Option<CustomFn>) -> Option<Unstructured<'a>> {
    match (method, options.pruning_fn) {
        (Some(method), _) => Some(Unstructured::Custom(method)),
        (None, PruningFn::L1Unstructured) => Some(Unstructured::Smallest),
        (None, PruningFn::RandomUnstructured) => Some(Unstructured::Random),
        (None, _) => None,
    }
}
