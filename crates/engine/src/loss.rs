//! [`Loss`]: the result of a training step.

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};

/// The loss of a batch, and further outputs for `on_train_batch_end`. A scalar tensor converts into it.
#[derive(Debug, Default)]
#[must_use]
pub struct Loss {
    pub(crate) loss: Option<Tensor>,
    pub(crate) weight: Option<f64>,
    pub(crate) extra: Dict,
}

impl Loss {
    /// The loss of a batch: a scalar with a gradient.
    pub fn new(loss: Tensor) -> Loss {
        Loss { loss: Some(loss), ..Loss::default() }
    }

    /// Skips this batch: no backward pass is run.
    pub fn skip() -> Loss {
        Loss::default()
    }

    /// The weight of this batch within its accumulation window, such as its number of tokens if the loss is their mean.
    /// By default all batches have the same weight.
    pub fn weight(mut self, weight: f64) -> Loss {
        self.weight = Some(weight);
        self
    }

    /// Adds a value for `on_train_batch_end`.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Loss {
        self.extra.set(name, value);
        self
    }

    /// The loss, detached after the step; `None` if the batch was skipped.
    pub fn loss(&self) -> Option<&Tensor> {
        self.loss.as_ref()
    }

    /// A value added by [`with`](Loss::with).
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.extra.get(name)
    }
}

impl From<Tensor> for Loss {
    fn from(loss: Tensor) -> Loss {
        Loss::new(loss)
    }
}
