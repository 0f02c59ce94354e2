//! Transposed convolutions: [`ConvTranspose`] in one to three dimensions.

use fulgurite_torch::Path;
use fulgurite_torch::tch::{TchError, Tensor};

use crate::error::Result;
use crate::linear::draw;
use crate::module::{Build, Label, module, output, python_tuple, setters};
use crate::parameter::parameter;
use crate::size::Size;

/// A transposed convolution in `N` dimensions, over inputs `[batch, in_channels, …]`: PyTorch's `nn.ConvTranspose1d` to
/// `nn.ConvTranspose3d`.
#[derive(Debug)]
pub struct ConvTranspose<const N: usize> {
    /// `[in_channels, out_channels / groups, …]`.
    pub weight: Tensor,
    /// `[out_channels]`.
    pub bias: Option<Tensor>,
    options: ConvTransposeOptions<N>,
    label: Label,
}

/// PyTorch's `nn.ConvTranspose1d`.
pub type ConvTranspose1d = ConvTranspose<1>;
/// PyTorch's `nn.ConvTranspose2d`.
pub type ConvTranspose2d = ConvTranspose<2>;
/// PyTorch's `nn.ConvTranspose3d`.
pub type ConvTranspose3d = ConvTranspose<3>;

/// The options of a [`ConvTranspose`] layer.
#[derive(Debug, Clone, Copy)]
pub struct ConvTransposeOptions<const N: usize> {
    in_channels: i64,
    out_channels: i64,
    kernel_size: Size<N>,
    stride: Size<N>,
    padding: Size<N>,
    output_padding: Size<N>,
    groups: i64,
    bias: bool,
    dilation: Size<N>,
}

fn conv_transpose<const N: usize>(
    in_channels: i64,
    out_channels: i64,
    kernel_size: impl Into<Size<N>>,
) -> ConvTransposeOptions<N> {
    ConvTransposeOptions {
        in_channels,
        out_channels,
        kernel_size: kernel_size.into(),
        stride: 1.into(),
        padding: 0.into(),
        output_padding: 0.into(),
        groups: 1,
        bias: true,
        dilation: 1.into(),
    }
}

/// A [`ConvTranspose1d`] layer.
pub fn conv_transpose1d(
    in_channels: i64,
    out_channels: i64,
    kernel_size: impl Into<Size<1>>,
) -> ConvTransposeOptions<1> {
    conv_transpose(in_channels, out_channels, kernel_size)
}

/// A [`ConvTranspose2d`] layer.
pub fn conv_transpose2d(
    in_channels: i64,
    out_channels: i64,
    kernel_size: impl Into<Size<2>>,
) -> ConvTransposeOptions<2> {
    conv_transpose(in_channels, out_channels, kernel_size)
}

/// A [`ConvTranspose3d`] layer.
pub fn conv_transpose3d(
    in_channels: i64,
    out_channels: i64,
    kernel_size: impl Into<Size<3>>,
) -> ConvTransposeOptions<3> {
    conv_transpose(in_channels, out_channels, kernel_size)
}

impl<const N: usize> ConvTransposeOptions<N> {
    setters! {
        /// The distance of two inputs in the output; the default is 1.
        stride: Size<N>;
        /// What is cut off on both sides of the output; the default is 0.
        padding: Size<N>;
        /// What is added on one side of the output; the default is 0.
        output_padding: Size<N>;
        /// The number of groups of channels that do not mix; the default is 1.
        groups: i64;
        /// Whether there is a bias; the default is `true`.
        bias: bool;
        /// The distance of the outputs of one input; the default is 1.
        dilation: Size<N>;
    }

    fn repr(&self) -> String {
        let (kernel, stride) = (python_tuple(&self.kernel_size.0), python_tuple(&self.stride.0));
        let channels = format!("{}, {}", self.in_channels, self.out_channels);
        let mut repr = format!("ConvTranspose{N}d({channels}, kernel_size={kernel}, stride={stride}");
        for (name, Size(size), default) in
            [("padding", self.padding, 0), ("dilation", self.dilation, 1), ("output_padding", self.output_padding, 0)]
        {
            if size != [default; N] {
                repr += &format!(", {name}={}", python_tuple(&size));
            }
        }
        if self.groups != 1 {
            repr += &format!(", groups={}", self.groups);
        }
        if !self.bias {
            repr += ", bias=False";
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
        Ok(())
    }
}

impl<const N: usize> Build for ConvTransposeOptions<N> {
    type Layer = ConvTranspose<N>;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<ConvTranspose<N>> {
        let path = path.into();
        let label = Label::new(&path, self.repr());
        self.check(&label)?;
        let mut size = vec![self.in_channels, self.out_channels / self.groups];
        size.extend(self.kernel_size.0);
        let weight = parameter(&path, "weight", &size)?;
        let bias = self.bias.then(|| parameter(&path, "bias", &[self.out_channels])).transpose()?;
        draw(&weight, bias.as_ref())?;
        Ok(ConvTranspose { weight, bias, options: *self, label })
    }
}

impl<const N: usize> ConvTranspose<N> {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        self.label.forward("transposed convolution", self.convolve(input, self.options.output_padding.0))
    }

    /// Applies the layer so that the output has a given size, of the several that a stride above 1 leaves possible: the
    /// argument `output_size` of PyTorch's `forward`.
    ///
    /// # Panics
    ///
    /// Panics if the input does not fit, or the size is none of those.
    pub fn forward_to_size(&self, input: &Tensor, output_size: [i64; N]) -> Tensor {
        output(self.try_forward_to_size(input, output_size))
    }

    /// [`forward_to_size`](ConvTranspose::forward_to_size), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit, or the size is none of those.
    pub fn try_forward_to_size(&self, input: &Tensor, output_size: [i64; N]) -> Result<Tensor> {
        let ConvTransposeOptions { kernel_size, stride, padding, dilation, .. } = self.options;
        let size = input.size();
        let Some(space) = size.len().checked_sub(N).filter(|&dims| dims > 0).map(|dims| &size[dims..]) else {
            return Err(self.label.input(format!(
                "an input of {} or {} dimensions is needed, not {size:?}",
                N + 1,
                N + 2
            )));
        };
        let smallest: [i64; N] = std::array::from_fn(|dim| {
            (space[dim] - 1) * stride.0[dim] - 2 * padding.0[dim] + dilation.0[dim] * (kernel_size.0[dim] - 1) + 1
        });
        let added: [i64; N] = std::array::from_fn(|dim| output_size[dim] - smallest[dim]);
        if (0..N).any(|dim| !(0..stride.0[dim]).contains(&added[dim])) {
            let largest: [i64; N] = std::array::from_fn(|dim| smallest[dim] + stride.0[dim] - 1);
            return Err(self.label.input(format!(
                "the output size {output_size:?} was requested, but from {space:?} come sizes from {smallest:?} to {largest:?}"
            )));
        }
        self.label.forward("transposed convolution", self.convolve(input, added))
    }

    fn convolve(&self, input: &Tensor, output_padding: [i64; N]) -> Result<Tensor, TchError> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        let ConvTransposeOptions {
            stride: Size(stride), padding: Size(padding), dilation: Size(dilation), groups, ..
        } = self.options;
        match N {
            1 => input.f_conv_transpose1d(weight, bias, stride, padding, output_padding, groups, dilation),
            2 => input.f_conv_transpose2d(weight, bias, stride, padding, output_padding, groups, dilation),
            _ => input.f_conv_transpose3d(weight, bias, stride, padding, output_padding, groups, dilation),
        }
    }
}

module!(ConvTranspose<1>, ConvTranspose<2>, ConvTranspose<3>);
