//! Bytes whose channels come last in memory, as decoders make them. What libtorch does with such an image value by value
//! is done here row by row; the results are the same.

use std::cell::RefCell;

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

thread_local! {
    /// Reused by the images of a worker: fresh memory costs as much as what is done with it.
    static BUFFERS: RefCell<(Vec<u8>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// What is kept in [`BUFFERS`] for the next image.
const KEPT: usize = 1 << 24;

/// Whether this is a single image of bytes on the CPU whose three channels come last in memory.
fn is_interleaved(image: &Tensor) -> bool {
    let is_bytes = image.kind() == Kind::Uint8 && image.device() == Device::Cpu;
    is_bytes && image.dim() == 3 && image.size()[0] == 3 && image.stride()[0] == 1
}

/// Calls `f` with the pixels, row by row, their number, and a buffer.
fn with_pixels<T>(
    image: &Tensor,
    f: impl FnOnce(&mut [u8], usize, &mut Vec<f32>) -> Result<T, TchError>,
) -> Result<T, TchError> {
    BUFFERS.with_borrow_mut(|(bytes, floats)| {
        let rows = image.f_permute([1, 2, 0])?.f_contiguous()?;
        bytes.resize(rows.numel(), 0);
        rows.f_copy_data(bytes, rows.numel())?;
        let made = f(bytes, rows.numel() / 3, floats);
        if bytes.len() > KEPT {
            (*bytes, *floats) = (Vec::new(), Vec::new());
        }
        made
    })
}

/// The image as floating-point numbers from 0 to 1 whose channels come first; nothing if it is laid out in another way.
pub(super) fn scaled_floats(image: &Tensor) -> Option<Result<Tensor, TchError>> {
    is_interleaved(image).then(|| {
        with_pixels(image, |bytes, pixels, floats| {
            floats.resize(bytes.len(), 0.0);
            let scale = (1.0 / 255.0) as f32;
            let (red, others) = floats.split_at_mut(pixels);
            let (green, blue) = others.split_at_mut(pixels);
            let planes = red.iter_mut().zip(green).zip(blue);
            for (((red, green), blue), pixel) in planes.zip(bytes.as_chunks::<3>().0) {
                *red = f32::from(pixel[0]) * scale;
                *green = f32::from(pixel[1]) * scale;
                *blue = f32::from(pixel[2]) * scale;
            }
            Tensor::f_from_slice(floats)?.f_view(image.size().as_slice())
        })
    })
}

/// Left and right exchanged, in the same layout; nothing if that is another one.
pub(super) fn horizontal_flip(image: &Tensor) -> Option<Result<Tensor, TchError>> {
    is_interleaved(image).then(|| {
        let size = image.size();
        with_pixels(image, |bytes, _, _| {
            let width = size[2] as usize;
            if width > 0 {
                let (pixels, _) = bytes.as_chunks_mut::<3>();
                pixels.chunks_exact_mut(width).for_each(<[_]>::reverse);
            }
            Tensor::f_from_data_size(bytes, &[size[1], size[2], 3], Kind::Uint8)?.f_permute([2, 0, 1])
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_bytes_give_what_libtorch_makes_of_them() {
        let rows = Tensor::randint(256, [7, 9, 3], (Kind::Uint8, Device::Cpu));
        let whole = rows.permute([2, 0, 1]);
        for image in [whole.narrow(1, 2, 4).narrow(2, 1, 7), whole.narrow(1, 0, 0), whole] {
            let expected = image.contiguous();
            assert!(scaled_floats(&expected).is_none() || image.numel() == 0);
            let floats = scaled_floats(&image).unwrap().unwrap();
            assert_eq!(floats, expected.to_kind(Kind::Float) * (1.0 / 255.0));
            assert!(floats.is_contiguous());
            assert_eq!(horizontal_flip(&image).unwrap().unwrap(), expected.flip([2]));
        }
    }
}
