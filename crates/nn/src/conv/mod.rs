//! Convolutions and transposed convolutions.

mod convolution;
mod kernel;
mod transposed;

pub use convolution::{Conv, Conv1d, Conv2d, Conv3d, ConvOptions, conv1d, conv2d, conv3d};
pub use transposed::{
    ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, ConvTransposeOptions, conv_transpose1d,
    conv_transpose2d, conv_transpose3d,
};
