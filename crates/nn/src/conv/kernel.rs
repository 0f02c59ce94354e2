//! What convolutions and transposed ones share.

use fulgurite_torch::Path;
use fulgurite_torch::tch::Tensor;

use crate::error::Result;
use crate::linear::draw;
use crate::module::Label;
use crate::parameter::parameter;
use crate::size::Size;

/// The options of a kernel in `N` dimensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel<const N: usize> {
    pub(super) in_channels: i64,
    pub(super) out_channels: i64,
    pub(super) kernel_size: Size<N>,
    pub(super) stride: Size<N>,
    pub(super) dilation: Size<N>,
    pub(super) groups: i64,
    pub(super) bias: bool,
}

impl<const N: usize> Kernel<N> {
    pub(super) fn new(in_channels: i64, out_channels: i64, kernel_size: Size<N>) -> Kernel<N> {
        let (stride, dilation) = (1.into(), 1.into());
        Kernel { in_channels, out_channels, kernel_size, stride, dilation, groups: 1, bias: true }
    }

    /// As PyTorch prints a layer: `paddings` are those that are not 0, and `last` is what comes after the rest.
    pub(super) fn repr(&self, name: &str, padding: &str, output_padding: &str, last: &str) -> String {
        let (kernel_size, stride) = (self.kernel_size.as_tuple(), self.stride.as_tuple());
        let channels = format!("{}, {}", self.in_channels, self.out_channels);
        let mut repr = format!("{name}{N}d({channels}, kernel_size={kernel_size}, stride={stride}{padding}");
        if self.dilation.each != [1; N] {
            repr += &format!(", dilation={}", self.dilation.as_tuple());
        }
        repr += output_padding;
        if self.groups != 1 {
            repr += &format!(", groups={}", self.groups);
        }
        if !self.bias {
            repr += ", bias=False";
        }
        repr + last + ")"
    }

    pub(super) fn check(&self, label: &Label) -> Result<()> {
        let Kernel { in_channels, out_channels, groups, .. } = *self;
        let channels = [("in_channels", in_channels), ("out_channels", out_channels)];
        label.check_positive(&channels)?;
        label.check_positive(&[("groups", groups)])?;
        let sizes = [("kernel_size", self.kernel_size), ("stride", self.stride), ("dilation", self.dilation)];
        for (name, size) in sizes {
            label.check_positive(&size.each.map(|size| (name, size)))?;
        }
        match channels.iter().find(|(_, channels)| channels % groups != 0) {
            None => Ok(()),
            Some((name, channels)) => {
                Err(label.options(format!("{name} ({channels}) must be divisible by groups ({groups})")))
            }
        }
    }

    /// The weight, whose first two dimensions are given, and the bias, drawn as PyTorch does.
    pub(super) fn parameters(&self, path: &Path<'_>, channels: [i64; 2]) -> Result<(Tensor, Option<Tensor>)> {
        let size = [channels.as_slice(), &self.kernel_size.each].concat();
        let weight = parameter(path, "weight", &size)?;
        let bias = self.bias.then(|| parameter(path, "bias", &[self.out_channels])).transpose()?;
        draw(&weight, bias.as_ref())?;
        Ok((weight, bias))
    }
}

/// `, name=(…)`, unless all sizes are 0.
pub(super) fn unless_zero<const N: usize>(name: &str, size: Size<N>) -> String {
    if size.each == [0; N] { String::new() } else { format!(", {name}={}", size.as_tuple()) }
}

/// The functions that make options of one to three dimensions.
macro_rules! constructors {
    ($options:ident: $($(#[$doc:meta])* $name:ident, $n:literal;)+) => { $(
        $(#[$doc])*
        pub fn $name(in_channels: i64, out_channels: i64, kernel_size: impl Into<Size<$n>>) -> $options<$n> {
            $options::new(in_channels, out_channels, kernel_size.into())
        }
    )+ };
}

pub(super) use constructors;
