//! PyTorch's layers, with PyTorch's names, defaults and initial values, on `tch`.
//!
//! A layer is made of its options at a path of a [`VarStore`]:
//!
//! ```
//! use fulgurite_nn::{self as nn, Build, Module};
//! use fulgurite_torch::tch::{Device, Kind, Tensor};
//!
//! let vars = nn::VarStore::new(Device::Cpu);
//! let net = nn::sequential()
//!     .add(nn::conv2d(1, 8, 3).padding(1))
//!     .add(nn::batch_norm2d(8))
//!     .add(nn::relu())
//!     .add(nn::adaptive_avg_pool2d(1))
//!     .add(nn::flatten())
//!     .add(nn::linear(8, 10))
//!     .at(vars.root() / "net")?;
//! let images = Tensor::rand([2, 1, 28, 28], (Kind::Float, Device::Cpu));
//! assert_eq!(net.forward(&images).size(), [2, 10]);
//! vars.eval(); // the batch norm uses its running statistics from now on
//! # Ok::<(), nn::NnError>(())
//! ```
//!
//! The parameters have the names that they have in Python (`net.0.weight`), so a state dict of the same model there fits. With the
//! same seed they have the same values, where both are created in the same order.
//!
//! The layers of `tch::nn` start elsewhere than PyTorch's: weights of linear and convolutional layers are 2.4 times as
//! wide, those of batch norms are drawn from 0..1 instead of being 1, the biases of an LSTM are 0.

mod activation;
mod adaptive_softmax;
mod attention;
mod conv;
mod distance;
mod dropout;
mod embedding;
mod error;
mod flatten;
pub mod init;
mod linear;
mod loss;
mod module;
mod norm;
mod padding;
mod parameter;
mod pooling;
mod rnn;
mod sequential;
mod size;
mod transformer;
mod upsample;

pub use activation::{
    Activation, PRelu, PReluOptions, RRelu, RReluOptions, celu, elu, gelu, gelu_tanh, glu, hardshrink, hardsigmoid,
    hardswish, hardtanh, identity, leaky_relu, log_sigmoid, log_softmax, mish, prelu, relu, relu6, rrelu, selu,
    sigmoid, silu, softmax, softmax2d, softmin, softplus, softshrink, softsign, tanh, tanhshrink, threshold,
};
pub use adaptive_softmax::{AdaptiveLogSoftmaxOptions, AdaptiveLogSoftmaxWithLoss, adaptive_log_softmax_with_loss};
pub use attention::{AttentionMask, MultiheadAttention, MultiheadAttentionOptions, multihead_attention};
pub use conv::*;
pub use distance::{CosineSimilarity, PairwiseDistance, cosine_similarity, normalize, pairwise_distance};
pub use dropout::{
    Dropout, DropoutOptions, alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout,
};
pub use embedding::{
    BagMode, Embedding, EmbeddingBag, EmbeddingBagOptions, EmbeddingOptions, embedding, embedding_bag,
};
pub use error::{NnError, Result};
pub use flatten::{
    FoldOptions, Reshape, channel_shuffle, flatten, flatten_dims, fold, pixel_shuffle, pixel_unshuffle, unflatten,
    unfold,
};
pub use fulgurite_torch::tch::Reduction;
pub use fulgurite_torch::{LayerType, Mode, Path, VarStore};
pub use linear::{Bilinear, BilinearOptions, Linear, LinearOptions, bilinear, linear};
pub use loss::*;
pub use module::{Build, Module};
pub use norm::{
    BatchNorm, BatchNormOptions, GroupNorm, GroupNormOptions, InstanceNorm, InstanceNormOptions, LayerNorm,
    LayerNormOptions, LocalResponseNorm, NormalizedShape, RmsNorm, RmsNormOptions, batch_norm1d, batch_norm2d,
    batch_norm3d, group_norm, instance_norm1d, instance_norm2d, instance_norm3d, layer_norm, local_response_norm,
    rms_norm,
};
pub use padding::{
    Pad, PadSize, circular_pad1d, circular_pad2d, circular_pad3d, constant_pad1d, constant_pad2d, constant_pad3d,
    reflection_pad1d, reflection_pad2d, reflection_pad3d, replication_pad1d, replication_pad2d, replication_pad3d,
    zero_pad1d, zero_pad2d, zero_pad3d,
};
pub use pooling::*;
pub use rnn::*;
pub use sequential::{Sequential, SequentialOptions, sequential};
pub use size::{ConvPadding, PaddingMode, Size};
pub use transformer::*;
pub use upsample::{OneOrEach, Upsample, UpsampleMode, upsample, upsample_to};
