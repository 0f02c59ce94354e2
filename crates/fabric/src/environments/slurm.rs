//! The SLURM scheduler: tasks that `srun` started, and the job they belong to.

use std::process::Command;
use std::time::Duration;
use std::{fmt, thread};

use super::{ClusterEnvironment, DEFAULT_PORT, Place, ReportedCount, Variables};
use crate::FabricError;

const NAME: &str = "SLURM";

/// How often `scontrol` is tried, and the pause between attempts, which grows with each.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// A task that `srun` started.
///
/// The main address is `MASTER_ADDR`, or the first host of the step; the port is `MASTER_PORT`, or 15000 plus
/// the last four digits of the job id.
#[derive(Debug, Clone)]
pub struct SlurmEnvironment {
    place: Place,
}

impl SlurmEnvironment {
    pub(crate) fn read(variables: &Variables<'_>) -> Result<Option<SlurmEnvironment>, FabricError> {
        if !variables.has("SLURM_NTASKS") || is_interactive(variables) {
            return Ok(None);
        }
        let world_size = variables.required("SLURM_NTASKS", NAME)?;
        let nodes = variables.first_number(&["SLURM_NNODES", "SLURM_JOB_NUM_NODES"])?;
        let place = Place {
            main_address: variables.main_address().unwrap_or_else(|| main_address(variables)),
            main_port: Some(main_port(variables)?),
            world_size,
            global_rank: of_task(variables, "SLURM_PROCID")?,
            local_rank: of_task(variables, "SLURM_LOCALID")?,
            node_rank: of_task(variables, "SLURM_NODEID")?,
            local_world_size: tasks_per_node(variables, world_size)?,
            num_nodes: nodes.map(|(count, by)| ReportedCount { count, by, remedy: "--nodes" }),
        };
        Ok(Some(SlurmEnvironment { place: place.checked("SLURM_PROCID", "SLURM_NTASKS")? }))
    }
}

impl ClusterEnvironment for SlurmEnvironment {
    fn name(&self) -> &'static str {
        NAME
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn validate_settings(&self, devices: usize, num_nodes: usize) -> Result<(), FabricError> {
        self.place.validate(NAME, devices, num_nodes)?;
        self.place.validate_product(NAME, "SLURM_NTASKS", devices, num_nodes)
    }
}

/// A number that `srun` sets for each task.
fn of_task(variables: &Variables<'_>, name: &str) -> Result<usize, FabricError> {
    variables.number(name)?.ok_or_else(|| {
        FabricError::environment(format!(
            "SLURM_NTASKS indicates a SLURM job, but {name} is not set, so `srun` did not start this process; start the \
             program with `srun`, or name the job `interactive`"
        ))
    })
}

/// The number of tasks on each node: as the job requested it, or as the scheduler distributed `--ntasks` if that is even.
fn tasks_per_node(variables: &Variables<'_>, world_size: usize) -> Result<Option<ReportedCount>, FabricError> {
    const REMEDY: &str = "--ntasks-per-node";
    if let Some(count) = variables.number("SLURM_NTASKS_PER_NODE")? {
        return Ok(Some(ReportedCount { count, by: "SLURM_NTASKS_PER_NODE", remedy: REMEDY }));
    }
    if world_size == 1 {
        return Ok(None);
    }
    for by in ["SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"] {
        let Some(text) = variables.text(by) else { continue };
        // `4(x2)`: four on each of two nodes; `4,2`: an uneven distribution.
        let count = text.split('(').next().and_then(|count| count.parse().ok());
        if let Some(count) = count.filter(|_| !text.contains(',')) {
            return Ok(Some(ReportedCount { count, by, remedy: REMEDY }));
        }
        return Err(FabricError::environment(format!(
            "SLURM distributed {world_size} tasks unevenly over the nodes ({by}={text}), but a run needs the same number \
             on each; use `--ntasks-per-node` instead of `--ntasks`"
        )));
    }
    Err(FabricError::environment(format!(
        "SLURM_NTASKS={world_size} does not specify the number of tasks on each node, which `devices` must match; \
         use `--ntasks-per-node` instead of `--ntasks={world_size}`"
    )))
}

/// The first host of the step, or of the job.
fn main_address(variables: &Variables<'_>) -> String {
    let lists = ["SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST"];
    let list = lists.into_iter().find_map(|name| variables.text(name));
    list.map_or("127.0.0.1".to_owned(), |list| first_host(&list))
}

fn main_port(variables: &Variables<'_>) -> Result<u16, FabricError> {
    if let Some(port) = variables.main_port()? {
        return Ok(port);
    }
    let Some(id) = variables.text("SLURM_JOB_ID") else { return Ok(DEFAULT_PORT) };
    let last_four = id.get(id.len().saturating_sub(4)..).and_then(|digits| digits.parse::<u16>().ok());
    Ok(last_four.map_or(DEFAULT_PORT, |digits| 15000 + digits))
}

/// The first host of a list in SLURM's notation: `rack[1-2]node[03,07-09]-ib,login` begins with `rack1node03-ib`.
pub(crate) fn first_host(list: &str) -> String {
    let mut host = String::new();
    let mut chars = list.trim_start().chars();
    while let Some(c) = chars.next() {
        match c {
            ',' | ' ' => break,
            '[' => {
                let range: String = chars.by_ref().take_while(|c| *c != ']').collect();
                host.extend(range.chars().take_while(|c| !matches!(c, ',' | '-')));
            }
            c => host.push(c),
        }
    }
    host
}

/// Whether this is an interactive shell within a job rather than the job itself.
fn is_interactive(variables: &Variables<'_>) -> bool {
    matches!(variables.text("SLURM_JOB_NAME").as_deref(), Some("bash" | "interactive"))
}

/// The job that this process belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmJob {
    id: String,
    /// The id that `scontrol` expects: a task of an array is identified by the ids of the array and of the task.
    name: String,
}

impl SlurmJob {
    /// The job that the variables describe, which `variable` looks up. `None` outside a job, and in an interactive shell
    /// within one.
    pub fn of(variable: &dyn Fn(&str) -> Option<String>) -> Option<SlurmJob> {
        let variables = Variables::new(variable);
        let id = variables.text("SLURM_JOB_ID")?;
        if is_interactive(&variables) {
            return None;
        }
        let name = match (variables.text("SLURM_ARRAY_JOB_ID"), variables.text("SLURM_ARRAY_TASK_ID")) {
            (Some(array), Some(task)) => format!("{array}_{task}"),
            _ => id.clone(),
        };
        Some(SlurmJob { id, name })
    }

    /// The job of this process.
    pub fn current() -> Option<SlurmJob> {
        SlurmJob::of(&|name| std::env::var(name).ok())
    }

    /// `SLURM_JOB_ID`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Requeues the job.
    ///
    /// # Errors
    ///
    /// Fails if `scontrol` cannot be run, or if it fails three times; the error contains its output.
    pub fn requeue(&self) -> Result<(), String> {
        let mut error = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                thread::sleep(PAUSE * attempt);
            }
            let output = match Command::new("scontrol").args(["requeue", &self.name]).output() {
                Ok(output) => output,
                Err(cause) => return Err(format!("`scontrol` cannot be run: {cause}")),
            };
            if output.status.success() {
                return Ok(());
            }
            let stderr = String::from_utf8_lossy(&output.stderr);
            error = format!("`scontrol requeue {}` failed with {}: {}", self.name, output.status, stderr.trim());
        }
        Err(format!("{error} ({ATTEMPTS} attempts)"))
    }
}

/// The id that `scontrol` expects.
impl fmt::Display for SlurmJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::{SlurmJob, first_host};

    #[test]
    fn a_job_is_recognized_and_named() {
        let job = |variables: &[(&str, &str)]| {
            let found =
                SlurmJob::of(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into()));
            found.map_or("none".to_owned(), |job| format!("{} {job}", job.id))
        };
        assert_eq!(job(&[]), "none");
        assert_eq!(job(&[("SLURM_JOB_ID", "")]), "none");
        assert_eq!(job(&[("SLURM_JOB_ID", "12")]), "12 12");
        assert_eq!(job(&[("SLURM_JOB_ID", "12"), ("SLURM_JOB_NAME", "train")]), "12 12");
        assert_eq!(job(&[("SLURM_JOB_ID", "12"), ("SLURM_JOB_NAME", "bash")]), "none");
        assert_eq!(job(&[("SLURM_JOB_ID", "12"), ("SLURM_JOB_NAME", "interactive")]), "none");
        let array = [("SLURM_JOB_ID", "12"), ("SLURM_ARRAY_JOB_ID", "10"), ("SLURM_ARRAY_TASK_ID", "3")];
        assert_eq!(job(&array), "12 10_3");
    }

    #[test]
    fn the_first_host_of_a_list() {
        for (list, first) in [
            ("", ""),
            ("alone", "alone"),
            ("host0 host1 host3", "host0"),
            ("host0,host1,host3", "host0"),
            ("host[5-9]", "host5"),
            ("host[5]", "host5"),
            ("host[5,7]", "host5"),
            ("gpu[001-004,007]", "gpu001"),
            ("gpu[007,001-004],cpu[1-2]", "gpu007"),
            ("rack[1-2]node[3,5]", "rack1node3"),
            ("node[1-3]-ib,other", "node1-ib"),
            ("a-b-c[10-12]", "a-b-c10"),
            ("plain,node[1-3]", "plain"),
            ("10.0.0.1,10.0.0.2", "10.0.0.1"),
        ] {
            assert_eq!(first_host(list), first, "{list}");
        }
    }
}
