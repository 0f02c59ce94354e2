//! [`Flatten`], [`Unflatten`], [`PixelShuffle`] and other layers that only move values.

use fulgurite_torch::Path;
use fulgurite_torch::tch::{TchError, Tensor};

use crate::error::Result;
use crate::module::{Build, Label, module, python_tuple};
use crate::size::Size;

/// A layer that only moves values: of PyTorch's `nn.Flatten`, `nn.Unflatten`, `nn.PixelShuffle`, `nn.PixelUnshuffle`,
/// `nn.ChannelShuffle`, `nn.Unfold` and `nn.Fold`.
#[derive(Clone)]
pub struct Reshape {
    operation: Operation,
    label: Label,
}

#[derive(Debug, Clone)]
enum Operation {
    Flatten { start_dim: i64, end_dim: i64 },
    Unflatten { dim: i64, sizes: Vec<i64> },
    PixelShuffle(i64),
    PixelUnshuffle(i64),
    ChannelShuffle(i64),
    Unfold(Window),
    Fold([i64; 2], Window),
}

#[derive(Debug, Clone, Copy)]
struct Window {
    kernel_size: [i64; 2],
    dilation: [i64; 2],
    padding: [i64; 2],
    stride: [i64; 2],
}

impl Operation {
    fn name(&self) -> &'static str {
        match self {
            Operation::Flatten { .. } => "flatten",
            Operation::Unflatten { .. } => "unflatten",
            Operation::PixelShuffle(_) => "pixel_shuffle",
            Operation::PixelUnshuffle(_) => "pixel_unshuffle",
            Operation::ChannelShuffle(_) => "channel_shuffle",
            Operation::Unfold(_) => "im2col",
            Operation::Fold(..) => "col2im",
        }
    }

    fn apply(&self, input: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Operation::Flatten { start_dim, end_dim } => input.f_flatten(*start_dim, *end_dim),
            Operation::Unflatten { dim, sizes } => input.f_unflatten(*dim, sizes.as_slice()),
            Operation::PixelShuffle(factor) => input.f_pixel_shuffle(*factor),
            Operation::PixelUnshuffle(factor) => input.f_pixel_unshuffle(*factor),
            Operation::ChannelShuffle(groups) => input.f_channel_shuffle(*groups),
            Operation::Unfold(Window { kernel_size, dilation, padding, stride }) => {
                input.f_im2col(kernel_size, dilation, padding, stride)
            }
            Operation::Fold(size, Window { kernel_size, dilation, padding, stride }) => {
                input.f_col2im(size, kernel_size, dilation, padding, stride)
            }
        }
    }
}

fn reshape(repr: String, operation: Operation) -> Reshape {
    Reshape { operation, label: Label::unnamed(repr) }
}

/// All dimensions but the first as one: PyTorch's `nn.Flatten()`.
pub fn flatten() -> Reshape {
    flatten_dims(1, -1)
}

/// The dimensions from `start_dim` to `end_dim` as one: PyTorch's `nn.Flatten(start_dim, end_dim)`.
pub fn flatten_dims(start_dim: i64, end_dim: i64) -> Reshape {
    let repr = format!("Flatten(start_dim={start_dim}, end_dim={end_dim})");
    reshape(repr, Operation::Flatten { start_dim, end_dim })
}

/// The dimension `dim` as several; one of their sizes may be −1: PyTorch's `nn.Unflatten`.
pub fn unflatten(dim: i64, sizes: &[i64]) -> Reshape {
    let repr = format!("Unflatten(dim={dim}, unflattened_size={})", python_tuple(sizes));
    reshape(repr, Operation::Unflatten { dim, sizes: sizes.into() })
}

/// `[…, channels · factor², h, w]` to `[…, channels, h · factor, w · factor]` (Shi et al. 2016): PyTorch's `nn.PixelShuffle`.
pub fn pixel_shuffle(factor: i64) -> Reshape {
    reshape(format!("PixelShuffle(upscale_factor={factor})"), Operation::PixelShuffle(factor))
}

/// The reverse of [`pixel_shuffle`]: PyTorch's `nn.PixelUnshuffle`.
pub fn pixel_unshuffle(factor: i64) -> Reshape {
    reshape(format!("PixelUnshuffle(downscale_factor={factor})"), Operation::PixelUnshuffle(factor))
}

/// Channels mixed between `groups` groups (Zhang et al. 2018): PyTorch's `nn.ChannelShuffle`.
pub fn channel_shuffle(groups: i64) -> Reshape {
    reshape(format!("ChannelShuffle(groups={groups})"), Operation::ChannelShuffle(groups))
}

impl Reshape {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        self.label.forward(self.operation.name(), self.operation.apply(input))
    }
}

module!(Reshape);

impl Build for Reshape {
    type Layer = Reshape;

    fn at<'a>(&self, _: impl Into<Path<'a>>) -> Result<Reshape> {
        Ok(self.clone())
    }
}

/// The options of [`unfold`] and [`fold`].
#[derive(Debug, Clone, Copy)]
pub struct FoldOptions {
    output_size: Option<Size<2>>,
    kernel_size: Size<2>,
    dilation: Size<2>,
    padding: Size<2>,
    stride: Size<2>,
}

/// The windows of `[batch, channels, height, width]` as columns: PyTorch's `nn.Unfold`.
pub fn unfold(kernel_size: impl Into<Size<2>>) -> FoldOptions {
    let kernel_size = kernel_size.into();
    FoldOptions { output_size: None, kernel_size, dilation: 1.into(), padding: 0.into(), stride: 1.into() }
}

/// Columns summed up as the windows of an image of the given size: PyTorch's `nn.Fold`.
pub fn fold(output_size: impl Into<Size<2>>, kernel_size: impl Into<Size<2>>) -> FoldOptions {
    FoldOptions { output_size: Some(output_size.into()), ..unfold(kernel_size) }
}

impl FoldOptions {
    crate::module::setters! {
        /// The distance of the values of a window; the default is 1.
        dilation: Size<2>;
        /// What is added on both sides; the default is 0.
        padding: Size<2>;
        /// The distance of the windows; the default is 1.
        stride: Size<2>;
    }
}

impl Build for FoldOptions {
    type Layer = Reshape;

    fn at<'a>(&self, _: impl Into<Path<'a>>) -> Result<Reshape> {
        let FoldOptions { output_size, kernel_size, dilation, padding, stride } = *self;
        let [kernel, distance, pad, step] = [kernel_size, dilation, padding, stride].map(|size| size.as_given());
        let repr = format!("kernel_size={kernel}, dilation={distance}, padding={pad}, stride={step}");
        let [kernel_size, dilation, padding, stride] = [kernel_size, dilation, padding, stride].map(|size| size.each);
        let window = Window { kernel_size, dilation, padding, stride };
        Ok(match output_size {
            None => reshape(format!("Unfold({repr})"), Operation::Unfold(window)),
            Some(size) => {
                let repr = format!("Fold(output_size={}, {repr})", size.as_given());
                reshape(repr, Operation::Fold(size.each, window))
            }
        })
    }
}
