//! Kinds and normalization, blur, erasing.

use derive_setters::Setters;
use fulgurite_torch::tch::{Kind, Tensor};

use super::functional::{self, run, setting, shape};
use super::{Interval, Size, Transform, draw};
use crate::{DataError, ItemRng};

/// Another kind of numbers; follows `torchvision.transforms.v2.ToDtype` and `ConvertImageDtype`.
#[derive(Debug, Clone)]
pub struct ToDtype {
    dtype: Kind,
    scale: bool,
}

impl ToDtype {
    /// Converts to `dtype`; the numbers stay, as torchvision's `scale=False`.
    pub fn new(dtype: Kind) -> ToDtype {
        ToDtype { dtype, scale: false }
    }

    /// Converts to `dtype`; white stays white: bytes from 0 to 255 become floating-point numbers from 0 to 1. This is
    /// torchvision's `scale=True`.
    pub fn scaled(dtype: Kind) -> ToDtype {
        ToDtype { dtype, scale: true }
    }
}

impl Transform for ToDtype {
    fn apply(&self, image: Tensor, _: &mut ItemRng) -> Result<Tensor, DataError> {
        functional::to_dtype(&image, self.dtype, self.scale)
    }
}

/// `(image - mean) / std` of each channel; follows `torchvision.transforms.v2.Normalize`.
///
/// It takes floating-point numbers: [`ToDtype`] comes before it.
#[derive(Debug, Clone)]
pub struct Normalize {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Normalize {
    /// One mean and one standard deviation per channel, or for all.
    ///
    /// ```
    /// use fulgurite_data::transforms::Normalize;
    ///
    /// let imagenet = Normalize::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    /// let digits = Normalize::new([0.1307], [0.3081]);
    /// # let _ = (imagenet, digits);
    /// ```
    pub fn new(mean: impl Into<Vec<f64>>, std: impl Into<Vec<f64>>) -> Normalize {
        Normalize { mean: mean.into(), std: std.into() }
    }
}

impl Transform for Normalize {
    fn apply(&self, image: Tensor, _: &mut ItemRng) -> Result<Tensor, DataError> {
        functional::normalize_owned(image, &self.mean, &self.std)
    }
}

/// A blur of random strength; follows `torchvision.transforms.v2.GaussianBlur`.
#[derive(Debug, Clone, Setters)]
pub struct GaussianBlur {
    #[setters(skip)]
    kernel_size: Size,
    /// The standard deviation in pixels: one, or a range. Default: 0.1 to 2.
    #[setters(into)]
    sigma: Interval,
}

impl GaussianBlur {
    /// With a kernel of `kernel_size`, which is odd: one number, or height and width.
    pub fn new(kernel_size: impl Into<Size>) -> GaussianBlur {
        GaussianBlur { kernel_size: kernel_size.into(), sigma: Interval::Between(0.1, 2.0) }
    }
}

impl Transform for GaussianBlur {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let range = self.sigma.ends(|sigma| (sigma, sigma), (f64::MIN_POSITIVE, f64::MAX), "GaussianBlur's sigma")?;
        let sigma = draw::uniform(rng, range);
        functional::gaussian_blur(&image, self.kernel_size, [sigma, sigma])
    }
}

/// What [`RandomErasing`] puts in place.
#[derive(Debug, Clone, PartialEq)]
pub enum ErasingValue {
    /// One value for all channels, or one for each.
    Value(Vec<f64>),
    /// Numbers of the standard normal distribution; torchvision's `"random"`.
    Random,
}

impl From<f64> for ErasingValue {
    fn from(value: f64) -> ErasingValue {
        ErasingValue::Value(vec![value])
    }
}

impl<const N: usize> From<[f64; N]> for ErasingValue {
    fn from(channels: [f64; N]) -> ErasingValue {
        ErasingValue::Value(channels.to_vec())
    }
}

/// Erases a rectangle of random size and place, with a probability; follows `torchvision.transforms.v2.RandomErasing`
/// (Zhong et al., "Random Erasing Data Augmentation").
#[derive(Debug, Clone, Setters)]
pub struct RandomErasing {
    /// The probability. Default: 0.5.
    p: f64,
    /// The smallest and the largest part of the area. Default: 0.02 and 0.33.
    scale: (f64, f64),
    /// The smallest and the largest ratio of height to width. Default: 0.3 and 3.3.
    ratio: (f64, f64),
    /// What comes in place. Default: 0.
    #[setters(into)]
    value: ErasingValue,
}

impl Default for RandomErasing {
    fn default() -> RandomErasing {
        RandomErasing { p: 0.5, scale: (0.02, 0.33), ratio: (0.3, 3.3), value: 0.0.into() }
    }
}

impl RandomErasing {
    /// With the defaults.
    pub fn new() -> RandomErasing {
        RandomErasing::default()
    }

    /// Top, left, height and width, or nothing if ten attempts do not fit.
    fn rectangle(&self, height: i64, width: i64, rng: &mut ItemRng) -> Option<[i64; 4]> {
        let area = (height * width) as f64;
        for _ in 0..10 {
            let area = area * draw::uniform(rng, self.scale);
            let ratio = draw::uniform(rng, (self.ratio.0.ln(), self.ratio.1.ln())).exp();
            let h = (area * ratio).sqrt().round_ties_even() as i64;
            let w = (area / ratio).sqrt().round_ties_even() as i64;
            if h < height && w < width {
                return Some([draw::index(rng, height - h + 1), draw::index(rng, width - w + 1), h, w]);
            }
        }
        None
    }

    fn check(&self, channels: i64) -> Result<(), DataError> {
        let ((low, high), (narrow, wide)) = (self.scale, self.ratio);
        if !(0.0 <= low && low <= high && high <= 1.0 && 0.0 < narrow && narrow <= wide && wide.is_finite()) {
            return setting(format!(
                "RandomErasing was given scale {:?} and ratio {:?}; both are ranges in order, scale within 0 and 1, ratio \
                 above 0",
                self.scale, self.ratio
            ));
        }
        match &self.value {
            ErasingValue::Value(values) if values.len() != 1 && values.len() as i64 != channels => {
                setting(format!("RandomErasing was given {} values for an image of {channels} channels", values.len()))
            }
            _ => Ok(()),
        }
    }
}

impl Transform for RandomErasing {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let [channels, height, width] = shape(&image, "RandomErasing")?;
        self.check(channels)?;
        if !draw::happens(rng, self.p, "RandomErasing")? {
            return Ok(image);
        }
        let Some([i, j, h, w]) = self.rectangle(height, width, rng) else { return Ok(image) };
        let (values, size) = match &self.value {
            ErasingValue::Value(values) => (values.clone(), [-1, 1, 1]),
            ErasingValue::Random => {
                (Vec::from_iter((0..channels * h * w).map(|_| draw::normal(rng))), [channels, h, w])
            }
        };
        let value = run("erasing a part of an image", || Tensor::f_from_slice(&values)?.f_view(size))?;
        functional::erase(&image, i, j, h, w, &value)
    }
}
