//! `fulgurite sync`: sends what runs could not send.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use fulgurite_trackers::Pace;
use fulgurite_trackers::sync::{Synced, outboxes, send};

use crate::console::{complain, say};

/// Sends all outboxes in a folder. The exit code says whether nothing is left.
pub(crate) fn run(folder: &Path, server: Option<&str>) -> Result<ExitCode> {
    if !folder.is_dir() {
        bail!(
            "{} is no folder; give the one that the runs write to, such as lightning_logs or wandb",
            folder.display()
        );
    }
    let found = outboxes(folder);
    if found.is_empty() {
        say(&format!("There is nothing to send in {}.", folder.display()));
    }
    let mut is_all_sent = true;
    for path in found {
        let problem = match send(&path, server, Pace::default()) {
            Ok(Some(synced)) => report(&path, synced),
            Ok(None) => Some("it is no outbox of this program, or a run is still writing to it".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            complain(&format!("{}: {problem}", path.display()));
            is_all_sent = false;
        }
    }
    Ok(if is_all_sent { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what was sent, and returns why there is more.
fn report(path: &Path, synced: Synced) -> Option<String> {
    let Synced { to, values, files, warnings, left, .. } = synced;
    warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    if values + files > 0 || left.is_none() && !to.is_empty() {
        say(&format!("{}: sent {values} value(s) and {files} file(s) to {to}", path.display()));
    }
    left.map(|why| format!("the rest stays here: {why}"))
}
