//! A decoder-only transformer over bytes, after nanoGPT: pre-norm blocks, learned positions, tied embeddings.

use fulgurite::prelude::*;
use nn::Init;

/// One token per byte.
pub(crate) const VOCABULARY: i64 = 256;

/// The shape of a [`Gpt`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct GptConfig {
    pub(crate) layers: i64,
    pub(crate) width: i64,
    pub(crate) heads: i64,
    pub(crate) context: i64,
    pub(crate) dropout: f64,
}

#[derive(Debug)]
pub(crate) struct Gpt {
    config: GptConfig,
    tokens: nn::Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
}

impl Gpt {
    pub(crate) fn new(vs: &nn::Path, config: GptConfig) -> Gpt {
        let GptConfig { layers, width, context, .. } = config;
        let embeddings = vs / "embedding";
        let ws_init = Init::Randn { mean: 0.0, stdev: 0.02 };
        let tokens = nn::EmbeddingConfig { ws_init, ..Default::default() };
        Gpt {
            config,
            tokens: nn::embedding(&embeddings / "tokens", VOCABULARY, width, tokens),
            positions: embeddings.var("positions", &[context, width], ws_init),
            blocks: (0..layers).map(|layer| Block::new(&(vs / "blocks" / layer), config)).collect(),
            norm: nn::layer_norm(vs / "norm", vec![width], Default::default()),
        }
    }

    /// `prompt` and `length` more bytes, each drawn from what the model expects next.
    pub(crate) fn generate(&self, prompt: &str, length: usize, temperature: f64) -> Result<Vec<u8>> {
        let mut text = Tensor::from_slice(prompt.as_bytes()).to_kind(Kind::Int64).unsqueeze(0);
        text = text.to_device(self.positions.device());
        tch::no_grad(|| {
            for _ in 0..length {
                let window = text.slice(1, -self.config.context, None, 1);
                let logits = window.apply_t(self, false).select(1, -1) / temperature;
                let next = logits.softmax(-1, Kind::Float).multinomial(1, false);
                text = Tensor::cat(&[text.shallow_clone(), next], 1);
            }
        });
        Ok(Vec::try_from(text.squeeze().to_kind(Kind::Uint8))?)
    }
}

impl nn::ModuleT for Gpt {
    /// Tokens `[batch, time]` to the logits of the token after each: `[batch, time, 256]`.
    fn forward_t(&self, tokens: &Tensor, train: bool) -> Tensor {
        let positions = self.positions.narrow(0, 0, tokens.size()[1]);
        let mut x = (tokens.apply(&self.tokens) + positions).dropout(self.config.dropout, train);
        for block in &self.blocks {
            x = x.apply_t(block, train);
        }
        x.apply(&self.norm).linear(&self.tokens.ws, None::<Tensor>)
    }
}

#[derive(Debug)]
struct Block {
    norm1: nn::LayerNorm,
    attention: Attention,
    norm2: nn::LayerNorm,
    expand: nn::Linear,
    contract: nn::Linear,
    dropout: f64,
}

impl Block {
    fn new(vs: &nn::Path, config: GptConfig) -> Block {
        let GptConfig { width, dropout, .. } = config;
        Block {
            norm1: nn::layer_norm(vs / "norm1", vec![width], Default::default()),
            attention: Attention::new(&(vs / "attention"), config),
            norm2: nn::layer_norm(vs / "norm2", vec![width], Default::default()),
            expand: linear(vs / "expand", width, 4 * width, 0.02),
            contract: linear(vs / "contract", 4 * width, width, residual_std(config)),
            dropout,
        }
    }
}

impl nn::ModuleT for Block {
    fn forward_t(&self, x: &Tensor, train: bool) -> Tensor {
        let x = x + x.apply(&self.norm1).apply(&self.attention).dropout(self.dropout, train);
        let mlp = x.apply(&self.norm2).apply(&self.expand).gelu("none").apply(&self.contract);
        x + mlp.dropout(self.dropout, train)
    }
}

#[derive(Debug)]
struct Attention {
    heads: i64,
    qkv: nn::Linear,
    out: nn::Linear,
}

impl Attention {
    fn new(vs: &nn::Path, config: GptConfig) -> Attention {
        let GptConfig { width, heads, .. } = config;
        Attention {
            heads,
            qkv: linear(vs / "qkv", width, 3 * width, 0.02),
            out: linear(vs / "out", width, width, residual_std(config)),
        }
    }
}

impl nn::Module for Attention {
    fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        // [batch, time, 3 · width] to three times [batch, head, time, width of a head].
        let qkv = x.apply(&self.qkv).view([size[0], size[1], 3, self.heads, -1]).permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        // The attention weights themselves are not dropped out: libtorch's fast kernel for CPUs cannot.
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, true, None, false);
        mixed.transpose(1, 2).reshape(&size).apply(&self.out)
    }
}

fn linear(vs: nn::Path, from: i64, to: i64, stdev: f64) -> nn::Linear {
    let ws_init = Init::Randn { mean: 0.0, stdev };
    nn::linear(vs, from, to, nn::LinearConfig { ws_init, bs_init: Some(Init::Const(0.0)), bias: true })
}

/// Each block adds to the residual stream twice; smaller steps keep its variance (GPT-2, section 2.3).
fn residual_std(config: GptConfig) -> f64 {
    0.02 / (2.0 * config.layers as f64).sqrt()
}
