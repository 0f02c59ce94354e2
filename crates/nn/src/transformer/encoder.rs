//! [`TransformerEncoder`] and its layers.

use std::fmt;

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{LayerType, Path};

use super::block::{BlockOptions, FeedForward, block_setters, clones, of_norm, print_stack};
use crate::attention::{AttentionMask, MultiheadAttention};
use crate::dropout::{Dropout, dropout};
use crate::error::Result;
use crate::module::{Build, Label, debug, output, setters, tree};
use crate::norm::{LayerNorm, LayerNormOptions};

/// Self-attention and a feed-forward network, each with a norm and a residual: PyTorch's `nn.TransformerEncoderLayer`.
pub struct TransformerEncoderLayer {
    self_attn: MultiheadAttention,
    feed_forward: FeedForward,
    norm1: LayerNorm,
    norm2: LayerNorm,
    dropout1: Dropout,
    dropout2: Dropout,
    norm_first: bool,
    /// Kept for summaries of the model.
    _label: Label,
}

/// The options of a [`TransformerEncoderLayer`].
#[derive(Debug, Clone)]
pub struct TransformerEncoderLayerOptions(pub(super) BlockOptions);

/// A [`TransformerEncoderLayer`].
pub fn transformer_encoder_layer(d_model: i64, nhead: i64) -> TransformerEncoderLayerOptions {
    TransformerEncoderLayerOptions(BlockOptions::new(d_model, nhead))
}

impl TransformerEncoderLayerOptions {
    block_setters!();
}

impl Build for TransformerEncoderLayerOptions {
    type Layer = TransformerEncoderLayer;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<TransformerEncoderLayer> {
        let (path, options) = (path.into(), &self.0);
        let repr = format!("TransformerEncoderLayer(d_model={}, nhead={})", options.d_model, options.nhead);
        let label = Label::new(&path, repr);
        options.check(&label)?;
        Ok(TransformerEncoderLayer {
            self_attn: options.attention(&(&path / "self_attn"))?,
            feed_forward: options.feed_forward(&path)?,
            norm1: options.norm().at(&path / "norm1")?,
            norm2: options.norm().at(&path / "norm2")?,
            dropout1: dropout(options.dropout).at(&path / "dropout1")?,
            dropout2: dropout(options.dropout).at(&path / "dropout2")?,
            norm_first: options.norm_first,
            _label: label,
        })
    }
}

impl TransformerEncoderLayer {
    /// Applies the layer to `[time, batch, d_model]`, or `[batch, time, d_model]` with `batch_first`.
    ///
    /// # Panics
    ///
    /// Panics if the input does not fit.
    pub fn forward(&self, src: &Tensor, mask: AttentionMask<'_>) -> Tensor {
        output(self.try_forward(src, mask))
    }

    /// [`forward`](TransformerEncoderLayer::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, src: &Tensor, mask: AttentionMask<'_>) -> Result<Tensor> {
        if self.norm_first {
            let x = src + self.attend(&self.norm1.try_forward(src)?, mask)?;
            let fed = self.dropout2.try_forward(&self.feed_forward.forward(&self.norm2.try_forward(&x)?)?)?;
            return Ok(x + fed);
        }
        let x = self.norm1.try_forward(&(src + self.attend(src, mask)?))?;
        let fed = self.dropout2.try_forward(&self.feed_forward.forward(&x)?)?;
        self.norm2.try_forward(&(x + fed))
    }

    fn attend(&self, x: &Tensor, mask: AttentionMask<'_>) -> Result<Tensor> {
        self.dropout1.try_forward(&self.self_attn.try_forward(x, x, x, mask)?)
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let norms = [&self.norm1, &self.norm2].into_iter().flat_map(of_norm);
        self.self_attn.tensors().into_iter().chain(self.feed_forward.tensors()).chain(norms).collect()
    }
}

impl fmt::Display for TransformerEncoderLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [linear1, dropout, linear2] = self.feed_forward.parts();
        let parts = [
            ("self_attn", self.self_attn.to_string()),
            linear1,
            dropout,
            linear2,
            ("norm1", self.norm1.to_string()),
            ("norm2", self.norm2.to_string()),
            ("dropout1", self.dropout1.to_string()),
            ("dropout2", self.dropout2.to_string()),
        ];
        f.write_str(&tree("TransformerEncoderLayer", &parts))
    }
}

debug!(TransformerEncoderLayer);

/// Encoder layers one after the other: PyTorch's `nn.TransformerEncoder`. All layers begin with the same values, as in PyTorch,
/// which copies one.
///
/// ```
/// use fulgurite_nn::{self as nn, AttentionMask, Build};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let layer = nn::transformer_encoder_layer(32, 4).dim_feedforward(64).batch_first(true);
/// let encoder = nn::transformer_encoder(layer, 2).at(vars.root() / "encoder")?;
/// let x = Tensor::randn([8, 10, 32], (Kind::Float, Device::Cpu));
/// assert_eq!(encoder.forward(&x, AttentionMask::causal()).size(), [8, 10, 32]);
/// # Ok::<(), nn::NnError>(())
/// ```
pub struct TransformerEncoder {
    layers: Vec<TransformerEncoderLayer>,
    norm: Option<LayerNorm>,
    /// Kept for summaries of the model.
    _layer_types: [LayerType; 2],
}

/// The options of a [`TransformerEncoder`].
#[derive(Debug, Clone)]
pub struct TransformerEncoderOptions {
    layer: TransformerEncoderLayerOptions,
    num_layers: usize,
    norm: Option<LayerNormOptions>,
}

/// A [`TransformerEncoder`] of `num_layers` layers.
pub fn transformer_encoder(layer: TransformerEncoderLayerOptions, num_layers: usize) -> TransformerEncoderOptions {
    TransformerEncoderOptions { layer, num_layers, norm: None }
}

impl TransformerEncoderOptions {
    setters! {
        /// A norm after the last layer; there is none by default.
        norm: Option<LayerNormOptions>;
    }
}

impl Build for TransformerEncoderOptions {
    type Layer = TransformerEncoder;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<TransformerEncoder> {
        let path = path.into();
        let layer_types = [path.layer_type("TransformerEncoder"), (&path / "layers").layer_type("ModuleList")];
        let build = |path: &Path<'_>| self.layer.at(path);
        let layers = clones(&(&path / "layers"), self.num_layers, build, TransformerEncoderLayer::tensors)?;
        let norm = self.norm.as_ref().map(|norm| norm.at(&path / "norm")).transpose()?;
        Ok(TransformerEncoder { layers, norm, _layer_types: layer_types })
    }
}

impl TransformerEncoder {
    /// Applies the layers to `[time, batch, d_model]`, or `[batch, time, d_model]` with `batch_first`.
    ///
    /// # Panics
    ///
    /// Panics if the input does not fit.
    pub fn forward(&self, src: &Tensor, mask: AttentionMask<'_>) -> Tensor {
        output(self.try_forward(src, mask))
    }

    /// [`forward`](TransformerEncoder::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, src: &Tensor, mask: AttentionMask<'_>) -> Result<Tensor> {
        let mut x = src.shallow_clone();
        for layer in &self.layers {
            x = layer.try_forward(&x, mask)?;
        }
        self.norm.as_ref().map_or(Ok(x.shallow_clone()), |norm| norm.try_forward(&x))
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let norm = self.norm.iter().flat_map(of_norm);
        self.layers.iter().flat_map(TransformerEncoderLayer::tensors).chain(norm).collect()
    }
}

impl fmt::Display for TransformerEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print_stack("TransformerEncoder", &self.layers, self.norm.as_ref()))
    }
}

debug!(TransformerEncoder);
