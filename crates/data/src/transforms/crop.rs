//! Crops.

use derive_setters::Setters;
use fulgurite_torch::tch::Tensor;

use super::functional::{self, check_crop, run, setting, shape};
use super::{Fill, InterpolationMode, Padding, PaddingMode, Size, Transform, draw};
use crate::{DataError, ItemRng};

/// The middle of an image; follows `torchvision.transforms.v2.CenterCrop`. A smaller image is padded with zeros.
#[derive(Debug, Clone)]
pub struct CenterCrop {
    size: Size,
}

impl CenterCrop {
    /// Cuts out `size`: one number, or height and width.
    pub fn new(size: impl Into<Size>) -> CenterCrop {
        CenterCrop { size: size.into() }
    }
}

impl Transform for CenterCrop {
    fn apply(&self, image: Tensor, _: &mut ItemRng) -> Result<Tensor, DataError> {
        functional::center_crop(&image, self.size)
    }
}

/// The four corners and the middle of an image, as one tensor `[5, .., C, H, W]`; follows
/// `torchvision.transforms.v2.FiveCrop`.
#[derive(Debug, Clone)]
pub struct FiveCrop {
    size: Size,
}

impl FiveCrop {
    /// Cuts out `size`: one number, or height and width.
    pub fn new(size: impl Into<Size>) -> FiveCrop {
        FiveCrop { size: size.into() }
    }
}

impl Transform for FiveCrop {
    fn apply(&self, image: Tensor, _: &mut ItemRng) -> Result<Tensor, DataError> {
        let crops = functional::five_crop(&image, self.size)?;
        run("stacking five crops", || Tensor::f_stack(&crops, 0))
    }
}

/// A part of an image at a random place; follows `torchvision.transforms.v2.RandomCrop`.
#[derive(Debug, Clone, Setters)]
pub struct RandomCrop {
    #[setters(skip)]
    size: Size,
    /// What is added around the image before. Default: nothing.
    #[setters(into)]
    padding: Padding,
    /// Pads an image that is too small by what it lacks, on both sides. Default: `false`.
    pad_if_needed: bool,
    /// The color of what is added. Default: 0.
    #[setters(into)]
    fill: Fill,
    /// What is added. Default: a color.
    padding_mode: PaddingMode,
}

impl RandomCrop {
    /// Cuts out `size`: one number, or height and width.
    pub fn new(size: impl Into<Size>) -> RandomCrop {
        RandomCrop {
            size: size.into(),
            padding: Padding::default(),
            pad_if_needed: false,
            fill: Fill::default(),
            padding_mode: PaddingMode::default(),
        }
    }

    /// The padding, with what the image lacks.
    fn padding_for(&self, height: i64, width: i64) -> Padding {
        let mut padding = self.padding;
        if self.pad_if_needed {
            let missing = |wanted: i64, available: i64| (wanted - available).max(0);
            let rows = missing(self.size.height, height + padding.top + padding.bottom);
            let columns = missing(self.size.width, width + padding.left + padding.right);
            padding.top += rows;
            padding.bottom += rows;
            padding.left += columns;
            padding.right += columns;
        }
        padding
    }
}

impl Transform for RandomCrop {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let [_, height, width] = shape(&image, "RandomCrop")?;
        let padding = self.padding_for(height, width);
        let image = functional::pad(&image, padding, &self.fill, self.padding_mode)?;
        let [_, height, width] = shape(&image, "RandomCrop")?;
        check_crop(self.size, height, width, "RandomCrop")?;
        let top = draw::index(rng, height - self.size.height + 1);
        let left = draw::index(rng, width - self.size.width + 1);
        functional::crop(&image, top, left, self.size.height, self.size.width)
    }
}

/// A part of an image of random area, shape and place, at one size; follows `torchvision.transforms.v2.RandomResizedCrop`.
#[derive(Debug, Clone, Setters)]
pub struct RandomResizedCrop {
    #[setters(skip)]
    size: Size,
    /// The smallest and the largest part of the area. Default: 0.08 and 1.
    scale: (f64, f64),
    /// The smallest and the largest ratio of width to height. Default: 3/4 and 4/3.
    ratio: (f64, f64),
    /// Default: bilinear.
    interpolation: InterpolationMode,
    /// Default: `true`.
    antialias: bool,
}

impl RandomResizedCrop {
    /// Makes images of `size`: one number, or height and width.
    pub fn new(size: impl Into<Size>) -> RandomResizedCrop {
        RandomResizedCrop {
            size: size.into(),
            scale: (0.08, 1.0),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
            interpolation: InterpolationMode::Bilinear,
            antialias: true,
        }
    }

    /// Top, left, height and width of the part.
    fn part(&self, height: i64, width: i64, rng: &mut ItemRng) -> [i64; 4] {
        let area = (height * width) as f64;
        let log_ratio = (self.ratio.0.ln(), self.ratio.1.ln());
        for _ in 0..10 {
            let area = area * draw::uniform(rng, self.scale);
            let ratio = draw::uniform(rng, log_ratio).exp();
            let w = (area * ratio).sqrt().round_ties_even() as i64;
            let h = (area / ratio).sqrt().round_ties_even() as i64;
            if 0 < w && w <= width && 0 < h && h <= height {
                return [draw::index(rng, height - h + 1), draw::index(rng, width - w + 1), h, w];
            }
        }
        let ratio = width as f64 / height as f64;
        let (h, w) = if ratio < self.ratio.0 {
            ((width as f64 / self.ratio.0).round_ties_even() as i64, width)
        } else if ratio > self.ratio.1 {
            (height, (height as f64 * self.ratio.1).round_ties_even() as i64)
        } else {
            (height, width)
        };
        [(height - h) / 2, (width - w) / 2, h.max(1), w.max(1)]
    }
}

impl Transform for RandomResizedCrop {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let [_, height, width] = shape(&image, "RandomResizedCrop")?;
        let ordered = |(low, high): (f64, f64)| low > 0.0 && low <= high && high.is_finite();
        if !ordered(self.scale) || self.scale.1 > 1.0 || !ordered(self.ratio) {
            return setting(format!(
                "RandomResizedCrop was given scale {:?} and ratio {:?}; both are ranges in order and above 0, and scale is \
                 at most 1",
                self.scale, self.ratio
            ));
        }
        let [top, left, h, w] = self.part(height.max(1), width.max(1), rng);
        functional::resized_crop(&image, top, left, h, w, self.size, self.interpolation, self.antialias)
    }
}
