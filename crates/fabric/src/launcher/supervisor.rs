//! The process that starts the ranks of a machine and supervises them.

use std::process::{Child, ExitStatus, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use fulgurite_torch::process;

use super::LaunchPlan;
use super::failure::Failure;
use super::listener::{Event, Listener, ReceivedSignal};
use super::relay::{Relay, StderrTail, Stream};
use super::store::RunStore;
use crate::FabricError;
use crate::environments::run_token::RunToken;
use crate::signals::Signal;

/// How often the ranks are polled while no SIGCHLD arrives.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Termination signals within this time count as one: many tools signal both a process and its process group.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// How long the other ranks may take, such as to write a checkpoint, after one has shut down on a signal of its own.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for the remaining output of ranks that have exited.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

struct Rank {
    global: usize,
    child: Child,
    ended: Option<ExitStatus>,
    stderr_tail: StderrTail,
    has_terminal: bool,
}

/// The first rank that failed, or else the first that shut down on a signal: it determines the exit code.
struct FirstExit {
    index: usize,
    status: ExitStatus,
}

struct Supervisor<'a> {
    plan: &'a LaunchPlan,
    listener: Listener,
    relay: Relay,
    run_store: RunStore,
    ranks: Vec<Rank>,
    /// The first termination signal, and when it was received.
    requested: Option<(Signal, Instant)>,
    first_exit: Option<FirstExit>,
    /// The exit code of another node where a rank failed.
    remote_code: Option<i32>,
    /// One rank has failed or shut down, and the others are being terminated.
    is_stopping: bool,
    /// The repeated termination signal on which the ranks were killed without waiting.
    killed_by: Option<Signal>,
    /// When the remaining ranks are killed.
    deadline: Option<Instant>,
}

pub(super) fn supervise(plan: &LaunchPlan) -> Result<i32, FabricError> {
    // Before any rank is started, so that no signal is missed.
    let listener = Listener::start()?;
    let run_store = RunStore::open(plan, listener.sender())?;
    let mut supervisor = Supervisor {
        plan,
        listener,
        relay: Relay::new(),
        run_store,
        ranks: Vec::new(),
        requested: None,
        first_exit: None,
        remote_code: None,
        is_stopping: false,
        killed_by: None,
        deadline: None,
    };
    if let Some(code) = supervisor.wait_for_peers() {
        return Ok(code);
    }
    let token = supervisor.run_store.token.clone();
    let token = token.ok_or_else(|| FabricError::launch("the first node did not publish the token of the run"))?;
    for local_rank in 0..plan.local_ranks {
        if let Err(error) = supervisor.start(local_rank, &token) {
            supervisor.kill();
            return Err(FabricError::launch(format!("rank {}: {error}", plan.global_rank(local_rank))));
        }
    }
    Ok(supervisor.watch())
}

impl Supervisor<'_> {
    /// Waits for the connection to the other supervisors: ranks that started earlier would miss failures on other nodes.
    /// Returns the exit code if there is nothing to start.
    fn wait_for_peers(&mut self) -> Option<i32> {
        let _peers = self.run_store.peers.as_ref()?;
        loop {
            match self.listener.next(POLL_INTERVAL) {
                Some(Event::Connected(token)) => {
                    self.run_store.token = Some(token);
                    return None;
                }
                Some(Event::RemoteFailure(failure)) => {
                    self.relay.report(&failure.message);
                    return Some(failure.code);
                }
                Some(Event::Signal(received)) if received.requests_termination() => {
                    return Some(received.signal.exit_status());
                }
                Some(Event::Signal(_) | Event::Child) | None => {}
            }
        }
    }

    fn start(&mut self, local_rank: usize, token: &RunToken) -> std::io::Result<()> {
        let global = self.plan.global_rank(local_rank);
        let has_terminal = local_rank == 0;
        let mut command = self.plan.command(local_rank, self.run_store.port(), token);
        if !has_terminal {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        process::end_with_parent(&mut command);
        let mut child = command.spawn()?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let stderr_tail = StderrTail::default();
        // From now on its `Drop` cleans it up, whatever else fails.
        self.ranks.push(Rank {
            global,
            child,
            ended: None,
            stderr_tail: StderrTail::clone(&stderr_tail),
            has_terminal,
        });
        if let Some(output) = output {
            self.relay.forward(output, global, Stream::Output, &stderr_tail)?;
        }
        if let Some(errors) = errors {
            self.relay.forward(errors, global, Stream::Error, &stderr_tail)?;
        }
        Ok(())
    }

    fn watch(mut self) -> i32 {
        loop {
            self.reap();
            if self.ranks.iter().all(|rank| rank.ended.is_some()) {
                return self.finish();
            }
            let timeout = self
                .deadline
                .map_or(POLL_INTERVAL, |at| at.saturating_duration_since(Instant::now()).min(POLL_INTERVAL));
            match self.listener.next(timeout) {
                Some(Event::Signal(received)) => self.handle_signal(received),
                Some(Event::RemoteFailure(failure)) => self.handle_remote_failure(&failure),
                Some(Event::Child | Event::Connected(_)) | None => {}
            }
            if self.deadline.is_some_and(|at| at <= Instant::now()) {
                self.deadline = None;
                let slow = self.ranks.iter().filter(|rank| rank.ended.is_none()).map(|rank| rank.global.to_string());
                let slow = slow.collect::<Vec<_>>().join(", ");
                self.relay.report(&format!("rank {slow} did not exit in time; killing it"));
                self.kill();
            }
        }
    }

    fn handle_signal(&mut self, received: ReceivedSignal) {
        let ReceivedSignal { signal, sent_to_all } = received;
        if received.requests_termination() {
            match self.requested {
                None => self.requested = Some((signal, Instant::now())),
                Some((_, at)) if at.elapsed() < DEBOUNCE => {}
                Some(_) => {
                    self.relay.report(&format!("{signal} was received again; killing the ranks"));
                    self.killed_by = Some(signal);
                    return self.kill();
                }
            }
        }
        if !sent_to_all {
            self.send(signal);
        }
    }

    /// Collects the exit statuses of the ranks that have exited since the last call.
    fn reap(&mut self) {
        let mut ended: Vec<(usize, ExitStatus)> = Vec::new();
        for (index, rank) in self.ranks.iter_mut().enumerate().filter(|(_, rank)| rank.ended.is_none()) {
            if let Ok(Some(status)) = rank.child.try_wait() {
                rank.ended = Some(status);
                ended.push((index, status));
            }
        }
        // Of several that exited together, a killed one is more likely the cause of the others' errors than vice versa.
        ended.sort_by_key(|(_, status)| signal_of(*status).is_none());
        for (index, status) in ended {
            self.run_store.publish_exit(self.ranks[index].global, &describe(status));
            if !status.success() {
                self.handle_exit(index, status);
            }
        }
    }

    /// Decides what one rank's exit means for the others.
    fn handle_exit(&mut self, index: usize, status: ExitStatus) {
        let takes_precedence =
            |first_exit: &FirstExit| shutdown_signal(first_exit.status).is_some() && self.is_failure(status);
        if self.first_exit.as_ref().is_none_or(|first_exit| !self.is_stopping && takes_precedence(first_exit)) {
            self.first_exit = Some(FirstExit { index, status });
        }
        let left = shutdown_signal(status);
        let timeout = match (left, self.requested) {
            // All ranks were asked to terminate, and may take the time they need.
            (Some(_), Some(_)) => return,
            (Some(_), None) => SHUTDOWN_TIMEOUT,
            (None, _) => self.plan.grace,
        };
        if self.is_stopping || self.killed_by.is_some() {
            return;
        }
        self.is_stopping = true;
        let others = self.ranks.iter().filter(|rank| rank.ended.is_none()).count();
        if self.is_failure(status) {
            let rank = &self.ranks[index];
            let consequence = match others {
                0 => String::new(),
                1 => "; terminating the other rank on this node".to_owned(),
                n => format!("; terminating the other {n} ranks on this node"),
            };
            let message = format!("rank {} (process {}) {}", rank.global, rank.child.id(), describe(status));
            self.relay.report(&format!("{message}{consequence}"));
            self.run_store.publish_failure(format!("{message} on node {}", self.plan.node_rank), exit_code(status));
        }
        self.deadline = Some(Instant::now() + timeout);
        self.send(left.unwrap_or(Signal::Terminate));
    }

    /// A rank of another node has failed, which ends the run.
    fn handle_remote_failure(&mut self, failure: &Failure) {
        if self.is_stopping || self.killed_by.is_some() || self.first_exit.is_some() {
            return;
        }
        self.relay.report(&format!("{}; terminating the ranks on this node", failure.message));
        self.remote_code = Some(failure.code);
        self.is_stopping = true;
        self.deadline = Some(Instant::now() + self.plan.grace);
        self.send(Signal::Terminate);
    }

    /// Whether the exit is a failure rather than a requested shutdown.
    fn is_failure(&self, status: ExitStatus) -> bool {
        let requested = self.requested.map(|(signal, _)| signal.number());
        shutdown_signal(status).is_none() && (requested.is_none() || signal_of(status) != requested)
    }

    fn finish(mut self) -> i32 {
        self.relay.finish(OUTPUT_TIMEOUT);
        self.leave();
        if let Some(code) = self.remote_code {
            return code;
        }
        if let Some(signal) = self.killed_by {
            return signal.exit_status();
        }
        let Some(FirstExit { index, status }) = self.first_exit else { return 0 };
        let rank = &self.ranks[index];
        let tail = rank.stderr_tail.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_failure(status) && !rank.has_terminal && !tail.is_empty() {
            let lines: Vec<&str> = tail.iter().map(String::as_str).collect();
            self.relay.report(&format!("last lines of standard error of rank {}:\n{}", rank.global, lines.join("\n")));
        }
        exit_code(status)
    }

    /// Reports to the other nodes that this one is done, and keeps the store open until they are.
    fn leave(&mut self) {
        let Some(peers) = self.run_store.peers.as_ref().filter(|_| self.killed_by.is_none()) else { return };
        peers.publish_done();
        let (began, timeout) = (Instant::now(), peers.leave_timeout);
        while self.run_store.peers.as_ref().is_some_and(|peers| !peers.are_done()) && began.elapsed() < timeout {
            match self.listener.next(POLL_INTERVAL) {
                // On a termination signal, other machines are not waited for.
                Some(Event::Signal(received)) if received.requests_termination() => return,
                Some(Event::RemoteFailure(failure)) => self.handle_remote_failure(&failure),
                _ => {}
            }
        }
    }

    fn send(&self, signal: Signal) {
        for rank in self.ranks.iter().filter(|rank| rank.ended.is_none()) {
            // It may have exited by now, which the next poll detects.
            _ = process::send_signal(&rank.child, signal.number());
        }
    }

    fn kill(&mut self) {
        for rank in self.ranks.iter_mut().filter(|rank| rank.ended.is_none()) {
            _ = rank.child.kill();
        }
    }
}

/// Kills and reaps the rank if the supervisor returns early, so that neither an orphan nor a zombie is left.
impl Drop for Rank {
    fn drop(&mut self) {
        if self.ended.is_none() {
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal_of(_: ExitStatus) -> Option<i32> {
    None
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| signal_of(status).map(|signal| 128 + signal)).unwrap_or(1)
}

/// The signal on which a process shut down by itself, according to its exit code.
fn shutdown_signal(status: ExitStatus) -> Option<Signal> {
    let code = status.code()?;
    Signal::ALL.into_iter().find(|signal| signal.exit_status() == code)
}

fn describe(status: ExitStatus) -> String {
    let Some(signal) = signal_of(status) else {
        return status.code().map_or("exited".to_owned(), |code| format!("exited with code {code}"));
    };
    match name(signal) {
        "SIGKILL" => "was killed by SIGKILL (sent by another process, or by the kernel when memory ran out)".to_owned(),
        "" => format!("was killed by signal {signal}"),
        name => format!("was killed by {name}"),
    }
}

fn name(signal: i32) -> &'static str {
    use signal_hook::consts::*;
    match signal {
        SIGKILL => "SIGKILL",
        SIGSEGV => "SIGSEGV",
        SIGABRT => "SIGABRT",
        SIGBUS => "SIGBUS",
        SIGILL => "SIGILL",
        SIGFPE => "SIGFPE",
        SIGTERM => "SIGTERM",
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        SIGUSR1 => "SIGUSR1",
        SIGUSR2 => "SIGUSR2",
        _ => "",
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn exit_statuses_are_described() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        let killed = ExitStatus::from_raw;
        assert_eq!((describe(exited(3)).as_str(), exit_code(exited(3))), ("exited with code 3", 3));
        assert_eq!((describe(killed(11)).as_str(), exit_code(killed(11))), ("was killed by SIGSEGV", 139));
        assert_eq!((describe(killed(40)).as_str(), exit_code(killed(40))), ("was killed by signal 40", 168));
        assert_eq!(shutdown_signal(exited(143)), Some(Signal::Terminate));
        assert_eq!(shutdown_signal(exited(138)), Some(Signal::User1));
        assert_eq!(shutdown_signal(exited(1)), None);
        assert_eq!(shutdown_signal(killed(15)), None);
    }
}
