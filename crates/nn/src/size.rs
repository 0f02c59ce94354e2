//! Sizes of windows and strides, one number for each dimension of space.

/// A size in `N` dimensions: an array, or one number for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size<const N: usize>(pub(crate) [i64; N]);

impl<const N: usize> From<i64> for Size<N> {
    fn from(size: i64) -> Size<N> {
        Size([size; N])
    }
}

impl<const N: usize> From<[i64; N]> for Size<N> {
    fn from(size: [i64; N]) -> Size<N> {
        Size(size)
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
