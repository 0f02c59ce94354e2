//! Convolutions: [`Conv`] in one to three dimensions.

use fulgurite_torch::Path;
use fulgurite_torch::tch::{TchError, Tensor};

use crate::error::Result;
use crate::linear::draw;
use crate::module::{Build, Label, module, python_tuple, setters};
use crate::parameter::parameter;
use crate::size::{ConvPadding, PaddingMode, Size};

/// A convolution in `N` dimensions, over inputs `[batch, in_channels, …]`: PyTorch's `nn.Conv1d` to `nn.Conv3d`.
#[derive(Debug)]
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
    in_channels: i64,
    out_channels: i64,
    kernel_size: Size<N>,
    stride: Size<N>,
    padding: ConvPadding<N>,
    dilation: Size<N>,
    groups: i64,
    bias: bool,
    padding_mode: PaddingMode,
}

fn conv<const N: usize>(in_channels: i64, out_channels: i64, kernel_size: impl Into<Size<N>>) -> ConvOptions<N> {
    ConvOptions {
        in_channels,
        out_channels,
        kernel_size: kernel_size.into(),
        stride: 1.into(),
        padding: 0.into(),
        dilation: 1.into(),
        groups: 1,
        bias: true,
        padding_mode: PaddingMode::Zeros,
    }
}

/// A [`Conv1d`] layer.
pub fn conv1d(in_channels: i64, out_channels: i64, kernel_size: impl Into<Size<1>>) -> ConvOptions<1> {
    conv(in_channels, out_channels, kernel_size)
}

/// A [`Conv2d`] layer.
pub fn conv2d(in_channels: i64, out_channels: i64, kernel_size: impl Into<Size<2>>) -> ConvOptions<2> {
    conv(in_channels, out_channels, kernel_size)
}

/// A [`Conv3d`] layer.
pub fn conv3d(in_channels: i64, out_channels: i64, kernel_size: impl Into<Size<3>>) -> ConvOptions<3> {
    conv(in_channels, out_channels, kernel_size)
}

impl<const N: usize> ConvOptions<N> {
    setters! {
        /// How far the kernel moves between two outputs; the default is 1.
        stride: Size<N>;
        /// What is added on both sides of the input; the default is 0.
        padding: ConvPadding<N>;
        /// The distance of the inputs of one output; the default is 1.
        dilation: Size<N>;
        /// The number of groups of channels that do not mix; the default is 1.
        groups: i64;
        /// Whether there is a bias; the default is `true`.
        bias: bool;
        /// What stands in the padding; the default is zeros.
        padding_mode: PaddingMode;
    }

    fn repr(&self) -> String {
        let (kernel, stride) = (python_tuple(&self.kernel_size.0), python_tuple(&self.stride.0));
        let mut repr =
            format!("Conv{N}d({}, {}, kernel_size={kernel}, stride={stride}", self.in_channels, self.out_channels);
        match self.padding {
            ConvPadding::Amount(amount) if amount == [0; N] => {}
            ConvPadding::Amount(amount) => repr += &format!(", padding={}", python_tuple(&amount)),
            ConvPadding::Same => repr += ", padding=same",
            ConvPadding::Valid => repr += ", padding=valid",
        }
        if self.dilation.0 != [1; N] {
            repr += &format!(", dilation={}", python_tuple(&self.dilation.0));
        }
        if self.groups != 1 {
            repr += &format!(", groups={}", self.groups);
        }
        if !self.bias {
            repr += ", bias=False";
        }
        if self.padding_mode != PaddingMode::Zeros {
            repr += &format!(", padding_mode={}", self.padding_mode.name());
        }
        repr + ")"
    }

    fn check(&self, label: &Label) -> Result<()> {
        label.check_positive(&[
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("groups", self.groups),
        ])?;
        let sizes = [("kernel_size", self.kernel_size), ("stride", self.stride), ("dilation", self.dilation)];
        for (name, Size(size)) in sizes {
            label.check_positive(&size.map(|size| (name, size)))?;
        }
        for (name, channels) in [("in_channels", self.in_channels), ("out_channels", self.out_channels)] {
            if channels % self.groups != 0 {
                return Err(label.options(format!("{name} ({channels}) must be divisible by groups ({})", self.groups)));
            }
        }
        match self.padding {
            ConvPadding::Same if self.stride.0 != [1; N] => {
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
                let total = self.dilation.0[dim] * (self.kernel_size.0[dim] - 1);
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
        let mut size = vec![self.out_channels, self.in_channels / self.groups];
        size.extend(self.kernel_size.0);
        let weight = parameter(&path, "weight", &size)?;
        let bias = self.bias.then(|| parameter(&path, "bias", &[self.out_channels])).transpose()?;
        draw(&weight, bias.as_ref())?;
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
        let ConvOptions { stride: Size(stride), dilation: Size(dilation), groups, .. } = self.options;
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
