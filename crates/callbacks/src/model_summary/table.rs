//! The summary as text.

use std::fmt;

use fulgurite_engine::config::Maximum;

use super::{LayerSummary, Summary};

const UNKNOWN: &str = "?";
const NOT_APPLICABLE: &str = "n/a";

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.table() {
            writeln!(f, "{line}")?;
        }
        let frozen = self.total_parameters - self.trainable_parameters;
        let mut footer = vec![
            (human_readable_count(self.trainable_parameters), "Trainable params"),
            (human_readable_count(frozen), "Non-trainable params"),
            (human_readable_count(self.total_parameters), "Total params"),
            (megabytes(self.model_size), "Total estimated model params size (MB)"),
            (self.modules_in_train_mode.to_string(), "Modules in train mode"),
            (self.modules_in_eval_mode.to_string(), "Modules in eval mode"),
        ];
        footer.extend(self.total_flops.map(|flops| (human_readable_count(flops), "Total Flops")));
        let lines: Vec<_> = footer.into_iter().map(|(number, what)| format!("{number:<9} {what}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Summary {
    /// Header, rules and rows; nothing for a summary of the totals alone.
    fn table(&self) -> Vec<String> {
        if self.max_depth == Maximum::Of(0) {
            return Vec::new();
        }
        let mut header = vec!["", "Name", "Type", "Params", "Mode"];
        if self.total_flops.is_some() {
            header.extend(["FLOPs", "In sizes", "Out sizes"]);
        }
        let mut rows: Vec<Vec<String>> = vec![header.iter().map(|&title| title.to_owned()).collect()];
        rows.extend(self.layers.iter().enumerate().map(|(index, layer)| cells(index, layer)));
        if self.other_parameters > 0 {
            let count = human_readable_count(self.other_parameters);
            let mut others = vec![String::new(), "other params".to_owned(), NOT_APPLICABLE.to_owned(), count];
            others.resize(8, NOT_APPLICABLE.to_owned());
            rows.push(others);
        }
        let widest = |column: usize| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| ::console::measure_text_width(cell))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(widest).collect();
        let write = |row: &Vec<String>| {
            let padded = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| ::console::pad_str(cell, *width, ::console::Alignment::Left, None));
            padded.collect::<Vec<_>>().join(" | ").trim_end().to_owned()
        };
        let rule = "-".repeat(widths.iter().sum::<usize>() + 3 * (widths.len() - 1));
        let mut lines = vec![write(&rows[0]), rule.clone()];
        lines.extend(rows[1..].iter().map(write));
        lines.push(rule);
        lines
    }
}

/// The cells of all columns; the last three are omitted if they have no titles.
fn cells(index: usize, layer: &LayerSummary) -> Vec<String> {
    let size = |size: &Option<Vec<i64>>| size.as_ref().map_or_else(|| UNKNOWN.to_owned(), |size| format!("{size:?}"));
    vec![
        index.to_string(),
        layer.name.clone(),
        layer.layer_type.clone().unwrap_or_default(),
        human_readable_count(layer.num_parameters),
        mode(layer).to_owned(),
        layer.flops.map(human_readable_count).unwrap_or_default(),
        size(&layer.in_size),
        size(&layer.out_size),
    ]
}

fn mode(layer: &LayerSummary) -> &'static str {
    match layer {
        LayerSummary { is_training: false, .. } => "eval",
        LayerSummary { is_frozen: true, .. } => "frozen",
        _ => "train",
    }
}

/// Thousands as `K`, and so on to `T`: one decimal below a hundred of them, none above.
fn human_readable_count(number: u64) -> String {
    const UNITS: [&str; 5] = ["", " K", " M", " B", " T"];
    let digits = number.checked_ilog10().unwrap_or(0) as usize;
    let group = (digits / 3).min(UNITS.len() - 1);
    let scaled = number as f64 / 1000f64.powi(group as i32);
    if group == 0 {
        number.to_string()
    } else if scaled >= 100.0 {
        format!("{}{}", with_separators(scaled as u64), UNITS[group])
    } else {
        format!("{scaled:.1}{}", UNITS[group])
    }
}

fn megabytes(megabytes: f64) -> String {
    let text = format!("{megabytes:.3}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{}.{fraction}", with_separators(whole.parse().unwrap_or(0)))
}

fn with_separators(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn counts_are_written_as_lightning_writes_them() {
        let counts = [
            0,
            1,
            123,
            999,
            1000,
            1234,
            99_949,
            99_951,
            101_770,
            999_999,
            2_000_000,
            3_000_000_000,
            400_000_000_000_000,
            5_000_000_000_000_000,
        ];
        let written: Vec<_> = counts.into_iter().map(human_readable_count).collect();
        expect!["0, 1, 123, 999, 1.0 K, 1.2 K, 99.9 K, 100.0 K, 101 K, 999 K, 2.0 M, 3.0 B, 400 T, 5,000 T"]
            .assert_eq(&written.join(", "));
    }

    #[test]
    fn sizes_have_separators_and_three_decimals() {
        expect!["0.000 0.407 1,234.568 12,345,678.000"]
            .assert_eq(&[0.0, 0.40708, 1234.56789, 12_345_678.0].map(megabytes).join(" "));
    }
}
