//! The same computation in Python (PyTorch, Lightning, torchmetrics, tensorboard) and here, number by number.
//!
//! Each file under `tests/` runs a script of `python/` with the interpreter that `cargo xtask parity` set up, reads the
//! JSON it prints last, and compares.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// Runs `python/<script>` with `args` and returns the JSON on the last line it prints.
///
/// # Panics
///
/// When the script fails; its output is part of the message.
pub fn python(script: &str, args: &[&str]) -> Value {
    static INTERPRETER: Mutex<Option<Interpreter>> = Mutex::new(None);
    let mut interpreter = INTERPRETER.lock().unwrap_or_else(PoisonError::into_inner);
    let (code, [stdout, stderr]) = interpreter.get_or_insert_with(Interpreter::start).run(script, args);
    assert!(code == 0, "{script} failed with exit code {code}:\n{stdout}\n{stderr}");
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{script} printed no JSON ({error}):\n{stdout}"))
}

/// A running `python/server.py`. It imports PyTorch and Lightning once, which takes longer than most scripts do.
struct Interpreter {
    requests: ChildStdin,
    exit_codes: BufReader<ChildStdout>,
    _process: Child,
}

impl Interpreter {
    fn start() -> Interpreter {
        let interpreter = std::env::var("FULGURITE_PARITY_PYTHON")
            .expect("FULGURITE_PARITY_PYTHON is not set: run these tests with `cargo xtask parity`");
        let mut command = Command::new(&interpreter);
        command.arg(path("server.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("Python starts");
        let requests = process.stdin.take().expect("it is piped");
        let exit_codes = BufReader::new(process.stdout.take().expect("it is piped"));
        Interpreter { requests, exit_codes, _process: process }
    }

    /// The exit code of a script, and what it printed to its standard output and error.
    fn run(&mut self, script: &str, args: &[&str]) -> (i32, [String; 2]) {
        let folder = tempfile::tempdir().expect("a folder for the output");
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.path().join(name));
        let script = path(script);
        let argv =
            Vec::from_iter([script.to_str().expect("the path is UTF-8")].into_iter().chain(args.iter().copied()));
        let request = json!({ "argv": argv, "stdout": stdout, "stderr": stderr });
        let mut exit_code = String::new();
        writeln!(self.requests, "{request}").expect("server.py reads requests");
        self.exit_codes.read_line(&mut exit_code).expect("server.py runs");
        let code = exit_code.trim().parse().unwrap_or_else(|_| panic!("server.py ended: its errors are above"));
        (code, [stdout, stderr].map(|path| text(&path)))
    }
}

fn path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script)
}

fn text(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("server.py creates the files");
    String::from_utf8_lossy(&bytes).into_owned()
}
