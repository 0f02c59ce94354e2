//! A decoder-only transformer over bytes, after nanoGPT: pre-norm blocks, learned positions, tied embeddings.

use fulgurite::nn::init;
use fulgurite::prelude::*;

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
    dropout: nn::Dropout,
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
}

impl Gpt {
    pub(crate) fn new(path: &nn::Path, config: GptConfig) -> nn::Result<Gpt> {
        let GptConfig { layers, width, context, dropout, .. } = config;
        let embeddings = path / "embedding";
        let tokens = nn::embedding(VOCABULARY, width).at(&embeddings / "tokens")?;
        let positions = embeddings.zeros("positions", &[context, width]);
        init::normal_(&tokens.weight, 0.0, 0.02)?;
        init::normal_(&positions, 0.0, 0.02)?;
        let blocks = (0..layers).map(|layer| Block::new(&(path / "blocks" / layer), config));
        Ok(Gpt {
            config,
            tokens,
            positions,
            dropout: nn::dropout(dropout).at(embeddings / "dropout")?,
            blocks: blocks.collect::<nn::Result<_>>()?,
            norm: nn::layer_norm(width).at(path / "norm")?,
        })
    }

    /// `prompt` and `length` more bytes, each drawn from what the model expects next.
    pub(crate) fn generate(&self, prompt: &str, length: usize, temperature: f64) -> Result<Vec<u8>> {
        let mut text = Tensor::from_slice(prompt.as_bytes()).to_kind(Kind::Int64).unsqueeze(0);
        text = text.to_device(self.positions.device());
        tch::no_grad(|| {
            for _ in 0..length {
                let window = text.slice(1, -self.config.context, None, 1);
                let logits = self.forward(&window).select(1, -1) / temperature;
                let next = logits.softmax(-1, Kind::Float).multinomial(1, false);
                text = Tensor::cat(&[text.shallow_clone(), next], 1);
            }
        });
        Ok(Vec::try_from(text.squeeze().to_kind(Kind::Uint8))?)
    }
}

impl nn::Module for Gpt {
    /// Tokens `[batch, time]` to the logits of the token after each: `[batch, time, 256]`.
    fn forward(&self, tokens: &Tensor) -> Tensor {
        let positions = self.positions.narrow(0, 0, tokens.size()[1]);
        let mut x = self.dropout.forward(&(self.tokens.forward(tokens) + positions));
        for block in &self.blocks {
            x = block.forward(&x);
        }
        self.norm.forward(&x).linear(&self.tokens.weight, None::<Tensor>)
    }
}

#[derive(Debug)]
struct Block {
    norm1: nn::LayerNorm,
    attention: Attention,
    norm2: nn::LayerNorm,
    expand: nn::Linear,
    contract: nn::Linear,
    dropout: nn::Dropout,
}

impl Block {
    fn new(path: &nn::Path, config: GptConfig) -> nn::Result<Block> {
        let GptConfig { width, dropout, .. } = config;
        Ok(Block {
            norm1: nn::layer_norm(width).at(path / "norm1")?,
            attention: Attention::new(&(path / "attention"), config)?,
            norm2: nn::layer_norm(width).at(path / "norm2")?,
            expand: linear(path / "expand", width, 4 * width, 0.02)?,
            contract: linear(path / "contract", 4 * width, width, residual_std(config))?,
            dropout: nn::dropout(dropout).at(path / "dropout")?,
        })
    }
}

impl nn::Module for Block {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.dropout.forward(&self.attention.forward(&self.norm1.forward(x)));
        let hidden = self.expand.forward(&self.norm2.forward(&x)).gelu("none");
        let mlp = self.contract.forward(&hidden);
        x + self.dropout.forward(&mlp)
    }
}

#[derive(Debug)]
struct Attention {
    heads: i64,
    qkv: nn::Linear,
    out: nn::Linear,
}

impl Attention {
    fn new(path: &nn::Path, config: GptConfig) -> nn::Result<Attention> {
        let GptConfig { width, heads, .. } = config;
        Ok(Attention {
            heads,
            qkv: linear(path / "qkv", width, 3 * width, 0.02)?,
            out: linear(path / "out", width, width, residual_std(config))?,
        })
    }
}

impl nn::Module for Attention {
    fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        // [batch, time, 3 · width] to three times [batch, head, time, width of a head].
        let qkv = self.qkv.forward(x).view([size[0], size[1], 3, self.heads, -1]).permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        // The attention weights themselves are not dropped out: libtorch's fast kernel for CPUs cannot.
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, true, None, false);
        self.out.forward(&mixed.transpose(1, 2).reshape(&size))
    }
}

fn linear(path: nn::Path, from: i64, to: i64, std: f64) -> nn::Result<nn::Linear> {
    let layer = nn::linear(from, to).at(path)?;
    init::normal_(&layer.weight, 0.0, std)?;
    layer.bias.iter().try_for_each(init::zeros_)?;
    Ok(layer)
}

/// Each block adds to the residual stream twice; smaller steps keep its variance (GPT-2, section 2.3).
fn residual_std(config: GptConfig) -> f64 {
    0.02 / (2.0 * config.layers as f64).sqrt()
}
