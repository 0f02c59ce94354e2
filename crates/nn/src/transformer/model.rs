//! [`Transformer`]: an encoder and a decoder.

use std::fmt;

use fulgurite_torch::Path;
use fulgurite_torch::tch::{Device, Kind, Tensor};

use super::block::{BlockOptions, block_setters};
use super::decoder::{TransformerDecoder, TransformerDecoderLayerOptions, transformer_decoder};
use super::encoder::{TransformerEncoder, TransformerEncoderLayerOptions, transformer_encoder};
use crate::attention::AttentionMask;
use crate::error::Result;
use crate::init;
use crate::module::{Build, Label, debug, output, tree};

/// An encoder and a decoder (Vaswani et al. 2017): PyTorch's `nn.Transformer`.
pub struct Transformer {
    /// Of the source.
    pub encoder: TransformerEncoder,
    /// Of the target.
    pub decoder: TransformerDecoder,
    /// Kept for summaries of the model.
    _label: Label,
}

/// The options of a [`Transformer`].
#[derive(Debug, Clone)]
pub struct TransformerOptions(BlockOptions, [usize; 2]);

/// A [`Transformer`] of six layers each.
pub fn transformer(d_model: i64, nhead: i64) -> TransformerOptions {
    TransformerOptions(BlockOptions::new(d_model, nhead), [6, 6])
}

impl TransformerOptions {
    block_setters!();

    /// The number of encoder layers; the default is 6.
    #[must_use]
    pub fn num_encoder_layers(mut self, layers: usize) -> Self {
        self.1[0] = layers;
        self
    }

    /// The number of decoder layers; the default is 6.
    #[must_use]
    pub fn num_decoder_layers(mut self, layers: usize) -> Self {
        self.1[1] = layers;
        self
    }
}

impl Build for TransformerOptions {
    type Layer = Transformer;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Transformer> {
        let (path, TransformerOptions(options, [encoder_layers, decoder_layers])) = (path.into(), self);
        let label = Label::new(&path, format!("Transformer(d_model={}, nhead={})", options.d_model, options.nhead));
        options.check(&label)?;
        let encoder = transformer_encoder(TransformerEncoderLayerOptions(options.clone()), *encoder_layers);
        let encoder = encoder.norm(options.norm()).at(&path / "encoder")?;
        let decoder = transformer_decoder(TransformerDecoderLayerOptions(options.clone()), *decoder_layers);
        let decoder = decoder.norm(options.norm()).at(&path / "decoder")?;
        let matrices = encoder.tensors().into_iter().chain(decoder.tensors()).filter(|tensor| tensor.dim() > 1);
        matrices.into_iter().try_for_each(|matrix| init::xavier_uniform_(matrix, 1.0))?;
        Ok(Transformer { encoder, decoder, _label: label })
    }
}

impl Transformer {
    /// The decoder's output for a source and a target `[time, batch, d_model]`, or with the batch first. Masks are of the
    /// source, of the target, and of the memory for the target.
    ///
    /// # Panics
    ///
    /// Panics if the inputs do not fit.
    pub fn forward(&self, src: &Tensor, tgt: &Tensor, masks: [AttentionMask<'_>; 3]) -> Tensor {
        output(self.try_forward(src, tgt, masks))
    }

    /// [`forward`](Transformer::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the inputs do not fit.
    pub fn try_forward(&self, src: &Tensor, tgt: &Tensor, masks: [AttentionMask<'_>; 3]) -> Result<Tensor> {
        let [of_src, of_tgt, of_memory] = masks;
        let memory = self.encoder.try_forward(src, of_src)?;
        self.decoder.try_forward(tgt, &memory, of_tgt, of_memory)
    }
}

impl fmt::Display for Transformer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("encoder", self.encoder.to_string()), ("decoder", self.decoder.to_string())];
        f.write_str(&tree("Transformer", &parts))
    }
}

debug!(Transformer);

/// A mask `[size, size]` that excludes what comes later: PyTorch's `Transformer.generate_square_subsequent_mask`.
pub fn causal_mask(size: i64, device: Device) -> Tensor {
    Tensor::full([size, size], f64::NEG_INFINITY, (Kind::Float, device)).triu(1)
}
