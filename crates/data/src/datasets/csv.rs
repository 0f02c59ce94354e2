//! [`CsvTable`]: numbers and classes from a CSV file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use csv::{ErrorKind, ReaderBuilder, StringRecord};
use fulgurite_torch::tch::Tensor;
use time::format_description::{self, BorrowedFormatItem};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};

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
///
/// Missing values are empty, or `NA`, `N/A`, `n/a`, `NaN`, `nan`, `NULL`, `null` or `None`
/// ([`missing_values`](CsvTable::missing_values) sets others). They are errors, until rows with them are
/// [dropped](CsvTable::drop_missing), or read as NaN ([`numbers_or_nan`](CsvTable::numbers_or_nan)) and replaced by a
/// [`SimpleImputer`](crate::tabular::SimpleImputer).
#[derive(Debug, Clone)]
pub struct CsvTable {
    path: PathBuf,
    columns: Vec<String>,
    /// Where a name comes first among `columns`.
    places: HashMap<String, usize>,
    rows: Vec<StringRecord>,
    missing: HashSet<String>,
}

/// What a missing value is written as.
const MISSING: [&str; 9] = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None"];

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
        let missing = MISSING.map(String::from).into();
        Ok(CsvTable { path: path.to_path_buf(), columns, places, rows, missing })
    }

    /// Sets what a missing value is written as, such as `-999`.
    pub fn missing_values<S: Into<String>>(mut self, texts: impl IntoIterator<Item = S>) -> CsvTable {
        self.missing = texts.into_iter().map(Into::into).collect();
        self
    }

    /// Leaves out the rows in which a value of these columns is missing.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column, or if no row is left.
    pub fn drop_missing<S: AsRef<str>>(mut self, columns: &[S]) -> Result<CsvTable, DataError> {
        let at = self.columns_at(columns)?;
        let CsvTable { rows, missing, .. } = &mut self;
        rows.retain(|row| !at.iter().any(|&column| missing.contains(&row[column])));
        if self.rows.is_empty() {
            let names: Vec<&str> = columns.iter().map(AsRef::as_ref).collect();
            return Err(unusable(&self.path, format!("every row misses a value of the columns {}", names.join(", "))));
        }
        Ok(self)
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
    ///
    /// # Errors
    ///
    /// Fails at a value that is missing or no number, and names the file, line, column and value.
    pub fn numbers<S: AsRef<str>>(&self, columns: &[S]) -> Result<Tensor, DataError> {
        self.parsed(columns, |place, text| {
            Err(format!(
                "`{text}` in {place}, is a missing value; leave out its row with drop_missing, or read it as NaN with \
                 numbers_or_nan"
            ))
        })
    }

    /// The numbers of some columns, `f32` `[rows, columns]`, and NaN where one is missing.
    ///
    /// # Errors
    ///
    /// Fails at a value that is no number, and names the file, line, column and value.
    pub fn numbers_or_nan<S: AsRef<str>>(&self, columns: &[S]) -> Result<Tensor, DataError> {
        self.parsed(columns, |_, _| Ok(f32::NAN))
    }

    fn parsed<S: AsRef<str>>(
        &self,
        columns: &[S],
        missing: impl Fn(String, &str) -> Result<f32, String>,
    ) -> Result<Tensor, DataError> {
        let at = self.columns_at(columns)?;
        let mut numbers = Vec::with_capacity(self.rows.len() * at.len());
        for row in &self.rows {
            for &column in &at {
                let text = &row[column];
                let number = if self.missing.contains(text) {
                    missing(self.place(row, column), text)
                } else {
                    text.parse().map_err(|_| format!("`{text}` in {}, is not a number", self.place(row, column)))
                };
                numbers.push(number.map_err(|message| unusable(&self.path, message))?);
            }
        }
        self.tensor(&numbers).and_then(|tensor| {
            let size = [self.rows.len() as i64, at.len() as i64];
            tensor.f_view(size).map_err(|error| self.torch_error(error))
        })
    }

    /// The texts of a column, empty where one is missing: for an [`OrdinalEncoder`](crate::tabular::OrdinalEncoder).
    ///
    /// # Errors
    ///
    /// Fails if there is no such column.
    pub fn texts(&self, column: &str) -> Result<Vec<&str>, DataError> {
        let column = self.column(column)?;
        let texts = self.rows.iter().map(|row| &row[column]);
        Ok(texts.map(|text| if self.missing.contains(text) { "" } else { text }).collect())
    }

    /// The times of a column, `i64` `[rows]`, in seconds since 1970 (UTC). `format` is a
    /// [format description](https://time-rs.github.io/book/api/format-description.html) of a date, a date and time, or both
    /// with an offset from UTC, such as `[year]-[month]-[day] [hour]:[minute]:[second]`.
    ///
    /// # Errors
    ///
    /// Fails at a value that is none of the format, and names the file, line, column and value.
    pub fn timestamps(&self, column: &str, format: &str) -> Result<Tensor, DataError> {
        let at = self.column(column)?;
        let items = format_description::parse_borrowed::<2>(format)
            .map_err(|error| DataError::Setting(format!("`{format}` is not a format of times: {error}")))?;
        let seconds = |row: &StringRecord| {
            seconds(&row[at], &items).ok_or_else(|| {
                let place = self.place(row, at);
                unusable(&self.path, format!("`{}` in {place}, is not a time of the format `{format}`", &row[at]))
            })
        };
        self.tensor(&self.rows.iter().map(seconds).collect::<Result<Vec<i64>, _>>()?)
    }

    /// Where a value is, for messages.
    fn place(&self, row: &StringRecord, column: usize) -> String {
        let line = row.position().map_or(0, |position| position.line());
        format!("line {line}, column `{}`", self.columns[column])
    }

    fn columns_at<S: AsRef<str>>(&self, columns: &[S]) -> Result<Vec<usize>, DataError> {
        columns.iter().map(|name| self.column(name.as_ref())).collect()
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

/// A time in seconds since 1970; of a date its midnight, in UTC unless it says an offset.
fn seconds(text: &str, format: &[BorrowedFormatItem<'_>]) -> Option<i64> {
    let with_offset = OffsetDateTime::parse(text, format).ok();
    let with_time = || PrimitiveDateTime::parse(text, format).ok().map(PrimitiveDateTime::assume_utc);
    let date = || Date::parse(text, format).ok().map(|date| date.with_time(Time::MIDNIGHT).assume_utc());
    with_offset.or_else(with_time).or_else(date).map(OffsetDateTime::unix_timestamp)
}
