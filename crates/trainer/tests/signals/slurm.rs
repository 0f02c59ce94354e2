//! Jobs of SLURM, with a stand-in for `scontrol` that notes what it is asked.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::process::{Ended, run};

/// A folder for the job, and one for commands.
struct Cluster {
    folder: tempfile::TempDir,
    commands: tempfile::TempDir,
}

impl Cluster {
    /// `scontrol` ends with this code.
    fn new(code: i32) -> Cluster {
        let commands = tempfile::tempdir().unwrap();
        let scontrol = commands.path().join("scontrol");
        let asked = commands.path().join("asked");
        let script =
            format!("#!/bin/sh\necho \"$@\" >> '{}'\necho 'Access denied' >&2\nexit {code}\n", asked.display());
        std::fs::write(&scontrol, script).unwrap();
        std::fs::set_permissions(&scontrol, std::fs::Permissions::from_mode(0o755)).unwrap();
        Cluster { folder: tempfile::tempdir().unwrap(), commands }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, plan: &str, variables: &[(&str, &str)]) -> Ended {
        let path = format!("{}:{}", self.commands.path().display(), std::env::var("PATH").unwrap());
        run(self.path(), plan, &[&[("PATH", path.as_str())], variables].concat())
    }

    fn asked(&self) -> String {
        std::fs::read_to_string(self.commands.path().join("asked")).unwrap_or_default()
    }
}

const JOB: &[(&str, &str)] = &[("SLURM_JOB_ID", "4711"), ("SLURM_JOB_NAME", "train")];

fn straight(plan: &str) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), plan, &[])
}

fn requeued(n: u32) -> String {
    format!("Requeued {{ signal: User1, checkpoint: Some(\"hpc_ckpt_{n}.ckpt\") }}")
}

pub(crate) fn requeues_and_resumes() {
    let cluster = Cluster::new(0);
    let plan = "default_loggers signal=SIGUSR1";
    let first = cluster.run(&format!("{plan} batch=3"), JOB);
    first.said(&["SIGUSR1 in batch", "saved hpc_ckpt_1.ckpt", "teardown after batch 3", &requeued(1)]).with_code(138);
    assert!(first.errors.contains("job 4711 is requeued; its next run resumes from"), "{}", first.errors);
    assert_eq!(cluster.asked(), "requeue 4711\n");
    // In validation, after the fourth batch of the run.
    let second = cluster.run(&format!("{plan} validation=1 seed=3"), JOB);
    second.said(&["SIGUSR1 in validation", "saved hpc_ckpt_2.ckpt", "teardown after batch 1", &requeued(2)]);
    assert!(second.errors.contains("job 4711 resumes from"), "{}", second.errors);
    let third = cluster.run(&format!("{plan} seed=4"), JOB);
    assert_eq!(third.results(), straight(plan).results(), "{}", third.errors);
    assert_eq!(cluster.asked(), "requeue 4711\nrequeue 4711\n");
    let version = cluster.path().join("lightning_logs/version_4711");
    assert!(version.join("metrics.csv").is_file());
    assert_eq!(std::fs::read_dir(cluster.path().join("lightning_logs")).unwrap().count(), 1);
}

pub(crate) fn names_the_task_of_an_array() {
    let cluster = Cluster::new(0);
    let task = [JOB, &[("SLURM_ARRAY_JOB_ID", "4700"), ("SLURM_ARRAY_TASK_ID", "11")]].concat();
    cluster.run("slurm=SIGUSR2 signal=SIGUSR2 batch=3", &task).with_code(140);
    assert_eq!(cluster.asked(), "requeue 4700_11\n");
}

pub(crate) fn goes_on_when_the_scheduler_refuses() {
    for (moment, trained) in [("batch=3", 15), ("validation=1", 15)] {
        let cluster = Cluster::new(1);
        let ended = cluster.run(&format!("csv signal=SIGUSR1 {moment}"), JOB);
        assert_eq!(ended.results(), straight("csv").results(), "{}", ended.errors);
        assert!(ended.lines.contains(&format!("teardown after batch {trained}")));
        let warning = "the job is not requeued, so training continues: `scontrol requeue 4711` failed with exit status: 1: Access denied (3 attempts)";
        assert!(ended.errors.contains(warning), "{}", ended.errors);
        assert_eq!(cluster.asked(), "requeue 4711\n".repeat(3));
        assert!(cluster.path().join("hpc_ckpt_1.ckpt").exists());
    }
    let cluster = Cluster::new(0);
    std::fs::remove_file(cluster.commands.path().join("scontrol")).unwrap();
    let ended = cluster.run("signal=SIGUSR1 batch=3", JOB);
    assert!(ended.errors.contains("`scontrol` cannot be run"), "{}", ended.errors);
    ended.with_code(0);
}

/// A scheduler that takes a node away may run the job again by itself.
pub(crate) fn sigterm_leaves_a_checkpoint_for_the_next_run() {
    let cluster = Cluster::new(0);
    let left = "Terminated { signal: Terminate, checkpoint: Some(\"hpc_ckpt_1.ckpt\") }";
    cluster
        .run("batch=7", JOB)
        .said(&["SIGTERM in batch", "saved hpc_ckpt_1.ckpt", "teardown after batch 7", left])
        .with_code(143);
    assert_eq!(cluster.asked(), "");
    assert!(cluster.path().join("checkpoints/interrupted.ckpt").exists());
    assert_eq!(cluster.run("seed=3", JOB).results(), straight("").results());
}

pub(crate) fn only_in_a_job_and_when_on() {
    let ended = |plan: &str, variables: &[(&str, &str)]| {
        let cluster = Cluster::new(0);
        let ended = cluster.run(plan, variables);
        assert_eq!(cluster.asked(), "");
        assert!(!cluster.path().join("hpc_ckpt_1.ckpt").exists());
        (ended.code, ended.signal)
    };
    // The signal has its usual meaning: it ends the process.
    assert_eq!(ended("signal=SIGUSR1 batch=3", &[]), (None, Some(10)));
    assert_eq!(ended("slurm=off signal=SIGUSR1 batch=3", JOB), (None, Some(10)));
    let terminal = [("SLURM_JOB_ID", "4711"), ("SLURM_JOB_NAME", "interactive")];
    assert_eq!(ended("signal=SIGUSR1 batch=3", &terminal), (None, Some(10)));
    // There is nothing to save in an evaluation.
    assert_eq!(ended("evaluates signal=SIGUSR1 validation=1", JOB), (Some(0), None));
}

pub(crate) fn a_damaged_checkpoint_is_passed_over() {
    let cluster = Cluster::new(0);
    cluster.run("signal=SIGUSR1 batch=3", JOB).with_code(138);
    cluster.run("signal=SIGUSR1 batch=4", JOB).with_code(138);
    let newest = cluster.path().join("hpc_ckpt_2.ckpt");
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let ended = cluster.run("seed=3", JOB);
    assert_eq!(ended.results(), straight("").results());
    assert!(ended.errors.contains("so an older checkpoint is looked for"), "{}", ended.errors);
    assert!(ended.lines.contains(&"teardown after batch 12".to_owned()), "{:?}", ended.lines);
}

/// On a machine of one's own, what a job left.
pub(crate) fn hpc_without_a_job() {
    let cluster = Cluster::new(0);
    cluster.run("signal=SIGUSR1 batch=3", JOB).with_code(138);
    let fresh = cluster.run("", &[]);
    assert!(fresh.lines.contains(&"teardown after batch 15".to_owned()));
    let resumed = cluster.run("ckpt_path=hpc seed=3", &[]);
    assert!(resumed.lines.contains(&"teardown after batch 12".to_owned()));
    assert_eq!(resumed.results(), straight("").results());
    let folder = tempfile::tempdir().unwrap();
    let missing = run(folder.path(), "ckpt_path=hpc", &[]);
    let error = format!(
        "error: ckpt_path=\"hpc\" was requested, but there is no hpc_ckpt_N.ckpt in {}; give a path",
        folder.path().display()
    );
    missing.said(&[&error]).with_code(1);
}
