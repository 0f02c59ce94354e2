//! [`CsvTable`]: numbers and classes from a CSV file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use csv::{ErrorKind, ReaderBuilder, StringRecord};
use fulgurite_torch::tch::Tensor;

use super::files::{self, Content, unusable};
use crate::DataError;

/// A CSV file in memory, from which the columns wanted are taken as tensors.
///
/// ```no_run
/// use fulgurite_data::TensorDataset;
/// use fulgurite_data::datasets::CsvTable;
///
/// let table = CsvTable::read("iris.csv")?;
/// let features = table.numbers(&["sepal_length", "sepal_width"])?;
/// let (labels, names) = table.classes("species")?;
/// let dataset = TensorDataset::new((features, labels))?;
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CsvTable {
    path: PathBuf,
    columns: Vec<String>,
    /// Where a name comes first among `columns`.
    places: HashMap<String, usize>,
    rows: Vec<StringRecord>,
}

/// Names of columns in a message.
const SHOWN_COLUMNS: usize = 32;

impl CsvTable {
    /// Reads a file with commas between values and the names of the columns in the first line. A gzip file is unpacked.
    pub fn read(path: impl AsRef<Path>) -> Result<CsvTable, DataError> {
        CsvTable::read_delimited(path, b',', true)
    }

    /// Reads a file with `delimiter` between values. Without `has_headers`, the columns are called `0`, `1`, ….
    pub fn read_delimited(path: impl AsRef<Path>, delimiter: u8, has_headers: bool) -> Result<CsvTable, DataError> {
        let path = path.as_ref();
        let failed = |error: csv::Error| match error.into_kind() {
            ErrorKind::Io(error) => files::failed(path, error),
            ErrorKind::UnequalLengths { pos, expected_len, len } => {
                let line = pos.map_or(0, |pos| pos.line());
                unusable(path, format!("line {line} has {len} values, the lines before have {expected_len}"))
            }
            ErrorKind::Utf8 { pos, .. } => {
                let line = pos.map_or(0, |pos| pos.line());
                unusable(path, format!("line {line} is not text in UTF-8; save the file as UTF-8"))
            }
            other => unusable(path, format!("{other:?}")),
        };
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(has_headers)
            .trim(csv::Trim::All)
            .from_reader(Content::open(path)?);
        let header = if has_headers { Some(reader.headers().map_err(failed)?.clone()) } else { None };
        let rows = reader.records().collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let Some(first) = rows.first() else {
            return Err(unusable(path, "it has no rows"));
        };
        let columns: Vec<String> = match header {
            Some(header) => header.iter().map(String::from).collect(),
            None => (0..first.len()).map(|at| at.to_string()).collect(),
        };
        let places = columns.iter().enumerate().rev().map(|(at, name)| (name.clone(), at)).collect();
        Ok(CsvTable { path: path.to_path_buf(), columns, places, rows })
    }

    /// The names of the columns, in order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many rows there are, at least one.
    pub fn num_rows(&self) -> usize {
        self.rows.len()
    }

    /// The numbers of some columns, `f32` `[rows, columns]`.
    pub fn numbers<S: AsRef<str>>(&self, columns: &[S]) -> Result<Tensor, DataError> {
        let at = columns.iter().map(|name| self.column(name.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let mut numbers = Vec::with_capacity(self.rows.len() * at.len());
        for row in &self.rows {
            for &column in &at {
                let text = &row[column];
                numbers.push(text.parse::<f32>().map_err(|_| {
                    let line = row.position().map_or(0, |position| position.line());
                    let name = &self.columns[column];
                    unusable(&self.path, format!("`{text}` in line {line}, column `{name}`, is not a number"))
                })?);
            }
        }
        self.tensor(&numbers).and_then(|tensor| {
            let size = [self.rows.len() as i64, at.len() as i64];
            tensor.f_view(size).map_err(|error| self.torch_error(error))
        })
    }

    /// The classes of a column, `i64` `[rows]`, and their names: the different texts of the column, sorted.
    pub fn classes(&self, column: &str) -> Result<(Tensor, Vec<String>), DataError> {
        let column = self.column(column)?;
        let mut ids: BTreeMap<&str, i64> = self.rows.iter().map(|row| (&row[column], 0)).collect();
        ids.values_mut().zip(0..).for_each(|(id, number)| *id = number);
        let labels: Vec<i64> = self.rows.iter().map(|row| ids[&row[column]]).collect();
        Ok((self.tensor(&labels)?, ids.into_keys().map(String::from).collect()))
    }

    fn column(&self, name: &str) -> Result<usize, DataError> {
        self.places.get(name).copied().ok_or_else(|| {
            let shown = &self.columns[..self.columns.len().min(SHOWN_COLUMNS)];
            let others = match self.columns.len() - shown.len() {
                0 => String::new(),
                others => format!(" and {others} others"),
            };
            unusable(&self.path, format!("it has no column `{name}`; there are: {}{others}", shown.join(", ")))
        })
    }

    fn tensor<T: fulgurite_torch::tch::kind::Element>(&self, values: &[T]) -> Result<Tensor, DataError> {
        Tensor::f_from_slice(values).map_err(|error| self.torch_error(error))
    }

    fn torch_error(&self, error: fulgurite_torch::tch::TchError) -> DataError {
        DataError::Torch { doing: format!("making a tensor of {}", self.path.display()), source: error.into() }
    }
}
