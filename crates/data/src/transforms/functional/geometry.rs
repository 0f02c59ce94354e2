//! Resizing, cropping, padding, flipping.

use fulgurite_torch::tch::{Kind, TchError, Tensor};

use super::{
    Fill, InterpolationMode, Padding, PaddingMode, ResizeSize, Size, bytes, flat_batch, is_float, run, setting, shape,
    unflat_batch,
};
use crate::DataError;

/// The image at another size.
///
/// `max_size` bounds the longer edge where `size` is the shorter one. `antialias` is torchvision's, `true` by default
/// there; of nearest pixels it means nothing.
pub fn resize(
    image: &Tensor,
    size: impl Into<ResizeSize>,
    interpolation: InterpolationMode,
    max_size: Option<i64>,
    antialias: bool,
) -> Result<Tensor, DataError> {
    let [channels, height, width] = shape(image, "resize")?;
    let new = size.into().of(height, width, max_size)?;
    if (new.height, new.width) == (height, width) {
        return Ok(image.shallow_clone());
    }
    if image.numel() == 0 {
        return setting(format!("resize was given an image without pixels, of shape {:?}", image.size()));
    }
    run("resizing an image", || {
        let kind = image.kind();
        // libtorch mistakes the order of the channels of bytes of one pixel.
        let bytes = kind == Kind::Uint8 && (new.height, new.width) != (1, 1);
        let native = bytes || matches!(kind, Kind::Float | Kind::Double);
        let flat = channels_last(flat_batch(image, [channels, height, width])?)?;
        let flat = if native { flat } else { flat.f_to_kind(Kind::Float)? };
        let mut resized = interpolate(&flat, new, interpolation, antialias)?;
        if !native {
            resized = if is_float(kind) { resized } else { resized.f_round()? }.f_to_kind(kind)?;
        }
        unflat_batch(resized, image)
    })
}

/// A single image whose channels come last in memory, as decoders make it, with strides from which libtorch sees that:
/// it then keeps the order, without a copy.
fn channels_last(flat: Tensor) -> Result<Tensor, TchError> {
    let (size, strides) = (flat.size(), flat.stride());
    let [_, channels, _, width] = size[..] else { return Ok(flat) };
    let is_last = size[0] == 1 && channels > 1 && strides[1..] == [1, channels * width, channels];
    if !is_last {
        return Ok(flat);
    }
    let strides = [flat.numel() as i64, strides[1], strides[2], strides[3]];
    flat.f_as_strided(&size, strides, None)
}

fn interpolate(
    flat: &Tensor,
    Size { height, width }: Size,
    interpolation: InterpolationMode,
    antialias: bool,
) -> Result<Tensor, TchError> {
    let size = [height, width];
    match (interpolation, antialias) {
        (InterpolationMode::Nearest, _) => flat.f_upsample_nearest2d(size, None, None),
        (InterpolationMode::NearestExact, _) => flat.f_internal_upsample_nearest_exact2d(size, None, None),
        (InterpolationMode::Bilinear, true) => flat.f_internal_upsample_bilinear2d_aa(size, false, None, None),
        (InterpolationMode::Bilinear, false) => flat.f_upsample_bilinear2d(size, false, None, None),
        (InterpolationMode::Bicubic, true) => flat.f_internal_upsample_bicubic2d_aa(size, false, None, None),
        (InterpolationMode::Bicubic, false) => flat.f_upsample_bicubic2d(size, false, None, None),
    }
}

/// The part of an image from `top` and `left` on, a view. What lies beyond the edges is zero.
pub fn crop(image: &Tensor, top: i64, left: i64, height: i64, width: i64) -> Result<Tensor, DataError> {
    let [_, rows, columns] = shape(image, "crop")?;
    Size { height, width }.check("crop")?;
    // The part that exists, and how much is missing before and after it.
    let part = |start: i64, len: i64, available: i64| {
        let begin = start.clamp(0, available);
        let end = start.saturating_add(len).clamp(0, available);
        let after = (start.saturating_add(len) - available.max(start)).max(0);
        (begin, end - begin, len - (end - begin) - after, after)
    };
    let (y, rows_kept, above, below) = part(top, height, rows);
    let (x, columns_kept, before, after) = part(left, width, columns);
    run("cropping an image", || {
        let kept = image.f_narrow(-2, y, rows_kept)?.f_narrow(-1, x, columns_kept)?;
        if (rows_kept, columns_kept) == (height, width) {
            return Ok(kept);
        }
        kept.f_pad([before, after, above, below], "constant", 0.0)
    })
}

/// [`crop`], then [`resize`] to `size`.
#[allow(clippy::too_many_arguments, reason = "torchvision's")]
pub fn resized_crop(
    image: &Tensor,
    top: i64,
    left: i64,
    height: i64,
    width: i64,
    size: impl Into<Size>,
    interpolation: InterpolationMode,
    antialias: bool,
) -> Result<Tensor, DataError> {
    let cropped = crop(image, top, left, height, width)?;
    resize(&cropped, size.into(), interpolation, None, antialias)
}

/// The middle of an image, a view. A smaller image is padded with zeros.
pub fn center_crop(image: &Tensor, size: impl Into<Size>) -> Result<Tensor, DataError> {
    let [_, height, width] = shape(image, "center_crop")?;
    let size = size.into().check("center_crop")?;
    let missing = |wanted: i64, available: i64| (wanted - available).max(0);
    let (x, y) = (missing(size.width, width), missing(size.height, height));
    let padding = Padding { left: x / 2, top: y / 2, right: (x + 1) / 2, bottom: (y + 1) / 2 };
    let padded = pad(image, padding, &Fill::default(), PaddingMode::Constant)?;
    let start = |wanted: i64, available: i64| ((available - wanted) as f64 / 2.0).round_ties_even() as i64;
    let (top, left) = (start(size.height, height + y), start(size.width, width + x));
    crop(&padded, top, left, size.height, size.width)
}

/// The four corners and the middle: top left, top right, bottom left, bottom right, center. Views.
pub fn five_crop(image: &Tensor, size: impl Into<Size>) -> Result<[Tensor; 5], DataError> {
    let [_, rows, columns] = shape(image, "five_crop")?;
    let size = size.into();
    check_crop(size, rows, columns, "five_crop")?;
    let at = |top, left| crop(image, top, left, size.height, size.width);
    let (bottom, right) = (rows - size.height, columns - size.width);
    Ok([at(0, 0)?, at(0, right)?, at(bottom, 0)?, at(bottom, right)?, center_crop(image, size)?])
}

pub(crate) fn check_crop(size: Size, rows: i64, columns: i64, name: &str) -> Result<(), DataError> {
    size.check(name)?;
    if size.height > rows || size.width > columns {
        return setting(format!(
            "{name} is to cut {} x {} out of an image of {rows} x {columns}; resize or pad it before",
            size.height, size.width
        ));
    }
    Ok(())
}

/// The image with more pixels around it; a negative number takes some away.
pub fn pad(
    image: &Tensor,
    padding: impl Into<Padding>,
    fill: &Fill,
    padding_mode: PaddingMode,
) -> Result<Tensor, DataError> {
    let shape @ [channels, height, width] = shape(image, "pad")?;
    let padding = padding.into();
    if padding == Padding::default() {
        return Ok(image.shallow_clone());
    }
    fill.check(channels, "pad")?;
    check_padding(padding, padding_mode, height, width)?;
    if padding_mode == PaddingMode::Symmetric {
        return run("padding an image", || symmetric(image, padding, height, width));
    }
    let name = match padding_mode {
        PaddingMode::Edge => "replicate",
        PaddingMode::Reflect => "reflect",
        _ => "constant",
    };
    run("padding an image", || {
        let kind = image.kind();
        let flat = flat_batch(image, shape)?;
        if padding_mode == PaddingMode::Constant {
            let value = fill.scalar();
            let mut padded = flat.f_pad(padding.to_torch(), name, value.unwrap_or(0.0))?;
            if value.is_none() {
                fill_border(&mut padded, padding, fill)?;
            }
            return unflat_batch(padded, image);
        }
        let padded = if is_float(kind) { flat } else { flat.f_to_kind(Kind::Float)? };
        unflat_batch(padded.f_pad(padding.to_torch(), name, None)?.f_to_kind(kind)?, image)
    })
}

fn check_padding(padding: Padding, mode: PaddingMode, height: i64, width: i64) -> Result<(), DataError> {
    let Padding { left, top, right, bottom } = padding;
    let most = match mode {
        PaddingMode::Constant | PaddingMode::Edge => i64::MAX,
        PaddingMode::Reflect => -1,
        PaddingMode::Symmetric => 0,
    };
    let too_far = |by: i64, edge: i64| most != i64::MAX && by > edge + most;
    if too_far(left.max(right), width) || too_far(top.max(bottom), height) {
        return setting(format!(
            "pad mirrors less than the image itself, but was given {padding:?} for an image of {height} x {width}"
        ));
    }
    let kept = |edge: i64, before: i64, after: i64| before.saturating_add(after).saturating_add(edge);
    if kept(height, top, bottom) < 1 || kept(width, left, right) < 1 {
        return setting(format!("pad leaves nothing of an image of {height} x {width} with {padding:?}"));
    }
    Ok(())
}

/// Colors the pixels that padding added.
fn fill_border(padded: &mut Tensor, padding: Padding, fill: &Fill) -> Result<(), TchError> {
    let color = fill.to_tensor(padded.kind(), padded.device())?;
    let (rows, columns) = (padded.size()[2], padded.size()[3]);
    let Padding { left, top, right, bottom } = padding;
    let border = [(-2, 0, top), (-1, 0, left), (-2, rows - bottom.max(0), bottom), (-1, columns - right.max(0), right)];
    for (dim, start, len) in border.into_iter().filter(|(_, _, len)| *len > 0) {
        padded.f_narrow(dim, start, len)?.f_copy_(&color)?;
    }
    Ok(())
}

fn symmetric(image: &Tensor, padding: Padding, height: i64, width: i64) -> Result<Tensor, TchError> {
    // `-1` is the first pixel again, `len` the last.
    let indices = |before: i64, len: i64, after: i64| {
        let mirrored = |at: i64| if at < 0 { -at - 1 } else { at.min(2 * len - 1 - at) };
        Tensor::f_from_slice(&(-before..len + after).map(mirrored).collect::<Vec<_>>())
    };
    let rows = indices(padding.top, height, padding.bottom)?.f_to_device(image.device())?;
    let columns = indices(padding.left, width, padding.right)?.f_to_device(image.device())?;
    image.f_index_select(-2, &rows)?.f_index_select(-1, &columns)
}

/// Left and right exchanged.
pub fn horizontal_flip(image: &Tensor) -> Result<Tensor, DataError> {
    shape(image, "horizontal_flip")?;
    run("flipping an image", || bytes::horizontal_flip(image).unwrap_or_else(|| image.f_flip([-1])))
}

/// Top and bottom exchanged.
pub fn vertical_flip(image: &Tensor) -> Result<Tensor, DataError> {
    shape(image, "vertical_flip")?;
    run("flipping an image", || image.f_flip([-2]))
}
