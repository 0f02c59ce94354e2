//! Outboxes that a run has left: who they are for.

use super::Inbox;
use super::server::Server;
use super::target::{Target, folder};
use crate::error::TrackerError;
use crate::outbox::Outbox;
use crate::pace::Pace;
use crate::service::Addressee;

/// Who takes the entries of an outbox.
pub(crate) fn addressee(
    outbox: &Outbox,
    pace: Pace,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<Addressee, TrackerError> {
    let server = match serde_json::from_value(outbox.target().clone()) {
        Ok(Target::Inbox) => {
            let root = folder(var);
            let name = format!("Trackio in {}, where `trackio show` shows it", root.display());
            return Ok(Addressee { writer: Box::new(Inbox::open(&root)?), name });
        }
        Ok(Target::Server(url)) => Server::for_sync(&url, pace, var)?,
        Ok(Target::Space(id)) => {
            let own = var("TRACKIO_SPACE_ID").filter(|own| *own == id);
            let Some(own) = own else {
                return Err(TrackerError::Refused(format!(
                    "it is for the Space {id:?}, which gets a token only if you name it; set TRACKIO_SPACE_ID to it"
                )));
            };
            Server::space(&own, pace, var)?
        }
        Err(_) => {
            let problem = format!("{} is for nothing that this version knows of Trackio", outbox.path().display());
            return Err(TrackerError::Refused(problem));
        }
    };
    server.check()?;
    let name = server.url().to_owned();
    Ok(Addressee { writer: Box::new(server.writer()), name })
}
