//! Digits and what the network takes them for, as text.

use fulgurite::prelude::*;

/// From white to black; each pixel is two characters wide, so that it looks square.
const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];
const SIDE: i64 = 8;

/// The first `count` digits of a batch of `[images, labels, probabilities]`, side by side, each over its prediction.
pub fn predictions(batch: &Value, count: i64) -> String {
    let Some([Value::Tensor(images), Value::Tensor(labels), Value::Tensor(probabilities)]) = batch.as_list() else {
        return String::new();
    };
    let count = count.min(images.size()[0]);
    let mut text = String::new();
    for row in 0..SIDE {
        for digit in 0..count {
            for column in 0..SIDE {
                let ink = images.double_value(&[digit, 0, row, column]);
                text += SHADES[(ink * (SHADES.len() - 1) as f64).round() as usize];
            }
            text += "  ";
        }
        text.push('\n');
    }
    for digit in 0..count {
        let (probability, class) = probabilities.get(digit).max_dim(0, false);
        let (class, label) = (class.int64_value(&[]), labels.int64_value(&[digit]));
        let verdict = if class == label { "✓".to_owned() } else { format!("✗ is {label}") };
        let percent = 100.0 * probability.double_value(&[]);
        text += &format!("{:<18}", format!("{class} ({percent:.0} %) {verdict}"));
    }
    text
}
