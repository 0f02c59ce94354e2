//! What depends on all values of an image.

use fulgurite_torch::tch::{Kind, Tensor};

use super::{float_kind, gray_or_rgb, max_value, misc, run, shape};
use crate::DataError;

/// Stretches each channel so that it has black and white. A channel of one value stays as it is.
pub fn autocontrast(image: &Tensor) -> Result<Tensor, DataError> {
    gray_or_rgb(image, "autocontrast")?;
    let white = max_value(image.kind(), "autocontrast")?;
    if image.numel() == 0 {
        return Ok(image.shallow_clone());
    }
    run("stretching contrast", || {
        let float = image.f_to_kind(float_kind(image.kind()))?;
        let (min, max) = (float.f_amin([-2, -1], true)?, float.f_amax([-2, -1], true)?);
        let flat = max.f_eq_tensor(&min)?;
        let scale = max.f_sub(&min)?.f_mul_scalar(1.0 / white)?.f_masked_fill(&flat, 1.0)?;
        let mut stretched = float.f_sub(&min.f_masked_fill(&flat, 0.0)?)?.f_div(&scale)?;
        stretched.f_clamp_(0.0, white)?.f_to_kind(image.kind())
    })
}

/// Gives each channel a histogram that is about flat, by PIL's rule.
pub fn equalize(image: &Tensor) -> Result<Tensor, DataError> {
    let [_, height, width] = shape(image, "equalize")?;
    if image.numel() == 0 {
        return Ok(image.shallow_clone());
    }
    let bytes = misc::to_dtype(image, Kind::Uint8, true)?;
    let equalized = run("equalizing an image", || {
        let pixels = bytes.f_flatten(-2, -1)?.f_to_kind(Kind::Int64)?;
        let mut size = pixels.size();
        let last = size.len() - 1;
        size[last] = 256;
        let mut histogram = Tensor::f_zeros(&size, (Kind::Int64, image.device()))?;
        let _ = histogram.f_scatter_add_(-1, &pixels, &pixels.f_ones_like()?)?;
        let cumulative = histogram.f_cumsum(-1, None)?;
        // The first bin that has all pixels is that of the largest value.
        let brightest = histogram.f_gather(-1, &cumulative.f_argmax(-1, true)?, false)?;
        let step = brightest.f_neg()?.f_add_scalar(height * width)?.f_div_scalar_mode(255, "floor")?;
        let half = step.f_div_scalar_mode(2, "floor")?;
        let mut levels =
            cumulative.f_narrow(-1, 0, 255)?.f_add(&half)?.f_div_tensor_mode(&step.f_clamp_min(1)?, "floor")?;
        let levels = levels.f_clamp_(0, 255)?;
        let table = Tensor::f_cat(&[half.f_zeros_like()?, levels], -1)?.f_to_kind(Kind::Uint8)?;
        let mapped = table.f_gather(-1, &pixels, false)?.f_view_as(&bytes)?;
        mapped.f_where_self(&step.f_ne(0)?.f_unsqueeze(-1)?, &bytes)
    })?;
    misc::to_dtype(&equalized, image.kind(), true)
}
