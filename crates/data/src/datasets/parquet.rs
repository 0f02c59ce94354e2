//! [`ParquetDataset`]: the rows of Parquet files.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fulgurite_torch::catch_panic;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::files::unusable;
use super::parquet_columns::{Chunk, Column, GroupReader};
use super::parquet_row::ParquetRow;
use super::shards::{checked, shard_paths};
use crate::{BoxError, DataError, ItemRng, IterableDataset, RecordIter, Remainder, Shard, seed};

/// The rows of one or several Parquet files with the same columns, as a stream: pandas, Arrow, Spark and Hugging Face write
/// them. Pages may be compressed by Snappy, Zstandard, gzip or LZ4.
///
/// Row groups are read one after the other, their columns as far as they are chosen. A resumed run goes to its row group by
/// the files' metadata, and skips pages within. Of several processes each reads as many rows, from a range of row groups of
/// its own: only the row groups at its ends are read by two processes, each its own rows.
///
/// ```no_run
/// use fulgurite_data::datasets::ParquetDataset;
/// use fulgurite_data::{IterableDataLoader, IterableDataset};
///
/// let rows = ParquetDataset::open("taxi/2024-{01..12}.parquet")?.columns(&["distance", "hour", "paid"])?.shuffle_groups(true);
/// let rows = rows.shuffle(10_000).try_map(|row, _| Ok((row.numbers(&["distance", "hour"])?, row.float("paid")? as f32)));
/// let loader = IterableDataLoader::new(rows).batch_size(256).num_workers(4);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
///
/// A column is named by its path, `image.bytes` for a field of a struct. It holds booleans, numbers, text, bytes, or lists of
/// those; of dates and times the integers that are stored. Others, such as decimals or lists of lists, can be in a file, and
/// are errors where they are chosen.
#[derive(Debug, Clone)]
pub struct ParquetDataset {
    files: Arc<[ParquetFile]>,
    columns: Arc<[Column]>,
    shuffle_groups: bool,
    part: Option<Shard>,
}

#[derive(Debug)]
struct ParquetFile {
    path: PathBuf,
    /// The rows of each row group.
    groups: Vec<usize>,
}

impl ParquetDataset {
    /// The files that a pattern names: `{000..015}` stands for numbers, `{a,b}` for alternatives, and `*` in the name of a file
    /// for anything. The metadata of all of them is read.
    ///
    /// # Errors
    ///
    /// Fails if the pattern cannot be read, names no file, or one that is no Parquet file, and if a column has different types
    /// in two of them, or is missing in one.
    pub fn open(pattern: &str) -> Result<ParquetDataset, DataError> {
        ParquetDataset::of(shard_paths(pattern)?)
    }

    /// Files at given paths, in this order.
    ///
    /// # Errors
    ///
    /// As those of [`open`](ParquetDataset::open).
    pub fn from_paths<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<ParquetDataset, DataError> {
        let paths = paths.into_iter().map(|path| path.as_ref().to_path_buf()).collect();
        ParquetDataset::of(checked(paths)?)
    }

    fn of(paths: Vec<PathBuf>) -> Result<ParquetDataset, DataError> {
        let mut files = Vec::with_capacity(paths.len());
        let mut columns: Option<(Vec<Column>, PathBuf)> = None;
        for path in paths {
            let (found, groups) = read_metadata(&path)?;
            match &columns {
                Some((expected, first)) => same_columns(expected, first, &found, &path)?,
                None => columns = Some((found, path.clone())),
            }
            files.push(ParquetFile { path, groups });
        }
        let columns = columns.map(|(columns, _)| columns).unwrap_or_default();
        Ok(ParquetDataset { files: files.into(), columns: columns.into(), shuffle_groups: false, part: None })
    }

    /// Reads these columns only. Default: all.
    ///
    /// # Errors
    ///
    /// Fails if there is no such column.
    pub fn columns<S: AsRef<str>>(mut self, names: &[S]) -> Result<ParquetDataset, DataError> {
        let find = |name: &str| {
            self.columns.iter().find(|column| column.name == name).cloned().ok_or_else(|| {
                let path = self.files.first().map_or(Path::new(""), |file| &file.path);
                unusable(path, format!("it has no column `{name}`; there are: {}", self.column_names().join(", ")))
            })
        };
        self.columns = names.iter().map(|name| find(name.as_ref())).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// The names of the columns that are read.
    pub fn column_names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }

    /// Reads the row groups in a new random order every epoch. Default `false`. Their rows stay in order; see
    /// [`shuffle`](IterableDataset::shuffle).
    pub fn shuffle_groups(mut self, shuffle: bool) -> ParquetDataset {
        self.shuffle_groups = shuffle;
        self
    }

    /// The number of rows of all files together.
    pub fn num_rows(&self) -> usize {
        self.files.iter().flat_map(|file| &file.groups).sum()
    }

    /// The number of row groups of all files together.
    pub fn num_row_groups(&self) -> usize {
        self.files.iter().map(|file| file.groups.len()).sum()
    }

    /// What this process reads of an epoch, without the first `position` rows of it.
    fn plan(&self, mut rng: ItemRng, position: usize) -> VecDeque<Piece> {
        let of_file = |(file, ParquetFile { groups, .. }): (usize, &ParquetFile)| {
            groups
                .iter()
                .enumerate()
                .map(move |(group, &rows)| Piece { file, group, rows: 0..rows })
                .collect::<Vec<_>>()
        };
        let mut order: Vec<Piece> = self.files.iter().enumerate().flat_map(of_file).collect();
        if self.shuffle_groups {
            seed::shuffle(&mut order, &mut rng);
        }
        let mut pieces = VecDeque::new();
        let mut left = position;
        for range in ranges(self.num_rows(), self.part) {
            let skipped = left.min(range.len());
            left -= skipped;
            cut(&order, range.start + skipped..range.end, &mut pieces);
        }
        pieces
    }
}

/// Some rows of a row group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    file: usize,
    group: usize,
    rows: Range<usize>,
}

/// The rows of a process, as ranges of all. The second is empty, unless the process begins again to have as many as the others.
fn ranges(rows: usize, part: Option<Shard>) -> [Range<usize>; 2] {
    let Some(part) = part else { return [0..rows, 0..0] };
    let mine = part.len_of(rows);
    if mine == 0 {
        return [0..0, 0..0];
    }
    let begin = match part.remainder {
        // The first processes have a row more.
        Remainder::Keep => rows / part.num_replicas * part.rank + part.rank.min(rows % part.num_replicas),
        Remainder::Pad | Remainder::Drop => (mine * part.rank) % rows,
    };
    let end = begin + mine;
    [begin..end.min(rows), 0..end.saturating_sub(rows)]
}

/// Adds the pieces of the row groups in `order` that a range of their rows consists of.
fn cut(order: &[Piece], range: Range<usize>, pieces: &mut VecDeque<Piece>) {
    let mut begin = 0;
    for piece in order {
        let end = begin + piece.rows.len();
        let (from, to) = (range.start.max(begin), range.end.min(end));
        if from < to {
            pieces.push_back(Piece { rows: from - begin..to - begin, ..*piece });
        }
        begin = end;
    }
}

/// The columns and row groups of a file.
fn read_metadata(path: &Path) -> Result<(Vec<Column>, Vec<usize>), DataError> {
    let reader = open(path)?;
    let metadata = reader.metadata();
    let columns = Column::all(metadata.file_metadata().schema_descr());
    let rows = |group: &parquet::file::metadata::RowGroupMetaData| usize::try_from(group.num_rows()).ok();
    let groups: Option<Vec<usize>> = metadata.row_groups().iter().map(rows).collect();
    Ok((columns, groups.ok_or_else(|| unusable(path, "it says that it has less than no rows"))?))
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, DataError> {
    let file = File::open(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    let cannot = |error: String| unusable(path, format!("it cannot be read as a Parquet file: {error}"));
    let opened = catch_panic(|| SerializedFileReader::new(file)).map_err(cannot)?;
    opened.map_err(|error| cannot(error.to_string()))
}

/// The columns of a file must be those of the first one, in any order.
fn same_columns(expected: &[Column], first: &Path, found: &[Column], path: &Path) -> Result<(), DataError> {
    for column in expected {
        let name = &column.name;
        let Some(other) = found.iter().find(|other| other.name == *name) else {
            return Err(unusable(path, format!("it has no column `{name}`, which {} has", first.display())));
        };
        if !other.kind.is_same(&column.kind) {
            return Err(unusable(
                path,
                format!("its column `{name}` is {}, but that of {} is {}", other.kind, first.display(), column.kind),
            ));
        }
    }
    match found.iter().find(|other| expected.iter().all(|column| column.name != other.name)) {
        Some(other) => {
            Err(unusable(path, format!("it has a column `{}`, which {} does not have", other.name, first.display())))
        }
        None => Ok(()),
    }
}

impl IterableDataset for ParquetDataset {
    type Record = ParquetRow;
    type Item = ParquetRow;

    fn records(&self, epoch: u64, rng: ItemRng) -> Result<RecordIter<ParquetRow>, BoxError> {
        self.records_from(epoch, 0, rng)
    }

    fn records_from(&self, _: u64, position: usize, rng: ItemRng) -> Result<RecordIter<ParquetRow>, BoxError> {
        if let Some(column) = self.columns.iter().find(|column| !column.kind.is_readable()) {
            return Err(format!(
                "column `{}` is {}, which is not read; choose others with `columns`",
                column.name, column.kind
            )
            .into());
        }
        Ok(Box::new(Rows {
            files: self.files.clone(),
            columns: self.columns.clone(),
            pieces: self.plan(rng, position),
            open: None,
            chunk: None,
        }))
    }

    fn shard(&self, shard: Shard) -> Option<ParquetDataset> {
        match self.part {
            None => Some(ParquetDataset { part: Some(shard), ..self.clone() }),
            Some(_) => None,
        }
    }

    fn load(&self, row: ParquetRow, _: &mut ItemRng) -> Result<ParquetRow, BoxError> {
        Ok(row)
    }

    fn len(&self) -> Option<usize> {
        let rows = self.num_rows();
        Some(self.part.map_or(rows, |part| part.len_of(rows)))
    }

    fn name(&self) -> String {
        match &self.files[..] {
            [only] => only.path.display().to_string(),
            [first, others @ ..] => format!("{} and {} other files", first.path.display(), others.len()),
            [] => "no files".to_owned(),
        }
    }
}

/// Rows that are decoded at once.
const CHUNK: usize = 256;

/// The rows of some pieces, one after the other.
struct Rows {
    files: Arc<[ParquetFile]>,
    columns: Arc<[Column]>,
    pieces: VecDeque<Piece>,
    /// The row group that is being read, and the rows of it that are still to come.
    open: Option<(GroupReader, Range<usize>)>,
    /// Rows that are decoded, and the next of them.
    chunk: Option<(Arc<Chunk>, usize)>,
}

impl Rows {
    fn row(&mut self) -> Result<Option<ParquetRow>, BoxError> {
        loop {
            if let Some((chunk, at)) = &mut self.chunk {
                if *at < chunk.len {
                    *at += 1;
                    return Ok(Some(ParquetRow::new(chunk.clone(), *at - 1)));
                }
                self.chunk = None;
            }
            if let Some((reader, rows)) = &mut self.open {
                if rows.start < rows.end {
                    let count = rows.len().min(CHUNK);
                    self.chunk = Some((Arc::new(reader.read(rows.start, count)?), 0));
                    rows.start += count;
                    continue;
                }
                self.open = None;
            }
            let Some(Piece { file, group, rows }) = self.pieces.pop_front() else { return Ok(None) };
            let path = &self.files[file].path;
            let reader = GroupReader::open(&open(path)?, path, group, &self.columns, rows.start)?;
            self.open = Some((reader, rows));
        }
    }
}

impl Iterator for Rows {
    type Item = Result<ParquetRow, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.row().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_have_as_many_rows_from_ranges_of_their_own() {
        let of = |rows, count, remainder| -> Vec<[Range<usize>; 2]> {
            let shard = |rank| Shard::new(count, rank).unwrap().remainder(remainder);
            (0..count).map(|rank| ranges(rows, Some(shard(rank)))).collect()
        };
        assert_eq!(of(7, 3, Remainder::Keep), [[0..3, 0..0], [3..5, 0..0], [5..7, 0..0]]);
        assert_eq!(of(7, 3, Remainder::Drop), [[0..2, 0..0], [2..4, 0..0], [4..6, 0..0]]);
        assert_eq!(of(7, 3, Remainder::Pad), [[0..3, 0..0], [3..6, 0..0], [6..7, 0..2]]);
        assert_eq!(of(1, 3, Remainder::Keep), [[0..1, 0..0], [0..0, 0..0], [0..0, 0..0]]);
        assert_eq!(of(1, 3, Remainder::Pad), [[0..1, 0..0], [0..1, 0..0], [0..1, 0..0]]);
        assert_eq!(of(0, 2, Remainder::Pad), [[0..0, 0..0], [0..0, 0..0]]);
    }
}
