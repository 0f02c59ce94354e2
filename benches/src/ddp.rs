//! `ddp`: a training step on two ranks with a thread each, here, in PyTorch's `DistributedDataParallel`, and under Lightning.

use anyhow::Result;

use crate::child::{self, Program, Surroundings};
use crate::stopwatch::{Measured, Plan};
use crate::table::{self, Row};

/// The first is one rank with one thread: what two are compared with.
const VARIANTS: &[&str] =
    &["trainer_barebones", "trainer_ddp", "trainer_ddp_full", "pytorch_ddp", "lightning_ddp", "lightning_ddp_full"];

const MODELS: &[(&str, Plan)] = &[
    ("mlp", Plan { warmup: 200, blocks: 21, steps_per_block: 50 }),
    ("gpt", Plan { warmup: 5, blocks: 15, steps_per_block: 1 }),
];

/// The rows of both models, or of one alone.
pub fn measure(repeats: usize, only: Option<&str>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (model, plan) in MODELS.iter().filter(|(model, _)| only.is_none_or(|only| only == *model)) {
        let mut runs: Vec<(&str, Vec<f64>)> = VARIANTS.iter().map(|variant| (*variant, Vec::new())).collect();
        for repeat in 1..=repeats {
            for (variant, measured) in &mut runs {
                eprintln!("{model}: {variant}, {repeat} of {repeats}");
                let program = match *variant {
                    "pytorch_ddp" => Program::Torchrun("step.py"),
                    variant if variant.starts_with("lightning") => Program::Python("step.py"),
                    _ => Program::Rust("step"),
                };
                let mut args = vec![model.to_string(), variant.to_string()];
                args.extend(plan.to_args());
                let terminal = variant.ends_with("_full");
                let surroundings = Surroundings { one_thread: true, terminal, ..Surroundings::default() };
                measured.push(child::measure::<Measured>(&program, &args, surroundings)?.step_us);
            }
        }
        rows.extend(runs.into_iter().map(|(variant, measured)| Row::new(model, variant, measured)));
    }
    Ok(rows)
}

/// The table, and how much of a second rank's time is gained.
pub fn render(rows: &[Row]) -> String {
    let mut text = table::render(rows);
    for block in rows.chunk_by(|a, b| a.model == b.model) {
        let of = |variant: &str| block.iter().find(|row| row.variant == variant).map(|row| row.median_us);
        if let (Some(one), Some(two)) = (of("trainer_barebones"), of("trainer_ddp")) {
            let efficiency = 100.0 * one / two;
            text += &format!("  {}: scaling efficiency from one rank to two {efficiency:.0} %\n", block[0].model);
        }
    }
    text
}
