//! [`MetricCollection`]: several metrics of the same predictions.

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use crate::{Handle, Metric, MetricError, Supervised};

/// A [`Metric`] that compares predictions with a target, whatever its [`Definition`](crate::Definition).
pub trait SupervisedMetric: Metric {
    /// Accumulates a batch; see [`Handle::update`].
    fn update(&self, preds: &Tensor, target: &Tensor) -> Result<(), MetricError>;

    /// Accumulates a batch, and returns the value on it alone; see [`Handle::forward`].
    fn forward(&self, preds: &Tensor, target: &Tensor) -> Result<Tensor, MetricError>;

    /// A second handle to the same state.
    fn share_supervised(&self) -> Box<dyn SupervisedMetric>;
}

impl<D: Supervised> SupervisedMetric for Handle<D> {
    fn update(&self, preds: &Tensor, target: &Tensor) -> Result<(), MetricError> {
        self.update(preds, target)
    }

    fn forward(&self, preds: &Tensor, target: &Tensor) -> Result<Tensor, MetricError> {
        self.forward(preds, target)
    }

    fn share_supervised(&self) -> Box<dyn SupervisedMetric> {
        Box::new(self.clone())
    }
}

/// Named metrics of the same predictions, updated together. Clones share what is accumulated.
///
/// ```
/// use fulgurite_metrics::{MetricCollection, MulticlassAccuracy, MulticlassF1Score};
/// use fulgurite_torch::tch::Tensor;
///
/// let metrics = MetricCollection::new()
///     .with("val_acc", MulticlassAccuracy::new(3))
///     .with("val_f1", MulticlassF1Score::new(3));
/// metrics.update(&Tensor::from_slice(&[0i64, 1, 2, 2]), &Tensor::from_slice(&[0i64, 1, 2, 1]))?;
/// let values = metrics.compute()?;
/// assert_eq!(values[0].0, "val_acc");
/// # Ok::<(), fulgurite_metrics::MetricError>(())
/// ```
///
/// To log it, log each metric of [`iter`](MetricCollection::iter) under its name.
#[derive(Default)]
pub struct MetricCollection {
    metrics: Vec<(String, Box<dyn SupervisedMetric>)>,
}

impl Clone for MetricCollection {
    fn clone(&self) -> Self {
        let share = |(name, metric): &(String, Box<dyn SupervisedMetric>)| (name.clone(), metric.share_supervised());
        MetricCollection { metrics: self.metrics.iter().map(share).collect() }
    }
}

impl MetricCollection {
    /// An empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `metric`, in place of one of the same name if there is one.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, metric: impl SupervisedMetric + 'static) -> Self {
        let (name, metric) = (name.into(), Box::new(metric));
        match self.metrics.iter_mut().find(|(present, _)| *present == name) {
            Some((_, held)) => *held = metric,
            None => self.metrics.push((name, metric)),
        }
        self
    }

    /// The metrics by name, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &dyn Metric)> {
        self.metrics.iter().map(|(name, metric)| (name.as_str(), &**metric as &dyn Metric))
    }

    /// Accumulates a batch in each metric.
    ///
    /// # Errors
    ///
    /// Returns the error of the first metric that fails; those after it are not updated.
    pub fn update(&self, preds: &Tensor, target: &Tensor) -> Result<(), MetricError> {
        self.metrics.iter().try_for_each(|(_, metric)| metric.update(preds, target))
    }

    /// Accumulates a batch in each metric, and returns their values on it alone.
    ///
    /// # Errors
    ///
    /// Fails as [`update`](MetricCollection::update) does.
    pub fn forward(&self, preds: &Tensor, target: &Tensor) -> Result<Vec<(&str, Tensor)>, MetricError> {
        self.metrics.iter().map(|(name, metric)| Ok((name.as_str(), metric.forward(preds, target)?))).collect()
    }

    /// The value of each metric over everything accumulated.
    ///
    /// # Errors
    ///
    /// Returns the error of the first metric that has no value.
    pub fn compute(&self) -> Result<Vec<(&str, Tensor)>, MetricError> {
        self.iter().map(|(name, metric)| Ok((name, metric.compute()?))).collect()
    }

    /// Resets the states.
    ///
    /// # Errors
    ///
    /// Returns the error of the first metric that cannot be reset.
    pub fn reset(&self) -> Result<(), MetricError> {
        self.iter().try_for_each(|(_, metric)| metric.reset())
    }

    /// The accumulated states by name.
    ///
    /// # Errors
    ///
    /// Returns the error of the first metric whose state is not available.
    pub fn state_dict(&self) -> Result<Dict, MetricError> {
        self.iter().map(|(name, metric)| Ok((name.into(), metric.state_dict()?.into()))).collect()
    }

    /// Restores accumulated states.
    ///
    /// # Errors
    ///
    /// Fails if the state of a metric is missing, or does not fit it.
    pub fn load_state_dict(&self, state: &Dict) -> Result<(), MetricError> {
        self.iter().try_for_each(|(name, metric)| metric.load_state_dict(state.dict(name)?))
    }

    /// Adds what another collection of the same metrics accumulated, given as its state dict.
    ///
    /// # Errors
    ///
    /// Fails if the state of a metric is missing, or does not fit it.
    pub fn merge_state(&self, other: &Dict) -> Result<(), MetricError> {
        self.iter().try_for_each(|(name, metric)| metric.merge_state(other.dict(name)?))
    }
}
