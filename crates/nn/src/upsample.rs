//! [`Upsample`].

use fulgurite_torch::Path;
use fulgurite_torch::tch::{TchError, Tensor};

use crate::error::Result;
use crate::module::{Build, Label, module, python_float, python_tuple};

/// How values between those of the input are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpsampleMode {
    /// The value of the nearest pixel, for one to three dimensions of space.
    #[default]
    Nearest,
    /// Linear, for `[batch, channels, length]`.
    Linear,
    /// Linear in two directions, for `[batch, channels, height, width]`.
    Bilinear,
    /// Cubic in two directions, for `[batch, channels, height, width]`.
    Bicubic,
    /// Linear in three directions, for `[batch, channels, depth, height, width]`.
    Trilinear,
}

/// Enlarges `[batch, channels, …]`: PyTorch's `nn.Upsample`, `nn.UpsamplingNearest2d` and `nn.UpsamplingBilinear2d`.
#[derive(Debug, Clone)]
pub struct Upsample {
    target: Target,
    mode: UpsampleMode,
    align_corners: bool,
    label: Label,
}

#[derive(Debug, Clone)]
enum Target {
    Size(Vec<i64>),
    Factor(f64),
}

/// [`Upsample`] by a factor, to the nearest pixels.
pub fn upsample(scale_factor: f64) -> Upsample {
    Upsample::new(Target::Factor(scale_factor))
}

/// [`Upsample`] to a size, one number for each dimension of space.
pub fn upsample_to(size: &[i64]) -> Upsample {
    Upsample::new(Target::Size(size.into()))
}

impl Upsample {
    fn new(target: Target) -> Upsample {
        Upsample { target, mode: UpsampleMode::Nearest, align_corners: false, label: Label::unnamed("") }.labelled()
    }

    /// How values in between are found; the default is the nearest pixel.
    #[must_use]
    pub fn mode(mut self, mode: UpsampleMode) -> Self {
        self.mode = mode;
        self.labelled()
    }

    /// Whether the corners of input and output are the same points, for all modes but `Nearest`; the default is `false`.
    #[must_use]
    pub fn align_corners(mut self, align: bool) -> Self {
        self.align_corners = align;
        self
    }

    fn labelled(mut self) -> Self {
        let target = match &self.target {
            Target::Size(size) => format!("size={}", python_tuple(size)),
            Target::Factor(factor) => format!("scale_factor={}", python_float(*factor)),
        };
        let mode = format!("{:?}", self.mode).to_lowercase();
        self.label = Label::unnamed(format!("Upsample({target}, mode='{mode}')"));
        self
    }

    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit the mode, or the output would be empty.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        let size = input.size();
        let space = size.len().saturating_sub(2);
        let (target, scale) = match &self.target {
            Target::Size(target) if target.len() != space => {
                let message = format!("a size of {space} numbers is needed for an input {size:?}, not {target:?}");
                return Err(self.label.input(message));
            }
            Target::Size(target) => (target.clone(), None),
            Target::Factor(factor) => {
                let scaled = size[size.len() - space..].iter().map(|&size| (size as f64 * factor).floor() as i64);
                (scaled.collect(), Some(*factor))
            }
        };
        let enlarged = match (self.mode, space) {
            (UpsampleMode::Nearest, 1) => input.f_upsample_nearest1d(target, scale),
            (UpsampleMode::Nearest, 2) => input.f_upsample_nearest2d(target, scale, scale),
            (UpsampleMode::Nearest, 3) => input.f_upsample_nearest3d(target, scale, scale, scale),
            (UpsampleMode::Linear, 1) => input.f_upsample_linear1d(target, self.align_corners, scale),
            (UpsampleMode::Bilinear, 2) => input.f_upsample_bilinear2d(target, self.align_corners, scale, scale),
            (UpsampleMode::Bicubic, 2) => input.f_upsample_bicubic2d(target, self.align_corners, scale, scale),
            (UpsampleMode::Trilinear, 3) => {
                input.f_upsample_trilinear3d(target, self.align_corners, scale, scale, scale)
            }
            (mode, _) => return Err(self.label.input(format!("the mode {mode:?} is not for an input {size:?}"))),
        };
        self.label.forward("upsample", enlarged as Result<Tensor, TchError>)
    }
}

module!(Upsample);

impl Build for Upsample {
    type Layer = Upsample;

    fn at<'a>(&self, _: impl Into<Path<'a>>) -> Result<Upsample> {
        Ok(self.clone())
    }
}
