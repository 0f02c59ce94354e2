//! [`Handle`]: the implementation of all metrics. A [`Definition`] defines what a batch adds and what the value is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulgurite_torch::Dict;
use fulgurite_torch::grad::NoGradGuard;
use fulgurite_torch::tch::Tensor;

use crate::state::{Field, State};
use crate::{Metric, MetricError};

/// The definition of a metric: the tensors of its state, what a batch adds to them, and its value.
///
/// [`Handle`] does the rest. A custom metric:
///
/// ```
/// use fulgurite_metrics::{Definition, Field, Handle, MetricError, Reduction, Supervised};
/// use fulgurite_torch::tch::{Kind, Tensor};
///
/// /// The largest error.
/// #[derive(Clone)]
/// struct MaxError;
///
/// impl Definition for MaxError {
///     type Input<'a> = (&'a Tensor, &'a Tensor);
///
///     fn name(&self) -> &'static str {
///         "MaxError"
///     }
///
///     fn fields(&self) -> &'static [Field] {
///         const { &[Field::new("largest", Reduction::Max)] }
///     }
///
///     fn batch(&self, (preds, target): (&Tensor, &Tensor)) -> Result<Vec<Tensor>, MetricError> {
///         Ok(vec![preds.f_sub(target)?.f_abs()?.f_max()?])
///     }
///
///     fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
///         Ok(state[0].shallow_clone())
///     }
/// }
///
/// impl Supervised for MaxError {}
///
/// let metric = Handle::from(MaxError);
/// metric.update(&Tensor::from_slice(&[1.0, 5.0]), &Tensor::from_slice(&[1.0, 2.0]))?;
/// assert_eq!(metric.compute()?.double_value(&[]), 3.0);
/// # Ok::<(), MetricError>(())
/// ```
pub trait Definition: Clone + Send + 'static {
    /// The input of an update.
    type Input<'a>;

    /// The metric's name, for messages.
    fn name(&self) -> &'static str;

    /// The tensors of the state.
    fn fields(&self) -> &'static [Field];

    /// The state after this batch alone: one tensor per field, on the device of the input.
    ///
    /// It runs without gradients, and should not wait for the device: no reading of values, no shape that depends on
    /// values.
    ///
    /// # Errors
    ///
    /// Fails if shapes or kinds do not fit the metric, or if a setting is out of range.
    fn batch(&self, input: Self::Input<'_>) -> Result<Vec<Tensor>, MetricError>;

    /// The value of an accumulated state: one tensor per field.
    ///
    /// # Errors
    ///
    /// Fails if the state has no value.
    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError>;

    /// Checks the accumulated state before its value is computed, to warn. Not called for the value of a single batch,
    /// so it may wait for the device.
    ///
    /// # Errors
    ///
    /// Fails if the metric rejects a value, such as NaN.
    fn inspect(&self, _state: &[Tensor]) -> Result<(), MetricError> {
        Ok(())
    }

    /// The state before the first update, if the metric has a value for it.
    ///
    /// # Errors
    ///
    /// Fails if a setting is out of range.
    fn initial(&self) -> Result<Option<Vec<Tensor>>, MetricError> {
        Ok(None)
    }
}

/// A [`Definition`] that compares predictions with a target.
pub trait Supervised: for<'a> Definition<Input<'a> = (&'a Tensor, &'a Tensor)> {}

/// A metric: a [`Definition`], and a handle to what was accumulated.
///
/// Clones share what is accumulated. An update adds to the state on the device of its inputs, follows them if they
/// move, and never waits for the device: it checks shapes and kinds, not values. A label out of range is rejected by
/// libtorch, as in a loss. Metrics are not differentiable.
///
/// Sums are accumulated in `f64` (`f32` on MPS) and values are `f32`.
#[derive(Clone)]
pub struct Handle<D> {
    definition: D,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    state: Option<State>,
    batch_value: Option<Tensor>,
}

impl<D: Definition> From<D> for Handle<D> {
    fn from(definition: D) -> Self {
        Handle { definition, shared: Arc::default() }
    }
}

impl<D: Definition + Default> Default for Handle<D> {
    fn default() -> Self {
        D::default().into()
    }
}

impl<D: Supervised> Handle<D> {
    /// Accumulates a batch.
    ///
    /// # Errors
    ///
    /// Fails if shapes or kinds do not fit the metric, or if a setting is out of range.
    pub fn update(&self, preds: &Tensor, target: &Tensor) -> Result<(), MetricError> {
        self.update_with((preds, target))
    }

    /// Accumulates a batch, and returns the value on it alone, which [`Metric::batch_value`] then returns too.
    ///
    /// # Errors
    ///
    /// Fails as [`Handle::update`] does, or if the batch alone has no value; it is accumulated nevertheless.
    pub fn forward(&self, preds: &Tensor, target: &Tensor) -> Result<Tensor, MetricError> {
        self.forward_with((preds, target))
    }
}

impl<D: Definition> Handle<D> {
    /// Accumulates a batch of any input of the metric.
    ///
    /// # Errors
    ///
    /// Fails as [`Handle::update`] does.
    pub fn update_with(&self, input: D::Input<'_>) -> Result<(), MetricError> {
        let batch = without_gradients(|| self.definition.batch(input))?;
        self.accumulate(batch, None)
    }

    /// Accumulates a batch of any input of the metric, and returns the value on it alone.
    ///
    /// # Errors
    ///
    /// Fails as [`Handle::forward`] does.
    pub fn forward_with(&self, input: D::Input<'_>) -> Result<Tensor, MetricError> {
        let batch = without_gradients(|| self.definition.batch(input))?;
        let value = self.value(&batch);
        self.accumulate(batch, value.as_ref().ok().map(Tensor::shallow_clone))?;
        value
    }

    /// The value over everything accumulated since the last [`reset`](Handle::reset).
    ///
    /// # Errors
    ///
    /// Fails if nothing was accumulated and the metric has no value for that (it warns and returns it if it has), or
    /// what was accumulated has no value.
    pub fn compute(&self) -> Result<Tensor, MetricError> {
        let state = match &mut self.lock().state {
            Some(state) => state.tensors()?,
            None => {
                let metric = self.definition.name();
                let initial = self.definition.initial()?.ok_or(MetricError::NothingAccumulated { metric })?;
                tracing::warn!("`{metric}` is computed before anything was accumulated");
                initial
            }
        };
        self.definition.inspect(&state)?;
        self.value(&state)
    }

    /// Resets the state, for every handle to it.
    pub fn reset(&self) {
        *self.lock() = Shared::default();
    }

    /// The definition, with the settings of the metric.
    pub fn definition(&self) -> &D {
        &self.definition
    }

    /// Changes a setting. The result shares its state with nothing.
    #[must_use]
    pub(crate) fn set(mut self, change: impl FnOnce(&mut D)) -> Self {
        change(&mut self.definition);
        self.definition.into()
    }

    fn value(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        let value = without_gradients(|| self.definition.compute(state))?;
        Ok(if value.numel() == 1 { value.f_reshape([0i64; 0])? } else { value })
    }

    fn accumulate(&self, batch: Vec<Tensor>, batch_value: Option<Tensor>) -> Result<(), MetricError> {
        let (fields, tensors) = (self.definition.fields().len(), batch.len());
        if tensors != fields {
            let message = format!(
                "`batch` returned {tensors} tensors for {fields} fields; return one for each of `fields`, in their order"
            );
            return Err(MetricError::Argument { metric: self.definition.name(), message });
        }
        self.merge(State::of_batch(self.definition.fields(), batch))?;
        self.lock().batch_value = batch_value;
        Ok(())
    }

    fn merge(&self, other: State) -> Result<(), MetricError> {
        let mut shared = self.lock();
        match &mut shared.state {
            Some(state) => without_gradients(|| state.merge(self.definition.fields(), other))?,
            None => shared.state = Some(other),
        }
        Ok(())
    }

    fn read(&self, dict: &Dict) -> Result<Option<State>, MetricError> {
        let initial = self.definition.initial()?;
        State::from_dict(self.definition.name(), self.definition.fields(), initial.as_deref(), dict)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // The state is replaced in a single step, so it is consistent even after a panic elsewhere.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Definition> Metric for Handle<D> {
    fn compute(&self) -> Result<Tensor, MetricError> {
        self.compute()
    }

    fn batch_value(&self) -> Option<Tensor> {
        self.lock().batch_value.as_ref().map(Tensor::shallow_clone)
    }

    fn reset(&self) -> Result<(), MetricError> {
        self.reset();
        Ok(())
    }

    fn share(&self) -> Box<dyn Metric> {
        Box::new(self.clone())
    }

    fn state_id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    fn state_dict(&self) -> Result<Dict, MetricError> {
        Ok(State::to_dict(self.lock().state.as_ref(), self.definition.fields()))
    }

    fn load_state_dict(&self, state: &Dict) -> Result<(), MetricError> {
        let state = self.read(state)?;
        *self.lock() = Shared { state, batch_value: None };
        Ok(())
    }

    fn merge_state(&self, other: &Dict) -> Result<(), MetricError> {
        self.read(other)?.map_or(Ok(()), |other| self.merge(other))
    }

    fn fields(&self) -> &'static [Field] {
        self.definition.fields()
    }
}

/// As `tch::no_grad`, which leaves gradients off after a panic.
fn without_gradients<T>(work: impl FnOnce() -> T) -> T {
    let _no_grad = NoGradGuard::new();
    work()
}
