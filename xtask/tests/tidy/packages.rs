//! What is published: every crate in `crates`, as `cargo package` makes it. Nothing is compiled.

use std::process::Command;

use super::{none, root};

/// `cargo package` for these crates; returns what it printed, and what it said on the error output.
#[track_caller]
fn package(names: &[String], option: Option<&str>) -> (String, String) {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["package", "--no-verify", "--allow-dirty", "--offline"]).args(option);
    cargo.args(names.iter().flat_map(|name| ["--package", name]));
    // The archives are nobody's.
    let output = cargo.current_dir(root()).env("CARGO_TARGET_DIR", env!("CARGO_TARGET_TMPDIR")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{names:?}: {said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

fn published() -> Vec<String> {
    let folders = std::fs::read_dir(root().join("crates")).unwrap().map(Result::unwrap);
    let names = folders.map(|folder| {
        let manifest: toml::Table = std::fs::read_to_string(folder.path().join("Cargo.toml")).unwrap().parse().unwrap();
        manifest["package"]["name"].as_str().unwrap().to_owned()
    });
    names.collect()
}

#[test]
fn every_crate_can_be_packaged_with_its_licence_and_readme() {
    let mut found = Vec::new();
    for name in published() {
        let (list, _) = package(std::slice::from_ref(&name), Some("--list"));
        let files: Vec<_> = list.lines().collect();
        let wanted = ["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];
        found.extend(wanted.iter().filter(|file| !files.contains(file)).map(|file| format!("{name}: no {file}")));
        if name == "fulgurite-cli" {
            let template = ["template/.cargo/config.toml", "template/.gitignore", "template/Cargo.toml.liquid"];
            found.extend(template.iter().filter(|file| !files.contains(file)).map(|file| format!("{name}: no {file}")));
        }
    }
    none("these are not in the packages", found);
}

/// All at once, as they need each other.
#[test]
fn the_packages_are_complete() {
    let (_, said) = package(&published(), None);
    // Their examples are the repository's.
    let warnings = said.lines().filter(|line| line.starts_with("warning:") && !line.contains("ignoring example"));
    none("cargo warns", warnings.map(str::to_owned).collect());
}
