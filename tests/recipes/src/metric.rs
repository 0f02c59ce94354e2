//! A metric: what a batch adds to its state, and what its value is.

use fulgurite::metrics::{Definition, Field, Handle, MetricError, Reduction, Supervised};
use fulgurite::tch::Tensor;

/// The largest error.
pub type MaxError = Handle<LargestDifference>;

/// The definition of [`MaxError`].
#[derive(Debug, Clone, Default)]
pub struct LargestDifference;

impl Definition for LargestDifference {
    type Input<'a> = (&'a Tensor, &'a Tensor);

    fn name(&self) -> &'static str {
        "MaxError"
    }

    // How the states of two batches, or of two ranks, become one.
    fn fields(&self) -> &'static [Field] {
        const { &[Field::new("largest", Reduction::Max)] }
    }

    fn batch(&self, (preds, target): (&Tensor, &Tensor)) -> Result<Vec<Tensor>, MetricError> {
        Ok(vec![preds.f_sub(target)?.f_abs()?.f_max()?])
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        Ok(state[0].shallow_clone())
    }
}

impl Supervised for LargestDifference {}
