//! `layers`: what a step of an LSTM, of a transformer encoder and of a block of a ResNet costs, here and in PyTorch.

use std::path::Path;

use anyhow::{Result, bail};
use fulgurite::nn::{self, AttentionMask, Build, Module};
use fulgurite::optim::SGD;
use fulgurite::prelude::{Device, Kind, Tensor, seed_everything};
use fulgurite::torch::runtime;

use crate::child::{self, Program, Surroundings};
use crate::stopwatch::{Measured, Plan, Stopwatch};
use crate::table::Row;

const PLAN: Plan = Plan { warmup: 20, blocks: 20, steps_per_block: 5 };

const LAYERS: [&str; 3] = ["lstm", "encoder", "resnet"];

/// Rows for each kind of layer.
pub fn measure(repeats: usize, layer: Option<&str>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in LAYERS.into_iter().filter(|name| layer.is_none_or(|layer| layer == *name)) {
        let variants = [("fulgurite", Program::Rust("layer")), ("pytorch", Program::Python("layers.py"))];
        let mut runs = variants.map(|(variant, program)| (variant, program, Vec::new()));
        for repeat in 1..=repeats {
            for (variant, program, times) in &mut runs {
                eprintln!("{name}: {variant}, {repeat} of {repeats}");
                let args = Vec::from_iter([name.to_owned()].into_iter().chain(PLAN.to_args()));
                let measured: Measured = child::measure(program, &args, Surroundings::default())?;
                times.push(measured.step_us);
            }
        }
        rows.extend(runs.map(|(variant, _, times)| Row::new(name, variant, times)));
    }
    Ok(rows)
}

/// A layer, and the size of its input.
type Layer = (Box<dyn Fn(&Tensor) -> Tensor>, &'static [i64]);

/// The same as in `python/layers.py`.
fn layer(name: &str, path: &nn::Path<'_>) -> Result<Layer> {
    Ok(match name {
        "lstm" => {
            let lstm = nn::lstm(64, 128).num_layers(2).batch_first(true).at(path)?;
            (Box::new(move |x| lstm.forward(x, None).0), &[32, 50, 64])
        }
        "encoder" => {
            let layer = nn::transformer_encoder_layer(128, 4).dim_feedforward(512).batch_first(true);
            let encoder = nn::transformer_encoder(layer, 2).at(path)?;
            (Box::new(move |x| encoder.forward(x, AttentionMask::none())), &[16, 64, 128])
        }
        "resnet" => {
            let conv = || nn::conv2d(64, 64, 3).padding(1).bias(false);
            let norm = || nn::batch_norm2d(64);
            let block = nn::sequential().add(conv()).add(norm()).add(nn::relu()).add(conv()).add(norm()).at(path)?;
            (Box::new(move |x| (block.forward(x) + x).relu()), &[16, 64, 28, 28])
        }
        _ => bail!("there is no layer {name}"),
    })
}

/// Trains a layer on one batch.
pub fn run(name: &str, plan: Plan, result: &Path) -> Result<()> {
    seed_everything(1)?;
    runtime::tune_allocator();
    runtime::adapt_waiting();
    let vars = nn::VarStore::new(Device::Cpu);
    let (forward, size) = layer(name, &vars.root())?;
    let mut optimizer = SGD::new(&vars).lr(0.01).build()?;
    let input = Tensor::randn(size, (Kind::Float, Device::Cpu));
    let mut stopwatch = Stopwatch::new(plan);
    for _ in 0..plan.total_steps() {
        optimizer.zero_grad()?;
        forward(&input).square().mean(Kind::Float).backward();
        optimizer.step()?;
        stopwatch.step_ended();
    }
    std::fs::write(result, serde_json::to_string(&stopwatch.measured()?)?)?;
    Ok(())
}
