//! The trackers' own programs, which `cargo xtask services` installs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The folder of the programs; `None`, with a sentence, if this one is not installed.
pub(crate) fn programs(program: &str) -> Option<PathBuf> {
    let python = std::env::var_os("FULGURITE_SERVICES_PYTHON").map(PathBuf::from).unwrap_or_default();
    let folder = python.parent().filter(|folder| folder.join(program).exists());
    if folder.is_none() {
        println!("skipped: there is no {program}; `cargo xtask services` runs this with one");
    }
    folder.map(|folder| folder.canonicalize().unwrap())
}

/// An MLflow server on a free port of this machine, which ends with this value.
pub(crate) struct MlflowServer {
    pub(crate) url: String,
    port: u16,
    folder: PathBuf,
    programs: PathBuf,
    process: Option<Child>,
}

impl MlflowServer {
    pub(crate) fn start(programs: &Path, folder: &Path) -> MlflowServer {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let mut server = MlflowServer { url, port, folder: folder.into(), programs: programs.into(), process: None };
        server.go_on();
        server
    }

    /// Starts it, or starts it again with what it has.
    pub(crate) fn go_on(&mut self) {
        let log = std::fs::File::create(self.folder.join("server.log")).unwrap();
        let mut command = Command::new(self.programs.join("mlflow"));
        command
            .args(["server", "--host", "127.0.0.1", "--workers", "1", "--port", &self.port.to_string()])
            .arg("--backend-store-uri")
            .arg(format!("sqlite:///{}", self.folder.join("mlflow.db").display()))
            .arg("--artifacts-destination")
            .arg(self.folder.join("artifacts"))
            .envs([("MLFLOW_DISABLE_TELEMETRY", "true"), ("DO_NOT_TRACK", "true")])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null());
        // With its workers it is a group of its own, so that all of them end.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.process = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !self.is_healthy() {
            let log = || std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(180), "the MLflow server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn is_healthy(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let group = format!("-{}", process.id());
        Command::new("kill").args(["-KILL", "--", &group]).status().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for MlflowServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a script with the trackers' Python, and returns what it prints.
pub(crate) fn python(programs: &Path, script: &str, args: &[&str]) -> String {
    let mut command = Command::new(programs.join("python"));
    command.args(["-c", script]).args(args).envs([("MLFLOW_DISABLE_TELEMETRY", "true"), ("DO_NOT_TRACK", "true")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The folder with the packages of Lightning, which `cargo xtask parity` installs; `None`, with a sentence, if there is none.
pub(crate) fn lightning() -> Option<PathBuf> {
    let named = std::env::var_os("FULGURITE_PARITY_PYTHON").map(PathBuf::from);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/parity/bin/python");
    let lib = named.unwrap_or(own).parent()?.parent()?.join("lib");
    let pythons = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let mut packages = pythons.map(|python| python.path().join("site-packages"));
    let found = packages.find(|packages| packages.join("lightning").exists());
    if found.is_none() {
        println!("Not compared with Lightning, which is not installed here; `cargo xtask setup --python` installs it.");
    }
    found
}
