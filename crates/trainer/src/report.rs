//! The table that `validate` and `test` print.

use std::collections::{BTreeMap, BTreeSet};

use ::console::{Alignment, Term, measure_text_width, pad_str};

/// The default number of columns.
const WIDTH: usize = 120;
const SPACE_BETWEEN_COLUMNS: usize = 4;
/// Column width if the terminal has room for two of them.
const NARROWEST_COLUMN: usize = 25;

/// The values of each loader, side by side: one row per name, without the loader's suffix.
pub(crate) fn results_table(stage: &str, results: &[BTreeMap<String, f64>]) -> String {
    let width = Term::stderr().size_checked().map_or(WIDTH, |(_, columns)| columns.into());
    table(stage, results, width)
}

fn table(stage: &str, results: &[BTreeMap<String, f64>], width: usize) -> String {
    let names: BTreeSet<&str> = results.iter().flatten().map(|(name, _)| without_loader(name)).collect();
    if names.is_empty() {
        return format!("{stage}: no metrics were logged");
    }
    let value = |result: &BTreeMap<String, f64>, name: &str| {
        result
            .iter()
            .find(|(key, _)| without_loader(key) == name)
            .map_or(String::new(), |(_, value)| format!("{value:?}"))
    };
    let first: Vec<String> = std::iter::once(title(stage)).chain(names.iter().map(|&name| name.to_owned())).collect();
    let columns: Vec<Vec<String>> = results
        .iter()
        .enumerate()
        .map(|(index, result)| {
            let values = names.iter().map(|&name| value(result, name));
            std::iter::once(format!("DataLoader {index}")).chain(values).collect()
        })
        .collect();

    let narrowest = if width >= 2 * NARROWEST_COLUMN { NARROWEST_COLUMN } else { 0 };
    let column_width = |column: &[String]| {
        let widest = column.iter().map(|cell| measure_text_width(cell)).max().unwrap_or(0);
        (widest + SPACE_BETWEEN_COLUMNS).max(narrowest)
    };
    // Loaders that do not fit side by side follow below.
    let room = width.saturating_sub(column_width(&first));
    let widest = columns.iter().map(|column| column_width(column)).max().unwrap_or(narrowest);
    let tables = columns.chunks((room / widest.max(1)).max(1)).map(|columns| {
        let columns: Vec<&[String]> = std::iter::once(&first).chain(columns).map(Vec::as_slice).collect();
        let widths: Vec<usize> = columns.iter().map(|column| column_width(column)).collect();
        block(&columns, &widths)
    });
    tables.collect::<Vec<_>>().join("\n")
}

/// Columns side by side, centred, between rules.
fn block(columns: &[&[String]], widths: &[usize]) -> String {
    let rule = "─".repeat(widths.iter().sum());
    let row = |index: usize| {
        let cells =
            columns.iter().zip(widths).map(|(column, width)| pad_str(&column[index], *width, Alignment::Center, None));
        cells.collect::<String>().trim_end().to_owned()
    };
    let mut lines = vec![rule.clone(), row(0), rule.clone()];
    lines.extend((1..columns[0].len()).map(row));
    lines.push(rule);
    lines.join("\n")
}

fn title(stage: &str) -> String {
    let mut letters = stage.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{} metric", letters.as_str())
}

fn without_loader(name: &str) -> &str {
    name.split("/dataloader_idx_").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn results(values: &[(&str, f64)]) -> BTreeMap<String, f64> {
        values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn one_loader_has_one_column() {
        let one = results(&[("test_acc", 0.9825), ("test_loss", 0.055_555_2)]);
        expect![[r#"
            ──────────────────────────────────────────────────
                   Test metric             DataLoader 0
            ──────────────────────────────────────────────────
                    test_acc                  0.9825
                    test_loss                0.0555552
            ──────────────────────────────────────────────────"#]]
        .assert_eq(&table("test", &[one], 120));
    }

    #[test]
    fn several_loaders_stand_side_by_side_without_their_suffixes() {
        let both = [
            results(&[("val_loss/dataloader_idx_0", 0.25), ("total", 3.0)]),
            results(&[("val_loss/dataloader_idx_1", 0.5), ("only_here/dataloader_idx_1", 1e-12), ("total", 3.0)]),
        ];
        expect![[r#"
            ───────────────────────────────────────────────────────────────────────────
                 Validate metric           DataLoader 0             DataLoader 1
            ───────────────────────────────────────────────────────────────────────────
                    only_here                                           1e-12
                      total                     3.0                      3.0
                    val_loss                   0.25                      0.5
            ───────────────────────────────────────────────────────────────────────────"#]]
        .assert_eq(&table("validate", &both, 120));
    }

    #[test]
    fn loaders_that_do_not_fit_follow_below() {
        let many: Vec<_> = (0..3).map(|index| results(&[("loss", f64::from(index))])).collect();
        expect![[r#"
            ───────────────────────────────────────────────────────────────────────────
                   Test metric             DataLoader 0             DataLoader 1
            ───────────────────────────────────────────────────────────────────────────
                      loss                      0.0                      1.0
            ───────────────────────────────────────────────────────────────────────────
            ──────────────────────────────────────────────────
                   Test metric             DataLoader 2
            ──────────────────────────────────────────────────
                      loss                      2.0
            ──────────────────────────────────────────────────"#]]
        .assert_eq(&table("test", &many, 80));
        let narrow = table("test", &many[..2], 32);
        expect![[r#"
            ───────────────────────────────
              Test metric    DataLoader 0
            ───────────────────────────────
                 loss            0.0
            ───────────────────────────────
            ───────────────────────────────
              Test metric    DataLoader 1
            ───────────────────────────────
                 loss            1.0
            ───────────────────────────────"#]]
        .assert_eq(&narrow);
    }

    #[test]
    fn nothing_logged_is_said() {
        assert_eq!(table("test", &[BTreeMap::new()], 80), "test: no metrics were logged");
    }
}
