//! [`Upsample`].

use std::fmt;

use fulgurite_torch::Path;
use fulgurite_torch::tch::{TchError, Tensor};

use crate::error::Result;
use crate::module::{Build, Label, debug, output, python_float, python_tuple, setters};

/// How values between those of the input are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpsampleMode {
    /// The value of the nearest pixel, as OpenCV rounds; for one to three dimensions of space.
    #[default]
    Nearest,
    /// The value of the nearest pixel, as Pillow and scikit-image round.
    NearestExact,
    /// Linear, for `[batch, channels, length]`.
    Linear,
    /// Linear in two directions, for `[batch, channels, height, width]`.
    Bilinear,
    /// Cubic in two directions, for `[batch, channels, height, width]`.
    Bicubic,
    /// Linear in three directions, for `[batch, channels, depth, height, width]`.
    Trilinear,
}

impl UpsampleMode {
    /// PyTorch's name.
    fn name(self) -> &'static str {
        match self {
            UpsampleMode::Nearest => "nearest",
            UpsampleMode::NearestExact => "nearest-exact",
            UpsampleMode::Linear => "linear",
            UpsampleMode::Bilinear => "bilinear",
            UpsampleMode::Bicubic => "bicubic",
            UpsampleMode::Trilinear => "trilinear",
        }
    }
}

/// Enlarges `[batch, channels, …]`: PyTorch's `nn.Upsample`, `nn.UpsamplingNearest2d` and `nn.UpsamplingBilinear2d`.
///
/// ```
/// use fulgurite_nn::{self as nn, Module};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let images = Tensor::zeros([2, 3, 4, 5], (Kind::Float, Device::Cpu));
/// assert_eq!(nn::upsample(2.0).forward(&images).size(), [2, 3, 8, 10]);
/// let to_size = nn::upsample_to([7, 6]).mode(nn::UpsampleMode::Bilinear);
/// assert_eq!(to_size.forward(&images).size(), [2, 3, 7, 6]);
/// ```
#[derive(Clone)]
pub struct Upsample {
    target: Target,
    mode: UpsampleMode,
    align_corners: Option<bool>,
    recompute_scale_factor: bool,
}

#[derive(Clone)]
enum Target {
    Size(OneOrEach<i64>),
    Factor(OneOrEach<f64>),
}

/// One number for all dimensions of space, or one for each.
#[derive(Debug, Clone)]
pub enum OneOrEach<T> {
    /// For all of them.
    One(T),
    /// For each.
    Each(Vec<T>),
}

impl<T> From<T> for OneOrEach<T> {
    fn from(number: T) -> OneOrEach<T> {
        OneOrEach::One(number)
    }
}

impl<T, const N: usize> From<[T; N]> for OneOrEach<T> {
    fn from(numbers: [T; N]) -> OneOrEach<T> {
        OneOrEach::Each(numbers.into())
    }
}

impl<T: Copy, const N: usize> From<&[T; N]> for OneOrEach<T> {
    fn from(numbers: &[T; N]) -> OneOrEach<T> {
        OneOrEach::Each(numbers.into())
    }
}

impl<T: Copy> From<&[T]> for OneOrEach<T> {
    fn from(numbers: &[T]) -> OneOrEach<T> {
        OneOrEach::Each(numbers.into())
    }
}

impl<T> From<Vec<T>> for OneOrEach<T> {
    fn from(numbers: Vec<T>) -> OneOrEach<T> {
        OneOrEach::Each(numbers)
    }
}

impl<T: Copy> OneOrEach<T> {
    /// For so many dimensions, if it is for as many.
    fn each(&self, dims: usize) -> Option<Vec<T>> {
        match self {
            OneOrEach::One(number) => Some(vec![*number; dims]),
            OneOrEach::Each(numbers) => (numbers.len() == dims).then(|| numbers.clone()),
        }
    }
}

/// [`Upsample`] by a factor, one for all dimensions of space or one for each, to the nearest pixels.
pub fn upsample(scale_factor: impl Into<OneOrEach<f64>>) -> Upsample {
    Upsample::new(Target::Factor(scale_factor.into()))
}

/// [`Upsample`] to a size, one number for all dimensions of space or one for each, to the nearest pixels.
pub fn upsample_to(size: impl Into<OneOrEach<i64>>) -> Upsample {
    Upsample::new(Target::Size(size.into()))
}

impl Upsample {
    fn new(target: Target) -> Upsample {
        Upsample { target, mode: UpsampleMode::Nearest, align_corners: None, recompute_scale_factor: false }
    }

    setters! {
        /// How values in between are found; the default is the nearest pixel.
        mode: UpsampleMode;
        /// Whether the corners of input and output are the same points, for all modes but the nearest pixel; the default is
        /// `false`.
        align_corners: Option<bool>;
        /// Whether values in between are found by the factor of the sizes, which are whole, and not by the one given; the
        /// default is `false`.
        recompute_scale_factor: bool;
    }

    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit the mode, or the output would be empty.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        let size = input.size();
        let space = size.get(2..).unwrap_or_default();
        let is_nearest = matches!(self.mode, UpsampleMode::Nearest | UpsampleMode::NearestExact);
        if is_nearest && self.align_corners.is_some() {
            let message = format!("align_corners is not for the mode {:?}", self.mode.name());
            return Err(self.label().options(message));
        }
        let dims = match self.mode {
            UpsampleMode::Nearest | UpsampleMode::NearestExact => space.len().clamp(1, 3),
            UpsampleMode::Linear => 1,
            UpsampleMode::Bilinear | UpsampleMode::Bicubic => 2,
            UpsampleMode::Trilinear => 3,
        };
        if space.len() != dims {
            let message = format!("the mode {:?} is not for an input {size:?}", self.mode.name());
            return Err(self.label().input(message));
        }
        self.enlarge(input, space)
    }

    fn enlarge(&self, input: &Tensor, space: &[i64]) -> Result<Tensor> {
        let unfit = |what: &str| {
            let message = format!("{what} is needed for each of the {} dimensions of space", space.len());
            self.label().input(message)
        };
        let enlarged = match &self.target {
            Target::Size(size) => {
                let size = size.each(space.len()).ok_or_else(|| unfit("a size"))?;
                self.to_size(input, &size)
            }
            Target::Factor(factor) => {
                let factors = factor.each(space.len()).ok_or_else(|| unfit("a factor"))?;
                match self.recompute_scale_factor {
                    true => {
                        let scaled = space.iter().zip(&factors).map(|(&size, factor)| (size as f64 * factor) as i64);
                        self.to_size(input, &scaled.collect::<Vec<_>>())
                    }
                    false => self.by_factor(input, &factors),
                }
            }
        };
        self.label().forward("upsample", enlarged)
    }

    fn to_size(&self, input: &Tensor, size: &[i64]) -> Result<Tensor, TchError> {
        let align = self.align_corners.unwrap_or(false);
        match (self.mode, size.len()) {
            (UpsampleMode::Nearest, 1) => input.f_upsample_nearest1d(size, None),
            (UpsampleMode::Nearest, 2) => input.f_upsample_nearest2d(size, None, None),
            (UpsampleMode::Nearest, _) => input.f_upsample_nearest3d(size, None, None, None),
            (UpsampleMode::NearestExact, 1) => input.f_internal_upsample_nearest_exact1d(size, None),
            (UpsampleMode::NearestExact, 2) => input.f_internal_upsample_nearest_exact2d(size, None, None),
            (UpsampleMode::NearestExact, _) => input.f_internal_upsample_nearest_exact3d(size, None, None, None),
            (UpsampleMode::Linear, _) => input.f_upsample_linear1d(size, align, None),
            (UpsampleMode::Bilinear, _) => input.f_upsample_bilinear2d(size, align, None, None),
            (UpsampleMode::Bicubic, _) => input.f_upsample_bicubic2d(size, align, None, None),
            (UpsampleMode::Trilinear, _) => input.f_upsample_trilinear3d(size, align, None, None, None),
        }
    }

    fn by_factor(&self, input: &Tensor, factors: &[f64]) -> Result<Tensor, TchError> {
        let (align, size) = (self.align_corners.unwrap_or(false), None::<&[i64]>);
        match (self.mode, factors.len()) {
            (UpsampleMode::Nearest, 1) => input.f_upsample_nearest1d_vec(size, factors),
            (UpsampleMode::Nearest, 2) => input.f_upsample_nearest2d_vec(size, factors),
            (UpsampleMode::Nearest, _) => input.f_upsample_nearest3d_vec(size, factors),
            (UpsampleMode::NearestExact, 1) => input.f_internal_upsample_nearest_exact1d_vec(size, factors),
            (UpsampleMode::NearestExact, 2) => input.f_internal_upsample_nearest_exact2d_vec(size, factors),
            (UpsampleMode::NearestExact, _) => input.f_internal_upsample_nearest_exact3d_vec(size, factors),
            (UpsampleMode::Linear, _) => input.f_upsample_linear1d_vec(size, align, factors),
            (UpsampleMode::Bilinear, _) => input.f_upsample_bilinear2d_vec(size, align, factors),
            (UpsampleMode::Bicubic, _) => input.f_upsample_bicubic2d_vec(size, align, factors),
            (UpsampleMode::Trilinear, _) => input.f_upsample_trilinear3d_vec(size, align, factors),
        }
    }

    /// For messages alone, as its options can be changed until it is used.
    fn label(&self) -> Label {
        Label::unnamed(self.to_string())
    }
}

impl fmt::Display for Upsample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match &self.target {
            Target::Size(OneOrEach::One(size)) => format!("size={size}"),
            Target::Size(OneOrEach::Each(size)) => format!("size={}", python_tuple(size)),
            Target::Factor(OneOrEach::One(factor)) => format!("scale_factor={}", python_float(*factor)),
            Target::Factor(OneOrEach::Each(factors)) => {
                let factors: Vec<String> = factors.iter().copied().map(python_float).collect();
                format!("scale_factor={}", python_tuple(&factors))
            }
        };
        write!(f, "Upsample({target}, mode='{}')", self.mode.name())
    }
}

debug!(Upsample);

impl fulgurite_torch::tch::nn::Module for Upsample {
    fn forward(&self, input: &Tensor) -> Tensor {
        output(self.try_forward(input))
    }
}

impl Build for Upsample {
    type Layer = Upsample;

    fn at<'a>(&self, _: impl Into<Path<'a>>) -> Result<Upsample> {
        Ok(self.clone())
    }
}
