//! Colors.

use fulgurite_torch::tch::{Kind, TchError, Tensor};

use super::{
    copied, float_kind, gray_or_rgb, is_float, max_value, misc, not_negative, run, setting, shape, value_bits,
};
use crate::DataError;

/// The lightness of three channels as `num_output_channels` (1 or 3) equal ones: `0.2989 R + 0.587 G + 0.114 B`.
pub fn rgb_to_grayscale(image: &Tensor, num_output_channels: i64) -> Result<Tensor, DataError> {
    let [channels, ..] = gray_or_rgb(image, "rgb_to_grayscale")?;
    if num_output_channels != 1 && num_output_channels != 3 {
        return setting(format!("rgb_to_grayscale makes 1 or 3 channels, but was asked for {num_output_channels}"));
    }
    run("turning an image gray", || {
        let gray = if channels == 1 { image.shallow_clone() } else { lightness(image)?.f_to_kind(image.kind())? };
        if num_output_channels == 1 {
            return Ok(gray);
        }
        let mut size = gray.size();
        let channel = size.len() - 3;
        size[channel] = 3;
        gray.f_expand(size, false)
    })
}

/// `[.., 1, H, W]` of floating-point numbers.
fn lightness(image: &Tensor) -> Result<Tensor, TchError> {
    let channel = |at: i64, weight: f64| image.f_narrow(-3, at, 1)?.f_mul_scalar(weight);
    channel(0, 0.2989)?.f_add_(&channel(1, 0.587)?)?.f_add_(&channel(2, 0.114)?)
}

/// [`lightness`], of an image of integers in whole numbers, as PIL has it.
fn whole_lightness(image: &Tensor) -> Result<Tensor, TchError> {
    let mut gray = lightness(image)?;
    if is_float(image.kind()) { Ok(gray) } else { gray.f_floor_() }
}

/// `image * ratio + other * (1 - ratio)`, within what the kind can show.
fn blend(image: &Tensor, other: &Tensor, ratio: f64, white: f64) -> Result<Tensor, TchError> {
    let mut mixed = image.f_mul_scalar(ratio)?.f_add_(&other.f_mul_scalar(1.0 - ratio)?)?;
    mixed.f_clamp_(0.0, white)?.f_to_kind(image.kind())
}

/// Brighter with a factor above 1, darker below; 0 is black.
pub fn adjust_brightness(image: &Tensor, brightness_factor: f64) -> Result<Tensor, DataError> {
    gray_or_rgb(image, "adjust_brightness")?;
    not_negative(brightness_factor, "adjust_brightness")?;
    let white = max_value(image.kind(), "adjust_brightness")?;
    run("adjusting brightness", || image.f_mul_scalar(brightness_factor)?.f_clamp_(0.0, white)?.f_to_kind(image.kind()))
}

/// More contrast with a factor above 1, less below; 0 is the mean lightness everywhere.
pub fn adjust_contrast(image: &Tensor, contrast_factor: f64) -> Result<Tensor, DataError> {
    let [channels, ..] = gray_or_rgb(image, "adjust_contrast")?;
    not_negative(contrast_factor, "adjust_contrast")?;
    let white = max_value(image.kind(), "adjust_contrast")?;
    run("adjusting contrast", || {
        let gray = if channels == 3 { whole_lightness(image)? } else { image.f_to_kind(float_kind(image.kind()))? };
        let mean = gray.f_mean_dim([-3i64, -2, -1].as_slice(), true, None)?;
        blend(image, &mean, contrast_factor, white)
    })
}

/// More color with a factor above 1, less below; 0 is gray. One channel stays as it is.
pub fn adjust_saturation(image: &Tensor, saturation_factor: f64) -> Result<Tensor, DataError> {
    let [channels, ..] = gray_or_rgb(image, "adjust_saturation")?;
    not_negative(saturation_factor, "adjust_saturation")?;
    let white = max_value(image.kind(), "adjust_saturation")?;
    if channels == 1 {
        return Ok(image.shallow_clone());
    }
    run("adjusting saturation", || blend(image, &whole_lightness(image)?, saturation_factor, white))
}

/// Moves hues by `hue_factor` turns of the color circle, -0.5 to 0.5. One channel stays as it is.
pub fn adjust_hue(image: &Tensor, hue_factor: f64) -> Result<Tensor, DataError> {
    let [channels, ..] = gray_or_rgb(image, "adjust_hue")?;
    if !(-0.5..=0.5).contains(&hue_factor) {
        return setting(format!("adjust_hue was given the factor {hue_factor}; it is between -0.5 and 0.5"));
    }
    if channels == 1 || image.numel() == 0 {
        return Ok(image.shallow_clone());
    }
    let float = misc::to_dtype(image, Kind::Float, true)?;
    let turned = run("adjusting hue", || {
        let [hue, saturation, value] = rgb_to_hsv(&float)?;
        hsv_to_rgb(hue.f_add_scalar(hue_factor)?.f_remainder_(1.0)?, &saturation, &value)
    })?;
    misc::to_dtype(&turned, image.kind(), true)
}

/// Hue, saturation and value, each `[.., H, W]`.
fn rgb_to_hsv(image: &Tensor) -> Result<[Tensor; 3], TchError> {
    let [r, g] = [image.f_select(-3, 0)?, image.f_select(-3, 1)?];
    let (min, max) = image.f_aminmax(-3, false)?;
    // Where all channels are equal, saturation is 0 and hue irrelevant; no division by 0 there.
    let gray = max.f_eq_tensor(&min)?;
    let (range, ones) = (max.f_sub(&min)?, max.f_ones_like()?);
    let saturation = range.f_div(&ones.f_where_self(&gray, &max)?)?;
    let divisor = ones.f_where_self(&gray, &range)?.f_unsqueeze(-3)?;
    let distance = max.f_unsqueeze(-3)?.f_sub(image)?.f_div(&divisor)?;
    let [rc, gc, bc] = [distance.f_select(-3, 0)?, distance.f_select(-3, 1)?, distance.f_select(-3, 2)?];
    let (is_red, is_green) = (max.f_eq_tensor(&r)?, max.f_eq_tensor(&g)?);
    let of_red = bc.f_sub(&gc)?;
    let of_green = rc.f_add_scalar(2.0)?.f_sub_(&bc)?;
    let of_blue = gc.f_add_scalar(4.0)?.f_sub_(&rc)?;
    let hue = of_red.f_where_self(&is_red, &of_green.f_where_self(&is_green, &of_blue)?)?;
    let hue = hue.f_mul_scalar(1.0 / 6.0)?.f_add_scalar(1.0)?.f_fmod_(1.0)?;
    Ok([hue, saturation, max])
}

/// `[.., 3, H, W]`.
fn hsv_to_rgb(hue: Tensor, saturation: &Tensor, value: &Tensor) -> Result<Tensor, TchError> {
    let sixths = hue.f_mul_scalar(6.0)?;
    let sector = sixths.f_floor()?;
    let fraction = sixths.f_sub(&sector)?;
    let part = saturation.f_mul(&fraction)?;
    let rest = saturation.f_neg()?.f_add_scalar(1.0)?;
    let times_value = |t: Tensor| t.f_mul(value)?.f_clamp(0.0, 1.0);
    let q = times_value(part.f_neg()?.f_add_scalar(1.0)?)?;
    let t = times_value(part.f_add(&rest)?)?;
    let p = times_value(rest)?;
    let choices = Tensor::f_stack(&[value, &p, &q, &t], -3)?;
    // Of v, p, q and t, what red, green and blue are in each sixth of the circle.
    let table = [0i64, 2, 1, 1, 3, 0, 3, 0, 0, 2, 1, 1, 1, 1, 3, 0, 0, 2];
    let table = Tensor::f_from_slice(&table)?.f_view([3, 6])?.f_to_device(hue.device())?;
    let sector = sector.f_to_kind(Kind::Int64)?.f_remainder(6)?;
    let chosen = table.f_index_select(1, &sector.f_flatten(0, -1)?)?;
    let chosen = chosen.f_reshape([&[3][..], &sector.size()].concat())?.f_moveaxis_int(0, -3)?;
    choices.f_gather(-3, &chosen, false)
}

/// Sharper with a factor above 1, blurred below. Images of up to two rows or columns stay as they are.
pub fn adjust_sharpness(image: &Tensor, sharpness_factor: f64) -> Result<Tensor, DataError> {
    let shape @ [channels, height, width] = gray_or_rgb(image, "adjust_sharpness")?;
    not_negative(sharpness_factor, "adjust_sharpness")?;
    let white = max_value(image.kind(), "adjust_sharpness")?;
    if image.numel() == 0 || height <= 2 || width <= 2 {
        return Ok(image.shallow_clone());
    }
    run("adjusting sharpness", || {
        let kind = image.kind();
        let float = float_kind(kind);
        let flat = super::flat_batch(image, shape)?.f_to_kind(float)?;
        let kernel = Tensor::f_full([channels, 1, 3, 3], 1.0 / 13.0, (float, image.device()))?;
        let _ = kernel.f_select(2, 1)?.f_select(2, 1)?.f_fill_(5.0 / 13.0)?;
        let blurred = flat.f_conv2d(&kernel, None::<Tensor>, [1, 1], [0, 0], [1, 1], channels)?;
        let mut blurred = if kind == float { blurred } else { blurred.f_round()? };
        // The border stays.
        let mut sharpened = copied(&flat)?;
        let mut middle = sharpened.f_narrow(2, 1, height - 2)?.f_narrow(3, 1, width - 2)?;
        let difference = blurred.f_sub_(&middle)?.f_mul_scalar(1.0 - sharpness_factor)?;
        let _ = middle.f_add_(&difference)?;
        super::unflat_batch(sharpened.f_clamp_(0.0, white)?.f_to_kind(kind)?, image)
    })
}

/// Black for white.
pub fn invert(image: &Tensor) -> Result<Tensor, DataError> {
    shape(image, "invert")?;
    let kind = image.kind();
    let white = if is_float(kind) { 0 } else { (1u64 << value_bits(kind, "invert")?) as i64 };
    run("inverting an image", || match kind {
        Kind::Uint8 => image.f_bitwise_not(),
        _ if is_float(kind) => image.f_neg()?.f_add_scalar(1.0),
        _ => image.f_bitwise_xor(white.wrapping_sub(1)),
    })
}

/// Keeps the `bits` highest bits of each value, 0 to 8.
pub fn posterize(image: &Tensor, bits: i64) -> Result<Tensor, DataError> {
    shape(image, "posterize")?;
    if !(0..=8).contains(&bits) {
        return setting(format!("posterize was given {bits} bits; it keeps 0 to 8"));
    }
    let kind = image.kind();
    if is_float(kind) {
        let levels = (1i64 << bits) as f64;
        return run("posterizing an image", || {
            let mut steps = image.f_mul_scalar(levels)?;
            steps.f_floor_()?.f_clamp_(0.0, levels - 1.0)?.f_mul_scalar(1.0 / levels)
        });
    }
    let available = i64::from(value_bits(kind, "posterize")?);
    if bits >= available {
        return Ok(image.shallow_clone());
    }
    run("posterizing an image", || image.f_bitwise_and(((1i64 << bits) - 1) << (available - bits)))
}

/// Inverts the values from `threshold` on, which is on the scale of the image (0 to 255 for bytes).
pub fn solarize(image: &Tensor, threshold: f64) -> Result<Tensor, DataError> {
    shape(image, "solarize")?;
    let white = max_value(image.kind(), "solarize")?;
    if threshold.is_nan() || threshold > white {
        return setting(format!(
            "solarize was given the threshold {threshold}, but the largest value of {:?} is {white}",
            image.kind()
        ));
    }
    let inverted = invert(image)?;
    run("solarizing an image", || inverted.f_where_self(&image.f_ge(threshold)?, image))
}
