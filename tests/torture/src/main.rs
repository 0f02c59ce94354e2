//! `cargo xtask torture`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use fulgurite_torture::campaign::Campaign;
use fulgurite_torture::life::Program;
use fulgurite_torture::trainee;

/// Kills training runs again and again; each must go on and end as the undisturbed one does, bit by bit.
#[derive(Parser)]
#[command(name = "cargo xtask torture")]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many kills to make at least.
    #[arg(long, default_value_t = 500)]
    kills: u64,
    /// What chance is made of.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Runs at a time; as many as there are processors by default.
    #[arg(long)]
    jobs: Option<usize>,
    /// In how many of a hundred runs checkpoints are damaged, too.
    #[arg(long, default_value_t = 40)]
    damaged_runs: u64,
}

#[derive(Subcommand)]
enum Command {
    /// The program that is killed.
    #[command(hide = true)]
    Train(trainee::Options),
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(Command::Train(options)) = &args.command {
        trainee::train(options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = std::env::current_exe()?;
    let program = |ranks: usize, args: &[&str]| Program {
        path: path.clone(),
        args: args.iter().map(|arg| (*arg).into()).collect(),
        ranks,
    };
    let campaign = Campaign {
        programs: vec![
            program(1, &[]),
            program(1, &["--link"]),
            program(1, &["--asynchronous"]),
            program(2, &[]),
            program(2, &["--asynchronous"]),
        ],
        kills: args.kills,
        seed: args.seed,
        jobs: args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        damaged_runs: args.damaged_runs,
        is_verbose: true,
    };
    let tally = campaign.run()?;
    print!("{tally}");
    Ok(if tally.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
