//! Kinds, normalization, blur, erasing.

use fulgurite_torch::is_exclusive;
use fulgurite_torch::tch::{Kind, TchError, Tensor};

use super::{
    Size, bytes, copied, flat_batch, float_kind, is_float, max_value, run, setting, shape, unflat_batch, value_bits,
};
use crate::DataError;

/// The image as another kind. With `scale`, white stays white: 255 of bytes is 1.0 of floating-point numbers.
pub fn to_dtype(image: &Tensor, dtype: Kind, scale: bool) -> Result<Tensor, DataError> {
    let kind = image.kind();
    let doing = "converting an image";
    if kind == dtype {
        return Ok(image.shallow_clone());
    }
    if !scale || (is_float(kind) && is_float(dtype)) {
        return run(doing, || image.f_to_kind(dtype));
    }
    let white = [max_value(kind, "to_dtype")?, max_value(dtype, "to_dtype")?];
    if let Some(floats) = (dtype == Kind::Float).then(|| bytes::scaled_floats(image)).flatten() {
        return run(doing, || floats);
    }
    if is_float(dtype) {
        return run(doing, || image.f_to_kind(dtype)?.f_mul_scalar_(1.0 / white[0]));
    }
    if is_float(kind) {
        if value_bits(dtype, "to_dtype")? > if kind == Kind::Double { 52 } else { 23 } {
            return setting(format!("to_dtype cannot scale {kind:?} to {dtype:?}, which has more digits"));
        }
        // So that all levels are equally wide, and 1.0 is the last one.
        return run(doing, || image.f_mul_scalar(white[1] + 1.0 - 1e-3)?.f_to_kind(dtype));
    }
    let [from, to] = [i64::from(value_bits(kind, "to_dtype")?), i64::from(value_bits(dtype, "to_dtype")?)];
    run(doing, || {
        if from > to {
            image.f_bitwise_right_shift_tensor_scalar(from - to)?.f_to_kind(dtype)
        } else {
            image.f_to_kind(dtype)?.f_bitwise_left_shift_tensor_scalar(to - from)
        }
    })
}

/// `(image - mean) / std` of each channel, of an image of floating-point numbers. One number each serves all channels.
pub fn normalize(image: &Tensor, mean: &[f64], std: &[f64]) -> Result<Tensor, DataError> {
    check_normalize(image, mean, std)?;
    let difference = run("normalizing an image", || image.f_sub(&per_channel(image, mean)?))?;
    divide_(difference, std)
}

/// [`normalize`] in the memory of the image, if nothing else refers to that.
pub(crate) fn normalize_owned(mut image: Tensor, mean: &[f64], std: &[f64]) -> Result<Tensor, DataError> {
    // Of an expanded image, such as gray channels, several values are one in memory.
    if image.requires_grad() || image.stride().contains(&0) || !is_exclusive(&image) {
        return normalize(&image, mean, std);
    }
    check_normalize(&image, mean, std)?;
    let mean = run("normalizing an image", || per_channel(&image, mean))?;
    let difference = run("normalizing an image", || image.f_sub_(&mean))?;
    divide_(difference, std)
}

fn divide_(mut difference: Tensor, std: &[f64]) -> Result<Tensor, DataError> {
    let std = run("normalizing an image", || per_channel(&difference, std))?;
    run("normalizing an image", || difference.f_div_(&std))
}

/// `[C, 1, 1]`, of the image's kind.
fn per_channel(image: &Tensor, values: &[f64]) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(values)?.f_to_kind(image.kind())?.f_to_device(image.device())?.f_view([-1, 1, 1])
}

fn check_normalize(image: &Tensor, mean: &[f64], std: &[f64]) -> Result<(), DataError> {
    let [channels, ..] = shape(image, "normalize")?;
    if !is_float(image.kind()) {
        return setting(format!(
            "normalize takes an image of floating-point numbers, but was given {:?}; put ToDtype::scaled(Kind::Float) before it",
            image.kind()
        ));
    }
    let fits = |values: &[f64]| values.len() == 1 || values.len() as i64 == channels;
    if !fits(mean) || !fits(std) {
        return setting(format!(
            "normalize was given {} means and {} standard deviations for an image of {channels} channels",
            mean.len(),
            std.len()
        ));
    }
    if std.contains(&0.0) {
        return setting("normalize was given a standard deviation of 0, by which nothing can be divided".into());
    }
    Ok(())
}

/// Blurred with a Gaussian kernel of `kernel_size` (odd; height, width) and `sigma` pixels (x, y).
///
/// `kernel_size` is torchvision's, but with the height first as everywhere else here.
pub fn gaussian_blur(image: &Tensor, kernel_size: impl Into<Size>, sigma: [f64; 2]) -> Result<Tensor, DataError> {
    let shape @ [channels, height, width] = shape(image, "gaussian_blur")?;
    let kernel = kernel_size.into();
    check_blur(kernel, sigma)?;
    let [x, y] = [kernel.width / 2, kernel.height / 2];
    if x >= width || y >= height {
        return setting(format!(
            "gaussian_blur mirrors {y} rows and {x} columns around the image, which is {height} x {width}; use a smaller \
             kernel_size"
        ));
    }
    run("blurring an image", || {
        let (kind, float) = (image.kind(), float_kind(image.kind()));
        let flat = flat_batch(image, shape)?.f_to_kind(float)?.f_pad([x, x, y, y], "reflect", None)?;
        // The kernel is a product: one pass per direction is less work than one of both.
        let pass = |image: &Tensor, size: i64, sigma: f64, shape: [i64; 4]| {
            let kernel = gaussian(size, sigma)?.f_to_kind(float)?.f_to_device(image.device())?;
            let kernel = kernel.f_view(shape)?.f_expand([channels, 1, shape[2], shape[3]], false)?;
            image.f_conv2d(&kernel, None::<Tensor>, [1, 1], [0, 0], [1, 1], channels)
        };
        let blurred = pass(&flat, kernel.width, sigma[0], [1, 1, 1, kernel.width])?;
        let blurred = pass(&blurred, kernel.height, sigma[1], [1, 1, kernel.height, 1])?;
        let blurred = if kind == float { blurred } else { blurred.f_round()?.f_to_kind(kind)? };
        unflat_batch(blurred, image)
    })
}

pub(crate) fn check_blur(kernel: Size, sigma: [f64; 2]) -> Result<(), DataError> {
    let odd = |size: i64| size > 0 && size % 2 == 1;
    if !odd(kernel.height) || !odd(kernel.width) {
        return setting(format!(
            "gaussian_blur was given a kernel of {} x {}; its sizes are odd and above 0",
            kernel.height, kernel.width
        ));
    }
    if !sigma.iter().all(|sigma| *sigma > 0.0 && sigma.is_finite()) {
        return setting(format!("gaussian_blur was given sigma {sigma:?}; it is above 0"));
    }
    Ok(())
}

/// `[size]`, with the sum 1.
fn gaussian(size: i64, sigma: f64) -> Result<Tensor, TchError> {
    let limit = (size - 1) as f64 / (2.0 * std::f64::consts::SQRT_2);
    let x = Tensor::f_linspace(-limit, limit, size, (Kind::Double, fulgurite_torch::tch::Device::Cpu))?;
    x.f_div_scalar(sigma)?.f_square()?.f_neg()?.f_softmax(0, None)
}

/// A copy with `value` (`[C, h, w]`, or anything that can be broadcast to it) in the rectangle from row `i` and column `j`.
pub fn erase(image: &Tensor, i: i64, j: i64, h: i64, w: i64, value: &Tensor) -> Result<Tensor, DataError> {
    let [_, height, width] = shape(image, "erase")?;
    if i < 0 || j < 0 || h < 0 || w < 0 || i.saturating_add(h) > height || j.saturating_add(w) > width {
        return setting(format!(
            "erase was given the rectangle of {h} x {w} at ({i}, {j}), which is not within an image of {height} x {width}"
        ));
    }
    run("erasing a part of an image", || {
        let erased = copied(image)?;
        erased.f_narrow(-2, i, h)?.f_narrow(-1, j, w)?.f_copy_(value)?;
        Ok(erased)
    })
}
