//! Signals: handlers only set a flag, which the run checks between batches.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use fulgurite_fabric::environments;
use fulgurite_fabric::signals::Inherited;
use signal_hook::SigId;
use signal_hook::{flag, iterator, low_level};

use crate::console::Console;

pub use fulgurite_fabric::signals::Signal;

/// Its bit in the flags exchanged between processes.
fn bit(signal: Signal) -> u32 {
    1 << signal as u32
}

/// The action to take at the next safe point after a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopRequest {
    /// Shut down, with a checkpoint if there is something to save.
    Leave(Signal),
    /// Shut down, and requeue the job.
    Requeue(Signal),
}

/// Pending signals.
#[derive(Default)]
pub(crate) struct Signals {
    came: [Arc<AtomicBool>; Signal::ALL.len()],
    /// The signal that requeues the job.
    pub requeue: Option<Signal>,
    /// The signals received by any process of the run, as bits: these count if there are several processes.
    agreed: Option<AtomicU32>,
}

impl Signals {
    fn flag(&self, signal: Signal) -> &Arc<AtomicBool> {
        &self.came[signal as usize]
    }

    /// Whether it counts as received.
    fn has(&self, signal: Signal) -> bool {
        match &self.agreed {
            Some(agreed) => agreed.load(Ordering::Relaxed) & bit(signal) != 0,
            None => self.flag(signal).load(Ordering::Relaxed),
        }
    }

    /// The signals received by this process, as bits.
    pub(crate) fn came_here(&self) -> u32 {
        let came = |signal: &Signal| self.flag(*signal).load(Ordering::Relaxed);
        Signal::ALL.into_iter().filter(came).fold(0, |bits, signal| bits | bit(signal))
    }

    /// Whether a signal counts only once all processes know of it.
    pub(crate) fn await_agreement(&mut self, several_processes: bool) {
        self.agreed = several_processes.then(AtomicU32::default);
    }

    /// All processes know of these.
    pub(crate) fn agree_on(&self, signals: u32) {
        if let Some(agreed) = &self.agreed {
            agreed.fetch_or(signals, Ordering::Relaxed);
        }
    }

    fn forget(&self, signal: Signal) {
        self.flag(signal).store(false, Ordering::Relaxed);
        if let Some(agreed) = &self.agreed {
            agreed.fetch_and(!bit(signal), Ordering::Relaxed);
        }
    }

    /// The requested action. A termination signal that the scheduler sends after the requeue signal is part of the
    /// requeue.
    pub(crate) fn request(&self) -> Option<StopRequest> {
        if let Some(signal) = self.requeue.filter(|signal| self.has(*signal)) {
            return Some(StopRequest::Requeue(signal));
        }
        // Both are received if Ctrl-C reaches a launcher, which then terminates its processes.
        let leaves = [Signal::Terminate, Signal::Hangup, Signal::Interrupt];
        leaves.into_iter().find(|signal| self.has(*signal)).map(StopRequest::Leave)
    }

    /// The request for another run was answered, and the run continues.
    pub(crate) fn forget_requeue(&self) {
        if let Some(signal) = self.requeue {
            self.forget(signal);
        }
    }

    /// The run has ended because of a signal.
    pub(crate) fn answered(&self) {
        Signal::ALL.into_iter().for_each(|signal| self.forget(signal));
    }
}

/// While this lives, signals set flags. A second termination signal kills the process at once, and so does the end of
/// the grace period.
pub(crate) struct SignalGuard {
    ids: Vec<SigId>,
    came: [Arc<AtomicBool>; Signal::ALL.len()],
    _watchdog: Option<Watchdog>,
}

impl SignalGuard {
    /// Installs the handlers. Signals that this process was started to ignore (`nohup`) stay ignored, and where the
    /// system refuses, a signal keeps its default action. The second value is what is wrong with the requeue
    /// signal.
    pub(crate) fn install(
        signals: &Signals,
        grace: Option<Duration>,
        console: &Console,
    ) -> (SignalGuard, Option<String>) {
        let mut process = Process::lock();
        let mut ids = Vec::new();
        let mut problem = None;
        let is_supervised = environments::is_supervised();
        for signal in Signal::ALL {
            let requeues = signals.requeue == Some(signal);
            let leaves = matches!(signal, Signal::Terminate | Signal::Hangup | Signal::Interrupt);
            if process.inherited.ignores(signal) || !requeues && !leaves {
                continue;
            }
            if requeues && !leaves && process.inherited.handles(signal) {
                problem = Some(format!(
                    "{signal} has another handler in this program, so it does not requeue the job; choose another `requeue_signal`"
                ));
                continue;
            }
            process.keep_the_usual_meaning_between_runs(signal);
            let came = signals.flag(signal);
            came.fetch_or(process.unanswered.swap_out(signal), Ordering::Relaxed);
            // The order matters: the first of the two must see the flag as the signal found it. A rank may be sent a
            // signal by several at once; its launcher knows whether it was intended.
            if !requeues && !is_supervised {
                ids.extend(flag::register_conditional_shutdown(
                    signal.number(),
                    signal.exit_status(),
                    Arc::clone(came),
                ));
            }
            ids.extend(flag::register(signal.number(), Arc::clone(came)));
        }
        process.enter();
        let watchdog = grace.and_then(|grace| Watchdog::start(grace, signals.requeue, console.clone()));
        (SignalGuard { ids, came: signals.came.clone(), _watchdog: watchdog }, problem)
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        let mut process = Process::lock();
        for id in self.ids.drain(..) {
            low_level::unregister(id);
        }
        // A signal that was received too late for this run counts for the next.
        for signal in [Signal::Terminate, Signal::Hangup, Signal::Interrupt] {
            if self.came[signal as usize].swap(false, Ordering::Relaxed) {
                process.unanswered.note(signal);
            }
        }
        process.leave();
    }
}

/// The state shared by the runs of a process.
struct Process {
    runs: usize,
    /// Set while there is no run.
    idle: Arc<AtomicBool>,
    inherited: Inherited,
    /// Signals whose default action is emulated.
    usual: Vec<Signal>,
    unanswered: Unanswered,
}

impl Process {
    fn lock() -> std::sync::MutexGuard<'static, Process> {
        static PROCESS: OnceLock<Mutex<Process>> = OnceLock::new();
        let new = || {
            Mutex::new(Process {
                runs: 0,
                idle: Arc::default(),
                inherited: Inherited::read(),
                usual: Vec::new(),
                unanswered: Unanswered::default(),
            })
        };
        PROCESS.get_or_init(new).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler cannot be removed, so between runs it performs the default action.
    fn keep_the_usual_meaning_between_runs(&mut self, signal: Signal) {
        if !self.usual.contains(&signal) && !self.inherited.handles(signal) {
            self.usual.push(signal);
            _ = flag::register_conditional_default(signal.number(), Arc::clone(&self.idle));
        }
    }

    fn enter(&mut self) {
        self.runs += 1;
        self.idle.store(false, Ordering::SeqCst);
    }

    fn leave(&mut self) {
        self.runs -= 1;
        self.idle.store(self.runs == 0, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Unanswered(AtomicU32);

impl Unanswered {
    fn note(&self, signal: Signal) {
        self.0.fetch_or(1 << signal as u32, Ordering::Relaxed);
    }

    fn swap_out(&self, signal: Signal) -> bool {
        let bit = 1 << signal as u32;
        self.0.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }
}

/// Kills the process at the end of the grace period after the first termination signal.
struct Watchdog {
    signals: iterator::Handle,
    /// Closed by its drop.
    _run: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(grace: Duration, requeue: Option<Signal>, console: Console) -> Option<Watchdog> {
        let watched = [Signal::Terminate, Signal::Hangup].into_iter().filter(|signal| requeue != Some(*signal));
        let watched: Vec<Signal> = watched.filter(|signal| !Inherited::read().ignores(*signal)).collect();
        let mut signals = iterator::Signals::new(watched.iter().map(|signal| signal.number())).ok()?;
        let handle = signals.handle();
        let (run, ended) = mpsc::channel::<()>();
        let watch = move || {
            let Some(number) = signals.forever().next() else { return };
            let Some(signal) = watched.into_iter().find(|signal| signal.number() == number) else { return };
            if ended.recv_timeout(grace) == Err(RecvTimeoutError::Timeout) {
                end_process(signal, grace, console);
            }
        };
        thread::Builder::new().name("fulgurite-grace".into()).spawn(watch).ok()?;
        Some(Watchdog { signals: handle, _run: run })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.signals.close();
    }
}

fn end_process(signal: Signal, grace: Duration, console: Console) -> ! {
    // A thread that hangs may hold the lock of the console.
    let (said, wait) = mpsc::channel();
    let message = format!(
        "{signal} came {} s ago, and the run has not ended, so the process is killed now; resume from the last complete checkpoint",
        grace.as_secs_f64()
    );
    _ = thread::Builder::new().spawn(move || {
        console.print(&message);
        said.send(())
    });
    _ = wait.recv_timeout(Duration::from_secs(1));
    low_level::exit(signal.exit_status())
}
