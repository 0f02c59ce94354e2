//! Mean, sum, minimum and maximum of a stream of values.

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use crate::state::accumulator;
use crate::{Definition, Field, Handle, MetricError, Reduction};

/// The mean of the values, optionally weighted.
///
/// ```
/// use fulgurite_metrics::MeanMetric;
///
/// let mean = MeanMetric::new();
/// mean.update_weighted(2.0, 3.0)?;
/// mean.update(6.0)?;
/// assert_eq!(mean.compute()?.double_value(&[]), 3.0);
/// # Ok::<(), fulgurite_metrics::MetricError>(())
/// ```
///
/// torchmetrics ignores the weights when NaN checks are disabled; here they count.
pub type MeanMetric = Handle<Mean>;

/// The sum of the values.
pub type SumMetric = Handle<Aggregate<Sum>>;

/// The minimum of the values; infinity before the first.
pub type MinMetric = Handle<Aggregate<Min>>;

/// The maximum of the values; negative infinity before the first.
pub type MaxMetric = Handle<Aggregate<Max>>;

/// How an aggregator treats NaN.
///
/// To know whether there was one means to wait for the device, so updates only count them; the warning comes with
/// `compute`, the error with `compute` or `forward`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum NanStrategy {
    /// `compute` and `forward` fail if there was one.
    Error,
    /// They are ignored, and `compute` warns. The default.
    #[default]
    Warn,
    /// They are ignored.
    Ignore,
    /// They are kept.
    Disable,
    /// They are replaced by this value, with weight 1.
    Impute(f64),
}

/// The input of an aggregator: a number, or a tensor of any shape.
#[derive(Debug, Clone, Copy)]
pub enum Sample<'a> {
    /// A number.
    Number(f64),
    /// A tensor, every element of which is a value.
    Tensor(&'a Tensor),
}

impl<'a> From<&'a Tensor> for Sample<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Sample::Tensor(tensor)
    }
}

impl From<f32> for Sample<'_> {
    fn from(number: f32) -> Self {
        Sample::Number(number.into())
    }
}

impl From<f64> for Sample<'_> {
    fn from(number: f64) -> Self {
        Sample::Number(number)
    }
}

impl Sample<'_> {
    fn to_tensor(self) -> Result<Tensor, TchError> {
        match self {
            Sample::Number(x) => Tensor::f_full([0i64; 0], x, (Kind::Double, Device::Cpu)),
            Sample::Tensor(tensor) => tensor.f_to_kind(accumulator(tensor.device())),
        }
    }
}

/// The [`Definition`] of [`MeanMetric`].
#[derive(Debug, Clone, Default)]
pub struct Mean {
    nan_strategy: NanStrategy,
}

impl MeanMetric {
    /// An empty mean.
    pub fn new() -> Self {
        Self::default()
    }

    /// How NaN is treated, in the values and in the weights.
    pub fn nan_strategy(self, strategy: NanStrategy) -> Self {
        self.set(|mean| mean.nan_strategy = strategy)
    }

    /// Accumulates values, each with weight 1.
    pub fn update<'a>(&self, value: impl Into<Sample<'a>>) -> Result<(), MetricError> {
        self.update_with((value.into(), None))
    }

    /// Accumulates values with their weights, a number or a tensor that broadcasts to the shape of `value`.
    pub fn update_weighted<'a>(
        &self,
        value: impl Into<Sample<'a>>,
        weight: impl Into<Sample<'a>>,
    ) -> Result<(), MetricError> {
        self.update_with((value.into(), Some(weight.into())))
    }

    /// Accumulates values, each with weight 1, and returns their mean.
    pub fn forward<'a>(&self, value: impl Into<Sample<'a>>) -> Result<Tensor, MetricError> {
        self.forward_with((value.into(), None))
    }

    /// Accumulates values with their weights, and returns their weighted mean.
    pub fn forward_weighted<'a>(
        &self,
        value: impl Into<Sample<'a>>,
        weight: impl Into<Sample<'a>>,
    ) -> Result<Tensor, MetricError> {
        self.forward_with((value.into(), Some(weight.into())))
    }
}

impl Definition for Mean {
    type Input<'a> = (Sample<'a>, Option<Sample<'a>>);

    fn name(&self) -> &'static str {
        "MeanMetric"
    }

    fn fields(&self) -> &'static [Field] {
        const ALL: &[Field] = &[
            Field::new("mean_value", Reduction::Sum),
            Field::new("weight", Reduction::Sum),
            Field::new("nans", Reduction::Sum),
        ];
        if self.nan_strategy.counts() { ALL } else { &ALL[..2] }
    }

    fn batch(&self, (value, weight): (Sample<'_>, Option<Sample<'_>>)) -> Result<Vec<Tensor>, MetricError> {
        let value = value.to_tensor()?;
        let weight = match weight {
            Some(weight) => {
                let weight = weight.to_tensor()?.f_to_device(value.device())?;
                weight.f_broadcast_to(value.size()).map_err(|_| MetricError::Argument {
                    metric: "MeanMetric",
                    message: format!(
                        "a weight of shape {:?} does not broadcast to the value's shape {:?}; give one weight, or one \
                         for each value",
                        weight.size(),
                        value.size()
                    ),
                })?
            }
            None => value.f_ones_like()?,
        };
        let nan = value.f_isnan()?.f_logical_or(&weight.f_isnan()?)?;
        let (value, weight) = match self.nan_strategy {
            NanStrategy::Disable => (value, weight),
            NanStrategy::Impute(with) => (value.f_masked_fill(&nan, with)?, weight.f_masked_fill(&nan, 1.0)?),
            _ => (value.f_masked_fill(&nan, 0.0)?, weight.f_masked_fill(&nan, 0.0)?),
        };
        let mut state = vec![value.f_mul(&weight)?.f_sum(value.kind())?, weight.f_sum(value.kind())?];
        if self.nan_strategy.counts() {
            state.push(nan.f_sum(Kind::Int64)?);
        }
        Ok(state)
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        self.nan_strategy.refuse(self.name(), state.get(2))?;
        Ok(state[0].f_div(&state[1])?.f_to_kind(Kind::Float)?)
    }

    fn inspect(&self, state: &[Tensor]) -> Result<(), MetricError> {
        self.nan_strategy.warn(self.name(), state.get(2))
    }

    fn initial(&self) -> Result<Option<Vec<Tensor>>, MetricError> {
        Ok(Some((0..self.fields().len()).map(|_| Tensor::from(0.0)).collect()))
    }
}

/// The [`Definition`] of [`SumMetric`], [`MinMetric`] and [`MaxMetric`].
#[derive(Debug, Clone, Default)]
pub struct Aggregate<A> {
    nan_strategy: NanStrategy,
    aggregator: A,
}

/// Sum, minimum or maximum.
pub trait Aggregator: Clone + Default + Send + 'static {
    /// The metric's name.
    const NAME: &'static str;
    /// Its state.
    const FIELDS: &'static [Field];
    /// Its value for no values.
    const EMPTY: f64;

    /// One number for all elements of `values`, of which there is at least one.
    fn reduce(&self, values: &Tensor) -> Result<Tensor, TchError>;
}

/// The sum, of [`SumMetric`].
#[derive(Debug, Clone, Default)]
pub struct Sum;

/// The minimum, of [`MinMetric`].
#[derive(Debug, Clone, Default)]
pub struct Min;

/// The maximum, of [`MaxMetric`].
#[derive(Debug, Clone, Default)]
pub struct Max;

impl Aggregator for Sum {
    const NAME: &'static str = "SumMetric";
    const FIELDS: &'static [Field] = &[Field::new("sum_value", Reduction::Sum), Field::new("nans", Reduction::Sum)];
    const EMPTY: f64 = 0.0;

    fn reduce(&self, values: &Tensor) -> Result<Tensor, TchError> {
        values.f_sum(values.kind())
    }
}

impl Aggregator for Min {
    const NAME: &'static str = "MinMetric";
    const FIELDS: &'static [Field] = &[Field::new("min_value", Reduction::Min), Field::new("nans", Reduction::Sum)];
    const EMPTY: f64 = f64::INFINITY;

    fn reduce(&self, values: &Tensor) -> Result<Tensor, TchError> {
        values.f_min()
    }
}

impl Aggregator for Max {
    const NAME: &'static str = "MaxMetric";
    const FIELDS: &'static [Field] = &[Field::new("max_value", Reduction::Max), Field::new("nans", Reduction::Sum)];
    const EMPTY: f64 = f64::NEG_INFINITY;

    fn reduce(&self, values: &Tensor) -> Result<Tensor, TchError> {
        values.f_max()
    }
}

impl<A: Aggregator> Handle<Aggregate<A>> {
    /// An empty aggregate.
    pub fn new() -> Self {
        Self::default()
    }

    /// How NaN is treated.
    pub fn nan_strategy(self, strategy: NanStrategy) -> Self {
        self.set(|aggregate| aggregate.nan_strategy = strategy)
    }

    /// Accumulates values.
    pub fn update<'a>(&self, value: impl Into<Sample<'a>>) -> Result<(), MetricError> {
        self.update_with(value.into())
    }

    /// Accumulates values, and returns their own aggregate.
    pub fn forward<'a>(&self, value: impl Into<Sample<'a>>) -> Result<Tensor, MetricError> {
        self.forward_with(value.into())
    }
}

impl<A: Aggregator> Definition for Aggregate<A> {
    type Input<'a> = Sample<'a>;

    fn name(&self) -> &'static str {
        A::NAME
    }

    fn fields(&self) -> &'static [Field] {
        if self.nan_strategy.counts() { A::FIELDS } else { &A::FIELDS[..1] }
    }

    fn batch(&self, value: Sample<'_>) -> Result<Vec<Tensor>, MetricError> {
        let value = value.to_tensor()?;
        let nan = value.f_isnan()?;
        let value = match self.nan_strategy {
            NanStrategy::Disable => value,
            NanStrategy::Impute(with) => value.f_masked_fill(&nan, with)?,
            _ => value.f_masked_fill(&nan, A::EMPTY)?,
        };
        let aggregate = if value.numel() == 0 {
            Tensor::f_full([0i64; 0], A::EMPTY, (value.kind(), value.device()))?
        } else {
            self.aggregator.reduce(&value)?
        };
        let mut state = vec![aggregate];
        if self.nan_strategy.counts() {
            state.push(nan.f_sum(Kind::Int64)?);
        }
        Ok(state)
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        self.nan_strategy.refuse(A::NAME, state.get(1))?;
        Ok(state[0].f_to_kind(Kind::Float)?)
    }

    fn inspect(&self, state: &[Tensor]) -> Result<(), MetricError> {
        self.nan_strategy.warn(A::NAME, state.get(1))
    }

    fn initial(&self) -> Result<Option<Vec<Tensor>>, MetricError> {
        Ok(Some(vec![Tensor::from(A::EMPTY), Tensor::from(0i64)]))
    }
}

impl NanStrategy {
    fn counts(self) -> bool {
        matches!(self, NanStrategy::Error | NanStrategy::Warn)
    }

    fn refuse(self, metric: &'static str, nans: Option<&Tensor>) -> Result<(), MetricError> {
        match (self, nans) {
            (NanStrategy::Error, Some(nans)) if nans.f_int64_value(&[])? > 0 => Err(MetricError::Value {
                metric,
                message: format!(
                    "{} of the values given were NaN; find where they come from, or choose another `nan_strategy`",
                    nans.f_int64_value(&[])?
                ),
            }),
            _ => Ok(()),
        }
    }

    fn warn(self, metric: &'static str, nans: Option<&Tensor>) -> Result<(), MetricError> {
        if let (NanStrategy::Warn, Some(nans)) = (self, nans) {
            let nans = nans.f_int64_value(&[])?;
            if nans > 0 {
                tracing::warn!("`{metric}` left out {nans} values that were NaN");
            }
        }
        Ok(())
    }
}
