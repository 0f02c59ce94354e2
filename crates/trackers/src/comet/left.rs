//! Outboxes that a run has left: sent to the server, or put into an archive.

use std::path::Path;

use super::archive::archive;
use super::experiment::{Experiment, Mode, Target};
use super::server::Server;
use crate::drain::drain;
use crate::error::TrackerError;
use crate::outbox::Outbox;
use crate::own_files::OwnFiles;
use crate::pace::Pace;
use crate::store::Unsent;
use crate::synced::Synced;

/// Sends an outbox if it is for a server, and puts it into an archive beside it otherwise. `None` if a run is still using it.
///
/// # Errors
///
/// Fails if it is for no experiment, or the server cannot be reached or refuses it.
pub(crate) fn send(
    outbox: Outbox,
    pace: Pace,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Synced>, TrackerError> {
    let path = outbox.path().to_owned();
    let Ok(Target { server, experiment }) = serde_json::from_value(outbox.target().clone()) else {
        return Err(TrackerError::Refused(format!("{} is for no experiment of Comet", path.display())));
    };
    let Some(address) = server else {
        drop(outbox);
        return as_archive(&path);
    };
    let server = Server::new(None, pace, var)?.for_sync();
    if server.url() != address {
        let problem =
            format!("it is for {address}, which gets your key only if you name it; set COMET_URL_OVERRIDE to it");
        return Err(TrackerError::Refused(problem));
    }
    if !Experiment::is_key(&experiment.key) {
        return Err(TrackerError::Refused(format!("{} is for no experiment that can be", path.display())));
    }
    // It was begun by the run.
    let experiment = Experiment { mode: Mode::GetOrCreate, ..experiment };
    let name = format!("{address} experiment {}", experiment.key);
    let Some(writer) = server.begin(&experiment)? else {
        drop(outbox);
        return as_archive(&path);
    };
    let own = OwnFiles::of(path.parent().unwrap_or(&path));
    let mut writer = writer.only_files_of(own);
    let failed = || TrackerError::outbox(&path);
    let mut reader = outbox.reader().map_err(failed())?;
    let before = reader.count(outbox.len()).map_err(failed())?;
    let drained = drain(&mut reader, outbox.len(), &mut writer, &pace).map_err(failed())?;
    let after = reader.count(outbox.len()).map_err(failed())?;
    if drained.left.is_none() {
        outbox.remove().map_err(failed())?;
    }
    let (values, files) = (before.0.saturating_sub(after.0), before.1.saturating_sub(after.1));
    Ok(Some(Synced { to: name, values, files, warnings: drained.warnings, left: drained.left }))
}

fn as_archive(path: &Path) -> Result<Option<Synced>, TrackerError> {
    let synced = |to: String, values, files| Synced { to, values, files, warnings: Vec::new(), left: None };
    Ok(Some(match archive(path, path.parent().unwrap_or(path))? {
        Some(archive) => {
            let place = archive.path.display();
            synced(format!("the archive {place}, which `comet upload {place}` sends"), archive.values, archive.files)
        }
        None => synced(String::new(), 0, 0),
    }))
}
