//! What the supervisor hears while it waits: signals, and news of other nodes.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Handle, SignalsInfo};
use signal_hook::low_level::siginfo::{Cause, Origin};

use super::failure::Failure;
use crate::FabricError;
use crate::environments::run_token::RunToken;
use crate::signals::{Inherited, Signal};

/// A signal, and whether the ranks were sent it by whoever sent it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub signal: Signal,
    pub reached_all: bool,
}

impl Heard {
    /// SIGUSR1 and SIGUSR2 mean what the ranks make of them.
    pub(super) fn asks_for_the_end(self) -> bool {
        !matches!(self.signal, Signal::User1 | Signal::User2)
    }
}

/// Something that the supervisor has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A child may have ended.
    Child,
    Signal(Heard),
    /// The other nodes can be talked to; messages are signed with this.
    Met(RunToken),
    /// A rank of another node has died, or the node with the store.
    Elsewhere(Failure),
}

/// Listens while it lives.
pub(super) struct Listener {
    heard: Receiver<Event>,
    tell: Sender<Event>,
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
        let signal = tell.clone();
        let listen = move || {
            for origin in signals.forever() {
                if signal.send(interpret(&origin)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("fulgurite-signals".into()).spawn(listen).map_err(failed)?;
        Ok(Listener { heard, tell, handle })
    }

    /// For others who have something to tell.
    pub(super) fn teller(&self) -> Sender<Event> {
        self.tell.clone()
    }

    /// Waits until something happens, but not for longer than this.
    pub(super) fn next(&self, patience: Duration) -> Option<Event> {
        self.heard.recv_timeout(patience).ok()
    }
}

fn interpret(origin: &Origin) -> Event {
    let signal = Signal::ALL.into_iter().find(|signal| signal.number() == origin.signal);
    // A terminal sends its signals to all processes that it runs in the foreground.
    let reached_all = origin.cause == Cause::Kernel;
    signal.map_or(Event::Child, |signal| Event::Signal(Heard { signal, reached_all }))
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.close();
    }
}
