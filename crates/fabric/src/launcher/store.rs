//! The store where the ranks find each other, in the supervisor of the first node.

use std::sync::mpsc::Sender;

use fulgurite_torch::distributed::{Store, TcpStoreOptions};

use super::LaunchPlan;
use super::failure::Failure;
use super::listener::Event;
use super::peers::{Host, Peers};
use crate::FabricError;
use crate::environments::rendezvous::ended_key;
use crate::environments::run_token::RunToken;

/// The store, and the supervisors of other nodes, if there are any.
pub(super) struct Meeting {
    port: u16,
    /// On the first node.
    store: Option<Store>,
    /// On the first node from the start, on the others once they have met it.
    pub token: Option<RunToken>,
    pub peers: Option<Peers>,
}

impl Meeting {
    /// Hosts the store, on a free port if none is given. On other nodes it is the first one's.
    pub(super) fn open(plan: &LaunchPlan, events: Sender<Event>) -> Result<Meeting, FabricError> {
        let given = RunToken::given()?;
        let (port, store) = match plan.main_port {
            Some(port) if plan.node_rank > 0 => (port, None),
            asked => {
                let store = Store::tcp(TcpStoreOptions {
                    port: asked.unwrap_or(0),
                    is_server: true,
                    loopback: plan.num_nodes == 1,
                    wait_for_workers: false,
                    ..TcpStoreOptions::default()
                })?;
                let port = store.port().ok_or_else(|| FabricError::launch("the store does not say its port"))?;
                (port, Some(store))
            }
        };
        let token = match (&store, &given) {
            (Some(_), None) => Some(RunToken::random()?),
            _ => given.clone(),
        };
        let peers = if plan.num_nodes > 1 {
            let host = match (store.clone(), token.clone()) {
                (Some(store), Some(token)) => Some(Host { store, token, was_given: given.is_some() }),
                _ => None,
            };
            let peers = Peers::meet(plan, host, given, port, events);
            Some(peers.map_err(|error| FabricError::launch(error.to_string()))?)
        } else {
            None
        };
        Ok(Meeting { port, store, token, peers })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Lets ranks that wait for another one know that it will not come.
    pub(super) fn note_end(&self, rank: usize, how: &str) {
        match (&self.peers, &self.store, &self.token) {
            (Some(peers), ..) => peers.note_end(rank, how),
            (None, Some(store), Some(token)) => {
                let key = ended_key(rank);
                // Where the store is gone, so are those who wait.
                _ = store.prefixed(&token.room()).and_then(|room| room.set(&key, &token.seal(&key, how.as_bytes())));
            }
            _ => {}
        }
    }

    /// Lets the other nodes know that the run is over.
    pub(super) fn note_failure(&self, message: String, code: i32) {
        if let Some(peers) = &self.peers {
            peers.note_failure(Failure { message, code });
        }
    }
}
