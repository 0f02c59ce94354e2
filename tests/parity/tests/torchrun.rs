//! The real `torchrun` starts this program as its ranks.

#[path = "../../../crates/trainer/tests/trainer/ranks/program.rs"]
mod program;

use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::Duration;

use fulgurite_fabric::FabricError;
use fulgurite_fabric::environments::{self, ClusterEnvironment};
use fulgurite_torch::distributed::{GroupOptions, ProcessGroup, ReduceOp};
use fulgurite_torch::tch::{Kind, Tensor};
use program::{PLAN, Plan, Report};

const TESTS: &[(&str, fn())] = &[
    ("ranks_know_who_they_are", ranks_know_who_they_are),
    ("a_killed_rank_is_started_again", a_killed_rank_is_started_again),
    ("a_training_goes_on_after_a_kill", a_training_goes_on_after_a_kill),
    ("a_failure_is_reported", a_failure_is_reported),
    ("contradictions", contradictions),
];

/// Runs the tests whose names contain the arguments, or all; under `torchrun`, is a rank.
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if std::env::var_os("TORCHELASTIC_RUN_ID").is_some() {
        return rank(&args);
    }
    fulgurite_test_support::run_named("torchrun", TESTS)
}

fn rank(args: &[String]) -> ExitCode {
    if let Some(outcome) = program::run_from_env() {
        let Err(error) = outcome else { return ExitCode::SUCCESS };
        environments::record_failure(&error.to_string()).unwrap();
        return ExitCode::from(3);
    }
    let devices = args[0].parse().unwrap();
    let outcome = environments::current().and_then(|environment| {
        environment.validate_settings(devices, 1)?;
        work(environment.as_ref(), &args[1..])
    });
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    environments::record_failure(&error.to_string()).unwrap();
    ExitCode::from(3)
}

fn work(environment: &dyn ClusterEnvironment, words: &[String]) -> Result<(), FabricError> {
    let (rank, size) = (environment.global_rank(), environment.world_size());
    let fact = if words == ["differ"] { rank.to_string() } else { String::new() };
    let store = environments::rendezvous(environment, &[("fact", &fact)], Duration::from_secs(60))?;
    let group = ProcessGroup::new(&store, rank, size, &GroupOptions::default())?;
    let sum = Tensor::full([2], rank as i64 + 1, (Kind::Float, fulgurite_torch::tch::Device::Cpu));
    group.all_reduce(&sum, ReduceOp::Sum)?;
    if let ["die", folder] = words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let mark = Path::new(folder).join("died");
        if rank == 1 && !mark.exists() {
            std::fs::write(mark, "").unwrap();
            let id = std::process::id().to_string();
            Command::new("kill").args(["-KILL", &id]).status().unwrap();
        }
    }
    let lines = format!(
        "{}: rank {rank} of {size}, local {}, sum {:?}, {}, restart {}\n",
        environment.name(),
        environment.local_rank(),
        Vec::<f32>::try_from(&sum).unwrap(),
        if environment.uses_agent_store() { "the agent's store" } else { "rank 0's store" },
        environment.restart_count(),
    );
    // In one call, and before rank 0 leaves with a store of its own.
    std::io::Write::write_all(&mut std::io::stdout(), lines.as_bytes()).unwrap();
    group.monitored_barrier(Duration::from_secs(60))?;
    Ok(())
}

fn torchrun(options: &[&str], words: &[&str]) -> Output {
    torchrun_command(options, words).output().unwrap()
}

fn torchrun_command(options: &[&str], words: &[&str]) -> Command {
    let python = std::env::var("FULGURITE_PARITY_PYTHON")
        .expect("FULGURITE_PARITY_PYTHON is not set: run these tests with `cargo xtask parity`");
    let mut command = Command::new(python);
    command.args(["-m", "torch.distributed.run", "--nproc-per-node", "2"]).args(options).arg("--no-python");
    command.arg(std::env::current_exe().unwrap()).args(words).env("OMP_NUM_THREADS", "1");
    command
}

fn lines(output: &Output) -> Vec<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn line(rank: usize, store: &str, restart: usize) -> String {
    format!("torchrun: rank {rank} of 2, local {rank}, sum [3.0, 3.0], {store}, restart {restart}")
}

fn ranks_know_who_they_are() {
    let agents = [line(0, "the agent's store", 0), line(1, "the agent's store", 0)];
    assert_eq!(lines(&torchrun(&["--standalone"], &["2"])), agents);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    assert_eq!(lines(&torchrun(&["--master-port", &port], &["2"])), agents);
}

/// The agent keeps its store, with all that the first attempt left there.
fn a_killed_rank_is_started_again() {
    for options in [&["--standalone"][..], &["--master-port", "0"]] {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let options: Vec<&str> = options.iter().map(|word| if *word == "0" { port.as_str() } else { word }).collect();
        let options = [&options[..], &["--max-restarts", "1"]].concat();
        let words = ["2", "die", folder.path().to_str().unwrap()];
        let mut lines = lines(&torchrun(&options, &words));
        assert!(folder.path().join("died").exists());
        // Rank 0 may have got as far before the first end.
        lines.retain(|found| *found != line(0, "the agent's store", 0));
        assert_eq!(lines, [line(0, "the agent's store", 1), line(1, "the agent's store", 1)]);
    }
}

/// What a plan comes to on both ranks, and what was said.
fn train(plan: &Plan) -> ([Report; 2], String) {
    let mut command = torchrun_command(&["--standalone", "--max-restarts", "1"], &[]);
    let output = command.env(PLAN, serde_json::to_string(plan).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let read = |rank: usize| std::fs::read_to_string(plan.folder.join(format!("rank{rank}.json"))).unwrap();
    ([0, 1].map(|rank| serde_json::from_str(&read(rank)).unwrap()), said)
}

fn a_training_goes_on_after_a_kill() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plan = Plan {
        folder: folder.path().into(),
        epochs: 6,
        dropout: 0.2,
        save_every: Some(3),
        ckpt_path: Some("auto".into()),
        kill_at: Some(17),
        ..Plan::default()
    };
    let (killed, said) = train(&plan);
    assert!(folder.path().join("killed").exists());
    assert!(said.contains("resumed from") && said.contains("step=15.ckpt"), "{said}");
    let (undisturbed, _) = train(&Plan { folder: whole.path().into(), kill_at: None, ..plan });
    for (killed, undisturbed) in killed.iter().zip(&undisturbed) {
        assert_eq!(killed.weights, undisturbed.weights);
        assert_eq!((killed.steps, killed.batches), (undisturbed.steps, undisturbed.batches));
        assert_eq!(killed.logged, undisturbed.logged);
    }
}

/// What `record_failure` wrote is in `torchrun`'s report.
fn a_failure_is_reported() {
    let output = torchrun(&["--standalone"], &["2", "differ"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("do not belong to the same run: they differ in fact (0 and 1)"), "{errors}");
    assert!(errors.contains("exitcode  : 3"), "{errors}");
}

fn contradictions() {
    let output = torchrun(&["--standalone"], &["4"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    let message = "devices=4 was requested, but torchrun specifies 2 (LOCAL_WORLD_SIZE); set devices=2";
    assert!(!output.status.success() && errors.contains(message), "{errors}");
}
