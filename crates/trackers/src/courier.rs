//! [`Courier`]: the thread that sends what an outbox has.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::error::TrackerError;
use crate::outbox::Outbox;
use crate::pace::Pace;
use crate::service::{Failure, Service};
use crate::store::{Store, Unsent};

/// Puts entries into an outbox, or another file, and sends them from a thread of its own, so that whoever logs never waits for a
/// network.
///
/// Dropping it leaves what is not sent in the outbox.
#[derive(Debug)]
pub struct Courier<S: Store = Outbox> {
    shared: Arc<Shared<S>>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

/// What could not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Values: metrics, hyper-parameters and tags.
    pub values: usize,
    /// Files.
    pub files: usize,
    /// Why.
    pub why: Option<String>,
}

/// How the sending ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What could not be sent.
    pub left: Option<Left>,
    /// What the user should know, and does not yet.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
struct Shared<S> {
    state: Mutex<State<S>>,
    /// Notified when there is more to do, and when something is done.
    changed: Condvar,
    pace: Pace,
}

#[derive(Debug)]
struct State<S> {
    outbox: S,
    /// Values since the thread last looked, and when the first of them came.
    waiting: usize,
    since: Option<Instant>,
    /// Everything is to be sent at once.
    hurry: bool,
    /// The thread is to end, sent or not.
    leave: bool,
    /// So much of the outbox is sent.
    sent: u64,
    has_ended: bool,
    warnings: Vec<String>,
    /// Why the last try failed.
    why: Option<String>,
    /// The server asks that the run ends.
    stop: bool,
}

impl<S> State<S> {
    fn of(outbox: S, sent: u64) -> State<S> {
        State {
            outbox,
            waiting: 0,
            since: None,
            hurry: false,
            leave: false,
            sent,
            has_ended: false,
            warnings: Vec::new(),
            why: None,
            stop: false,
        }
    }
}

impl<S: Store> Courier<S> {
    /// Starts the thread, which first sends what is in the outbox already.
    ///
    /// # Errors
    ///
    /// Fails if the outbox cannot be read, or no thread be started.
    pub fn start(outbox: S, service: Box<dyn Service<S::Entry>>, pace: Pace) -> Result<Courier<S>, TrackerError> {
        let path = outbox.path().to_owned();
        let reader = outbox.reader().map_err(TrackerError::outbox(&path))?;
        let since = (reader.sent() < outbox.len()).then(Instant::now);
        let state = State { since, ..State::of(outbox, reader.sent()) };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), pace });
        let thread = {
            let shared = Arc::clone(&shared);
            Builder::new().name("tracker".into()).spawn(move || shared.send_all(reader, service))
        };
        let thread = thread.map_err(TrackerError::outbox(&path))?;
        Ok(Courier { shared, path, thread: Some(thread) })
    }

    /// Only puts entries into the outbox, for `fulgurite sync`.
    pub fn without_service(outbox: S) -> Courier<S> {
        let (path, sent) = (outbox.path().to_owned(), outbox.len());
        let state = State { has_ended: true, ..State::of(outbox, sent) };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), pace: Pace::default() });
        Courier { shared, path, thread: None }
    }

    /// Adds an entry, without waiting for the server.
    ///
    /// # Errors
    ///
    /// Fails if the outbox cannot be written.
    pub fn post(&self, entry: &S::Entry) -> Result<(), TrackerError> {
        let mut state = self.shared.lock();
        state.waiting += S::items(entry);
        let (is_first, is_many) = (state.since.is_none(), state.waiting >= self.shared.pace.flush_items);
        state.since.get_or_insert_with(Instant::now);
        let appended = state.outbox.append(entry);
        drop(state);
        if is_first || is_many {
            self.shared.changed.notify_all();
        }
        appended.map_err(TrackerError::outbox(&self.path))
    }

    /// Hands all entries to the system, so that a process that is killed has written them.
    ///
    /// # Errors
    ///
    /// Fails if the outbox cannot be written.
    pub fn flush(&self) -> Result<(), TrackerError> {
        self.shared.lock().outbox.flush().map_err(TrackerError::outbox(&self.path))
    }

    /// Waits until all entries are on the disk. It does not wait for the server.
    ///
    /// # Errors
    ///
    /// Fails if the outbox cannot be written.
    pub fn save(&self) -> Result<(), TrackerError> {
        self.shared.lock().outbox.sync().map_err(TrackerError::outbox(&self.path))
    }

    /// Waits until all entries are sent, or the time is over, and returns what is left.
    ///
    /// # Errors
    ///
    /// Fails if the outbox cannot be read or written.
    pub fn send_within(&self, time: Duration) -> Result<Option<Left>, TrackerError> {
        // What is beyond the end of the clock never comes.
        let deadline = Instant::now().checked_add(time);
        let mut state = self.shared.lock();
        state.outbox.sync().map_err(TrackerError::outbox(&self.path))?;
        state.hurry = true;
        self.shared.changed.notify_all();
        while state.sent < state.outbox.len() && !state.has_ended {
            let left = deadline.map_or(Some(time), |deadline| deadline.checked_duration_since(Instant::now()));
            let Some(left) = left else { break };
            state = self.shared.wait(state, left);
        }
        state.hurry = false;
        if state.sent >= state.outbox.len() {
            return Ok(None);
        }
        let mut reader = state.outbox.reader().map_err(TrackerError::outbox(&self.path))?;
        let (values, files) = reader.count(state.outbox.len()).map_err(TrackerError::outbox(&self.path))?;
        Ok(Some(Left { values, files, why: state.why.clone() }))
    }

    /// As [`send_within`](Courier::send_within), and the thread ends. An outbox that is empty then is removed; other files stay.
    ///
    /// # Errors
    ///
    /// Fails if the outbox cannot be read or written.
    pub fn finish(mut self, time: Duration) -> Result<Finished, TrackerError> {
        let left = self.send_within(time)?;
        self.shared.lock().leave = true;
        self.shared.changed.notify_all();
        if left.is_none()
            && let Some(thread) = self.thread.take()
        {
            // It has nothing to wait for, and does not panic.
            let _ = thread.join();
            self.shared.lock().outbox.settle().map_err(TrackerError::outbox(&self.path))?;
        }
        Ok(Finished { left, warnings: self.take_warnings() })
    }

    /// What the user should know, once.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().warnings)
    }

    /// Whether the user asks on the server that the run ends. It says so once.
    pub fn wants_stop(&self) -> bool {
        std::mem::take(&mut self.shared.lock().stop)
    }

    /// Does something with the outbox that the thread does not see half of.
    pub(crate) fn with_outbox<R>(&self, act: impl FnOnce(&mut S) -> R) -> R {
        act(&mut self.shared.lock().outbox)
    }

    /// The outbox's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl<S: Store> Drop for Courier<S> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.leave = true;
        // Dropping cannot report that it failed.
        let _ = state.outbox.flush();
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// What the thread does next.
enum Work {
    /// Send what there is up to this place of the file.
    Send(u64),
    /// Say that the run is alive.
    Idle,
    /// End.
    Leave,
}

impl<S: Store> Shared<S> {
    /// The state is consistent even after a panic, since it is set in single steps.
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<S>>, time: Duration) -> MutexGuard<'a, State<S>> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The main loop of the thread.
    fn send_all(&self, mut reader: S::Reader, mut service: Box<dyn Service<S::Entry>>) {
        let mut backoff = Backoff::new(&self.pace);
        loop {
            let until = match self.next_work(&reader) {
                Work::Send(until) => until,
                Work::Idle => {
                    let said = service.idle();
                    let mut state = self.lock();
                    state.stop |= said.stop;
                    state.warnings.extend(said.warnings);
                    continue;
                }
                Work::Leave => break,
            };
            let lines = match reader.next(until, self.pace.flush_items) {
                Ok(lines) => lines,
                Err(error) => {
                    self.failed(&mut backoff, &format!("its outbox cannot be read: {error}"), None);
                    continue;
                }
            };
            let ends: Vec<u64> = lines.iter().map(|line| line.end).collect();
            let entries: Vec<S::Entry> = lines.into_iter().map(|line| line.entry).collect();
            let sent = service.send(&entries);
            if let Some(end) = sent.done.checked_sub(1).and_then(|last| ends.get(last)) {
                // If the place cannot be noted, the same is sent again by the next process, which does no harm.
                let _ = reader.set_sent(*end);
            }
            let mut state = self.lock();
            state.warnings.extend(sent.warnings);
            state.stop |= sent.stop;
            state.sent = reader.sent();
            // A file that stays long is no harm either.
            let _ = state.outbox.shorten(&mut reader);
            state.sent = reader.sent();
            drop(state);
            self.changed.notify_all();
            match sent.failure {
                None => self.succeeded(&mut backoff),
                Some(Failure::Later { why, after }) => self.failed(&mut backoff, &why, after),
                Some(Failure::Closed(why)) => {
                    let mut state = self.lock();
                    state.warnings.push(format!("nothing more is sent: {why}"));
                    state.why = Some(why);
                    break;
                }
            }
        }
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// Waits until there is enough to send, or nothing was for long.
    fn next_work(&self, reader: &S::Reader) -> Work {
        let (mut state, begun) = (self.lock(), Instant::now());
        loop {
            if state.leave {
                return Work::Leave;
            }
            let is_due = state.since.is_some_and(|since| since.elapsed() >= self.pace.flush_after);
            if is_due || state.hurry || state.waiting >= self.pace.flush_items {
                // If it cannot be written now, whoever logs learns of it.
                let flushed = state.outbox.flush().is_ok();
                if reader.sent() < state.outbox.len() {
                    // There may be more than one batch, so `since` stays: the next call looks again.
                    state.waiting = 0;
                    return Work::Send(state.outbox.len());
                }
                (state.waiting, state.since) = (0, (!flushed).then(Instant::now));
            }
            let until_idle = self.pace.idle_after.map(|after| after.saturating_sub(begun.elapsed()));
            let time = match (state.since, until_idle) {
                (Some(since), _) => self.pace.flush_after.saturating_sub(since.elapsed()),
                (None, Some(Duration::ZERO)) => return Work::Idle,
                (None, Some(left)) => left,
                (None, None) => Duration::from_secs(3600),
            };
            state = self.wait(state, time);
        }
    }

    fn succeeded(&self, backoff: &mut Backoff) {
        if backoff.failures() > 0 {
            backoff.succeeded();
            let mut state = self.lock();
            if state.why.take().is_some() {
                state.warnings.push("the server takes values again".into());
            }
        }
    }

    /// Warns of the first failure, and waits. Who wants to end does not wait for long.
    fn failed(&self, backoff: &mut Backoff, why: &str, after: Option<Duration>) {
        let until = Instant::now() + backoff.next(after);
        let mut state = self.lock();
        if state.why.is_none() {
            let place = state.outbox.path().display().to_string();
            state.warnings.push(format!("{why}; what is logged is kept in {place}, and sent later"));
        }
        state.why = Some(why.to_owned());
        let hurried = state.hurry;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if state.leave || state.hurry && !hurried {
                // The server may be back; its own request to wait is heard again if it is not.
                break;
            }
            state = self.wait(state, left);
        }
    }
}
