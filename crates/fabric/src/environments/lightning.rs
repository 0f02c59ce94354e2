//! The default: the program starts its processes itself, or the usual variables were set by hand.

use super::{ClusterEnvironment, DEFAULT_PORT, Place, ReportedCount, SUPERVISOR, Variables};
use crate::FabricError;

/// One machine, or several without a scheduler.
///
/// With `LOCAL_RANK`, another program started all processes and describes this one with `RANK` (or `NODE_RANK` and
/// `LOCAL_WORLD_SIZE`), `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`. Without it the program starts the processes of
/// its machine itself; on several machines it is started once on each, with `NODE_RANK`, `MASTER_ADDR` and
/// `MASTER_PORT`.
#[derive(Debug, Clone)]
pub struct LightningEnvironment {
    place: Place,
    name: &'static str,
    is_process: bool,
    agent_store: bool,
    /// Whether `WORLD_SIZE` is set.
    has_world_size: bool,
}

impl LightningEnvironment {
    pub(crate) fn read(variables: &Variables<'_>) -> Result<LightningEnvironment, FabricError> {
        let is_process = variables.has("LOCAL_RANK");
        let is_supervised = variables.has(SUPERVISOR);
        let name = match (is_process, is_supervised) {
            (_, true) => "the program's own launcher",
            (true, false) => "the launcher that set LOCAL_RANK",
            (false, false) => "the environment",
        };
        let node_rank = variables.first_number(&["NODE_RANK", "GROUP_RANK"])?.map_or(0, |(rank, _)| rank);
        let world_size: Option<usize> = variables.number("WORLD_SIZE")?;
        let local_rank = variables.number("LOCAL_RANK")?.unwrap_or(0);
        let local = variables.number("LOCAL_WORLD_SIZE")?.filter(|_| is_process);
        let mut place = Place {
            main_address: variables.main_address().unwrap_or_else(|| "127.0.0.1".to_owned()),
            main_port: variables.main_port()?,
            local_rank,
            node_rank,
            local_world_size: local.map(|count| ReportedCount {
                count,
                by: "LOCAL_WORLD_SIZE",
                remedy: "LOCAL_WORLD_SIZE",
            }),
            ..Place::single_process()
        };
        if is_process {
            let Some(world_size) = world_size else { return Err(unset("WORLD_SIZE")) };
            let derived = match local {
                Some(count) => Some(node_rank.saturating_mul(count).saturating_add(local_rank)),
                None => (node_rank == 0).then_some(local_rank),
            };
            place.world_size = world_size;
            place.global_rank = variables.number("RANK")?.or(derived).ok_or_else(|| unset("RANK"))?;
            if world_size > 1 && place.main_port.is_none() {
                return Err(unset("MASTER_PORT"));
            }
            place.main_port = Some(place.main_port.unwrap_or(DEFAULT_PORT));
            place = place.checked("RANK", "WORLD_SIZE")?;
        } else {
            place.world_size = world_size.unwrap_or(1);
        }
        Ok(LightningEnvironment {
            place,
            name,
            is_process,
            agent_store: is_process && variables.uses_agent_store(),
            has_world_size: world_size.is_some(),
        })
    }
}

fn unset(name: &str) -> FabricError {
    FabricError::environment(format!(
        "LOCAL_RANK indicates that this process is one of several, but {name} is not set; set RANK, WORLD_SIZE, LOCAL_RANK, \
         MASTER_ADDR and MASTER_PORT for every process, or unset LOCAL_RANK to let the program start them itself"
    ))
}

impl ClusterEnvironment for LightningEnvironment {
    fn name(&self) -> &'static str {
        self.name
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn creates_processes_externally(&self) -> bool {
        self.is_process
    }

    fn uses_agent_store(&self) -> bool {
        self.agent_store
    }

    fn validate_settings(&self, devices: usize, num_nodes: usize) -> Result<(), FabricError> {
        self.place.validate(self.name, devices, num_nodes)?;
        if self.has_world_size {
            self.place.validate_product(self.name, "WORLD_SIZE", devices, num_nodes)?;
        }
        if self.place.node_rank >= num_nodes {
            return Err(FabricError::environment(format!(
                "num_nodes={num_nodes} was requested, but NODE_RANK={} means that this is node {}, counted from 0; set \
                 num_nodes to the number of machines",
                self.place.node_rank, self.place.node_rank
            )));
        }
        Ok(())
    }
}
