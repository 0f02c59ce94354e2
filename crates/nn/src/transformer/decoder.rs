//! [`TransformerDecoder`] and its layers.

use std::fmt;

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{LayerType, Path};

use super::block::{BlockOptions, FeedForward, block_setters, clones, of_norm, print_stack};
use crate::attention::{AttentionMask, MultiheadAttention};
use crate::dropout::{Dropout, dropout};
use crate::error::Result;
use crate::module::{Build, Label, debug, output, setters, tree};
use crate::norm::{LayerNorm, LayerNormOptions};

/// Self-attention, attention to the memory of an encoder, and a feed-forward network, each with a norm and a residual:
/// PyTorch's `nn.TransformerDecoderLayer`.
pub struct TransformerDecoderLayer {
    self_attn: MultiheadAttention,
    multihead_attn: MultiheadAttention,
    feed_forward: FeedForward,
    norms: [LayerNorm; 3],
    dropouts: [Dropout; 3],
    norm_first: bool,
    /// Kept for summaries of the model.
    _label: Label,
}

/// The options of a [`TransformerDecoderLayer`].
#[derive(Debug, Clone)]
pub struct TransformerDecoderLayerOptions(pub(super) BlockOptions);

/// A [`TransformerDecoderLayer`].
pub fn transformer_decoder_layer(d_model: i64, nhead: i64) -> TransformerDecoderLayerOptions {
    TransformerDecoderLayerOptions(BlockOptions::new(d_model, nhead))
}

impl TransformerDecoderLayerOptions {
    block_setters!();
}

impl Build for TransformerDecoderLayerOptions {
    type Layer = TransformerDecoderLayer;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<TransformerDecoderLayer> {
        let (path, options) = (path.into(), &self.0);
        let repr = format!("TransformerDecoderLayer(d_model={}, nhead={})", options.d_model, options.nhead);
        let label = Label::new(&path, repr);
        options.check(&label)?;
        let norm = |name| options.norm().at(&path / name);
        let drop = |name| dropout(options.dropout).at(&path / name);
        Ok(TransformerDecoderLayer {
            self_attn: options.attention(&(&path / "self_attn"))?,
            multihead_attn: options.attention(&(&path / "multihead_attn"))?,
            feed_forward: options.feed_forward(&path)?,
            norms: [norm("norm1")?, norm("norm2")?, norm("norm3")?],
            dropouts: [drop("dropout1")?, drop("dropout2")?, drop("dropout3")?],
            norm_first: options.norm_first,
            _label: label,
        })
    }
}

impl TransformerDecoderLayer {
    /// Applies the layer to `[time, batch, d_model]` and the memory of an encoder, or with the batch first.
    ///
    /// # Panics
    ///
    /// Panics if the inputs do not fit.
    pub fn forward(
        &self,
        tgt: &Tensor,
        memory: &Tensor,
        mask: AttentionMask<'_>,
        memory_mask: AttentionMask<'_>,
    ) -> Tensor {
        output(self.try_forward(tgt, memory, mask, memory_mask))
    }

    /// [`forward`](TransformerDecoderLayer::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the inputs do not fit.
    pub fn try_forward(
        &self,
        tgt: &Tensor,
        memory: &Tensor,
        mask: AttentionMask<'_>,
        memory_mask: AttentionMask<'_>,
    ) -> Result<Tensor> {
        let [norm1, norm2, norm3] = &self.norms;
        let [dropout1, dropout2, dropout3] = &self.dropouts;
        let look_back = |x: &Tensor| dropout1.try_forward(&self.self_attn.try_forward(x, x, x, mask)?);
        let look_at_memory =
            |x: &Tensor| dropout2.try_forward(&self.multihead_attn.try_forward(x, memory, memory, memory_mask)?);
        let feed = |x: &Tensor| dropout3.try_forward(&self.feed_forward.forward(x)?);
        if self.norm_first {
            let x = tgt + look_back(&norm1.try_forward(tgt)?)?;
            let x = &x + look_at_memory(&norm2.try_forward(&x)?)?;
            return Ok(&x + feed(&norm3.try_forward(&x)?)?);
        }
        let x = norm1.try_forward(&(tgt + look_back(tgt)?))?;
        let x = norm2.try_forward(&(&x + look_at_memory(&x)?))?;
        norm3.try_forward(&(&x + feed(&x)?))
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let attention = [&self.self_attn, &self.multihead_attn].into_iter().flat_map(MultiheadAttention::tensors);
        attention.chain(self.feed_forward.tensors()).chain(self.norms.iter().flat_map(of_norm)).collect()
    }
}

impl fmt::Display for TransformerDecoderLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attention = [("self_attn", &self.self_attn), ("multihead_attn", &self.multihead_attn)];
        let attention = attention.map(|(name, part)| (name, part.to_string()));
        let norms = ["norm1", "norm2", "norm3"].into_iter().zip(self.norms.iter().map(ToString::to_string));
        let dropouts = ["dropout1", "dropout2", "dropout3"].into_iter();
        let dropouts = dropouts.zip(self.dropouts.iter().map(ToString::to_string));
        let parts = attention.into_iter().chain(self.feed_forward.parts()).chain(norms).chain(dropouts);
        let parts: Vec<(&str, String)> = parts.collect();
        f.write_str(&tree("TransformerDecoderLayer", &parts))
    }
}

debug!(TransformerDecoderLayer);

/// Decoder layers one after the other: PyTorch's `nn.TransformerDecoder`. All layers begin with the same values, as in PyTorch,
/// which copies one.
pub struct TransformerDecoder {
    layers: Vec<TransformerDecoderLayer>,
    norm: Option<LayerNorm>,
    /// Kept for summaries of the model.
    _layer_types: [LayerType; 2],
}

/// The options of a [`TransformerDecoder`].
#[derive(Debug, Clone)]
pub struct TransformerDecoderOptions {
    layer: TransformerDecoderLayerOptions,
    num_layers: usize,
    norm: Option<LayerNormOptions>,
}

/// A [`TransformerDecoder`] of `num_layers` layers.
pub fn transformer_decoder(layer: TransformerDecoderLayerOptions, num_layers: usize) -> TransformerDecoderOptions {
    TransformerDecoderOptions { layer, num_layers, norm: None }
}

impl TransformerDecoderOptions {
    setters! {
        /// A norm after the last layer; there is none by default.
        norm: Option<LayerNormOptions>;
    }
}

impl Build for TransformerDecoderOptions {
    type Layer = TransformerDecoder;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<TransformerDecoder> {
        let path = path.into();
        let layer_types = [path.layer_type("TransformerDecoder"), (&path / "layers").layer_type("ModuleList")];
        let build = |path: &Path<'_>| self.layer.at(path);
        let layers = clones(&(&path / "layers"), self.num_layers, build, TransformerDecoderLayer::tensors)?;
        let norm = self.norm.as_ref().map(|norm| norm.at(&path / "norm")).transpose()?;
        Ok(TransformerDecoder { layers, norm, _layer_types: layer_types })
    }
}

impl TransformerDecoder {
    /// Applies the layers to `[time, batch, d_model]` and the memory of an encoder, or with the batch first.
    ///
    /// # Panics
    ///
    /// Panics if the inputs do not fit.
    pub fn forward(
        &self,
        tgt: &Tensor,
        memory: &Tensor,
        mask: AttentionMask<'_>,
        memory_mask: AttentionMask<'_>,
    ) -> Tensor {
        output(self.try_forward(tgt, memory, mask, memory_mask))
    }

    /// [`forward`](TransformerDecoder::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the inputs do not fit.
    pub fn try_forward(
        &self,
        tgt: &Tensor,
        memory: &Tensor,
        mask: AttentionMask<'_>,
        memory_mask: AttentionMask<'_>,
    ) -> Result<Tensor> {
        let mut x = tgt.shallow_clone();
        for layer in &self.layers {
            x = layer.try_forward(&x, memory, mask, memory_mask)?;
        }
        self.norm.as_ref().map_or(Ok(x.shallow_clone()), |norm| norm.try_forward(&x))
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let norm = self.norm.iter().flat_map(of_norm);
        self.layers.iter().flat_map(TransformerDecoderLayer::tensors).chain(norm).collect()
    }
}

impl fmt::Display for TransformerDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print_stack("TransformerDecoder", &self.layers, self.norm.as_ref()))
    }
}

debug!(TransformerDecoder);
