//! The model summary has Lightning's numbers, and FLOPs are counted as torch counts them.

use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::flops::measure_flops;
use fulgurite::torch::grad::backward;
use fulgurite_parity::python;
use serde_json::{Value as Json, json};

struct Model {
    vars: nn::VarStore,
    forward: Box<dyn Fn() -> Tensor + Send>,
}

impl LightningModule for Model {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, _: Self::Batch, _: &mut Step) -> Result<Loss> {
        Err("it is not trained".into())
    }

    fn example_forward(&mut self) -> Result<Tensor> {
        Ok((self.forward)())
    }
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, Device::Cpu))
}

fn no_bias() -> nn::LinearConfig {
    nn::LinearConfig { bias: false, ..Default::default() }
}

fn mlp() -> Model {
    let vars = nn::VarStore::new(Device::Cpu);
    let mut fc1 = nn::linear(vars.root() / "fc1", 784, 128, Default::default());
    let fc2 = nn::linear(vars.root() / "fc2", 128, 10, no_bias());
    let _scale = vars.root().var("scale", &[3], nn::Init::Const(1.0));
    let _ = fc1.ws.requires_grad_(false);
    let _ = fc1.bs.as_mut().unwrap().requires_grad_(false);
    Model { vars, forward: Box::new(move || zeros(&[32, 784]).apply(&fc1).relu().apply(&fc2)) }
}

fn cnn() -> Model {
    let vars = nn::VarStore::new(Device::Cpu);
    let root = vars.root();
    let padded = nn::ConvConfig { padding: 1, ..Default::default() };
    let conv1 = nn::conv2d(&root / "conv1", 1, 8, 3, padded);
    let norm = nn::batch_norm2d(&root / "norm", 8, Default::default());
    let grouped = nn::ConvConfig { stride: 2, groups: 2, bias: false, ..Default::default() };
    let conv2 = nn::conv2d(&root / "conv2", 8, 16, 3, grouped);
    let double = nn::ConvTransposeConfig { stride: 2, ..Default::default() };
    let up = nn::conv_transpose2d(&root / "up", 16, 4, 4, double);
    let head = nn::linear(&root / "head", 4 * 14 * 14, 10, Default::default());
    let forward = move || {
        let x = zeros(&[2, 1, 14, 14]).apply(&conv1).apply_t(&norm, false).apply(&conv2).relu();
        x.apply(&up).flatten(1, -1).apply(&head)
    };
    Model { vars, forward: Box::new(forward) }
}

fn gpt() -> Model {
    let vars = nn::VarStore::new(Device::Cpu);
    let root = vars.root();
    let wte = nn::embedding(&root / "wte", 50, 32, Default::default());
    let norm = nn::layer_norm(&root / "block" / "norm", vec![32], Default::default());
    let qkv = nn::linear(&root / "block" / "attn" / "qkv", 32, 96, Default::default());
    let out = nn::linear(&root / "block" / "attn" / "out", 32, 32, Default::default());
    let head = nn::linear(&root / "head", 32, 50, no_bias());
    let forward = move || {
        let x = Tensor::zeros([2, 7], (Kind::Int64, Device::Cpu)).apply(&wte);
        let parts = x.apply(&norm).apply(&qkv).chunk(3, -1);
        let [q, k, v] = [0, 1, 2].map(|i: usize| parts[i].unflatten(2, [4, 8]).transpose(1, 2));
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, false, None, false);
        let x = x + mixed.transpose(1, 2).flatten(2, -1).apply(&out);
        x.apply(&head)
    };
    Model { vars, forward: Box::new(forward) }
}

fn ours(mut model: Model) -> Json {
    let summary = ModelSummary::new().max_depth(Maximum::Unlimited).of(&mut model).unwrap();
    let size = |size: &Option<Vec<i64>>| size.as_ref().map_or(json!("?"), |size| json!(size));
    let layers = summary.layers.iter().map(|layer| {
        json!({
            "name": layer.name,
            "type": layer.layer_type,
            "params": layer.num_parameters,
            "flops": layer.flops,
            "in": size(&layer.in_size),
            "out": size(&layer.out_size),
        })
    });
    let text = summary.to_string();
    let lines: Vec<&str> = text.lines().collect();
    let header: Vec<&str> = lines[0].split('|').map(str::trim).collect();
    json!({
        "summary": {
            "layers": layers.collect::<Vec<_>>(),
            "footer": lines[lines.len() - 7..],
            "header": header,
        },
        "forward": measure_flops(|| (model.forward)()).unwrap(),
        "both": measure_flops(|| backward(&(model.forward)().sum(Kind::Float)).unwrap()).unwrap(),
    })
}

/// Layers of [`fulgurite::nn`], which say what they are.
fn layers(max_depth: Maximum) -> Json {
    use fulgurite::nn;
    let vars = nn::VarStore::new(Device::Cpu);
    let root = vars.root();
    let net = nn::sequential()
        .add(nn::conv2d(3, 8, 3).padding(1))
        .add(nn::batch_norm2d(8))
        .add(nn::relu())
        .add(nn::max_pool2d(2))
        .add(nn::flatten())
        .add(nn::linear(8, 4));
    let _net = net.at(&root / "net").unwrap();
    let dropout = nn::dropout(0.1).at(&root / "dropout").unwrap();
    let _rnn = nn::lstm(4, 8).num_layers(2).at(&root / "rnn").unwrap();
    let inner = nn::sequential().add(nn::gelu()).add(nn::linear(8, 2));
    let _head = nn::sequential().add(nn::linear(8, 8)).add(inner).at(&root / "head").unwrap();
    dropout.train(false);
    let mut model = Layered(vars);
    let summary = ModelSummary::new().max_depth(max_depth).of(&mut model).unwrap();
    let row = |layer: &fulgurite::callbacks::LayerSummary| {
        let mode = if layer.is_training { "train" } else { "eval" };
        json!([layer.name, layer.layer_type, layer.num_parameters, mode])
    };
    let text = summary.to_string();
    let lines: Vec<&str> = text.lines().collect();
    let footer = &lines[lines.len() - 6..];
    json!({ "layers": summary.layers.iter().map(row).collect::<Vec<_>>(), "footer": footer })
}

struct Layered(fulgurite::nn::VarStore);

impl LightningModule for Layered {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0
    }

    fn training_step(&mut self, _: Self::Batch, _: &mut Step) -> Result<Loss> {
        Err("it is not trained".into())
    }
}

#[test]
fn summaries_and_flops_are_those_of_lightning() {
    let theirs = python("model_summary.py", &[]);
    for (name, model) in [("mlp", mlp()), ("cnn", cnn()), ("gpt", gpt())] {
        let ours = ours(model);
        assert_eq!(
            serde_json::to_string_pretty(&ours).unwrap(),
            serde_json::to_string_pretty(&theirs[name]).unwrap(),
            "{name}"
        );
    }
    // What is made of `fulgurite::nn` says what it is.
    let ours = [Maximum::Of(1), Maximum::Of(2), Maximum::Unlimited].map(layers);
    assert_eq!(serde_json::to_string_pretty(&ours).unwrap(), serde_json::to_string_pretty(&theirs["layers"]).unwrap());
}
