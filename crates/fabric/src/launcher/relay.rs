//! What ranks print, passed on line by line.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fulgurite_torch::printable;

/// Longer lines are passed on in pieces.
const LONGEST_LINE: usize = 64 * 1024;
/// Of a rank that died.
const LAST_WORDS: usize = 12;

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

/// The last lines that a rank wrote to its standard error.
pub(super) type LastWords = Arc<Mutex<VecDeque<String>>>;

/// Passes lines on, one at a time.
pub(super) struct Relay {
    /// Held while a line is written.
    turn: Arc<Mutex<()>>,
    /// Dropped by each thread at its end.
    alive: Option<Sender<()>>,
    ended: Receiver<()>,
}

impl Relay {
    pub(super) fn new() -> Relay {
        let (alive, ended) = channel();
        Relay { turn: Arc::default(), alive: Some(alive), ended }
    }

    /// Passes on what comes out of `pipe`, each line after `[rank N] `.
    pub(super) fn follow(
        &self,
        pipe: impl Read + Send + 'static,
        rank: usize,
        stream: Stream,
        last_words: &LastWords,
    ) -> io::Result<()> {
        let (turn, alive, last_words) = (Arc::clone(&self.turn), self.alive.clone(), Arc::clone(last_words));
        let pass_on = move || {
            let _alive = alive;
            for_each_line(pipe, |line| {
                let line = &*String::from_utf8_lossy(line);
                if stream == Stream::Error {
                    let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
                    if words.len() == LAST_WORDS {
                        words.pop_front();
                    }
                    words.push_back(line.to_owned());
                }
                write_line(&turn, stream, &format!("[rank {rank}] {line}"));
            });
        };
        thread::Builder::new().name(format!("relay-{rank}")).spawn(pass_on).map(|_| ())
    }

    /// A line of the supervisor's own.
    pub(super) fn say(&self, line: &str) {
        write_line(&self.turn, Stream::Error, line);
    }

    /// Waits until all is passed on. A process that a rank has left behind may hold its pipes for ever, so not for longer
    /// than `patience`.
    pub(super) fn finish(&mut self, patience: Duration) {
        self.alive = None;
        _ = self.ended.recv_timeout(patience);
    }
}

/// The bytes before a character at the end of which the rest has not come yet.
fn whole_characters(bytes: &[u8]) -> usize {
    let length = bytes.len();
    let begins = |back: &usize| bytes[length - back] & 0b1100_0000 == 0b1100_0000;
    match (1..=3.min(length)).find(begins) {
        Some(back) if std::str::from_utf8(&bytes[length - back..]).is_err_and(|error| error.error_len().is_none()) => {
            length - back
        }
        _ => length,
    }
}

/// Calls `pass_on` with every line, without its end; with an unfinished last one, too.
fn for_each_line(mut pipe: impl Read, mut pass_on: impl FnMut(&[u8])) {
    let mut pending: Vec<u8> = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let length = match pipe.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let mut rest = &chunk[..length];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            pending.extend_from_slice(&rest[..end]);
            pass_on(pending.strip_suffix(b"\r").unwrap_or(&pending));
            pending.clear();
            rest = &rest[end + 1..];
        }
        pending.extend_from_slice(rest);
        if pending.len() >= LONGEST_LINE {
            let whole = whole_characters(&pending);
            pass_on(&pending[..whole]);
            pending.drain(..whole);
        }
    }
    if !pending.is_empty() {
        pass_on(&pending);
    }
}

/// A whole line in one call, escaped where a terminal would obey it. Nobody may be reading any more, and the ranks work
/// on all the same.
fn write_line(turn: &Mutex<()>, stream: Stream, line: &str) {
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let is_terminal = match stream {
        Stream::Output => io::stdout().is_terminal(),
        Stream::Error => io::stderr().is_terminal(),
    };
    // Where rank 0 draws a bar, the line takes its place; it is drawn again below.
    let clear = if is_terminal { "\r\x1b[2K" } else { "" };
    let whole = format!("{clear}{}\n", printable(line));
    _ = match stream {
        Stream::Output => {
            let mut out = io::stdout().lock();
            out.write_all(whole.as_bytes()).and_then(|()| out.flush())
        }
        Stream::Error => io::stderr().lock().write_all(whole.as_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for_each_line(text, |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        lines
    }

    #[test]
    fn lines_are_whole() {
        assert_eq!(lines(b"one\ntwo\r\n\nfour"), ["one", "two", "", "four"]);
        assert_eq!(lines(b"\xff\n"), ["\u{fffd}"]);
        assert!(lines(b"").is_empty());
        let long = "x".repeat(LONGEST_LINE + 10_000);
        let pieces = lines(format!("{long}\nend\n").as_bytes());
        assert_eq!(pieces.last().map(String::as_str), Some("end"));
        assert_eq!(pieces[..pieces.len() - 1].concat(), long);
        assert!(pieces.len() > 2);
        // No piece ends within a character.
        let long = format!("x{}", "é€😀".repeat(20_000));
        let pieces = lines(long.as_bytes());
        assert!(pieces.len() > 2);
        assert_eq!(pieces.concat(), long);
    }
}
