//! Fulgurite side by side with hand-written `tch`, PyTorch and Lightning: `cargo xtask bench NAME`.
//!
//! Every number is measured in a process of its own, which this program or a script of `python/` is. The processes of
//! the variants alternate, so that what the machine does besides hits all of them alike.

mod checkpoint;
mod child;
mod ddp;
mod layers;
mod loader;
mod models;
mod overhead;
mod pictures;
mod server;
mod stopwatch;
mod table;
mod trackers;
mod variants;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::stopwatch::Plan;

const USAGE: &str = "usage: cargo xtask bench overhead|loader|checkpoint|ddp|layers|trackers [--json FILE] [--repeats N] [--model NAME]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match *args {
        // What the benchmarks start in processes of their own.
        ["step", ref args @ ..] => variants::run(&args.try_into()?),
        ["layer", name, ref plan @ .., result] => layers::run(name, Plan::from_args(plan)?, result.as_ref()),
        ["tracked", model, address, ref plan @ .., result] => {
            trackers::run(model, address, Plan::from_args(plan)?, result.as_ref())
        }
        ["load", workers, result] => loader::run(workers.parse()?, result.as_ref()),
        ["pictures", folder, workers, result] => pictures::run(folder, workers.parse()?, result.as_ref()),
        ["checkpoint-once", variant, path, result] => checkpoint::run(variant, path.as_ref(), result.as_ref()),
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        ["overhead", ref options @ ..] => {
            let options = Options::parse(options)?;
            let rows = overhead::measure(options.repeats, options.model.as_deref())?;
            options.report(table::render(&rows), &rows)
        }
        ["loader", ref options @ ..] => {
            let options = Options::parse(options)?;
            let mut rows = loader::measure(options.repeats)?;
            rows.extend(pictures::measure(options.repeats)?);
            options.report(table::render(&rows), &rows)
        }
        ["checkpoint", ref options @ ..] => {
            let options = Options::parse(options)?;
            let rows = checkpoint::measure(options.repeats)?;
            options.report(checkpoint::render(&rows), &rows)
        }
        ["ddp", ref options @ ..] => {
            let options = Options::parse(options)?;
            let rows = ddp::measure(options.repeats, options.model.as_deref())?;
            options.report(ddp::render(&rows), &rows)
        }
        ["layers", ref options @ ..] => {
            let options = Options::parse(options)?;
            let rows = layers::measure(options.repeats, options.model.as_deref())?;
            options.report(table::render(&rows), &rows)
        }
        ["trackers", ref options @ ..] => {
            let options = Options::parse(options)?;
            let rows = trackers::measure(options.repeats, options.model.as_deref())?;
            options.report(table::render(&rows), &rows)
        }
        _ => bail!(USAGE),
    }
}

struct Options {
    json: Option<PathBuf>,
    repeats: usize,
    /// Of `overhead`, `ddp`, `layers` and `trackers`: this model alone.
    model: Option<String>,
}

impl Options {
    fn parse(mut args: &[&str]) -> Result<Options> {
        let mut options = Options { json: None, repeats: 5, model: None };
        while let [name, value, rest @ ..] = args {
            match *name {
                "--json" => options.json = Some(value.into()),
                "--repeats" => options.repeats = value.parse().context(USAGE)?,
                "--model" => options.model = Some((*value).to_owned()),
                _ => bail!(USAGE),
            }
            args = rest;
        }
        if !args.is_empty() || options.repeats == 0 {
            bail!(USAGE);
        }
        Ok(options)
    }

    fn report(&self, text: String, rows: &impl Serialize) -> Result<()> {
        print!("{text}");
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(rows)?;
            std::fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}
