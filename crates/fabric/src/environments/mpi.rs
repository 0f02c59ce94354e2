//! MPI's launchers: `mpirun` and `mpiexec` of Open MPI, MPICH, Intel, MVAPICH and HPE.

use super::slurm::first_host;
use super::{ClusterEnvironment, DEFAULT_PORT, Place, ReportedCount, Variables};
use crate::FabricError;

const NAME: &str = "MPI";

/// A process that `mpirun` or `mpiexec` started. MPI itself is not used, only the environment variables of its
/// launcher.
///
/// On one machine the processes agree on a free port by themselves. On several, set `MASTER_ADDR` to the host of rank 0:
/// `mpirun -x MASTER_ADDR=$(hostname) …`; within a SLURM job it defaults to the first host of the job. Processes are assumed
/// to be placed node by node, with the same number on each.
#[derive(Debug, Clone)]
pub struct MpiEnvironment {
    place: Place,
    size_variable: &'static str,
    run_id: Option<String>,
}

/// The environment variables of one family of launchers; there may be several names for each number.
struct Names {
    rank: &'static [&'static str],
    size: &'static [&'static str],
    local_rank: &'static [&'static str],
    local_size: &'static [&'static str],
    node: &'static [&'static str],
}

const FAMILIES: [Names; 4] = [
    Names {
        rank: &["OMPI_COMM_WORLD_RANK"],
        size: &["OMPI_COMM_WORLD_SIZE"],
        local_rank: &["OMPI_COMM_WORLD_LOCAL_RANK"],
        local_size: &["OMPI_COMM_WORLD_LOCAL_SIZE"],
        node: &[],
    },
    Names {
        rank: &["MV2_COMM_WORLD_RANK"],
        size: &["MV2_COMM_WORLD_SIZE"],
        local_rank: &["MV2_COMM_WORLD_LOCAL_RANK"],
        local_size: &["MV2_COMM_WORLD_LOCAL_SIZE"],
        node: &[],
    },
    Names {
        rank: &["PALS_RANKID"],
        size: &["PMI_SIZE", "PALS_SIZE"],
        local_rank: &["PALS_LOCAL_RANKID"],
        local_size: &["PALS_LOCAL_SIZE", "PMI_LOCAL_SIZE"],
        node: &["PALS_NODEID"],
    },
    Names {
        rank: &["PMI_RANK"],
        size: &["PMI_SIZE"],
        local_rank: &["MPI_LOCALRANKID", "PMI_LOCAL_RANK"],
        local_size: &["MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"],
        node: &[],
    },
];

impl MpiEnvironment {
    /// Whether an MPI launcher has started the process, even if a scheduler started the daemon of the launcher.
    pub(crate) fn is_own_launcher(variables: &Variables<'_>) -> bool {
        let rank_variables = ["OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_RANK"];
        // `jsrun` sets the variables of Open MPI in addition to its own, which are more complete.
        rank_variables.into_iter().any(|name| variables.has(name)) && !variables.has("JSM_NAMESPACE_RANK")
    }

    pub(crate) fn read(variables: &Variables<'_>) -> Result<Option<MpiEnvironment>, FabricError> {
        for names in FAMILIES {
            let (Some((rank, rank_variable)), Some((size, size_variable))) =
                (variables.first_number(names.rank)?, variables.first_number(names.size)?)
            else {
                continue;
            };
            if size == 1 {
                return Ok(None);
            }
            return MpiEnvironment::of(variables, &names, (rank, rank_variable), (size, size_variable)).map(Some);
        }
        Ok(None)
    }

    fn of(
        variables: &Variables<'_>,
        names: &Names,
        (rank, rank_variable): (usize, &'static str),
        (size, size_variable): (usize, &'static str),
    ) -> Result<MpiEnvironment, FabricError> {
        let local = variables.first_number(names.local_size)?.filter(|(count, _)| *count > 0);
        let local_rank = match (variables.first_number(names.local_rank)?, local) {
            (Some((local_rank, _)), _) => local_rank,
            (None, Some((count, _))) => rank % count,
            (None, None) => {
                return Err(FabricError::environment(format!(
                    "MPI set {rank_variable}={rank}, but no variable specifies the local rank of this process; set {}",
                    names.local_rank[0]
                )));
            }
        };
        let node_rank = match (variables.first_number(names.node)?, local) {
            (Some((node, _)), _) => node,
            (None, Some((count, _))) => rank.saturating_sub(local_rank) / count,
            (None, None) => 0,
        };
        let is_one_node = local.is_some_and(|(count, _)| count == size);
        let list = ["SLURM_JOB_NODELIST", "SLURM_NODELIST"].into_iter().find_map(|name| variables.text(name));
        let main_address = match (variables.main_address(), list) {
            (Some(address), _) => address,
            (None, _) if is_one_node => "127.0.0.1".to_owned(),
            (None, Some(list)) => first_host(&list),
            (None, None) => {
                return Err(FabricError::environment(format!(
                    "MPI started {size} processes on several machines ({size_variable}={size}), but MASTER_ADDR, the \
                     address of rank 0, is not set; use `mpirun -x MASTER_ADDR=HOST -x MASTER_PORT=29500 …` (Open MPI) or \
                     `mpiexec -genv MASTER_ADDR HOST …`"
                )));
            }
        };
        let run_id = run_id(variables);
        // Without a shared name the processes cannot agree on a free port.
        let given = variables.main_port()?;
        let main_port = if is_one_node && run_id.is_some() { given } else { Some(given.unwrap_or(DEFAULT_PORT)) };
        let place = Place {
            main_address,
            main_port,
            world_size: size,
            global_rank: rank,
            local_rank,
            node_rank,
            local_world_size: local.map(|(count, by)| ReportedCount { count, by, remedy: "mpirun -n" }),
            num_nodes: None,
        };
        Ok(MpiEnvironment { place: place.checked(rank_variable, size_variable)?, size_variable, run_id })
    }
}

/// The id of the job, if the launcher specifies one, and the id of the launcher process.
fn run_id(variables: &Variables<'_>) -> Option<String> {
    let names = ["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PALS_APID", "MV2_COMM_WORLD_JOBID"];
    let job = names.into_iter().find_map(|name| variables.text(name)).unwrap_or_default();
    launcher_of_this_process().map(|launcher| format!("mpi-{job}-{launcher}"))
}

/// The process id and the start time of the launcher. All ranks on a machine are its children.
#[cfg(unix)]
fn launcher_of_this_process() -> Option<String> {
    let parent = std::os::unix::process::parent_id();
    let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).ok()?;
    // The start time is field 22; fields are counted from the end of the name, which may contain any character.
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
    Some(format!("{parent}-{started}"))
}

#[cfg(not(unix))]
fn launcher_of_this_process() -> Option<String> {
    None
}

impl ClusterEnvironment for MpiEnvironment {
    fn name(&self) -> &'static str {
        NAME
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn run_id(&self) -> Option<String> {
        self.run_id.clone()
    }

    fn validate_settings(&self, devices: usize, num_nodes: usize) -> Result<(), FabricError> {
        self.place.validate(NAME, devices, num_nodes)?;
        self.place.validate_product(NAME, self.size_variable, devices, num_nodes)
    }
}
