//! The events that the supervisor waits for: signals, and reports from other nodes.

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

/// A signal, and whether the same sender has sent it to the ranks as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReceivedSignal {
    pub signal: Signal,
    pub sent_to_all: bool,
}

impl ReceivedSignal {
    /// All but SIGUSR1 and SIGUSR2, whose meaning is up to the ranks.
    pub(super) fn requests_termination(self) -> bool {
        !matches!(self.signal, Signal::User1 | Signal::User2)
    }
}

/// An event that the supervisor handles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A child may have exited.
    Child,
    Signal(ReceivedSignal),
    /// The connection to the other nodes is established; messages are signed with this token.
    Connected(RunToken),
    /// A rank of another node has failed, or the node that hosts the store has.
    RemoteFailure(Failure),
}

/// Receives events until it is dropped.
pub(super) struct Listener {
    events: Receiver<Event>,
    sender: Sender<Event>,
    handle: Handle,
}

impl Listener {
    pub(super) fn start() -> Result<Listener, FabricError> {
        let inherited = Inherited::read();
        // Signals that the program was started to ignore (`nohup`) are ignored by the ranks as well.
        let wanted = Signal::ALL.into_iter().filter(|signal| !inherited.ignores(*signal)).map(Signal::number);
        let failed = |error| FabricError::launch(format!("signal handlers cannot be installed: {error}"));
        let mut signals =
            SignalsInfo::<WithOrigin>::new(wanted.chain([SIGCHLD]).collect::<Vec<_>>()).map_err(failed)?;
        let handle = signals.handle();
        let (sender, events) = channel();
        let signals_sender = sender.clone();
        let listen = move || {
            for origin in signals.forever() {
                if signals_sender.send(interpret(&origin)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("fulgurite-signals".into()).spawn(listen).map_err(failed)?;
        Ok(Listener { events, sender, handle })
    }

    /// A sender for other sources of events.
    pub(super) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Waits for the next event; `None` after the timeout.
    pub(super) fn next(&self, timeout: Duration) -> Option<Event> {
        self.events.recv_timeout(timeout).ok()
    }
}

fn interpret(origin: &Origin) -> Event {
    let signal = Signal::ALL.into_iter().find(|signal| signal.number() == origin.signal);
    // A terminal sends its signals to the whole foreground process group.
    let sent_to_all = origin.cause == Cause::Kernel;
    signal.map_or(Event::Child, |signal| Event::Signal(ReceivedSignal { signal, sent_to_all }))
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.close();
    }
}
