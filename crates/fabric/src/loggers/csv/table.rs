//! A CSV table with a growing set of columns.

use crate::loggers::python_format::{push_float, push_int};

/// The line terminator of Python's `csv` module.
const LINE_END: &str = "\r\n";

/// The maximum number of cached layouts; the cache is cleared for runs that log ever new sets of metrics.
const MAX_LAYOUTS: usize = 64;

/// The columns seen so far, and rows that are not in the file yet.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Sorted.
    columns: Vec<String>,
    header: String,
    /// The columns of the file when it was last rewritten.
    file_columns: Vec<String>,
    rows: String,
    layouts: Vec<Layout>,
    /// The rows that an earlier run wrote for the step from which this run continues, and that step.
    held: Option<(i64, String)>,
}

/// The columns of one set of metrics. Identified by comparing names, so that a row needs no look-ups.
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
    /// Lightning logs epochs as integers.
    Epoch(usize),
}

impl Table {
    /// Adds a row.
    pub(super) fn push(&mut self, prefix: &str, metrics: &[(&str, f64)], step: i64) {
        let at = self.layouts.iter().position(|layout| layout.is_of(metrics)).unwrap_or_else(|| {
            self.add_columns(prefix, metrics);
            self.add_layout(prefix, metrics)
        });
        let begins = self.rows.len();
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
        if let Some((resumed, held)) = &self.held {
            if step == *resumed && held.split_inclusive(LINE_END).any(|row| row == &self.rows[begins..]) {
                self.rows.truncate(begins);
            } else if step > *resumed {
                self.held = None;
            }
        }
    }

    /// Takes over the columns of the file of an earlier run, and returns its rows up to `step`, with all current columns. An
    /// incomplete last row is dropped. `None` if the file has another format.
    pub(super) fn take_over(&mut self, text: &str, step: i64) -> Option<String> {
        let (header, rows) = text.split_once(LINE_END)?;
        let columns = columns_of(header)?;
        let at = columns.iter().position(|column| column == "step")?;
        let cells = columns.len();
        let whole = rows.rfind(LINE_END).map_or("", |end| &rows[..end + LINE_END.len()]);
        let of_step = |row: &str| row.split(',').nth(at)?.parse::<i64>().ok();
        let (mut kept, mut held) = (String::new(), String::new());
        for row in whole.split_terminator(LINE_END) {
            let Some(x) = of_step(row).filter(|x| *x <= step && row.split(',').count() == cells) else { continue };
            kept.extend([row, LINE_END]);
            if x == step {
                held.extend([row, LINE_END]);
            }
        }
        self.held = Some((step, String::new()));
        self.merge_columns(columns.clone());
        let (mut rows, mut held_rows) = (String::new(), String::new());
        widen(&kept, &columns, &self.columns, &mut rows);
        widen(&held, &columns, &self.columns, &mut held_rows);
        self.held = Some((step, held_rows));
        self.widened();
        Some(rows)
    }

    /// The rows that are not in the file yet.
    pub(super) fn rows(&self) -> &str {
        &self.rows
    }

    /// Clears the rows after they were written, and keeps their memory.
    pub(super) fn clear_rows(&mut self) {
        self.rows.clear();
    }

    /// The header of all columns, with its line terminator.
    pub(super) fn header(&self) -> &str {
        &self.header
    }

    /// Appends the `rows` of the file to `out`, with empty cells in the columns that were added later.
    pub(super) fn widen(&self, rows: &str, out: &mut String) {
        widen(rows, &self.file_columns, &self.columns, out);
    }

    /// Called when the file has all columns.
    pub(super) fn widened(&mut self) {
        self.file_columns.clone_from(&self.columns);
    }

    fn add_columns(&mut self, prefix: &str, metrics: &[(&str, f64)]) {
        let mut more: Vec<String> = metrics.iter().map(|(name, _)| column_of(prefix, name)).collect();
        more.push("step".into());
        self.merge_columns(more);
    }

    fn merge_columns(&mut self, more: Vec<String>) {
        let mut columns = self.columns.clone();
        columns.extend(more);
        columns.sort();
        columns.dedup();
        if columns != self.columns {
            let mut rows = String::with_capacity(self.rows.capacity());
            widen(&self.rows, &self.columns, &columns, &mut rows);
            self.rows = rows;
            if let Some((_, held)) = &mut self.held {
                let mut rows = String::with_capacity(held.len());
                widen(held, &self.columns, &columns, &mut rows);
                *held = rows;
            }
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

/// The names in a header. `None` if a quote is unterminated, or if the names are not sorted.
fn columns_of(header: &str) -> Option<Vec<String>> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut chars = header.chars().peekable();
    while let Some(c) = chars.next() {
        let column = columns.last_mut()?;
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => column.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            c => column.push(c),
        }
    }
    (!quoted && columns.is_sorted()).then_some(columns)
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
    fn rows_of_an_earlier_run_are_kept_up_to_a_step_and_not_duplicated() {
        let mut table = Table::default();
        let text = "\"a,\"\"\",step,z\r\n1.0,0,\r\n,1,2.0\r\n,1,3.0\r\n4.0,2,\r\n5.0,";
        assert_eq!(table.take_over(text, 1).unwrap(), "1.0,0,\r\n,1,2.0\r\n,1,3.0\r\n");
        assert_eq!(table.header(), "\"a,\"\"\",step,z\r\n");
        table.push("", &[("z", 3.0)], 1);
        table.push("", &[("b", 7.0)], 1);
        table.push("", &[("z", 2.0)], 1);
        table.push("", &[("z", 2.0)], 2);
        assert_eq!(table.rows(), ",7.0,1,\r\n,,2,2.0\r\n");
        assert_eq!(Table::default().take_over("step,a\r\n", 1), None);
        assert_eq!(Table::default().take_over("a\r\n", 1), None);
    }

    #[test]
    fn the_cache_of_layouts_is_bounded() {
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
