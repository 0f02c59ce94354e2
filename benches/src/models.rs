//! The three models, the same as in `python/models.py`.

use fulgurite::prelude::*;
use fulgurite::tch::nn;

/// A model and its batches.
pub struct Model {
    pub vars: nn::VarStore,
    net: Net,
}

enum Net {
    /// An MLP 784-128-10, or the small CNN.
    Classifier(nn::Sequential),
    Gpt(Box<Gpt>),
}

/// Inputs and targets.
pub type Pair = (Tensor, Tensor);

/// Batches that are made; they are used in turn.
const DISTINCT_BATCHES: usize = 8;

impl Model {
    /// `mlp`, `cnn` or `gpt`.
    pub fn new(name: &str) -> anyhow::Result<Model> {
        let vars = nn::VarStore::new(Device::Cpu);
        let root = vars.root();
        let net = match name {
            "mlp" => Net::Classifier(mlp(&root)),
            "cnn" => Net::Classifier(cnn(&root)),
            "gpt" => Net::Gpt(Box::new(Gpt::new(&root))),
            _ => anyhow::bail!("there is no model {name}"),
        };
        Ok(Model { vars, net })
    }

    /// The loss of a batch.
    pub fn loss(&self, (inputs, targets): &Pair) -> Tensor {
        match &self.net {
            Net::Classifier(net) => net.forward(inputs).cross_entropy_for_logits(targets),
            Net::Gpt(gpt) => gpt.forward(inputs).view([-1, VOCABULARY]).cross_entropy_for_logits(&targets.view([-1])),
        }
    }

    /// So many batches, on the CPU: handles to a few distinct ones.
    pub fn batches(&self, count: usize) -> Vec<Pair> {
        let distinct: Vec<Pair> = (0..DISTINCT_BATCHES).map(|_| self.batch()).collect();
        distinct.iter().cycle().take(count).map(|(x, y)| (x.shallow_clone(), y.shallow_clone())).collect()
    }

    fn batch(&self) -> Pair {
        let (float, int) = ((Kind::Float, Device::Cpu), (Kind::Int64, Device::Cpu));
        match &self.net {
            Net::Classifier(_) => (Tensor::randn([64, 1, 28, 28], float), Tensor::randint(10, [64], int)),
            Net::Gpt(_) => {
                let text = Tensor::randint(VOCABULARY, [16, CONTEXT + 1], int);
                (text.narrow(1, 0, CONTEXT).contiguous(), text.narrow(1, 1, CONTEXT).contiguous())
            }
        }
    }
}

fn mlp(root: &nn::Path<'_>) -> nn::Sequential {
    nn::seq()
        .add_fn(|x| x.flatten(1, -1))
        .add(nn::linear(root / "hidden", 784, 128, Default::default()))
        .add_fn(|x| x.relu())
        .add(nn::linear(root / "out", 128, 10, Default::default()))
}

fn cnn(root: &nn::Path<'_>) -> nn::Sequential {
    nn::seq()
        .add(nn::conv2d(root / "conv1", 1, 32, 3, Default::default()))
        .add_fn(|x| x.relu())
        .add(nn::conv2d(root / "conv2", 32, 64, 3, Default::default()))
        .add_fn(|x| x.relu().max_pool2d_default(2).flatten(1, -1))
        .add(nn::linear(root / "hidden", 9216, 128, Default::default()))
        .add_fn(|x| x.relu())
        .add(nn::linear(root / "out", 128, 10, Default::default()))
}

const VOCABULARY: i64 = 256;
const CONTEXT: i64 = 128;
const WIDTH: i64 = 128;
const HEADS: i64 = 4;
const LAYERS: usize = 4;

struct Gpt {
    tokens: nn::Embedding,
    positions: nn::Embedding,
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    head: nn::Linear,
}

struct Block {
    norm1: nn::LayerNorm,
    qkv: nn::Linear,
    projection: nn::Linear,
    norm2: nn::LayerNorm,
    up: nn::Linear,
    down: nn::Linear,
}

impl Gpt {
    fn new(root: &nn::Path<'_>) -> Gpt {
        Gpt {
            tokens: nn::embedding(root / "tokens", VOCABULARY, WIDTH, Default::default()),
            positions: nn::embedding(root / "positions", CONTEXT, WIDTH, Default::default()),
            blocks: (0..LAYERS).map(|layer| Block::new(&(root / layer))).collect(),
            norm: nn::layer_norm(root / "norm", vec![WIDTH], Default::default()),
            head: nn::linear(root / "head", WIDTH, VOCABULARY, nn::LinearConfig { bias: false, ..Default::default() }),
        }
    }

    /// `[batch, time]` tokens to `[batch, time, VOCABULARY]` logits.
    fn forward(&self, tokens: &Tensor) -> Tensor {
        let positions = Tensor::arange(tokens.size()[1], (Kind::Int64, tokens.device()));
        let mut x = self.tokens.forward(tokens) + self.positions.forward(&positions);
        for block in &self.blocks {
            x = block.forward(&x);
        }
        self.head.forward(&self.norm.forward(&x))
    }
}

impl Block {
    fn new(path: &nn::Path<'_>) -> Block {
        Block {
            norm1: nn::layer_norm(path / "norm1", vec![WIDTH], Default::default()),
            qkv: nn::linear(path / "qkv", WIDTH, 3 * WIDTH, Default::default()),
            projection: nn::linear(path / "projection", WIDTH, WIDTH, Default::default()),
            norm2: nn::layer_norm(path / "norm2", vec![WIDTH], Default::default()),
            up: nn::linear(path / "up", WIDTH, 4 * WIDTH, Default::default()),
            down: nn::linear(path / "down", 4 * WIDTH, WIDTH, Default::default()),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention(&self.norm1.forward(x));
        let hidden = self.up.forward(&self.norm2.forward(&x)).gelu("none");
        &x + self.down.forward(&hidden)
    }

    fn attention(&self, x: &Tensor) -> Tensor {
        let (batch, time, width) = (x.size()[0], x.size()[1], x.size()[2]);
        let parts = self.qkv.forward(x).split(width, 2);
        let heads = |part: &Tensor| part.view([batch, time, HEADS, width / HEADS]).transpose(1, 2);
        let (q, k, v) = (heads(&parts[0]), heads(&parts[1]), heads(&parts[2]));
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, true, None, false);
        self.projection.forward(&y.transpose(1, 2).contiguous().view([batch, time, width]))
    }
}
