//! The process that starts the ranks of a machine and watches over them.

use std::process::{Child, ExitStatus, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use fulgurite_torch::process;

use super::LaunchPlan;
use super::failure::Failure;
use super::listener::{Event, Heard, Listener};
use super::relay::{LastWords, Relay, Stream};
use super::store::Meeting;
use crate::FabricError;
use crate::environments::run_token::RunToken;
use crate::signals::Signal;

/// How often ranks are looked at when no signal says that one has ended.
const PERIOD: Duration = Duration::from_millis(200);
/// Signals that come together are one wish: many send them to a process and to its group.
const TOGETHER: Duration = Duration::from_millis(500);
/// How long others may take when one rank has left by itself, such as to write a checkpoint.
const LEAVING: Duration = Duration::from_secs(60);
/// How long output of ranks that have ended is waited for.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

struct Rank {
    global: usize,
    child: Child,
    ended: Option<ExitStatus>,
    last_words: LastWords,
    has_terminal: bool,
}

/// The first rank that failed, or else the first that left because of a signal, and how.
struct Blame {
    index: usize,
    status: ExitStatus,
}

struct Supervisor<'a> {
    plan: &'a LaunchPlan,
    listener: Listener,
    relay: Relay,
    meeting: Meeting,
    ranks: Vec<Rank>,
    /// The end was asked for, and when.
    asked: Option<(Signal, Instant)>,
    blame: Option<Blame>,
    /// What another node ended with, because a rank died there.
    elsewhere: Option<i32>,
    /// Because one rank has ended, the others are to end.
    is_ending: bool,
    /// The signal after which nobody was waited for any more.
    cut_short: Option<Signal>,
    /// When the ranks that are left are killed.
    deadline: Option<Instant>,
}

pub(super) fn supervise(plan: &LaunchPlan) -> Result<i32, FabricError> {
    // Before there are ranks: no signal may be missed.
    let listener = Listener::start()?;
    let meeting = Meeting::open(plan, listener.teller())?;
    let mut supervisor = Supervisor {
        plan,
        listener,
        relay: Relay::new(),
        meeting,
        ranks: Vec::new(),
        asked: None,
        blame: None,
        elsewhere: None,
        is_ending: false,
        cut_short: None,
        deadline: None,
    };
    if let Some(code) = supervisor.meet_the_others() {
        return Ok(code);
    }
    let token = supervisor.meeting.token.clone();
    let token = token.ok_or_else(|| FabricError::launch("the first node did not say the run's token"))?;
    for local_rank in 0..plan.local_ranks {
        if let Err(error) = supervisor.start(local_rank, &token) {
            supervisor.kill();
            return Err(FabricError::launch(format!("rank {}: {error}", plan.global_rank(local_rank))));
        }
    }
    Ok(supervisor.watch())
}

impl Supervisor<'_> {
    /// Ranks that run before their supervisor hears of other nodes would not hear of their end. Returns the code to end
    /// with if there is nothing to start.
    fn meet_the_others(&mut self) -> Option<i32> {
        let _peers = self.meeting.peers.as_ref()?;
        loop {
            match self.listener.next(PERIOD) {
                Some(Event::Met(token)) => {
                    self.meeting.token = Some(token);
                    return None;
                }
                Some(Event::Elsewhere(failure)) => {
                    self.relay.say(&failure.message);
                    return Some(failure.code);
                }
                Some(Event::Signal(heard)) if heard.asks_for_the_end() => return Some(heard.signal.exit_status()),
                Some(Event::Signal(_) | Event::Child) | None => {}
            }
        }
    }

    fn start(&mut self, local_rank: usize, token: &RunToken) -> std::io::Result<()> {
        let global = self.plan.global_rank(local_rank);
        let has_terminal = local_rank == 0;
        let mut command = self.plan.command(local_rank, self.meeting.port(), token);
        if !has_terminal {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        process::end_with_parent(&mut command);
        let mut child = command.spawn()?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let last_words = LastWords::default();
        // From now on it is seen to, whatever else fails.
        self.ranks.push(Rank { global, child, ended: None, last_words: LastWords::clone(&last_words), has_terminal });
        if let Some(output) = output {
            self.relay.follow(output, global, Stream::Output, &last_words)?;
        }
        if let Some(errors) = errors {
            self.relay.follow(errors, global, Stream::Error, &last_words)?;
        }
        Ok(())
    }

    fn watch(mut self) -> i32 {
        loop {
            self.reap();
            if self.ranks.iter().all(|rank| rank.ended.is_some()) {
                return self.finish();
            }
            let patience = self.deadline.map_or(PERIOD, |at| at.saturating_duration_since(Instant::now()).min(PERIOD));
            match self.listener.next(patience) {
                Some(Event::Signal(heard)) => self.answer(heard),
                Some(Event::Elsewhere(failure)) => self.follow_elsewhere(&failure),
                Some(Event::Child | Event::Met(_)) | None => {}
            }
            if self.deadline.is_some_and(|at| at <= Instant::now()) {
                self.deadline = None;
                let slow = self.ranks.iter().filter(|rank| rank.ended.is_none()).map(|rank| rank.global.to_string());
                let slow = slow.collect::<Vec<_>>().join(", ");
                self.relay.say(&format!("rank {slow} did not end in time, and is killed"));
                self.kill();
            }
        }
    }

    fn answer(&mut self, heard: Heard) {
        let Heard { signal, reached_all } = heard;
        if heard.asks_for_the_end() {
            match self.asked {
                None => self.asked = Some((signal, Instant::now())),
                Some((_, at)) if at.elapsed() < TOGETHER => {}
                Some(_) => {
                    self.relay.say(&format!("{signal} came again, and the ranks are killed"));
                    self.cut_short = Some(signal);
                    return self.kill();
                }
            }
        }
        if !reached_all {
            self.send(signal);
        }
    }

    /// Sees which ranks have ended since the last time.
    fn reap(&mut self) {
        let mut ended: Vec<(usize, ExitStatus)> = Vec::new();
        for (index, rank) in self.ranks.iter_mut().enumerate().filter(|(_, rank)| rank.ended.is_none()) {
            if let Ok(Some(status)) = rank.child.try_wait() {
                rank.ended = Some(status);
                ended.push((index, status));
            }
        }
        // Of several that ended together, one that was killed is the cause of the others' errors rather than the reverse.
        ended.sort_by_key(|(_, status)| signal_of(*status).is_none());
        for (index, status) in ended {
            self.meeting.note_end(self.ranks[index].global, &describe(status));
            if !status.success() {
                self.follow_up(index, status);
            }
        }
    }

    /// What one rank's end means for the others.
    fn follow_up(&mut self, index: usize, status: ExitStatus) {
        let is_worse = |blame: &Blame| leaving_signal(blame.status).is_some() && self.is_failure(status);
        if self.blame.as_ref().is_none_or(|blame| !self.is_ending && is_worse(blame)) {
            self.blame = Some(Blame { index, status });
        }
        let left = leaving_signal(status);
        let patience = match (left, self.asked) {
            // All were asked, and take the time they need.
            (Some(_), Some(_)) => return,
            (Some(_), None) => LEAVING,
            (None, _) => self.plan.grace,
        };
        if self.is_ending || self.cut_short.is_some() {
            return;
        }
        self.is_ending = true;
        let others = self.ranks.iter().filter(|rank| rank.ended.is_none()).count();
        if self.is_failure(status) {
            let rank = &self.ranks[index];
            let consequence = match others {
                0 => String::new(),
                1 => "; the other rank here is ended".to_owned(),
                n => format!("; the other {n} ranks here are ended"),
            };
            let message = format!("rank {} (process {}) {}", rank.global, rank.child.id(), describe(status));
            self.relay.say(&format!("{message}{consequence}"));
            self.meeting.note_failure(format!("{message} on node {}", self.plan.node_rank), exit_code(status));
        }
        self.deadline = Some(Instant::now() + patience);
        self.send(left.unwrap_or(Signal::Terminate));
    }

    /// A rank of another node has died, and the run with it.
    fn follow_elsewhere(&mut self, failure: &Failure) {
        if self.is_ending || self.cut_short.is_some() || self.blame.is_some() {
            return;
        }
        self.relay.say(&format!("{}; the ranks here are ended", failure.message));
        self.elsewhere = Some(failure.code);
        self.is_ending = true;
        self.deadline = Some(Instant::now() + self.plan.grace);
        self.send(Signal::Terminate);
    }

    /// Whether the end is one that nobody wanted.
    fn is_failure(&self, status: ExitStatus) -> bool {
        let asked = self.asked.map(|(signal, _)| signal.number());
        leaving_signal(status).is_none() && (asked.is_none() || signal_of(status) != asked)
    }

    fn finish(mut self) -> i32 {
        self.relay.finish(LAST_OUTPUT);
        self.part();
        if let Some(code) = self.elsewhere {
            return code;
        }
        if let Some(signal) = self.cut_short {
            return signal.exit_status();
        }
        let Some(Blame { index, status }) = self.blame else { return 0 };
        let rank = &self.ranks[index];
        let words = rank.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_failure(status) && !rank.has_terminal && !words.is_empty() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.relay.say(&format!("The last words of rank {}:\n{}", rank.global, words.join("\n")));
        }
        exit_code(status)
    }

    /// Says to the other nodes that this one is done, and holds the store until they are.
    fn part(&mut self) {
        let Some(peers) = self.meeting.peers.as_ref().filter(|_| self.cut_short.is_none()) else { return };
        peers.note_done();
        let (began, patience) = (Instant::now(), peers.patience);
        while self.meeting.peers.as_ref().is_some_and(|peers| !peers.have_parted()) && began.elapsed() < patience {
            match self.listener.next(PERIOD) {
                // Whoever wants the end does not wait for other machines.
                Some(Event::Signal(heard)) if heard.asks_for_the_end() => return,
                Some(Event::Elsewhere(failure)) => self.follow_elsewhere(&failure),
                _ => {}
            }
        }
    }

    fn send(&self, signal: Signal) {
        for rank in self.ranks.iter().filter(|rank| rank.ended.is_none()) {
            // It may have ended by now; then it is seen at the next look.
            _ = process::send_signal(&rank.child, signal.number());
        }
    }

    fn kill(&mut self) {
        for rank in self.ranks.iter_mut().filter(|rank| rank.ended.is_none()) {
            _ = rank.child.kill();
        }
    }
}

/// However the supervisor leaves: no rank is left behind, and none stays unwaited for.
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

/// The signal that a process answered by leaving, as its exit code says.
fn leaving_signal(status: ExitStatus) -> Option<Signal> {
    let code = status.code()?;
    Signal::ALL.into_iter().find(|signal| signal.exit_status() == code)
}

fn describe(status: ExitStatus) -> String {
    let Some(signal) = signal_of(status) else {
        return status.code().map_or("ended".to_owned(), |code| format!("exited with code {code}"));
    };
    match name(signal) {
        "SIGKILL" => "was killed by SIGKILL (by somebody, or because memory ran out)".to_owned(),
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
    fn how_a_process_ended() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        let killed = ExitStatus::from_raw;
        assert_eq!((describe(exited(3)).as_str(), exit_code(exited(3))), ("exited with code 3", 3));
        assert_eq!((describe(killed(11)).as_str(), exit_code(killed(11))), ("was killed by SIGSEGV", 139));
        assert_eq!((describe(killed(40)).as_str(), exit_code(killed(40))), ("was killed by signal 40", 168));
        assert_eq!(leaving_signal(exited(143)), Some(Signal::Terminate));
        assert_eq!(leaving_signal(exited(138)), Some(Signal::User1));
        assert_eq!(leaving_signal(exited(1)), None);
        assert_eq!(leaving_signal(killed(15)), None);
    }
}
