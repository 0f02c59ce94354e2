//! [`Pad`]: layers that pad their input.

use fulgurite_torch::Path;
use fulgurite_torch::tch::Tensor;

use crate::error::Result;
use crate::module::{Build, Label, module, python_float, python_tuple};
use crate::size::PaddingMode;

/// A layer that adds values around its input: PyTorch's `nn.ZeroPad1d`, `nn.ConstantPad2d`, `nn.ReflectionPad3d` and so on.
///
/// The amounts are those before and after each dimension, beginning with the last: `[left, right, top, bottom]`. Negative ones
/// cut off.
#[derive(Clone)]
pub struct Pad {
    padding: Vec<i64>,
    mode: PaddingMode,
    value: f64,
    label: Label,
}

fn pad(name: &str, space: usize, padding: Vec<i64>, mode: PaddingMode, value: f64) -> Pad {
    let sides = python_tuple(&padding);
    let options = match name {
        "ConstantPad" => format!("padding={sides}, value={}", python_float(value)),
        _ => sides,
    };
    let label = Label::unnamed(format!("{name}{space}d({options})"));
    Pad { padding, mode, value, label }
}

/// What is added before and after each of `N / 2` dimensions: `N` numbers, or one for all.
#[derive(Debug, Clone, Copy)]
pub struct PadSize<const N: usize>([i64; N]);

impl<const N: usize> From<i64> for PadSize<N> {
    fn from(size: i64) -> PadSize<N> {
        PadSize([size; N])
    }
}

impl<const N: usize> From<[i64; N]> for PadSize<N> {
    fn from(size: [i64; N]) -> PadSize<N> {
        PadSize(size)
    }
}

macro_rules! pads {
    ($($(#[$doc:meta])* $name:ident, $torch:literal, $sides:literal, $mode:ident;)+) => { $(
        $(#[$doc])*
        pub fn $name(padding: impl Into<PadSize<$sides>>) -> Pad {
            pad($torch, $sides / 2, padding.into().0.into(), PaddingMode::$mode, 0.0)
        }
    )+ };
}

pads! {
    /// Pads with zeros: PyTorch's `nn.ZeroPad1d`.
    zero_pad1d, "ZeroPad", 2, Zeros;
    /// Pads with zeros: PyTorch's `nn.ZeroPad2d`.
    zero_pad2d, "ZeroPad", 4, Zeros;
    /// Pads with zeros: PyTorch's `nn.ZeroPad3d`.
    zero_pad3d, "ZeroPad", 6, Zeros;
    /// Pads with the input in a mirror at its border: PyTorch's `nn.ReflectionPad1d`.
    reflection_pad1d, "ReflectionPad", 2, Reflect;
    /// Pads with the input in a mirror at its border: PyTorch's `nn.ReflectionPad2d`.
    reflection_pad2d, "ReflectionPad", 4, Reflect;
    /// Pads with the input in a mirror at its border: PyTorch's `nn.ReflectionPad3d`.
    reflection_pad3d, "ReflectionPad", 6, Reflect;
    /// Pads with the value at the border: PyTorch's `nn.ReplicationPad1d`.
    replication_pad1d, "ReplicationPad", 2, Replicate;
    /// Pads with the value at the border: PyTorch's `nn.ReplicationPad2d`.
    replication_pad2d, "ReplicationPad", 4, Replicate;
    /// Pads with the value at the border: PyTorch's `nn.ReplicationPad3d`.
    replication_pad3d, "ReplicationPad", 6, Replicate;
    /// Pads with the other end of the input: PyTorch's `nn.CircularPad1d`.
    circular_pad1d, "CircularPad", 2, Circular;
    /// Pads with the other end of the input: PyTorch's `nn.CircularPad2d`.
    circular_pad2d, "CircularPad", 4, Circular;
    /// Pads with the other end of the input: PyTorch's `nn.CircularPad3d`.
    circular_pad3d, "CircularPad", 6, Circular;
}

/// Pads with a value: PyTorch's `nn.ConstantPad1d`.
pub fn constant_pad1d(padding: impl Into<PadSize<2>>, value: f64) -> Pad {
    pad("ConstantPad", 1, padding.into().0.into(), PaddingMode::Zeros, value)
}

/// Pads with a value: PyTorch's `nn.ConstantPad2d`.
pub fn constant_pad2d(padding: impl Into<PadSize<4>>, value: f64) -> Pad {
    pad("ConstantPad", 2, padding.into().0.into(), PaddingMode::Zeros, value)
}

/// Pads with a value: PyTorch's `nn.ConstantPad3d`.
pub fn constant_pad3d(padding: impl Into<PadSize<6>>, value: f64) -> Pad {
    pad("ConstantPad", 3, padding.into().0.into(), PaddingMode::Zeros, value)
}

impl Pad {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        let (mode, value) = match self.mode {
            PaddingMode::Zeros => ("constant", Some(self.value)),
            mode => (mode.name(), None),
        };
        self.label.forward("pad", input.f_pad(self.padding.as_slice(), mode, value))
    }
}

module!(Pad);

impl Build for Pad {
    type Layer = Pad;

    fn at<'a>(&self, _: impl Into<Path<'a>>) -> Result<Pad> {
        Ok(self.clone())
    }
}
