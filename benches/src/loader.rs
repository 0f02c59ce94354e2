//! `loader`: what a batch of small images costs, loaded here and by PyTorch.

use std::path::Path;

use anyhow::Result;
use fulgurite::data::{DataLoader, Dataset, ItemRng, Loader, TensorDataset};
use fulgurite::prelude::{Device, Kind, Tensor, seed_everything};

use crate::child::{self, Program, Surroundings};
use crate::stopwatch::{Measured, Plan, Stopwatch};
use crate::table::Row;

const IMAGES: i64 = 20_000;
const BATCH_SIZE: usize = 64;

/// Blocks of 10 batches, in one epoch of 312.
const PLAN: Plan = Plan { warmup: 12, blocks: 30, steps_per_block: 10 };

/// Rows for no worker and for two.
pub fn measure(repeats: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for workers in ["0", "2"] {
        let variants = [("fulgurite", Program::Rust("load")), ("pytorch", Program::Python("load.py"))];
        let mut runs = variants.map(|(name, program)| (name, program, Vec::new()));
        for repeat in 1..=repeats {
            for (name, program, times) in &mut runs {
                eprintln!("{workers} workers: {name}, {repeat} of {repeats}");
                let mut args = vec![workers.to_owned()];
                if matches!(program, Program::Python(_)) {
                    args.extend(PLAN.to_args());
                }
                let measured: Measured = child::measure(program, &args, Surroundings::default())?;
                times.push(measured.step_us);
            }
        }
        rows.extend(runs.map(|(name, _, times)| Row::new(&format!("images_{workers}_workers"), name, times)));
    }
    Ok(rows)
}

/// Images of 28 by 28 bytes, each made a float tensor between -1 and 1 when it is asked for. The same as in
/// `python/load.py`.
fn images() -> Result<impl Dataset<Item = (Tensor, Tensor)>> {
    let pixels = Tensor::randint(256, [IMAGES, 1, 28, 28], (Kind::Uint8, Device::Cpu));
    let labels = Tensor::randint(10, [IMAGES], (Kind::Int64, Device::Cpu));
    let normalized =
        |(image, label): (Tensor, Tensor), _: &mut ItemRng| (image.to_kind(Kind::Float) / 127.5 - 1.0, label);
    Ok(TensorDataset::new((pixels, labels))?.map(normalized))
}

/// Walks through an epoch in random order.
pub fn run(workers: usize, result: &Path) -> Result<()> {
    seed_everything(1)?;
    fulgurite::torch::runtime::tune_allocator();
    let loader = DataLoader::new(images()?).batch_size(BATCH_SIZE).shuffle(true).num_workers(workers);
    let mut stopwatch = Stopwatch::new(PLAN);
    for batch in loader.iter(0, 0)?.take(PLAN.total_steps()) {
        drop(batch?);
        stopwatch.step_ended();
    }
    std::fs::write(result, serde_json::to_string(&stopwatch.measured()?)?)?;
    Ok(())
}
