//! [`MetricError`].

use fulgurite_torch::tch::{Kind, TchError, Tensor};
use fulgurite_torch::{TorchError, ValueError, readable_error};

/// An error of building, updating, computing or restoring a metric.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// `compute` was called before anything was accumulated, and the metric has no value for an empty state.
    #[error("`{metric}` has accumulated nothing, so it has no value: call `update` or `forward` before `compute`")]
    NothingAccumulated {
        /// The metric's name.
        metric: &'static str,
    },
    /// A constructor argument is out of its range, or contradicts another.
    #[error("`{metric}`: {message}")]
    Argument {
        /// The metric's name.
        metric: &'static str,
        /// What was requested, why it is invalid, and what to do.
        message: String,
    },
    /// The shapes of the inputs do not fit the metric or each other.
    #[error("`{metric}` was given preds of shape {preds:?} and target of shape {target:?}; expected {expected}")]
    Shape {
        /// The metric's name.
        metric: &'static str,
        /// The shape of the predictions.
        preds: Vec<i64>,
        /// The shape of the target.
        target: Vec<i64>,
        /// The supported shapes.
        expected: String,
    },
    /// The kind of an input does not fit the metric.
    #[error("`{metric}` was given a {input} of kind {found:?}; expected {expected}")]
    Kind {
        /// The metric's name.
        metric: &'static str,
        /// The input.
        input: &'static str,
        /// Its kind.
        found: Kind,
        /// The supported kinds.
        expected: &'static str,
    },
    /// A value that the metric is set to reject, such as NaN.
    #[error("`{metric}`: {message}")]
    Value {
        /// The metric's name.
        metric: &'static str,
        /// The value that was found, and what to do.
        message: String,
    },
    /// The state does not fit the metric.
    #[error("cannot restore `{metric}`: {message}")]
    State {
        /// The metric's name.
        metric: &'static str,
        /// What does not fit.
        message: String,
    },
    /// The state lacks an entry, or has one of another type.
    #[error("cannot restore the metric's state: {0}")]
    Entry(#[from] ValueError),
    /// An error of a metric of another crate.
    #[error("`{metric}`: {source}")]
    Other {
        /// The metric's name.
        metric: String,
        /// The error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An operation of libtorch failed.
    #[error("libtorch failed while computing a metric: {0}")]
    Torch(#[from] TorchError),
}

impl From<TchError> for MetricError {
    fn from(error: TchError) -> MetricError {
        MetricError::Torch(error.into())
    }
}

impl MetricError {
    /// An error of a metric that is not of this crate.
    ///
    /// ```
    /// use fulgurite_metrics::MetricError;
    ///
    /// let error = MetricError::other("Bleu", "the tokenizer is missing; give one with `.tokenizer(...)`");
    /// assert_eq!(error.to_string(), "`Bleu`: the tokenizer is missing; give one with `.tokenizer(...)`");
    /// ```
    pub fn other(
        metric: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> MetricError {
        MetricError::Other { metric: metric.into(), source: readable_error(source.into()) }
    }

    pub(crate) fn shape(
        metric: &'static str,
        preds: &Tensor,
        target: &Tensor,
        expected: impl Into<String>,
    ) -> MetricError {
        MetricError::Shape { metric, preds: preds.size(), target: target.size(), expected: expected.into() }
    }

    pub(crate) fn argument(metric: &'static str, message: impl Into<String>) -> MetricError {
        MetricError::Argument { metric, message: message.into() }
    }

    pub(crate) fn require_float(metric: &'static str, input: &'static str, tensor: &Tensor) -> Result<(), MetricError> {
        if is_float(tensor) {
            return Ok(());
        }
        Err(MetricError::Kind { metric, input, found: tensor.kind(), expected: "floating point scores" })
    }

    pub(crate) fn require_labels(
        metric: &'static str,
        input: &'static str,
        tensor: &Tensor,
    ) -> Result<(), MetricError> {
        match tensor.kind() {
            Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64 | Kind::Bool => Ok(()),
            found => Err(MetricError::Kind { metric, input, found, expected: "integer labels" }),
        }
    }
}

/// Whether it holds scores rather than labels.
pub(crate) fn is_float(tensor: &Tensor) -> bool {
    matches!(tensor.kind(), Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double)
}
