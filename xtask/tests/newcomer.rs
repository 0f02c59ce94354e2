//! What a newcomer does: `cargo xtask new`, `cargo test` and `cargo run -- fit` in the new crate, with no variable set.
//!
//! Building libtorch's bindings takes minutes, so that the crate uses what is built for the tests of the workspace already.
//! Cargo does so for whatever it would build in the same way: of the same versions (`new` copies `Cargo.lock`), in the same
//! profile, with the same flags, and of the same features. All of these are made alike here, and the C++ of `fulgurite-torch`,
//! which lies in the workspace and so would be built again, is taken from there. In nothing else does the crate differ from a
//! newcomer's.

#![cfg(unix)]

#[path = "../src/unoptimized.rs"]
mod unoptimized;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The features that crates of the workspace switch on in what the new crate is built of too. One that is not listed makes
/// this test slower, and nothing else.
const FEATURES_OF_THE_WORKSPACE: &str = r#"
[target.'cfg(all())'.dependencies]
futures-channel = { version = "0.3", default-features = false, features = ["sink"] }
futures-util = { version = "0.3", default-features = false, features = ["channel", "io"] }
hyper-util = { version = "0.1", features = ["http1", "server-auto", "tokio"] }
image = { version = "0.25", default-features = false, features = ["jpeg"] }
md-5 = "0.11"
num-integer = "0.1"
simdutf8 = { version = "0.1", default-features = false, features = ["std"] }
subtle = "2"
time = { version = "0.3", features = ["formatting", "macros", "parsing"] }
"#;

const NAME: &str = "newcomers-model";

/// As in a newcomer's profile.
const OWN_PROFILE: &str = "[profile.release.package.newcomers-model]\nopt-level = 0\n";

struct Newcomer {
    /// A new folder.
    home: tempfile::TempDir,
}

impl Newcomer {
    /// A call of a program with nothing in its environment but where programs and the user's files are.
    fn call(&self, program: impl AsRef<Path>, folder: &Path) -> Command {
        let mut command = Command::new(program.as_ref());
        let places = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME"];
        let places = places.into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
        command.current_dir(folder).env_clear().envs(places);
        command
    }

    /// The folder of the crate, whose path is no harmless one.
    fn folder(&self) -> PathBuf {
        self.home.path().join("it's my größte \"idea\"").join(NAME)
    }

    /// Cargo in the new crate; returns what it printed.
    #[track_caller]
    fn cargo(&self, args: &[&str], program_args: &[&str]) -> String {
        let profile_variables = env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PROFILE_") || name == "CARGO_INCREMENTAL")
        });
        let mut cargo = self.call("cargo", &self.folder());
        if let Some(config) = env::var_os("FULGURITE_CARGO_CONFIG") {
            cargo.arg("--config").arg(config);
        }
        cargo.args(args).arg("--offline").env("CARGO_TARGET_DIR", target()).envs(profile_variables);
        if is_release() {
            cargo.arg("--release").args(unoptimized::options());
        }
        cargo.args(bridge());
        let output = cargo.args(["--"]).args(program_args).output().unwrap();
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{args:?} {program_args:?}:\n{printed}");
        printed
    }

    /// Makes the crate's build like the workspace's.
    fn share_what_is_built(&self) {
        let path = self.folder().join("Cargo.toml");
        let manifest = fs::read_to_string(&path).unwrap();
        let (before, _) = manifest.split_once("\n# What you change").unwrap();
        let before = before.replace(
            "crates/trainer\" }",
            "crates/trainer\", features = [\"image\", \"object-store\", \"parquet\", \"webdataset\"] }",
        );
        let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let profiles = &workspace[workspace.find("[profile.release]").unwrap()..];
        fs::write(path, format!("{before}\n{FEATURES_OF_THE_WORKSPACE}\n{profiles}\n{OWN_PROFILE}")).unwrap();
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // Nobody will use the programs that lie in the workspace's target folder.
        let mut clean = self.call("cargo", &self.folder());
        clean.args(["clean", "--quiet", "--offline", "--package", NAME]).env("CARGO_TARGET_DIR", target());
        let _ = clean.args(is_release().then_some("--release")).status();
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder that this test was built in.
fn target() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

fn is_release() -> bool {
    env::current_exe().unwrap().ancestors().nth(2).unwrap().ends_with("release")
}

/// Options of cargo that stand for the build script of `fulgurite-torch`: what it said when the workspace was built.
fn bridge() -> impl Iterator<Item = String> {
    let programs = env::current_exe().unwrap().ancestors().nth(2).unwrap().join("build");
    let scripts = fs::read_dir(programs).unwrap().map(|entry| entry.unwrap().path());
    let said = scripts.filter(|folder| folder.file_name().unwrap().to_string_lossy().starts_with("fulgurite-torch-"));
    let said = said.filter_map(|folder| {
        let output = folder.join("output");
        Some((output.metadata().ok()?.modified().unwrap(), fs::read_to_string(output).unwrap()))
    });
    let compiled = said.filter(|(_, said)| said.contains("cargo:rustc-link-lib="));
    let (_, said) = compiled.max_by_key(|(when, _)| *when).unwrap();

    let compiler = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(compiler.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    ["rustc-link-lib", "rustc-link-search"].into_iter().flat_map(move |key| {
        let values = said.lines().filter_map(|line| line.strip_prefix(&format!("cargo:{key}=")));
        let values: Vec<&str> = values.collect();
        ["--config".to_owned(), format!("target.{host}.fulgurite_bridge.{key}={values:?}")]
    })
}

/// The last value of a column of `metrics.csv`.
fn last(metrics: &str, column: &str) -> f64 {
    let mut lines = metrics.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let index = lines.next().unwrap().iter().position(|name| *name == column).unwrap();
    lines.filter_map(|line| line[index].parse().ok()).next_back().unwrap()
}

#[test]
fn an_empty_folder_becomes_a_trained_model() {
    let newcomer = Newcomer { home: tempfile::tempdir().unwrap() };
    let folder = newcomer.folder();
    let made =
        newcomer.call(env!("CARGO_BIN_EXE_xtask"), newcomer.home.path()).arg("new").arg(&folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    newcomer.share_what_is_built();

    let tested = newcomer.cargo(&["test"], &[]);
    assert!(tested.contains("test tests::the_model_learns ... ok"), "{tested}");

    newcomer.cargo(&["run"], &["fit", "--trainer.max_epochs", "5"]);
    let run = folder.join("lightning_logs/version_0");
    let metrics = fs::read_to_string(run.join("metrics.csv")).unwrap();
    let accuracy = last(&metrics, "val_acc");
    assert!(accuracy > 0.9, "{metrics}");
    assert!(run.join("checkpoints/best.ckpt").exists());
}
