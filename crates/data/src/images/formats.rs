//! The formats of the crate `image`.

use std::io::Cursor;

use fulgurite_torch::tch::Tensor;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits};

use super::options::ImageDecoder;
use super::pixels::Pixels;

/// What a decoder may take for itself, besides the picture.
const WORKING_MEMORY: u64 = 64 << 20;

pub(super) fn decode(bytes: &[u8], options: &ImageDecoder) -> Result<Tensor, String> {
    let format = image::guess_format(bytes)
        .map_err(|_| "its first bytes are not those of a JPEG, PNG, GIF, WebP, BMP, TIFF or PNM picture".to_owned())?;
    let damaged = |error: image::ImageError| problem(format, &error);
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    options.check_size(width.into(), height.into())?;
    // Sixteen bytes are a pixel of four floating-point numbers.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(options.max_pixels.saturating_mul(16).saturating_add(WORKING_MEMORY));
    decoder.set_limits(limits).map_err(damaged)?;
    let orientation = decoder.orientation().ok();
    let picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    pixels(picture, orientation).into_tensor(options)
}

fn problem(format: ImageFormat, error: &image::ImageError) -> String {
    let name = format!("{format:?}");
    let text = error.to_string();
    let text = fulgurite_torch::printable_in_line(text.trim());
    match error {
        image::ImageError::Unsupported(_) => format!("it is a {name} file of a kind that cannot be decoded: {text}"),
        image::ImageError::Limits(_) => format!("it is a {name} file that takes too much memory: {text}"),
        _ => format!("it is a {name} file that is damaged or cut off: {text}"),
    }
}

fn pixels(picture: DynamicImage, orientation: Option<Orientation>) -> Pixels<'static> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let channels = usize::from(picture.color().channel_count());
    let high_byte = |values: Vec<u16>| values.into_iter().map(|value| (value >> 8) as u8).collect();
    let byte = |values: Vec<f32>| values.into_iter().map(|value| (value * 255.0).round() as u8).collect();
    let values = match picture {
        DynamicImage::ImageLuma8(picture) => picture.into_raw(),
        DynamicImage::ImageLumaA8(picture) => picture.into_raw(),
        DynamicImage::ImageRgb8(picture) => picture.into_raw(),
        DynamicImage::ImageRgba8(picture) => picture.into_raw(),
        DynamicImage::ImageLuma16(picture) => high_byte(picture.into_raw()),
        DynamicImage::ImageLumaA16(picture) => high_byte(picture.into_raw()),
        DynamicImage::ImageRgb16(picture) => high_byte(picture.into_raw()),
        DynamicImage::ImageRgba16(picture) => high_byte(picture.into_raw()),
        DynamicImage::ImageRgb32F(picture) => byte(picture.into_raw()),
        DynamicImage::ImageRgba32F(picture) => byte(picture.into_raw()),
        other if channels == 4 => other.into_rgba8().into_raw(),
        // A variant that a later version adds.
        other => return pixels(other.into_rgb8().into(), orientation),
    };
    Pixels { width, height, channels, values: values.into(), orientation }
}
