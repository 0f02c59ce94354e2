//! Transformers (Vaswani et al. 2017).

mod block;
mod decoder;
mod encoder;
mod model;

pub use decoder::{
    TransformerDecoder, TransformerDecoderLayer, TransformerDecoderLayerOptions, TransformerDecoderOptions,
    transformer_decoder, transformer_decoder_layer,
};
pub use encoder::{
    TransformerEncoder, TransformerEncoderLayer, TransformerEncoderLayerOptions, TransformerEncoderOptions,
    transformer_encoder, transformer_encoder_layer,
};
pub use model::{Transformer, TransformerOptions, causal_mask, transformer};
