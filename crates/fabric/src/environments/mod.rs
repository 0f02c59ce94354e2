//! The ranks of a process, read from the environment variables that its launcher sets.
//!
//! | environment | recognized by | processes are started by |
//! |---|---|---|
//! | [`LightningEnvironment`], supervised | `FULGURITE_SUPERVISOR` | the program itself ([`launcher`](crate::launcher)) |
//! | [`TorchElasticEnvironment`] | `TORCHELASTIC_RUN_ID` | `torchrun` |
//! | [`MpiEnvironment`] | `OMPI_COMM_WORLD_RANK`, `MPI_LOCALRANKID`, `MV2_COMM_WORLD_RANK` | `mpirun`, `mpiexec` |
//! | [`SlurmEnvironment`] | `SLURM_NTASKS`, in a job not named `bash` or `interactive` | `srun` |
//! | [`LsfEnvironment`] | `LSB_JOBID`, `LSB_DJOB_RANKFILE`, `JSM_NAMESPACE_SIZE`, `JSM_NAMESPACE_LOCAL_RANK` | `jsrun` |
//! | [`MpiEnvironment`] | `PMI_RANK`, `PALS_RANKID` | `mpiexec` of another kind |
//! | [`KubeflowEnvironment`] | `PET_NNODES`; or `RANK` and `WORLD_SIZE` without `LOCAL_RANK` | the cluster, a pod each |
//! | [`LightningEnvironment`], plain variables | `LOCAL_RANK` | another program |
//! | [`LightningEnvironment`] | always | the program itself |
//!
//! The first one detected is used. The order is that of Lightning except for two rows: `mpirun` within a SLURM job has
//! precedence over SLURM, whose variables then describe the daemon of `mpirun`, and Lightning does not detect Kubeflow.
//!
//! ```
//! use fulgurite_fabric::environments;
//!
//! let started_by = |name: &str| match name {
//!     "LOCAL_RANK" | "RANK" => Some("1".to_owned()),
//!     "WORLD_SIZE" => Some("2".to_owned()),
//!     "MASTER_ADDR" => Some("127.0.0.1".to_owned()),
//!     "MASTER_PORT" => Some("29500".to_owned()),
//!     _ => None,
//! };
//! let environment = environments::detect(&started_by).unwrap();
//! assert_eq!((environment.global_rank(), environment.world_size()), (1, 2));
//! assert!(environment.creates_processes_externally());
//!
//! let error = environment.validate_settings(4, 1).unwrap_err();
//! assert!(error.to_string().contains("devices=4"));
//! ```

mod environment;
mod failure;
mod identity;
mod kubeflow;
mod lightning;
mod lsf;
mod mpi;
mod place;
mod port_file;
pub(crate) mod rendezvous;
pub(crate) mod run_token;
mod slurm;
mod torchelastic;
mod variables;

pub(crate) use environment::DEFAULT_PORT;
pub use environment::{ClusterEnvironment, SUPERVISOR, USE_AGENT_STORE};
pub use failure::record_failure;
pub use kubeflow::KubeflowEnvironment;
pub use lightning::LightningEnvironment;
pub use lsf::LsfEnvironment;
pub use mpi::MpiEnvironment;
pub use place::{Place, ReportedCount};
pub use rendezvous::rendezvous;
pub use run_token::RUN_TOKEN;
pub use slurm::{SlurmEnvironment, SlurmJob};
pub use torchelastic::TorchElasticEnvironment;
pub(crate) use variables::Variables;

use crate::FabricError;

/// The variables that the program's own launcher sets for its ranks.
const RANK_VARIABLES: &[&str] = &[
    SUPERVISOR,
    USE_AGENT_STORE,
    "MASTER_ADDR",
    "MASTER_PORT",
    "NODE_RANK",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "RANK",
    "WORLD_SIZE",
];

/// Whether the program's own launcher has started this process and supervises it.
pub fn is_supervised() -> bool {
    #[cfg(unix)]
    let parent = Some(std::os::unix::process::parent_id());
    #[cfg(not(unix))]
    let parent: Option<u32> = None;
    let supervisor = std::env::var(SUPERVISOR).ok();
    supervisor.is_some_and(|id| parent.is_none_or(|parent| id == parent.to_string()))
}

/// The environment of this process.
///
/// A program that a rank starts is not that rank, and ignores the variables of the rank.
///
/// # Errors
///
/// Fails as [`detect`] does.
pub fn current() -> Result<Box<dyn ClusterEnvironment>, FabricError> {
    let is_started_by_rank = std::env::var_os(SUPERVISOR).is_some() && !is_supervised();
    detect(&|name| std::env::var(name).ok().filter(|_| !(is_started_by_rank && RANK_VARIABLES.contains(&name))))
}

/// The environment that the variables describe, which `variable` looks up.
///
/// # Errors
///
/// Fails if a variable of the detected environment is missing, or if a value is invalid.
pub fn detect(variable: &dyn Fn(&str) -> Option<String>) -> Result<Box<dyn ClusterEnvironment>, FabricError> {
    let variables = Variables::new(variable);
    if variables.has(SUPERVISOR) {
        return Ok(Box::new(LightningEnvironment::read(&variables)?));
    }
    if let Some(found) = TorchElasticEnvironment::read(&variables)? {
        return Ok(Box::new(found));
    }
    if MpiEnvironment::is_own_launcher(&variables)
        && let Some(found) = MpiEnvironment::read(&variables)?
    {
        return Ok(Box::new(found));
    }
    if let Some(found) = SlurmEnvironment::read(&variables)? {
        return Ok(Box::new(found));
    }
    if let Some(found) = LsfEnvironment::read(&variables)? {
        return Ok(Box::new(found));
    }
    if let Some(found) = MpiEnvironment::read(&variables)? {
        return Ok(Box::new(found));
    }
    if let Some(found) = KubeflowEnvironment::read(&variables)? {
        return Ok(Box::new(found));
    }
    Ok(Box::new(LightningEnvironment::read(&variables)?))
}

#[cfg(test)]
mod tests;
