//! Metrics that accumulate over batches on the device of their inputs, with torchmetrics' names, defaults and values.
//!
//! A metric is a handle to what it accumulates. Clones share it, so a module can update one that the trainer computes
//! and resets at the end of the epoch:
//!
//! ```
//! use fulgurite_metrics::{Average, MulticlassAccuracy};
//! use fulgurite_torch::tch::{Device, Kind, Tensor};
//!
//! let acc = MulticlassAccuracy::new(10).top_k(1).average(Average::Micro);
//! let held_elsewhere = acc.clone();
//! for _ in 0..3 {
//!     let logits = Tensor::randn([8, 10], (Kind::Float, Device::Cpu));
//!     let target = logits.argmax(1, false);
//!     acc.update(&logits, &target)?;
//! }
//! assert_eq!(held_elsewhere.compute()?.double_value(&[]), 1.0);
//! # Ok::<(), fulgurite_metrics::MetricError>(())
//! ```
//!
//! Each is a [`Definition`] (what a batch adds, what the value is) in a [`Handle`] (which accumulates, shares, saves,
//! restores and merges). An update never waits for the device. So it checks shapes and kinds but no values, a setting
//! is checked with the first batch, and errors about values (such as NaN) are returned by `compute`.

mod aggregation;
mod classification;
mod collection;
mod error;
mod handle;
mod log_value;
mod metric;
mod perplexity;
mod regression;
mod state;

pub use aggregation::{
    Aggregate, Aggregator, Max, MaxMetric, Mean, MeanMetric, Min, MinMetric, NanStrategy, Sample, Sum, SumMetric,
};
pub use classification::*;
pub use collection::{MetricCollection, SupervisedMetric};
pub use error::MetricError;
pub use handle::{Definition, Handle, Supervised};
pub use log_value::LogValue;
pub use metric::Metric;
pub use perplexity::{LogLikelihood, Perplexity};
pub use regression::{
    Absolute, ErrorKind, Errors, MeanAbsoluteError, MeanSquaredError, Multioutput, R2, R2Score, Squared,
};
pub use state::{Field, Reduction};
