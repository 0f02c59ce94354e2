//! Transposed convolutions: [`ConvTranspose`] in one to three dimensions.

use fulgurite_torch::Path;
use fulgurite_torch::tch::{TchError, Tensor};

use super::kernel::{Kernel, constructors, unless_zero};
use crate::error::Result;
use crate::module::{Build, Label, module, output, setters};
use crate::size::Size;

/// A transposed convolution in `N` dimensions, over inputs `[batch, in_channels, …]`: PyTorch's `nn.ConvTranspose1d` to
/// `nn.ConvTranspose3d`.
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
    kernel: Kernel<N>,
    padding: Size<N>,
    output_padding: Size<N>,
}

constructors! {
    ConvTransposeOptions:
    /// A [`ConvTranspose1d`] layer.
    conv_transpose1d, 1;
    /// A [`ConvTranspose2d`] layer.
    conv_transpose2d, 2;
    /// A [`ConvTranspose3d`] layer.
    conv_transpose3d, 3;
}

impl<const N: usize> ConvTransposeOptions<N> {
    fn new(in_channels: i64, out_channels: i64, kernel_size: Size<N>) -> ConvTransposeOptions<N> {
        let kernel = Kernel::new(in_channels, out_channels, kernel_size);
        ConvTransposeOptions { kernel, padding: 0.into(), output_padding: 0.into() }
    }

    setters! {
        in kernel;
        /// The distance of two inputs in the output; the default is 1.
        stride: Size<N>;
        /// The number of groups of channels that do not mix; the default is 1.
        groups: i64;
        /// Whether there is a bias; the default is `true`.
        bias: bool;
        /// The distance of the outputs of one input; the default is 1.
        dilation: Size<N>;
    }

    setters! {
        /// What is cut off on both sides of the output; the default is 0.
        padding: Size<N>;
        /// What is added on one side of the output; the default is 0.
        output_padding: Size<N>;
    }

    fn repr(&self) -> String {
        let padding = unless_zero("padding", self.padding);
        self.kernel.repr("ConvTranspose", &padding, &unless_zero("output_padding", self.output_padding), "")
    }
}

impl<const N: usize> Build for ConvTransposeOptions<N> {
    type Layer = ConvTranspose<N>;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<ConvTranspose<N>> {
        let path = path.into();
        let label = Label::new(&path, self.repr());
        self.kernel.check(&label)?;
        let Kernel { in_channels, out_channels, groups, .. } = self.kernel;
        let (weight, bias) = self.kernel.parameters(&path, [in_channels, out_channels / groups])?;
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
        self.label.forward("transposed convolution", self.convolve(input, self.options.output_padding.each))
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
        let Kernel { kernel_size, stride, dilation, .. } = self.options.kernel;
        let [kernel_size, stride, padding, dilation] =
            [kernel_size, stride, self.options.padding, dilation].map(|size| size.each);
        let size = input.size();
        let Some(space) = size.len().checked_sub(N).filter(|&dims| dims > 0).map(|dims| &size[dims..]) else {
            return Err(self.label.input(format!(
                "an input of {} or {} dimensions is needed, not {size:?}",
                N + 1,
                N + 2
            )));
        };
        let smallest: [i64; N] = std::array::from_fn(|dim| {
            (space[dim] - 1) * stride[dim] - 2 * padding[dim] + dilation[dim] * (kernel_size[dim] - 1) + 1
        });
        let added: [i64; N] = std::array::from_fn(|dim| output_size[dim] - smallest[dim]);
        if (0..N).any(|dim| !(0..stride[dim]).contains(&added[dim])) {
            let largest: [i64; N] = std::array::from_fn(|dim| smallest[dim] + stride[dim] - 1);
            return Err(self.label.input(format!(
                "the output size {output_size:?} was requested, but from {space:?} come sizes from {smallest:?} to {largest:?}"
            )));
        }
        self.label.forward("transposed convolution", self.convolve(input, added))
    }

    fn convolve(&self, input: &Tensor, output_padding: [i64; N]) -> Result<Tensor, TchError> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        let Kernel { stride, dilation, groups, .. } = self.options.kernel;
        let [stride, padding, dilation] = [stride, self.options.padding, dilation].map(|size| size.each);
        match N {
            1 => input.f_conv_transpose1d(weight, bias, stride, padding, output_padding, groups, dilation),
            2 => input.f_conv_transpose2d(weight, bias, stride, padding, output_padding, groups, dilation),
            _ => input.f_conv_transpose3d(weight, bias, stride, padding, output_padding, groups, dilation),
        }
    }
}

module!(ConvTranspose<1>, ConvTranspose<2>, ConvTranspose<3>);
