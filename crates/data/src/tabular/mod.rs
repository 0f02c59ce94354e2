//! What makes columns of a table, or series, fit for a model. Each part is fitted on the training part alone and then
//! applied to everything, and goes into hyper-parameters or a checkpoint as a [`Dict`](fulgurite_torch::Dict), because the
//! model is of no use without it.
//!
//! | what | type |
//! |---|---|
//! | missing values, which are NaN | [`SimpleImputer`], or [`CsvTable::drop_missing`](crate::datasets::CsvTable::drop_missing) |
//! | numbers on one scale | [`StandardScaler`], [`MinMaxScaler`] |
//! | categories as indices | [`OrdinalEncoder`] |
//!
//! Names and numbers are scikit-learn's. Features are the last dimension of a tensor: `[rows, features]` of a table,
//! `[steps, features]` or `[series, steps, features]` of series. A tensor of one dimension is one feature.
//!
//! ```
//! use fulgurite_data::tabular::{Impute, SimpleImputer, StandardScaler};
//! use fulgurite_data::torch::Dict;
//! use fulgurite_data::torch::tch::Tensor;
//!
//! let table = Tensor::from_slice(&[1.0f32, 10.0, 3.0, f32::NAN, 5.0, 30.0]).view([3, 2]);
//! let train = table.narrow(0, 0, 2);
//! let imputer = SimpleImputer::fit(&train, Impute::Mean)?;
//! let scaler = StandardScaler::fit(&imputer.transform(&train)?)?;
//! let scaled = scaler.transform(&imputer.transform(&table)?)?;
//! assert_eq!(scaled, Tensor::from_slice(&[-1.0f32, 0.0, 1.0, 0.0, 3.0, 20.0]).view([3, 2]));
//!
//! let hparams = Dict::new().with("scaler", scaler.to_dict());
//! let loaded = StandardScaler::from_dict(hparams.dict("scaler").unwrap())?;
//! assert_eq!(loaded, scaler);
//! # Ok::<(), fulgurite_data::DataError>(())
//! ```

mod encoder;
mod features;
mod imputer;
mod scaler;

pub use encoder::{OrdinalEncoder, Unknown};
pub use imputer::{Impute, SimpleImputer};
pub use scaler::{MinMaxScaler, StandardScaler};
