//! Digits and what the network takes them for, as text.

use fulgurite::prelude::*;

/// From white to black; each pixel is two characters wide, so that it looks square.
const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];
const SIDE: i64 = 8;

/// How many digits stand side by side: 4 fit into a terminal of 80 columns.
const PER_ROW: i64 = 4;

/// The first `count` digits of a batch of `[images, labels, probabilities]`, each over its prediction.
pub(crate) fn predictions(batch: &Value, count: i64) -> String {
    let Some([Value::Tensor(images), Value::Tensor(labels), Value::Tensor(probabilities)]) = batch.as_list() else {
        return String::new();
    };
    let count = count.min(images.size()[0]);
    let mut text = String::new();
    for first in (0..count).step_by(PER_ROW as usize) {
        let digits = first..count.min(first + PER_ROW);
        for row in 0..SIDE {
            for digit in digits.clone() {
                for column in 0..SIDE {
                    let ink = images.double_value(&[digit, 0, row, column]);
                    text += SHADES[(ink * (SHADES.len() - 1) as f64).round() as usize];
                }
                text += "  ";
            }
            text.push('\n');
        }
        for digit in digits {
            text += &format!("{:<18}", verdict(&probabilities.get(digit), labels.int64_value(&[digit])));
        }
        text.push('\n');
    }
    text
}

/// What a digit was taken for, how surely, and whether that is right.
fn verdict(probabilities: &Tensor, label: i64) -> String {
    let (probability, class) = probabilities.max_dim(0, false);
    let (percent, class) = (100.0 * probability.double_value(&[]), class.int64_value(&[]));
    let mark = if class == label { "✓".to_owned() } else { format!("✗ is {label}") };
    format!("{class} ({percent:.0} %) {mark}")
}
