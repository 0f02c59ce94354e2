//! What processes that are not of the run can do to it, and what of the run they see.

use std::time::Duration;

use fulgurite_fabric::environments::{ClusterEnvironment, RUN_TOKEN};
use fulgurite_torch::distributed::{Store, TcpStoreOptions};

use super::meeting::{free_port, nodes};
use super::process::{command, run, start};

/// Ends the run with code 0 if it is believed, and clears the screen if it is printed.
const LIE: &[u8] = br#"{"message":"\u001b[2Jlies","code":0}"#;

/// The ranks' part: `outsiders KEY…` sets keys of the store as a process does that knows only the port, and then stays
/// for longer than supervisors take to notice something. Rank 0 waits for rank 1, whose node has read the token by then.
pub(crate) fn set_from_outside(environment: &dyn ClusterEnvironment, keys: &[&str]) {
    let (host, port) = (environment.main_address().to_owned(), environment.main_port().unwrap());
    let store = Store::tcp(TcpStoreOptions { host, port, wait_for_workers: false, ..Default::default() }).unwrap();
    if environment.global_rank() == 0 {
        store.wait(&["started"], Duration::from_secs(60)).unwrap();
        keys.iter().for_each(|key| store.set(key, LIE).unwrap());
    } else {
        store.set("started", b"").unwrap();
    }
    std::thread::sleep(Duration::from_millis(2500));
}

/// The addresses at which a process listens at a port, as the kernel writes them.
pub(crate) fn listeners(port: u16) -> Vec<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let listens = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, at) = words.get(1)?.rsplit_once(':')?;
        (words.get(3) == Some(&"0A") && u16::from_str_radix(at, 16) == Ok(port)).then(|| address.to_owned())
    };
    tables.iter().flat_map(|table| table.lines()).filter_map(listens).collect()
}

pub(crate) fn the_store_of_one_node_is_of_this_machine_alone() {
    // 127.0.0.1.
    run("2 1 listeners", &[]).with_code(0).said(&["0: [\"0100007F\"]", "[rank 1] 1: [\"0100007F\"]"]);
    let named = [("MASTER_PORT", &*free_port()), ("MASTER_ADDR", "a.name.of.this.machine")];
    run("2 1 listeners", &named).with_code(0).said(&["0: [\"0100007F\"]", "[rank 1] 1: [\"0100007F\"]"]);
}

pub(crate) fn messages_from_outside_the_run_are_ignored() {
    let keys = "fulgurite/failed fulgurite/ended/1 fulgurite/node/0/done fulgurite/node/1/done fulgurite/token";
    for ended in nodes::<2>(&format!("1 2 outsiders {keys}")).map(super::process::Running::end) {
        ended.with_code(0).did_not_complain();
    }
    run(&format!("2 1 outsiders {keys}"), &[]).with_code(0).did_not_complain();
}

pub(crate) fn the_token_is_in_the_environment_alone() {
    let ended = run("2 1 token", &[]);
    ended.with_code(0).said(&["0: a token of 64, in no argument", "[rank 1] 1: a token of 64, in no argument"]);
    // One that is given is the one that is used.
    let given = [(RUN_TOKEN, "a text that cannot be guessed")];
    run("2 1 token", &given)
        .with_code(0)
        .said(&["0: a token of 29, in no argument", "[rank 1] 1: a token of 29, in no argument"]);
    run("2 1 token", &[(RUN_TOKEN, "short")]).with_code(1).complained("FULGURITE_RUN_TOKEN has 5 characters");
}

pub(crate) fn nodes_with_different_tokens() {
    let [one, two] = ["one text that cannot be guessed", "two texts that cannot be guessed"];
    for (first, second, problem) in [
        (one, one, ""),
        (one, two, "the first node has a different FULGURITE_RUN_TOKEN"),
        (one, "", "FULGURITE_RUN_TOKEN is set on the first node, but not on this node"),
        ("", two, "FULGURITE_RUN_TOKEN is set on this node, but not on the first node"),
    ] {
        let port = free_port();
        let node = |rank: &str, token: &str| {
            let variables =
                [("NODE_RANK", rank), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &*port), (RUN_TOKEN, token)];
            start(command("1 2 meet timeout=10", &variables))
        };
        let first = node("0", first);
        let second = node("1", second).end();
        if problem.is_empty() {
            second.with_code(0);
            first.end().with_code(0);
        } else {
            second.with_code(1).complained(problem).complained("to the same text on all nodes, or on none");
            first.send("KILL");
            first.end();
        }
    }
}

/// What a rank prints is not obeyed by the terminal that its line is passed on to.
pub(crate) fn lines_of_ranks_are_escaped() {
    let escaped = "\\u{1b}[2J\\u{1b}]0;title\\u{7}\\rline";
    let ended = run("2 1 escapes", &[]);
    ended
        .with_code(3)
        .complained(&format!("[rank 1] error {escaped}\n"))
        .complained(&format!("error of rank 1:\nerror {escaped}\n"));
    assert!(ended.lines.contains(&format!("[rank 1] 1: {escaped}")), "{:?}", ended.lines);
    assert!(!ended.errors.contains('\u{1b}'), "{}", ended.errors);
}
