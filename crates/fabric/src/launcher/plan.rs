//! [`LaunchPlan`]: which processes are started, and with which arguments and environment variables.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::FabricError;
use crate::environments::run_token::RunToken;
use crate::environments::{ClusterEnvironment, RUN_TOKEN, SUPERVISOR, USE_AGENT_STORE};

/// The rendezvous address of the ranks of a single node.
const LOOPBACK: &str = "127.0.0.1";

/// The processes to start on this machine: see [`launch`](super::launch).
#[derive(Debug, Clone)]
#[must_use]
pub struct LaunchPlan {
    pub(super) local_ranks: usize,
    pub(super) num_nodes: usize,
    pub(super) node_rank: usize,
    pub(super) main_address: String,
    pub(super) main_port: Option<u16>,
    pub(super) grace: Duration,
    pub(super) timeout: Duration,
    program: PathBuf,
    /// The name of the program in its own arguments (`argv[0]`).
    name: Option<OsString>,
    args: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

impl LaunchPlan {
    /// Starts this program again `devices` times, as the processes of one of `num_nodes` nodes.
    ///
    /// # Errors
    ///
    /// Fails if the arguments contradict the environment, if there is no device, if several nodes have no main address
    /// and port, or if the path of this program is unknown.
    pub fn new(
        environment: &dyn ClusterEnvironment,
        devices: usize,
        num_nodes: usize,
    ) -> Result<LaunchPlan, FabricError> {
        if devices == 0 {
            return Err(FabricError::NoDevice);
        }
        if num_nodes == 0 {
            return Err(FabricError::environment(
                "num_nodes=0 was requested; a run needs at least one node, so set num_nodes to 1",
            ));
        }
        environment.validate_settings(devices, num_nodes)?;
        let place = environment.place();
        if num_nodes > 1 && place.main_port.is_none() {
            return Err(FabricError::environment(format!(
                "num_nodes={num_nodes} was requested, but the environment does not specify where the nodes connect; set \
                 MASTER_ADDR to the host of the first node, MASTER_PORT to a free port there and NODE_RANK to 0, 1, … \
                 on each node"
            )));
        }
        let mut args = std::env::args_os();
        Ok(LaunchPlan {
            local_ranks: devices,
            num_nodes,
            node_rank: place.node_rank,
            // The store of a single node accepts connections from this machine only.
            main_address: if num_nodes == 1 { LOOPBACK.to_owned() } else { place.main_address.clone() },
            main_port: place.main_port,
            grace: Duration::from_secs(5),
            timeout: Duration::from_secs(300),
            program: this_program()?,
            name: args.next(),
            args: args.collect(),
            variables: Vec::new(),
        })
    }

    /// The grace period of the other ranks after one has died, before they are killed. 5 seconds by default.
    pub fn grace_period(mut self, grace: Duration) -> LaunchPlan {
        self.grace = grace;
        self
    }

    /// How long the supervisors of several nodes wait for each other at the start. 5 minutes by default.
    pub fn timeout(mut self, timeout: Duration) -> LaunchPlan {
        self.timeout = timeout;
        self
    }

    /// Sets an environment variable for all ranks.
    pub fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> LaunchPlan {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts the ranks with these arguments instead of this process's own.
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> LaunchPlan {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// The number of processes on all nodes.
    pub fn world_size(&self) -> usize {
        self.local_ranks * self.num_nodes
    }

    pub(super) fn global_rank(&self, local_rank: usize) -> usize {
        self.node_rank * self.local_ranks + local_rank
    }

    /// The command that starts a rank, which connects to the store at `port` and authenticates with the token.
    pub(super) fn command(&self, local_rank: usize, port: u16, token: &RunToken) -> Command {
        let mut command = Command::new(&self.program);
        #[cfg(unix)]
        if let Some(name) = &self.name {
            std::os::unix::process::CommandExt::arg0(&mut command, name);
        }
        command.args(&self.args);
        let number = |n: usize| n.to_string();
        command
            .env(SUPERVISOR, std::process::id().to_string())
            .env(RUN_TOKEN, token.as_str())
            .env("MASTER_ADDR", &self.main_address)
            .env("MASTER_PORT", port.to_string())
            .env("NODE_RANK", number(self.node_rank))
            .env("GROUP_RANK", number(self.node_rank))
            .env("GROUP_WORLD_SIZE", number(self.num_nodes))
            .env("LOCAL_RANK", number(local_rank))
            .env("LOCAL_WORLD_SIZE", number(self.local_ranks))
            .env("RANK", number(self.global_rank(local_rank)))
            .env("WORLD_SIZE", number(self.world_size()))
            .env(USE_AGENT_STORE, "True");
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            command.env("OMP_NUM_THREADS", number((processors / self.local_ranks).max(1)));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The executable of this process, even if its file has been replaced since it started.
fn this_program() -> Result<PathBuf, FabricError> {
    let path = std::env::current_exe()
        .map_err(|error| FabricError::launch(format!("the path of this executable cannot be determined: {error}")))?;
    let running = PathBuf::from("/proc/self/exe");
    Ok(if path.exists() || !running.exists() { path } else { running })
}
