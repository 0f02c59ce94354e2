//! The rendezvous of the processes of a run, and the check that they belong to the same run.
//!
//! A launcher may keep its store over restarts (`torchrun` does), so existing keys may belong to an earlier attempt. Rank 0
//! creates a namespace with a unique name; every other rank asks for that name with a nonce, and accepts only the answer to
//! that nonce.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fulgurite_torch::distributed::{Store, TcpStoreOptions};
use serde::{Deserialize, Serialize};

use super::ClusterEnvironment;
use super::identity::{nonce, program};
use super::port_file::PortFile;
use super::run_token::RunToken;
use crate::FabricError;

/// How often rank 0 checks which ranks have joined.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the others wait for the verdict of rank 0 after their own timeout.
const MARGIN: Duration = Duration::from_secs(5);
/// How long a rank 0 that hosts the store keeps it open after a failed rendezvous, for the others to read why.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum length of the description of how a rank exited, in characters.
const MAX_DESCRIPTION_LENGTH: usize = 200;

/// The key under which a launcher publishes how a rank exited, signed with the token of the run.
pub(crate) fn ended_key(rank: usize) -> String {
    format!("fulgurite/ended/{rank}")
}

/// Connects to the store of the run, waits until all ranks have joined, and checks that they belong to the same run.
///
/// Ranks must have the same executable, the same version of this library, the same number of ranks and the same `facts`:
/// names and values, such as `("configuration", hash)`. The returned store contains only keys of this attempt, even if the
/// launcher keeps its store over restarts.
///
/// # Errors
///
/// Fails if the port is in use, if no store is reachable at the address, if ranks do not join within `timeout` (the error
/// names them), or if the ranks differ (the error names what). All ranks that joined get the same error.
pub fn rendezvous(
    environment: &dyn ClusterEnvironment,
    facts: &[(&str, &str)],
    timeout: Duration,
) -> Result<Store, FabricError> {
    join(environment, facts, timeout, RunToken::given()?)
}

fn join(
    environment: &dyn ClusterEnvironment,
    facts: &[(&str, &str)],
    timeout: Duration,
    token: Option<RunToken>,
) -> Result<Store, FabricError> {
    let began = Instant::now();
    let route = Route::of(environment);
    let (size, address) = (route.world_size, route.address());
    let identity = Identity::of(environment, facts);
    let (sender, joined) = mpsc::channel();
    // On a thread: a store that accepts connections but does not respond would block forever.
    let task = move || _ = sender.send(route.join(identity, began, timeout, token));
    thread::Builder::new()
        .name("fulgurite-rendezvous".into())
        .spawn(task)
        .map_err(|error| FabricError::environment(format!("no thread can be started for the rendezvous: {error}")))?;
    joined.recv_timeout(timeout.saturating_add(MARGIN * 2)).unwrap_or_else(|_| {
        Err(FabricError::MissingRanks { missing: vec![(0, None)], world_size: size, address, waited: began.elapsed() })
    })
}

/// The parameters of the connection of a rank to the store.
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
        let on_this_node = place.local_world_size.is_some_and(|reported| reported.count == world_size);
        let is_only_node = place.num_nodes.is_some_and(|reported| reported.count == 1) || on_this_node;
        // A port agreed on through a file is a port of this machine.
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

    fn join(
        self,
        identity: Identity,
        began: Instant,
        timeout: Duration,
        token: Option<RunToken>,
    ) -> Result<Store, FabricError> {
        let connection = self.connect(timeout)?;
        let store = match &token {
            Some(token) => connection.store.prefixed(&token.namespace())?,
            None => connection.store,
        };
        let address = connection.address;
        let (rank, size) = (self.rank, self.world_size);
        let rendezvous = Rendezvous { store, address, rank, size, began, timeout, identity, token };
        if rank == 0 { rendezvous.lead(self.is_host) } else { rendezvous.follow() }
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

/// The identity of a rank, as it is published to the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Identity {
    host: String,
    process: u32,
    facts: Vec<(String, String)>,
}

impl Identity {
    fn of(environment: &dyn ClusterEnvironment, facts: &[(&str, &str)]) -> Identity {
        let mut all = vec![
            ("number of ranks".to_owned(), environment.world_size().to_string()),
            ("version of Fulgurite".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ];
        all.extend(program().map(|program| ("program".to_owned(), program)));
        all.extend(facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Identity {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            process: std::process::id(),
            facts: all,
        }
    }

    /// Descriptions of the facts that differ from those of another rank.
    fn differences(&self, other: &Identity) -> Vec<String> {
        let value = |identity: &Identity, name: &str| {
            identity.facts.iter().find(|(n, _)| n == name).map_or("nothing".to_owned(), |(_, value)| value.clone())
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

/// The result of a rendezvous, as rank 0 publishes it.
#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    Complete,
    Missing(Vec<(usize, Option<String>)>),
    Differ(String),
}

struct Rendezvous {
    store: Store,
    address: String,
    rank: usize,
    size: usize,
    began: Instant,
    timeout: Duration,
    identity: Identity,
    /// The token with which the launcher signs its messages, if there is one.
    token: Option<RunToken>,
}

impl Rendezvous {
    /// Rank 0: answers the other ranks until all have joined.
    fn lead(self, is_host: bool) -> Result<Store, FabricError> {
        let name = nonce();
        let namespace = self.namespace(&name)?;
        self.announce(&namespace)?;
        let mut answered = vec![String::new(); self.size];
        let mut absent: Vec<usize> = (1..self.size).collect();
        let mut last_exit_check = Instant::now();
        let verdict = loop {
            for (rank, answered) in answered.iter_mut().enumerate().skip(1) {
                self.answer(rank, &name, answered)?;
            }
            absent = self.still_absent(&namespace, &absent)?;
            if absent.is_empty() {
                break self.compare(&namespace)?;
            }
            let is_late = self.began.elapsed() > self.timeout;
            if is_late || last_exit_check.elapsed() > POLL_INTERVAL * 25 {
                last_exit_check = Instant::now();
                let missing = self.with_exits(&absent)?;
                if is_late || missing.iter().any(|(_, ended)| ended.is_some()) {
                    break Verdict::Missing(missing);
                }
            }
            thread::sleep(POLL_INTERVAL);
        };
        namespace.set("verdict", &serde_json::to_vec(&verdict).unwrap_or_default())?;
        let failed = !matches!(verdict, Verdict::Complete);
        if failed && is_host {
            let read: Vec<String> = (1..self.size).filter(|rank| !absent.contains(rank)).map(heard_key).collect();
            let read: Vec<&str> = read.iter().map(String::as_str).collect();
            if !read.is_empty() {
                _ = namespace.wait(&read, FAILURE_TIMEOUT);
            }
        }
        self.conclude(verdict, namespace)
    }

    /// Answers a rank that asks for the name of the namespace.
    fn answer(&self, rank: usize, name: &str, answered: &mut String) -> Result<(), FabricError> {
        let key = ask_key(rank);
        if self.store.check(&[&key])? {
            let nonce = String::from_utf8_lossy(&self.store.get(&key)?).into_owned();
            if nonce != *answered {
                self.store.set(&answer_key(&nonce), name.as_bytes())?;
                *answered = nonce;
            }
        }
        Ok(())
    }

    fn still_absent(&self, namespace: &Store, ranks: &[usize]) -> Result<Vec<usize>, FabricError> {
        let mut absent = Vec::new();
        for &rank in ranks {
            if !namespace.check(&[&arrived_key(rank)])? {
                absent.push(rank);
            }
        }
        Ok(absent)
    }

    fn with_exits(&self, ranks: &[usize]) -> Result<Vec<(usize, Option<String>)>, FabricError> {
        ranks.iter().map(|rank| Ok((*rank, self.exit_of(*rank)?))).collect()
    }

    /// How a rank exited, if the launcher has published it.
    fn exit_of(&self, rank: usize) -> Result<Option<String>, FabricError> {
        let (Some(token), key) = (&self.token, ended_key(rank)) else { return Ok(None) };
        if !self.store.check(&[&key])? {
            return Ok(None);
        }
        let published = self.store.get(&key)?;
        let how = token.verify(&key, &published).map(String::from_utf8_lossy);
        Ok(how.map(|how| how.chars().take(MAX_DESCRIPTION_LENGTH).collect()))
    }

    /// Compares the identities of the other ranks with that of rank 0.
    fn compare(&self, namespace: &Store) -> Result<Verdict, FabricError> {
        for rank in 1..self.size {
            if namespace.add(&count_key(rank), 0)? > 1 {
                return Ok(Verdict::Differ(format!(
                    "two processes have rank {rank}; give every process a RANK of its own"
                )));
            }
            let Ok(identity) = serde_json::from_slice::<Identity>(&namespace.get(&arrived_key(rank))?) else {
                return Ok(Verdict::Differ(format!(
                    "rank {rank} is not a process of this version of Fulgurite; start the same program everywhere"
                )));
            };
            let differences = self.identity.differences(&identity);
            if !differences.is_empty() {
                return Ok(Verdict::Differ(format!(
                    "rank 0 (process {} on {}) and rank {rank} (process {} on {}) do not belong to the same run: they differ in {}; \
                     start the same program in the same way everywhere",
                    self.identity.process,
                    self.identity.host,
                    identity.process,
                    identity.host,
                    differences.join(", ")
                )));
            }
        }
        Ok(Verdict::Complete)
    }

    /// The other ranks: ask for the namespace, join it, and wait for the verdict of rank 0.
    fn follow(self) -> Result<Store, FabricError> {
        let nonce = nonce();
        self.store.set(&ask_key(self.rank), nonce.as_bytes())?;
        let answer = answer_key(&nonce);
        loop {
            let left = self.timeout.saturating_sub(self.began.elapsed());
            if self.store.wait(&[&answer], left.min(Duration::from_secs(1))).is_ok() {
                break;
            }
            let missing = self.with_exits(&[0])?;
            if left.is_zero() || missing[0].1.is_some() {
                return self.conclude(Verdict::Missing(missing), self.store.clone());
            }
        }
        let namespace = self.namespace(&String::from_utf8_lossy(&self.store.get(&answer)?))?;
        self.announce(&namespace)?;
        let left = self.timeout.saturating_sub(self.began.elapsed()) + MARGIN;
        namespace.wait(&["verdict"], left)?;
        let verdict = serde_json::from_slice(&namespace.get("verdict")?);
        namespace.set(&heard_key(self.rank), b"")?;
        let verdict = verdict.unwrap_or_else(|error| {
            Verdict::Differ(format!(
                "rank 0 runs another version of Fulgurite ({error}); start the same program everywhere"
            ))
        });
        self.conclude(verdict, namespace)
    }

    fn announce(&self, namespace: &Store) -> Result<(), FabricError> {
        namespace.add(&count_key(self.rank), 1)?;
        Ok(namespace.set(&arrived_key(self.rank), &serde_json::to_vec(&self.identity).unwrap_or_default())?)
    }

    fn namespace(&self, name: &str) -> Result<Store, FabricError> {
        Ok(self.store.prefixed(&format!("fulgurite/run/{name}"))?)
    }

    fn conclude(&self, verdict: Verdict, namespace: Store) -> Result<Store, FabricError> {
        match verdict {
            Verdict::Complete => Ok(namespace),
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

fn answer_key(nonce: &str) -> String {
    format!("fulgurite/answer/{nonce}")
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
