//! Sending outboxes that runs have left: `fulgurite sync`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::drain::{Drained, drain};
use crate::error::TrackerError;
use crate::outbox::{Outbox, Reader};
use crate::pace::Pace;
use crate::store::Unsent;
pub use crate::synced::Synced;
use crate::{comet, mlflow, trackio, wandb};

/// How many folders deep outboxes are looked for: of a root, experiments and runs.
const DEPTH: usize = 6;

/// The outboxes in a folder and those below it, sorted; and files for W&B, each in a folder of its run, the earliest first.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// assert!(fulgurite_trackers::sync::outboxes(folder.path()).is_empty());
/// ```
pub fn outboxes(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut level) = (Vec::new(), vec![folder.to_owned()]);
    for _ in 0..=DEPTH {
        let entries = level.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let mut next = Vec::new();
        for entry in entries {
            let is_outbox = |name: &str| name.contains("-outbox") && name.ends_with(".jsonl");
            let is_found = |path: &Path| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(is_outbox) || wandb::is_left(path)
            };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => next.push(entry.path()),
                Ok(kind) if kind.is_file() && is_found(&entry.path()) => found.push(entry.path()),
                _ => {}
            }
        }
        level = next;
    }
    found.sort_by_cached_key(|path| (wandb::begun(path), path.clone()));
    found
}

/// Sends an outbox to where it says, or to `server` if that is given, and removes it when all of it is sent. `None` if a run is
/// still using it.
///
/// An outbox is data: keys are sent only to a server that is given here, or by the variable of its service such as
/// `MLFLOW_TRACKING_URI`. Files for W&B go to the server that `WANDB_BASE_URL` names, or W&B's own, and experiments to that of
/// `COMET_URL_OVERRIDE` or Comet's own, whatever `server` says of others; experiments without a server become archives for
/// `comet upload`.
///
/// # Errors
///
/// Fails if it is no outbox, or the server cannot be reached or refuses it.
pub fn send(path: &Path, server: Option<&str>, pace: Pace) -> Result<Option<Synced>, TrackerError> {
    let var = |name: &str| match (name, server) {
        ("MLFLOW_TRACKING_URI" | "TRACKIO_SERVER_URL", Some(server)) => Some(server.to_owned()),
        _ => env::var(name).ok().filter(|value| !value.is_empty()),
    };
    send_with(path, pace, &var)
}

pub(crate) fn send_with(
    path: &Path,
    pace: Pace,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Synced>, TrackerError> {
    if wandb::is_left(path) {
        return wandb::send(path, pace, var);
    }
    let Some(outbox) = Outbox::left_at(path).map_err(TrackerError::outbox(path))? else { return Ok(None) };
    if outbox.service() == comet::SERVICE {
        return comet::send(outbox, pace, var);
    }
    let mut reader = outbox.reader().map_err(TrackerError::outbox(path))?;
    let before = reader.count(outbox.len()).map_err(TrackerError::outbox(path))?;
    let is_of_trackio = outbox.service() == trackio::SERVICE;
    let is_for_good = is_of_trackio || mlflow::is_there(&outbox);
    if before == (0, 0) && !is_for_good {
        return Ok(Some(Synced { to: String::new(), values: 0, files: 0, warnings: Vec::new(), left: None }));
    }
    let mut addressee = match is_of_trackio {
        true => trackio::addressee(&outbox, pace, var)?,
        false => mlflow::addressee(&outbox, &mut reader, pace, var)?,
    };
    let drained =
        drain(&mut reader, outbox.len(), &mut *addressee.writer, &pace).map_err(TrackerError::outbox(path))?;
    let Drained { warnings, left } = drained;
    let after = count(&mut reader, &outbox)?;
    if left.is_none() && is_for_good {
        outbox.remove().map_err(TrackerError::outbox(path))?;
    }
    let (values, files) = (before.0.saturating_sub(after.0), before.1.saturating_sub(after.1));
    Ok(Some(Synced { to: addressee.name, values, files, warnings, left }))
}

fn count(reader: &mut Reader, outbox: &Outbox) -> Result<(usize, usize), TrackerError> {
    reader.count(outbox.len()).map_err(TrackerError::outbox(outbox.path()))
}
