//! A report of training runs: one HTML page, which needs no network, from the files that loggers, trainers and command lines write.
//! `fulgurite report RUN…` makes it. [`watch`] is the same for a terminal, and `fulgurite watch RUN…` shows it.
//!
//! ```
//! use fulgurite_report::report;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let run = folder.path().join("lightning_logs").join("version_0");
//! # std::fs::create_dir_all(&run)?;
//! std::fs::write(run.join("metrics.csv"), "epoch,loss,step\n0,0.5,0\n0,0.25,1\n")?;
//! let page = report(&[run])?;
//! assert!(page.starts_with("<!doctype html>"));
//! # Ok(())
//! # }
//! ```

mod error;
mod events;
mod facts;
mod ledger;
mod metrics;
mod number;
mod page;
mod record;
mod run;
mod standing;
mod time;
mod watch;

use std::path::PathBuf;

pub use error::{ReportError, Result};
pub use watch::watch;

use crate::run::Run;

/// The page of runs, whose folders are given, or folders that hold several.
///
/// # Errors
///
/// Fails if there is no run in one of them, or a `metrics.csv` cannot be read.
pub fn report(paths: &[PathBuf]) -> Result<String> {
    let runs: Vec<Run> = run::find(paths)?.iter().map(|folder| Run::read(folder)).collect::<Result<_>>()?;
    Ok(page::page(&runs, time::now()))
}
