//! The operations behind the transforms, with given parameters; follows `torchvision.transforms.v2.functional`.
//!
//! Each takes an image, or a batch of images, as a tensor `[.., C, H, W]` of bytes (`Uint8`, 0 to 255) or floating-point
//! numbers (0 to 1), and returns one of the same kind. Other integers work where torchvision takes them: they span 0 to
//! their largest value. Results may be views of the argument.
//!
//! ```
//! use fulgurite_data::torch::tch::{Device, Kind, Tensor};
//! use fulgurite_data::transforms::InterpolationMode::Bilinear;
//! use fulgurite_data::transforms::functional;
//!
//! let image = Tensor::zeros([3, 480, 640], (Kind::Uint8, Device::Cpu));
//! let image = functional::resize(&image, 256, Bilinear, None, true)?;
//! assert_eq!(image.size(), [3, 256, 341]);
//! let image = functional::center_crop(&image, 224)?;
//! assert_eq!(image.size(), [3, 224, 224]);
//! # Ok::<(), fulgurite_data::DataError>(())
//! ```
//!
//! # Errors
//!
//! All fail if the tensor is no image (fewer than three dimensions), a parameter is out of its range, or libtorch has no
//! operation for the kind.

mod bytes;
mod color;
mod geometry;
mod histogram;
mod misc;
mod size;
mod warp;

pub use color::{
    adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, adjust_sharpness, invert, posterize,
    rgb_to_grayscale, solarize,
};
pub use geometry::{center_crop, crop, five_crop, horizontal_flip, pad, resize, resized_crop, vertical_flip};
pub use histogram::{autocontrast, equalize};
pub use misc::{erase, gaussian_blur, normalize, to_dtype};
pub use size::{Fill, InterpolationMode, Padding, PaddingMode, ResizeSize, Size};
pub use warp::{affine, rotate};

use fulgurite_torch::tch::{Kind, TchError, Tensor};

use crate::DataError;

pub(crate) use geometry::check_crop;
pub(crate) use misc::normalize_owned;

/// An error of a parameter.
pub(crate) fn setting<T>(text: String) -> Result<T, DataError> {
    Err(DataError::Setting(text))
}

/// The result of operations of libtorch, which together are `name`.
pub(crate) fn run<T>(name: &str, operations: impl FnOnce() -> Result<T, TchError>) -> Result<T, DataError> {
    operations().map_err(|error| DataError::Torch { doing: name.to_owned(), source: error.into() })
}

/// Channels, height and width.
pub(crate) fn shape(image: &Tensor, name: &str) -> Result<[i64; 3], DataError> {
    match image.size()[..] {
        [.., channels, height, width] => Ok([channels, height, width]),
        ref size => setting(format!("{name} takes images [.., C, H, W], but was given a tensor of shape {size:?}")),
    }
}

/// Height and width of an image of one or three channels.
fn gray_or_rgb(image: &Tensor, name: &str) -> Result<[i64; 3], DataError> {
    let shape = shape(image, name)?;
    if shape[0] != 1 && shape[0] != 3 {
        return setting(format!("{name} takes images of 1 or 3 channels, but was given {}", shape[0]));
    }
    Ok(shape)
}

/// A factor that must not be negative.
fn not_negative(factor: f64, name: &str) -> Result<(), DataError> {
    if factor.is_finite() && factor >= 0.0 {
        return Ok(());
    }
    setting(format!("{name} was given the factor {factor}; a factor is 0 or more"))
}

pub(crate) fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Half | Kind::Float | Kind::Double | Kind::BFloat16)
}

/// What white is.
pub(crate) fn max_value(kind: Kind, name: &str) -> Result<f64, DataError> {
    if is_float(kind) {
        return Ok(1.0);
    }
    Ok(((1u64 << value_bits(kind, name)?) - 1) as f64)
}

/// The bits of an integer that are not its sign.
fn value_bits(kind: Kind, name: &str) -> Result<u32, DataError> {
    match kind {
        Kind::Uint8 => Ok(8),
        Kind::Int8 => Ok(7),
        Kind::Int16 => Ok(15),
        Kind::Int => Ok(31),
        Kind::Int64 => Ok(63),
        _ => setting(format!("{name} takes images of integers or floating-point numbers, but was given {kind:?}")),
    }
}

/// The kind to compute in.
fn float_kind(kind: Kind) -> Kind {
    if is_float(kind) { kind } else { Kind::Float }
}

/// The same image in memory of its own.
pub(crate) fn copied(image: &Tensor) -> Result<Tensor, TchError> {
    let mut copy = image.f_empty_like()?;
    copy.f_copy_(image)?;
    Ok(copy)
}

/// `[N, C, H, W]`.
fn flat_batch(image: &Tensor, [channels, height, width]: [i64; 3]) -> Result<Tensor, TchError> {
    if image.dim() == 4 {
        return Ok(image.shallow_clone());
    }
    let images = image.size()[..image.dim() - 3].iter().product::<i64>();
    image.f_reshape([images, channels, height, width])
}

/// Back from [`flat_batch`]: the leading dimensions of `like`, and the others of `image`.
fn unflat_batch(image: Tensor, like: &Tensor) -> Result<Tensor, TchError> {
    let mut size = like.size();
    let last = size.len() - 3;
    size.splice(last.., image.size().into_iter().skip(1));
    image.f_reshape(size)
}
