//! Kubeflow: pods with a rank in their environment.

use super::{ClusterEnvironment, DEFAULT_PORT, Place, ReportedCount, Variables};
use crate::FabricError;

const NAME: &str = "Kubeflow";

/// A pod of a `PyTorchJob` (`RANK` and `WORLD_SIZE`: one process each), or of a `TrainJob` (`PET_*`: the program starts the
/// processes of its pod itself).
#[derive(Debug, Clone)]
pub struct KubeflowEnvironment {
    place: Place,
    is_process: bool,
}

impl KubeflowEnvironment {
    pub(crate) fn read(variables: &Variables<'_>) -> Result<Option<KubeflowEnvironment>, FabricError> {
        if variables.has("PET_NNODES") && !variables.has("LOCAL_RANK") {
            return KubeflowEnvironment::pod(variables).map(Some);
        }
        let is_process = variables.has("RANK") && variables.has("WORLD_SIZE") && !variables.has("LOCAL_RANK");
        if is_process { KubeflowEnvironment::process(variables).map(Some) } else { Ok(None) }
    }

    /// A pod with the variables for `torchrun`, which have the prefix `PET_`.
    fn pod(variables: &Variables<'_>) -> Result<KubeflowEnvironment, FabricError> {
        let nodes = variables.number::<usize>("PET_NNODES").map_err(|_| {
            FabricError::environment(format!(
                "PET_NNODES={} specifies an elastic number of nodes, which only `torchrun` supports; use a fixed \
                 number, or `torchrun --no-python` as the command",
                variables.text("PET_NNODES").unwrap_or_default()
            ))
        })?;
        let nodes = nodes.unwrap_or(1);
        let node_rank: usize = match variables.number("PET_NODE_RANK")? {
            Some(rank) => rank,
            None if nodes == 1 => 0,
            None => return Err(super::variables::missing("PET_NODE_RANK", NAME)),
        };
        // With values like `auto` and `gpu`, `devices` determines the number.
        let local: Option<usize> = variables.text("PET_NPROC_PER_NODE").and_then(|count| count.parse().ok());
        let address = variables.text("PET_MASTER_ADDR").or_else(|| variables.main_address());
        let main_address = match address {
            Some(address) => address,
            None if nodes == 1 => "127.0.0.1".to_owned(),
            None => return Err(super::variables::missing("PET_MASTER_ADDR", NAME)),
        };
        let port = variables.number("PET_MASTER_PORT")?.or(variables.main_port()?);
        let place = Place {
            main_address,
            main_port: if nodes == 1 { port } else { Some(port.unwrap_or(29500)) },
            world_size: nodes.saturating_mul(local.unwrap_or(1)),
            global_rank: node_rank.saturating_mul(local.unwrap_or(1)),
            local_rank: 0,
            node_rank,
            local_world_size: local.map(|count| ReportedCount {
                count,
                by: "PET_NPROC_PER_NODE",
                remedy: "numProcPerNode",
            }),
            num_nodes: Some(ReportedCount { count: nodes, by: "PET_NNODES", remedy: "numNodes" }),
        };
        Ok(KubeflowEnvironment { place: place.checked("PET_NODE_RANK", "PET_NNODES")?, is_process: false })
    }

    fn process(variables: &Variables<'_>) -> Result<KubeflowEnvironment, FabricError> {
        let world_size = variables.required("WORLD_SIZE", NAME)?;
        let global_rank = variables.required("RANK", NAME)?;
        let main_address = match variables.main_address() {
            Some(address) => address,
            None if world_size == 1 => "127.0.0.1".to_owned(),
            None => return Err(super::variables::missing("MASTER_ADDR", NAME)),
        };
        let place = Place {
            main_address,
            main_port: Some(variables.main_port()?.unwrap_or(DEFAULT_PORT)),
            world_size,
            global_rank,
            local_rank: 0,
            node_rank: global_rank,
            local_world_size: None,
            num_nodes: Some(ReportedCount { count: world_size, by: "WORLD_SIZE", remedy: "replicas" }),
        };
        Ok(KubeflowEnvironment { place: place.checked("RANK", "WORLD_SIZE")?, is_process: true })
    }
}

impl ClusterEnvironment for KubeflowEnvironment {
    fn name(&self) -> &'static str {
        NAME
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn creates_processes_externally(&self) -> bool {
        self.is_process
    }

    fn validate_settings(&self, devices: usize, num_nodes: usize) -> Result<(), FabricError> {
        if self.is_process && devices != 1 {
            return Err(FabricError::environment(format!(
                "devices={devices} was requested, but RANK={} without LOCAL_RANK means that each pod is one process; set \
                 devices=1 and num_nodes={}, or use a TrainJob, whose pods start several processes",
                self.place.global_rank, self.place.world_size
            )));
        }
        self.place.validate(NAME, devices, num_nodes)
    }
}
