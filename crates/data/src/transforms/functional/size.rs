//! Sizes, paddings and fills, as they can be written.

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use super::setting;
use crate::DataError;

/// Height and width. A single number is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub height: i64,
    /// Columns.
    pub width: i64,
}

impl From<i64> for Size {
    fn from(side: i64) -> Size {
        Size { height: side, width: side }
    }
}

impl From<(i64, i64)> for Size {
    fn from((height, width): (i64, i64)) -> Size {
        Size { height, width }
    }
}

impl From<[i64; 2]> for Size {
    fn from([height, width]: [i64; 2]) -> Size {
        Size { height, width }
    }
}

impl Size {
    pub(crate) fn check(self, name: &str) -> Result<Size, DataError> {
        if self.height > 0 && self.width > 0 {
            return Ok(self);
        }
        setting(format!("{name} was given the size {} x {}; an image has at least one pixel", self.height, self.width))
    }
}

/// What [`resize`](super::resize) makes of an image's size. A number is the shorter edge, a pair height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeSize {
    /// The shorter edge; the other one in proportion. torchvision's `size=int`.
    ShorterEdge(i64),
    /// The longer edge; the other one in proportion. torchvision's `size=None, max_size=int`.
    LongerEdge(i64),
    /// Both.
    Exact(Size),
}

impl From<i64> for ResizeSize {
    fn from(shorter: i64) -> ResizeSize {
        ResizeSize::ShorterEdge(shorter)
    }
}

impl From<Size> for ResizeSize {
    fn from(size: Size) -> ResizeSize {
        ResizeSize::Exact(size)
    }
}

impl From<(i64, i64)> for ResizeSize {
    fn from(size: (i64, i64)) -> ResizeSize {
        ResizeSize::Exact(size.into())
    }
}

impl From<[i64; 2]> for ResizeSize {
    fn from(size: [i64; 2]) -> ResizeSize {
        ResizeSize::Exact(size.into())
    }
}

impl ResizeSize {
    /// The size that an image of `height` by `width` gets, at most `max_size` long.
    pub(crate) fn of(self, height: i64, width: i64, max_size: Option<i64>) -> Result<Size, DataError> {
        let (short, long) = (height.min(width).max(1), height.max(width).max(1));
        let scaled = |edge: i64, by: i64, of: i64| (edge as f64 * by as f64 / of as f64) as i64;
        let (new_short, new_long) = match (self, max_size) {
            (ResizeSize::Exact(size), None) => return size.check("resize"),
            (ResizeSize::LongerEdge(edge), None) => (scaled(edge, short, long), edge),
            (ResizeSize::ShorterEdge(edge), None) => (edge, scaled(edge, long, short)),
            (ResizeSize::ShorterEdge(edge), Some(max)) if max > edge => {
                let new_long = scaled(edge, long, short);
                if new_long > max { (scaled(max, edge, new_long), max) } else { (edge, new_long) }
            }
            (ResizeSize::ShorterEdge(edge), Some(max)) => {
                return setting(format!("resize has a max_size of {max}, but is to make the shorter edge {edge} long"));
            }
            (_, Some(_)) => return setting("resize takes a max_size only with the size of the shorter edge".into()),
        };
        let size = if width <= height { [new_long, new_short] } else { [new_short, new_long] };
        Size::from(size).check("resize")
    }
}

/// How many pixels are added on each side. A number is all four; a pair left and right, top and bottom; four numbers
/// are left, top, right, bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Columns on the left.
    pub left: i64,
    /// Rows above.
    pub top: i64,
    /// Columns on the right.
    pub right: i64,
    /// Rows below.
    pub bottom: i64,
}

impl From<i64> for Padding {
    fn from(all: i64) -> Padding {
        Padding { left: all, top: all, right: all, bottom: all }
    }
}

impl From<[i64; 2]> for Padding {
    fn from([x, y]: [i64; 2]) -> Padding {
        Padding { left: x, top: y, right: x, bottom: y }
    }
}

impl From<[i64; 4]> for Padding {
    fn from([left, top, right, bottom]: [i64; 4]) -> Padding {
        Padding { left, top, right, bottom }
    }
}

impl Padding {
    /// The order of `torch.nn.functional.pad`.
    pub(crate) fn to_torch(self) -> [i64; 4] {
        [self.left, self.right, self.top, self.bottom]
    }
}

/// The color of pixels that an image does not have: one value for all channels, or one for each, on the scale of the
/// image (0 to 255 for bytes).
#[derive(Debug, Clone, PartialEq)]
pub struct Fill(Vec<f64>);

impl Default for Fill {
    fn default() -> Fill {
        Fill(vec![0.0])
    }
}

impl From<f64> for Fill {
    fn from(value: f64) -> Fill {
        Fill(vec![value])
    }
}

impl From<i64> for Fill {
    fn from(value: i64) -> Fill {
        Fill(vec![value as f64])
    }
}

impl From<Vec<f64>> for Fill {
    fn from(channels: Vec<f64>) -> Fill {
        Fill(channels)
    }
}

impl<const N: usize> From<[f64; N]> for Fill {
    fn from(channels: [f64; N]) -> Fill {
        Fill(channels.to_vec())
    }
}

impl Fill {
    /// The one value of all channels, if they have one.
    pub(crate) fn scalar(&self) -> Option<f64> {
        match self.0[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    pub(crate) fn check(&self, channels: i64, name: &str) -> Result<(), DataError> {
        if self.0.len() == 1 || self.0.len() as i64 == channels {
            return Ok(());
        }
        setting(format!("{name} was given {} fill values for an image of {channels} channels", self.0.len()))
    }

    /// `[C, 1, 1]` or `[1, 1, 1]`.
    pub(crate) fn to_tensor(&self, kind: Kind, device: Device) -> Result<Tensor, TchError> {
        Tensor::f_from_slice(&self.0)?.f_to_kind(kind)?.f_to_device(device)?.f_view([-1, 1, 1])
    }
}

/// How values between pixels are computed; torchvision's `InterpolationMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InterpolationMode {
    /// The pixel before.
    Nearest,
    /// The nearest pixel.
    NearestExact,
    /// Linear in both directions.
    #[default]
    Bilinear,
    /// Cubic in both directions.
    Bicubic,
}

/// What pixels beyond an image's edge are; the `padding_mode` of `torchvision.transforms.v2.Pad`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PaddingMode {
    /// A color.
    #[default]
    Constant,
    /// The last pixel.
    Edge,
    /// Mirrored, without the last pixel.
    Reflect,
    /// Mirrored, with the last pixel.
    Symmetric,
}
