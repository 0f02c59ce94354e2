//! Forwards the output of ranks line by line.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fulgurite_torch::printable;

/// Longer lines are forwarded in pieces.
const MAX_LINE_LENGTH: usize = 64 * 1024;
/// How many lines of standard error are repeated for a rank that failed.
const STDERR_TAIL_LINES: usize = 12;

/// The stream that a line is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

/// The last lines that a rank wrote to its standard error.
pub(super) type StderrTail = Arc<Mutex<VecDeque<String>>>;

/// Forwards lines, one at a time.
pub(super) struct Relay {
    /// Locked while a line is written.
    output_lock: Arc<Mutex<()>>,
    /// Each forwarding thread holds a clone, and drops it when it finishes.
    alive: Option<Sender<()>>,
    finished: Receiver<()>,
}

impl Relay {
    pub(super) fn new() -> Relay {
        let (alive, finished) = channel();
        Relay { output_lock: Arc::default(), alive: Some(alive), finished }
    }

    /// Forwards the lines of `pipe`, each prefixed with `[rank N] `.
    pub(super) fn forward(
        &self,
        pipe: impl Read + Send + 'static,
        rank: usize,
        stream: Stream,
        stderr_tail: &StderrTail,
    ) -> io::Result<()> {
        let (output_lock, alive, stderr_tail) =
            (Arc::clone(&self.output_lock), self.alive.clone(), Arc::clone(stderr_tail));
        let forward = move || {
            let _alive = alive;
            for_each_line(pipe, |line| {
                let line = &*String::from_utf8_lossy(line);
                if stream == Stream::Error {
                    let mut tail = stderr_tail.lock().unwrap_or_else(PoisonError::into_inner);
                    if tail.len() == STDERR_TAIL_LINES {
                        tail.pop_front();
                    }
                    tail.push_back(line.to_owned());
                }
                write_line(&output_lock, stream, &format!("[rank {rank}] {line}"));
            });
        };
        thread::Builder::new().name(format!("relay-{rank}")).spawn(forward).map(|_| ())
    }

    /// Writes a line of the supervisor itself.
    pub(super) fn report(&self, line: &str) {
        write_line(&self.output_lock, Stream::Error, line);
    }

    /// Waits until all output is forwarded, but not longer than `timeout`: an orphan of a rank may keep its pipes open
    /// indefinitely.
    pub(super) fn finish(&mut self, timeout: Duration) {
        self.alive = None;
        _ = self.finished.recv_timeout(timeout);
    }
}

/// The number of bytes without an incomplete UTF-8 character at the end.
fn complete_characters(bytes: &[u8]) -> usize {
    let length = bytes.len();
    let is_leading_byte = |back: &usize| bytes[length - back] & 0b1100_0000 == 0b1100_0000;
    match (1..=3.min(length)).find(is_leading_byte) {
        Some(back) if std::str::from_utf8(&bytes[length - back..]).is_err_and(|error| error.error_len().is_none()) => {
            length - back
        }
        _ => length,
    }
}

/// Calls `forward` with every line, without its line ending; also with an unterminated last line.
fn for_each_line(mut pipe: impl Read, mut forward: impl FnMut(&[u8])) {
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
            forward(pending.strip_suffix(b"\r").unwrap_or(&pending));
            pending.clear();
            rest = &rest[end + 1..];
        }
        pending.extend_from_slice(rest);
        if pending.len() >= MAX_LINE_LENGTH {
            let complete = complete_characters(&pending);
            forward(&pending[..complete]);
            pending.drain(..complete);
        }
    }
    if !pending.is_empty() {
        forward(&pending);
    }
}

/// Writes a line in a single call, with control characters escaped. Errors are ignored: the ranks continue even if the
/// reader of the output has closed it.
fn write_line(output_lock: &Mutex<()>, stream: Stream, line: &str) {
    let _guard = output_lock.lock().unwrap_or_else(PoisonError::into_inner);
    let is_terminal = match stream {
        Stream::Output => io::stdout().is_terminal(),
        Stream::Error => io::stderr().is_terminal(),
    };
    // The line overwrites the progress bar of rank 0, which is redrawn below it.
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
        let long = "x".repeat(MAX_LINE_LENGTH + 10_000);
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
