//! Random colors.

use derive_setters::Setters;
use fulgurite_torch::tch::Tensor;

use super::functional::{self, shape};
use super::{Interval, Transform, draw};
use crate::{DataError, ItemRng};

/// Random brightness, contrast, saturation and hue, in a random order; follows `torchvision.transforms.v2.ColorJitter`.
///
/// A single number `x` for brightness, contrast or saturation is a factor between `max(0, 1 - x)` and `1 + x`; for hue, a
/// shift between `-x` and `x`, within -0.5 and 0.5. Whatever is not set stays as it is.
#[derive(Debug, Clone, Default, Setters)]
#[setters(into, strip_option)]
pub struct ColorJitter {
    /// The range of the factor of brightness.
    brightness: Option<Interval>,
    /// The range of the factor of contrast.
    contrast: Option<Interval>,
    /// The range of the factor of saturation.
    saturation: Option<Interval>,
    /// The range of the shift of hue.
    hue: Option<Interval>,
}

type Adjust = fn(&Tensor, f64) -> Result<Tensor, DataError>;

/// An operation, and the range of its factor.
type Adjustment = (Adjust, Option<(f64, f64)>);

impl ColorJitter {
    /// Nothing yet.
    pub fn new() -> ColorJitter {
        ColorJitter::default()
    }

    /// The operations in torchvision's order, and the ranges of their factors.
    fn adjustments(&self) -> Result<[Adjustment; 4], DataError> {
        let factor = |interval: Option<Interval>| {
            let ends = |i: Interval| i.ends(|x| ((1.0 - x).max(0.0), 1.0 + x), (0.0, f64::MAX), "ColorJitter");
            interval.map(ends).transpose()
        };
        let hue = |i: Interval| i.ends(|x| (-x, x), (-0.5, 0.5), "ColorJitter's hue");
        Ok([
            (functional::adjust_brightness, factor(self.brightness)?),
            (functional::adjust_contrast, factor(self.contrast)?),
            (functional::adjust_saturation, factor(self.saturation)?),
            (functional::adjust_hue, self.hue.map(hue).transpose()?),
        ])
    }
}

impl Transform for ColorJitter {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let order = draw::permutation(rng, 4);
        let adjustments =
            self.adjustments()?.map(|(adjust, range)| range.map(|range| (adjust, draw::uniform(rng, range))));
        let adjustments = order.into_iter().filter_map(|at| adjustments[at]);
        adjustments.into_iter().try_fold(image, |image, (adjust, factor)| adjust(&image, factor))
    }
}

/// The lightness of three channels; follows `torchvision.transforms.v2.Grayscale`.
#[derive(Debug, Clone)]
pub struct Grayscale {
    num_output_channels: i64,
}

impl Grayscale {
    /// Makes `num_output_channels` equal channels, 1 or 3.
    pub fn new(num_output_channels: i64) -> Grayscale {
        Grayscale { num_output_channels }
    }
}

/// One channel.
impl Default for Grayscale {
    fn default() -> Grayscale {
        Grayscale::new(1)
    }
}

impl Transform for Grayscale {
    fn apply(&self, image: Tensor, _: &mut ItemRng) -> Result<Tensor, DataError> {
        functional::rgb_to_grayscale(&image, self.num_output_channels)
    }
}

/// Turns an image gray with the probability `p`, with as many channels as before; follows
/// `torchvision.transforms.v2.RandomGrayscale`.
#[derive(Debug, Clone)]
pub struct RandomGrayscale {
    p: f64,
}

impl RandomGrayscale {
    /// With the probability `p`.
    pub fn new(p: f64) -> RandomGrayscale {
        RandomGrayscale { p }
    }
}

/// With the probability 0.1.
impl Default for RandomGrayscale {
    fn default() -> RandomGrayscale {
        RandomGrayscale::new(0.1)
    }
}

impl Transform for RandomGrayscale {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let [channels, ..] = shape(&image, "RandomGrayscale")?;
        if !draw::happens(rng, self.p, "RandomGrayscale")? {
            return Ok(image);
        }
        functional::rgb_to_grayscale(&image, channels)
    }
}

/// Transforms that apply a function with the probability `p`.
macro_rules! with_probability {
    ($(#[$doc:meta])* $name:ident, |$self:ident, $image:ident| $apply:expr $(, $argument:ident: $type:ty, $about:literal)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($argument: $type,)?
            p: f64,
        }

        impl $name {
            #[doc = concat!("With the probability 0.5." $(, " ", $about)?)]
            #[allow(clippy::new_without_default, reason = "some need an argument")]
            pub fn new($($argument: $type)?) -> $name {
                $name { $($argument,)? p: 0.5 }
            }

            /// The probability.
            pub fn p(mut self, p: f64) -> $name {
                self.p = p;
                self
            }
        }

        impl Transform for $name {
            fn apply(&self, $image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
                let $self = self;
                if draw::happens(rng, $self.p, stringify!($name))? { $apply } else { Ok($image) }
            }
        }
    };
}

with_probability! {
    /// Black for white, with a probability; follows `torchvision.transforms.v2.RandomInvert`.
    RandomInvert, |this, image| functional::invert(&image)
}

with_probability! {
    /// Fewer bits per channel, with a probability; follows `torchvision.transforms.v2.RandomPosterize`.
    RandomPosterize, |this, image| functional::posterize(&image, this.bits), bits: i64, "Keeps `bits` bits, 0 to 8."
}

with_probability! {
    /// Inverts bright values, with a probability; follows `torchvision.transforms.v2.RandomSolarize`.
    RandomSolarize, |this, image| functional::solarize(&image, this.threshold),
    threshold: f64, "Inverts from `threshold` on, on the scale of the image (0 to 255 for bytes)."
}

with_probability! {
    /// Sharper or blurred, with a probability; follows `torchvision.transforms.v2.RandomAdjustSharpness`.
    RandomAdjustSharpness, |this, image| functional::adjust_sharpness(&image, this.sharpness_factor),
    sharpness_factor: f64, "Blurs with a factor below 1, sharpens above."
}

with_probability! {
    /// The whole range of each channel, with a probability; follows `torchvision.transforms.v2.RandomAutocontrast`.
    RandomAutocontrast, |this, image| functional::autocontrast(&image)
}

with_probability! {
    /// Flat histograms, with a probability; follows `torchvision.transforms.v2.RandomEqualize`.
    RandomEqualize, |this, image| functional::equalize(&image)
}
