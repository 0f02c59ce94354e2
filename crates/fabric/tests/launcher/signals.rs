//! Signals to the supervisor.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::process::{command, runs, send, start};
use super::program::GRACE;

pub(crate) fn sigterm_is_passed_on() {
    for signal in ["TERM", "INT"] {
        // The grace time is for failures.
        let mut running = start(command("2 1 trap", &[(GRACE, "0")]));
        running.sleepers(2);
        running.send(signal);
        running.end().with_code(143).said(&["0: leaves after 1", "[rank 1] 1: leaves after 1"]).did_not_complain();
    }
}

/// As `timeout`, systemd and `scancel` send it: to every process. It may come twice, and means the same.
pub(crate) fn a_signal_to_the_group() {
    let mut command = command("2 1 trap", &[(GRACE, "0")]);
    command.process_group(0);
    let mut running = start(command);
    running.sleepers(2);
    send("TERM", &format!("-{}", running.child.id()));
    running.send("TERM");
    let ended = running.end();
    ended.with_code(143).did_not_complain();
    assert_eq!(ended.lines.iter().filter(|line| line.contains("leaves after")).count(), 2);
}

/// The terminal sends it to all processes, and the supervisor does not repeat it.
pub(crate) fn ctrl_c_in_a_terminal() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: there is no program `script` that makes a terminal");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command"]);
    // `exec`: a shell that stays in between answers the signal as well, and with its own exit code.
    script.arg(format!("exec '{}' program 2 1 trap", program.display())).arg(&log);
    script.stdin(std::process::Stdio::piped());
    let mut running = start(script);
    running.sleepers(2);
    std::io::Write::write_all(running.child.stdin.as_mut().unwrap(), b"\x03").unwrap();
    let ended = running.end();
    ended.with_code(143);
    for left in ["0: leaves after 1", "1: leaves after 1"] {
        assert!(ended.lines.iter().any(|line| line.trim_end().ends_with(left)), "{:?}", ended.lines);
    }
}

/// The other ranks are not waited for any more.
pub(crate) fn a_second_signal() {
    let mut running = start(command("2 1 trap never never", &[]));
    let ranks = running.sleepers(2);
    running.send("TERM");
    // Far enough apart for two wishes, also where the machine is busy.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(ranks.iter().all(|id| runs(*id)));
    running.send("TERM");
    let ended = running.end();
    ended.with_code(143);
    assert_eq!(ended.errors, "SIGTERM was received again; killing the ranks\n");
    assert!(!ranks.iter().any(|id| runs(*id)));
}

/// The others are not waited for without end.
pub(crate) fn a_rank_that_fails_while_leaving() {
    let mut running = start(command("3 1 trap never 3 twice=143", &[(GRACE, "4")]));
    let ranks = running.sleepers(3);
    running.send("TERM");
    let ended = running.end();
    ended.with_code(3).complained("rank 1 (process").complained("rank 0 did not exit in time");
    assert!(ended.lines.contains(&"[rank 2] 2: leaves after 2".to_owned()), "{:?}", ended.lines);
    assert!(!ranks.iter().any(|id| runs(*id)));
    // A failure says more than those who left before.
    let mut running = start(command("3 1 trap 143 3 143", &[(GRACE, "5")]));
    running.sleepers(3);
    running.send("TERM");
    running.end().with_code(3).complained("rank 1 (process");
}

/// A requested shutdown is not a failure.
pub(crate) fn without_a_handler() {
    let mut running = start(command("2 1 sleep", &[]));
    running.sleepers(2);
    running.send("TERM");
    running.end().with_code(143).did_not_complain();
    let mut running = start(command("2 1 sleep", &[]));
    running.sleepers(2);
    running.send("USR1");
    running.end().with_code(138).complained("was killed by SIGUSR1");
}

/// A program that was started to ignore a signal has ranks that do.
pub(crate) fn nohup() {
    let program = std::env::current_exe().unwrap();
    let mut nohup = Command::new("nohup");
    nohup.arg(program).args(["program", "2", "1", "sleep"]);
    let mut running = start(nohup);
    let ranks = running.sleepers(2);
    running.send("HUP");
    for id in &ranks {
        send("HUP", &id.to_string());
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(ranks.iter().all(|id| runs(*id)));
    running.send("TERM");
    running.end().with_code(143);
}
