//! [`Place`]: the ranks of a process, and the address of the rendezvous.

use crate::FabricError;

/// A count, and the variable it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedCount {
    /// The count.
    pub count: usize,
    /// The variable, such as `LOCAL_WORLD_SIZE`.
    pub by: &'static str,
    /// The setting that determines it, such as `torchrun --nproc-per-node`.
    pub remedy: &'static str,
}

/// The ranks of a process, and the address of the rendezvous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host of the rendezvous.
    pub main_address: String,
    /// The port of the rendezvous. `None` means a free port.
    pub main_port: Option<u16>,
    /// The number of processes on all nodes.
    pub world_size: usize,
    /// The rank of this process among all processes.
    pub global_rank: usize,
    /// The rank of this process on its node.
    pub local_rank: usize,
    /// The rank of this node among all nodes.
    pub node_rank: usize,
    /// The number of processes on this node, if the environment specifies it.
    pub local_world_size: Option<ReportedCount>,
    /// The number of nodes, if the environment specifies it.
    pub num_nodes: Option<ReportedCount>,
}

impl Place {
    /// The only process of a run.
    pub fn single_process() -> Place {
        Place {
            main_address: "127.0.0.1".to_owned(),
            main_port: None,
            world_size: 1,
            global_rank: 0,
            local_rank: 0,
            node_rank: 0,
            local_world_size: None,
            num_nodes: None,
        }
    }

    /// Checks that ranks and nodes are in their ranges; `rank` and `size` are the variables they were read from.
    pub(crate) fn checked(self, rank: &str, size: &str) -> Result<Place, FabricError> {
        if self.world_size == 0 {
            return Err(FabricError::environment(format!(
                "the environment variable {size}=0 specifies no process; set it to at least 1"
            )));
        }
        if self.global_rank >= self.world_size {
            return Err(FabricError::environment(format!(
                "the environment variables {rank}={} and {size}={} contradict each other: ranks range from 0 to {}",
                self.global_rank,
                self.world_size,
                self.world_size - 1
            )));
        }
        if let Some(local) = self.local_world_size.filter(|local| self.local_rank >= local.count) {
            return Err(FabricError::environment(format!(
                "the local rank {} and the environment variable {}={} contradict each other: local ranks are less than that",
                self.local_rank, local.by, local.count
            )));
        }
        // Without a variable for the number of processes on this node, or of nodes, it is at most the world size.
        let limit = |reported: Option<ReportedCount>| reported.map(|count| (count.by, count.count));
        for (what, number, limit) in
            [("local rank", self.local_rank, None), ("node", self.node_rank, limit(self.num_nodes))]
        {
            let (by, count) = limit.unwrap_or((size, self.world_size));
            if number >= count {
                return Err(FabricError::environment(format!(
                    "the {what} {number} and the environment variable {by}={count} contradict each other: \
                     numbers start at 0, so it is at most {}",
                    count.saturating_sub(1)
                )));
            }
        }
        if let Some(local) = self.local_world_size.filter(|local| local.count > self.world_size) {
            return Err(FabricError::environment(format!(
                "the environment variables {}={} and {size}={} contradict each other: a node has no more processes than \
                 the run",
                local.by, local.count, self.world_size
            )));
        }
        Ok(self)
    }

    /// Checks arguments against the counts that are known.
    pub(crate) fn validate(&self, name: &str, devices: usize, num_nodes: usize) -> Result<(), FabricError> {
        for (argument, requested, reported) in
            [("devices", devices, self.local_world_size), ("num_nodes", num_nodes, self.num_nodes)]
        {
            if let Some(reported) = reported.filter(|reported| reported.count != requested) {
                return Err(FabricError::environment(format!(
                    "{argument}={requested} was requested, but {name} specifies {} ({}); set {argument}={}, or change `{}`",
                    reported.count, reported.by, reported.count, reported.remedy
                )));
            }
        }
        Ok(())
    }

    /// Checks the product of the arguments against the number of processes in `variable`.
    pub(crate) fn validate_product(
        &self,
        name: &str,
        variable: &str,
        devices: usize,
        num_nodes: usize,
    ) -> Result<(), FabricError> {
        if devices.saturating_mul(num_nodes) == self.world_size {
            return Ok(());
        }
        Err(FabricError::environment(format!(
            "devices={devices} and num_nodes={num_nodes} make {} processes, but {name} specifies {} ({variable}); change \
             either of them",
            devices.saturating_mul(num_nodes),
            self.world_size
        )))
    }
}
