//! Training over two nodes, which are network namespaces of this machine, and what comes of it when the cable between them
//! is pulled.
//!
//! Each test starts this very program again on both nodes with a [`Plan`], as a user would.

mod network;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::ranks::program::{self, PLAN, Plan, Report};
use fulgurite::fabric::DdpOptions;
use network::{MAIN_ADDRESS, Network};

/// How long anything may take that is expected at all.
const PATIENCE: Duration = Duration::from_secs(120);

/// Not a test of its own: what the processes run that the tests start.
#[test]
fn program() {
    if let Some(Err(error)) = program::run_from_env() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// The network, or `None` where none can be made.
fn network() -> Option<Network> {
    match Network::new() {
        Ok(network) => Some(network),
        Err(reason) => {
            println!("skipped: there are no network namespaces here: {reason}");
            None
        }
    }
}

/// A program that runs; what it says goes to a file.
struct Running {
    child: Child,
    said: PathBuf,
}

fn start(mut command: Command, plan: &Plan, said: PathBuf) -> Running {
    let output = File::create(&said).unwrap();
    let child = command
        .args(["nodes::program", "--exact", "--nocapture", "--test-threads=1"])
        .env(PLAN, serde_json::to_string(plan).unwrap())
        .env("OMP_NUM_THREADS", "1")
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    Running { child, said }
}

/// Starts a plan on both nodes. The port is free on node 0: no other process runs there.
fn start_on(network: &Network, plan: &Plan) -> [Running; 2] {
    [0, 1].map(|node| {
        let mut command = network.command(node, &std::env::current_exe().unwrap());
        command.env("MASTER_ADDR", MAIN_ADDRESS).env("MASTER_PORT", "29500").env("NODE_RANK", node.to_string());
        start(command, plan, plan.folder.join(format!("node{node}.log")))
    })
}

impl Running {
    /// The exit code, and what was said. A program that does not end is a failure.
    fn end(mut self) -> (Option<i32>, String) {
        let status = eventually(|| self.child.try_wait().unwrap());
        let said = std::fs::read_to_string(&self.said).unwrap();
        let Some(status) = status else {
            _ = self.child.kill();
            panic!("it does not end:\n{said}");
        };
        (status.code(), said)
    }

    fn succeed(self) -> String {
        let (code, said) = self.end();
        assert_eq!(code, Some(0), "{said}");
        said
    }
}

/// What there is at last; `None` when the patience is over.
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

fn reports(folder: &Path, ranks: usize) -> Vec<Report> {
    let read = |rank: usize| std::fs::read_to_string(folder.join(format!("rank{rank}.json"))).unwrap();
    (0..ranks).map(|rank| serde_json::from_str(&read(rank)).unwrap()).collect()
}

/// The same ranks on one machine.
fn on_one_node(plan: &Plan) -> Vec<Report> {
    let folder = tempfile::tempdir().unwrap();
    let ranks = plan.devices * usize::try_from(plan.num_nodes).unwrap();
    let plan = Plan { folder: folder.path().into(), devices: ranks, num_nodes: 1, ..plan.clone() };
    start(Command::new(std::env::current_exe().unwrap()), &plan, folder.path().join("log")).succeed();
    reports(folder.path(), ranks)
}

/// The steps after which the checkpoints in a folder were written.
fn saved_steps(folder: &Path) -> Vec<u64> {
    let files = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    let step = |name: &str| name.split_once("step=")?.1.strip_suffix(".ckpt")?.parse().ok();
    files.filter_map(|name| step(&name.to_string_lossy())).collect()
}

fn assert_same(a: &[Report], b: &[Report]) {
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.weights, b.weights);
        assert_eq!((a.steps, a.batches, &a.outcome), (b.steps, b.batches, &b.outcome));
    }
}

#[test]
fn two_nodes_do_what_one_does_with_as_many_ranks() {
    let Some(network) = network() else { return };
    for devices in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan { folder: folder.path().into(), devices, num_nodes: 2, ..Plan::default() };
        _ = start_on(&network, &plan).map(Running::succeed);
        assert_same(&reports(folder.path(), 2 * devices), &on_one_node(&plan));
    }
}

/// A run that takes seconds, and writes checkpoints.
fn long_run(folder: &Path) -> Plan {
    Plan {
        folder: folder.into(),
        devices: 1,
        num_nodes: 2,
        epochs: 40,
        batch_ms: 20,
        dropout: 0.2,
        strategy: DdpOptions::default().timeout(Duration::from_secs(6)).into(),
        save_every: Some(3),
        ..Plan::default()
    }
}

/// Waits until training is under way.
fn see_it_train(plan: &Plan) {
    let saved = || saved_steps(&plan.folder.join("saved"));
    assert!(eventually(|| saved().into_iter().max().filter(|step| *step >= 12)).is_some(), "there is no checkpoint");
}

#[test]
fn a_cable_that_is_soon_plugged_in_again_does_no_harm() {
    let Some(network) = network() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plan = long_run(folder.path());
    let nodes = start_on(&network, &plan);
    see_it_train(&plan);
    network.cut();
    std::thread::sleep(Duration::from_secs(1));
    network.mend();
    _ = nodes.map(Running::succeed);
    assert_same(&reports(folder.path(), 2), &on_one_node(&plan));
}

/// Pulls the cable, and returns what the nodes say at last.
fn cut_off(network: &Network, plan: &Plan) -> [String; 2] {
    let nodes = start_on(network, plan);
    see_it_train(plan);
    network.cut();
    let ended = nodes.map(Running::end);
    for (node, (code, said)) in ended.iter().enumerate() {
        assert_eq!(*code, Some(1), "{said}");
        assert_eq!(network.processes(node), [""; 0]);
    }
    network.mend();
    ended.map(|(_, said)| said)
}

#[track_caller]
fn assert_said(said: &str, words: &[&str]) {
    for words in words {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

#[test]
fn a_node_that_is_cut_off_ends_the_run_and_a_restart_resumes_it() {
    let Some(network) = network() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan { devices: 2, ..long_run(folder.path()) };
    let [first, second] = cut_off(&network, &plan);
    let advice = "start it again on all machines with ckpt_path=\"auto\"";
    let late = "of 4 ranks did not complete within 6s; ";
    assert_said(
        &first,
        &[late, "rank 2 at 10.77.0.2, rank 3 at 10.77.0.2 do not respond: they are gone, unreach", advice],
    );
    let store =
        "the store at 10.77.0.1:29500 does not respond either: that machine is down, or unreachable from this one";
    assert_said(&second, &[late, store, advice]);
    for file in std::fs::read_dir(folder.path().join("saved")).unwrap() {
        let name = file.unwrap().file_name();
        assert!(Path::new(&name).extension().is_some_and(|ending| ending == "ckpt"), "{} is left", name.display());
    }

    let resumed = Plan { ckpt_path: Some("auto".into()), ..plan.clone() };
    let [first, _] = start_on(&network, &resumed).map(Running::succeed);
    assert!(first.contains("resumed from") && !first.contains("damaged"), "{first}");
    assert_same(&reports(folder.path(), 4), &on_one_node(&plan));
}

#[test]
fn a_node_that_is_silent_is_lost_before_a_long_timeout_is_over() {
    let Some(network) = network() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = cut_off(&network, &Plan { strategy: "ddp".into(), ..long_run(folder.path()) });
    assert_said(
        &first,
        &["no heartbeat from node 1 for 30s: it is down or unreachable from this node; terminating the ranks"],
    );
    assert_said(
        &second,
        &["the connection to the launcher of the first node was lost; terminating the ranks on this node"],
    );
}
