//! The LSF scheduler and its `jsrun`.

use std::fs;

use super::variables::missing;
use super::{ClusterEnvironment, Place, ReportedCount, Variables};
use crate::FabricError;

const NAME: &str = "LSF";

/// A task that `jsrun` started.
///
/// Hosts are read from the rank file of the job; its first line is the launch node, where no task runs. The port is
/// `MASTER_PORT`, or 10000 plus the last three digits of the job id.
#[derive(Debug, Clone)]
pub struct LsfEnvironment {
    place: Place,
}

impl LsfEnvironment {
    pub(crate) fn read(variables: &Variables<'_>) -> Result<Option<LsfEnvironment>, FabricError> {
        let required = ["LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"];
        if !required.into_iter().all(|name| variables.has(name)) {
            return Ok(None);
        }
        let hosts = hosts(variables)?;
        let here = gethostname::gethostname().to_string_lossy().into_owned();
        let mut nodes: Vec<&str> = Vec::new();
        for host in &hosts {
            if !nodes.contains(&host.as_str()) {
                nodes.push(host);
            }
        }
        // The file may have fully qualified names and the host name be short, or the reverse.
        let is_here = |host: &str| host == here || host.split('.').next() == here.split('.').next();
        let node_rank = nodes.iter().position(|host| is_here(host)).ok_or_else(|| {
            FabricError::environment(format!(
                "this machine, {here}, is not one of the hosts that LSB_DJOB_RANKFILE lists ({}); start the program with `jsrun`",
                nodes.join(", ")
            ))
        })?;
        let job: u64 = variables.number("LSB_JOBID")?.unwrap_or_default();
        let derived = u16::try_from(job % 1000 + 10000).unwrap_or(super::DEFAULT_PORT);
        let place = Place {
            main_address: hosts[0].clone(),
            main_port: Some(variables.main_port()?.unwrap_or(derived)),
            world_size: variables.required("JSM_NAMESPACE_SIZE", NAME)?,
            global_rank: variables.required("JSM_NAMESPACE_RANK", NAME)?,
            local_rank: variables.required("JSM_NAMESPACE_LOCAL_RANK", NAME)?,
            node_rank,
            local_world_size: None,
            num_nodes: Some(ReportedCount { count: nodes.len(), by: "LSB_DJOB_RANKFILE", remedy: "bsub -nnodes" }),
        };
        Ok(Some(LsfEnvironment { place: place.checked("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE")? }))
    }
}

/// The host of each task, without the launch node.
fn hosts(variables: &Variables<'_>) -> Result<Vec<String>, FabricError> {
    let path = variables.text("LSB_DJOB_RANKFILE").ok_or_else(|| missing("LSB_DJOB_RANKFILE", NAME))?;
    let text = fs::read_to_string(&path).map_err(|error| {
        FabricError::environment(format!("the rank file LSB_DJOB_RANKFILE={path} cannot be read: {error}"))
    })?;
    let hosts: Vec<String> =
        text.lines().skip(1).map(|line| line.trim().to_owned()).filter(|h| !h.is_empty()).collect();
    if hosts.is_empty() {
        return Err(FabricError::environment(format!(
            "the rank file LSB_DJOB_RANKFILE={path} lists no host after the launch node"
        )));
    }
    Ok(hosts)
}

impl ClusterEnvironment for LsfEnvironment {
    fn name(&self) -> &'static str {
        NAME
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn validate_settings(&self, devices: usize, num_nodes: usize) -> Result<(), FabricError> {
        self.place.validate(NAME, devices, num_nodes)?;
        self.place.validate_product(NAME, "JSM_NAMESPACE_SIZE", devices, num_nodes)
    }
}
