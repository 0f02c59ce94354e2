//! What ranks are told, and what becomes of what they print.

use std::io::Write;
use std::process::Stdio;

use super::meeting::nodes;
use super::process::{Running, command, run, runs, send, start};

pub(crate) fn ranks_know_who_they_are() {
    let here = std::env::current_dir().unwrap();
    let told = |rank: usize| {
        format!(
            "{rank}: NODE_RANK=0 LOCAL_RANK={rank} RANK={rank} LOCAL_WORLD_SIZE=2 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 \
             TEST_VARIABLE=from the supervisor"
        )
    };
    let whence = |rank: usize| format!("{rank}: [] in {}", here.display());
    let marked = |text: String| format!("[rank 1] {text}");
    run("2 1 who", &[])
        .with_code(0)
        .said(&[&told(0), &whence(0), &marked(told(1)), &marked(whence(1))])
        .did_not_complain();
    // Also within a job that was not started with `srun`, and under variables of an earlier run.
    let stale = [("SLURM_NTASKS", "1"), ("SLURM_JOB_NAME", "bash"), ("RANK", ""), ("MASTER_PORT", "")];
    run("2 1 who", &stale).with_code(0).said(&[&told(0), &whence(0), &marked(told(1)), &marked(whence(1))]);
    let four = run("4 1 who", &[]);
    let ranks: Vec<&str> = four.with_code(0).lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(ranks, ["0", "0", "[rank 1] 1", "[rank 1] 1", "[rank 2] 2", "[rank 2] 2", "[rank 3] 3", "[rank 3] 3"]);
    // One is a run, too.
    run("1 1 threads", &[("OMP_NUM_THREADS", "3")]).with_code(0).said(&["0: 3"]);
}

pub(crate) fn arguments_arrive_as_they_are() {
    let strange = ["two words", "\"quoted\" 'both'", "$HOME `ls` \\", "--flag=a b", "", "*", "ä\nb"];
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("2 1 who", &[]);
    command.args(strange).current_dir(folder.path());
    let here = folder.path().canonicalize().unwrap();
    let shown = format!("{strange:?} in {}", here.display());
    let ended = start(command).end();
    ended.with_code(0);
    assert!(ended.lines.contains(&format!("0: {shown}")), "{:?}", ended.lines);
    assert!(ended.lines.contains(&format!("[rank 1] 1: {shown}")), "{:?}", ended.lines);
}

pub(crate) fn threads_are_shared_out() {
    let each = (std::thread::available_parallelism().unwrap().get() / 2).max(1);
    let mut without = command("2 1 threads", &[]);
    without.env_remove("OMP_NUM_THREADS");
    start(without).end().with_code(0).said(&[&format!("0: {each}"), &format!("[rank 1] 1: {each}")]);
    run("2 1 threads", &[("OMP_NUM_THREADS", "7")]).with_code(0).said(&["0: 7", "[rank 1] 1: 7"]);
}

pub(crate) fn a_rank_starts_a_run_of_its_own() {
    let run_of_two = "0: 5, [rank 1] 1: 5";
    let lines = [format!("0: {run_of_two}"), format!("[rank 1] 1: {run_of_two}"), format!("[rank 2] 2: {run_of_two}")];
    run("3 1 nested", &[]).with_code(0).said(&lines.each_ref().map(String::as_str)).did_not_complain();
}

pub(crate) fn rank_0_has_the_input() {
    let mut command = command("2 1 stdin", &[]);
    command.stdin(Stdio::piped());
    let mut running = start(command);
    running.child.stdin.take().unwrap().write_all(b"typed").unwrap();
    running.end().with_code(0).said(&["0: read \"typed\"", "[rank 1] 1: read \"\""]);
}

/// Longer than a pipe takes at once, from three ranks at the same time.
pub(crate) fn lines_are_whole() {
    let ended = run("4 1 lines 200", &[]);
    ended.with_code(0);
    let errors: Vec<&str> = ended.errors.lines().collect();
    let output: Vec<&str> = ended.lines.iter().map(String::as_str).collect();
    for lines in [output, errors] {
        for rank in 1..4 {
            let marked = format!("[rank {rank}] {}", rank.to_string().repeat(5000));
            assert_eq!(lines.iter().filter(|line| **line == marked).count(), 200, "rank {rank}");
        }
    }
    assert_eq!(ended.lines.iter().filter(|line| line.ends_with("] unfinished")).count(), 3);
}

/// It holds rank 1's pipes for ten minutes, and the supervisor does not wait for that.
pub(crate) fn a_process_left_behind() {
    let mut running = start(command("2 1 orphan", &[]));
    let [orphan] = running.sleepers(1)[..] else { panic!() };
    running.end().with_code(0);
    assert!(runs(orphan));
    send("KILL", &orphan.to_string());
}

pub(crate) fn contradictions() {
    for (words, variables, error) in [
        ("0 1 who", &[][..], "devices=0 was requested; a run needs at least one device"),
        ("2 0 who", &[], "num_nodes=0 was requested"),
        ("2 2 who", &[], "set MASTER_ADDR to the host of the first node, MASTER_PORT to a free port"),
        ("2 1 who", &[("NODE_RANK", "1")], "num_nodes=1 was requested, but NODE_RANK=1 means"),
        (
            "2 1 who",
            &[("WORLD_SIZE", "4")],
            "devices=2 and num_nodes=1 make 2 processes, but the environment specifies 4 (WORLD_SIZE)",
        ),
        ("2 1 who", &[("MASTER_PORT", "no")], "the environment variable MASTER_PORT=no is not a number"),
        (
            "2 1 who",
            &[("PET_NNODES", "1"), ("PET_NPROC_PER_NODE", "4")],
            "devices=2 was requested, but Kubeflow specifies 4 (PET_NPROC_PER_NODE)",
        ),
    ] {
        let ended = run(words, variables);
        ended.with_code(1).said(&[]).complained(error);
    }
}

pub(crate) fn several_nodes() {
    let [_, ended, _] = nodes("2 3 who").map(Running::end);
    ended.with_code(0);
    let told = |rank: usize| {
        format!("NODE_RANK=1 LOCAL_RANK={} RANK={rank} LOCAL_WORLD_SIZE=2 WORLD_SIZE=6 MASTER_ADDR=127.0.0.1", rank - 2)
    };
    assert!(ended.lines.iter().any(|line| line.starts_with(&format!("2: {}", told(2)))), "{:?}", ended.lines);
    assert!(ended.lines.iter().any(|line| line.starts_with(&format!("[rank 3] 3: {}", told(3)))), "{:?}", ended.lines);
}
