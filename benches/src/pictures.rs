//! `loader`: what a batch of JPEG pictures costs, decoded, cropped, flipped and normalized here and by torchvision.

use std::path::Path;

use anyhow::Result;
use fulgurite::data::datasets::ImageFolder;
use fulgurite::data::transforms::{Normalize, RandomCrop, RandomHorizontalFlip, ToDtype};
use fulgurite::data::{DataLoader, Loader};
use fulgurite::prelude::{Kind, seed_everything};

use crate::child::{self, Program, Surroundings};
use crate::stopwatch::{Measured, Plan, Stopwatch};
use crate::table::Row;

const BATCH_SIZE: usize = 64;

/// Blocks of 4 batches, in one epoch of 32.
const PLAN: Plan = Plan { warmup: 4, blocks: 7, steps_per_block: 4 };

/// Rows for one worker and for two.
pub fn measure(repeats: usize) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let pictures = folder.path().join("pictures").to_string_lossy().into_owned();
    let python = Program::Python("pictures.py");
    let _: usize = child::measure(&python, &["make".into(), pictures.clone()], Surroundings::default())?;
    let mut rows = Vec::new();
    for workers in ["1", "2"] {
        let mut times = [("fulgurite", vec![]), ("torchvision_pil", vec![]), ("torchvision_io", vec![])];
        for repeat in 1..=repeats {
            for (name, times) in &mut times {
                eprintln!("pictures, {workers} workers: {name}, {repeat} of {repeats}");
                let measured: Measured = match name.strip_prefix("torchvision_") {
                    None => {
                        let args = [pictures.clone(), workers.into()];
                        child::measure(&Program::Rust("pictures"), &args, Surroundings::default())?
                    }
                    Some(decoder) => {
                        let args = [decoder.into(), pictures.clone(), workers.into()];
                        let args = Vec::from_iter(args.into_iter().chain(PLAN.to_args()));
                        child::measure(&python, &args, Surroundings::default())?
                    }
                };
                times.push(measured.step_us);
            }
        }
        rows.extend(times.map(|(name, times)| Row::new(&format!("pictures_{workers}_workers"), name, times)));
    }
    Ok(rows)
}

/// Walks through an epoch in random order.
pub fn run(folder: &str, workers: usize, result: &Path) -> Result<()> {
    seed_everything(1)?;
    fulgurite::torch::runtime::tune_allocator();
    let pictures = ImageFolder::open(folder)?.transform((
        RandomCrop::new(192),
        RandomHorizontalFlip::default(),
        ToDtype::scaled(Kind::Float),
        Normalize::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ));
    let loader = DataLoader::new(pictures).batch_size(BATCH_SIZE).shuffle(true).num_workers(workers);
    let mut stopwatch = Stopwatch::new(PLAN);
    for batch in loader.iter(0, 0)?.take(PLAN.total_steps()) {
        drop(batch?);
        stopwatch.step_ended();
    }
    std::fs::write(result, serde_json::to_string(&stopwatch.measured()?)?)?;
    Ok(())
}
