//! Columns of Parquet files: what they hold, and reading them.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use fulgurite_torch::catch_panic;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::files::unusable;
use crate::{BoxError, DataError};

/// A column with numbers, text or bytes; a leaf of the schema.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What a column holds.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    physical: Type,
    logical: Option<LogicalType>,
    converted: ConvertedType,
    /// How many lists are in each other.
    lists: i16,
}

impl Column {
    /// The columns of a schema, in order.
    pub(super) fn all(schema: &SchemaDescriptor) -> Vec<Column> {
        schema.columns().iter().map(|column| Column::of(column)).collect()
    }

    fn of(column: &ColumnDescriptor) -> Column {
        Column {
            name: name(column),
            kind: Kind {
                physical: column.physical_type(),
                logical: column.logical_type_ref().cloned(),
                converted: column.converted_type(),
                lists: column.max_rep_level(),
            },
        }
    }
}

/// The path of a column, without the two names that a list adds to it.
fn name(column: &ColumnDescriptor) -> String {
    let parts = column.path().parts();
    let is_list = column.max_rep_level() == 1 && parts.len() > 2;
    let adds = is_list && matches!(parts[parts.len() - 2].as_str(), "list" | "bag" | "array");
    parts[..parts.len() - if adds { 2 } else { 0 }].join(".")
}

impl Kind {
    /// Whether its values can be read.
    pub(super) fn is_readable(&self) -> bool {
        let is_decimal =
            matches!(self.logical, Some(LogicalType::Decimal(_))) || self.converted == ConvertedType::DECIMAL;
        self.lists <= 1 && !is_decimal && !matches!(self.physical, Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY)
    }

    /// Whether values mean the same; older writers say less of them.
    pub(super) fn is_same(&self, other: &Kind) -> bool {
        let Kind { physical, logical, converted, lists } = self;
        (*physical, *lists) == (other.physical, other.lists)
            && (*logical == other.logical || *converted == other.converted)
    }

    fn is_unsigned(&self) -> bool {
        use ConvertedType::{UINT_8, UINT_16, UINT_32, UINT_64};
        matches!(&self.logical, Some(LogicalType::Integer(integer)) if !integer.is_signed)
            || matches!(self.converted, UINT_8 | UINT_16 | UINT_32 | UINT_64)
    }
}

/// As in `a list of INT64` or `BYTE_ARRAY (String)`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.lists).try_for_each(|_| f.write_str("a list of "))?;
        write!(f, "{:?}", self.physical)?;
        match (&self.logical, self.converted) {
            (Some(logical), _) => write!(f, " ({logical:?})"),
            (None, ConvertedType::NONE) => Ok(()),
            (None, converted) => write!(f, " ({converted:?})"),
        }
    }
}

/// Some rows of a row group, column by column.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) path: Arc<Path>,
    /// The row group, and the number in it of the first row.
    pub(super) group: usize,
    pub(super) first: usize,
    pub(super) len: usize,
    pub(super) columns: Vec<(Column, Cells)>,
}

/// The cells of a column.
#[derive(Debug)]
pub(super) struct Cells {
    /// The values of all cells that are not null.
    pub(super) values: Values,
    /// Where the values of each row end.
    pub(super) ends: Vec<usize>,
    pub(super) is_null: Vec<bool>,
}

/// Values in the order of their rows.
#[derive(Debug)]
pub(super) enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
}

/// The chosen columns of a row group.
pub(super) struct GroupReader {
    path: Arc<Path>,
    group: usize,
    columns: Vec<(Column, ColumnReader, Levels)>,
}

/// The definition levels of a column: how much of the path to a value is there.
#[derive(Clone, Copy)]
struct Levels {
    /// That of a value.
    value: i16,
    /// That of an element of a list.
    element: i16,
    is_list: bool,
}

impl GroupReader {
    /// From row `first` of the row group on.
    pub(super) fn open(
        file: &SerializedFileReader<File>,
        path: &Path,
        group: usize,
        columns: &[Column],
        first: usize,
    ) -> Result<GroupReader, DataError> {
        let failed =
            |name: &str, error: ParquetError| unusable(path, format!("its column `{name}` cannot be read: {error}"));
        let schema = file.metadata().file_metadata().schema_descr();
        let reader = file.get_row_group(group).map_err(|error| unusable(path, error.to_string()))?;
        let mut readers = Vec::with_capacity(columns.len());
        for column in columns {
            let at = schema.columns().iter().position(|other| name(other) == column.name);
            let at = at.ok_or_else(|| unusable(path, format!("its column `{}` is no longer there", column.name)))?;
            let descriptor = schema.column(at);
            if !Column::of(&descriptor).kind.is_same(&column.kind) {
                return Err(unusable(path, format!("its column `{}` has another type than before", column.name)));
            }
            let levels = Levels {
                value: descriptor.max_def_level(),
                element: descriptor.repeated_ancestor_def_level(),
                is_list: descriptor.max_rep_level() > 0,
            };
            let mut cells = reader.get_column_reader(at).map_err(|error| failed(&column.name, error))?;
            skip(&mut cells, first).map_err(|error| failed(&column.name, error))?;
            readers.push((column.clone(), cells, levels));
        }
        Ok(GroupReader { path: path.into(), group, columns: readers })
    }

    /// The next `count` rows, of which the first is row `first` of the group.
    pub(super) fn read(&mut self, first: usize, count: usize) -> Result<Chunk, BoxError> {
        let GroupReader { path, group, columns } = self;
        let mut read = Vec::with_capacity(columns.len());
        for (column, reader, levels) in columns {
            let failed = |message: String| {
                let name = &column.name;
                unusable(path, format!("column `{name}` of row group {group}, from row {first} on: {message}"))
            };
            // The crate panics at some of what can be wrong with a file.
            let cells = catch_panic(|| cells(reader, *levels, count, column.kind.is_unsigned()));
            let cells = cells.unwrap_or_else(Err).map_err(failed)?;
            if cells.ends.len() != count {
                return Err(failed(format!("there are only {} rows of {count}", cells.ends.len())).into());
            }
            read.push((column.clone(), cells));
        }
        Ok(Chunk { path: path.clone(), group: *group, first, len: count, columns: read })
    }
}

macro_rules! each_reader {
    ($reader:expr, $inner:ident => $do:expr) => {
        match $reader {
            ColumnReader::BoolColumnReader($inner) => $do,
            ColumnReader::Int32ColumnReader($inner) => $do,
            ColumnReader::Int64ColumnReader($inner) => $do,
            ColumnReader::Int96ColumnReader($inner) => $do,
            ColumnReader::FloatColumnReader($inner) => $do,
            ColumnReader::DoubleColumnReader($inner) => $do,
            ColumnReader::ByteArrayColumnReader($inner) => $do,
            ColumnReader::FixedLenByteArrayColumnReader($inner) => $do,
        }
    };
}

fn skip(reader: &mut ColumnReader, rows: usize) -> Result<(), ParquetError> {
    match each_reader!(reader, inner => inner.skip_records(rows))? {
        skipped if skipped == rows => Ok(()),
        skipped => Err(ParquetError::General(format!("it has {skipped} rows, and {rows} were to be skipped"))),
    }
}

fn cells(reader: &mut ColumnReader, levels: Levels, count: usize, unsigned: bool) -> Result<Cells, String> {
    let (values, rows) = match reader {
        ColumnReader::BoolColumnReader(reader) => of(reader, levels, count, Values::Bool)?,
        ColumnReader::Int32ColumnReader(reader) => {
            let wide = |value: i32| if unsigned { i64::from(value as u32) } else { i64::from(value) };
            of(reader, levels, count, |values| Values::Int(values.into_iter().map(wide).collect()))?
        }
        ColumnReader::Int64ColumnReader(reader) => of(reader, levels, count, Values::Int)?,
        ColumnReader::FloatColumnReader(reader) => of(reader, levels, count, Values::Float)?,
        ColumnReader::DoubleColumnReader(reader) => of(reader, levels, count, Values::Double)?,
        ColumnReader::ByteArrayColumnReader(reader) => of(reader, levels, count, Values::Bytes)?,
        ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => {
            return Err("its type is not read".into());
        }
    };
    if let Values::Int(values) = &values
        && unsigned
        && values.iter().any(|&value| value < 0)
    {
        return Err("an unsigned number has no room in 64 bits with a sign".into());
    }
    let (ends, is_null) = rows;
    Ok(Cells { values, ends, is_null })
}

/// Where the values of each row end, and which rows are null.
type RowEnds = (Vec<usize>, Vec<bool>);

fn of<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    levels: Levels,
    count: usize,
    values_of: impl FnOnce(Vec<T::T>) -> Values,
) -> Result<(Values, RowEnds), String> {
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    let read = reader.read_records(count, Some(&mut definitions), Some(&mut repetitions), &mut values);
    let (records, values_read, levels_read) = read.map_err(|error| error.to_string())?;
    values.truncate(values_read);
    if !levels.is_list {
        // A column without nulls has no levels.
        let is_null: Vec<bool> = match levels.value {
            0 => vec![false; records],
            value => definitions.iter().take(levels_read).map(|&level| level < value).collect(),
        };
        let ends = is_null.iter().scan(0, |end, is_null| {
            *end += usize::from(!is_null);
            Some(*end)
        });
        return Ok((values_of(values), (ends.collect(), is_null)));
    }
    let (mut ends, mut is_null) = (Vec::with_capacity(records), Vec::with_capacity(records));
    let mut end = 0;
    for (&definition, &repetition) in definitions.iter().zip(&repetitions) {
        if repetition == 0 {
            ends.push(end);
            // One level below an element is an empty list, further below there is none.
            is_null.push(definition + 1 < levels.element);
        }
        if definition == levels.value {
            end += 1;
        } else if definition >= levels.element {
            return Err(format!("row {} of these has a null within a list, which tensors do not have", ends.len() - 1));
        }
        if let Some(last) = ends.last_mut() {
            *last = end;
        }
    }
    Ok((values_of(values), (ends, is_null)))
}
