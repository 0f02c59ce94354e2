//! [`Machine`]: a machine with nothing on it but what a test puts there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A pip that installs something that looks like libtorch.
pub(crate) const GOOD_PYTHON: &str = r#"
case "$*" in
    *install*) ;;
    *) exit 0 ;;
esac
while [ "$1" != --target ]; do shift; done
/bin/mkdir -p "$2/torch/lib"
: > "$2/torch/lib/libtorch_cpu.so"
: > "$2/torch/lib/libtorch_cpu.dylib"
echo "__version__ = '2.11.0+cu130'" > "$2/torch/version.py"
"#;

/// It is played by a `PATH` of one folder.
pub(crate) struct Machine(TempDir);

#[allow(dead_code, reason = "each test program needs some of it")]
impl Machine {
    /// A machine with these programs, each a shell script.
    pub(crate) fn with(programs: &[(&str, &str)]) -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        fs::create_dir(machine.path("bin")).unwrap();
        for (name, script) in programs {
            machine.install(name, script);
        }
        machine
    }

    pub(crate) fn install(&self, name: &str, script: &str) {
        let program = self.path("bin").join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The call of a program with nothing in its environment but that `PATH`.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(self.0.path()).env_clear().env("PATH", self.path("bin"));
        command
    }

    /// A text with the machine's folder called `/root`.
    pub(crate) fn anonymous(&self, text: &str) -> String {
        text.replace(&self.0.path().display().to_string(), "/root")
    }
}
