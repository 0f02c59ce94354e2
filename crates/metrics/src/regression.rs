//! Mean squared and absolute error, and R².

use fulgurite_torch::tch::{Device, Kind, Tensor};

use crate::state::accumulator;
use crate::{Definition, Field, Handle, MetricError, Reduction, Supervised};

/// The mean squared error, or its root, of predictions of the target's shape.
///
/// ```
/// use fulgurite_metrics::MeanSquaredError;
/// use fulgurite_torch::tch::Tensor;
///
/// let rmse = MeanSquaredError::new().squared(false);
/// rmse.update(&Tensor::from_slice(&[2.5, 5.0, 4.0, 8.0]), &Tensor::from_slice(&[3.0, 5.0, 2.5, 7.0]))?;
/// assert!((rmse.compute()?.double_value(&[]) - 0.875f64.sqrt()).abs() < 1e-6);
/// # Ok::<(), fulgurite_metrics::MetricError>(())
/// ```
pub type MeanSquaredError = Handle<Errors<Squared>>;

/// The mean absolute error of predictions of the target's shape.
pub type MeanAbsoluteError = Handle<Errors<Absolute>>;

/// The coefficient of determination, R²: `1 - rss / tss`, of inputs of shape `(N)` or `(N, outputs)`.
///
/// An output whose target hardly varies (`tss` within 1e-4 of 0) scores 1 if it is met as closely, else 0.
pub type R2Score = Handle<R2>;

/// The [`Definition`] of [`MeanSquaredError`] and [`MeanAbsoluteError`].
#[derive(Debug, Clone)]
pub struct Errors<E> {
    num_outputs: i64,
    error: E,
}

/// How a difference counts.
pub trait ErrorKind: Clone + Default + Send + 'static {
    /// The metric's name.
    const NAME: &'static str;
    /// Its state.
    const FIELDS: &'static [Field];

    /// What each difference counts.
    fn of(&self, difference: &Tensor) -> Result<Tensor, MetricError>;

    /// The value, given the mean of what the differences count.
    fn value(&self, mean: Tensor) -> Result<Tensor, MetricError> {
        Ok(mean)
    }
}

/// A difference counts its square; of [`MeanSquaredError`].
#[derive(Debug, Clone, Default)]
pub struct Squared {
    root: bool,
}

/// A difference counts its absolute value; of [`MeanAbsoluteError`].
#[derive(Debug, Clone, Default)]
pub struct Absolute;

impl ErrorKind for Squared {
    const NAME: &'static str = "MeanSquaredError";
    const FIELDS: &'static [Field] =
        &[Field::new("sum_squared_error", Reduction::Sum), Field::new("total", Reduction::Sum)];

    fn of(&self, difference: &Tensor) -> Result<Tensor, MetricError> {
        Ok(difference.f_mul(difference)?)
    }

    fn value(&self, mean: Tensor) -> Result<Tensor, MetricError> {
        if self.root { Ok(mean.f_sqrt()?) } else { Ok(mean) }
    }
}

impl ErrorKind for Absolute {
    const NAME: &'static str = "MeanAbsoluteError";
    const FIELDS: &'static [Field] =
        &[Field::new("sum_abs_error", Reduction::Sum), Field::new("total", Reduction::Sum)];

    fn of(&self, difference: &Tensor) -> Result<Tensor, MetricError> {
        Ok(difference.f_abs()?)
    }
}

impl MeanSquaredError {
    /// Whether the value is the mean squared error (the default), or its root.
    pub fn squared(self, squared: bool) -> Self {
        self.set(|errors| errors.error.root = !squared)
    }
}

impl<E: ErrorKind> Default for Errors<E> {
    fn default() -> Self {
        Errors { num_outputs: 1, error: E::default() }
    }
}

impl<E: ErrorKind> Handle<Errors<E>> {
    /// One mean over all elements.
    pub fn new() -> Self {
        Self::default()
    }

    /// A mean for each of `num_outputs` columns: inputs are `(N, num_outputs)`, the value is `(num_outputs)`.
    pub fn num_outputs(self, num_outputs: i64) -> Self {
        self.set(|errors| errors.num_outputs = num_outputs)
    }
}

impl<E: ErrorKind> Supervised for Errors<E> {}

impl<E: ErrorKind> Definition for Errors<E> {
    type Input<'a> = (&'a Tensor, &'a Tensor);

    fn name(&self) -> &'static str {
        E::NAME
    }

    fn fields(&self) -> &'static [Field] {
        E::FIELDS
    }

    fn batch(&self, (preds, target): (&Tensor, &Tensor)) -> Result<Vec<Tensor>, MetricError> {
        let outputs = self.num_outputs;
        if outputs < 1 {
            let message = format!("num_outputs is {outputs}; it must be at least 1");
            return Err(MetricError::Argument { metric: E::NAME, message });
        }
        let size = preds.size();
        if size != target.size() {
            return Err(MetricError::shape(E::NAME, preds, target, "the same shape"));
        }
        if outputs > 1 && (size.len() != 2 || size[1] != outputs) {
            return Err(MetricError::shape(E::NAME, preds, target, format!("(N, {outputs}) for {outputs} outputs")));
        }
        let kind = accumulator(preds.device());
        let counts = self.error.of(&preds.f_to_kind(kind)?.f_sub(target)?)?;
        let (sum, total) = if outputs == 1 {
            (counts.f_sum(kind)?, counts.numel() as i64)
        } else {
            (counts.f_sum_dim_intlist(0i64, false, kind)?, size[0])
        };
        // What the host knows stays there: it combines with tensors of any device.
        Ok(vec![sum, Tensor::from(total)])
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        Ok(self.error.value(state[0].f_div(&state[1])?)?.f_to_kind(Kind::Float)?)
    }

    fn initial(&self) -> Result<Option<Vec<Tensor>>, MetricError> {
        let sum = if self.num_outputs > 1 {
            Tensor::f_zeros(self.num_outputs, (Kind::Double, Device::Cpu))?
        } else {
            Tensor::from(0.0)
        };
        Ok(Some(vec![sum, Tensor::from(0i64)]))
    }
}

/// How the scores of several outputs are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Multioutput {
    /// Their mean. The default.
    #[default]
    UniformAverage,
    /// One score per output.
    RawValues,
    /// Their mean, weighted by the variance of the target.
    VarianceWeighted,
}

/// The [`Definition`] of [`R2Score`].
#[derive(Debug, Clone, Default)]
pub struct R2 {
    adjusted: i64,
    multioutput: Multioutput,
}

impl R2Score {
    /// R², not adjusted, averaged over the outputs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adjusts for this number of independent regressors; 0, the default, does not. With too few samples for it the
    /// value is not adjusted, and `compute` warns.
    pub fn adjusted(self, regressors: i64) -> Self {
        self.set(|r2| r2.adjusted = regressors)
    }

    /// How the scores of several outputs are averaged.
    pub fn multioutput(self, multioutput: Multioutput) -> Self {
        self.set(|r2| r2.multioutput = multioutput)
    }
}

impl Supervised for R2 {}

impl Definition for R2 {
    type Input<'a> = (&'a Tensor, &'a Tensor);

    fn name(&self) -> &'static str {
        "R2Score"
    }

    fn fields(&self) -> &'static [Field] {
        const {
            &[
                Field::new("sum_squared_error", Reduction::Sum),
                Field::new("sum_error", Reduction::Sum),
                Field::new("residual", Reduction::Sum),
                Field::new("total", Reduction::Sum),
            ]
        }
    }

    fn batch(&self, (preds, target): (&Tensor, &Tensor)) -> Result<Vec<Tensor>, MetricError> {
        if self.adjusted < 0 {
            let message = format!("adjusted is {}; it must be a number of regressors, or 0", self.adjusted);
            return Err(MetricError::Argument { metric: "R2Score", message });
        }
        let size = preds.size();
        if size != target.size() || size.is_empty() || size.len() > 2 {
            return Err(MetricError::shape("R2Score", preds, target, "the same shape, (N) or (N, outputs)"));
        }
        let kind = accumulator(target.device());
        let target = target.f_to_kind(kind)?;
        let residual = target.f_sub(preds)?;
        let sum = |x: &Tensor| x.f_sum_dim_intlist(0i64, false, kind);
        Ok(vec![sum(&target.f_mul(&target)?)?, sum(&target)?, sum(&residual.f_mul(&residual)?)?, Tensor::from(size[0])])
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        const NEAR_ZERO: f64 = 1e-4;
        let [sum_squared, sum, rss, total] = state else {
            return Err(MetricError::NothingAccumulated { metric: "R2Score" });
        };
        let samples = total.f_int64_value(&[])?;
        if samples < 2 {
            let message = format!("it needs at least two samples, and has {samples}");
            return Err(MetricError::Value { metric: "R2Score", message });
        }
        let tss = sum_squared.f_sub(&sum.f_mul(&sum.f_div_scalar(samples)?)?)?;
        let near_zero = |x: &Tensor| x.f_abs()?.f_le(NEAR_ZERO);
        let score = rss.f_div(&tss)?.f_neg()?.f_add_scalar(1.0)?;
        let score = score.f_masked_fill(&near_zero(&tss)?, 0.0)?.f_masked_fill(&near_zero(rss)?, 1.0)?;
        let score = match self.multioutput {
            Multioutput::RawValues => score,
            Multioutput::UniformAverage => score.f_mean(score.kind())?,
            Multioutput::VarianceWeighted => tss.f_div(&tss.f_sum(tss.kind())?)?.f_mul(&score)?.f_sum(score.kind())?,
        };
        let freedom = samples - self.adjusted - 1;
        let score = if self.adjusted == 0 {
            score
        } else if freedom <= 0 {
            tracing::warn!("`R2Score` is not adjusted: {} regressors need more than {samples} samples", self.adjusted);
            score
        } else {
            let unexplained = score.f_neg()?.f_add_scalar(1.0)?;
            unexplained.f_mul_scalar((samples - 1) as f64 / freedom as f64)?.f_neg()?.f_add_scalar(1.0)?
        };
        Ok(score.f_to_kind(Kind::Float)?)
    }

    fn initial(&self) -> Result<Option<Vec<Tensor>>, MetricError> {
        Ok(Some(vec![Tensor::from(0.0), Tensor::from(0.0), Tensor::from(0.0), Tensor::from(0i64)]))
    }
}
