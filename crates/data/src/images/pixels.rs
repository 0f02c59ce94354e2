//! Decoded pixels, and how they become a tensor.

use std::borrow::Cow;

use fulgurite_torch::tch::{Kind, TchError, Tensor};
use image::metadata::Orientation;

use super::options::ImageDecoder;

/// Rows of pixels, each with its channels: lightness or red, green and blue, then opacity if their number is even.
pub(super) struct Pixels<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) values: Cow<'a, [u8]>,
    pub(super) orientation: Option<Orientation>,
}

impl Pixels<'_> {
    pub(super) fn into_tensor(self, options: &ImageDecoder) -> Result<Tensor, String> {
        let wanted = options.mode.channels().unwrap_or(self.channels);
        let values =
            if wanted == self.channels { self.values } else { convert(&self.values, self.channels, wanted).into() };
        let size = [self.height as i64, self.width as i64, wanted as i64];
        let orientation = self.orientation.filter(|_| options.apply_exif_orientation);
        let tensor = || {
            let image = Tensor::f_from_data_size(&values, &size, Kind::Uint8)?.f_permute([2, 0, 1])?;
            orientation.map_or(Ok(image.shallow_clone()), |orientation| turned(&image, orientation))
        };
        tensor().map_err(|error| format!("no tensor can be made of it: {error}"))
    }
}

/// The same pixels with other channels.
fn convert(values: &[u8], from: usize, to: usize) -> Vec<u8> {
    let mut converted = Vec::with_capacity(values.len() / from * to);
    for pixel in values.chunks_exact(from) {
        let alpha = if from.is_multiple_of(2) { pixel[from - 1] } else { 255 };
        let gray = from < 3;
        match to {
            1 | 2 => converted.push(if gray { pixel[0] } else { lightness(pixel) }),
            _ if gray => converted.extend([pixel[0]; 3]),
            _ => converted.extend_from_slice(&pixel[..3]),
        }
        if to.is_multiple_of(2) {
            converted.push(alpha);
        }
    }
    converted
}

/// PIL's rule, in 16 bits.
fn lightness(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}

fn turned(image: &Tensor, orientation: Orientation) -> Result<Tensor, TchError> {
    let quarters = |count: i64| image.f_rot90(count, [-2, -1]);
    match orientation {
        Orientation::NoTransforms => Ok(image.shallow_clone()),
        Orientation::Rotate90 => quarters(-1),
        Orientation::Rotate180 => quarters(2),
        Orientation::Rotate270 => quarters(1),
        Orientation::FlipHorizontal => image.f_flip([-1]),
        Orientation::FlipVertical => image.f_flip([-2]),
        Orientation::Rotate90FlipH => image.f_transpose(-2, -1),
        Orientation::Rotate270FlipH => quarters(2)?.f_transpose(-2, -1),
    }
}
