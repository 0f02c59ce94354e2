//! Signals that the supervisor hears.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Handle, SignalsInfo};
use signal_hook::low_level::siginfo::{Cause, Origin};

use crate::FabricError;
use crate::signals::{Inherited, Signal};

/// A signal, and whether the ranks were sent it by whoever sent it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub signal: Signal,
    pub reached_all: bool,
}

/// Listens while it lives.
pub(super) struct Listener {
    heard: Receiver<Option<Heard>>,
    handle: Handle,
}

impl Listener {
    pub(super) fn start() -> Result<Listener, FabricError> {
        let inherited = Inherited::read();
        // What the program was started to ignore (`nohup`), the ranks ignore as well.
        let wanted = Signal::ALL.into_iter().filter(|signal| !inherited.ignores(*signal)).map(Signal::number);
        let failed = |error| FabricError::launch(format!("signals cannot be received: {error}"));
        let mut signals =
            SignalsInfo::<WithOrigin>::new(wanted.chain([SIGCHLD]).collect::<Vec<_>>()).map_err(failed)?;
        let handle = signals.handle();
        let (tell, heard) = channel();
        let listen = move || {
            for origin in signals.forever() {
                if tell.send(interpret(&origin)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("fulgurite-signals".into()).spawn(listen).map_err(failed)?;
        Ok(Listener { heard, handle })
    }

    /// Waits for a signal, or until a child may have ended, or for as long as this.
    pub(super) fn next(&self, patience: Duration) -> Option<Heard> {
        self.heard.recv_timeout(patience).ok().flatten()
    }
}

/// `None`: a child has ended.
fn interpret(origin: &Origin) -> Option<Heard> {
    let signal = Signal::ALL.into_iter().find(|signal| signal.number() == origin.signal)?;
    // A terminal sends its signals to all processes that it runs in the foreground.
    Some(Heard { signal, reached_all: origin.cause == Cause::Kernel })
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.close();
    }
}
