//! The store where the ranks find each other, in the supervisor of the first node.

use std::sync::mpsc::Sender;

use fulgurite_torch::distributed::{Store, TcpStoreOptions};

use super::LaunchPlan;
use super::listener::Event;
use super::peers::{Failure, Peers};
use crate::FabricError;
use crate::environments::rendezvous::ended_key;

/// The store, and the supervisors of other nodes, if there are any.
pub(super) struct Meeting {
    port: u16,
    /// On the first node.
    store: Option<Store>,
    pub peers: Option<Peers>,
}

impl Meeting {
    /// Hosts the store, on a free port if none is given. On other nodes it is the first one's.
    pub(super) fn open(plan: &LaunchPlan, events: Sender<Event>) -> Result<Meeting, FabricError> {
        let (port, store) = match plan.main_port {
            Some(port) if plan.node_rank > 0 => (port, None),
            asked => {
                let store = Store::tcp(TcpStoreOptions {
                    port: asked.unwrap_or(0),
                    is_server: true,
                    wait_for_workers: false,
                    ..TcpStoreOptions::default()
                })?;
                let port = store.port().ok_or_else(|| FabricError::launch("the store does not say its port"))?;
                (port, Some(store))
            }
        };
        let peers = if plan.num_nodes > 1 {
            let peers = Peers::meet(plan, store.as_ref(), port, events);
            Some(peers.map_err(|error| FabricError::launch(error.to_string()))?)
        } else {
            None
        };
        Ok(Meeting { port, store, peers })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Lets ranks that wait for another one know that it will not come.
    pub(super) fn note_end(&self, rank: usize, how: &str) {
        match (&self.peers, &self.store) {
            (Some(peers), _) => peers.note_end(rank, how),
            (None, Some(store)) => _ = store.set(&ended_key(rank), how.as_bytes()),
            (None, None) => {}
        }
    }

    /// Lets the other nodes know that the run is over.
    pub(super) fn note_failure(&self, message: String, code: i32) {
        if let Some(peers) = &self.peers {
            peers.note_failure(Failure { message, code });
        }
    }
}
