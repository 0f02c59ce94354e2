//! [`DistributedError`]: what goes wrong between processes.

use std::time::Duration;

/// What goes wrong between processes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistributedError {
    /// A store that should be served at a port that another program has.
    #[error(
        "port {port} is in use, so the store cannot be served there; choose another one (0 is any free one), or end the \
         program that has it (`ss -ltnp 'sport = :{port}'` names it)"
    )]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// A store that cannot be served.
    #[error("the store cannot be served at port {port}: {reason}")]
    Serve {
        /// The port.
        port: u16,
        /// The error of the system.
        reason: String,
    },
    /// A store that does not answer.
    #[error(
        "no store answers at {host}:{port} within {timeout:?}; is the process that serves it (rank 0) running, and do \
         MASTER_ADDR and MASTER_PORT say where? ({reason})"
    )]
    Unreachable {
        /// Where it should be.
        host: String,
        /// Its port.
        port: u16,
        /// How long was waited.
        timeout: Duration,
        /// The error of the system.
        reason: String,
    },
    /// Processes that did not come to the store.
    #[error("not all of the {expected} processes came to {store} within {timeout:?}: {reason}")]
    Missing {
        /// The store.
        store: String,
        /// How many should have come.
        expected: usize,
        /// How long was waited.
        timeout: Duration,
        /// How many came.
        reason: String,
    },
    /// Keys that nobody set.
    #[error("nobody set {} in {store} within {timeout:?}", list(.keys))]
    KeysMissing {
        /// The store.
        store: String,
        /// The keys that are not there.
        keys: Vec<String>,
        /// How long was waited.
        timeout: Duration,
    },
    /// A store that stopped working.
    #[error("{store} failed to {doing}: {reason}; has the process that serves it ended?")]
    Store {
        /// The store.
        store: String,
        /// What was asked of it.
        doing: String,
        /// The error of c10d.
        reason: String,
    },
    /// Ranks that did not come to a group, or to a barrier.
    #[error(
        "rank {rank} waited {timeout:?} for {operation} of group `{group}` ({size} ranks), and {} did not come; are their \
         processes running, and do they make the same calls?",
        ranks(.missing)
    )]
    RanksMissing {
        /// Who waited.
        rank: usize,
        /// The group's name.
        group: String,
        /// How many ranks it has.
        size: usize,
        /// What it waited for.
        operation: String,
        /// Who did not come.
        missing: Vec<usize>,
        /// How long was waited.
        timeout: Duration,
    },
    /// A group that cannot be made, though all ranks are there.
    #[error(
        "rank {rank} cannot join group `{group}` of {size} ranks: {reason}; the ranks must reach each other through the \
         network interface that GLOO_SOCKET_IFNAME names, or else the one that the host's name leads to"
    )]
    Join {
        /// Who cannot join.
        rank: usize,
        /// The group's name.
        group: String,
        /// How many ranks it has.
        size: usize,
        /// The error of c10d.
        reason: String,
    },
    /// A group that this program cannot have.
    #[error("{0}")]
    Backend(&'static str),
    /// Arguments that do not fit the group.
    #[error("{operation} in group `{group}` of {size} ranks: {problem}")]
    Argument {
        /// What was asked for.
        operation: &'static str,
        /// The group's name.
        group: String,
        /// How many ranks it has.
        size: usize,
        /// What does not fit, and what to do.
        problem: String,
    },
    /// An operation of a process that has left the others' way: [`abandon`](super::ProcessGroup::abandon).
    #[error(
        "rank {rank}: no {operation} in group `{group}`: after an error here, the processes of the run are no longer at the \
         same place; start them again"
    )]
    Abandoned {
        /// Who has left.
        rank: usize,
        /// The group's name.
        group: String,
        /// What was called.
        operation: &'static str,
    },
    /// A collective operation that did not end in time.
    #[error(
        "rank {rank}: {operation} in group `{group}` of {size} ranks did not end within {timeout:?}; {others} \
         ({reason}); TORCH_DISTRIBUTED_DEBUG=DETAIL compares what the ranks call"
    )]
    Timeout {
        /// Who waited.
        rank: usize,
        /// The group's name.
        group: String,
        /// How many ranks it has.
        size: usize,
        /// What was called.
        operation: &'static str,
        /// How long was waited.
        timeout: Duration,
        /// What is known of the other ranks.
        others: String,
        /// The error of c10d.
        reason: String,
    },
    /// A connection to another rank that broke.
    #[error(
        "rank {rank}: {operation} in group `{group}` of {size} ranks lost its connection to another rank; {others} ({reason})"
    )]
    ConnectionLost {
        /// Who lost it.
        rank: usize,
        /// The group's name.
        group: String,
        /// How many ranks it has.
        size: usize,
        /// What was called.
        operation: &'static str,
        /// What is known of the other ranks.
        others: String,
        /// The error of c10d.
        reason: String,
    },
    /// Ranks that call different operations, or the same with tensors of different shapes or kinds.
    #[error("rank {rank}: {operation} in group `{group}` of {size} ranks is not what the other ranks do: {reason}")]
    Mismatch {
        /// Who noticed.
        rank: usize,
        /// The group's name.
        group: String,
        /// How many ranks it has.
        size: usize,
        /// What was called.
        operation: &'static str,
        /// What each rank does, and who is missing.
        reason: String,
    },
    /// Another failure of a collective operation.
    #[error("rank {rank}: {operation} in group `{group}` of {size} ranks failed: {reason}")]
    Collective {
        /// Who noticed.
        rank: usize,
        /// The group's name.
        group: String,
        /// How many ranks it has.
        size: usize,
        /// What was called.
        operation: &'static str,
        /// The error of c10d.
        reason: String,
    },
    /// Parameters that took no part in the pass before, so that their gradients were never averaged.
    #[error(
        "rank {rank}: {} got no gradient in the last backward pass, so the ranks could not average them; {}",
        list(.names),
        if *.finds_unused {
            "what was given to `prepare_for_backward` does not lead to them, or another loss does: give it all outputs"
        } else {
            "if that is meant, set `find_unused_parameters` (the strategy `ddp_find_unused_parameters_true`); if not, \
             use them in the loss, or freeze them"
        }
    )]
    UnusedParameters {
        /// Who noticed.
        rank: usize,
        /// The parameters.
        names: Vec<String>,
        /// Whether the reducer looks for such parameters.
        finds_unused: bool,
    },
    /// Models that are not the same on all ranks.
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
