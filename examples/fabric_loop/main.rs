//! A loop written by hand over `tch`, and the same loop on a Fabric: on any device, in any precision, on any number of
//! processes.
//!
//! `cargo run --release --example fabric_loop -- --plain`, and then with `--devices 2` instead.

#![expect(clippy::print_stdout, reason = "a program prints")]

use anyhow::Result;
use clap::Parser;
use fulgurite::data::Loader;
use fulgurite::data::datasets::Digits;
use fulgurite::fabric::{Fabric, ReduceOp};
use fulgurite::prelude::*;
use fulgurite::torch::params;
use fulgurite::torch::rng::seed_everything;

/// Train on handwritten digits, with a loop of one's own.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// The loop over `tch` alone.
    #[arg(long)]
    plain: bool,
    /// Processes.
    #[arg(long, default_value_t = 1)]
    devices: usize,
    /// cpu, cuda, mps or auto.
    #[arg(long, default_value = "auto")]
    accelerator: String,
    /// 32-true, bf16-mixed, …
    #[arg(long, default_value = "32-true")]
    precision: String,
    /// Times the data is gone through.
    #[arg(long, default_value_t = 5)]
    epochs: u64,
}

const BATCH: usize = 32;

fn network(root: &nn::Path<'_>) -> nn::Result<nn::Sequential> {
    nn::sequential().add(nn::flatten()).add(nn::linear(64, 128)).add(nn::relu()).add(nn::linear(128, 10)).at(root)
}

/// What everybody writes.
fn plain(args: &Args) -> Result<()> {
    let digits = Digits::load()?;
    seed_everything(0)?;
    let vars = nn::VarStore::new(Device::cuda_if_available());
    let net = network(&vars.root())?;
    let mut optimizer = AdamW::new(&vars).lr(2e-3).build()?;
    let loader = DataLoader::new(digits.train).batch_size(BATCH).shuffle(true);
    for epoch in 0..args.epochs {
        let mut last = f64::NAN;
        for batch in loader.iter(epoch, 0)? {
            let (images, labels) = batch?.to_device(vars.device());
            optimizer.zero_grad()?;
            let loss = net.forward(&images).cross_entropy_for_logits(&labels);
            loss.backward();
            optimizer.step()?;
            last = loss.double_value(&[]);
        }
        println!("epoch {epoch}: loss {last:.4}");
    }
    Ok(())
}

/// The same, with five lines changed.
fn on_fabric(args: &Args) -> Result<()> {
    let fabric = Fabric::builder().accelerator(&args.accelerator).devices(args.devices).precision(&args.precision);
    let mut fabric = fabric.build()?; // 1: where it runs
    let digits = Digits::load()?;
    seed_everything(0)?;
    let (vars, net) = fabric.init_module(network)?;
    let optimizer = AdamW::new(&vars).lr(2e-3).build()?;
    let mut optimizer = fabric.setup(&vars, optimizer)?; // 2
    let loader = DataLoader::new(digits.train).batch_size(BATCH).shuffle(true);
    let loader = fabric.setup_dataloader(loader)?; // 3
    for epoch in 0..args.epochs {
        let mut last = Tensor::from(f64::NAN);
        for batch in loader.iter(epoch, 0)? {
            let (images, labels) = fabric.to_device(batch?);
            optimizer.zero_grad()?;
            let loss = fabric.forward(|| net.forward(&images).cross_entropy_for_logits(&labels))?;
            fabric.backward(&loss)?; // 4
            fabric.optimizer_step(optimizer.as_mut())?; // 5
            last = loss.detach();
        }
        let loss = fabric.all_reduce(&last, ReduceOp::Mean)?.double_value(&[]);
        fabric.print(&format!("epoch {epoch}: loss {loss:.4}"));
    }
    let state = Dict::new().with("model", params::state_dict(&vars)?).with("optimizer", optimizer.state_dict()?);
    fabric.save("fabric_loop.ckpt", &state)?;
    let processes = fabric.world_size();
    fabric.print(&format!("{processes} process(es) on {:?}; saved fabric_loop.ckpt", fabric.device()));
    Ok(())
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.plain { plain(&args) } else { on_fabric(&args) }
}
