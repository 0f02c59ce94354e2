//! Programs that are started, sent signals and waited for.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use super::program::WORD;

/// A program that runs.
pub(crate) struct Running {
    pub child: Child,
    output: BufReader<ChildStdout>,
    errors: JoinHandle<String>,
    /// Lines that were read while something was waited for.
    lines: Vec<String>,
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Sorted: ranks speak at the same time.
    pub lines: Vec<String>,
    pub errors: String,
    pub code: Option<i32>,
}

/// The program with these words for arguments, and these variables.
pub(crate) fn command(words: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(WORD).args(words.split(' ')).envs(variables.iter().copied());
    command
}

pub(crate) fn start(mut command: Command) -> Running {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        errors.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    Running { child, output, errors, lines: Vec::new() }
}

pub(crate) fn run(words: &str, variables: &[(&str, &str)]) -> Ended {
    start(command(words, variables)).end()
}

impl Running {
    /// The process ids of so many ranks that sleep, by rank.
    pub(crate) fn sleepers(&mut self, count: usize) -> Vec<u32> {
        let mut found: Vec<(usize, u32)> = Vec::new();
        while found.len() < count {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended after {:?}", self.lines);
            let line = line.trim_end();
            let unmarked = line.rsplit_once("] ").map_or(line, |(_, rest)| rest);
            let words: Vec<&str> = unmarked.split(' ').collect();
            if let [rank, "sleeps", "as", id] = words[..] {
                found.push((rank.trim_end_matches(':').parse().unwrap(), id.parse().unwrap()));
            } else {
                self.lines.push(line.to_owned());
            }
        }
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Waits until it answers signals itself.
    pub(crate) fn listens(&self) {
        // SIGCHLD is the last that it asks for.
        let handles_sigchld = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() >> (17 - 1) & 1 == 1
        };
        while !handles_sigchld() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub(crate) fn send(&self, signal: &str) {
        send(signal, &self.child.id().to_string());
    }

    pub(crate) fn end(mut self) -> Ended {
        self.lines.extend(self.output.lines().map(|line| line.unwrap()));
        self.lines.sort();
        let status = self.child.wait().unwrap();
        let errors = self.errors.join().unwrap();
        Ended { lines: self.lines, errors, code: status.code().or_else(|| status.signal().map(|signal| -signal)) }
    }
}

pub(crate) fn send(signal: &str, to: &str) {
    assert!(Command::new("kill").args([&format!("-{signal}"), "--", to]).status().unwrap().success());
}

/// Whether a process runs, as opposed to being over and not yet waited for.
pub(crate) fn runs(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

impl Ended {
    #[track_caller]
    pub(crate) fn with_code(&self, code: i32) -> &Ended {
        assert_eq!(self.code, Some(code), "{:#?}\n{}", self.lines, self.errors);
        self
    }

    #[track_caller]
    pub(crate) fn said(&self, lines: &[&str]) -> &Ended {
        assert_eq!(self.lines, lines, "{}", self.errors);
        self
    }

    #[track_caller]
    pub(crate) fn complained(&self, words: &str) -> &Ended {
        assert!(self.errors.contains(words), "{words:?} is not in:\n{}\n{:#?}", self.errors, self.lines);
        self
    }

    #[track_caller]
    pub(crate) fn did_not_complain(&self) -> &Ended {
        assert_eq!(self.errors, "", "{:#?}", self.lines);
        self
    }
}
