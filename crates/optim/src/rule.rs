//! [`Rule`]: what tells one optimizer from another. Everything else is shared: [`crate::builder`] makes them,
//! [`crate::engine`] runs them.

use fulgurite_torch::tch::{TchError, Tensor};
use fulgurite_torch::{TensorList, foreach};

use crate::settings::Settings;
use crate::{Momentum, OptimError, ParamGroup};

/// The update of one optimizer, with the settings that are its own (`eps`, `amsgrad`, …). One value for each group.
pub trait Rule: Settings + Clone + Send + 'static {
    /// PyTorch's class name.
    const NAME: &'static str;
    /// The default learning rate.
    const LR: f64;
    /// The default weight decay, if it has one at all.
    const WEIGHT_DECAY: Option<f64>;
    /// The default momentum, which also says what kind of momentum it has.
    const MOMENTUM: Momentum;
    /// The names of its state tensors in the state dict; at most 8.
    const SLOTS: &'static [&'static str];
    /// Whether the state dict counts steps.
    const COUNTS_STEPS: bool = true;
    /// Names of numbers that the state dict holds for each parameter, besides `step`; at most 2.
    const SCALARS: &'static [&'static str] = &[];
    /// Whether its kernel reads step counters from tensors on the device.
    const STEP_TENSORS: bool = false;
    /// Whether state is made before the first gradient.
    const EAGER: bool = false;
    /// PyTorch's options that mean nothing here, but belong to its layout.
    const INERT: &'static [(&'static str, Inert)];

    /// Its defaults, which are PyTorch's.
    fn new() -> Self;

    /// Checks its settings, and parameters it cannot deal with.
    fn validate(&self, group: &ParamGroup) -> Result<(), OptimError>;

    /// Whether parameters of `group` need this state tensor.
    fn uses(&self, _slot: usize, _group: &ParamGroup) -> bool {
        true
    }

    /// A new state tensor for `param`, if it needs one.
    fn init(&self, _slot: usize, _group: &ParamGroup, param: &Tensor) -> Result<Option<Tensor>, TchError> {
        param.f_zeros_like().map(Some)
    }

    /// The first values of [`SCALARS`](Rule::SCALARS).
    fn initial_scalars(&self, _group: &ParamGroup) -> [f32; 2] {
        [0.0; 2]
    }

    /// Parameters of one batch have equal keys. By default they are at the same step.
    fn batch_key(step: u64) -> u64 {
        step
    }

    /// Updates the parameters of `batch`.
    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError>;
}

/// A value of an inert option.
#[derive(Debug, Clone, Copy)]
pub enum Inert {
    /// `None`.
    None,
    /// `False`.
    False,
}

/// How far a parameter is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Its number of steps, this one included.
    pub step: u64,
    /// The values of [`Rule::SCALARS`].
    pub scalars: [f32; 2],
}

/// Parameters of one kind on one device that are updated together, all with gradient and state.
#[derive(Debug)]
pub struct Batch {
    /// The parameters.
    pub params: TensorList,
    /// Their gradients. A rule may put others in their place, but not write to them.
    pub grads: TensorList,
    /// Their state, one list for each of [`Rule::SLOTS`].
    pub slots: Vec<TensorList>,
    /// Step counters on the device, for rules with [`Rule::STEP_TENSORS`].
    pub steps: TensorList,
    /// For intermediate results. Always empty before and after an update.
    pub work: [TensorList; 2],
    /// How far they are. Scalars that a rule changes are kept.
    pub progress: Progress,
}

impl Batch {
    pub(crate) fn new(slots: usize) -> Result<Batch, OptimError> {
        Ok(Batch {
            params: TensorList::empty()?,
            grads: TensorList::empty()?,
            slots: (0..slots).map(|_| TensorList::empty()).collect::<Result<_, _>>()?,
            steps: TensorList::empty()?,
            work: [TensorList::empty()?, TensorList::empty()?],
            progress: Progress { step: 0, scalars: [0.0; 2] },
        })
    }

    /// Lets go of the gradients and of intermediate results, so that their memory can be used for the next step.
    pub(crate) fn release(&mut self) {
        self.grads.clear();
        self.work.iter_mut().for_each(TensorList::clear);
    }

    /// The step as a number to calculate with.
    pub(crate) fn step(&self) -> f64 {
        self.progress.step as f64
    }

    /// Turns the gradients around to maximize, and adds weight decay to them.
    pub(crate) fn prepare_grads(&mut self, maximize: bool, weight_decay: f64) -> Result<(), OptimError> {
        let [out, _] = &mut self.work;
        if maximize {
            foreach::neg(&self.grads, out)?;
            std::mem::swap(&mut self.grads, out);
        }
        if weight_decay != 0.0 {
            foreach::add(&self.grads, &self.params, weight_decay, out)?;
            std::mem::swap(&mut self.grads, out);
        }
        out.clear();
        Ok(())
    }
}
