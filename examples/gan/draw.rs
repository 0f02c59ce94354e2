//! Images as text.

use fulgurite::prelude::*;

/// From white to black; each pixel is two characters wide, so that it looks square.
const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];

/// Images `[1, H, W]` of one size, between 0 and 1, side by side.
pub(crate) fn side_by_side(images: &[Tensor]) -> String {
    let with_gap: Vec<Tensor> = images.iter().map(|image| image.constant_pad_nd([0, 1])).collect();
    let row = Tensor::cat(&with_gap, 2);
    let size = row.size();
    let mut text = String::new();
    for y in 0..size[1] {
        for x in 0..size[2] {
            let ink = row.double_value(&[0, y, x]);
            text += SHADES[(ink * (SHADES.len() - 1) as f64).round() as usize];
        }
        text.push('\n');
    }
    text
}
