//! The same computation in Python (PyTorch, Lightning, torchmetrics, tensorboard) and here, number by number.
//!
//! Each file under `tests/` runs a script of `python/` with the interpreter that `cargo xtask parity` set up, reads the
//! JSON it prints last, and compares.

use std::path::Path;
use std::process::Command;

/// Runs `python/<script>` with `args` and returns the JSON on the last line it prints.
///
/// # Panics
///
/// When the script fails; its output is part of the message.
pub fn python(script: &str, args: &[&str]) -> serde_json::Value {
    let interpreter = std::env::var("FULGURITE_PARITY_PYTHON")
        .expect("FULGURITE_PARITY_PYTHON is not set: run these tests with `cargo xtask parity`");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let output = Command::new(&interpreter).arg(&path).args(args).output().expect("Python starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{script} failed:\n{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{script} printed no JSON ({error}):\n{stdout}"))
}
