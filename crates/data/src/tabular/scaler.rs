//! [`StandardScaler`] and [`MinMaxScaler`].

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use super::features::{Columns, in_double, not_one, numbers, row};
use crate::DataError;

/// Scales each feature to mean 0 and variance 1 over what it was fitted on; follows scikit-learn's `StandardScaler`.
///
/// NaN (a missing value) is left out when fitting and stays. The variance is that of the population, divided by `n`; a
/// constant feature is only shifted.
///
/// ```
/// use fulgurite_data::tabular::StandardScaler;
/// use fulgurite_data::torch::tch::Tensor;
///
/// let train = Tensor::from_slice(&[1.0f32, 3.0]); // one feature
/// let scaler = StandardScaler::fit(&train)?;
/// let scaled = scaler.transform(&Tensor::from_slice(&[2.0f32, 5.0]))?;
/// assert_eq!(scaled, Tensor::from_slice(&[0.0f32, 3.0]));
/// assert_eq!(scaler.inverse_transform(&scaled)?, Tensor::from_slice(&[2.0f32, 5.0]));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StandardScaler {
    mean: Vec<f64>,
    std: Vec<f64>,
}

const STANDARD: &str = "a StandardScaler";

impl StandardScaler {
    /// Computes the mean and standard deviation of each feature of `train`.
    ///
    /// # Errors
    ///
    /// Fails if a feature has no value, or one that is infinite.
    pub fn fit(train: &Tensor) -> Result<StandardScaler, DataError> {
        let moments = Columns::of(train, STANDARD)?.0.into_iter().map(|column| {
            let mean = column.iter().sum::<f64>() / column.len() as f64;
            let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / column.len() as f64;
            // Rounding gives a constant feature a variance of this order, as in scikit-learn.
            let count = column.len() as f64;
            let rounding = count * f64::EPSILON * variance + (count * mean * f64::EPSILON).powi(2);
            (mean, if variance <= rounding { 1.0 } else { variance.sqrt() })
        });
        let (mean, std) = moments.unzip();
        Ok(StandardScaler { mean, std })
    }

    /// `(data - mean) / std`, of the kind of `data`; integers become `f32`.
    ///
    /// # Errors
    ///
    /// Fails if `data` has another number of features.
    pub fn transform(&self, data: &Tensor) -> Result<Tensor, DataError> {
        let (mean, std) = (row(data, &self.mean, STANDARD)?, row(data, &self.std, STANDARD)?);
        in_double(data, STANDARD, |data| data.f_sub(&mean)?.f_div(&std))
    }

    /// What [`transform`](StandardScaler::transform) was given, such as a prediction on the scale of the data.
    ///
    /// # Errors
    ///
    /// Fails if `data` has another number of features.
    pub fn inverse_transform(&self, data: &Tensor) -> Result<Tensor, DataError> {
        let (mean, std) = (row(data, &self.mean, STANDARD)?, row(data, &self.std, STANDARD)?);
        in_double(data, STANDARD, |data| data.f_mul(&std)?.f_add(&mean))
    }

    /// The mean of each feature.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// What each feature is divided by: its standard deviation, or 1 if it is constant.
    pub fn std(&self) -> &[f64] {
        &self.std
    }

    /// As plain data, for hyper-parameters or a checkpoint.
    pub fn to_dict(&self) -> Dict {
        Dict::new().with("mean", self.mean.clone()).with("std", self.std.clone())
    }

    /// From what [`to_dict`](StandardScaler::to_dict) returned.
    ///
    /// # Errors
    ///
    /// Fails if it is anything else.
    pub fn from_dict(dict: &Dict) -> Result<StandardScaler, DataError> {
        let (mean, std) = (numbers(dict, "mean", STANDARD)?, numbers(dict, "std", STANDARD)?);
        if mean.len() != std.len() || std.contains(&0.0) {
            return Err(not_one(STANDARD, "`mean` and `std` do not fit together"));
        }
        Ok(StandardScaler { mean, std })
    }
}

/// Scales each feature to a range, 0 to 1 by default, over what it was fitted on; follows scikit-learn's `MinMaxScaler`.
///
/// NaN (a missing value) is left out when fitting and stays. Values beyond those of the training part come to lie beyond the
/// range.
///
/// ```
/// use fulgurite_data::tabular::MinMaxScaler;
/// use fulgurite_data::torch::tch::Tensor;
///
/// let scaler = MinMaxScaler::fit(&Tensor::from_slice(&[2.0f32, 4.0, 6.0]))?;
/// let scaled = scaler.transform(&Tensor::from_slice(&[3.0f32, 8.0]))?;
/// assert_eq!(scaled, Tensor::from_slice(&[0.25f32, 1.5]));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MinMaxScaler {
    min: Vec<f64>,
    max: Vec<f64>,
    range: (f64, f64),
}

const MIN_MAX: &str = "a MinMaxScaler";

impl MinMaxScaler {
    /// Finds the smallest and largest value of each feature of `train`, which will be 0 and 1.
    ///
    /// # Errors
    ///
    /// Fails if a feature has no value, or one that is infinite.
    pub fn fit(train: &Tensor) -> Result<MinMaxScaler, DataError> {
        let extremes = Columns::of(train, MIN_MAX)?.0.into_iter().map(|column| {
            column.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), &x| (min.min(x), max.max(x)))
        });
        let (min, max) = extremes.unzip();
        Ok(MinMaxScaler { min, max, range: (0.0, 1.0) })
    }

    /// Scales to `low` and `high` instead of 0 and 1.
    ///
    /// # Errors
    ///
    /// Fails if `low` is not below `high`.
    pub fn feature_range(mut self, low: f64, high: f64) -> Result<MinMaxScaler, DataError> {
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(DataError::Setting(format!("feature_range({low}, {high}): the first is below the second")));
        }
        self.range = (low, high);
        Ok(self)
    }

    /// Scaled, of the kind of `data`; integers become `f32`.
    ///
    /// # Errors
    ///
    /// Fails if `data` has another number of features.
    pub fn transform(&self, data: &Tensor) -> Result<Tensor, DataError> {
        let (min, width) = (row(data, &self.min, MIN_MAX)?, row(data, &self.widths(), MIN_MAX)?);
        let (low, high) = self.range;
        in_double(data, MIN_MAX, |data| data.f_sub(&min)?.f_div(&width)?.f_mul_scalar(high - low)?.f_add_scalar(low))
    }

    /// What [`transform`](MinMaxScaler::transform) was given.
    ///
    /// # Errors
    ///
    /// Fails if `data` has another number of features.
    pub fn inverse_transform(&self, data: &Tensor) -> Result<Tensor, DataError> {
        let (min, width) = (row(data, &self.min, MIN_MAX)?, row(data, &self.widths(), MIN_MAX)?);
        let (low, high) = self.range;
        in_double(data, MIN_MAX, |data| data.f_sub_scalar(low)?.f_div_scalar(high - low)?.f_mul(&width)?.f_add(&min))
    }

    /// The width of each feature; 1 for a constant one.
    fn widths(&self) -> Vec<f64> {
        let width = |(min, max): (&f64, &f64)| if max > min { max - min } else { 1.0 };
        self.min.iter().zip(&self.max).map(width).collect()
    }

    /// As plain data, for hyper-parameters or a checkpoint.
    pub fn to_dict(&self) -> Dict {
        let (low, high) = self.range;
        Dict::new().with("min", self.min.clone()).with("max", self.max.clone()).with("range", vec![low, high])
    }

    /// From what [`to_dict`](MinMaxScaler::to_dict) returned.
    ///
    /// # Errors
    ///
    /// Fails if it is anything else.
    pub fn from_dict(dict: &Dict) -> Result<MinMaxScaler, DataError> {
        let (min, max) = (numbers(dict, "min", MIN_MAX)?, numbers(dict, "max", MIN_MAX)?);
        match numbers(dict, "range", MIN_MAX)?[..] {
            [low, high] if min.len() == max.len() => {
                MinMaxScaler { min, max, range: (0.0, 1.0) }.feature_range(low, high)
            }
            _ => Err(not_one(MIN_MAX, "`min`, `max` and `range` do not fit together")),
        }
    }
}
