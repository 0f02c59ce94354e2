//! [`LogValue`]: values that can be logged.

use fulgurite_torch::tch::Tensor;

use crate::Metric;

/// A value that can be logged: a number, a tensor of one element, or a metric.
///
/// Tensors and metrics can be borrowed, so logging them copies nothing:
///
/// ```
/// use fulgurite_metrics::{LogValue, MeanMetric};
/// use fulgurite_torch::tch::Tensor;
///
/// let (loss, mean) = (Tensor::from(0.5), MeanMetric::new());
/// assert!(matches!(LogValue::from(&loss), LogValue::Tensor(_)));
/// assert!(matches!(LogValue::from(&mean), LogValue::Metric(_)));
/// assert!(matches!(LogValue::from(3), LogValue::Number(3.0)));
/// ```
pub enum LogValue<'a> {
    /// A number of the host.
    Number(f64),
    /// A tensor of one element, on any device.
    Tensor(&'a Tensor),
    /// A tensor of one element, by value.
    Owned(Tensor),
    /// A metric, computed and reset at the end of the epoch.
    Metric(&'a dyn Metric),
}

impl<'a> From<&'a Tensor> for LogValue<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        LogValue::Tensor(tensor)
    }
}

impl From<Tensor> for LogValue<'_> {
    fn from(tensor: Tensor) -> Self {
        LogValue::Owned(tensor)
    }
}

impl<'a, M: Metric> From<&'a M> for LogValue<'a> {
    fn from(metric: &'a M) -> Self {
        LogValue::Metric(metric)
    }
}

impl<'a> From<&'a dyn Metric> for LogValue<'a> {
    fn from(metric: &'a dyn Metric) -> Self {
        LogValue::Metric(metric)
    }
}

macro_rules! from_number {
    ($($number:ty),*) => {
        $(impl From<$number> for LogValue<'_> {
            fn from(number: $number) -> Self {
                LogValue::Number(number as f64)
            }
        })*
    };
}

from_number!(f32, f64, i32, i64, u32, u64, usize);
