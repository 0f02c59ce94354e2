//! [`ParquetRow`]: the values of a row.

use std::sync::Arc;

use fulgurite_torch::tch::Tensor;

use super::parquet_columns::{Cells, Chunk, Values};
use crate::BoxError;

/// A row of a [`ParquetDataset`](super::ParquetDataset). Its methods take the names of columns; their errors name the file,
/// the row and the column.
#[derive(Debug, Clone)]
pub struct ParquetRow {
    chunk: Arc<Chunk>,
    at: usize,
}

impl ParquetRow {
    pub(super) fn new(chunk: Arc<Chunk>, at: usize) -> ParquetRow {
        ParquetRow { chunk, at }
    }

    /// Whether a column has no value here.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column.
    pub fn is_null(&self, column: &str) -> Result<bool, BoxError> {
        Ok(self.cells(column)?.is_null[self.at])
    }

    /// A number, or a boolean as 0 or 1.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column, or if it is null or no number here.
    pub fn float(&self, column: &str) -> Result<f64, BoxError> {
        match self.value(column)? {
            (Values::Bool(values), at) => Ok(f64::from(u8::from(values[at]))),
            (Values::Int(values), at) => Ok(values[at] as f64),
            (Values::Float(values), at) => Ok(f64::from(values[at])),
            (Values::Double(values), at) => Ok(values[at]),
            (Values::Bytes(_), _) => Err(self.error(column, "it is no number")),
        }
    }

    /// A whole number, or a boolean as 0 or 1.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column, or if it is null or of another type.
    pub fn int(&self, column: &str) -> Result<i64, BoxError> {
        match self.value(column)? {
            (Values::Bool(values), at) => Ok(i64::from(values[at])),
            (Values::Int(values), at) => Ok(values[at]),
            _ => Err(self.error(column, "it is no whole number")),
        }
    }

    /// Bytes, such as an encoded image.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column, or if it is null or of another type.
    pub fn bytes(&self, column: &str) -> Result<&[u8], BoxError> {
        match self.value(column)? {
            (Values::Bytes(values), at) => Ok(values[at].data()),
            _ => Err(self.error(column, "it is neither text nor bytes")),
        }
    }

    /// Text.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column, or if it is null or no text in UTF-8.
    pub fn text(&self, column: &str) -> Result<&str, BoxError> {
        str::from_utf8(self.bytes(column)?).map_err(|_| self.error(column, "it is not text in UTF-8"))
    }

    /// A list of texts.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column, or if it is null or no list of texts in UTF-8.
    pub fn texts(&self, column: &str) -> Result<Vec<&str>, BoxError> {
        let (cells, range) = self.range(column)?;
        let Values::Bytes(values) = &cells.values else { return Err(self.error(column, "it is no text")) };
        let texts = values[range].iter().map(|value| str::from_utf8(value.data())).collect::<Result<_, _>>();
        texts.map_err(|_| self.error(column, "it is not text in UTF-8"))
    }

    /// The numbers of some columns, `f32` `[columns]`.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column, or if one is null or no number here.
    pub fn numbers<S: AsRef<str>>(&self, columns: &[S]) -> Result<Tensor, BoxError> {
        let number = |column: &S| Ok(self.float(column.as_ref())? as f32);
        let numbers = columns.iter().map(number).collect::<Result<Vec<f32>, BoxError>>()?;
        Ok(Tensor::f_from_slice(&numbers)?)
    }

    /// The numbers of some columns, `f32` `[columns]`, and NaN for null: for a
    /// [`SimpleImputer`](crate::tabular::SimpleImputer).
    ///
    /// # Errors
    ///
    /// Fails if there is no such column, or if one is no number here.
    pub fn numbers_or_nan<S: AsRef<str>>(&self, columns: &[S]) -> Result<Tensor, BoxError> {
        let number = |column: &S| {
            let column = column.as_ref();
            Ok(if self.is_null(column)? { f32::NAN } else { self.float(column)? as f32 })
        };
        let numbers = columns.iter().map(number).collect::<Result<Vec<f32>, BoxError>>()?;
        Ok(Tensor::f_from_slice(&numbers)?)
    }

    /// The numbers of a list, `[L]`, in the type of the column: `bool`, `i64`, `f32` or `f64`.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column, or if it is null here or has no numbers.
    pub fn tensor(&self, column: &str) -> Result<Tensor, BoxError> {
        let (cells, range) = self.range(column)?;
        Ok(match &cells.values {
            Values::Bool(values) => Tensor::f_from_slice(&values[range])?,
            Values::Int(values) => Tensor::f_from_slice(&values[range])?,
            Values::Float(values) => Tensor::f_from_slice(&values[range])?,
            Values::Double(values) => Tensor::f_from_slice(&values[range])?,
            Values::Bytes(_) => return Err(self.error(column, "it has no numbers")),
        })
    }

    fn cells(&self, name: &str) -> Result<&Cells, BoxError> {
        let found = self.chunk.columns.iter().find(|(column, _)| column.name == name);
        found.map(|(_, cells)| cells).ok_or_else(|| {
            let names: Vec<&str> = self.chunk.columns.iter().map(|(column, _)| column.name.as_str()).collect();
            self.error(name, &format!("there is no such column, or it is not read; there are: {}", names.join(", ")))
        })
    }

    /// The values of a column in this row.
    fn range(&self, column: &str) -> Result<(&Cells, std::ops::Range<usize>), BoxError> {
        let cells = self.cells(column)?;
        if cells.is_null[self.at] {
            return Err(self.error(column, "it is null"));
        }
        let start = if self.at == 0 { 0 } else { cells.ends[self.at - 1] };
        Ok((cells, start..cells.ends[self.at]))
    }

    /// The only value of a column in this row: the column's values, and the place among them.
    fn value(&self, column: &str) -> Result<(&Values, usize), BoxError> {
        let (cells, range) = self.range(column)?;
        match range.len() {
            1 => Ok((&cells.values, range.start)),
            count => Err(self.error(column, &format!("it is a list of {count} values; `tensor` reads it"))),
        }
    }

    fn error(&self, column: &str, message: &str) -> BoxError {
        let Chunk { path, group, first, .. } = &*self.chunk;
        format!("column `{column}` in row {} of row group {group} of {}: {message}", first + self.at, path.display())
            .into()
    }
}
