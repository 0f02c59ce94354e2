//! The processes, and what they leave.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Whether this process is the program that is searched.
pub(crate) const IS_PROGRAM: &str = "FULGURITE_SWEEP_PROGRAM";

pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(args).current_dir(folder).env(IS_PROGRAM, "1").env("OMP_NUM_THREADS", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A sweep over `space`.
pub(crate) fn sweep(folder: &Path, space: &str, args: &[&str]) -> Command {
    let mut command = command(folder, &["sweep", "--sweep.space", space]);
    command.args(args);
    command
}

pub(crate) struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub errors: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn says(&self, code: i32, parts: &[&str]) -> &Ended {
        let all = format!("{}{}", self.out, self.errors);
        assert_eq!(self.code, Some(code), "{all}");
        for part in parts {
            assert!(all.contains(part), "no {part:?} in:\n{all}");
        }
        self
    }
}

pub(crate) fn run(mut command: Command) -> Ended {
    end(command.spawn().unwrap())
}

pub(crate) fn end(mut child: Child) -> Ended {
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text).unwrap()
    });
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let code = child.wait().unwrap().code();
    Ended { code, out, errors: errors.join().unwrap() }
}

pub(crate) fn send(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_within(Duration::from_secs(30), what, is_so);
}

#[track_caller]
pub(crate) fn wait_within(time: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < time, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The events of a report.
pub(crate) fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Whether a process of this number runs.
pub(crate) fn lives(pid: u64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
}
