//! `fulgurite new`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Machine, fulgurite, libtorch, refusal, said, usual_machine};

/// A machine with libtorch.
fn machine() -> Machine {
    let machine = usual_machine();
    libtorch(&machine, "torch", "2.11.0");
    machine
}

/// `fulgurite new` with these arguments.
fn new(machine: &Machine, args: &[&str]) -> Command {
    let mut command = fulgurite(machine);
    command.arg("new").args(args).env("LIBTORCH", machine.path("torch"));
    command
}

/// What lies in a folder, however deep.
fn contents(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let names = paths.flat_map(|path| {
        let mut names = contents(&path);
        names.insert(path.display().to_string());
        names
    });
    names.collect()
}

#[test]
fn a_crate_is_made_whose_cargo_finds_libtorch() {
    let machine = machine();
    let text = "Made /root/models/my-model, with libtorch 2.11.0 in /root/torch.\n\n  cd models/my-model\n  cargo run -- fit    # trains; the first build takes some minutes\n  cargo test\n";
    assert_eq!(said(&machine, &mut new(&machine, &["models/my-model"])), (true, text.to_owned()));
    let read = |name: &str| fs::read_to_string(machine.path("models/my-model").join(name)).unwrap();
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    assert_eq!(manifest["package"]["name"].as_str(), Some("my-model"));
    assert!(manifest["workspace"].is_table());
    // That of the program that was built in a clone.
    let fulgurite = Path::new(manifest["dependencies"]["fulgurite"]["path"].as_str().unwrap());
    assert!(fulgurite.join("src/lib.rs").exists());
    assert!(read("Cargo.lock").contains("name = \"torch-sys\""));
    let config: toml::Table = read(".cargo/config.toml").parse().unwrap();
    assert_eq!(config["include"][0]["path"].as_str(), Some("libtorch.toml"));
    let libtorch: toml::Table = read(".cargo/libtorch.toml").parse().unwrap();
    assert_eq!(libtorch["env"]["LIBTORCH"].as_str(), machine.path("torch").to_str());
}

#[test]
fn what_the_crate_uses_can_be_chosen() {
    let machine = machine();
    assert!(said(&machine, &mut new(&machine, &["a", "--git", "https://example.org/\"f\".git"])).0);
    let manifest: toml::Table = fs::read_to_string(machine.path("a/Cargo.toml")).unwrap().parse().unwrap();
    assert_eq!(manifest["dependencies"]["fulgurite"]["git"].as_str(), Some("https://example.org/\"f\".git"));
    assert!(!machine.path("a/Cargo.lock").exists());
    assert_eq!(
        refusal(&machine, &mut new(&machine, &["b", "--path", "a"])),
        "/root/a is no clone of Fulgurite: there is no /root/a/crates/trainer/Cargo.toml"
    );
}

#[test]
fn an_empty_folder_is_filled_and_any_other_is_left_alone() {
    let machine = machine();
    fs::create_dir(machine.path("own")).unwrap();
    assert!(said(&machine, &mut new(&machine, &["own"])).0);
    let before = contents(&machine.path("own"));
    let there = "/root/own is there already, and not empty: choose another folder";
    assert_eq!(refusal(&machine, &mut new(&machine, &["own"])), there);
    assert_eq!(contents(&machine.path("own")), before);

    fs::write(machine.path("file"), "mine").unwrap();
    let is_file = "/root/file is there already, and is no folder that can be read: choose another";
    assert_eq!(refusal(&machine, &mut new(&machine, &["file"])), is_file);
    assert_eq!(fs::read_to_string(machine.path("file")).unwrap(), "mine");

    fs::create_dir(machine.path("here")).unwrap();
    assert!(said(&machine, new(&machine, &["."]).current_dir(machine.path("here"))).0);
    assert!(fs::read_to_string(machine.path("here/Cargo.toml")).unwrap().contains("name = \"here\""));
}

#[test]
fn a_folder_may_be_called_anything_and_the_crate_not() {
    let machine = machine();
    let strange = "it's \"größer\" ✓";
    let refused = refusal(&machine, &mut new(&machine, &[strange]));
    assert!(refused.contains("cannot be the name of a crate") && refused.contains("`--name`"), "{refused}");
    assert!(refusal(&machine, &mut new(&machine, &["test"])).contains("use themselves"));
    assert!(refusal(&machine, &mut new(&machine, &["../fulgurite"])).contains("depends on"));
    assert!(refusal(&machine, &mut new(&machine, &["/"])).contains("--name"));
    let (success, said) = said(&machine, &mut new(&machine, &[strange, "--name", "my-model"]));
    assert!(success && said.contains("cd 'it'\\''s \"größer\" ✓'\n"), "{said}");
    assert!(fs::read_to_string(machine.path(strange).join("Cargo.toml")).unwrap().contains("name = \"my-model\""));
}

#[test]
fn nothing_is_left_of_a_crate_that_could_not_be_made() {
    let machine = machine();
    libtorch(&machine, "a,b", "2.11.0");
    libtorch(&machine, "old", "2.9.1");
    let before = contents(&machine.path(""));
    for place in ["a,b", "old", "nowhere"] {
        refusal(&machine, &mut new(&machine, &["deep/in/my-model", "--libtorch", place]));
    }
    assert_eq!(contents(&machine.path("")), before);
}

#[test]
fn a_workspace_around_it_does_not_take_it_in() {
    let machine = machine();
    let within = |members: &str| {
        fs::write(machine.path("Cargo.toml"), format!("[workspace]\nresolver = \"3\"\n{members}\n")).unwrap();
        // The real ones: cargo knows best which crates a workspace has.
        let mut new = new(&machine, &["models/my-model"]);
        new.env("PATH", std::env::var_os("PATH").unwrap()).env("CARGO", std::env::var_os("CARGO").unwrap());
        for home in ["HOME", "CARGO_HOME", "RUSTUP_HOME"] {
            new.envs(std::env::var_os(home).map(|value| (home, value)));
        }
        said(&machine, &mut new)
    };
    let (success, text) = within("members = [\"models/*\"]");
    let expected = "error: the workspace of /root/Cargo.toml would take in /root/models/my-model: add it to `exclude` there, or choose another folder\n";
    assert_eq!((success, text.as_str()), (false, expected));
    assert!(!machine.path("models").exists());

    let (success, text) = within("members = [\"models/*\"]\nexclude = [\"models/my-model\"]");
    assert!(success, "{text}");
}
