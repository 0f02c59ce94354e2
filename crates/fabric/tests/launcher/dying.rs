//! Ranks that die, and a supervisor that does.

use super::process::{Ended, command, run, runs, send, start};
use super::program::GRACE;

/// What the supervisor itself wrote: the lines that are no rank's.
fn report(ended: &Ended) -> Vec<&str> {
    ended.errors.lines().filter(|line| !line.starts_with('[') && !line.starts_with("word ")).collect()
}

pub(crate) fn a_rank_that_fails() {
    for ranks in [2, 4] {
        let ended = run(&format!("{ranks} 1 fail 1 7"), &[]);
        ended.with_code(7);
        let report = report(&ended);
        assert!(report[0].starts_with("rank 1 (process "), "{report:?}");
        let others = if ranks == 2 {
            "terminating the other rank on this node"
        } else {
            "terminating the other 3 ranks on this node"
        };
        assert!(report[0].ends_with(&format!(") exited with code 7; {others}")), "{report:?}");
        assert_eq!(report[1..], ["last lines of standard error of rank 1:"]);
        let words: String = (18..30).map(|n| format!("word {n}\n")).collect();
        assert!(
            ended.errors.ends_with(&format!("last lines of standard error of rank 1:\n{words}")),
            "{}",
            ended.errors
        );
        // And all of them before, as they were said.
        assert!(ended.errors.contains("[rank 1] word 0\n[rank 1] word 1\n"), "{}", ended.errors);
    }
}

pub(crate) fn a_rank_that_is_killed() {
    let mut running = start(command("3 1 sleep", &[]));
    let ranks = running.sleepers(3);
    send("KILL", &ranks[2].to_string());
    let ended = running.end();
    ended.with_code(137).complained(&format!("rank 2 (process {}) was killed by SIGKILL (sent by another", ranks[2]));
    ended.complained("terminating the other 2 ranks on this node");
    assert!(!ranks.iter().any(|id| runs(*id)));
}

pub(crate) fn a_rank_that_aborts() {
    let ended = run("2 1 abort 1", &[]);
    ended.with_code(134).complained("was killed by SIGABRT; terminating the other rank on this node");
}

/// SIGTERM is not enough for them.
pub(crate) fn ranks_that_do_not_end() {
    let mut running = start(command("3 1 trap never never 143", &[(GRACE, "0.3")]));
    let ranks = running.sleepers(3);
    send("KILL", &ranks[2].to_string());
    let ended = running.end();
    ended.with_code(137).complained("rank 2 (process").complained("rank 0, 1 did not exit in time");
    assert!(!ranks.iter().any(|id| runs(*id)));
}

/// Its words are on the terminal already.
pub(crate) fn rank_0_fails() {
    let ended = run("2 1 fail 0 3", &[]);
    ended.with_code(3).complained("\nword 29\n");
    let report = report(&ended);
    assert_eq!(report.len(), 1, "{report:?}");
    assert!(report[0].ends_with("exited with code 3; terminating the other rank on this node"), "{report:?}");
}

/// Its exit code says that it answered a signal: the others have the time to leave as well, longer than the grace time.
pub(crate) fn a_rank_that_leaves_by_itself() {
    let mut running = start(command("3 1 trap", &[(GRACE, "0")]));
    let ranks = running.sleepers(3);
    send("TERM", &ranks[1].to_string());
    let all = ["0: leaves after 1", "[rank 1] 1: leaves after 1", "[rank 2] 2: leaves after 1"];
    running.end().with_code(143).said(&all).did_not_complain();
}

pub(crate) fn the_supervisor_is_killed() {
    let mut running = start(command("3 1 trap never never never", &[]));
    let ranks = running.sleepers(3);
    running.send("KILL");
    assert_eq!(running.end().code, Some(-9));
    while ranks.iter().any(|id| runs(*id)) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
