//! [`SimpleImputer`].

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use super::features::{Columns, features, in_double, numbers, row};
use crate::DataError;

/// What takes the place of a missing value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Impute {
    /// The mean of the feature.
    Mean,
    /// The median of the feature; of an even number of values the mean of the two in the middle.
    Median,
    /// The most frequent value of the feature (its mode); the smallest of several.
    MostFrequent,
    /// This number.
    Constant(f64),
}

/// Replaces missing values, which are NaN, by a value that each feature has in the training part; follows scikit-learn's
/// `SimpleImputer`.
///
/// ```
/// use fulgurite_data::tabular::{Impute, SimpleImputer};
/// use fulgurite_data::torch::tch::Tensor;
///
/// let train = Tensor::from_slice(&[1.0f32, 2.0, 9.0]);
/// let imputer = SimpleImputer::fit(&train, Impute::Median)?;
/// assert_eq!(imputer.transform(&Tensor::from_slice(&[f32::NAN, 5.0]))?, Tensor::from_slice(&[2.0f32, 5.0]));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SimpleImputer {
    values: Vec<f64>,
}

const WHO: &str = "a SimpleImputer";

impl SimpleImputer {
    /// Finds the value of each feature of `train`.
    ///
    /// # Errors
    ///
    /// Fails if a feature has no value, or one that is infinite.
    pub fn fit(train: &Tensor, impute: Impute) -> Result<SimpleImputer, DataError> {
        let values = match impute {
            Impute::Constant(value) => vec![value; features(train, WHO)?],
            Impute::Mean => Columns::of(train, WHO)?.map(|column| column.iter().sum::<f64>() / column.len() as f64),
            Impute::Median => Columns::of(train, WHO)?.map(|column| median(column)),
            Impute::MostFrequent => Columns::of(train, WHO)?.map(|column| most_frequent(column)),
        };
        Ok(SimpleImputer { values })
    }

    /// `data` with NaN replaced; integers become `f32`.
    ///
    /// # Errors
    ///
    /// Fails if `data` has another number of features.
    pub fn transform(&self, data: &Tensor) -> Result<Tensor, DataError> {
        let values = row(data, &self.values, WHO)?;
        in_double(data, WHO, |data| data.f_where_self(&data.f_isnan()?.f_logical_not()?, &values))
    }

    /// What replaces a missing value of each feature.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// As plain data, for hyper-parameters or a checkpoint.
    pub fn to_dict(&self) -> Dict {
        Dict::new().with("values", self.values.clone())
    }

    /// From what [`to_dict`](SimpleImputer::to_dict) returned.
    ///
    /// # Errors
    ///
    /// Fails if it is anything else.
    pub fn from_dict(dict: &Dict) -> Result<SimpleImputer, DataError> {
        Ok(SimpleImputer { values: numbers(dict, "values", WHO)? })
    }
}

fn median(column: &mut [f64]) -> f64 {
    column.sort_by(f64::total_cmp);
    let middle = column.len() / 2;
    if column.len().is_multiple_of(2) { (column[middle - 1] + column[middle]) / 2.0 } else { column[middle] }
}

fn most_frequent(column: &mut [f64]) -> f64 {
    column.sort_by(f64::total_cmp);
    let runs = column.chunk_by(|a, b| a == b);
    // The first of the longest runs: `max_by_key` would take the last.
    runs.rev().max_by_key(|run| run.len()).map_or(f64::NAN, |run| run[0])
}
