//! A port that the processes of one machine agree on through a file, where no launcher gives one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, thread};

use fulgurite_torch::serialization::beside;

use crate::FabricError;

/// How often the others look.
const PERIOD: Duration = Duration::from_millis(20);

/// The file where rank 0 writes its port. Removed when rank 0 has met the others.
#[derive(Debug)]
pub(super) struct PortFile {
    path: PathBuf,
    is_ours: std::cell::Cell<bool>,
}

impl PortFile {
    /// The file of the run of this name.
    pub(super) fn new(run_id: &str) -> PortFile {
        let folder = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_dir());
        let folder = folder.unwrap_or_else(env::temp_dir);
        let name: String = run_id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        PortFile { path: folder.join(format!("fulgurite-{name}.port")), is_ours: std::cell::Cell::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Rank 0: says which port. The file appears whole.
    pub(super) fn write(&self, port: u16) -> Result<(), FabricError> {
        let beside = beside(&self.path, &format!(".{}.part", std::process::id()));
        let written = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
            writeln!(file, "{port}")?;
            fs::rename(&beside, &self.path)
        };
        self.is_ours.set(true);
        written().map_err(|error| {
            FabricError::environment(format!(
                "the port of the run cannot be written to {}: {error}; set MASTER_PORT for all processes",
                self.path.display()
            ))
        })
    }

    /// The others: wait until there is a port where somebody answers.
    pub(super) fn read(&self, timeout: Duration) -> Option<u16> {
        let began = Instant::now();
        loop {
            // A file that a killed run left behind leads nowhere, until rank 0 replaces it.
            let left = timeout.saturating_sub(began.elapsed()).max(PERIOD);
            let answers = |port: &u16| TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, *port).into(), left).is_ok();
            let port = self.port().filter(answers);
            if port.is_some() || began.elapsed() > timeout {
                return port;
            }
            thread::sleep(PERIOD);
        }
    }

    fn port(&self) -> Option<u16> {
        if !is_own(&self.path)? {
            return None;
        }
        fs::read_to_string(&self.path).ok()?.trim().parse().ok()
    }
}

/// Whether a file belongs to the user of this process: anybody may write to the folder.
#[cfg(unix)]
fn is_own(path: &Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let owner = |path: &Path| fs::symlink_metadata(path).ok().map(|file| file.uid());
    // A process's own folder belongs to its user.
    let Some(user) = fs::metadata("/proc/self").ok().map(|folder| folder.uid()) else { return Some(true) };
    Some(owner(path)? == user)
}

#[cfg(not(unix))]
fn is_own(_: &Path) -> Option<bool> {
    Some(true)
}

impl Drop for PortFile {
    fn drop(&mut self) {
        if self.is_ours.get() {
            _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_taken_from_the_file_once_somebody_answers_there() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let run_id = format!("test of/ports {}", std::process::id());
        let (host, client) = (PortFile::new(&run_id), PortFile::new(&run_id));
        assert_eq!(client.read(Duration::ZERO), None);
        // Port 1 is nobody's.
        host.write(1).unwrap();
        assert_eq!(client.read(Duration::ZERO), None);
        let waiting = thread::spawn(move || client.read(Duration::from_secs(20)));
        host.write(port).unwrap();
        assert_eq!(waiting.join().unwrap(), Some(port));
        let path = host.path().to_owned();
        drop(host);
        assert!(!path.exists());
    }
}
