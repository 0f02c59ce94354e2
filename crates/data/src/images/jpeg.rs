//! JPEG.

use std::cell::RefCell;

use fulgurite_torch::tch::Tensor;
use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::options::{ImageDecoder, ImageReadMode};
use super::pixels::Pixels;

pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8])
}

thread_local! {
    /// The pixels of the picture before: most have one size, and fresh memory costs as much as the copy out of this.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is kept of [`BUFFER`].
const KEPT: usize = 16 << 20;

pub(super) fn decode(bytes: &[u8], options: &ImageDecoder) -> Result<Tensor, String> {
    let damaged = |error: &dyn std::fmt::Display| format!("it is a JPEG file that is damaged: {}", in_line(error));
    let largest = usize::from(u16::MAX);
    // What is wrong between the rows, or garbage after them, is no reason to stop: as libjpeg does.
    let lenient = DecoderOptions::default().set_strict_mode(false).set_max_width(largest).set_max_height(largest);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), lenient);
    if let Err(error) = decoder.decode_headers() {
        return Err(if is_complete(bytes) { damaged(&error) } else { cut_off() });
    }
    let (width, height) = decoder.dimensions().unwrap_or_default();
    options.check_size(width as u64, height as u64)?;
    if !is_complete(bytes) {
        return Err(cut_off());
    }
    let channels = channels(decoder.input_colorspace(), options.mode);
    let space = if channels == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(lenient.jpeg_set_out_colorspace(space));
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(width * height * channels, 0);
        decoder.decode_into(buffer).map_err(|error| damaged(&error))?;
        let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
        let pixels = Pixels { width, height, channels, values: buffer.as_slice().into(), orientation };
        let tensor = pixels.into_tensor(options);
        if buffer.len() > KEPT {
            *buffer = Vec::new();
        }
        tensor
    })
}

/// The channels to decode: lightness is in the file as such, but for CMYK.
fn channels(space: Option<ColorSpace>, mode: ImageReadMode) -> usize {
    let gray = matches!(space, Some(ColorSpace::Luma));
    let has_lightness = gray || matches!(space, Some(ColorSpace::YCbCr));
    let wants_gray = matches!(mode, ImageReadMode::Gray | ImageReadMode::GrayAlpha);
    if (wants_gray && has_lightness) || (gray && mode == ImageReadMode::Unchanged) { 1 } else { 3 }
}

fn cut_off() -> String {
    "it is a JPEG file that is cut off: its end is missing".into()
}

/// Whether there is an end after the beginning of the data. (A thumbnail within the headers has an end of its own.)
fn is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        match (first, marker) {
            (0xff, 0xda) => return bytes[at..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]),
            (0xff, 0xd9) => return false,
            // Those without a length; fill bytes, and garbage between headers.
            (0xff, 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, 0x00 | 0xff) | (..0xff, _) => at += 1,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
        }
    }
    false
}

/// A message in one line.
fn in_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    fulgurite_torch::printable_in_line(text.trim().trim_matches('"')).to_string()
}
