//! Images as PNG.

use std::path::Path;

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use crate::loggers::LoggerError;

/// An encoded image.
#[derive(Debug)]
pub(super) struct Png {
    pub(super) width: u32,
    pub(super) height: u32,
    /// 1 for grey, 3 for RGB, 4 for RGBA.
    pub(super) channels: u8,
    pub(super) encoded: Vec<u8>,
}

impl Png {
    /// Encodes `[C, H, W]`, float in 0..=1 or `u8` in 0..=255. Floats outside the range are clipped, NaN is black.
    pub(super) fn encode(tag: &str, image: &Tensor) -> Result<Png, LoggerError> {
        let shape = image.size();
        let wrong_shape = || LoggerError::ImageShape { tag: tag.into(), shape: shape.clone() };
        let &[channels, height, width] = shape.as_slice() else { return Err(wrong_shape()) };
        let (channels, color) = match channels {
            1 => (1, png::ColorType::Grayscale),
            3 => (3, png::ColorType::Rgb),
            4 => (4, png::ColorType::Rgba),
            _ => return Err(wrong_shape()),
        };
        let (Ok(width @ 1..), Ok(height @ 1..)) = (u32::try_from(width), u32::try_from(height)) else {
            return Err(wrong_shape());
        };
        let pixels = pixels(image).map_err(LoggerError::tensor(tag))?;
        let mut encoded = Vec::new();
        let mut encoder = png::Encoder::new(&mut encoded, width, height);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
        written.map_err(|source| LoggerError::Png { tag: tag.into(), source })?;
        Ok(Png { width, height, channels, encoded })
    }
}

/// The pixels in row-major order, with interleaved channels.
fn pixels(image: &Tensor) -> Result<Vec<u8>, TchError> {
    let image = image.f_detach()?;
    let bytes = if image.kind() == Kind::Uint8 {
        image
    } else {
        let image = image.f_to_dtype(Kind::Float, false, false)?.f_mul_scalar(255.0)?;
        image.f_nan_to_num(0.0, 255.0, 0.0)?.f_clamp(0.0, 255.0)?.f_to_dtype(Kind::Uint8, false, false)?
    };
    Vec::try_from(&bytes.f_permute([1, 2, 0])?.f_to(Device::Cpu)?.f_reshape([-1])?)
}

/// Arranges images in a grid: `[N, C, H, W]` to `[C, rows, columns]` with `nrow` images side by side, each with `padding`
/// black pixels around it. A single image is returned without a border. Equivalent to `torchvision.utils.make_grid`,
/// except that greyscale images are not converted to RGB.
///
/// # Errors
///
/// Fails if `images` is not `[N, C, H, W]` with N of at least 1.
///
/// ```
/// use fulgurite_fabric::loggers::make_grid;
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let digits = Tensor::ones([10, 1, 8, 8], (Kind::Float, Device::Cpu));
/// assert_eq!(make_grid(&digits, 5, 2)?.size(), [1, 22, 52]);
/// # Ok::<(), fulgurite_fabric::loggers::LoggerError>(())
/// ```
pub fn make_grid(images: &Tensor, nrow: u32, padding: u32) -> Result<Tensor, LoggerError> {
    let shape = images.size();
    let (count, channels, height, width) = match shape[..] {
        [count, channels, height, width] if count > 0 => (count, channels, height, width),
        _ => return Err(LoggerError::GridShape { shape }),
    };
    let grid = || -> Result<Tensor, TchError> {
        if count == 1 {
            return images.f_select(0, 0);
        }
        let (padding, columns) = (i64::from(padding), i64::from(nrow).clamp(1, count));
        let rows = (count + columns - 1) / columns;
        let (pitch_y, pitch_x) = (height + padding, width + padding);
        let size = [channels, rows * pitch_y + padding, columns * pitch_x + padding];
        let grid = Tensor::f_zeros(size, (images.kind(), images.device()))?;
        for i in 0..count {
            let (y, x) = (i / columns * pitch_y + padding, i % columns * pitch_x + padding);
            let mut cell = grid.f_narrow(1, y, height)?.f_narrow(2, x, width)?;
            cell.f_copy_(&images.f_select(0, i)?)?;
        }
        Ok(grid)
    };
    fulgurite_torch::tch::no_grad(grid).map_err(LoggerError::tensor("grid"))
}

/// Writes an image, `[C, H, W]` (C of 1, 3 or 4), float in 0..=1 or `u8` in 0..=255, to a PNG file, whose folder is
/// created if necessary. Corresponds to `torchvision.utils.save_image`; [`make_grid`] combines several images.
///
/// # Errors
///
/// Fails if the tensor is not an image, or if the file cannot be written.
///
/// ```
/// use fulgurite_fabric::loggers::{make_grid, save_image};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let folder = tempfile::tempdir()?;
/// let digits = Tensor::rand([16, 1, 8, 8], (Kind::Float, Device::Cpu));
/// save_image(folder.path().join("digits.png"), &make_grid(&digits, 8, 2)?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_image(path: impl AsRef<Path>, image: &Tensor) -> Result<(), LoggerError> {
    let path = path.as_ref();
    let png = Png::encode(&path.to_string_lossy(), image)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(LoggerError::write("save_image", path))?;
    }
    std::fs::write(path, png.encoded).map_err(LoggerError::write("save_image", path))
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::tch::{Device, Kind, Tensor};

    use super::{Png, make_grid, pixels, save_image};

    #[test]
    fn floats_become_bytes_as_torch_makes_them() {
        let image = Tensor::from_slice(&[0.0_f32, 0.5, 1.0, -1.0, 2.0, f32::NAN]).reshape([3, 1, 2]);
        assert_eq!(pixels(&image).unwrap(), [0, 255, 255, 127, 0, 0]);
        let image = Tensor::arange(8, (Kind::Uint8, Device::Cpu)).reshape([4, 1, 2]);
        assert_eq!(pixels(&image).unwrap(), [0, 2, 4, 6, 1, 3, 5, 7]);
    }

    #[test]
    fn a_png_reads_back() {
        let image = Tensor::arange(24, (Kind::Uint8, Device::Cpu)).reshape([3, 2, 4]);
        let png = Png::encode("x", &image).unwrap();
        assert_eq!((png.width, png.height, png.channels), (4, 2, 3));
        let mut reader = png::Decoder::new(std::io::Cursor::new(&png.encoded)).read_info().unwrap();
        let mut read = vec![0; 24];
        reader.next_frame(&mut read).unwrap();
        assert_eq!(read, pixels(&image).unwrap());
    }

    #[test]
    fn an_image_is_saved_in_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/grey.png");
        let image = Tensor::from_slice(&[0.0_f32, 0.5, 1.0]).reshape([1, 1, 3]);
        save_image(&path, &image).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(std::fs::read(&path).unwrap())).read_info().unwrap();
        let mut read = vec![0; 3];
        reader.next_frame(&mut read).unwrap();
        assert_eq!(read, [0, 127, 255]);

        let error = save_image(path.join("c.png"), &image).unwrap_err();
        assert!(error.to_string().starts_with("save_image cannot write "), "{error}");
        assert!(save_image(&path, &image.squeeze()).is_err());
    }

    #[test]
    fn other_shapes_are_rejected() {
        for shape in [vec![2, 2], vec![2, 4, 4], vec![1, 1, 4, 4], vec![3, 0, 4]] {
            let error = Png::encode("val/x", &Tensor::zeros(&shape, (Kind::Float, Device::Cpu))).unwrap_err();
            let advice = "give one image as [C, H, W] with C of 1, 3 or 4";
            assert_eq!(error.to_string(), format!("image `val/x` has shape {shape:?}; {advice}"));
        }
    }

    #[test]
    fn images_are_laid_out_row_by_row() {
        let images = Tensor::from_slice(&[1.0_f32, 2.0, 3.0]).reshape([3, 1, 1, 1]);
        let grid = make_grid(&images, 2, 1).unwrap();
        let expected = [
            0.0_f32, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0,
            0.0, 0.0, 0.0, 0.0, 0.0,
        ];
        assert_eq!(grid, Tensor::from_slice(&expected).reshape([1, 5, 5]));
        assert_eq!(
            make_grid(&images.narrow(0, 1, 1), 8, 2).unwrap(),
            Tensor::from_slice(&[2.0_f32]).reshape([1, 1, 1])
        );
        let error = make_grid(&images.select(0, 0), 8, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a grid of images cannot be made from shape [1, 1, 1]; give [N, C, H, W] with N of at least 1"
        );
    }
}
