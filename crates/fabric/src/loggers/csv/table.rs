//! Rows of CSV whose columns grow.

use crate::loggers::python_format::{push_float, push_int};

/// Rows end as Python's `csv` module ends them.
const LINE_END: &str = "\r\n";

/// More different sets of metrics than any run logs; a run that goes on making up names starts over.
const MAX_LAYOUTS: usize = 64;

/// The columns seen so far, and rows that are not in the file yet.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Sorted.
    columns: Vec<String>,
    header: String,
    /// The columns of the file when it was last written whole.
    file_columns: Vec<String>,
    rows: String,
    layouts: Vec<Layout>,
}

/// Where the values of one set of metrics go: found again by comparing names, so that a row costs no look-ups.
#[derive(Debug)]
struct Layout {
    names: Vec<String>,
    /// One per column.
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Empty,
    Step,
    Metric(usize),
    /// Lightning counts epochs in whole numbers, and prints them so.
    Epoch(usize),
}

impl Table {
    /// Adds a row.
    pub(super) fn push(&mut self, prefix: &str, metrics: &[(&str, f64)], step: i64) {
        let at = self.layouts.iter().position(|layout| layout.is_of(metrics)).unwrap_or_else(|| {
            self.add_columns(prefix, metrics);
            self.add_layout(prefix, metrics)
        });
        for (i, cell) in self.layouts[at].cells.iter().enumerate() {
            if i > 0 {
                self.rows.push(',');
            }
            match *cell {
                Cell::Empty => {}
                Cell::Step => push_int(&mut self.rows, step),
                Cell::Metric(metric) => push_float(&mut self.rows, metrics[metric].1),
                Cell::Epoch(metric) => match metrics[metric].1 {
                    epoch if epoch.fract() == 0.0 => push_int(&mut self.rows, epoch as i64),
                    fraction => push_float(&mut self.rows, fraction),
                },
            }
        }
        self.rows.push_str(LINE_END);
    }

    /// The rows that are not in the file yet.
    pub(super) fn rows(&self) -> &str {
        &self.rows
    }

    /// The rows are in the file now. Their memory is kept for the next.
    pub(super) fn clear_rows(&mut self) {
        self.rows.clear();
    }

    /// The header of all columns, with its line end.
    pub(super) fn header(&self) -> &str {
        &self.header
    }

    /// Appends the file's `rows` to `out`, with empty cells in the columns that came later.
    pub(super) fn widen(&self, rows: &str, out: &mut String) {
        widen(rows, &self.file_columns, &self.columns, out);
    }

    /// The file has all columns now.
    pub(super) fn widened(&mut self) {
        self.file_columns.clone_from(&self.columns);
    }

    fn add_columns(&mut self, prefix: &str, metrics: &[(&str, f64)]) {
        let mut columns = self.columns.clone();
        columns.extend(metrics.iter().map(|(name, _)| column_of(prefix, name)));
        columns.push("step".into());
        columns.sort();
        columns.dedup();
        if columns != self.columns {
            let mut rows = String::with_capacity(self.rows.capacity());
            widen(&self.rows, &self.columns, &columns, &mut rows);
            self.rows = rows;
            self.header = header_of(&columns);
            self.columns = columns;
            self.layouts.clear();
        }
    }

    fn add_layout(&mut self, prefix: &str, metrics: &[(&str, f64)]) -> usize {
        let cell = |column: &String| {
            if column == "step" {
                return Cell::Step;
            }
            match metrics.iter().position(|(name, _)| column_of(prefix, name) == *column) {
                None => Cell::Empty,
                Some(metric) if metrics[metric].0 == "epoch" => Cell::Epoch(metric),
                Some(metric) => Cell::Metric(metric),
            }
        };
        let cells = self.columns.iter().map(cell).collect();
        if self.layouts.len() == MAX_LAYOUTS {
            self.layouts.clear();
        }
        self.layouts.push(Layout { names: metrics.iter().map(|(name, _)| (*name).into()).collect(), cells });
        self.layouts.len() - 1
    }
}

impl Layout {
    fn is_of(&self, metrics: &[(&str, f64)]) -> bool {
        self.names.len() == metrics.len() && self.names.iter().zip(metrics).all(|(name, (other, _))| name == other)
    }
}

fn column_of(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.into() } else { format!("{prefix}-{name}") }
}

fn header_of(columns: &[String]) -> String {
    let mut header = String::new();
    for (i, name) in columns.iter().enumerate() {
        if i > 0 {
            header.push(',');
        }
        if name.contains([',', '"', '\r', '\n']) {
            header.push('"');
            header.push_str(&name.replace('"', "\"\""));
            header.push('"');
        } else {
            header.push_str(name);
        }
    }
    header.push_str(LINE_END);
    header
}

/// `rows` of the columns `from`, as rows of the columns `to`, which are a superset. Both are sorted. Cells hold numbers
/// or nothing, so a comma always separates two of them.
fn widen(rows: &str, from: &[String], to: &[String], out: &mut String) {
    for row in rows.split_terminator(LINE_END) {
        let mut cells = row.split(',');
        let mut known = from.iter().peekable();
        for (i, column) in to.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            if known.next_if(|next| *next == column).is_some() {
                out.push_str(cells.next().unwrap_or_default());
            }
        }
        out.push_str(LINE_END);
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn rows_grow_with_the_columns() {
        let mut table = Table::default();
        table.push("", &[("m", 0.5)], 0);
        table.push("", &[("z", 1.0), ("a", f64::NAN)], 1);
        table.push("", &[("m", 2.0)], 2);
        table.push("", &[], 3);
        assert_eq!(table.header(), "a,m,step,z\r\n");
        assert_eq!(table.rows(), ",0.5,0,\r\nnan,,1,1.0\r\n,2.0,2,\r\n,,3,\r\n");
    }

    #[test]
    fn names_are_quoted_where_csv_needs_it_and_prefixed() {
        let mut table = Table::default();
        table.push("p", &[("a,b", 1.0), ("say \"x\"", 2.0), ("epoch", 3.0)], 0);
        assert_eq!(table.header(), "\"p-a,b\",p-epoch,\"p-say \"\"x\"\"\",step\r\n");
        assert_eq!(table.rows(), "1.0,3,2.0,0\r\n");
    }

    #[test]
    fn the_step_argument_has_the_step_column() {
        let mut table = Table::default();
        table.push("", &[("step", 7.0), ("epoch", 0.5)], 3);
        assert_eq!((table.header(), table.rows()), ("epoch,step\r\n", "0.5,3\r\n"));
    }

    #[test]
    fn names_without_end_do_not_pile_up() {
        let mut table = Table::default();
        let names: Vec<String> = (0..9).map(|i| format!("m{i}")).collect();
        let metrics: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.0)).collect();
        table.push("", &metrics, 0);
        for first in 0..9 {
            for last in first..9 {
                let mut some: Vec<_> = metrics[first..last].to_vec();
                some.reverse();
                table.push("", &some, 1);
                table.push("", &metrics[first..last], 1);
            }
        }
        assert!(table.layouts.len() <= super::MAX_LAYOUTS);
        assert!(table.rows().lines().all(|row| row.matches(',').count() == 9));
    }
}
