//! [`ClusterEnvironment`]: the rank of a process, and the address of the rendezvous.

use std::fmt;

use super::Place;
use crate::FabricError;

/// The environment variable with the id of the process that started this one as a rank and supervises it: see [`launcher`](crate::launcher).
pub const SUPERVISOR: &str = "FULGURITE_SUPERVISOR";

/// The environment variable that specifies with the value `True` that the launcher of the ranks hosts the store at
/// `MASTER_ADDR:MASTER_PORT`, so that all ranks are its clients.
pub const USE_AGENT_STORE: &str = "TORCHELASTIC_USE_AGENT_STORE";

/// The port of environments that specify none.
pub(crate) const DEFAULT_PORT: u16 = 12910;

/// The ranks of this process, the address of the rendezvous, and who starts the processes.
///
/// Implement it for a cluster that [`detect`](super::detect) does not support.
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
/// let place = Place { world_size: 2, global_rank: 1, node_rank: 1, ..Place::single_process() };
/// let second = TwoLaptops(Place { main_address: "first.local".into(), main_port: Some(29500), ..place });
/// assert_eq!(second.global_rank(), 1);
/// ```
pub trait ClusterEnvironment: fmt::Debug + Send + Sync {
    /// The name in messages, such as `SLURM`.
    fn name(&self) -> &'static str;

    /// The ranks of this process. Where [`creates_processes_externally`](Self::creates_processes_externally) is false, what
    /// is known of them before the processes are started.
    fn place(&self) -> &Place;

    /// Whether an external launcher has started the processes. Otherwise the program starts them itself.
    fn creates_processes_externally(&self) -> bool {
        true
    }

    /// Whether the store at the main address and port is hosted by the launcher of the processes instead of rank 0.
    fn uses_agent_store(&self) -> bool {
        false
    }

    /// A name that is shared by the processes of this run, and unique among the runs on the machine. With it they agree on
    /// a free port where no port is given.
    fn run_id(&self) -> Option<String> {
        None
    }

    /// How often the processes have been restarted.
    fn restart_count(&self) -> usize {
        0
    }

    /// Checks the arguments `devices` (processes on a node) and `num_nodes` against the environment.
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

    /// The port of the rendezvous. `None` means a free port, on which the processes agree.
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
