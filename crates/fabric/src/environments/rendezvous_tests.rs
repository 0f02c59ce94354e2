//! Meetings of threads.

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
    Agent(Place { main_port: agent.port(), world_size: size, global_rank: rank, local_rank: rank, ..Place::alone() })
}

/// Meets as one rank, and tells of the store's `note`, which rank 0 sets.
fn rank(agent: &Store, rank: usize, size: usize, fact: &str, timeout: f64) -> JoinHandle<String> {
    let (environment, fact) = (environment(agent, rank, size), fact.to_owned());
    thread::spawn(move || {
        let timeout = Duration::from_secs_f64(timeout);
        match meet(&environment, &[("fact", &fact)], timeout, None) {
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
fn all_come_again_and_again() {
    let agent = agent();
    for attempt in ["first", "second", "third"] {
        let ranks: Vec<_> = (0..4).map(|n| rank(&agent, n, 4, attempt, 60.0)).collect();
        assert_eq!(outcomes(ranks), [attempt; 4]);
    }
    assert_eq!(outcomes([rank(&agent, 0, 1, "alone", 60.0)]), ["alone"]);
}

/// In the attempt before, rank 1 came, and rank 2 asked; both answers are no answers to those that come now.
#[test]
fn what_an_earlier_attempt_left_is_passed_over() {
    let agent = agent();
    let earlier = [rank(&agent, 0, 3, "a", 0.5), rank(&agent, 1, 3, "a", 0.5)];
    assert!(outcomes(earlier).iter().all(|outcome| outcome.contains("rank 2 of 3 did not connect")));
    agent.set(&ask_key(2), b"an old word").unwrap();
    agent.set(&answer_key("an old word"), b"an old room").unwrap();
    // Those who follow are first, and must wait for a rank 0 of their own.
    let others = [rank(&agent, 1, 3, "b", 60.0), rank(&agent, 2, 3, "b", 60.0)];
    thread::sleep(Duration::from_millis(100));
    let first = rank(&agent, 0, 3, "b", 60.0);
    assert_eq!(outcomes(others), ["b"; 2]);
    assert_eq!(outcomes([first]), ["b"]);
}

#[test]
fn those_who_do_not_come_are_named() {
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

/// The launcher knows that they will not come, so nobody waits for a minute; a stranger who says so is not believed.
#[test]
fn only_the_launcher_says_who_has_ended() {
    let (agent, token) = (agent(), RunToken::random().unwrap());
    let room = agent.prefixed(&token.room()).unwrap();
    let lead = |timeout| {
        let first = environment(&agent, 0, 3);
        meet(&first, &[], Duration::from_secs_f64(timeout), Some(token.clone())).unwrap_err().to_string()
    };
    let key = ended_key(2);
    let other = RunToken::random().unwrap().seal(&key, b"is gone");
    for (store, value) in [(&agent, &b"is gone"[..]), (&room, b"is gone"), (&room, &other), (&agent, &other)] {
        store.set(&key, value).unwrap();
    }
    let outcome = lead(0.5);
    assert!(outcome.starts_with("ranks 1, 2 of 3 did not connect to"), "{outcome}");
    room.set(&ended_key(1), &token.seal(&ended_key(1), b"exited with code 0")).unwrap();
    let outcome = lead(60.0);
    assert!(outcome.starts_with("ranks 1 (which exited with code 0), 2 of 3 did not connect to"), "{outcome}");
}

/// Whoever has the port takes the connection, and says nothing; or answers at first.
#[test]
fn who_says_nothing_holds_nobody() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let place = Place { main_port: Some(port), world_size: 2, global_rank: 1, local_rank: 1, ..Place::alone() };
    let began = Instant::now();
    let error = meet(&Agent(place), &[], Duration::from_secs(1), None).unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(30), "{error} after {:?}", began.elapsed());
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[test]
fn those_who_differ_are_told_in_what() {
    let agent = agent();
    let ranks = [rank(&agent, 0, 3, "a", 60.0), rank(&agent, 1, 3, "a", 60.0), rank(&agent, 2, 3, "b", 60.0)];
    for outcome in outcomes(ranks) {
        assert!(outcome.contains(") and rank 2 (process "), "{outcome}");
        assert!(outcome.contains(" are not of one run: they differ in fact (a and b); start the same"), "{outcome}");
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
    // One that says it is rank 1, and then another.
    agent.set(&ask_key(1), b"a word").unwrap();
    let name = String::from_utf8(agent.get(&answer_key("a word")).unwrap()).unwrap();
    let room = agent.prefixed(&format!("fulgurite/run/{name}")).unwrap();
    room.add(&count_key(1), 1).unwrap();
    let others = [rank(&agent, 1, 3, "", 60.0), rank(&agent, 2, 3, "", 60.0)];
    for outcome in outcomes(others).into_iter().chain(outcomes([first])) {
        assert!(outcome.contains("two processes say that they are rank 1"), "{outcome}");
    }
}
