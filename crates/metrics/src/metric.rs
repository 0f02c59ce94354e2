//! [`Metric`]: a value that accumulates over batches.

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use crate::{Field, MetricError};

/// A value that accumulates over batches, on the device, and is computed on demand.
///
/// A metric is a handle: its clones and [`share`](Metric::share)s accumulate into the same state, which is how
/// `step.log("val_acc", &self.acc)` can compute and reset it at the end of the epoch.
pub trait Metric: Send {
    /// The value over everything accumulated since the last [`reset`](Metric::reset).
    ///
    /// # Errors
    ///
    /// Fails if nothing was accumulated and the metric has no value for that, or what was accumulated has no value.
    fn compute(&self) -> Result<Tensor, MetricError>;

    /// The value on the last batch alone, if it was given to `forward` rather than `update`.
    fn batch_value(&self) -> Option<Tensor>;

    /// Resets the state.
    ///
    /// # Errors
    ///
    /// Fails if the metric is of another crate, and cannot be reset.
    fn reset(&self) -> Result<(), MetricError>;

    /// A second handle to the same state.
    fn share(&self) -> Box<dyn Metric>;

    /// The identity of the state: equal for handles to the same state, and unique among those that are alive.
    fn state_id(&self) -> usize;

    /// Whether `other` is a handle to the same state.
    fn same_state(&self, other: &dyn Metric) -> bool {
        self.state_id() == other.state_id()
    }

    /// The accumulated state. What is accumulated later does not change it.
    ///
    /// # Errors
    ///
    /// Fails if the metric is of another crate, and its state is not available.
    fn state_dict(&self) -> Result<Dict, MetricError>;

    /// Restores an accumulated state.
    ///
    /// # Errors
    ///
    /// Fails if the state lacks an entry, or has one of another type or shape.
    fn load_state_dict(&self, state: &Dict) -> Result<(), MetricError>;

    /// Adds what another metric of the same settings accumulated, given as its
    /// [`state_dict`](Metric::state_dict): the halves of a data set, merged, have the value of the whole.
    ///
    /// # Errors
    ///
    /// Fails if the state lacks an entry, or has one of another type or shape.
    fn merge_state(&self, other: &Dict) -> Result<(), MetricError>;

    /// The tensors of the state, and how those of several ranks are reduced.
    fn fields(&self) -> &'static [Field];
}
