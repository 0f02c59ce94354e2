//! The environment that is detected from environment variables, a line each.

use expect_test::{Expect, expect};

use super::detect;

/// `A=1 B=2` as variables.
fn lookup(words: &str) -> impl Fn(&str) -> Option<String> + '_ {
    move |name| words.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// The environment in a line, and the result of validating `devices` and `num_nodes`.
fn seen(words: &str, devices: usize, num_nodes: usize) -> String {
    let environment = match detect(&lookup(words)) {
        Ok(environment) => environment,
        Err(error) => return format!("error: {error}"),
    };
    let mut line = format!(
        "{}: rank {}/{} local {} node {} at {}:{}",
        environment.name(),
        environment.global_rank(),
        environment.world_size(),
        environment.local_rank(),
        environment.node_rank(),
        environment.main_address(),
        environment.main_port().map_or("free".to_owned(), |port| port.to_string()),
    );
    if !environment.creates_processes_externally() {
        line.push_str(", starts processes");
    }
    if environment.uses_agent_store() {
        line.push_str(", agent store");
    }
    if environment.restart_count() > 0 {
        line.push_str(&format!(", restart {}", environment.restart_count()));
    }
    match environment.validate_settings(devices, num_nodes) {
        Ok(()) => line,
        Err(error) => format!("{line}\nerror: {error}"),
    }
}

#[track_caller]
fn check(words: &str, (devices, num_nodes): (usize, usize), expected: &Expect) {
    expected.assert_eq(&seen(words, devices, num_nodes));
}

const TORCHRUN: &str = "TORCHELASTIC_RUN_ID=none RANK=3 LOCAL_RANK=1 GROUP_RANK=1 WORLD_SIZE=4 LOCAL_WORLD_SIZE=2 \
    GROUP_WORLD_SIZE=2 MASTER_ADDR=first MASTER_PORT=29400 TORCHELASTIC_USE_AGENT_STORE=True";

#[test]
fn torchrun() {
    let with = |more: &str| format!("{more} {TORCHRUN}");
    check(TORCHRUN, (2, 2), &expect!["torchrun: rank 3/4 local 1 node 1 at first:29400, agent store"]);
    check(
        &with("TORCHELASTIC_RESTART_COUNT=2"),
        (2, 2),
        &expect!["torchrun: rank 3/4 local 1 node 1 at first:29400, agent store, restart 2"],
    );
    check(
        &with("TORCHELASTIC_USE_AGENT_STORE=False"),
        (2, 2),
        &expect!["torchrun: rank 3/4 local 1 node 1 at first:29400"],
    );
    // Within a job of SLURM.
    check(
        &with("SLURM_NTASKS=2 SLURM_PROCID=0"),
        (2, 2),
        &expect!["torchrun: rank 3/4 local 1 node 1 at first:29400, agent store"],
    );
    check(
        TORCHRUN,
        (4, 1),
        &expect![[r#"
        torchrun: rank 3/4 local 1 node 1 at first:29400, agent store
        error: devices=4 was requested, but torchrun specifies 2 (LOCAL_WORLD_SIZE); set devices=2, or change `torchrun --nproc-per-node`"#]],
    );
    check(
        TORCHRUN,
        (2, 1),
        &expect![[r#"
        torchrun: rank 3/4 local 1 node 1 at first:29400, agent store
        error: num_nodes=1 was requested, but torchrun specifies 2 (GROUP_WORLD_SIZE); set num_nodes=2, or change `torchrun --nnodes`"#]],
    );
    check(
        &with("WORLD_SIZE=3 RANK=2"),
        (2, 2),
        &expect![[r#"
        torchrun: rank 2/3 local 1 node 1 at first:29400, agent store
        error: devices=2 and num_nodes=2 make 4 processes, but torchrun specifies 3 (WORLD_SIZE); change either of them"#]],
    );
    check(
        "TORCHELASTIC_RUN_ID=x RANK=0 LOCAL_RANK=0 WORLD_SIZE=1",
        (1, 1),
        &expect!["torchrun: rank 0/1 local 0 node 0 at 127.0.0.1:12910"],
    );
    check(
        "TORCHELASTIC_RUN_ID=x RANK=0 WORLD_SIZE=1",
        (1, 1),
        &expect![
            "error: LOCAL_RANK is not set, though other variables indicate that torchrun started this process; start it with torchrun as usual, or set LOCAL_RANK"
        ],
    );
    check(
        &with("RANK=4"),
        (2, 2),
        &expect![
            "error: the environment variables RANK=4 and WORLD_SIZE=4 contradict each other: ranks range from 0 to 3"
        ],
    );
    check(
        &with("RANK=first"),
        (2, 2),
        &expect![
            "error: the environment variable RANK=first is not a number in the valid range; correct it or unset it"
        ],
    );
    check(
        &with("MASTER_PORT=99999"),
        (2, 2),
        &expect![
            "error: the environment variable MASTER_PORT=99999 is not a number in the valid range; correct it or unset it"
        ],
    );
    check(
        &with("LOCAL_RANK=2"),
        (2, 2),
        &expect![
            "error: the local rank 2 and the environment variable LOCAL_WORLD_SIZE=2 contradict each other: local ranks are less than that"
        ],
    );
}

const SLURM: &str = "SLURM_JOB_ID=123456 SLURM_JOB_NAME=train SLURM_NTASKS=4 SLURM_NTASKS_PER_NODE=2 SLURM_NNODES=2 \
    SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NODEID=1 SLURM_NODELIST=gpu[07-08]";

#[test]
fn slurm() {
    let with = |more: &str| format!("{more} {SLURM}");
    let without = |name: &str| SLURM.split(' ').filter(|word| !word.starts_with(name)).collect::<Vec<_>>().join(" ");
    check(SLURM, (2, 2), &expect!["SLURM: rank 3/4 local 1 node 1 at gpu07:18456"]);
    check(&with("MASTER_ADDR=main MASTER_PORT=4000"), (2, 2), &expect!["SLURM: rank 3/4 local 1 node 1 at main:4000"]);
    check(&with("SLURM_STEP_NODELIST=gpu08"), (2, 2), &expect!["SLURM: rank 3/4 local 1 node 1 at gpu08:18456"]);
    check(&without("SLURM_JOB_ID"), (2, 2), &expect!["SLURM: rank 3/4 local 1 node 1 at gpu07:12910"]);
    check(&with("SLURM_JOB_ID=7"), (2, 2), &expect!["SLURM: rank 3/4 local 1 node 1 at gpu07:15007"]);
    check(&without("SLURM_NODELIST"), (2, 2), &expect!["SLURM: rank 3/4 local 1 node 1 at 127.0.0.1:18456"]);
    // An interactive shell.
    check(
        &with("SLURM_JOB_NAME=bash"),
        (3, 1),
        &expect!["the environment: rank 0/1 local 0 node 0 at 127.0.0.1:free, starts processes"],
    );
    check(
        &with("SLURM_JOB_NAME=interactive"),
        (3, 1),
        &expect!["the environment: rank 0/1 local 0 node 0 at 127.0.0.1:free, starts processes"],
    );
    // Contradictions.
    check(
        SLURM,
        (4, 2),
        &expect![[r#"
        SLURM: rank 3/4 local 1 node 1 at gpu07:18456
        error: devices=4 was requested, but SLURM specifies 2 (SLURM_NTASKS_PER_NODE); set devices=2, or change `--ntasks-per-node`"#]],
    );
    check(
        SLURM,
        (2, 1),
        &expect![[r#"
        SLURM: rank 3/4 local 1 node 1 at gpu07:18456
        error: num_nodes=1 was requested, but SLURM specifies 2 (SLURM_NNODES); set num_nodes=2, or change `--nodes`"#]],
    );
    check(
        &without("SLURM_NNODES"),
        (2, 4),
        &expect![[r#"
        SLURM: rank 3/4 local 1 node 1 at gpu07:18456
        error: devices=2 and num_nodes=4 make 8 processes, but SLURM specifies 4 (SLURM_NTASKS); change either of them"#]],
    );
    // `--ntasks` alone.
    let alone = without("SLURM_NTASKS_PER_NODE");
    check(
        &alone,
        (2, 2),
        &expect![
            "error: SLURM_NTASKS=4 does not specify the number of tasks on each node, which `devices` must match; use `--ntasks-per-node` instead of `--ntasks=4`"
        ],
    );
    check(
        &format!("SLURM_TASKS_PER_NODE=2(x2) {alone}"),
        (2, 2),
        &expect!["SLURM: rank 3/4 local 1 node 1 at gpu07:18456"],
    );
    check(
        &format!("SLURM_TASKS_PER_NODE=3,1 {alone}"),
        (2, 2),
        &expect![
            "error: SLURM distributed 4 tasks unevenly over the nodes (SLURM_TASKS_PER_NODE=3,1), but a run needs the same number on each; use `--ntasks-per-node` instead of `--ntasks`"
        ],
    );
    check(
        "SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0",
        (1, 1),
        &expect!["SLURM: rank 0/1 local 0 node 0 at 127.0.0.1:12910"],
    );
    // Without `srun`.
    check(
        &without("SLURM_PROCID"),
        (2, 2),
        &expect![
            "error: SLURM_NTASKS indicates a SLURM job, but SLURM_PROCID is not set, so `srun` did not start this process; start the program with `srun`, or name the job `interactive`"
        ],
    );
}

#[test]
fn lsf() {
    let folder = tempfile::tempdir().unwrap();
    let here = gethostname::gethostname().to_string_lossy().into_owned();
    let file = |name: &str, lines: &[&str]| {
        let path = folder.path().join(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        path.display().to_string()
    };
    let job = |file: &str| {
        let tasks = "LSB_JOBID=4321 JSM_NAMESPACE_SIZE=4 JSM_NAMESPACE_RANK=3 JSM_NAMESPACE_LOCAL_RANK=1";
        format!("{tasks} LSB_DJOB_RANKFILE={file}")
    };
    let check = |words: &str, arguments: (usize, usize), expected: &Expect| {
        let line = seen(words, arguments.0, arguments.1).replace(&here, "HERE");
        expected.assert_eq(&line.replace(&format!("{}/", folder.path().display()), ""));
    };
    let hosts = file("hosts", &["launch", "first", "first", &here, &here]);
    check(&job(&hosts), (2, 2), &expect!["LSF: rank 3/4 local 1 node 1 at first:10321"]);
    check(&format!("MASTER_PORT=5000 {}", job(&hosts)), (2, 2), &expect!["LSF: rank 3/4 local 1 node 1 at first:5000"]);
    check(
        &job(&file("full", &["launch", &format!("{here}.cluster.org")])),
        (4, 1),
        &expect!["LSF: rank 3/4 local 1 node 0 at HERE.cluster.org:10321"],
    );
    check(
        &job(&hosts),
        (4, 1),
        &expect![[r#"
        LSF: rank 3/4 local 1 node 1 at first:10321
        error: num_nodes=1 was requested, but LSF specifies 2 (LSB_DJOB_RANKFILE); set num_nodes=2, or change `bsub -nnodes`"#]],
    );
    check(
        &job(&hosts),
        (3, 2),
        &expect![[r#"
        LSF: rank 3/4 local 1 node 1 at first:10321
        error: devices=3 and num_nodes=2 make 6 processes, but LSF specifies 4 (JSM_NAMESPACE_SIZE); change either of them"#]],
    );
    check(
        &job(&file("elsewhere", &["launch", "a", "b"])),
        (2, 2),
        &expect![
            "error: this machine, HERE, is not one of the hosts that LSB_DJOB_RANKFILE lists (a, b); start the program with `jsrun`"
        ],
    );
    check(
        &job(&file("empty", &["launch"])),
        (2, 2),
        &expect!["error: the rank file LSB_DJOB_RANKFILE=empty lists no host after the launch node"],
    );
    check(
        &job("nowhere"),
        (2, 2),
        &expect![
            "error: the rank file LSB_DJOB_RANKFILE=nowhere cannot be read: No such file or directory (os error 2)"
        ],
    );
}

const OPEN_MPI: &str = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 \
    OMPI_COMM_WORLD_LOCAL_SIZE=2";

#[test]
fn mpi() {
    check(OPEN_MPI, (2, 1), &expect!["MPI: rank 1/2 local 1 node 0 at 127.0.0.1:free"]);
    check(&format!("MASTER_PORT=7000 {OPEN_MPI}"), (2, 1), &expect!["MPI: rank 1/2 local 1 node 0 at 127.0.0.1:7000"]);
    check(
        OPEN_MPI,
        (4, 1),
        &expect![[r#"
        MPI: rank 1/2 local 1 node 0 at 127.0.0.1:free
        error: devices=4 was requested, but MPI specifies 2 (OMPI_COMM_WORLD_LOCAL_SIZE); set devices=2, or change `mpirun -n`"#]],
    );
    // Two machines.
    let two = "OMPI_COMM_WORLD_RANK=5 OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=4";
    check(
        two,
        (4, 2),
        &expect![
            "error: MPI started 8 processes on several machines (OMPI_COMM_WORLD_SIZE=8), but MASTER_ADDR, the address of rank 0, is not set; use `mpirun -x MASTER_ADDR=HOST -x MASTER_PORT=29500 …` (Open MPI) or `mpiexec -genv MASTER_ADDR HOST …`"
        ],
    );
    check(&format!("MASTER_ADDR=first {two}"), (4, 2), &expect!["MPI: rank 5/8 local 1 node 1 at first:12910"]);
    check(
        &format!("MASTER_ADDR=first {two}"),
        (4, 1),
        &expect![[r#"
        MPI: rank 5/8 local 1 node 1 at first:12910
        error: devices=4 and num_nodes=1 make 4 processes, but MPI specifies 8 (OMPI_COMM_WORLD_SIZE); change either of them"#]],
    );
    check(
        &format!("SLURM_JOB_NODELIST=n[3-4] SLURM_NTASKS=2 SLURM_PROCID=1 {two}"),
        (4, 2),
        &expect!["MPI: rank 5/8 local 1 node 1 at n3:12910"],
    );
    // Others.
    check(
        "PMI_RANK=2 PMI_SIZE=4 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=2 MASTER_ADDR=a",
        (2, 2),
        &expect!["MPI: rank 2/4 local 0 node 1 at a:12910"],
    );
    check(
        "PMI_RANK=2 PMI_SIZE=4",
        (4, 1),
        &expect![
            "error: MPI set PMI_RANK=2, but no variable specifies the local rank of this process; set MPI_LOCALRANKID"
        ],
    );
    check(
        "MV2_COMM_WORLD_RANK=0 MV2_COMM_WORLD_SIZE=2 MV2_COMM_WORLD_LOCAL_RANK=0 MV2_COMM_WORLD_LOCAL_SIZE=2",
        (2, 1),
        &expect!["MPI: rank 0/2 local 0 node 0 at 127.0.0.1:free"],
    );
    check(
        "PALS_RANKID=5 PMI_SIZE=8 PALS_LOCAL_RANKID=1 PALS_NODEID=1 MASTER_ADDR=a",
        (4, 2),
        &expect!["MPI: rank 5/8 local 1 node 1 at a:12910"],
    );
    // One process is no company.
    check(
        "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1",
        (2, 1),
        &expect!["the environment: rank 0/1 local 0 node 0 at 127.0.0.1:free, starts processes"],
    );
    // `srun --mpi=pmi2`.
    check(&format!("PMI_RANK=3 PMI_SIZE=4 {SLURM}"), (2, 2), &expect!["SLURM: rank 3/4 local 1 node 1 at gpu07:18456"]);
}

#[test]
fn kubeflow() {
    let process = "RANK=1 WORLD_SIZE=3 MASTER_ADDR=job-master-0 MASTER_PORT=23456";
    check(process, (1, 3), &expect!["Kubeflow: rank 1/3 local 0 node 1 at job-master-0:23456"]);
    check(
        process,
        (2, 3),
        &expect![[r#"
        Kubeflow: rank 1/3 local 0 node 1 at job-master-0:23456
        error: devices=2 was requested, but RANK=1 without LOCAL_RANK means that each pod is one process; set devices=1 and num_nodes=3, or use a TrainJob, whose pods start several processes"#]],
    );
    check(
        process,
        (1, 2),
        &expect![[r#"
        Kubeflow: rank 1/3 local 0 node 1 at job-master-0:23456
        error: num_nodes=2 was requested, but Kubeflow specifies 3 (WORLD_SIZE); set num_nodes=3, or change `replicas`"#]],
    );
    check(
        "RANK=1 WORLD_SIZE=3",
        (1, 3),
        &expect![
            "error: MASTER_ADDR is not set, though other variables indicate that Kubeflow started this process; start it with Kubeflow as usual, or set MASTER_ADDR"
        ],
    );
    let pod =
        "PET_NNODES=2 PET_NPROC_PER_NODE=4 PET_NODE_RANK=1 PET_MASTER_ADDR=job-node-0-0.job PET_MASTER_PORT=29500";
    check(pod, (4, 2), &expect!["Kubeflow: rank 4/8 local 0 node 1 at job-node-0-0.job:29500, starts processes"]);
    check(
        pod,
        (2, 2),
        &expect![[r#"
        Kubeflow: rank 4/8 local 0 node 1 at job-node-0-0.job:29500, starts processes
        error: devices=2 was requested, but Kubeflow specifies 4 (PET_NPROC_PER_NODE); set devices=4, or change `numProcPerNode`"#]],
    );
    check(
        pod,
        (4, 1),
        &expect![[r#"
        Kubeflow: rank 4/8 local 0 node 1 at job-node-0-0.job:29500, starts processes
        error: num_nodes=1 was requested, but Kubeflow specifies 2 (PET_NNODES); set num_nodes=2, or change `numNodes`"#]],
    );
    check(
        &format!("PET_NPROC_PER_NODE=gpu {pod}"),
        (8, 2),
        &expect!["Kubeflow: rank 1/2 local 0 node 1 at job-node-0-0.job:29500, starts processes"],
    );
    check(
        "PET_NNODES=1 PET_NPROC_PER_NODE=2",
        (2, 1),
        &expect!["Kubeflow: rank 0/2 local 0 node 0 at 127.0.0.1:free, starts processes"],
    );
    check(
        "PET_NNODES=2 PET_NPROC_PER_NODE=2",
        (2, 2),
        &expect![
            "error: PET_NODE_RANK is not set, though other variables indicate that Kubeflow started this process; start it with Kubeflow as usual, or set PET_NODE_RANK"
        ],
    );
    check(
        "PET_NNODES=1:4 PET_NPROC_PER_NODE=2",
        (2, 2),
        &expect![
            "error: PET_NNODES=1:4 specifies an elastic number of nodes, which only `torchrun` supports; use a fixed number, or `torchrun --no-python` as the command"
        ],
    );
    // `torchrun` reads them itself.
    check(
        &format!("{TORCHRUN} {pod}"),
        (2, 2),
        &expect!["torchrun: rank 3/4 local 1 node 1 at first:29400, agent store"],
    );
}

#[test]
fn unset_and_by_hand() {
    check("", (1, 1), &expect!["the environment: rank 0/1 local 0 node 0 at 127.0.0.1:free, starts processes"]);
    check("", (4, 1), &expect!["the environment: rank 0/1 local 0 node 0 at 127.0.0.1:free, starts processes"]);
    check(
        "NODE_RANK=1 MASTER_ADDR=first MASTER_PORT=6000",
        (4, 2),
        &expect!["the environment: rank 0/1 local 0 node 1 at first:6000, starts processes"],
    );
    check(
        "GROUP_RANK=1 MASTER_ADDR=first MASTER_PORT=6000 WORLD_SIZE=8",
        (4, 2),
        &expect!["the environment: rank 0/8 local 0 node 1 at first:6000, starts processes"],
    );
    check(
        "WORLD_SIZE=8",
        (4, 1),
        &expect![[r#"
        the environment: rank 0/8 local 0 node 0 at 127.0.0.1:free, starts processes
        error: devices=4 and num_nodes=1 make 4 processes, but the environment specifies 8 (WORLD_SIZE); change either of them"#]],
    );
    check(
        "NODE_RANK=2",
        (4, 2),
        &expect![[r#"
        the environment: rank 0/1 local 0 node 2 at 127.0.0.1:free, starts processes
        error: num_nodes=2 was requested, but NODE_RANK=2 means that this is node 2, counted from 0; set num_nodes to the number of machines"#]],
    );
    let by_hand = "RANK=1 LOCAL_RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=6000";
    check(by_hand, (2, 1), &expect!["the launcher that set LOCAL_RANK: rank 1/2 local 1 node 0 at 127.0.0.1:6000"]);
    check(
        by_hand,
        (4, 1),
        &expect![[r#"
        the launcher that set LOCAL_RANK: rank 1/2 local 1 node 0 at 127.0.0.1:6000
        error: devices=4 and num_nodes=1 make 4 processes, but the launcher that set LOCAL_RANK specifies 2 (WORLD_SIZE); change either of them"#]],
    );
    check(
        "LOCAL_RANK=1 WORLD_SIZE=2 MASTER_PORT=6000",
        (2, 1),
        &expect!["the launcher that set LOCAL_RANK: rank 1/2 local 1 node 0 at 127.0.0.1:6000"],
    );
    check(
        "LOCAL_RANK=1 NODE_RANK=1 LOCAL_WORLD_SIZE=2 WORLD_SIZE=4 MASTER_PORT=1",
        (2, 2),
        &expect!["the launcher that set LOCAL_RANK: rank 3/4 local 1 node 1 at 127.0.0.1:1"],
    );
    check(
        "LOCAL_RANK=1 NODE_RANK=1 WORLD_SIZE=4 MASTER_PORT=1",
        (2, 2),
        &expect![
            "error: LOCAL_RANK indicates that this process is one of several, but RANK is not set; set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for every process, or unset LOCAL_RANK to let the program start them itself"
        ],
    );
    check(
        "LOCAL_RANK=1 MASTER_PORT=6000",
        (2, 1),
        &expect![
            "error: LOCAL_RANK indicates that this process is one of several, but WORLD_SIZE is not set; set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for every process, or unset LOCAL_RANK to let the program start them itself"
        ],
    );
    check(
        "LOCAL_RANK=1 WORLD_SIZE=2",
        (2, 1),
        &expect![
            "error: LOCAL_RANK indicates that this process is one of several, but MASTER_PORT is not set; set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for every process, or unset LOCAL_RANK to let the program start them itself"
        ],
    );
    check(
        "LOCAL_RANK=0 WORLD_SIZE=0",
        (1, 1),
        &expect!["error: the environment variable WORLD_SIZE=0 specifies no process; set it to at least 1"],
    );
    check(
        "NODE_RANK=-1",
        (1, 1),
        &expect![
            "error: the environment variable NODE_RANK=-1 is not a number in the valid range; correct it or unset it"
        ],
    );
}

/// The variables of the program's own launcher have precedence, wherever the launcher itself runs.
#[test]
fn supervised() {
    let rank = "FULGURITE_SUPERVISOR=77 RANK=1 LOCAL_RANK=1 NODE_RANK=0 WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 \
        MASTER_ADDR=127.0.0.1 MASTER_PORT=40000 TORCHELASTIC_USE_AGENT_STORE=True";
    check(
        rank,
        (2, 1),
        &expect!["the program's own launcher: rank 1/2 local 1 node 0 at 127.0.0.1:40000, agent store"],
    );
    check(
        &format!("{rank} {SLURM}"),
        (2, 1),
        &expect!["the program's own launcher: rank 1/2 local 1 node 0 at 127.0.0.1:40000, agent store"],
    );
    check(
        &format!("{rank} PET_NNODES=1 PET_NPROC_PER_NODE=2"),
        (2, 1),
        &expect!["the program's own launcher: rank 1/2 local 1 node 0 at 127.0.0.1:40000, agent store"],
    );
    check(
        rank,
        (3, 1),
        &expect![[r#"
        the program's own launcher: rank 1/2 local 1 node 0 at 127.0.0.1:40000, agent store
        error: devices=3 was requested, but the program's own launcher specifies 2 (LOCAL_WORLD_SIZE); set devices=2, or change `LOCAL_WORLD_SIZE`"#]],
    );
}

/// Ranks, local ranks and nodes that are out of range, in every environment.
#[test]
fn ranks_and_nodes_out_of_range() {
    let by_hand = |more: &str| format!("{more} RANK=1 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1 LOCAL_RANK=1");
    let torchrun = |more: &str| format!("{more} {TORCHRUN}");
    const SLURM: &str = "SLURM_NTASKS=2 SLURM_PROCID=1 SLURM_LOCALID=1 SLURM_NODEID=0 SLURM_NNODES=1 SLURM_JOB_ID=7 \
        SLURM_NODELIST=a SLURM_NTASKS_PER_NODE=2";
    let slurm = |more: &str| format!("{more} {SLURM}");
    const MPI: &str =
        "MASTER_ADDR=a MASTER_PORT=1 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1";
    let mpi = |more: &str| format!("{more} {MPI}");
    for (words, wrong) in [
        (by_hand("LOCAL_RANK=7"), "the local rank 7 and the environment variable WORLD_SIZE=2 contradict each other"),
        (
            by_hand("LOCAL_RANK=7 LOCAL_WORLD_SIZE=2"),
            "the local rank 7 and the environment variable LOCAL_WORLD_SIZE=2",
        ),
        (by_hand("NODE_RANK=2"), "the node 2 and the environment variable WORLD_SIZE=2 contradict each other"),
        (by_hand("RANK=2"), "RANK=2 and WORLD_SIZE=2 contradict each other"),
        (by_hand("LOCAL_WORLD_SIZE=3"), "LOCAL_WORLD_SIZE=3 and WORLD_SIZE=2 contradict each other"),
        (by_hand("LOCAL_RANK=-1"), "LOCAL_RANK=-1 is not a number in the valid range"),
        (torchrun("LOCAL_RANK=2"), "the local rank 2 and the environment variable LOCAL_WORLD_SIZE=2"),
        (torchrun("GROUP_RANK=2"), "the node 2 and the environment variable GROUP_WORLD_SIZE=2"),
        (slurm("SLURM_LOCALID=7"), "the local rank 7 and the environment variable "),
        (slurm("SLURM_NODEID=1"), "the node 1 and the environment variable SLURM_NNODES=1"),
        (slurm("SLURM_PROCID=2"), "SLURM_PROCID=2 and SLURM_NTASKS=2 contradict each other"),
        (mpi("OMPI_COMM_WORLD_LOCAL_RANK=7"), "the local rank 7 and the environment variable OMPI_COMM_WORLD_SIZE=2"),
        (mpi("OMPI_COMM_WORLD_RANK=2"), "OMPI_COMM_WORLD_RANK=2 and OMPI_COMM_WORLD_SIZE=2 contradict each other"),
    ] {
        let error = seen(&words, 2, 1);
        assert!(error.starts_with("error: ") && error.contains(wrong), "{words}: {error}");
    }
    assert!(!seen(&by_hand(""), 2, 1).contains("error"), "{}", seen(&by_hand(""), 2, 1));
}
