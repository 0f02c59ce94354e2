//! Convolutions: [`Conv`] in one to three dimensions.

use fulgurite_torch::Path;
use fulgurite_torch::tch::{TchError, Tensor};

use super::kernel::{Kernel, constructors, unless_zero};
use crate::error::Result;
use crate::module::{Build, Label, module, setters};
use crate::size::{ConvPadding, PaddingMode, Size};

/// A convolution in `N` dimensions, over inputs `[batch, in_channels, …]`: PyTorch's `nn.Conv1d` to `nn.Conv3d`.
pub struct Conv<const N: usize> {
    /// `[out_channels, in_channels / groups, …]`.
    pub weight: Tensor,
    /// `[out_channels]`.
    pub bias: Option<Tensor>,
    options: ConvOptions<N>,
    label: Label,
}

/// A convolution over inputs `[batch, in_channels, length]`: PyTorch's `nn.Conv1d`.
pub type Conv1d = Conv<1>;
/// A convolution over inputs `[batch, in_channels, height, width]`: PyTorch's `nn.Conv2d`.
pub type Conv2d = Conv<2>;
/// A convolution over inputs `[batch, in_channels, depth, height, width]`: PyTorch's `nn.Conv3d`.
pub type Conv3d = Conv<3>;

/// The options of a [`Conv`] layer.
#[derive(Debug, Clone, Copy)]
pub struct ConvOptions<const N: usize> {
    kernel: Kernel<N>,
    padding: ConvPadding<N>,
    padding_mode: PaddingMode,
}

constructors! {
    ConvOptions:
    /// A [`Conv1d`] layer.
    conv1d, 1;
    /// A [`Conv2d`] layer.
    conv2d, 2;
    /// A [`Conv3d`] layer.
    conv3d, 3;
}

impl<const N: usize> ConvOptions<N> {
    fn new(in_channels: i64, out_channels: i64, kernel_size: Size<N>) -> ConvOptions<N> {
        let kernel = Kernel::new(in_channels, out_channels, kernel_size);
        ConvOptions { kernel, padding: 0.into(), padding_mode: PaddingMode::Zeros }
    }

    setters! {
        in kernel;
        /// How far the kernel moves between two outputs; the default is 1.
        stride: Size<N>;
        /// The distance of the inputs of one output; the default is 1.
        dilation: Size<N>;
        /// The number of groups of channels that do not mix; the default is 1.
        groups: i64;
        /// Whether there is a bias; the default is `true`.
        bias: bool;
    }

    setters! {
        /// What is added on both sides of the input; the default is 0.
        padding: ConvPadding<N>;
        /// What stands in the padding; the default is zeros.
        padding_mode: PaddingMode;
    }

    fn repr(&self) -> String {
        let padding = match self.padding {
            ConvPadding::Amount(amount) => unless_zero("padding", amount.into()),
            ConvPadding::Same => ", padding=same".into(),
            ConvPadding::Valid => ", padding=valid".into(),
        };
        let mode = match self.padding_mode {
            PaddingMode::Zeros => String::new(),
            mode => format!(", padding_mode={}", mode.name()),
        };
        self.kernel.repr("Conv", &padding, "", &mode)
    }

    fn check(&self, label: &Label) -> Result<()> {
        self.kernel.check(label)?;
        match self.padding {
            ConvPadding::Same if self.kernel.stride.each != [1; N] => {
                Err(label.options("the padding `Same` is for strides of 1; give an amount instead"))
            }
            ConvPadding::Amount(amount) if amount.iter().any(|&amount| amount < 0) => {
                Err(label.options(format!("the padding {amount:?} is negative")))
            }
            _ => Ok(()),
        }
    }

    /// What is to be added before and after each dimension, beginning with the last one.
    fn amounts(&self) -> Vec<i64> {
        let both = |dim: usize| match self.padding {
            ConvPadding::Amount(amount) => [amount[dim]; 2],
            ConvPadding::Valid => [0; 2],
            ConvPadding::Same => {
                let total = self.kernel.dilation.each[dim] * (self.kernel.kernel_size.each[dim] - 1);
                [total / 2, total - total / 2]
            }
        };
        (0..N).rev().flat_map(both).collect()
    }
}

impl<const N: usize> Build for ConvOptions<N> {
    type Layer = Conv<N>;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Conv<N>> {
        let path = path.into();
        let label = Label::new(&path, self.repr());
        self.check(&label)?;
        let Kernel { in_channels, out_channels, groups, .. } = self.kernel;
        let (weight, bias) = self.kernel.parameters(&path, [out_channels, in_channels / groups])?;
        Ok(Conv { weight, bias, options: *self, label })
    }
}

impl<const N: usize> Conv<N> {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        self.label.forward("convolution", self.convolve(input))
    }

    fn convolve(&self, input: &Tensor) -> Result<Tensor, TchError> {
        if self.options.padding_mode != PaddingMode::Zeros {
            let padded = input.f_pad(self.options.amounts(), self.options.padding_mode.name(), None)?;
            return self.convolve_with(&padded, ConvPadding::Valid);
        }
        self.convolve_with(input, self.options.padding)
    }

    fn convolve_with(&self, input: &Tensor, padding: ConvPadding<N>) -> Result<Tensor, TchError> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        let Kernel { stride, dilation, groups, .. } = self.options.kernel;
        let (stride, dilation) = (stride.each, dilation.each);
        let named = match padding {
            ConvPadding::Same => "same",
            ConvPadding::Valid => "valid",
            ConvPadding::Amount(padding) => {
                return match N {
                    1 => input.f_conv1d(weight, bias, stride, padding, dilation, groups),
                    2 => input.f_conv2d(weight, bias, stride, padding, dilation, groups),
                    _ => input.f_conv3d(weight, bias, stride, padding, dilation, groups),
                };
            }
        };
        match N {
            1 => input.f_conv1d_padding(weight, bias, stride, named, dilation, groups),
            2 => input.f_conv2d_padding(weight, bias, stride, named, dilation, groups),
            _ => input.f_conv3d_padding(weight, bias, stride, named, dilation, groups),
        }
    }
}

module!(Conv<1>, Conv<2>, Conv<3>);
