//! [`DistributedError`]: what goes wrong between processes.

use std::time::Duration;

/// An error between processes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistributedError {
    /// The port of the store is in use.
    #[error(
        "port {port} is in use, so the store cannot be served there; choose another one (0 is any free one), or end the \
         program that has it (`ss -ltnp 'sport = :{port}'` names it)"
    )]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// The store cannot listen.
    #[error("the store cannot be served at port {port}: {reason}")]
    Serve {
        /// The port.
        port: u16,
        /// The error of the system.
        reason: String,
    },
    /// The store does not respond.
    #[error(
        "no store responds at {host}:{port} within {timeout:?}; is the process that serves it (rank 0) running, and do \
         MASTER_ADDR and MASTER_PORT say where? ({reason})"
    )]
    Unreachable {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The timeout.
        timeout: Duration,
        /// The error of the system.
        reason: String,
    },
    /// Processes did not connect to the store.
    #[error("not all of the {expected} processes connected to {store} within {timeout:?}: {reason}")]
    Missing {
        /// The store.
        store: String,
        /// The number of expected processes.
        expected: usize,
        /// The timeout.
        timeout: Duration,
        /// How many of them connected.
        reason: String,
    },
    /// Keys that no process set.
    #[error("no process set {} in {store} within {timeout:?}", list(.keys))]
    KeysMissing {
        /// The store.
        store: String,
        /// The missing keys.
        keys: Vec<String>,
        /// The timeout.
        timeout: Duration,
    },
    /// The connection to the store was lost.
    #[error("{store} failed to {doing}: {reason}; has the process that serves it exited?")]
    Store {
        /// The store.
        store: String,
        /// The operation.
        doing: String,
        /// The error of c10d.
        reason: String,
    },
    /// Ranks did not join a group, or reach a barrier.
    #[error(
        "rank {rank} waited {timeout:?} for {operation} of group `{group}` ({size} ranks), and {} did not join; are their \
         processes running, and do they make the same calls?",
        ranks(.missing)
    )]
    RanksMissing {
        /// The rank of this process.
        rank: usize,
        /// The group's name.
        group: String,
        /// The number of ranks of the group.
        size: usize,
        /// The operation.
        operation: String,
        /// The missing ranks.
        missing: Vec<usize>,
        /// The timeout.
        timeout: Duration,
    },
    /// The group cannot be created, though all ranks joined.
    #[error(
        "rank {rank} cannot join group `{group}` of {size} ranks: {reason}; the ranks must reach each other through the \
         network interface that GLOO_SOCKET_IFNAME names, or else the one that the host's name leads to"
    )]
    Join {
        /// The rank of this process.
        rank: usize,
        /// The group's name.
        group: String,
        /// The number of ranks of the group.
        size: usize,
        /// The error of c10d.
        reason: String,
    },
    /// The group is not supported by this build or machine.
    #[error("{0}")]
    Backend(&'static str),
    /// Arguments that do not fit the group.
    #[error("{operation} in group `{group}` of {size} ranks: {problem}")]
    Argument {
        /// The operation.
        operation: &'static str,
        /// The group's name.
        group: String,
        /// The number of ranks of the group.
        size: usize,
        /// What is wrong with the arguments, and what to do.
        problem: String,
    },
    /// An operation after [`abandon`](super::ProcessGroup::abandon).
    #[error(
        "rank {rank}: no {operation} in group `{group}`: after an error here, the processes of the run are no longer at the \
         same place; start them again"
    )]
    Abandoned {
        /// The rank of this process.
        rank: usize,
        /// The group's name.
        group: String,
        /// The operation.
        operation: &'static str,
    },
    /// A collective operation timed out.
    #[error(
        "rank {rank}: {operation} in group `{group}` of {size} ranks did not complete within {timeout:?}; {others} \
         ({reason}); TORCH_DISTRIBUTED_DEBUG=DETAIL compares what the ranks call"
    )]
    Timeout {
        /// The rank of this process.
        rank: usize,
        /// The group's name.
        group: String,
        /// The number of ranks of the group.
        size: usize,
        /// The operation.
        operation: &'static str,
        /// The timeout.
        timeout: Duration,
        /// What is known about the other ranks.
        others: String,
        /// The error of c10d.
        reason: String,
    },
    /// The connection to another rank was lost.
    #[error(
        "rank {rank}: {operation} in group `{group}` of {size} ranks lost its connection to another rank; {others} ({reason})"
    )]
    ConnectionLost {
        /// The rank of this process.
        rank: usize,
        /// The group's name.
        group: String,
        /// The number of ranks of the group.
        size: usize,
        /// The operation.
        operation: &'static str,
        /// What is known about the other ranks.
        others: String,
        /// The error of c10d.
        reason: String,
    },
    /// The ranks called different operations, or the same with tensors of different shapes or kinds.
    #[error(
        "rank {rank}: {operation} in group `{group}` of {size} ranks differs from the operations of the other ranks: {reason}"
    )]
    Mismatch {
        /// The rank of this process.
        rank: usize,
        /// The group's name.
        group: String,
        /// The number of ranks of the group.
        size: usize,
        /// The operation.
        operation: &'static str,
        /// The operation of each rank, and the missing ranks.
        reason: String,
    },
    /// Another failure of a collective operation.
    #[error("rank {rank}: {operation} in group `{group}` of {size} ranks failed: {reason}")]
    Collective {
        /// The rank of this process.
        rank: usize,
        /// The group's name.
        group: String,
        /// The number of ranks of the group.
        size: usize,
        /// The operation.
        operation: &'static str,
        /// The error of c10d.
        reason: String,
    },
    /// Parameters were not part of the last backward pass, so their gradients were not averaged.
    #[error(
        "rank {rank}: {} got no gradient in the last backward pass, so the ranks could not average them; {}",
        list(.names),
        if *.finds_unused {
            "they are not reachable from the outputs passed to `prepare_for_backward`: pass it all outputs"
        } else {
            "if that is intended, set `find_unused_parameters` (the strategy `ddp_find_unused_parameters_true`); if not, \
             use them in the loss, or freeze them"
        }
    )]
    UnusedParameters {
        /// The rank of this process.
        rank: usize,
        /// The parameters.
        names: Vec<String>,
        /// Whether the reducer looks for such parameters.
        finds_unused: bool,
    },
    /// The model differs between the ranks.
    #[error("the model differs between the ranks: {problem}; build it the same way on all of them")]
    ParametersDiffer {
        /// Which parameter differs on which rank, and how.
        problem: String,
    },
}

/// `rank 1`, `ranks 1 and 2`, `ranks 1, 2 and 3`.
fn ranks(ranks: &[usize]) -> String {
    match ranks {
        [rank] => format!("rank {rank}"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(usize::to_string).collect();
            format!("ranks {} and {last}", first.join(", "))
        }
        [] => "no rank".into(),
    }
}

/// Names in backquotes.
fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
