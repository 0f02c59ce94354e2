//! Sizes of windows and strides, one number for each dimension of space.

use crate::module::python_tuple;

/// A size in `N` dimensions: an array, or one number for all of them.
#[derive(Debug, Clone, Copy)]
pub struct Size<const N: usize> {
    pub(crate) each: [i64; N],
    is_one_number: bool,
}

impl<const N: usize> From<i64> for Size<N> {
    fn from(size: i64) -> Size<N> {
        Size { each: [size; N], is_one_number: true }
    }
}

impl<const N: usize> From<[i64; N]> for Size<N> {
    fn from(size: [i64; N]) -> Size<N> {
        Size { each: size, is_one_number: false }
    }
}

impl<const N: usize> Size<N> {
    /// As Python prints what was given.
    pub(crate) fn as_given(&self) -> String {
        if self.is_one_number { self.each[0].to_string() } else { self.as_tuple() }
    }

    /// As Python prints it with a number for each dimension.
    pub(crate) fn as_tuple(&self) -> String {
        python_tuple(&self.each)
    }
}

/// What pads the input of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvPadding<const N: usize> {
    /// As much on both sides, for each dimension.
    Amount([i64; N]),
    /// As much as gives the output the size of the input; for strides of 1.
    Same,
    /// None.
    Valid,
}

impl<const N: usize> From<i64> for ConvPadding<N> {
    fn from(size: i64) -> ConvPadding<N> {
        ConvPadding::Amount([size; N])
    }
}

impl<const N: usize> From<[i64; N]> for ConvPadding<N> {
    fn from(size: [i64; N]) -> ConvPadding<N> {
        ConvPadding::Amount(size)
    }
}

/// What stands in the padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PaddingMode {
    /// Zeros.
    #[default]
    Zeros,
    /// The input in a mirror at its border, without the border itself.
    Reflect,
    /// The value at the border.
    Replicate,
    /// The other end of the input.
    Circular,
}

impl PaddingMode {
    /// PyTorch's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PaddingMode::Zeros => "zeros",
            PaddingMode::Reflect => "reflect",
            PaddingMode::Replicate => "replicate",
            PaddingMode::Circular => "circular",
        }
    }
}
