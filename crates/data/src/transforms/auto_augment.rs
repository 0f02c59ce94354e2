//! Policies of augmentation.

use derive_setters::Setters;
use fulgurite_torch::tch::Tensor;

use super::functional::{self, max_value, setting, shape};
use super::operation::Operation::{self, *};
use super::policy::{CIFAR10, IMAGENET, SVHN};
use super::{Fill, InterpolationMode, Transform, draw};
use crate::{DataError, ItemRng};

/// The operations of [`RandAugment`] and [`TrivialAugmentWide`], in torchvision's order.
const CHOICES: [Operation; 14] = [
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
];

/// The magnitudes of the last bin; the first is no change.
struct Space {
    shear: f64,
    /// Pixels of a width and of a height.
    translate: [f64; 2],
    degrees: f64,
    factor: f64,
    posterize: f64,
}

impl Space {
    /// Of [`AutoAugment`] and [`RandAugment`].
    fn usual(height: i64, width: i64) -> Space {
        let translate = [width, height].map(|edge| 150.0 / 331.0 * edge as f64);
        Space { shear: 0.3, translate, degrees: 30.0, factor: 0.9, posterize: 4.0 }
    }

    fn wide() -> Space {
        Space { shear: 0.99, translate: [32.0, 32.0], degrees: 135.0, factor: 0.99, posterize: 6.0 }
    }

    /// The magnitude of bin `at` of `bins`, and whether its sign is random.
    fn magnitude(&self, operation: Operation, at: usize, bins: usize) -> (f64, bool) {
        let part = at as f64 / (bins - 1) as f64;
        match operation {
            ShearX | ShearY => (self.shear * part, true),
            TranslateX => (self.translate[0] * part, true),
            TranslateY => (self.translate[1] * part, true),
            Rotate => (self.degrees * part, true),
            Brightness | Color | Contrast | Sharpness => (self.factor * part, true),
            Posterize => ((8.0 - at as f64 / ((bins - 1) as f64 / self.posterize)).round_ties_even(), false),
            Solarize => (1.0 - part, false),
            Identity | AutoContrast | Equalize | Invert => (0.0, false),
        }
    }
}

/// How pixels are moved, by all policies.
#[derive(Debug, Clone, Default)]
struct Warping {
    interpolation: InterpolationMode,
    fill: Option<Fill>,
}

impl Warping {
    fn new() -> Warping {
        Warping { interpolation: InterpolationMode::Nearest, fill: None }
    }

    fn affine(&self, image: &Tensor, translate: [f64; 2], shear: [f64; 2]) -> Result<Tensor, DataError> {
        // torchvision shears around the corner, and moves around the middle.
        let center = (shear != [0.0, 0.0]).then_some([0.0, 0.0]);
        functional::affine(image, 0.0, translate, 1.0, shear, self.interpolation, self.fill.as_ref(), center)
    }

    fn apply(&self, image: Tensor, operation: Operation, magnitude: f64) -> Result<Tensor, DataError> {
        let (image, shear) = (&image, magnitude.atan().to_degrees());
        match operation {
            Identity => Ok(image.shallow_clone()),
            ShearX => self.affine(image, [0.0, 0.0], [shear, 0.0]),
            ShearY => self.affine(image, [0.0, 0.0], [0.0, shear]),
            TranslateX => self.affine(image, [magnitude.trunc(), 0.0], [0.0, 0.0]),
            TranslateY => self.affine(image, [0.0, magnitude.trunc()], [0.0, 0.0]),
            Rotate => functional::rotate(image, magnitude, self.interpolation, false, None, self.fill.as_ref()),
            Brightness => functional::adjust_brightness(image, 1.0 + magnitude),
            Color => functional::adjust_saturation(image, 1.0 + magnitude),
            Contrast => functional::adjust_contrast(image, 1.0 + magnitude),
            Sharpness => functional::adjust_sharpness(image, 1.0 + magnitude),
            Posterize => functional::posterize(image, magnitude as i64),
            Solarize => {
                let white = max_value(image.kind(), "solarize")?;
                functional::solarize(image, white * magnitude)
            }
            AutoContrast => functional::autocontrast(image),
            Equalize => functional::equalize(image),
            Invert => functional::invert(image),
        }
    }
}

/// The magnitude, with a random sign where it has one.
fn with_sign((magnitude, signed): (f64, bool), rng: &mut ItemRng) -> Result<f64, DataError> {
    let negative = signed && draw::happens(rng, 0.5, "a policy")?;
    Ok(if negative { -magnitude } else { magnitude })
}

/// The options that all policies share.
macro_rules! warping {
    ($name:ident) => {
        impl $name {
            /// How pixels are moved: nearest (the default) or bilinear.
            pub fn interpolation(mut self, interpolation: InterpolationMode) -> $name {
                self.warping.interpolation = interpolation;
                self
            }

            /// The color of what was outside. Default: zero.
            pub fn fill(mut self, fill: impl Into<Fill>) -> $name {
                self.warping.fill = Some(fill.into());
                self
            }
        }
    };
}

/// Some random operations of one magnitude; follows `torchvision.transforms.v2.RandAugment` (Cubuk et al., "RandAugment:
/// Practical automated data augmentation with a reduced search space").
#[derive(Debug, Clone, Setters)]
pub struct RandAugment {
    /// The number of operations. Default: 2.
    num_ops: usize,
    /// The magnitude, from 0 to below `num_magnitude_bins`. Default: 9.
    magnitude: usize,
    /// The number of magnitudes. Default: 31.
    num_magnitude_bins: usize,
    #[setters(skip)]
    warping: Warping,
}

warping!(RandAugment);

impl Default for RandAugment {
    fn default() -> RandAugment {
        RandAugment { num_ops: 2, magnitude: 9, num_magnitude_bins: 31, warping: Warping::new() }
    }
}

impl RandAugment {
    /// With the defaults.
    pub fn new() -> RandAugment {
        RandAugment::default()
    }
}

impl Transform for RandAugment {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let [_, height, width] = shape(&image, "RandAugment")?;
        if self.num_magnitude_bins < 2 || self.magnitude >= self.num_magnitude_bins {
            return setting(format!(
                "RandAugment was given the magnitude {} of {} bins; it is below their number, which is at least 2",
                self.magnitude, self.num_magnitude_bins
            ));
        }
        let space = Space::usual(height, width);
        (0..self.num_ops).try_fold(image, |image, _| {
            let operation = CHOICES[draw::index(rng, CHOICES.len() as i64) as usize];
            let magnitude = with_sign(space.magnitude(operation, self.magnitude, self.num_magnitude_bins), rng)?;
            self.warping.apply(image, operation, magnitude)
        })
    }
}

/// One random operation of random magnitude; follows `torchvision.transforms.v2.TrivialAugmentWide` (Müller and Hutter,
/// "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation").
#[derive(Debug, Clone, Setters)]
pub struct TrivialAugmentWide {
    /// The number of magnitudes. Default: 31.
    num_magnitude_bins: usize,
    #[setters(skip)]
    warping: Warping,
}

warping!(TrivialAugmentWide);

impl Default for TrivialAugmentWide {
    fn default() -> TrivialAugmentWide {
        TrivialAugmentWide { num_magnitude_bins: 31, warping: Warping::new() }
    }
}

impl TrivialAugmentWide {
    /// With the defaults.
    pub fn new() -> TrivialAugmentWide {
        TrivialAugmentWide::default()
    }
}

impl Transform for TrivialAugmentWide {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        shape(&image, "TrivialAugmentWide")?;
        let bins = self.num_magnitude_bins;
        if bins < 2 {
            return setting(format!("TrivialAugmentWide was given {bins} bins of magnitudes; it needs at least 2"));
        }
        let operation = CHOICES[draw::index(rng, CHOICES.len() as i64) as usize];
        let at = draw::index(rng, bins as i64) as usize;
        let magnitude = with_sign(Space::wide().magnitude(operation, at, bins), rng)?;
        self.warping.apply(image, operation, magnitude)
    }
}

/// For which data a policy of [`AutoAugment`] was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoAugmentPolicy {
    /// ImageNet.
    #[default]
    ImageNet,
    /// CIFAR-10.
    Cifar10,
    /// Street View House Numbers.
    Svhn,
}

/// A random pair of operations of a learned policy; follows `torchvision.transforms.v2.AutoAugment` (Cubuk et al.,
/// "AutoAugment: Learning Augmentation Policies from Data").
#[derive(Debug, Clone)]
pub struct AutoAugment {
    policy: AutoAugmentPolicy,
    warping: Warping,
}

warping!(AutoAugment);

impl AutoAugment {
    /// With the policy for some data.
    pub fn new(policy: AutoAugmentPolicy) -> AutoAugment {
        AutoAugment { policy, warping: Warping::new() }
    }
}

/// With the policy for ImageNet.
impl Default for AutoAugment {
    fn default() -> AutoAugment {
        AutoAugment::new(AutoAugmentPolicy::ImageNet)
    }
}

impl Transform for AutoAugment {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let [_, height, width] = shape(&image, "AutoAugment")?;
        let policy = match self.policy {
            AutoAugmentPolicy::ImageNet => &IMAGENET,
            AutoAugmentPolicy::Cifar10 => &CIFAR10,
            AutoAugmentPolicy::Svhn => &SVHN,
        };
        let space = Space::usual(height, width);
        let pair = policy[draw::index(rng, policy.len() as i64) as usize];
        pair.into_iter().try_fold(image, |image, (operation, probability, bin)| {
            if !draw::happens(rng, probability, "AutoAugment")? {
                return Ok(image);
            }
            let magnitude = with_sign(space.magnitude(operation, bin, 10), rng)?;
            self.warping.apply(image, operation, magnitude)
        })
    }
}
