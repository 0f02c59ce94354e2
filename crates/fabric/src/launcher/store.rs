//! The store where the ranks find each other, in the supervisor of the first node.

use fulgurite_torch::distributed::{Store, TcpStoreOptions};

use super::LaunchPlan;
use crate::FabricError;
use crate::environments::rendezvous::ended_key;

/// The store's port, and on the first node the store itself.
pub(super) struct HostedStore {
    port: u16,
    store: Option<Store>,
}

impl HostedStore {
    /// Hosts the store, on a free port if none is given. On other nodes it is the first one's.
    pub(super) fn open(plan: &LaunchPlan) -> Result<HostedStore, FabricError> {
        if let (Some(port), true) = (plan.main_port, plan.node_rank > 0) {
            return Ok(HostedStore { port, store: None });
        }
        let store = Store::tcp(TcpStoreOptions {
            port: plan.main_port.unwrap_or(0),
            is_server: true,
            wait_for_workers: false,
            ..TcpStoreOptions::default()
        })?;
        let port = store.port().ok_or_else(|| FabricError::launch("the store does not say its port"))?;
        Ok(HostedStore { port, store: Some(store) })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Lets ranks that wait for another one know that it will not come.
    pub(super) fn note_end(&self, rank: usize, how: &str) {
        if let Some(store) = &self.store {
            _ = store.set(&ended_key(rank), how.as_bytes());
        }
    }
}
