//! `cargo xtask setup` on machines that lack something, played by a PATH with nothing on it but what a test puts there.

#![cfg(unix)]

#[path = "../../crates/cli/tests/cli/machine.rs"]
mod machine;
#[path = "../src/unoptimized.rs"]
mod unoptimized;

use std::fs;
use std::path::{Path, PathBuf};

use machine::{GOOD_PYTHON, Machine};

/// The call of cargo that builds tests, with what follows.
fn test(rest: &str) -> String {
    unoptimized::options().fold("test --release ".to_owned(), |test, option| test + &option + " ") + rest
}

/// The first call for comparisons with Python.
fn examples() -> String {
    test(&format!("{COMPARISONS} --examples")).replacen("test", "build", 1)
}

/// What the comparisons are chosen from.
const COMPARISONS: &str = "--workspace --exclude fulgurite-bench";

trait Xtask {
    /// Runs a command of xtask; returns whether it succeeded and what it said on the error output.
    fn xtask(&self, args: &[&str]) -> (bool, String) {
        self.xtask_with(args, &[])
    }
    fn xtask_with(&self, args: &[&str], variables: &[(&str, &str)]) -> (bool, String);
    fn setup_fails_with(&self, sentence: &str);
}

impl Xtask for Machine {
    fn xtask_with(&self, args: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
        let output = self
            .command(env!("CARGO_BIN_EXE_xtask"))
            .args(args)
            .env("CARGO", self.path("bin/cargo"))
            .env("CARGO_MANIFEST_DIR", self.path("xtask"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    fn setup_fails_with(&self, sentence: &str) {
        let (success, said) = self.xtask(&["setup"]);
        assert!(!success);
        assert_eq!(self.anonymous(&said), format!("error: {sentence}\n"));
        assert!(!self.path(".libtorch").exists(), "a half set-up was left");
    }
}

#[test]
fn an_old_cargo_is_to_be_updated() {
    Machine::with(&[("cargo", "echo 'cargo 1.93.1 (abc 2026-01-01)'")])
        .setup_fails_with("cargo 1.93 is too old, 1.94 or later is needed: run `rustup update stable`");
}

#[test]
fn without_a_compiler_one_is_to_be_installed() {
    Machine::with(&[]).setup_fails_with(
        "there is no C++ compiler (`c++`, the usual name, does not run): install one, with `apt install g++` on Debian and Ubuntu, `dnf install gcc-c++` on Fedora, `xcode-select --install` on macOS",
    );
}

#[test]
fn without_python_it_is_to_be_installed() {
    Machine::with(&[("c++", "")]).setup_fails_with(
        "there is no Python (`python3`), whose pip fetches PyTorch's packages: install it, with `apt install python3-pip` on Debian and Ubuntu, `dnf install python3-pip` on Fedora, `brew install python` on macOS",
    );
}

#[test]
fn without_pip_it_is_to_be_installed() {
    let python = "case \"$*\" in *pip*) echo 'No module named pip' >&2; exit 1;; esac";
    Machine::with(&[("c++", ""), ("python3", python)]).setup_fails_with(
        "Python has no pip (`python3 -m pip` does not run): install it, with `apt install python3-pip` on Debian and Ubuntu, `dnf install python3-pip` on Fedora, `python3 -m ensurepip` elsewhere",
    );
}

#[test]
fn without_room_the_disk_is_named() {
    let df = "echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'; echo '/dev/sda 9 8 2000000 80% /'";
    Machine::with(&[("c++", ""), ("python3", GOOD_PYTHON), ("df", df)]).setup_fails_with(
        "libtorch does not fit on the disk of /root: it needs 3.0 GB while it is installed, and 2.0 GB are free; make room and try again",
    );
}

#[test]
fn without_a_network_it_is_asked_for() {
    let python = "case \"$*\" in *install*)
        echo \"WARNING: Retrying after connection broken by 'NewConnectionError()': /simple/torch/\" >&2
        echo 'ERROR: No matching distribution found for torch==2.11.0' >&2
        exit 1
    esac";
    Machine::with(&[("c++", ""), ("python3", python)]).setup_fails_with(
        "cannot reach pip's package index, from which libtorch comes: connect this machine to the network, or configure pip's index-url or proxy, and try again",
    );
}

#[test]
fn an_interrupted_set_up_is_begun_anew_and_then_is_complete() {
    let machine = Machine::with(&[("c++", ""), ("python3", "case \"$*\" in *install*) kill -9 $$;; esac")]);
    let left = machine.path(".libtorch.partial/packages/torch/lib");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("half"), "").unwrap();
    machine.setup_fails_with("pip could not install libtorch: no reason given");

    machine.install("python3", GOOD_PYTHON);
    assert_eq!(machine.xtask(&["setup"]), (true, String::new()));
    assert!(machine.path(".libtorch/torch/version.py").exists());
    assert!(!machine.path(".libtorch/torch/lib/half").exists());
    assert!(!machine.path(".libtorch.partial").exists());
    let config = fs::read_to_string(machine.path(".cargo/libtorch.toml")).unwrap();
    assert!(config.contains(&format!("LIBTORCH = \"{}\"", machine.path(".libtorch/torch").display())), "{config}");

    // What is done already needs neither Python nor pip.
    fs::remove_file(machine.path("bin/python3")).unwrap();
    assert_eq!(machine.xtask(&["setup"]), (true, String::new()));
}

/// A machine that is set up, with a cargo that writes down how it was called.
fn set_up() -> Machine {
    let cargo = "case \"$*\" in --version) echo 'cargo 1.95.0';; *) echo \"$@\" > ../calls; echo \"$FULGURITE_PARITY_PYTHON\" >> ../calls; exit 7;; esac";
    let machine =
        Machine::with(&[("c++", ""), ("python3", GOOD_PYTHON), ("cargo", &cargo.replace("../calls", "calls"))]);
    assert_eq!(machine.xtask(&["setup"]), (true, String::new()));
    machine
}

#[test]
fn flags_that_hide_libtorch_are_warned_of() {
    let said = "warning: RUSTFLAGS is set, so cargo ignores the flags that let programs find libtorch: unset it, or move its flags to `target.<triple>.rustflags` in ~/.cargo/config.toml\n";
    let with_flags = set_up().xtask_with(&["setup"], &[("RUSTFLAGS", "-D warnings")]);
    assert_eq!(with_flags, (true, said.to_owned()));
}

#[test]
fn a_python_that_is_named_is_taken_and_must_be_there() {
    let machine = set_up();
    let named = machine.path("bin/python3").display().to_string();
    machine.xtask_with(&["parity"], &[("FULGURITE_PARITY_PYTHON", &named)]);
    let calls = fs::read_to_string(machine.path("calls")).unwrap();
    assert_eq!(calls, format!("{}\n{named}\n", examples()));

    let said = "error: FULGURITE_PARITY_PYTHON names /nowhere, which does not exist: point it to a Python that has what tests/parity/requirements.txt lists, or unset it\n";
    assert_eq!(machine.xtask_with(&["parity"], &[("FULGURITE_PARITY_PYTHON", "/nowhere")]), (false, said.to_owned()));
}

#[test]
fn commands_are_cargos_with_what_was_said_after_them() {
    let machine = set_up();
    let called = |args: &[&str]| {
        machine.xtask(args);
        fs::read_to_string(machine.path("calls")).unwrap()
    };
    let gpt = "run --release --example gpt -- fit --trainer.max_steps 200\n\n";
    assert_eq!(called(&["gpt", "--trainer.max_steps", "200"]), gpt);
    assert_eq!(called(&["gpt", "--max-steps", "200"]), gpt);
    let seeded = "run --release --example digits -- fit --seed_everything=3 --trainer.max_epochs=2\n\n";
    assert_eq!(called(&["digits", "--seed_everything=3", "--max-epochs=2"]), seeded);
    assert_eq!(called(&["digits", "test"]), "run --release --example digits -- test\n\n");
    assert_eq!(called(&["digits", "--", "--help"]), "run --release --example digits -- --help\n\n");
    let all = "--workspace --exclude fulgurite-parity --exclude fulgurite-bench";
    assert_eq!(called(&["test", "--doc"]), test(&format!("{all} --doc\n\n")));
    assert_eq!(called(&["test", "-p", "xtask"]), test("-p xtask\n\n"));
    let python = machine.path("bin/python3").display().to_string();
    machine.xtask_with(&["parity", "--test", "torchrun"], &[("FULGURITE_PARITY_PYTHON", &python)]);
    let calls = fs::read_to_string(machine.path("calls")).unwrap();
    assert_eq!(calls, test(&format!("--workspace --exclude fulgurite-bench --test torchrun\n{python}\n")));
}

#[test]
fn cargo_does_not_see_what_cargo_said_of_this_package() {
    let machine = set_up();
    let said = "\"$CARGO_PKG_NAME|$CARGO_MANIFEST_DIR|$PL_GLOBAL_SEED\"";
    machine.install("cargo", &format!("case \"$*\" in --version) echo 'cargo 1.95.0';; *) echo {said} > calls;; esac"));
    machine.xtask_with(&["test", "--doc"], &[("CARGO_PKG_NAME", "xtask"), ("PL_GLOBAL_SEED", "7")]);
    assert_eq!(fs::read_to_string(machine.path("calls")).unwrap(), "||7\n");
}

/// Whatever is not among the tests that run beside the others is among the others.
#[test]
fn all_tests_are_built_and_run_once() {
    let machine = set_up();
    machine.install("cargo", "case \"$*\" in --version) echo 'cargo 1.95.0';; *) echo \"$@\" >> calls;; esac");
    let python = machine.path("bin/python3").display().to_string();
    let called = |command: &str, packages: &str| {
        assert!(machine.xtask_with(&[command], &[("FULGURITE_PARITY_PYTHON", &python)]).0);
        let calls = fs::read_to_string(machine.path("calls")).unwrap();
        let calls = calls.lines().filter_map(|line| line.strip_prefix(&test(packages)));
        let mut calls: Vec<_> = calls.map(str::to_owned).collect();
        calls.sort_unstable();
        calls
    };
    let expected = [
        " --lib --bins --tests --no-fail-fast -- --skip launcher:: --skip nodes:: --skip ranks::",
        " --lib --bins --tests --no-fail-fast -- launcher:: nodes:: ranks::",
        " --no-fail-fast --doc",
        " --no-run",
    ];
    assert_eq!(called("test", "--workspace --exclude fulgurite-parity --exclude fulgurite-bench"), expected);
    let expected = [
        " --no-fail-fast -- --skip metrics:: --skip random_configurations:: --skip training::",
        " --no-fail-fast -- metrics:: random_configurations:: training::",
        " --no-run",
    ];
    assert_eq!(called("parity", &format!("{COMPARISONS} --test parity --test torchrun")), expected);
}

#[test]
fn a_command_that_cargo_does_not_know_lists_nothing_but_says_where_to_look() {
    let said = "error: there is no command `tset`: `cargo xtask help` lists them\n";
    assert_eq!(Machine::with(&[]).xtask(&["tset"]), (false, said.to_owned()));
}

fn with_requirements(machine: &Machine) -> PathBuf {
    let requirements = machine.path("tests/parity/requirements.txt");
    fs::create_dir_all(requirements.parent().unwrap()).unwrap();
    fs::write(&requirements, "torch==2.11.0\n").unwrap();
    requirements
}

/// A Python whose module venv makes a folder, and whose pip writes down what it was asked to do.
fn python_with_venv(machine: &Machine) -> String {
    let calls = machine.path("installs").display().to_string();
    format!(
        "case \"$*\" in
            *\"-m venv\"*) for folder; do :; done; /bin/mkdir -p \"$folder/bin\"; : > \"$folder/bin/python\";;
            *install*) echo \"$3 $4\" >> {calls};;
        esac"
    )
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn parity_makes_its_python_once_and_again_when_the_requirements_change() {
    let machine = set_up();
    machine.install("python3", &python_with_venv(&machine));
    let requirements = with_requirements(&machine);
    let interpreter = machine.path(".venv/parity/bin/python").display().to_string();

    machine.xtask(&["parity"]);
    let calls = fs::read_to_string(machine.path("calls")).unwrap();
    assert_eq!(calls, format!("{}\n{interpreter}\n", examples()));
    let installs = machine.path("installs");
    assert_eq!(fs::read_to_string(&installs).unwrap(), format!("--python {interpreter}\n"));

    machine.xtask(&["bench", "overhead"]);
    assert_eq!(lines(&installs), 1);
    fs::write(requirements, "torch==2.11.0\nnumpy\n").unwrap();
    machine.xtask(&["parity"]);
    assert_eq!(lines(&installs), 2);
}

#[test]
fn without_the_module_venv_it_is_to_be_installed() {
    let machine = set_up();
    machine.install("python3", "case \"$*\" in *\"-m venv\"*) echo 'No module named venv' >&2; exit 1;; esac");
    with_requirements(&machine);
    let said = "error: Python cannot make a virtual environment: install its module venv, with `apt install python3-venv` on Debian and Ubuntu\n";
    assert_eq!(machine.xtask(&["parity"]), (false, said.to_owned()));
}
