//! Pictures in files: JPEG, PNG, GIF, WebP, BMP, TIFF and PNM, as tensors.
//!
//! Follows `torchvision.io.decode_image`, whose options and defaults it has.

mod formats;
mod jpeg;
mod options;
mod pixels;

use std::path::Path;

use fulgurite_torch::catch_panic;
use fulgurite_torch::tch::Tensor;

use crate::DataError;

pub use options::{ImageDecoder, ImageReadMode};

/// Where a picture comes from: a path, or the bytes of a file.
#[derive(Debug, Clone, Copy)]
pub enum ImageSource<'a> {
    /// A file.
    Path(&'a Path),
    /// What is in a file.
    Bytes(&'a [u8]),
}

impl<'a> From<&'a Path> for ImageSource<'a> {
    fn from(path: &'a Path) -> ImageSource<'a> {
        ImageSource::Path(path)
    }
}

impl<'a> From<&'a std::path::PathBuf> for ImageSource<'a> {
    fn from(path: &'a std::path::PathBuf) -> ImageSource<'a> {
        ImageSource::Path(path)
    }
}

impl<'a> From<&'a str> for ImageSource<'a> {
    fn from(path: &'a str) -> ImageSource<'a> {
        ImageSource::Path(Path::new(path))
    }
}

impl<'a> From<&'a [u8]> for ImageSource<'a> {
    fn from(bytes: &'a [u8]) -> ImageSource<'a> {
        ImageSource::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for ImageSource<'a> {
    fn from(bytes: &'a Vec<u8>) -> ImageSource<'a> {
        ImageSource::Bytes(bytes)
    }
}

/// Decodes a picture from a path or from bytes, as it is in the file; follows `torchvision.io.decode_image`.
///
/// The tensor has the kind `Uint8` and the shape `[C, H, W]`; in memory the channels come last, as in torchvision. For
/// options see [`ImageDecoder`].
///
/// ```no_run
/// use fulgurite_data::images::decode_image;
///
/// let picture = decode_image("cat.jpg")?;
/// assert_eq!(picture.size()[0], 3);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
///
/// # Errors
///
/// As [`ImageDecoder::decode`].
pub fn decode_image<'a>(source: impl Into<ImageSource<'a>>) -> Result<Tensor, DataError> {
    ImageDecoder::new().decode(source)
}

/// The largest file that is read as a picture.
const MAX_FILE: u64 = 1 << 30;

impl ImageDecoder {
    /// Decodes a picture: `Uint8`, `[C, H, W]`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is no picture of a known format, is cut off or damaged, or has too many pixels. The
    /// error names the file.
    pub fn decode<'a>(&self, source: impl Into<ImageSource<'a>>) -> Result<Tensor, DataError> {
        match source.into() {
            ImageSource::Bytes(bytes) => self.decode_bytes(bytes).map_err(|problem| {
                DataError::Setting(format!("the {} bytes of a picture are not usable: {problem}", bytes.len()))
            }),
            ImageSource::Path(path) => self
                .decode_bytes(&read(path)?)
                .map_err(|message| DataError::Format { path: path.to_path_buf(), message }),
        }
    }

    /// An error is what is wrong with the bytes.
    fn decode_bytes(&self, bytes: &[u8]) -> Result<Tensor, String> {
        if bytes.is_empty() {
            return Err("it is empty".into());
        }
        let decoded =
            catch_panic(|| if jpeg::is_jpeg(bytes) { jpeg::decode(bytes, self) } else { formats::decode(bytes, self) });
        decoded.map_err(|panic| format!("it is damaged: the decoder ended with {panic}"))?
    }
}

/// What is in a regular file of a size that a picture can have.
fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let failed = |source| DataError::Io { path: path.to_path_buf(), source };
    let unusable = |message: String| DataError::Format { path: path.to_path_buf(), message };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(unusable("it is no file: a picture cannot be a folder, pipe, socket or device".into()));
    }
    if metadata.len() > MAX_FILE {
        return Err(unusable(format!("it has {} bytes, and a picture at most {MAX_FILE}", metadata.len())));
    }
    std::fs::read(path).map_err(failed)
}
