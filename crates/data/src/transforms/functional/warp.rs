//! Rotation and affine transforms.

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use super::{Fill, InterpolationMode, flat_batch, float_kind, run, setting, shape, unflat_batch};
use crate::DataError;

/// Rows of a matrix that maps `(x, y, 1)` of the output to `(x, y)` of the input; the image's center is the origin.
type Matrix = [f64; 6];

/// The image turned by `angle` degrees clockwise, then moved by `translate` pixels (x, y), scaled, and sheared by `shear`
/// degrees (x, y) around `center` (x, y in pixels; default: the middle).
///
/// Pixels from outside get `fill`; without one they are zero, and with [`Bilinear`](InterpolationMode::Bilinear)
/// interpolation mixed with the edge, as in torchvision.
#[allow(clippy::too_many_arguments, reason = "torchvision's")]
pub fn affine(
    image: &Tensor,
    angle: f64,
    translate: [f64; 2],
    scale: f64,
    shear: [f64; 2],
    interpolation: InterpolationMode,
    fill: Option<&Fill>,
    center: Option<[f64; 2]>,
) -> Result<Tensor, DataError> {
    let [channels, height, width] = shape(image, "affine")?;
    if !(scale > 0.0 && scale.is_finite()) {
        return setting(format!("affine was given the scale {scale}; a scale is more than 0"));
    }
    check(interpolation, fill, channels, "affine")?;
    let matrix = inverse_affine_matrix(from_middle(center, height, width), angle, translate, scale, shear);
    run("transforming an image", || warp(image, matrix, [height, width], interpolation, fill))
}

/// The image turned by `angle` degrees counter-clockwise around `center` (x, y in pixels; default: the middle).
///
/// `expand` makes the output as large as the turned image; it supposes the middle as center.
pub fn rotate(
    image: &Tensor,
    angle: f64,
    interpolation: InterpolationMode,
    expand: bool,
    center: Option<[f64; 2]>,
    fill: Option<&Fill>,
) -> Result<Tensor, DataError> {
    let [channels, height, width] = shape(image, "rotate")?;
    if !angle.is_finite() {
        return setting(format!("rotate was given the angle {angle}"));
    }
    let angle = angle.rem_euclid(360.0);
    if let Some(quarters) = quarter_turns(angle, expand || height == width).filter(|_| center.is_none()) {
        return run("rotating an image", || image.f_rot90(quarters, [-2, -1]));
    }
    check(interpolation, fill, channels, "rotate")?;
    let matrix = inverse_affine_matrix(from_middle(center, height, width), -angle, [0.0, 0.0], 1.0, [0.0, 0.0]);
    let size = if expand { expanded_size(matrix, height, width) } else { [height, width] };
    run("rotating an image", || warp(image, matrix, size, interpolation, fill))
}

/// Quarters of a turn that need no interpolation.
fn quarter_turns(angle: f64, quarters_fit: bool) -> Option<i64> {
    match angle {
        0.0 => Some(0),
        180.0 => Some(2),
        90.0 if quarters_fit => Some(1),
        270.0 if quarters_fit => Some(3),
        _ => None,
    }
}

fn check(interpolation: InterpolationMode, fill: Option<&Fill>, channels: i64, name: &str) -> Result<(), DataError> {
    if !matches!(interpolation, InterpolationMode::Nearest | InterpolationMode::Bilinear) {
        return setting(format!("{name} interpolates with Nearest or Bilinear, but was given {interpolation:?}"));
    }
    fill.map_or(Ok(()), |fill| fill.check(channels, name))
}

fn from_middle(center: Option<[f64; 2]>, height: i64, width: i64) -> [f64; 2] {
    center.map_or([0.0, 0.0], |[x, y]| [x - width as f64 * 0.5, y - height as f64 * 0.5])
}

/// `torchvision.transforms.v2.functional._geometry._get_inverse_affine_matrix`: with the rotation, scale and shear
/// `RSS` around the center `C` and the translation `T`, this is `C * RSS^-1 * C^-1 * T^-1`.
fn inverse_affine_matrix([cx, cy]: [f64; 2], angle: f64, [tx, ty]: [f64; 2], scale: f64, shear: [f64; 2]) -> Matrix {
    let rotation = angle.to_radians();
    let [sx, sy] = shear.map(f64::to_radians);
    let a = (rotation - sy).cos() / sy.cos();
    let b = -(a * sx.tan() + rotation.sin());
    let c = (rotation - sy).sin() / sy.cos();
    let d = rotation.cos() - c * sx.tan();
    let [a, b, c, d] = [d / scale, -b / scale, -c / scale, a / scale];
    [a, b, cx - a * (cx + tx) - b * (cy + ty), c, d, cy - c * (cx + tx) - d * (cy + ty)]
}

/// Height and width that hold all corners.
fn expanded_size(matrix: Matrix, height: i64, width: i64) -> [i64; 2] {
    let (half_height, half_width) = (0.5 * height as f32, 0.5 * width as f32);
    let extent = |row: usize, half: f32| {
        let [a, b, c] = [matrix[row], matrix[row + 1], matrix[row + 2]].map(|value| value as f32);
        let corners = [(-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (1.0, -1.0)];
        let at = corners.map(|(x, y): (f32, f32)| x * half_width * a + y * half_height * b + c);
        let min = at.iter().copied().fold(f32::INFINITY, f32::min) + half;
        let max = at.iter().copied().fold(f32::NEG_INFINITY, f32::max) + half;
        // What is less than a ten-thousandth of a pixel is an error of rounding.
        let truncated = |value: f32| (value * 1e4).trunc() * 1e-4;
        (truncated(max).ceil() - truncated(min).floor()) as i64
    };
    [extent(3, half_height), extent(0, half_width)]
}

fn warp(
    image: &Tensor,
    matrix: Matrix,
    size: [i64; 2],
    interpolation: InterpolationMode,
    fill: Option<&Fill>,
) -> Result<Tensor, TchError> {
    let image_size = image.size();
    let [.., channels, height, width] = image_size[..] else { return Ok(image.shallow_clone()) };
    let (kind, float) = (image.kind(), float_kind(image.kind()));
    let flat = flat_batch(image, [channels, height, width])?.f_to_kind(float)?;
    let grid = sampling_grid(matrix, [height, width], size, (float, image.device()))?;
    let grid = grid.f_expand([flat.size()[0], -1, -1, -1], false)?;
    let nearest = interpolation == InterpolationMode::Nearest;
    let sample = |images: &Tensor| images.f_grid_sampler(&grid, i64::from(nearest), 0, false);
    let sampled = match fill {
        None => sample(&flat)?,
        Some(fill) => filled(&flat, fill, nearest, sample)?,
    };
    let sampled = if kind == float { sampled } else { sampled.f_round()?.f_to_kind(kind)? };
    unflat_batch(sampled, image)
}

/// Samples a mask as another channel: where it is below 1, the output is filled.
fn filled(
    flat: &Tensor,
    fill: &Fill,
    nearest: bool,
    sample: impl Fn(&Tensor) -> Result<Tensor, TchError>,
) -> Result<Tensor, TchError> {
    let channels = flat.size()[1];
    let mask = flat.f_narrow(1, 0, 1)?.f_ones_like()?;
    let sampled = sample(&Tensor::f_cat(&[flat, &mask], 1)?)?;
    let (image, mask) = (sampled.f_narrow(1, 0, channels)?, sampled.f_narrow(1, channels, 1)?);
    let color = fill.to_tensor(flat.kind(), flat.device())?;
    if nearest {
        return color.f_where_self(&mask.f_lt(0.5)?, &image);
    }
    image.f_sub(&color)?.f_mul_(&mask)?.f_add_(&color)
}

/// Where in the input, from -1 to 1, each pixel of the output comes from: `[1, H, W, 2]`.
fn sampling_grid(
    matrix: Matrix,
    [height, width]: [i64; 2],
    [rows, columns]: [i64; 2],
    options: (Kind, Device),
) -> Result<Tensor, TchError> {
    let centered = |len: i64| {
        Tensor::f_linspace((1.0 - len as f64) * 0.5, (len as f64 - 1.0) * 0.5, len, (Kind::Float, options.1))
    };
    let base = Tensor::f_ones([1, rows, columns, 3], options)?;
    base.f_select(3, 0)?.f_copy_(&centered(columns)?)?;
    base.f_select(3, 1)?.f_copy_(&centered(rows)?.f_unsqueeze(-1)?)?;
    let theta = Tensor::f_from_slice(&matrix)?.f_to_kind(options.0)?.f_to_device(options.1)?.f_view([1, 2, 3])?;
    let half = Tensor::f_from_slice(&[0.5 * width as f64, 0.5 * height as f64])?;
    let theta = theta.f_transpose(1, 2)?.f_div(&half.f_to_kind(options.0)?.f_to_device(options.1)?)?;
    base.f_view([1, rows * columns, 3])?.f_bmm(&theta)?.f_view([1, rows, columns, 2])
}
