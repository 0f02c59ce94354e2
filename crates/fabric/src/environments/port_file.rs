//! A port that the processes of one machine agree on through a file, where no launcher specifies one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, thread};

use fulgurite_torch::serialization::beside;

use crate::FabricError;

/// How often the other ranks poll the file.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The file where rank 0 writes its port. Rank 0 removes it after the rendezvous.
#[derive(Debug)]
pub(super) struct PortFile {
    path: PathBuf,
    is_writer: std::cell::Cell<bool>,
}

impl PortFile {
    /// The file of the run with this id.
    pub(super) fn new(run_id: &str) -> PortFile {
        let folder = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_dir());
        let folder = folder.unwrap_or_else(env::temp_dir);
        let name: String = run_id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        PortFile { path: folder.join(format!("fulgurite-{name}.port")), is_writer: std::cell::Cell::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the port, on rank 0. The file appears atomically.
    pub(super) fn write(&self, port: u16) -> Result<(), FabricError> {
        let beside = beside(&self.path, &format!(".{}.part", std::process::id()));
        let written = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
            writeln!(file, "{port}")?;
            fs::rename(&beside, &self.path)
        };
        self.is_writer.set(true);
        written().map_err(|error| {
            FabricError::environment(format!(
                "the port of the run cannot be written to {}: {error}; set MASTER_PORT for all processes",
                self.path.display()
            ))
        })
    }

    /// Waits for a port that accepts connections, on the other ranks.
    pub(super) fn read(&self, timeout: Duration) -> Option<u16> {
        let began = Instant::now();
        loop {
            // The port in a file that a killed run left behind accepts no connections; rank 0 replaces the file.
            let left = timeout.saturating_sub(began.elapsed()).max(POLL_INTERVAL);
            let accepts = |port: &u16| TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, *port).into(), left).is_ok();
            let port = self.port().filter(accepts);
            if port.is_some() || began.elapsed() > timeout {
                return port;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn port(&self) -> Option<u16> {
        if !is_own(&self.path)? {
            return None;
        }
        fs::read_to_string(&self.path).ok()?.trim().parse().ok()
    }
}

/// Whether a file belongs to the user of this process; other users may be able to write to the folder.
#[cfg(unix)]
fn is_own(path: &Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let owner = |path: &Path| fs::symlink_metadata(path).ok().map(|file| file.uid());
    // `/proc/self` belongs to the user of the process.
    let Some(user) = fs::metadata("/proc/self").ok().map(|folder| folder.uid()) else { return Some(true) };
    Some(owner(path)? == user)
}

#[cfg(not(unix))]
fn is_own(_: &Path) -> Option<bool> {
    Some(true)
}

impl Drop for PortFile {
    fn drop(&mut self) {
        if self.is_writer.get() {
            _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_port_of_the_file_is_used_once_it_accepts_connections() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let run_id = format!("test of/ports {}", std::process::id());
        let (host, client) = (PortFile::new(&run_id), PortFile::new(&run_id));
        assert_eq!(client.read(Duration::ZERO), None);
        // Nothing listens at port 1.
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
