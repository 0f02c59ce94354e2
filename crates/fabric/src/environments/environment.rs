//! [`ClusterEnvironment`]: who a process is among those of a run.

use std::fmt;

use super::Place;
use crate::FabricError;

/// Holds the id of the process that started this one as a rank and watches over it: see [`launcher`](crate::launcher).
pub const SUPERVISOR: &str = "FULGURITE_SUPERVISOR";

/// Says with the value `True` that whoever started the ranks hosts the store at `MASTER_ADDR:MASTER_PORT`, so that all
/// ranks are its clients.
pub const USE_AGENT_STORE: &str = "TORCHELASTIC_USE_AGENT_STORE";

/// The port of environments that are told none.
pub(crate) const DEFAULT_PORT: u16 = 12910;

/// Who this process is, where the others are found, and who started it.
///
/// Implement it for a cluster that [`detect`](super::detect) does not know.
///
/// ```
/// use fulgurite_fabric::environments::{ClusterEnvironment, Place};
///
/// #[derive(Debug)]
/// struct TwoLaptops(Place);
///
/// impl ClusterEnvironment for TwoLaptops {
///     fn name(&self) -> &'static str {
///         "two laptops"
///     }
///
///     fn place(&self) -> &Place {
///         &self.0
///     }
/// }
///
/// let place = Place { world_size: 2, global_rank: 1, node_rank: 1, ..Place::alone() };
/// let second = TwoLaptops(Place { main_address: "first.local".into(), main_port: Some(29500), ..place });
/// assert_eq!(second.global_rank(), 1);
/// ```
pub trait ClusterEnvironment: fmt::Debug + Send + Sync {
    /// The name in messages, such as `SLURM`.
    fn name(&self) -> &'static str;

    /// Who this process is. Where [`creates_processes_externally`](Self::creates_processes_externally) is false, what is
    /// known of that before the processes are started.
    fn place(&self) -> &Place;

    /// Whether this process is one of those that somebody else started. Otherwise the program starts them itself.
    fn creates_processes_externally(&self) -> bool {
        true
    }

    /// Whether the store at the main address and port is hosted by whoever started the processes, and not by rank 0.
    fn uses_agent_store(&self) -> bool {
        false
    }

    /// A name that the processes of this run, and of no other run on the same machine, have in common. With it they
    /// agree on a free port where no port is given.
    fn run_id(&self) -> Option<String> {
        None
    }

    /// How often the processes have been restarted.
    fn restart_count(&self) -> usize {
        0
    }

    /// Checks the arguments `devices` (processes on a node) and `num_nodes` against what the environment says.
    ///
    /// # Errors
    ///
    /// Fails if they contradict each other; the message names the argument and the variable.
    fn validate_settings(&self, devices: usize, num_nodes: usize) -> Result<(), FabricError> {
        self.place().validate(self.name(), devices, num_nodes)
    }

    /// The host of the rendezvous.
    fn main_address(&self) -> &str {
        &self.place().main_address
    }

    /// The port of the rendezvous. `None`: a free port, on which the processes agree.
    fn main_port(&self) -> Option<u16> {
        self.place().main_port
    }

    /// The number of processes on all nodes.
    fn world_size(&self) -> usize {
        self.place().world_size
    }

    /// The rank of this process among all processes.
    fn global_rank(&self) -> usize {
        self.place().global_rank
    }

    /// The rank of this process on its node.
    fn local_rank(&self) -> usize {
        self.place().local_rank
    }

    /// The rank of this node among all nodes.
    fn node_rank(&self) -> usize {
        self.place().node_rank
    }
}
