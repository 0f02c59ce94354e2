//! Sending all of a file that a run has left.

use std::io;
use std::thread;

use crate::backoff::Backoff;
use crate::pace::Pace;
use crate::service::{Failure, Service};
use crate::store::Unsent;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    pub warnings: Vec<String>,
    /// Why some of it is still there.
    pub left: Option<String>,
}

/// Sends what is in a file up to the offset `end`, with patience.
pub(crate) fn drain<R: Unsent>(
    reader: &mut R,
    end: u64,
    service: &mut dyn Service<R::Entry>,
    pace: &Pace,
) -> io::Result<Drained> {
    let (mut drained, mut backoff) = (Drained::default(), Backoff::new(pace));
    loop {
        let before = reader.sent();
        let lines = reader.next(end, pace.flush_items)?;
        if lines.is_empty() {
            // Damaged lines are passed over, and others follow.
            if reader.sent() > before {
                continue;
            }
            return Ok(drained);
        }
        let (entries, ends): (Vec<R::Entry>, Vec<u64>) = lines.into_iter().map(|line| (line.entry, line.end)).unzip();
        let sent = service.send(&entries);
        if let Some(end) = sent.done.checked_sub(1).and_then(|last| ends.get(last)) {
            reader.set_sent(*end)?;
        }
        drained.warnings.extend(sent.warnings);
        match sent.failure {
            None => backoff.succeeded(),
            Some(Failure::Closed(why)) => return Ok(Drained { left: Some(why), ..drained }),
            Some(Failure::Later { why, after }) => {
                let wait = backoff.next(after);
                if backoff.failures() >= pace.tries_of_sync {
                    return Ok(Drained { left: Some(why), ..drained });
                }
                thread::sleep(wait);
            }
        }
    }
}
