//! Resizing, padding, flips, rotation.

use derive_setters::Setters;
use fulgurite_torch::tch::Tensor;

use super::functional::{self, setting, shape};
use super::{Fill, InterpolationMode, Interval, Padding, PaddingMode, ResizeSize, Transform, draw};
use crate::{DataError, ItemRng};

/// Another size; follows `torchvision.transforms.v2.Resize`.
#[derive(Debug, Clone, Setters)]
pub struct Resize {
    #[setters(skip)]
    size: ResizeSize,
    /// Default: bilinear.
    interpolation: InterpolationMode,
    /// The most that the longer edge may be, where `size` is the shorter one. Default: no limit.
    #[setters(into)]
    max_size: Option<i64>,
    /// Whether pixels that are left out count. Default: `true`.
    antialias: bool,
}

impl Resize {
    /// `size` is the shorter edge, or height and width, or a [`ResizeSize`].
    pub fn new(size: impl Into<ResizeSize>) -> Resize {
        Resize { size: size.into(), interpolation: InterpolationMode::Bilinear, max_size: None, antialias: true }
    }
}

impl Transform for Resize {
    fn apply(&self, image: Tensor, _: &mut ItemRng) -> Result<Tensor, DataError> {
        functional::resize(&image, self.size, self.interpolation, self.max_size, self.antialias)
    }
}

/// More pixels around an image; follows `torchvision.transforms.v2.Pad`.
#[derive(Debug, Clone, Setters)]
pub struct Pad {
    #[setters(skip)]
    padding: Padding,
    /// The color. Default: 0.
    #[setters(into)]
    fill: Fill,
    /// What is added. Default: a color.
    padding_mode: PaddingMode,
}

impl Pad {
    /// `padding` is one number, two (left and right, top and bottom), or four (left, top, right, bottom).
    pub fn new(padding: impl Into<Padding>) -> Pad {
        Pad { padding: padding.into(), fill: Fill::default(), padding_mode: PaddingMode::default() }
    }
}

impl Transform for Pad {
    fn apply(&self, image: Tensor, _: &mut ItemRng) -> Result<Tensor, DataError> {
        functional::pad(&image, self.padding, &self.fill, self.padding_mode)
    }
}

macro_rules! flip {
    ($(#[$doc:meta])* $name:ident, $flip:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            p: f64,
        }

        impl $name {
            /// Flips with the probability `p`.
            pub fn new(p: f64) -> $name {
                $name { p }
            }
        }

        /// With the probability 0.5.
        impl Default for $name {
            fn default() -> $name {
                $name::new(0.5)
            }
        }

        impl Transform for $name {
            fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
                if draw::happens(rng, self.p, stringify!($name))? { functional::$flip(&image) } else { Ok(image) }
            }
        }
    };
}

flip! {
    /// Exchanges left and right, with a probability; follows `torchvision.transforms.v2.RandomHorizontalFlip`.
    RandomHorizontalFlip, horizontal_flip
}

flip! {
    /// Exchanges top and bottom, with a probability; follows `torchvision.transforms.v2.RandomVerticalFlip`.
    RandomVerticalFlip, vertical_flip
}

/// Turned by a random angle; follows `torchvision.transforms.v2.RandomRotation`.
#[derive(Debug, Clone, Setters)]
pub struct RandomRotation {
    #[setters(skip)]
    degrees: Interval,
    /// Nearest (the default) or bilinear.
    interpolation: InterpolationMode,
    /// Makes the output as large as the turned image. Default: `false`.
    expand: bool,
    /// The point that stays, in pixels (x, y). Default: the middle.
    #[setters(into)]
    center: Option<[f64; 2]>,
    /// The color of what was outside. Default: 0.
    #[setters(into)]
    fill: Fill,
}

impl RandomRotation {
    /// Turns by up to `degrees` in both directions, or by an angle between two.
    pub fn new(degrees: impl Into<Interval>) -> RandomRotation {
        RandomRotation {
            degrees: degrees.into(),
            interpolation: InterpolationMode::Nearest,
            expand: false,
            center: None,
            fill: Fill::default(),
        }
    }
}

impl Transform for RandomRotation {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let angle = draw::uniform(rng, self.degrees.symmetric("RandomRotation")?);
        functional::rotate(&image, angle, self.interpolation, self.expand, self.center, Some(&self.fill))
    }
}

/// Turned, moved, scaled and sheared at random; follows `torchvision.transforms.v2.RandomAffine`.
#[derive(Debug, Clone, Setters)]
pub struct RandomAffine {
    #[setters(skip)]
    degrees: Interval,
    /// The most that it moves, in parts of width and height. Default: not at all.
    #[setters(into)]
    translate: Option<(f64, f64)>,
    /// The smallest and the largest scale. Default: 1.
    #[setters(into)]
    scale: Option<(f64, f64)>,
    #[setters(skip)]
    shear: [Option<Interval>; 2],
    /// Nearest (the default) or bilinear.
    interpolation: InterpolationMode,
    /// The color of what was outside. Default: 0.
    #[setters(into)]
    fill: Fill,
    /// The point around which it turns, in pixels (x, y). Default: the middle.
    #[setters(into)]
    center: Option<[f64; 2]>,
}

impl RandomAffine {
    /// Turns by up to `degrees` in both directions, or by an angle between two.
    pub fn new(degrees: impl Into<Interval>) -> RandomAffine {
        RandomAffine {
            degrees: degrees.into(),
            translate: None,
            scale: None,
            shear: [None, None],
            interpolation: InterpolationMode::Nearest,
            fill: Fill::default(),
            center: None,
        }
    }

    /// Shears along x by up to as many degrees in both directions, or by an angle between two. Default: not at all.
    pub fn shear(mut self, x: impl Into<Interval>) -> RandomAffine {
        self.shear[0] = Some(x.into());
        self
    }

    /// [`shear`](RandomAffine::shear) along y; the last two numbers of torchvision's `shear` of four.
    pub fn shear_y(mut self, y: impl Into<Interval>) -> RandomAffine {
        self.shear[1] = Some(y.into());
        self
    }

    fn check(&self) -> Result<(), DataError> {
        let part = |part: f64| (0.0..=1.0).contains(&part);
        if let Some(translate) = self.translate.filter(|(x, y)| !part(*x) || !part(*y)) {
            return setting(format!("RandomAffine was given translate {translate:?}; it has parts between 0 and 1"));
        }
        let ordered = |(low, high): (f64, f64)| low > 0.0 && low <= high && high.is_finite();
        if let Some(scale) = self.scale.filter(|scale| !ordered(*scale)) {
            return setting(format!("RandomAffine was given scale {scale:?}; it is a range in order, above 0"));
        }
        Ok(())
    }
}

impl Transform for RandomAffine {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        self.check()?;
        let [_, height, width] = shape(&image, "RandomAffine")?;
        let angle = draw::uniform(rng, self.degrees.symmetric("RandomAffine")?);
        let mut moved = |part: f64, edge: i64| {
            let most = part * edge as f64;
            draw::uniform(rng, (-most, most)).round_ties_even()
        };
        let translate = self.translate.map_or([0.0, 0.0], |(x, y)| [moved(x, width), moved(y, height)]);
        let scale = self.scale.map_or(1.0, |scale| draw::uniform(rng, scale));
        let mut shear = [0.0, 0.0];
        for (angle, range) in shear.iter_mut().zip(self.shear) {
            if let Some(range) = range {
                *angle = draw::uniform(rng, range.symmetric("RandomAffine")?);
            }
        }
        functional::affine(&image, angle, translate, scale, shear, self.interpolation, Some(&self.fill), self.center)
    }
}
