//! Normalization layers.

mod batch;
mod channels;
mod group;
mod instance;
mod layer;
mod local_response;

pub use batch::{BatchNorm, BatchNormOptions, batch_norm1d, batch_norm2d, batch_norm3d};
pub use group::{GroupNorm, GroupNormOptions, group_norm};
pub use instance::{InstanceNorm, InstanceNormOptions, instance_norm1d, instance_norm2d, instance_norm3d};
pub use layer::{LayerNorm, LayerNormOptions, NormalizedShape, RmsNorm, RmsNormOptions, layer_norm, rms_norm};
pub use local_response::{LocalResponseNorm, local_response_norm};

use fulgurite_torch::tch::Tensor;

use crate::error::Result;
use crate::module::Label;

/// Checks the channels of an input `[batch, channels, …]` with `space` further dimensions, or one of several `space`s.
fn check_input(label: &Label, input: &Tensor, dims: &[usize]) -> Result<()> {
    let size = input.size();
    if dims.contains(&size.len()) {
        return Ok(());
    }
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    Err(label.input(format!("expected an input of {} dimensions, not {size:?}", dims.join(" or "))))
}

/// Checks that there are several values, whose variance is not 0.
fn check_values(label: &Label, values: i64, input: &Tensor) -> Result<()> {
    match values {
        1 => Err(label.input(format!("expected more than one value to normalize, not {:?}", input.size()))),
        _ => Ok(()),
    }
}
