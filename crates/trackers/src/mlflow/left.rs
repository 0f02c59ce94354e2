//! Outboxes that a run has left: who they are for.

use super::SERVICE;
use super::server::Server;
use super::target::{Run, RunOrPlan, Target};
use crate::error::TrackerError;
use crate::outbox::{Outbox, Reader};
use crate::pace::Pace;
use crate::service::Addressee;

/// Whether the outbox is for a run that was there when it was begun. One that was written offline is kept after it is sent,
/// because it alone knows the run that was created for it.
pub(crate) fn is_there(outbox: &Outbox) -> bool {
    target(outbox).is_ok_and(|target| matches!(target.run, RunOrPlan::Run(_)))
}

/// The run that an outbox is for, which is created if it was written offline.
pub(crate) fn addressee(
    outbox: &Outbox,
    reader: &mut Reader,
    pace: Pace,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<Addressee, TrackerError> {
    let Target { server, run } = target(outbox)?;
    let address = if server.is_empty() { var("MLFLOW_TRACKING_URI").unwrap_or_default() } else { server };
    if address.is_empty() {
        let problem = "it was written without the address of a server; give it by --server or MLFLOW_TRACKING_URI";
        return Err(TrackerError::Refused(problem.into()));
    }
    let server = Server::for_sync(&address, pace, var)?;
    let earlier = reader.run().and_then(|run| serde_json::from_value::<Run>(run.clone()).ok());
    let run = match (run, earlier) {
        (RunOrPlan::Run(run), _) | (RunOrPlan::New(_), Some(run)) => {
            server.find_run(&run.run_id)?.ok_or_else(|| {
                TrackerError::Refused(format!("the run {} is not at {}, or was deleted", run.run_id, server.url()))
            })?
        }
        (RunOrPlan::New(new), None) => {
            let run = server.start(&new)?;
            let value = serde_json::to_value(&run).unwrap_or_default();
            reader.set_run(value).map_err(TrackerError::outbox(outbox.path()))?;
            run
        }
    };
    let name = format!("{} run {}", server.url(), run.run_id);
    let folder = outbox.path().parent().unwrap_or(outbox.path());
    Ok(Addressee { writer: Box::new(server.writer(run).only_files_of(folder)), name })
}

fn target(outbox: &Outbox) -> Result<Target, TrackerError> {
    let target = (outbox.service() == SERVICE).then(|| serde_json::from_value(outbox.target().clone()).ok()).flatten();
    target.ok_or_else(|| {
        TrackerError::Refused(format!("{} is for no service that this version knows", outbox.path().display()))
    })
}
