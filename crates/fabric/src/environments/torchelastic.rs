//! `torchrun`.

use super::{ClusterEnvironment, DEFAULT_PORT, Place, ReportedCount, Variables};
use crate::FabricError;

const NAME: &str = "torchrun";

/// A process that `torchrun` started: `torchrun --nproc-per-node 2 --no-python ./program`.
///
/// `torchrun` hosts the store itself (`TORCHELASTIC_USE_AGENT_STORE`), keeps it over restarts, and starts all processes
/// again after a failure, up to `--max-restarts` times. [`record_failure`](super::record_failure) reports to it why a
/// process failed.
#[derive(Debug, Clone)]
pub struct TorchElasticEnvironment {
    place: Place,
    agent_store: bool,
    restart_count: usize,
    run_id: String,
}

impl TorchElasticEnvironment {
    pub(crate) fn read(variables: &Variables<'_>) -> Result<Option<TorchElasticEnvironment>, FabricError> {
        let Some(run_id) = variables.text("TORCHELASTIC_RUN_ID") else { return Ok(None) };
        let count = |by, remedy| -> Result<Option<ReportedCount>, FabricError> {
            Ok(variables.number(by)?.map(|count| ReportedCount { count, by, remedy }))
        };
        let place = Place {
            main_address: variables.main_address().unwrap_or_else(|| {
                tracing::warn!("MASTER_ADDR is not set; using 127.0.0.1");
                "127.0.0.1".to_owned()
            }),
            main_port: Some(variables.main_port()?.unwrap_or_else(|| {
                tracing::warn!("MASTER_PORT is not set; using {DEFAULT_PORT}");
                DEFAULT_PORT
            })),
            world_size: variables.required("WORLD_SIZE", NAME)?,
            global_rank: variables.required("RANK", NAME)?,
            local_rank: variables.required("LOCAL_RANK", NAME)?,
            node_rank: variables.number("GROUP_RANK")?.unwrap_or(0),
            local_world_size: count("LOCAL_WORLD_SIZE", "torchrun --nproc-per-node")?,
            num_nodes: count("GROUP_WORLD_SIZE", "torchrun --nnodes")?,
        };
        Ok(Some(TorchElasticEnvironment {
            place: place.checked("RANK", "WORLD_SIZE")?,
            agent_store: variables.uses_agent_store(),
            restart_count: variables.number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0),
            run_id,
        }))
    }
}

impl ClusterEnvironment for TorchElasticEnvironment {
    fn name(&self) -> &'static str {
        NAME
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn uses_agent_store(&self) -> bool {
        self.agent_store
    }

    fn run_id(&self) -> Option<String> {
        Some(self.run_id.clone())
    }

    fn restart_count(&self) -> usize {
        self.restart_count
    }

    fn validate_settings(&self, devices: usize, num_nodes: usize) -> Result<(), FabricError> {
        self.place.validate(NAME, devices, num_nodes)?;
        self.place.validate_product(NAME, "WORLD_SIZE", devices, num_nodes)
    }
}
