//! `cargo xtask test` and `cargo xtask parity`: how tests are built, and which run at the same time.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Cargo;

/// All but what needs Python or a quiet machine.
const PACKAGES: [&str; 5] = ["--workspace", "--exclude", "fulgurite-parity", "--exclude", "fulgurite-bench"];

/// What tests are built of without optimization: it would take minutes for loops that are generic over hundreds of modules.
/// What these depend on stays as it is built for everything else, and `fulgurite-torch` too, whose tests go through many
/// thousands of damaged files.
const UNOPTIMIZED: [&str; 12] = [
    "fulgurite",
    "fulgurite-callbacks",
    "fulgurite-data",
    "fulgurite-engine",
    "fulgurite-fabric",
    "fulgurite-metrics",
    "fulgurite-object-stores",
    "fulgurite-optim",
    "fulgurite-parity",
    "fulgurite-test-support",
    "fulgurite-torture",
    "recipes",
];

/// Names of tests that wait for other processes and for timeouts most of their time.
const WAITING: [&str; 2] = ["nodes::", "ranks::"];

/// Runs the tests that the arguments choose, or all.
pub(crate) fn run(cargo: impl Fn() -> Result<Cargo>, args: &[String]) -> Result<ExitCode> {
    if !args.is_empty() {
        let packages: &[&str] = if names_packages(args) { &[] } else { &PACKAGES };
        return cargo_test(cargo()?).args(packages).args(args).run();
    }
    let all = |args: &[&str]| Ok::<_, anyhow::Error>(cargo_test(cargo()?).args(PACKAGES).args(args));
    // The examples too, which are run by tests.
    if !all(&["--no-run"])?.succeeds()? {
        return Ok(ExitCode::FAILURE);
    }
    let targets = ["--no-fail-fast", "--lib", "--bins", "--tests", "--"];
    let but_waiting = WAITING.map(|tests| ["--skip", tests]).concat();
    let aside = [all(&[&targets[..], &WAITING].concat())?, all(&["--no-fail-fast", "--doc"])?];
    let others = all(&[&targets[..], &but_waiting].concat())?;

    let aside = std::thread::spawn(move || aside.map(Cargo::output));
    let mut succeeded = others.succeeds()?;
    println!("The tests that ran beside those above:");
    for outcome in aside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        let (success, said) = outcome?;
        println!("{said}");
        succeeded &= success;
    }
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the comparisons with Python that the arguments choose, or all.
pub(crate) fn parity(cargo: Cargo, args: &[String]) -> Result<ExitCode> {
    cargo_test(cargo).args(["--package", "fulgurite-parity"]).args(args).run()
}

fn cargo_test(cargo: Cargo) -> Cargo {
    let config = |package| ["--config".to_owned(), format!("profile.release.package.{package}.opt-level=0")];
    cargo.args(["test", "--release"]).args(UNOPTIMIZED.into_iter().flat_map(config))
}

/// Whether the packages are chosen already.
fn names_packages(args: &[String]) -> bool {
    let names_packages = |arg: &String| {
        let options = ["--package", "--workspace", "--all", "--exclude"];
        arg.starts_with("-p") || options.contains(&arg.split('=').next().unwrap_or(arg))
    };
    args.iter().take_while(|arg| *arg != "--").any(names_packages)
}
