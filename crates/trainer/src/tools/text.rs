//! Values, sizes and tables as text.

use fulgurite_torch::tch::Kind;
use fulgurite_torch::{Dict, Value, printable_in_line};

use super::dtype::dtype_name;

/// The maximum number of list items that are printed.
const ITEMS: usize = 8;
/// A column that is too wide gets no narrower than this.
const NARROWEST: usize = 12;
/// Cells that are wider stand out of their column, so that one long name does not make every line as long.
const WIDEST: usize = 120;

/// A value on one line, in Python's spelling.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::Str(text) => text.clone(),
        other => nested(other),
    }
}

fn nested(value: &Value) -> String {
    match value {
        Value::None => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Int(int) => int.to_string(),
        Value::Float(float) => format!("{float:?}"),
        Value::Str(text) => format!("'{}'", printable_in_line(text)),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::Tensor(tensor) if tensor.numel() == 1 && is_real(tensor.kind()) => {
            format!("tensor({:?})", tensor.to_kind(Kind::Double).double_value(&vec![0; tensor.dim()]))
        }
        Value::Tensor(tensor) => format!("tensor({} {:?})", dtype_name(tensor.kind()), tensor.size()),
        Value::Opaque(object) => printable_in_line(object.type_name()).to_string(),
        Value::List(items) => format!("[{}]", list(items)),
        Value::Tuple(items) => format!("({})", list(items)),
        Value::Dict(dict) => format!("{{{}}}", pairs(dict)),
    }
}

fn is_real(kind: Kind) -> bool {
    !matches!(kind, Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble)
}

fn list(items: &[Value]) -> String {
    let mut texts: Vec<String> = items.iter().take(ITEMS).map(nested).collect();
    if items.len() > ITEMS {
        texts.push(format!("… {} items", items.len()));
    }
    texts.join(", ")
}

fn pairs(dict: &Dict) -> String {
    dict.iter().map(|(key, value)| format!("{}: {}", nested(key), nested(value))).collect::<Vec<_>>().join(", ")
}

/// `lr=0.1, betas=(0.9, 0.999)`.
pub(super) fn settings<'a>(entries: impl Iterator<Item = (&'a Value, &'a Value)>) -> String {
    entries.map(|(key, item)| format!("{}={}", value(key), nested(item))).collect::<Vec<_>>().join(", ")
}

/// Bytes in a unit of which there are fewer than a thousand.
pub(super) fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let place = (bytes.checked_ilog10().unwrap_or(0) as usize / 3).min(units.len() - 1);
    match place {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / 1000f64.powi(place as i32), units[place]),
    }
}

/// `1 tensor`, `2 tensors`.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Names with what belongs to them, which continues below itself where it is too long for the line.
pub(super) fn fields(rows: &[(String, String)], width: Option<usize>) -> String {
    let names: Vec<_> = rows.iter().map(|(name, _)| printable_in_line(name)).collect();
    let widest = names.iter().map(|name| columns(name)).max().unwrap_or(0).min(WIDEST);
    let beside = width.is_none_or(|width| widest + 4 + 30 <= width);
    let indent = if beside { widest + 4 } else { 6 };
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(NARROWEST));
    let mut text = String::new();
    for (name, (_, value)) in names.iter().zip(rows) {
        let mut lines = wrap(value, room).into_iter();
        match beside {
            true => text += format!("  {name:<widest$}  {}", lines.next().unwrap_or_default()).trim_end(),
            false => text += &format!("  {name}"),
        }
        text.push('\n');
        for line in lines {
            text += &format!("{:indent$}{line}\n", "");
        }
    }
    text
}

/// Breaks a line after its spaces.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut taken = 0;
    for word in printable_in_line(&text.replace('\n', " ")).split_inclusive(' ') {
        match lines.last_mut() {
            Some(line) if taken + columns(word.trim_end()) <= room => line.push_str(word),
            _ => {
                lines.push(word.to_owned());
                taken = 0;
            }
        }
        taken += columns(word);
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

fn columns(text: &str) -> usize {
    ::console::measure_text_width(text)
}

/// Rows of cells under a header. All columns but the first are numbers, or short.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// Whether a column ends, rather than begins, in one line.
    right: Vec<bool>,
}

impl Table {
    /// A header; a title that begins with `>` is above a column of numbers.
    pub(super) fn new(titles: &[&str]) -> Table {
        let right = titles.iter().map(|title| title.starts_with('>')).collect();
        Table { rows: vec![titles.iter().map(|title| title.trim_start_matches('>').to_owned()).collect()], right }
    }

    pub(super) fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| printable_in_line(cell).into_owned()).collect());
    }

    /// Nothing for a header alone.
    pub(super) fn render(&self, limit: Option<usize>) -> String {
        if self.rows.len() < 2 {
            return String::new();
        }
        let widest = |column: usize| self.rows.iter().map(|row| columns(&row[column])).max().unwrap_or(0).min(WIDEST);
        let mut widths: Vec<usize> = (0..self.right.len()).map(widest).collect();
        // The names give way first.
        for column in 0..widths.len() {
            let total: usize = widths.iter().map(|width| width + 2).sum();
            let over = limit.map_or(0, |limit| total.saturating_sub(limit));
            widths[column] = widths[column].saturating_sub(over).max(widths[column].min(NARROWEST));
        }
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&self.right).zip(&widths).map(|((cell, right), width)| {
                let (cell, side) = (
                    if limit.is_some() { shorten(cell, *width) } else { cell.clone() },
                    if *right { ::console::Alignment::Right } else { ::console::Alignment::Left },
                );
                ::console::pad_str(&cell, *width, side, None).into_owned()
            });
            text += format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end();
            text.push('\n');
        }
        text
    }
}

/// Leaves out the middle: names differ at their beginning and end.
fn shorten(text: &str, room: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if columns(text) <= room || room < 3 {
        return text.to_owned();
    }
    let (head, tail) = ((room - 1) / 2, room / 2);
    let (head, tail) = (&letters[..head], &letters[letters.len() - tail..]);
    format!("{}…{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn one_long_name_does_not_make_every_line_long() {
        let long = "n".repeat(100_000);
        let rows: Vec<_> = [long.as_str(), "a", "b"].map(|name| (name.to_owned(), "1".to_owned())).into();
        let mut table = Table::new(&["name", "value"]);
        rows.iter().for_each(|(name, value)| table.push(vec![name.clone(), value.clone()]));
        for text in [fields(&rows, None), table.render(None)] {
            assert!(text.contains(&long) && text.len() < 101_000, "{}", text.len());
        }
        // Quadratic time would be minutes.
        let names = (0..300_000).map(|n| format!("name{n}, ")).collect::<String>();
        assert_eq!(wrap(&names, usize::MAX), [names.trim_end()]);
    }

    #[test]
    fn sizes_have_units() {
        let sizes = [0, 999, 1000, 12_345, 1_500_000, 7_000_000_000, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "12.3 kB", "1.5 MB", "7.0 GB", "18446744.1 TB"]);
    }

    #[test]
    fn long_values_go_on_below_and_long_names_lose_their_middle() {
        let rows =
            [("lr".into(), "0.1".into()), ("layers".into(), (0..30).map(|i| format!("{i}, ")).collect::<String>())];
        // The indentation that all lines share is not compared.
        let titled = |text: String| format!("text\n{text}");
        expect![[r#"
            text
              lr      0.1
              layers  0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                      10, 11, 12, 13, 14, 15, 16, 17,
                      18, 19, 20, 21, 22, 23, 24, 25,
                      26, 27, 28, 29,
        "#]]
        .assert_eq(&titled(fields(&rows, Some(41))));
        let mut table = Table::new(&["name", ">size"]);
        table.push(vec!["transformer.layers.11.attention.weight".into(), "12.3 kB".into()]);
        table.push(vec!["fc".into(), "1 B".into()]);
        expect![[r#"
            text
              name                   size
              transfor…on.weight  12.3 kB
              fc                      1 B
        "#]]
        .assert_eq(&titled(table.render(Some(29))));
    }
}
