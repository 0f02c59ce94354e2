//! The rendezvous of the processes of a run, and the check that they belong to the same run.
//!
//! A launcher may keep its store over restarts (`torchrun` does), so nothing that lies there can be trusted to be of this
//! attempt. Rank 0 begins a meeting under a name of its own; every other rank asks for it with a word that nobody has used
//! before, and goes by no other answer.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fulgurite_torch::distributed::{Store, TcpStoreOptions};
use serde::{Deserialize, Serialize};

use super::port_file::PortFile;
use super::run_token::RunToken;
use super::{ClusterEnvironment, identity};
use crate::FabricError;

/// How often rank 0 looks who has come.
const PERIOD: Duration = Duration::from_millis(20);
/// How long the others wait for rank 0's word after their own time is over.
const MARGIN: Duration = Duration::from_secs(5);
/// How long a rank 0 that hosts the store stays after a meeting that failed, for the others to hear why.
const FAREWELL: Duration = Duration::from_secs(2);

/// Of what a launcher says of a rank's end, in characters.
const LONGEST_END: usize = 200;

/// Under which a launcher notes how a rank has ended, signed with the run's token.
pub(crate) fn ended_key(rank: usize) -> String {
    format!("fulgurite/ended/{rank}")
}

/// Connects to the store of the run, waits until all ranks have joined, and checks that they belong to the same run.
///
/// What is compared, beside the program's file, this library's version and the number of ranks, are `facts`: names and
/// values that must be the same on every rank, such as `("configuration", hash)`. The store that is returned is of this
/// attempt alone, also where the launcher keeps one over restarts.
///
/// # Errors
///
/// Fails if the port is in use, if no store answers at the address, if ranks do not join within `timeout` (the error
/// names them), or if the ranks differ (the error names what). All ranks that joined get the same error.
pub fn rendezvous(
    environment: &dyn ClusterEnvironment,
    facts: &[(&str, &str)],
    timeout: Duration,
) -> Result<Store, FabricError> {
    meet(environment, facts, timeout, RunToken::given()?)
}

fn meet(
    environment: &dyn ClusterEnvironment,
    facts: &[(&str, &str)],
    timeout: Duration,
    token: Option<RunToken>,
) -> Result<Store, FabricError> {
    let began = Instant::now();
    let route = Route::of(environment);
    let (size, address) = (route.world_size, route.address());
    let card = Card::of(environment, facts);
    let (sender, met) = mpsc::channel();
    // A store that takes connections and then says nothing would hold this process for ever.
    let errand = move || _ = sender.send(route.meet(card, began, timeout, token));
    thread::Builder::new()
        .name("fulgurite-rendezvous".into())
        .spawn(errand)
        .map_err(|error| FabricError::environment(format!("no thread can be started: {error}")))?;
    met.recv_timeout(timeout.saturating_add(MARGIN * 2)).unwrap_or_else(|_| {
        Err(FabricError::MissingRanks { missing: vec![(0, None)], world_size: size, address, waited: began.elapsed() })
    })
}

/// How a rank finds the store.
struct Route {
    rank: usize,
    world_size: usize,
    is_host: bool,
    host: String,
    port: Option<u16>,
    run_id: Option<String>,
    /// Whether all ranks are on this machine, and one of them hosts the store.
    is_local: bool,
}

struct Connection {
    store: Store,
    address: String,
    _port_file: Option<PortFile>,
}

impl Route {
    fn of(environment: &dyn ClusterEnvironment) -> Route {
        let place = environment.place();
        let (rank, world_size) = (environment.global_rank(), environment.world_size());
        let on_this_node = place.local_world_size.is_some_and(|told| told.count == world_size);
        let is_only_node = place.num_nodes.is_some_and(|told| told.count == 1) || on_this_node;
        // A port that is agreed on through a file is one of this machine.
        let is_local = !environment.uses_agent_store() && (is_only_node || environment.main_port().is_none());
        Route {
            rank,
            world_size,
            is_host: rank == 0 && !environment.uses_agent_store(),
            host: if is_local { "127.0.0.1".to_owned() } else { environment.main_address().to_owned() },
            port: environment.main_port(),
            run_id: environment.run_id(),
            is_local,
        }
    }

    fn address(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    fn meet(
        self,
        card: Card,
        began: Instant,
        timeout: Duration,
        token: Option<RunToken>,
    ) -> Result<Store, FabricError> {
        let connection = self.connect(timeout)?;
        let store = match &token {
            Some(token) => connection.store.prefixed(&token.room())?,
            None => connection.store,
        };
        let address = connection.address;
        let meeting = Meeting { store, address, rank: self.rank, size: self.world_size, began, timeout, card, token };
        if self.rank == 0 { meeting.lead(self.is_host) } else { meeting.follow() }
    }

    fn connect(&self, timeout: Duration) -> Result<Connection, FabricError> {
        let options = |port, timeout| TcpStoreOptions {
            host: self.host.clone(),
            port,
            is_server: self.is_host,
            loopback: self.is_local,
            timeout,
            wait_for_workers: false,
            ..TcpStoreOptions::default()
        };
        let address = |port: u16| format!("{}:{port}", self.host);
        if let Some(port) = self.port {
            let store = Store::tcp(options(port, timeout))?;
            return Ok(Connection { store, address: address(port), _port_file: None });
        }
        let run_id = self.run_id.as_ref().ok_or_else(|| {
            FabricError::environment("the processes of the run cannot agree on a port; set MASTER_PORT for all of them")
        })?;
        let file = PortFile::new(run_id);
        if self.is_host {
            let store = Store::tcp(options(0, timeout))?;
            let port = store.port().unwrap_or_default();
            file.write(port)?;
            return Ok(Connection { store, address: address(port), _port_file: Some(file) });
        }
        let began = Instant::now();
        let Some(port) = file.read(timeout) else {
            return Err(FabricError::MissingRanks {
                missing: vec![(0, None)],
                world_size: self.world_size,
                address: file.path().display().to_string(),
                waited: began.elapsed(),
            });
        };
        let store = Store::tcp(options(port, timeout.saturating_sub(began.elapsed())))?;
        Ok(Connection { store, address: address(port), _port_file: None })
    }
}

/// Who a rank is, as the others see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Card {
    host: String,
    process: u32,
    facts: Vec<(String, String)>,
}

impl Card {
    fn of(environment: &dyn ClusterEnvironment, facts: &[(&str, &str)]) -> Card {
        let mut all = vec![
            ("number of ranks".to_owned(), environment.world_size().to_string()),
            ("version of Fulgurite".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ];
        all.extend(identity::program().map(|program| ("program".to_owned(), program)));
        all.extend(facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Card {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            process: std::process::id(),
            facts: all,
        }
    }

    /// What differs from another rank's, in words.
    fn differences(&self, other: &Card) -> Vec<String> {
        let value = |card: &Card, name: &str| {
            card.facts.iter().find(|(n, _)| n == name).map_or("nothing".to_owned(), |(_, value)| value.clone())
        };
        let mut names: Vec<&String> = self.facts.iter().chain(&other.facts).map(|(name, _)| name).collect();
        names.dedup();
        let mut seen: Vec<&str> = Vec::new();
        let mut differences = Vec::new();
        for name in names {
            if !seen.contains(&name.as_str()) && value(self, name) != value(other, name) {
                differences.push(format!("{name} ({} and {})", value(self, name), value(other, name)));
            }
            seen.push(name);
        }
        differences
    }
}

/// What rank 0 says of a meeting.
#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    Complete,
    Missing(Vec<(usize, Option<String>)>),
    Differ(String),
}

struct Meeting {
    store: Store,
    address: String,
    rank: usize,
    size: usize,
    began: Instant,
    timeout: Duration,
    card: Card,
    /// What the launcher signs its notes with, if there is one.
    token: Option<RunToken>,
}

impl Meeting {
    /// Rank 0: answers everybody who asks, until all are there.
    fn lead(self, is_host: bool) -> Result<Store, FabricError> {
        let name = identity::fresh_word();
        let room = self.room(&name)?;
        self.announce(&room)?;
        let mut answered = vec![String::new(); self.size];
        let mut absent: Vec<usize> = (1..self.size).collect();
        let mut looked_for_ended = Instant::now();
        let verdict = loop {
            for (rank, answered) in answered.iter_mut().enumerate().skip(1) {
                self.answer(rank, &name, answered)?;
            }
            absent = self.still_absent(&room, &absent)?;
            if absent.is_empty() {
                break self.compare(&room)?;
            }
            let is_late = self.began.elapsed() > self.timeout;
            if is_late || looked_for_ended.elapsed() > PERIOD * 25 {
                looked_for_ended = Instant::now();
                let missing = self.with_their_ends(&absent)?;
                if is_late || missing.iter().any(|(_, ended)| ended.is_some()) {
                    break Verdict::Missing(missing);
                }
            }
            thread::sleep(PERIOD);
        };
        room.set("verdict", &serde_json::to_vec(&verdict).unwrap_or_default())?;
        let failed = !matches!(verdict, Verdict::Complete);
        if failed && is_host {
            let heard: Vec<String> = (1..self.size).filter(|rank| !absent.contains(rank)).map(heard_key).collect();
            let heard: Vec<&str> = heard.iter().map(String::as_str).collect();
            if !heard.is_empty() {
                _ = room.wait(&heard, FAREWELL);
            }
        }
        self.conclude(verdict, room)
    }

    /// Tells a rank that asks under which name the meeting is.
    fn answer(&self, rank: usize, name: &str, answered: &mut String) -> Result<(), FabricError> {
        let key = ask_key(rank);
        if self.store.check(&[&key])? {
            let word = String::from_utf8_lossy(&self.store.get(&key)?).into_owned();
            if word != *answered {
                self.store.set(&answer_key(&word), name.as_bytes())?;
                *answered = word;
            }
        }
        Ok(())
    }

    fn still_absent(&self, room: &Store, ranks: &[usize]) -> Result<Vec<usize>, FabricError> {
        let mut absent = Vec::new();
        for &rank in ranks {
            if !room.check(&[&arrived_key(rank)])? {
                absent.push(rank);
            }
        }
        Ok(absent)
    }

    fn with_their_ends(&self, ranks: &[usize]) -> Result<Vec<(usize, Option<String>)>, FabricError> {
        ranks.iter().map(|rank| Ok((*rank, self.end_of(*rank)?))).collect()
    }

    /// How a rank has ended, if the launcher says so.
    fn end_of(&self, rank: usize) -> Result<Option<String>, FabricError> {
        let (Some(token), key) = (&self.token, ended_key(rank)) else { return Ok(None) };
        if !self.store.check(&[&key])? {
            return Ok(None);
        }
        let noted = self.store.get(&key)?;
        let how = token.open(&key, &noted).map(String::from_utf8_lossy);
        Ok(how.map(|how| how.chars().take(LONGEST_END).collect()))
    }

    /// Compares what the ranks say of themselves with what rank 0 is.
    fn compare(&self, room: &Store) -> Result<Verdict, FabricError> {
        for rank in 1..self.size {
            if room.add(&count_key(rank), 0)? > 1 {
                return Ok(Verdict::Differ(format!(
                    "two processes say that they are rank {rank}; give every process a RANK of its own"
                )));
            }
            let Ok(card) = serde_json::from_slice::<Card>(&room.get(&arrived_key(rank))?) else {
                return Ok(Verdict::Differ(format!("rank {rank} is not a process of this version of Fulgurite")));
            };
            let differences = self.card.differences(&card);
            if !differences.is_empty() {
                return Ok(Verdict::Differ(format!(
                    "rank 0 (process {} on {}) and rank {rank} (process {} on {}) are not of one run: they differ in {}; \
                     start the same program in the same way everywhere",
                    self.card.process,
                    self.card.host,
                    card.process,
                    card.host,
                    differences.join(", ")
                )));
            }
        }
        Ok(Verdict::Complete)
    }

    /// Every other rank: asks, comes, and waits for what rank 0 says.
    fn follow(self) -> Result<Store, FabricError> {
        let word = identity::fresh_word();
        self.store.set(&ask_key(self.rank), word.as_bytes())?;
        let answer = answer_key(&word);
        loop {
            let left = self.timeout.saturating_sub(self.began.elapsed());
            if self.store.wait(&[&answer], left.min(Duration::from_secs(1))).is_ok() {
                break;
            }
            let missing = self.with_their_ends(&[0])?;
            if left.is_zero() || missing[0].1.is_some() {
                return self.conclude(Verdict::Missing(missing), self.store.clone());
            }
        }
        let room = self.room(&String::from_utf8_lossy(&self.store.get(&answer)?))?;
        self.announce(&room)?;
        let left = self.timeout.saturating_sub(self.began.elapsed()) + MARGIN;
        room.wait(&["verdict"], left)?;
        let verdict = serde_json::from_slice(&room.get("verdict")?);
        room.set(&heard_key(self.rank), b"")?;
        let verdict =
            verdict.unwrap_or_else(|error| Verdict::Differ(format!("rank 0 is of another version ({error})")));
        self.conclude(verdict, room)
    }

    fn announce(&self, room: &Store) -> Result<(), FabricError> {
        room.add(&count_key(self.rank), 1)?;
        Ok(room.set(&arrived_key(self.rank), &serde_json::to_vec(&self.card).unwrap_or_default())?)
    }

    fn room(&self, name: &str) -> Result<Store, FabricError> {
        Ok(self.store.prefixed(&format!("fulgurite/run/{name}"))?)
    }

    fn conclude(&self, verdict: Verdict, room: Store) -> Result<Store, FabricError> {
        match verdict {
            Verdict::Complete => Ok(room),
            Verdict::Missing(missing) => Err(FabricError::MissingRanks {
                missing,
                world_size: self.size,
                address: self.address.clone(),
                waited: self.began.elapsed(),
            }),
            Verdict::Differ(message) => Err(FabricError::RanksDiffer { message }),
        }
    }
}

fn ask_key(rank: usize) -> String {
    format!("fulgurite/ask/{rank}")
}

fn answer_key(word: &str) -> String {
    format!("fulgurite/answer/{word}")
}

fn arrived_key(rank: usize) -> String {
    format!("rank/{rank}/arrived")
}

fn count_key(rank: usize) -> String {
    format!("rank/{rank}/count")
}

fn heard_key(rank: usize) -> String {
    format!("rank/{rank}/heard")
}

#[cfg(test)]
#[path = "rendezvous_tests.rs"]
mod tests;
