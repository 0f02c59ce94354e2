//! Ranks that find each other, or do not.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::process::{Ended, Running, command, run, start};
use super::program::FACT;

/// A port that is free at the moment, and that no connection is given for its own end: the system takes those from
/// 32768 on.
pub(crate) fn free_port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16 % 10_000;
    let mut ports = (0..).map(|_| 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    ports.find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).unwrap().to_string()
}

pub(crate) fn ranks_meet() {
    run("2 1 meet", &[]).with_code(0).said(&["0: met the others", "[rank 1] 1: met the others"]).did_not_complain();
    let ended = run("4 1 meet again", &[]);
    ended.with_code(0).did_not_complain();
    assert_eq!(ended.lines.len(), 8, "{:?}", ended.lines);
}

pub(crate) fn on_a_given_port() {
    run("2 1 meet", &[("MASTER_PORT", &free_port()), ("MASTER_ADDR", "localhost")]).with_code(0);
}

pub(crate) fn a_port_in_use() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let error = format!("port {port} is in use");
    run("2 1 meet", &[("MASTER_PORT", &port)]).with_code(1).said(&[]).complained(&error);
    // Where rank 0 hosts the store.
    by_hand(0, 2, &port, "2 1 meet", &[]).end().with_code(1).complained(&error);
}

pub(crate) fn a_rank_that_ends_before() {
    let ended = run("3 1 meet absent 1", &[]);
    ended.with_code(1).complained("rank 1 (which exited with code 0) of 3 did not connect to 127.0.0.1:");
}

pub(crate) fn a_rank_that_never_comes() {
    let ended = run("3 1 meet late 2 timeout=5", &[]);
    ended.with_code(1).complained("rank 2 of 3 did not connect to 127.0.0.1:").complained("was it started");
}

pub(crate) fn ranks_that_differ() {
    let ended = run("2 1 meet", &[(FACT, "rank")]);
    ended.with_code(1).complained("do not belong to the same run: they differ in fact (0 and 1)");
}

/// A process that is started by hand as a rank.
fn by_hand(rank: usize, size: usize, port: &str, words: &str, variables: &[(&str, &str)]) -> Running {
    start(as_rank(command(words, variables), rank, size, port))
}

fn as_rank(mut command: Command, rank: usize, size: usize, port: &str) -> Command {
    let (rank, size) = (rank.to_string(), size.to_string());
    let variables = [("RANK", &rank), ("LOCAL_RANK", &rank), ("WORLD_SIZE", &size), ("LOCAL_WORLD_SIZE", &size)];
    command.envs(variables).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port);
    command
}

pub(crate) fn started_by_somebody_else() {
    let port = free_port();
    // Rank 0 hosts the store, and comes last.
    let mut ranks: Vec<Running> = (1..3).map(|rank| by_hand(rank, 3, &port, "3 1 meet", &[])).collect();
    ranks.insert(0, by_hand(0, 3, &port, "3 1 meet", &[]));
    for (rank, running) in ranks.into_iter().enumerate() {
        running.end().with_code(0).said(&[&format!("{rank}: met the others")]);
    }
    by_hand(0, 2, &port, "3 1 meet", &[])
        .end()
        .with_code(1)
        .complained("devices=3 was requested, but the launcher that set LOCAL_RANK specifies 2 (LOCAL_WORLD_SIZE)");
}

pub(crate) fn two_programs() {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    std::fs::copy(std::env::current_exe().unwrap(), &other).unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::OpenOptions::new().append(true).open(&other).unwrap().write_all(b"more").unwrap();
    let both = |variables: &[(&str, &str)]| -> Vec<Ended> {
        let mut second = Command::new(&other);
        second.args(["program", "2", "1", "meet"]).envs(variables.iter().copied());
        let ranks = [by_hand(0, 2, &port, "2 1 meet", variables), start(as_rank(second, 1, 2, &port))];
        ranks.into_iter().map(Running::end).collect()
    };
    for ended in both(&[]) {
        ended.with_code(1).complained("do not belong to the same run: they differ in program (");
    }
    for ended in both(&[("FULGURITE_SKIP_PROGRAM_CHECK", "1")]) {
        ended.with_code(0);
    }
}

pub(crate) fn no_process_at_the_address() {
    let ended = by_hand(1, 2, &free_port(), "2 1 meet timeout=1", &[]).end();
    ended.with_code(1).complained("127.0.0.1");
}

/// Nodes on this machine, the first one last.
pub(crate) fn nodes<const N: usize>(words: &str) -> [Running; N] {
    let port = free_port();
    let node = |rank: usize| {
        let rank = rank.to_string();
        start(command(words, &[("NODE_RANK", &rank), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)]))
    };
    let mut nodes: [Running; N] = std::array::from_fn(|index| node(N - 1 - index));
    nodes.reverse();
    nodes
}

/// The second node's ranks are clients of the first one's supervisor.
pub(crate) fn two_nodes() {
    let [first, second] = nodes("2 2 meet").map(Running::end);
    first.with_code(0).said(&["0: met the others", "[rank 1] 1: met the others"]).did_not_complain();
    second.with_code(0).said(&["2: met the others", "[rank 3] 3: met the others"]).did_not_complain();
}

pub(crate) fn a_rank_dies_on_another_node() {
    for (rank, node) in [(3, 1), (0, 0)] {
        let ended: [Ended; 2] = nodes(&format!("2 2 fail {rank} 7")).map(Running::end);
        ended[node].with_code(7).complained(&format!("rank {rank} (process "));
        let elsewhere = format!(") exited with code 7 on node {node}; terminating the ranks on this node");
        ended[1 - node].with_code(7).complained(&elsewhere);
    }
}

pub(crate) fn the_first_node_is_gone() {
    let [mut first, mut second] = nodes("1 2 meet sleep");
    first.sleepers(1);
    second.sleepers(1);
    first.send("KILL");
    assert_eq!(first.end().code, Some(-9));
    second
        .end()
        .with_code(1)
        .complained("the connection to the launcher of the first node was lost; terminating the ranks on this node");
}

/// Its ranks are not started before the first node is there.
pub(crate) fn a_node_that_waits() {
    let variables = [("NODE_RANK", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &free_port())];
    let waiting = start(command("1 2 sleep", &variables));
    waiting.listens();
    waiting.send("USR1");
    std::thread::sleep(Duration::from_millis(300));
    waiting.send("TERM");
    waiting.end().with_code(143).said(&[]).did_not_complain();
}

/// Real `mpirun`, which says nothing of a port.
pub(crate) fn mpirun() {
    if Command::new("mpirun").arg("--version").output().is_err() {
        println!("skipped: there is no `mpirun` here (Debian: openmpi-bin)");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let mpirun = |words: &[&str]| {
        let mut command = Command::new("mpirun");
        // Containers are root's, and may have fewer processors.
        command.args(["--allow-run-as-root", "--oversubscribe", "-n", "2"]).arg(&program).arg("program").args(words);
        start(command).end()
    };
    mpirun(&["2", "1", "meet", "again"]).with_code(0).said(&[
        "0: met the others",
        "0: met the others",
        "1: met the others",
        "1: met the others",
    ]);
    let ended = mpirun(&["3", "1", "meet"]);
    assert_ne!(ended.code, Some(0));
    ended.complained("devices=3 was requested, but MPI specifies 2 (OMPI_COMM_WORLD_LOCAL_SIZE)");
    let ended = mpirun(&["2", "1", "meet", "late", "1", "timeout=5"]);
    assert_ne!(ended.code, Some(0));
    ended.complained("rank 1 of 2 did not connect to 127.0.0.1:");
}
