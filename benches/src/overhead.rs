//! `overhead`: what a training step costs, in eight ways.

use anyhow::Result;

use crate::child::{self, BusyNeighbour, Program, Surroundings};
use crate::stopwatch::{Measured, Plan};
use crate::table::Row;

const VARIANTS: &[&str] = &[
    "loop",
    "trainer_barebones",
    "trainer_full",
    "trainer_callbacks",
    "pytorch",
    "lightning_barebones",
    "lightning_full",
    "lightning_callbacks",
];

/// A few seconds at most for each process, but past its first moments, and enough blocks for a median.
const MODELS: &[(&str, Plan)] = &[
    ("mlp", Plan { warmup: 200, blocks: 21, steps_per_block: 50 }),
    ("cnn", Plan { warmup: 20, blocks: 31, steps_per_block: 2 }),
    ("gpt", Plan { warmup: 5, blocks: 15, steps_per_block: 1 }),
];

/// The rows of every model, start-up, and a GPT with a busy neighbour; or those of one model alone.
pub fn measure(repeats: usize, only: Option<&str>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (model, plan) in MODELS {
        if only.is_some_and(|only| only != *model) {
            continue;
        }
        let runs = alternate(model, *plan, VARIANTS, repeats)?;
        rows.extend(rows_of(model, &runs, |run| run.step_us));
        if *model == "mlp" {
            rows.extend(rows_of("startup", &runs, |run| run.startup_us));
        }
    }
    if only.is_some() {
        return Ok(rows);
    }
    let _neighbour = BusyNeighbour::start()?;
    let plan = Plan { warmup: 2, blocks: 5, steps_per_block: 1 };
    let variants = ["loop", "trainer_full", "trainer_full_untuned", "pytorch", "lightning_full"];
    let runs = alternate("gpt", plan, &variants, repeats)?;
    rows.extend(rows_of("gpt_busy_neighbour", &runs, |run| run.step_us));
    Ok(rows)
}

type Runs = Vec<(&'static str, Vec<Measured>)>;

/// Measures each variant once, and all of them again.
fn alternate(model: &str, plan: Plan, variants: &[&'static str], repeats: usize) -> Result<Runs> {
    let mut runs: Runs = variants.iter().map(|variant| (*variant, Vec::new())).collect();
    for repeat in 1..=repeats {
        for (variant, measured) in &mut runs {
            eprintln!("{model}: {variant}, {repeat} of {repeats}");
            // The trainer without what it does about neighbours, to show what that is good for.
            let (variant, plain_waiting) = match variant.strip_suffix("_untuned") {
                Some(variant) => (variant, true),
                None => (*variant, false),
            };
            let script = variant == "pytorch" || variant.starts_with("lightning");
            let program = if script { Program::Python("step.py") } else { Program::Rust("step") };
            let mut args = vec![model.to_owned(), variant.to_string()];
            args.extend(plan.to_args());
            let terminal = variant.ends_with("_full") || variant.ends_with("_callbacks");
            let surroundings = Surroundings { terminal, plain_waiting, ..Surroundings::default() };
            measured.push(child::measure(&program, &args, surroundings)?);
        }
    }
    Ok(runs)
}

fn rows_of(model: &str, runs: &Runs, value: impl Fn(&Measured) -> f64) -> Vec<Row> {
    runs.iter().map(|(variant, runs)| Row::new(model, variant, runs.iter().map(&value).collect())).collect()
}
