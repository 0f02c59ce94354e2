//! Rendezvous of threads.

use std::thread::{self, JoinHandle};

use super::*;
use crate::environments::Place;

#[derive(Debug)]
struct Agent(Place);

impl ClusterEnvironment for Agent {
    fn name(&self) -> &'static str {
        "a test"
    }

    fn place(&self) -> &Place {
        &self.0
    }

    fn uses_agent_store(&self) -> bool {
        true
    }
}

/// A store as an agent hosts it.
fn agent() -> Store {
    Store::tcp(TcpStoreOptions { port: 0, is_server: true, wait_for_workers: false, ..Default::default() }).unwrap()
}

fn environment(agent: &Store, rank: usize, size: usize) -> Agent {
    Agent(Place {
        main_port: agent.port(),
        world_size: size,
        global_rank: rank,
        local_rank: rank,
        ..Place::single_process()
    })
}

/// Joins as one rank, and returns the `note` of the store, which rank 0 sets.
fn rank(agent: &Store, rank: usize, size: usize, fact: &str, timeout: f64) -> JoinHandle<String> {
    let (environment, fact) = (environment(agent, rank, size), fact.to_owned());
    thread::spawn(move || {
        let timeout = Duration::from_secs_f64(timeout);
        match join(&environment, &[("fact", &fact)], timeout, None) {
            Ok(store) => {
                if rank == 0 {
                    store.set("note", fact.as_bytes()).unwrap();
                }
                String::from_utf8(store.get("note").unwrap()).unwrap()
            }
            Err(error) => format!("error: {error}"),
        }
    })
}

fn outcomes(ranks: impl IntoIterator<Item = JoinHandle<String>>) -> Vec<String> {
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}

#[test]
fn all_ranks_join_repeatedly() {
    let agent = agent();
    for attempt in ["first", "second", "third"] {
        let ranks: Vec<_> = (0..4).map(|n| rank(&agent, n, 4, attempt, 60.0)).collect();
        assert_eq!(outcomes(ranks), [attempt; 4]);
    }
    assert_eq!(outcomes([rank(&agent, 0, 1, "alone", 60.0)]), ["alone"]);
}

/// In an earlier attempt, rank 1 joined and rank 2 asked; the answers to them are not accepted in this attempt.
#[test]
fn keys_of_an_earlier_attempt_are_ignored() {
    let agent = agent();
    let earlier = [rank(&agent, 0, 3, "a", 0.5), rank(&agent, 1, 3, "a", 0.5)];
    assert!(outcomes(earlier).iter().all(|outcome| outcome.contains("rank 2 of 3 did not connect")));
    agent.set(&ask_key(2), b"an old nonce").unwrap();
    agent.set(&answer_key("an old nonce"), b"an old namespace").unwrap();
    // The other ranks start first, and must wait for the rank 0 of this attempt.
    let others = [rank(&agent, 1, 3, "b", 60.0), rank(&agent, 2, 3, "b", 60.0)];
    thread::sleep(Duration::from_millis(100));
    let first = rank(&agent, 0, 3, "b", 60.0);
    assert_eq!(outcomes(others), ["b"; 2]);
    assert_eq!(outcomes([first]), ["b"]);
}

#[test]
fn missing_ranks_are_named() {
    let agent = agent();
    let port = agent.port().unwrap();
    let ranks = [rank(&agent, 0, 5, "", 0.5), rank(&agent, 3, 5, "", 60.0)];
    for outcome in outcomes(ranks) {
        let named = format!("error: ranks 1, 2, 4 of 5 did not connect to 127.0.0.1:{port} within ");
        assert!(outcome.starts_with(&named), "{outcome}");
        assert!(outcome.ends_with("; were they started, and can they reach that address?"), "{outcome}");
    }
    let [outcome] = &outcomes([rank(&agent, 1, 2, "", 0.5)])[..] else { panic!() };
    assert!(outcome.starts_with("error: rank 0 of 2 did not connect to"), "{outcome}");
}

/// The launcher reports that they have exited, so no rank waits for a minute; reports of other processes are ignored.
#[test]
fn only_the_launcher_reports_exited_ranks() {
    let (agent, token) = (agent(), RunToken::random().unwrap());
    let namespace = agent.prefixed(&token.namespace()).unwrap();
    let lead = |timeout| {
        let first = environment(&agent, 0, 3);
        join(&first, &[], Duration::from_secs_f64(timeout), Some(token.clone())).unwrap_err().to_string()
    };
    let key = ended_key(2);
    let other = RunToken::random().unwrap().sign(&key, b"is gone");
    for (store, value) in [(&agent, &b"is gone"[..]), (&namespace, b"is gone"), (&namespace, &other), (&agent, &other)]
    {
        store.set(&key, value).unwrap();
    }
    let outcome = lead(0.5);
    assert!(outcome.starts_with("ranks 1, 2 of 3 did not connect to"), "{outcome}");
    namespace.set(&ended_key(1), &token.sign(&ended_key(1), b"exited with code 0")).unwrap();
    let outcome = lead(60.0);
    assert!(outcome.starts_with("ranks 1 (which exited with code 0), 2 of 3 did not connect to"), "{outcome}");
}

/// Another program at the port accepts the connection and does not respond.
#[test]
fn a_silent_server_does_not_block() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let place =
        Place { main_port: Some(port), world_size: 2, global_rank: 1, local_rank: 1, ..Place::single_process() };
    let began = Instant::now();
    let error = join(&Agent(place), &[], Duration::from_secs(1), None).unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(30), "{error} after {:?}", began.elapsed());
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[test]
fn differences_are_named() {
    let agent = agent();
    let ranks = [rank(&agent, 0, 3, "a", 60.0), rank(&agent, 1, 3, "a", 60.0), rank(&agent, 2, 3, "b", 60.0)];
    for outcome in outcomes(ranks) {
        assert!(outcome.contains(") and rank 2 (process "), "{outcome}");
        assert!(
            outcome.contains(" do not belong to the same run: they differ in fact (a and b); start the same"),
            "{outcome}"
        );
    }
    let ranks = [rank(&agent, 0, 2, "a", 60.0), rank(&agent, 1, 3, "a", 60.0)];
    for outcome in outcomes(ranks) {
        assert!(outcome.contains("they differ in number of ranks (2 and 3)"), "{outcome}");
    }
}

#[test]
fn two_with_the_same_rank() {
    let agent = agent();
    let first = rank(&agent, 0, 3, "", 60.0);
    // One process that joins as rank 1, and then another.
    agent.set(&ask_key(1), b"a nonce").unwrap();
    let name = String::from_utf8(agent.get(&answer_key("a nonce")).unwrap()).unwrap();
    let namespace = agent.prefixed(&format!("fulgurite/run/{name}")).unwrap();
    namespace.add(&count_key(1), 1).unwrap();
    let others = [rank(&agent, 1, 3, "", 60.0), rank(&agent, 2, 3, "", 60.0)];
    for outcome in outcomes(others).into_iter().chain(outcomes([first])) {
        assert!(outcome.contains("two processes have rank 1"), "{outcome}");
    }
}
