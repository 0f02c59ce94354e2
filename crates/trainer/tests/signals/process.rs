//! The processes: what they are told, and what they said.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Tells a child what to do, in words.
pub(crate) const PLAN: &str = "FULGURITE_SIGNALS_PLAN";
/// Where it works.
pub(crate) const FOLDER: &str = "FULGURITE_SIGNALS_FOLDER";

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub lines: Vec<String>,
    pub errors: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

pub(crate) fn start(folder: &Path, plan: &str, variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(PLAN, plan).env(FOLDER, folder).envs(variables.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn end(mut child: Child) -> Ended {
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text).unwrap()
    });
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap()).collect();
    let status = child.wait().unwrap();
    Ended { lines, errors: errors.join().unwrap(), code: status.code(), signal: status.signal() }
}

pub(crate) fn run(folder: &Path, plan: &str, variables: &[(&str, &str)]) -> Ended {
    end(start(folder, plan, variables))
}

/// Waits until a child says something.
pub(crate) fn wait_for(child: &mut Child, text: &str) {
    let mut said = BufReader::new(child.stdout.as_mut().unwrap());
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended without saying {text}");
    }
}

pub(crate) fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

impl Ended {
    #[track_caller]
    pub(crate) fn said(&self, lines: &[&str]) -> &Ended {
        assert_eq!(self.lines, lines, "{}", self.errors);
        self
    }

    #[track_caller]
    pub(crate) fn with_code(&self, code: i32) -> &Ended {
        assert_eq!(self.code, Some(code), "{:?}\n{}", self.lines, self.errors);
        self
    }

    /// The weights and the logged values a finished run ended with.
    #[track_caller]
    pub(crate) fn results(&self) -> &[String] {
        self.with_code(0);
        let at = self.lines.iter().position(|line| line == "results:").unwrap();
        &self.lines[at..]
    }
}
