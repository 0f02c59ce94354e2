//! `trackers`: what a training step costs that is logged to experiment trackers, whose servers answer, answer late, or are gone.

use std::path::Path;

use anyhow::{Result, bail};
use fulgurite::TrainerBuilder;
use fulgurite::loggers::{MLFlowLogger, TrackioLogger, WandbLogger};
use fulgurite::prelude::{CsvLogger, Trainer, seed_everything};

use crate::child::{self, Program, Surroundings};
use crate::models::Model;
use crate::server::{Manner, Server};
use crate::stopwatch::{Measured, Plan, Stopwatch};
use crate::table::Row;
use crate::variants::trained;

/// Every step is logged, so the MLP fills a batch of a thousand values in half a second, and the CNN sends every five seconds.
const MODELS: &[(&str, Plan)] = &[
    ("mlp", Plan { warmup: 500, blocks: 41, steps_per_block: 200 }),
    ("cnn", Plan { warmup: 20, blocks: 41, steps_per_block: 8 }),
];

const VARIANTS: &[(&str, Option<Manner>)] = &[
    ("csv", None),
    ("answering", Some(Manner::Answers)),
    ("slow", Some(Manner::AnswersLate)),
    ("gone", Some(Manner::IsGone)),
];

/// The stand-in takes every key.
const KEY: &str = "benchbenchbenchbenchbenchbenchbenchbench";

/// Rows for each model: a CSV logger alone, and with the loggers of all trackers.
pub fn measure(repeats: usize, only: Option<&str>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (model, plan) in MODELS.iter().filter(|(model, _)| only.is_none_or(|only| only == *model)) {
        let mut runs = VARIANTS.iter().map(|(variant, manner)| (variant, manner, Vec::new())).collect::<Vec<_>>();
        for repeat in 1..=repeats {
            for (variant, manner, times) in &mut runs {
                eprintln!("{model}: {variant}, {repeat} of {repeats}");
                let server = manner.map(Server::start).transpose()?;
                let address = server.as_ref().map_or("none", |server| &server.address);
                let mut args = vec![model.to_string(), address.to_owned()];
                args.extend(plan.to_args());
                let variables = [("WANDB_BASE_URL", address), ("WANDB_API_KEY", KEY), ("TRACKIO_WRITE_TOKEN", KEY)];
                let measured: Measured =
                    child::measure_with(&Program::Rust("tracked"), &args, Surroundings::default(), &variables)?;
                times.push(measured.step_us);
                if server.is_some_and(|server| server.values_asked() == 0) {
                    bail!("no value arrived at the server");
                }
            }
        }
        rows.extend(runs.into_iter().map(|(variant, _, times)| Row::new(model, variant, times)));
    }
    Ok(rows)
}

/// One process: trains with the loggers of a server, or with a CSV logger alone.
pub fn run(model: &str, address: &str, plan: Plan, result: &Path) -> Result<()> {
    seed_everything(1)?;
    let model = Model::new(model)?;
    let batches = model.batches(plan.total_steps());
    let folder = tempfile::tempdir()?;
    let builder = Trainer::builder().max_epochs(1).default_root_dir(folder.path()).enable_progress_bar(false);
    let builder = builder.log_every_n_steps(1).accelerator("cpu").logger(CsvLogger::new(folder.path()));
    let builder = if address == "none" { builder } else { with_trackers(builder, address, folder.path()) };
    let stopwatch = trained(builder.build()?, model, batches, Stopwatch::new(plan), true)?;
    std::fs::write(result, serde_json::to_string(&stopwatch.measured()?)?)?;
    Ok(())
}

/// What cannot be sent by the end of the run is left, since how long that takes is not what is measured.
fn with_trackers(builder: TrainerBuilder, address: &str, folder: &Path) -> TrainerBuilder {
    builder
        .logger(MLFlowLogger::new("bench").tracking_uri(address).save_dir(folder).finish_timeout(1))
        .logger(WandbLogger::new("bench").save_dir(folder).finish_timeout(1))
        .logger(TrackioLogger::new("bench").server_url(address).save_dir(folder).finish_timeout(1))
}
