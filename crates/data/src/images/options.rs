//! How pictures are decoded.

use derive_setters::Setters;

/// The channels of a decoded picture; `torchvision.io.ImageReadMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageReadMode {
    /// What is in the file: lightness or colors, with opacity where it has that. A palette is its colors; CMYK becomes RGB.
    #[default]
    Unchanged,
    /// Lightness.
    Gray,
    /// Lightness and opacity.
    GrayAlpha,
    /// Red, green and blue.
    Rgb,
    /// Red, green, blue and opacity.
    RgbAlpha,
}

impl ImageReadMode {
    /// The number of channels, if it is known before.
    pub(super) fn channels(self) -> Option<usize> {
        match self {
            ImageReadMode::Unchanged => None,
            ImageReadMode::Gray => Some(1),
            ImageReadMode::GrayAlpha => Some(2),
            ImageReadMode::Rgb => Some(3),
            ImageReadMode::RgbAlpha => Some(4),
        }
    }
}

/// How pictures are decoded.
///
/// | in the file | in the tensor |
/// |---|---|
/// | 16 bits or floating-point numbers per channel | the highest 8 bits |
/// | 1, 2 or 4 bits, palettes | 8 bits per channel |
/// | opacity, with a mode without it | left out, as PIL's `convert` does |
/// | CMYK | RGB, by PIL's rule |
/// | several pictures (GIF, WebP, PNG, TIFF) | the first |
/// | a JPEG whose data is damaged, but complete | decoded as far as possible, as by libjpeg |
///
/// ```no_run
/// use fulgurite_data::images::{ImageDecoder, ImageReadMode};
///
/// let decoder = ImageDecoder::new().mode(ImageReadMode::Gray).apply_exif_orientation(true);
/// assert_eq!(decoder.decode("photo.jpg")?.size()[0], 1);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Setters)]
pub struct ImageDecoder {
    /// The channels. Default: those of the file.
    pub(super) mode: ImageReadMode,
    /// Turns the picture as its EXIF data says, as `PIL.ImageOps.exif_transpose` does. Default: `false`, as in torchvision
    /// and its `ImageFolder`.
    pub(super) apply_exif_orientation: bool,
    /// The most pixels that a picture may have; a larger one is an error before memory is taken for it. Default:
    /// 178 956 970, PIL's limit.
    pub(super) max_pixels: u64,
}

impl Default for ImageDecoder {
    fn default() -> ImageDecoder {
        ImageDecoder { mode: ImageReadMode::Unchanged, apply_exif_orientation: false, max_pixels: 178_956_970 }
    }
}

impl ImageDecoder {
    /// With torchvision's defaults.
    pub fn new() -> ImageDecoder {
        ImageDecoder::default()
    }

    /// Whether there are some pixels, but not too many.
    pub(super) fn check_size(&self, width: u64, height: u64) -> Result<(), String> {
        let pixels = width.saturating_mul(height);
        if pixels == 0 {
            return Err(format!("it says that it is {width} x {height} pixels large, which is none"));
        }
        if pixels > self.max_pixels {
            return Err(format!(
                "it says that it is {width} x {height} pixels large, and max_pixels is {}; if that is right, raise max_pixels",
                self.max_pixels
            ));
        }
        Ok(())
    }
}
