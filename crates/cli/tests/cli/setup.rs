//! `fulgurite setup`.

use std::fs;
use std::thread;
use std::time::Duration;

use super::{GOOD_PYTHON, fulgurite, libtorch, refusal, said, usual_machine};

const CONFIG: &str = "[env]
LIBTORCH = \"PLACE\"

[target.'cfg(all())']
rustflags = [\"-C\", \"link-arg=-Wl,-rpath,PLACE/lib\"]

[build]
rustdocflags = [\"-C\", \"link-arg=-Wl,-rpath,PLACE/lib\"]
";

#[test]
fn libtorch_is_fetched_once_and_crates_are_told_how_to_find_it() {
    let machine = usual_machine();
    let place = "/root/cache/libtorch-2.11.0/torch";
    let ready = format!(
        "libtorch 2.11.0 is ready in {place}.\nA crate that `fulgurite new` has not made finds it by these lines of its .cargo/config.toml:\n\n{}\n",
        CONFIG.replace("PLACE", place)
    );
    let fetching =
        "Fetching libtorch 2.11.0 into /root/cache/libtorch-2.11.0 (once; about half a gigabyte).\n".to_owned();
    assert_eq!(said(&machine, fulgurite(&machine).arg("setup")), (true, fetching + &ready));
    assert!(machine.path("cache/libtorch-2.11.0/torch/version.py").exists());
    assert!(!machine.path("cache/libtorch-2.11.0.partial").exists());

    // What is done already needs neither Python nor pip.
    fs::remove_file(machine.path("bin/python3")).unwrap();
    assert_eq!(said(&machine, fulgurite(&machine).arg("setup")), (true, ready));
}

#[test]
fn the_cache_is_that_of_the_user() {
    let machine = usual_machine();
    let place = |variables: &[(&str, &str)]| {
        let mut command = machine.command(env!("CARGO_BIN_EXE_fulgurite"));
        let (_, said) = said(&machine, command.arg("setup").envs(variables.iter().copied()));
        said.lines().find_map(|line| line.strip_prefix("libtorch 2.11.0 is ready in ")).unwrap_or(&said).to_owned()
    };
    let home = machine.path("home").display().to_string();
    let caches = machine.path("caches").display().to_string();
    assert_eq!(place(&[("HOME", &home)]), "/root/home/.cache/fulgurite/libtorch-2.11.0/torch.");
    // A relative one is to be ignored, says its specification.
    let relative = [("HOME", home.as_str()), ("XDG_CACHE_HOME", "x")];
    assert_eq!(place(&relative), "/root/home/.cache/fulgurite/libtorch-2.11.0/torch.");
    let with_caches = [("HOME", home.as_str()), ("XDG_CACHE_HOME", &caches)];
    assert_eq!(place(&with_caches), "/root/caches/fulgurite/libtorch-2.11.0/torch.");
    assert_eq!(place(&[("HOME", &home), ("FULGURITE_CACHE", "own")]), "/root/own/libtorch-2.11.0/torch.");
    assert_eq!(
        place(&[]),
        "error: there is no place for libtorch, as HOME is not set: let FULGURITE_CACHE name a folder\n"
    );
}

#[test]
fn a_cache_that_is_a_file_is_refused() {
    let machine = usual_machine();
    fs::write(machine.path("cache"), "").unwrap();
    let refusal = refusal(&machine, fulgurite(&machine).arg("setup"));
    assert!(refusal.starts_with("libtorch cannot be kept in /root/cache ("), "{refusal}");
    assert!(refusal.ends_with("): let FULGURITE_CACHE name a folder that can be written to"), "{refusal}");
}

#[test]
fn two_set_ups_at_the_same_time_fetch_once() {
    let machine = usual_machine();
    let calls = machine.path("calls").display().to_string();
    let slow = format!("case \"$*\" in *install*) echo >> '{calls}'; /bin/sleep 0.5;; esac\n{GOOD_PYTHON}");
    machine.install("python3", &slow);
    thread::scope(|scope| {
        let runs = [(); 3].map(|()| scope.spawn(|| said(&machine, fulgurite(&machine).arg("setup"))));
        for run in runs {
            let (success, said) = run.join().unwrap();
            assert!(success, "{said}");
        }
    });
    assert_eq!(fs::read_to_string(calls).unwrap(), "\n");
}

#[test]
fn after_one_that_was_killed_the_next_begins_anew() {
    let machine = usual_machine();
    machine.install("python3", "case \"$*\" in *install*) : > pip-runs; exec /bin/sleep 100;; esac");
    let mut killed = fulgurite(&machine).arg("setup").stdout(std::process::Stdio::null()).spawn().unwrap();
    while !machine.path("pip-runs").exists() {
        thread::sleep(Duration::from_millis(10));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(machine.path("cache/libtorch-2.11.0.partial").exists());
    assert!(!machine.path("cache/libtorch-2.11.0").exists());

    machine.install("python3", GOOD_PYTHON);
    let (success, said) = said(&machine, fulgurite(&machine).arg("setup"));
    assert!(success, "{said}");
    assert!(!machine.path("cache/libtorch-2.11.0.partial").exists());
}

#[test]
fn a_libtorch_that_is_there_is_used() {
    let machine = usual_machine();
    let theirs = libtorch(&machine, "their torch", "2.11.0+cu130");
    let ready = "libtorch 2.11.0 is ready in /root/their torch.\n";
    for with_option in [true, false] {
        let mut command = fulgurite(&machine);
        match with_option {
            true => command.args(["setup", "--libtorch", "their torch"]),
            false => command.arg("setup").env("LIBTORCH", &theirs),
        };
        let (success, said) = said(&machine, &mut command);
        assert!(success && said.starts_with(ready), "{said}");
    }
    assert!(!machine.path("cache").exists());

    libtorch(&machine, "old", "2.9.1");
    assert_eq!(
        refusal(&machine, fulgurite(&machine).args(["setup", "--libtorch", "old"])),
        "--libtorch cannot be used: /root/old holds libtorch 2.9.1, and 2.11.0 is needed; point it to libtorch 2.11.0, or leave it out and `fulgurite setup` fetches that"
    );
}

/// As in `fulgurite setup | head -0`.
#[test]
fn that_nobody_reads_what_is_said_is_no_failure() {
    let machine = usual_machine();
    libtorch(&machine, "theirs", "2.11.0");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = fulgurite(&machine);
    assert!(command.args(["setup", "--libtorch", "theirs"]).stdout(writer).status().unwrap().success());
}

#[test]
fn the_torch_of_a_python_environment_is_used_if_its_version_is_right() {
    let machine = usual_machine();
    let with_torch = |folder: &str| {
        machine.install("my-python", &format!("echo '{folder}'"));
        said(&machine, fulgurite(&machine).args(["setup", "--python=my-python"]))
    };
    let right = libtorch(&machine, "right", "2.11.0");
    let (success, text) = with_torch(&right.display().to_string());
    assert!(success && text.starts_with("libtorch 2.11.0 is ready in /root/right.\n"), "{text}");

    let help =
        "install it with `my-python -m pip install torch==2.11.0`, or leave out `--python`, and libtorch is fetched";
    let wrong = libtorch(&machine, "wrong", "2.13.0");
    let sentence =
        "error: the torch of `my-python` cannot be used: /root/wrong holds libtorch 2.13.0, and 2.11.0 is needed;";
    assert_eq!(with_torch(&wrong.display().to_string()), (false, format!("{sentence} {help}\n")));
    assert_eq!(with_torch(""), (false, format!("error: `my-python` has no torch: {help}\n")));

    let nowhere = refusal(&machine, fulgurite(&machine).args(["setup", "--python=nowhere"]));
    assert!(nowhere.starts_with("`--python` names `nowhere`, which does not start: "), "{nowhere}");
    machine.install("python3", "echo 'SyntaxError: invalid syntax' >&2; exit 1");
    assert_eq!(
        refusal(&machine, fulgurite(&machine).args(["setup", "--python"])),
        "`python3` cannot say where its torch is: SyntaxError: invalid syntax"
    );
}

#[test]
fn a_crate_that_was_made_elsewhere_is_told_where_libtorch_is_here() {
    let machine = usual_machine();
    libtorch(&machine, "theirs", "2.11.0");
    fs::create_dir_all(machine.path("model/.cargo")).unwrap();
    fs::create_dir_all(machine.path("model/src")).unwrap();
    fs::write(machine.path("model/.cargo/config.toml"), "include = [{ path = \"libtorch.toml\", optional = true }]\n")
        .unwrap();
    let mut setup = fulgurite(&machine);
    let told =
        said(&machine, setup.args(["setup", "--libtorch", "../../theirs"]).current_dir(machine.path("model/src")));
    let place = "/root/model/src/../../theirs";
    let told_so = format!("libtorch 2.11.0 is ready in {place}.\nThe cargo of /root/model is told so.\n");
    assert_eq!(told, (true, told_so));
    let written = fs::read_to_string(machine.path("model/.cargo/libtorch.toml")).unwrap();
    let expected = CONFIG.replace("PLACE", place);
    assert_eq!(
        machine.anonymous(&written),
        format!("# Written by the set-up of Fulgurite; safe to delete.\n{expected}")
    );
}
