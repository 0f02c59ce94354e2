//! The store for the rendezvous of the ranks, hosted by the supervisor of the first node.

use std::sync::mpsc::Sender;

use fulgurite_torch::distributed::{Store, TcpStoreOptions};

use super::LaunchPlan;
use super::failure::Failure;
use super::listener::Event;
use super::peers::{Host, Peers};
use crate::FabricError;
use crate::environments::rendezvous::ended_key;
use crate::environments::run_token::RunToken;

/// The store, and the connection to the supervisors of other nodes, if there are any.
pub(super) struct RunStore {
    port: u16,
    /// On the first node.
    store: Option<Store>,
    /// On the first node from the start, on the others once they are connected to it.
    pub token: Option<RunToken>,
    pub peers: Option<Peers>,
}

impl RunStore {
    /// Hosts the store, on a free port if none is given. Other nodes use the store of the first one.
    pub(super) fn open(plan: &LaunchPlan, events: Sender<Event>) -> Result<RunStore, FabricError> {
        let given = RunToken::given()?;
        let (port, store) = match plan.main_port {
            Some(port) if plan.node_rank > 0 => (port, None),
            requested => {
                let store = Store::tcp(TcpStoreOptions {
                    port: requested.unwrap_or(0),
                    is_server: true,
                    loopback: plan.num_nodes == 1,
                    wait_for_workers: false,
                    ..TcpStoreOptions::default()
                })?;
                let port = store.port().ok_or_else(|| FabricError::launch("the store does not report its port"))?;
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
            let peers = Peers::connect(plan, host, given, port, events);
            Some(peers.map_err(|error| FabricError::launch(error.to_string()))?)
        } else {
            None
        };
        Ok(RunStore { port, store, token, peers })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Publishes the exit of a rank, so that ranks that wait for it at the rendezvous stop waiting.
    pub(super) fn publish_exit(&self, rank: usize, how: &str) {
        match (&self.peers, &self.store, &self.token) {
            (Some(peers), ..) => peers.publish_exit(rank, how),
            (None, Some(store), Some(token)) => {
                let key = ended_key(rank);
                // If the store no longer exists, no rank waits either.
                let signed = token.sign(&key, how.as_bytes());
                _ = store.prefixed(&token.namespace()).and_then(|run| run.set(&key, &signed));
            }
            _ => {}
        }
    }

    /// Reports to the other nodes that the run has failed.
    pub(super) fn publish_failure(&self, message: String, code: i32) {
        if let Some(peers) = &self.peers {
            peers.publish_failure(Failure { message, code });
        }
    }
}
