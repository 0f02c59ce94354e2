//! Weights & Biases: transaction logs, read by its own programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::Duration;

use fulgurite::callbacks::{DeviceStatsMonitor, LambdaCallback, SaveLast};
use fulgurite::cli::{Cli, FromConfig, SaveConfig};
use fulgurite::loggers::{LogModel, RunStatus, WandbLogger, WandbMode};
use fulgurite::prelude::*;
use fulgurite::{Console, Signal};
use fulgurite_tracker_tests::http::{Server, Shared};
use fulgurite_tracker_tests::wandb::{Artifact, Run, Wandb as Backend, json_with_nan};
use fulgurite_trackers::{Pace, sync};
use serde_json::{Value as Json, json};

use crate::model::{Line, LineOptions, Points, line, trainer};
use crate::service::{lightning, programs, python};

const KEY: &str = "5ecret5ecret5ecret5ecret5ecret5ecret5ecret";

/// All in one pass, because W&B's programs take long to start.
#[test]
fn real_programs_read_what_runs_wrote() {
    let Some(programs) = programs("wandb") else { return };
    let folder = tempfile::tempdir().unwrap();
    let wandb = Wandb { programs: &programs };
    a_fit_from_the_command_line_is_read_and_goes_on(&wandb, &folder.path().join("cli"));
    failures_and_signals_have_exit_codes(&wandb, &folder.path().join("ends"));
    everything_that_can_be_logged_is_read(&wandb, &folder.path().join("all"));
    it_is_what_lightning_writes(&wandb, &folder.path().join("lightning"));
    a_killed_run_is_read_up_to_its_last_row(&wandb, &folder.path().join("killed"));
    the_server_has_what_the_own_client_would_have_sent(&wandb, &folder.path().join("both"));
}

/// W&B's programs.
struct Wandb<'a> {
    programs: &'a Path,
}

impl Wandb<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("wandb"));
        let quiet = [("WANDB_ERROR_REPORTING", "false"), ("DO_NOT_TRACK", "1"), ("NO_COLOR", "1")];
        command.args(args).envs(quiet);
        command
    }

    fn output(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The records of a file, as `wandb leet` reads them.
    fn records(&self, file: &Path) -> Vec<Json> {
        let text = self.output(&["leet", "inspect", "--json", file.to_str().unwrap()]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn summary(&self, file: &Path) -> Json {
        let text = self.output(&["leet", "inspect", "--summary", "--json", file.to_str().unwrap()]);
        serde_json::from_str(&text).unwrap()
    }
}

/// The folders of runs below `root/wandb`, the earliest first.
fn run_files(root: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(root.join("wandb")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = folders.filter(|path| path.is_dir() && !path.is_symlink()).collect();
    folders.sort();
    let file = |folder: &PathBuf| {
        let mut files = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        files.find(|path| path.extension().is_some_and(|extension| extension == "wandb")).unwrap()
    };
    folders.iter().map(file).collect()
}

fn of_type<'a>(records: &'a [Json], kind: &str) -> Vec<&'a Json> {
    records.iter().filter(|record| record["type"] == kind).map(|record| &record[kind]).collect()
}

/// The rows that have a metric: its values by the trainer's step.
fn values<'a>(records: &'a [Json], metric: &str) -> Vec<(i64, &'a Json)> {
    let rows = of_type(records, "history").into_iter().map(|row| &row["item"]);
    let with = rows.filter(|row| !row[metric].is_null());
    with.map(|row| (row["trainer/global_step"].as_i64().unwrap(), &row[metric])).collect()
}

fn steps(records: &[Json], metric: &str) -> Vec<i64> {
    values(records, metric).into_iter().map(|(step, _)| step).collect()
}

fn cli(root: &Path, args: &[&str]) -> String {
    let console = Console::memory();
    let root = format!("--trainer.default_root_dir={}", root.display());
    let common = ["fit", &root, "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"];
    let quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"];
    let args = common.iter().chain(&quiet).chain(args).copied();
    let cli = Cli::<Line, Points>::new("line")
        .console(console.clone())
        .args(args)
        .env([("A", "b")])
        .save_config(SaveConfig::Overwrite);
    assert_eq!(format!("{:?}", cli.run()), format!("{:?}", ExitCode::SUCCESS), "{}", console.contents());
    console.contents()
}

fn a_fit_from_the_command_line_is_read_and_goes_on(wandb: &Wandb, root: &Path) {
    let logger = ["--trainer.logger+=WandbLogger", "--trainer.logger.offline=true", "--trainer.logger.project=lines"];
    let options = ["--trainer.logger.name=first", "--trainer.logger.tags=[a, b]", "--trainer.logger.group=g"];
    let fit = |epochs: &str, more: &[&str]| {
        let epochs = format!("--trainer.max_epochs={epochs}");
        cli(root, &[&logger[..], &options[..], &[&epochs, "--model.width=8"], more].concat())
    };
    let said = fit("2", &[]);
    let [file] = run_files(root).try_into().unwrap();
    let folder = file.parent().unwrap().display();
    assert!(said.contains(&format!("`wandb sync {folder}` or `fulgurite sync {folder}` sends it")), "{said}");
    let records = wandb.records(&file);
    let types: Vec<&str> = records.iter().map(|record| record["type"].as_str().unwrap()).collect();
    assert_eq!(types[..4], ["header", "run", "metric", "metric"]);
    assert_eq!(types.last(), Some(&"exit"));
    let run = of_type(&records, "run")[0];
    assert_eq!(
        (&run["project"], &run["display_name"], &run["run_group"]),
        (&"lines".into(), &"first".into(), &"g".into())
    );
    assert_eq!((&run["tags"], &run["resume"]), (&json!(["a", "b"]), &true.into()));
    assert_eq!((steps(&records, "train_loss"), steps(&records, "val_loss")), ((0..8).collect(), vec![3, 7]));
    assert!(values(&records, "not/a@number").iter().all(|(_, value)| *value == "NaN"));
    let rows: Vec<i64> = of_type(&records, "history").iter().map(|row| row["step"]["num"].as_i64().unwrap()).collect();
    assert!(rows.iter().copied().eq(0..rows.len() as i64), "{rows:?}");
    let read = wandb.summary(&file);
    assert_eq!((&read["state"], &read["exit_code"], &read["name"]), (&"finished".into(), &0.into(), &"first".into()));
    assert_eq!(read["config"], json!({"width": 8, "optim": {"betas": [0.9, 0.999], "on": true}}));
    let (_, last) = values(&records, "val_loss").pop().unwrap();
    assert_eq!((&read["summary"]["val_loss"], &read["summary"]["epoch"]), (last, &1.into()));
    let id = read["run_id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 8);
    assert!(root.join("lines").join(&id).join("checkpoints").is_dir());

    // The same program goes on with the same run, in another file.
    let said = fit("3", &["--ckpt_path=auto"]);
    assert!(said.contains("resumed from"), "{said}");
    let [_, second] = run_files(root).try_into().unwrap();
    let records = wandb.records(&second);
    assert_eq!(of_type(&records, "run")[0]["run_id"], id.as_str());
    assert_eq!(steps(&records, "train_loss"), (8..12).collect::<Vec<_>>());
    let latest = root.join("wandb/latest-run").canonicalize().unwrap();
    assert_eq!(second.parent().unwrap().canonicalize().unwrap(), latest);
}

fn failures_and_signals_have_exit_codes(wandb: &Wandb, root: &Path) {
    let console = Console::memory();
    let logger = |name: &str| WandbLogger::new("ends").save_dir(root.join(name)).offline(true);
    let mut failing = Line::from_config(LineOptions { fails_at: Some(2), ..LineOptions::default() }).unwrap();
    let run = trainer(root, &console).max_epochs(2).logger(logger("failing"));
    run.build().unwrap().fit(&mut failing, &mut Points).unwrap_err();
    let [file] = run_files(&root.join("failing")).try_into().unwrap();
    let read = wandb.summary(&file);
    assert_eq!((&read["state"], &read["exit_code"]), (&"failed".into(), &1.into()));

    let stop = LambdaCallback::new().on_train_batch_end(|trainer, _, _, _, _| {
        if trainer.global_step() == 2 {
            Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    let run = trainer(root, &console).max_epochs(2).logger(logger("ended")).callback(stop);
    let outcome = run.build().unwrap().fit(&mut line(), &mut Points).unwrap();
    assert_eq!(outcome.signal(), Some(Signal::Terminate));
    let [file] = run_files(&root.join("ended")).try_into().unwrap();
    assert_eq!(wandb.summary(&file)["exit_code"], 143);

    // Nothing is written.
    let disabled = logger("disabled").mode(WandbMode::Disabled).offline(false);
    let run = trainer(root, &console).max_epochs(1).logger(disabled);
    _ = run.build().unwrap().fit(&mut line(), &mut Points).unwrap();
    assert_eq!(run_files(&root.join("disabled")), Vec::<PathBuf>::new());
}

fn everything_that_can_be_logged_is_read(wandb: &Wandb, root: &Path) {
    let mut own = WandbLogger::new("all").save_dir(root).offline(true).prefix("p").checkpoint_name("c");
    let names: Vec<String> = (0..1500).map(|i| format!("metric {i}")).collect();
    let many: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.25)).collect();
    own.log_metrics(&many, 3).unwrap();
    let long = "x".repeat(300);
    let odd = [
        ("a//b", 1.0),
        ("🚀 \"c\"", f64::INFINITY),
        ("d", f64::NEG_INFINITY),
        (&long, 1e-300),
        ("trainer/global_step", 1.0),
    ];
    own.log_metrics(&odd, -1).unwrap();
    own.log_hyperparams(&Dict::new().with("long", "y".repeat(70_000).as_str()).with("none", Value::None)).unwrap();
    own.log_text("notes/first", "größer\n", 4).unwrap();
    own.log_image("../samples/a", &Tensor::ones([3, 4, 5], (Kind::Float, Device::Cpu)), 4).unwrap();
    own.log_histogram("weights", &Tensor::arange(128, (Kind::Float, Device::Cpu)), 4).unwrap();
    own.log_table("t", &["a", "b"], &[vec![1.into(), 0.5.into()], vec!["x".into(), Value::None]], 5).unwrap();
    own.log_table("t", &["a"], &[vec![]], 5).unwrap_err();
    own.save().unwrap();
    own.finalize(RunStatus::Success).unwrap();

    let [file] = run_files(root).try_into().unwrap();
    let records = wandb.records(&file);
    let value =
        |name: &str| values(&records, name).into_iter().map(|(step, value)| (step, value.clone())).next().unwrap();
    assert_eq!(value("p-metric 1499"), (3, 0.25.into()));
    assert_eq!((value("p-🚀 \"c\""), value("p-d")), ((-1, "Infinity".into()), (-1, "-Infinity".into())));
    assert_eq!((value("p-a//b"), value(&format!("p-{long}"))), ((-1, 1.into()), (-1, 1e-300.into())));
    assert_eq!(wandb.summary(&file)["config"]["long"].as_str().unwrap().len(), 70_000);
    let (_, histogram) = value("p-weights");
    assert_eq!((histogram["values"].as_array().unwrap().len(), &histogram["bins"][64]), (64, &127.into()));
    let content =
        |value: &Json| fs::read(file.parent().unwrap().join("files").join(value["path"].as_str().unwrap())).unwrap();
    let (_, image) = value("p-../samples/a");
    assert_eq!((&image["_type"], &image["width"], &image["height"]), (&"image-file".into(), &5.into(), &4.into()));
    assert_eq!(
        (&content(&image)[..4], content(&image).len() as u64),
        (&b"\x89PNG"[..], image["size"].as_u64().unwrap())
    );
    let (_, table) = value("p-t");
    let read: Json = serde_json::from_slice(&content(&table)).unwrap();
    assert_eq!(read, json!({"columns": ["a", "b"], "data": [[1, 0.5], ["x", null]]}));
    let (_, text) = value("p-notes/first");
    assert_eq!(serde_json::from_slice::<Json>(&content(&text)).unwrap()["data"], json!([["größer\n"]]));
}

/// The same run by Lightning and its logger: the run, its configuration, metrics, names and steps of rows, and last values.
fn it_is_what_lightning_writes(wandb: &Wandb, root: &Path) {
    let Some(lightning) = lightning() else { return };
    let (its, ours) = (root.join("its"), root.join("ours"));
    fs::create_dir_all(&its).unwrap();
    let script = include_str!("lightning_wandb.py");
    python(wandb.programs, script, &[its.to_str().unwrap(), lightning.to_str().unwrap()]);
    let console = Console::memory();
    let logger =
        WandbLogger::new("same").name("n").save_dir(ours.as_path()).offline(true).prefix("p").tags(["a"]).group("g");
    let mut model = Line::from_config(LineOptions { width: 8, ..LineOptions::default() }).unwrap();
    let run = trainer(&ours, &console).max_epochs(2).logger(logger);
    _ = run.build().unwrap().fit(&mut model, &mut Points).unwrap();

    let written = |root: &Path| {
        let [file] = run_files(root).try_into().unwrap();
        let (records, read) = (wandb.records(&file), wandb.summary(&file));
        let run = of_type(&records, "run")[0].clone();
        let run = ["display_name", "project", "resume", "run_group", "tags"].map(|name| run[name].clone());
        let row = |row: &Json| {
            let names: Vec<String> = row["item"].as_object().unwrap().keys().cloned().collect();
            (row["step"].clone(), row["item"]["trainer/global_step"].clone(), names)
        };
        let rows: Vec<_> = of_type(&records, "history").into_iter().map(row).collect();
        let metrics: Vec<Json> = of_type(&records, "metric").into_iter().cloned().collect();
        let last: Vec<String> = read["summary"].as_object().unwrap().keys().cloned().collect();
        (run, read["config"].clone(), metrics, rows, last, (read["state"].clone(), read["exit_code"].clone()))
    };
    assert_eq!(written(&ours), written(&its));
}

/// Starts this program again, as the test below, to do something with other variables.
fn other_process(what: &str, root: &Path, server: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "wandb::another_process", "--nocapture"]);
    command.env("WANDB_TEST_WHAT", what).env("WANDB_TEST_ROOT", root);
    if let Some(server) = server {
        command.envs([("WANDB_BASE_URL", server), ("WANDB_API_KEY", KEY), ("WANDB_MODE", "online")]);
    }
    command.output().unwrap()
}

#[test]
fn another_process() {
    let Some(what) = std::env::var_os("WANDB_TEST_WHAT") else { return };
    let root = PathBuf::from(std::env::var_os("WANDB_TEST_ROOT").unwrap());
    match what.to_str().unwrap() {
        "killed" => {
            let mut own = WandbLogger::new("killed").save_dir(root).offline(true);
            for step in 0..5000 {
                own.log_metrics(&[("a", 0.5), ("b", f64::NAN)], step).unwrap();
                if step == 3000 {
                    own.save().unwrap();
                }
            }
            Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().unwrap();
            std::thread::sleep(Duration::from_secs(10));
        }
        "sync" => {
            for path in sync::outboxes(&root) {
                let sent = sync::send(&path, None, Pace::default()).unwrap().unwrap();
                assert_eq!((sent.left, &sent.warnings[..]), (None, &[][..]));
            }
        }
        "online" => println!(
            "{}",
            cli(
                &root,
                &[
                    "--trainer.logger+=WandbLogger",
                    "--trainer.logger.project=lines",
                    "--trainer.max_epochs=2",
                    "--trainer.logger.log_model=true"
                ]
            )
        ),
        "resumed" => println!(
            "{}",
            cli(
                &root,
                &[
                    "--trainer.logger+=WandbLogger",
                    "--trainer.logger.project=lines",
                    "--trainer.max_epochs=3",
                    "--ckpt_path=auto"
                ]
            )
        ),
        other => panic!("{other}"),
    }
}

fn a_killed_run_is_read_up_to_its_last_row(wandb: &Wandb, root: &Path) {
    let output = other_process("killed", root, None);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{output:?}");
    let [file] = run_files(root).try_into().unwrap();
    let records = wandb.records(&file);
    let rows = steps(&records, "a");
    // What was saved is there, and what is there is whole.
    assert!(rows.len() >= 3000 && rows.iter().copied().eq(0..rows.len() as i64), "{} rows", rows.len());
    assert_eq!(wandb.summary(&file)["exit_code"], Json::Null);
}

/// A run with everything, in two parts, sent by W&B's client to one server and by this crate to another.
fn the_server_has_what_the_own_client_would_have_sent(wandb: &Wandb, root: &Path) {
    let (theirs, ours) = (Server::<Backend>::start(), Server::<Backend>::start());
    let fit = |epochs: u64| {
        let console = Console::memory();
        let media = LambdaCallback::new().on_train_batch_end(|trainer, _, _, _, _| {
            let step = trainer.global_step() as i64;
            for logger in trainer.loggers().iter_mut().filter(|_| step % 4 == 2) {
                logger.log_image("a/b", &Tensor::ones([1, 4, 4], (Kind::Float, Device::Cpu)), step)?;
                logger.log_histogram("h", &Tensor::arange(step + 5, (Kind::Float, Device::Cpu)), step)?;
                logger.log_text("t", "a \"text\"", step)?;
            }
            Ok(())
        });
        let models = ModelCheckpoint::monitor("val_loss").filename("{epoch}").save_top_k(1).save_last(SaveLast::Copy);
        let logger = WandbLogger::new("both").save_dir(root).offline(true).name("n").tags(["a b", "c"]).notes("é");
        let run = trainer(root, &console).max_epochs(epochs).callback(models).callback(media);
        let mut run = run.callback(DeviceStatsMonitor::new()).logger(logger.log_model(LogModel::All)).build().unwrap();
        match epochs {
            2 => _ = run.fit(&mut line(), &mut Points).unwrap(),
            _ => _ = run.ckpt_path("auto").fit(&mut line(), &mut Points).unwrap(),
        }
    };
    for part in 0..2 {
        fit(part + 2);
        let file = run_files(root).pop().unwrap();
        let copies = root.join(format!("copy-{part}"));
        let folder = file.parent().unwrap();
        copy(folder, &copies.join("wandb").join(folder.file_name().unwrap()));
        let synced = wandb
            .command(&["sync", folder.to_str().unwrap()])
            .envs([("WANDB_BASE_URL", theirs.url.as_str()), ("WANDB_API_KEY", KEY)])
            .output()
            .unwrap();
        assert!(synced.status.success(), "{synced:?}");
        let sent = other_process("sync", &copies, Some(&ours.url));
        assert!(sent.status.success(), "{sent:?}");
        assert!(sync::outboxes(&copies).is_empty() && run_files(root).len() == part as usize + 1);

        let (theirs, ours) = (theirs.shared(), ours.shared());
        assert_eq!(ours.backend.runs.len(), 1);
        let (their_run, our_run) =
            (theirs.backend.runs.values().next().unwrap(), ours.backend.runs.values().next().unwrap());
        assert_eq!(as_json(&our_run.history), as_json(&their_run.history));
        assert_eq!(as_json(&our_run.events), as_json(&their_run.events));
        assert_eq!(our_run.events.len(), part as usize + 1);
        assert_eq!(json_with_nan(&our_run.summary), json_with_nan(&their_run.summary));
        assert_eq!((our_run.exit_code, our_run.is_complete), (their_run.exit_code, their_run.is_complete));
        assert_eq!(info(our_run), info(their_run));
        let names = |run: &Run| run.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(our_run), names(their_run));
        for (name, bytes) in our_run.files.iter().filter(|(name, _)| name.starts_with("media/")) {
            assert!(*bytes == their_run.files[name], "{name}");
        }
        assert_eq!(yaml(wandb, &our_run.files["config.yaml"]), yaml(wandb, &their_run.files["config.yaml"]));
        let artifacts = |server: &Shared<Backend>| server.backend.artifacts.iter().map(artifact).collect::<Vec<_>>();
        assert_eq!(artifacts(&ours), artifacts(&theirs));
        assert_eq!(our_run.history.len(), their_run.history.len());
    }
    let rows = theirs.shared().backend.runs.values().next().unwrap().history.len();
    assert!(rows > 30, "{rows}");
    assert!(theirs.shared().backend.artifacts.len() >= 3);

    // The client itself goes on with what was sent here, online.
    let id = ours.shared().backend.runs.keys().next().unwrap().strip_prefix("both/").unwrap().to_owned();
    let script = root.join("go_on.py");
    fs::write(&script, include_str!("go_on_wandb.py")).unwrap();
    let output = Command::new(wandb.programs.join("python"))
        .args([script.as_os_str(), "both".as_ref(), id.as_ref(), root.as_os_str()])
        .envs([("WANDB_BASE_URL", ours.url.as_str()), ("WANDB_API_KEY", KEY), ("WANDB_ERROR_REPORTING", "false")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let config: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config, json!({"width": 0, "optim": {"betas": [0.9, 0.999], "on": true}}));
    let shared = ours.shared();
    let last = json_with_nan(shared.backend.runs.values().next().unwrap().history.last().unwrap());
    assert_eq!((&last["by the client"], &last["_step"]), (&1.0.into(), &(rows as f64).into()));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).unwrap(),
        }
    }
}

fn as_json(lines: &[String]) -> Vec<Json> {
    lines.iter().map(|line| json_with_nan(line)).collect()
}

/// What both clients say of a run: all but the program, and what each says of itself.
fn info(run: &Run) -> BTreeMap<String, Json> {
    let mut info: BTreeMap<String, Json> = run.info.clone();
    info.remove("program");
    let mut config = json_with_nan(info["config"].as_str().unwrap());
    config["_wandb"]["value"]["t"] = Json::Null;
    info.insert("config".into(), config);
    info
}

fn yaml(wandb: &Wandb, bytes: &[u8]) -> Json {
    let script = "import sys, json, yaml; print(json.dumps(yaml.safe_load(sys.argv[1])))";
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let mut config = json_with_nan(&python(wandb.programs, script, &[&text]));
    config["_wandb"]["value"]["t"] = Json::Null;
    config
}

/// Of an artifact what does not depend on chance or places.
fn artifact(artifact: &Artifact) -> (Json, Json, BTreeMap<String, Vec<u8>>) {
    let mut input = artifact.input.clone();
    let fields = [
        "aliases",
        "artifactCollectionName",
        "artifactTypeName",
        "digest",
        "digestAlgorithm",
        "metadata",
        "projectName",
    ];
    input.as_object_mut().unwrap().retain(|name, _| fields.contains(&name.as_str()));
    let mut manifest: Json = serde_json::from_slice(&artifact.manifest).unwrap();
    for file in manifest["contents"].as_object_mut().unwrap().values_mut() {
        file.as_object_mut().unwrap().retain(|name, _| !["local_path", "skip_cache"].contains(&name.as_str()));
    }
    assert!(artifact.is_committed);
    (input, manifest, artifact.files.clone())
}

#[test]
fn a_run_is_sent_while_it_goes_and_goes_on() {
    let (server, root) = (Server::<Backend>::start(), tempfile::tempdir().unwrap());
    for (what, rows) in [("online", 8), ("resumed", 12)] {
        let output = other_process(what, root.path(), Some(&server.url));
        assert!(output.status.success(), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains(KEY));
        let shared = server.shared();
        let [(name, run)] = shared.backend.runs.iter().collect::<Vec<_>>().try_into().unwrap();
        let id = name.strip_prefix("lines/").unwrap();
        assert!(root.path().join("lines").join(id).join("checkpoints").is_dir());
        let history = as_json(&run.history);
        let steps: Vec<i64> = history
            .iter()
            .filter(|row| !row["train_loss"].is_null())
            .map(|row| row["trainer/global_step"].as_f64().unwrap() as i64)
            .collect();
        assert!(steps.iter().copied().eq(0..rows), "{steps:?}");
        assert!(history.iter().enumerate().all(|(number, row)| row["_step"] == number as f64));
        assert_eq!((run.exit_code, run.is_complete, shared.backend.artifacts.len()), (Some(0), true, 1));
        assert!(sync::outboxes(root.path()).is_empty());
    }
    // The key is written nowhere.
    let found = Command::new("grep").args(["-r", KEY]).arg(root.path()).output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{found:?}");

    let nowhere = tempfile::tempdir().unwrap();
    server.shared().key = Some("Basic other".into());
    let output = other_process("online", nowhere.path(), Some(&server.url));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("set WANDB_API_KEY") && said.contains("offline=true") && !said.contains(KEY), "{said}");
    assert_eq!(run_files(nowhere.path()), Vec::<PathBuf>::new());
}

#[test]
fn checkpoints_become_artifacts_that_stay() {
    let root = tempfile::tempdir().unwrap();
    let console = Console::memory();
    let checkpoint = ModelCheckpoint::monitor("val_loss").filename("{epoch}").save_top_k(1).save_last(SaveLast::Copy);
    let logger = WandbLogger::new("models").save_dir(root.path()).offline(true).log_model(LogModel::All);
    let run = trainer(root.path(), &console).max_epochs(3).callback(checkpoint).logger(logger);
    let (mut run, mut model) = (run.build().unwrap(), line());
    _ = run.fit(&mut model, &mut Points).unwrap();
    _ = run.validate(&mut model, &mut Points).unwrap();
    assert_eq!(console.contents().matches("sends it").count(), 1, "{}", console.contents());
    let [file] = run_files(root.path()).try_into().unwrap();
    let kept = fs::read_dir(file.parent().unwrap().join("artifacts")).unwrap().flatten();
    // Each of three epochs, and `last` as often; those that were replaced are still there to be sent.
    let contents: Vec<Vec<u8>> = kept.map(|entry| fs::read(entry.path()).unwrap()).collect();
    assert_eq!(contents.len(), 6);
    let folder = run.callback::<ModelCheckpoint>().unwrap().checkpoint_dir().unwrap().to_owned();
    for name in ["epoch=2.ckpt", "last.ckpt"] {
        assert!(contents.contains(&fs::read(folder.join(name)).unwrap()), "{name}");
    }
}
