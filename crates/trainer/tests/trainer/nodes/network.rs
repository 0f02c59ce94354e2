//! Two machines and the cable between them: network namespaces and a pair of virtual Ethernet devices.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where node 0 is reached.
pub(crate) const MAIN_ADDRESS: &str = "10.77.0.1";

/// Ends with everything that runs on it.
pub(crate) struct Network {
    /// The namespaces, by node.
    nodes: [String; 2],
    /// Node 1's end of the cable.
    device: String,
}

/// Runs `ip`.
fn ip(words: &str) -> Result<String, String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("`ip` does not run ({error}; Debian: iproute2)"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("`ip {words}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Network {
    /// `Err` says why there is none.
    pub(crate) fn new() -> Result<Network, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("fg{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let network = Network { nodes: [format!("{name}a"), format!("{name}b")], device: format!("{name}b") };
        let [first, second] = &network.nodes;
        ip(&format!("netns add {first}"))?;
        ip(&format!("netns add {second}"))?;
        ip(&format!("link add {name}a netns {first} type veth peer name {name}b netns {second}"))?;
        for (node, address) in [(first, MAIN_ADDRESS), (second, "10.77.0.2")] {
            // The devices are called as the namespaces are.
            ip(&format!("-n {node} addr add {address}/30 dev {node}"))?;
            ip(&format!("-n {node} link set {node} up"))?;
            ip(&format!("-n {node} link set lo up"))?;
        }
        ip(&format!("netns exec {first} true"))?;
        Ok(network)
    }

    /// A program on one of the nodes.
    pub(crate) fn command(&self, node: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.nodes[node]]).arg(program);
        command
    }

    /// Disconnects the cable: no packets arrive any more, and no connection is closed.
    pub(crate) fn cut(&self) {
        ip(&format!("-n {} link set {} down", self.nodes[1], self.device)).unwrap();
    }

    /// Plugs it in again.
    pub(crate) fn mend(&self) {
        ip(&format!("-n {} link set {} up", self.nodes[1], self.device)).unwrap();
    }

    /// The processes on a node.
    pub(crate) fn processes(&self, node: usize) -> Vec<String> {
        let found = ip(&format!("netns pids {}", self.nodes[node])).unwrap_or_default();
        found.split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (node, name) in self.nodes.iter().enumerate() {
            let processes = self.processes(node);
            if !processes.is_empty() {
                _ = Command::new("kill").arg("-KILL").args(processes).status();
            }
            _ = ip(&format!("netns del {name}"));
        }
    }
}
