//! [`Row`], and the table of rows that a person reads.

use serde::Serialize;

use crate::stopwatch::median;

/// The repeats of one variant. Times in microseconds.
#[derive(Serialize)]
pub struct Row {
    pub model: String,
    pub variant: String,
    pub median_us: f64,
    pub min_us: f64,
    pub max_us: f64,
}

impl Row {
    /// From one value per repeat, of which there is at least one.
    pub fn new(model: &str, variant: &str, values: Vec<f64>) -> Row {
        let (min_us, max_us) =
            values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(*v), max.max(*v)));
        let median_us = median(values).unwrap_or(f64::NAN);
        Row { model: model.to_owned(), variant: variant.to_owned(), median_us, min_us, max_us }
    }
}

/// One block of lines per model. The last column says how many times as long as the block's first variant each takes,
/// the last lines how the trainer does beside the others.
pub fn render(rows: &[Row]) -> String {
    let mut text = String::new();
    for block in rows.chunk_by(|a, b| a.model == b.model) {
        text += &format!("\n{:<22}{:>12}{:>12}{:>12}{:>10}\n", block[0].model, "median µs", "min", "max", "times");
        for row in block {
            let ratio = row.median_us / block[0].median_us;
            text += &format!(
                "  {:<20}{:>12.1}{:>12.1}{:>12.1}{ratio:>10.3}\n",
                row.variant, row.median_us, row.min_us, row.max_us
            );
        }
        text += &summary(block);
    }
    text
}

fn summary(block: &[Row]) -> String {
    let median = |name: &str| block.iter().find(|row| row.variant == name).map(|row| row.median_us);
    let mut text = String::new();
    for (name, peer) in [("trainer_full", "lightning_full"), ("trainer_callbacks", "lightning_callbacks")] {
        let (Some(ours), Some(by_hand)) = (median(name), median("loop")) else { continue };
        text += &format!("  {name}: {:+.1} µs to loop", ours - by_hand);
        for other in ["pytorch", peer] {
            if let Some(theirs) = median(other) {
                text += &format!(", {:.2} times as fast as {other}", theirs / ours);
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_median_and_the_extremes() {
        let row = Row::new("mlp", "loop", vec![3.0, 1.0, 2.0]);
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(json, r#"{"model":"mlp","variant":"loop","median_us":2.0,"min_us":1.0,"max_us":3.0}"#);
    }

    #[test]
    fn the_table_compares_with_the_first_variant() {
        let row = |variant, us| Row::new("mlp", variant, vec![us]);
        let rows = [row("loop", 100.0), row("trainer_full", 102.0), row("pytorch", 153.0)];
        let expected = "
mlp                      median µs         min         max     times
  loop                       100.0       100.0       100.0     1.000
  trainer_full               102.0       102.0       102.0     1.020
  pytorch                    153.0       153.0       153.0     1.530
  trainer_full: +2.0 µs to loop, 1.50 times as fast as pytorch
";
        assert_eq!(render(&rows), expected);
    }
}
