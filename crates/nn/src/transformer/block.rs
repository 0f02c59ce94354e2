//! What the layers of encoders and decoders share.

use std::fmt;

use fulgurite_torch::Path;
use fulgurite_torch::rng::RngState;
use fulgurite_torch::tch::Tensor;

use crate::activation::{Activation, relu};
use crate::attention::{MultiheadAttention, multihead_attention};
use crate::dropout::{Dropout, dropout};
use crate::error::Result;
use crate::init;
use crate::linear::{Linear, linear};
use crate::module::{Build, Label, module_list, tree};
use crate::norm::{LayerNorm, LayerNormOptions, layer_norm};

/// The options of a layer of an encoder or decoder.
#[derive(Debug, Clone)]
pub(super) struct BlockOptions {
    pub(super) d_model: i64,
    pub(super) nhead: i64,
    pub(super) dim_feedforward: i64,
    pub(super) dropout: f64,
    pub(super) activation: Activation,
    pub(super) layer_norm_eps: f64,
    pub(super) batch_first: bool,
    pub(super) norm_first: bool,
    pub(super) bias: bool,
}

impl BlockOptions {
    pub(super) fn new(d_model: i64, nhead: i64) -> BlockOptions {
        BlockOptions {
            d_model,
            nhead,
            dim_feedforward: 2048,
            dropout: 0.1,
            activation: relu(),
            layer_norm_eps: 1e-5,
            batch_first: false,
            norm_first: false,
            bias: true,
        }
    }

    pub(super) fn check(&self, label: &Label) -> Result<()> {
        label.check_positive(&[
            ("d_model", self.d_model),
            ("nhead", self.nhead),
            ("dim_feedforward", self.dim_feedforward),
        ])
    }

    pub(super) fn attention(&self, path: &Path<'_>) -> Result<MultiheadAttention> {
        let attention = multihead_attention(self.d_model, self.nhead);
        attention.dropout(self.dropout).bias(self.bias).batch_first(self.batch_first).at(path)
    }

    pub(super) fn norm(&self) -> LayerNormOptions {
        layer_norm(self.d_model).eps(self.layer_norm_eps).bias(self.bias)
    }

    pub(super) fn feed_forward(&self, path: &Path<'_>) -> Result<FeedForward> {
        Ok(FeedForward {
            linear1: linear(self.d_model, self.dim_feedforward).bias(self.bias).at(path / "linear1")?,
            dropout: dropout(self.dropout).at(path / "dropout")?,
            linear2: linear(self.dim_feedforward, self.d_model).bias(self.bias).at(path / "linear2")?,
            activation: self.activation.clone(),
        })
    }
}

/// The setters that both kinds of layers have.
macro_rules! block_setters {
    () => {
        $crate::module::setters! {
            in 0;
            /// The width of the feed-forward network; the default is 2048.
            dim_feedforward: i64;
            /// The probability of dropout, of attention weights too; the default is 0.1.
            dropout: f64;
            /// The function within the feed-forward network; the default is ReLU.
            activation: $crate::Activation;
            /// What is added to variances; the default is 1e-5.
            layer_norm_eps: f64;
            /// Whether inputs are `[batch, time, features]` and not `[time, batch, features]`; the default is `false`, as in
            /// PyTorch.
            batch_first: bool;
            /// Whether inputs of the parts are normalized, and not their outputs (Xiong et al. 2020); the default is `false`.
            norm_first: bool;
            /// Whether linear layers and norms have biases; the default is `true`.
            bias: bool;
        }
    };
}

pub(super) use block_setters;

/// Two linear layers with a function between.
pub(super) struct FeedForward {
    linear1: Linear,
    dropout: Dropout,
    linear2: Linear,
    activation: Activation,
}

impl FeedForward {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.activation.try_forward(&self.linear1.try_forward(x)?)?;
        self.linear2.try_forward(&self.dropout.try_forward(&hidden)?)
    }

    /// Its layers, as PyTorch prints them.
    pub(super) fn parts(&self) -> [(&'static str, String); 3] {
        let layers = [self.linear1.to_string(), self.dropout.to_string(), self.linear2.to_string()];
        let [linear1, dropout, linear2] = layers;
        [("linear1", linear1), ("dropout", dropout), ("linear2", linear2)]
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let layers = [&self.linear1, &self.linear2];
        layers.into_iter().flat_map(|layer| [Some(&layer.weight), layer.bias.as_ref()]).flatten().collect()
    }
}

/// The parameters of a norm.
pub(super) fn of_norm(norm: &LayerNorm) -> Vec<&Tensor> {
    [norm.weight.as_ref(), norm.bias.as_ref()].into_iter().flatten().collect()
}

/// How PyTorch prints layers one after the other.
pub(super) fn print_stack(name: &str, layers: &[impl fmt::Display], norm: Option<&LayerNorm>) -> String {
    let mut parts = vec![("layers", module_list(layers))];
    parts.extend(norm.map(|norm| ("norm", norm.to_string())));
    tree(name, &parts)
}

/// `count` layers with the values of the first, as PyTorch copies it: numbers are drawn for the first alone.
pub(super) fn clones<L>(
    path: &Path<'_>,
    count: usize,
    build: impl Fn(&Path<'_>) -> Result<L>,
    tensors: impl Fn(&L) -> Vec<&Tensor>,
) -> Result<Vec<L>> {
    let mut layers = Vec::with_capacity(count);
    if count == 0 {
        return Ok(layers);
    }
    layers.push(build(&(path / 0))?);
    let drawn = RngState::capture()?;
    for i in 1..count {
        layers.push(build(&(path / i))?);
    }
    drawn.restore()?;
    if let Some((first, others)) = layers.split_first() {
        for other in others {
            for (target, source) in tensors(other).into_iter().zip(tensors(first)) {
                init::copy_(target, source)?;
            }
        }
    }
    Ok(layers)
}
