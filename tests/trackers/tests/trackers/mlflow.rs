//! MLflow, with its own server, read by its own client.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fulgurite::callbacks::{DeviceStatsMonitor, LambdaCallback, SaveLast};
use fulgurite::cli::FromConfig;
use fulgurite::loggers::{LogModel, MLFlowLogger, RunStatus};
use fulgurite::prelude::*;
use fulgurite::{Console, Maximum, Signal};
use fulgurite_trackers::{Pace, sync};
use serde_json::Value as Json;

use crate::model::{Line, LineOptions, Points, cli, line, trainer};
use crate::service::{MlflowServer, lightning, programs, python};

struct Runs<'a> {
    programs: &'a Path,
    url: &'a str,
}

impl Runs<'_> {
    fn all(&self) -> serde_json::Map<String, Json> {
        let script = include_str!("read_mlflow.py");
        match serde_json::from_str(&python(self.programs, script, &[self.url])).unwrap() {
            Json::Object(runs) => runs,
            other => panic!("{other}"),
        }
    }

    /// The only run of an experiment, and its identifier.
    fn only(&self, experiment: &str) -> (String, Json) {
        let mut of_experiment = self.all().into_iter().filter(|(_, run)| run["experiment"] == experiment);
        let only = of_experiment.next().unwrap();
        assert!(of_experiment.next().is_none(), "{experiment} has several runs");
        only
    }
}

fn steps(run: &Json, metric: &str) -> Vec<i64> {
    let rows = run["metrics"][metric].as_array().unwrap_or_else(|| panic!("no {metric} in {run}"));
    rows.iter().map(|row| row[0].as_i64().unwrap()).collect()
}

fn file_names(run: &Json) -> Vec<&str> {
    let mut names: Vec<&str> = run["files"].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// All in one pass, because the server takes long to start.
#[test]
fn real_servers_have_what_runs_logged() {
    let Some(programs) = programs("mlflow") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut server = MlflowServer::start(&programs, folder.path());
    let url = server.url.clone();
    let runs = Runs { programs: &programs, url: &url };
    let root = folder.path().join("runs");
    a_fit_from_the_command_line_is_whole_and_goes_on(&runs, &root);
    checkpoints_are_uploaded_byte_for_byte(&runs, &root);
    failures_and_signals_have_statuses_of_their_own(&runs, &root);
    everything_that_can_be_logged_arrives(&runs, &root);
    a_run_without_a_server_is_sent_later(&runs, &root);
    it_is_what_lightning_logs(&runs, &root);
    a_server_that_is_killed_loses_nothing(&runs, &root, &mut server);
}

fn a_fit_from_the_command_line_is_whole_and_goes_on(runs: &Runs, root: &Path) {
    let uri = format!("--trainer.logger.tracking_uri={}", runs.url);
    let logger = ["--trainer.logger+=MLFlowLogger", &uri, "--trainer.logger.experiment_name=by hand/ü"];
    let options = ["--trainer.logger.run_name=first", "--trainer.logger.tags={\"team\": \"a b\"}"];
    let fit = |epochs: &str, more: &[&str]| {
        let epochs = format!("--trainer.max_epochs={epochs}");
        cli(root, &[&logger[..], &options[..], &[&epochs], more].concat())
    };
    let said = fit("2", &["--model.width=8"]);
    assert!(
        said.contains(
            "warning: MLFlowLogger: MLflow does not take the name \"not/a@number\", so it is logged as \"not/anumber\""
        ),
        "{said}"
    );
    let (id, run) = runs.only("by hand/ü");
    assert_eq!((&run["status"], &run["name"], &run["ended"]), (&"FINISHED".into(), &"first".into(), &true.into()));
    assert_eq!(run["params"], serde_json::json!({"width": "8", "optim/betas": "(0.9, 0.999)", "optim/on": "True"}));
    assert_eq!(run["tags"]["team"], "a b");
    assert_eq!((steps(&run, "train_loss"), steps(&run, "val_loss")), ((0..8).collect(), vec![3, 7]));
    assert_eq!(run["metrics"]["not/anumber"][0][1], "nan");
    assert!(run["times"].as_array().unwrap().len() > 1, "values have the time at which they were logged: {run}");

    // The same program goes on with the same run.
    let said = fit("3", &["--model.width=8", "--ckpt_path=auto"]);
    assert!(said.contains("resumed from"), "{said}");
    let (same, run) = runs.only("by hand/ü");
    assert_eq!((same, &run["status"]), (id.clone(), &"FINISHED".into()));
    assert_eq!(steps(&run, "train_loss"), (0..12).collect::<Vec<_>>());

    // A changed parameter keeps its first value.
    let given = format!("--trainer.logger.run_id={id}");
    let said = fit("1", &["--model.width=9", &given]);
    assert!(
        said.contains(
            "the hyper-parameter `width` is \"9\" now and \"8\" in the run of MLflow, which keeps the first value"
        ),
        "{said}"
    );
    let (_, run) = runs.only("by hand/ü");
    assert_eq!(run["params"]["width"], "8");
    assert!(sync::outboxes(root).is_empty(), "what is sent leaves nothing behind");
}

fn logger(runs: &Runs, experiment: &str) -> MLFlowLogger {
    MLFlowLogger::new(experiment).tracking_uri(runs.url)
}

fn checkpoints_are_uploaded_byte_for_byte(runs: &Runs, root: &Path) {
    let console = Console::memory();
    let checkpoint = ModelCheckpoint::monitor("val_loss").filename("{epoch}").save_top_k(2).save_last(SaveLast::Copy);
    let logger = logger(runs, "models").save_dir(root).log_model(LogModel::All);
    let mut trainer = trainer(root, &console).max_epochs(3).callback(checkpoint).logger(logger).build().unwrap();
    _ = trainer.fit(&mut line(), &mut Points).unwrap();
    let (id, run) = runs.only("models");
    let of = |stem: &str| {
        ["aliases.txt".into(), format!("{stem}.ckpt"), "metadata.yaml".into()]
            .map(|file: String| format!("{stem}/{file}"))
    };
    let mut expected = ["epoch=0", "epoch=1", "epoch=2", "last"].map(of).concat();
    expected.sort();
    assert_eq!(file_names(&run), expected);
    let folder = trainer.callback::<ModelCheckpoint>().unwrap().checkpoint_dir().unwrap().to_owned();
    assert!(folder.ends_with(format!("{id}/checkpoints")), "{}", folder.display());
    for stem in ["epoch=1", "epoch=2", "last"] {
        let own = python(
            runs.programs,
            "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())",
            &[&folder.join(format!("{stem}.ckpt")).display().to_string()],
        );
        assert_eq!(run["files"][format!("{stem}/{stem}.ckpt")], own.trim(), "{stem}");
    }

    let kept_at_end = ModelCheckpoint::new().filename("{epoch}").save_top_k(Maximum::Of(1));
    let logger = MLFlowLogger::new("models at the end").tracking_uri(runs.url).save_dir(root).log_model(true);
    let run = crate::model::trainer(root, &console).max_epochs(2).callback(kept_at_end).logger(logger);
    _ = run.build().unwrap().fit(&mut line(), &mut Points).unwrap();
    let (_, run) = runs.only("models at the end");
    assert_eq!(file_names(&run), of("epoch=1"));
}

fn failures_and_signals_have_statuses_of_their_own(runs: &Runs, root: &Path) {
    let console = Console::memory();
    let mut failing = Line::from_config(LineOptions { fails_at: Some(2), ..LineOptions::default() }).unwrap();
    let run = trainer(root, &console).max_epochs(2).logger(logger(runs, "failing").save_dir(root));
    run.build().unwrap().fit(&mut failing, &mut Points).unwrap_err();
    let (_, run) = runs.only("failing");
    assert_eq!((&run["status"], steps(&run, "train_loss")), (&"FAILED".into(), vec![0, 1]));

    let stop = LambdaCallback::new().on_train_batch_end(|trainer, _, _, _, _| {
        if trainer.global_step() == 2 {
            Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    let run = trainer(root, &console).max_epochs(2).logger(logger(runs, "killed").save_dir(root)).callback(stop);
    let outcome = run.build().unwrap().fit(&mut line(), &mut Points).unwrap();
    assert_eq!(outcome.signal(), Some(Signal::Terminate));
    assert_eq!(runs.only("killed").1["status"], "KILLED");
}

fn everything_that_can_be_logged_arrives(runs: &Runs, root: &Path) {
    let mut own = logger(runs, "by hand").save_dir(root).prefix("p").run_name("everything");
    let names: Vec<String> = (0..1500).map(|i| format!("metric {i}")).collect();
    let many: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.25)).collect();
    own.log_metrics(&many, 3).unwrap();
    let odd = [
        ("a//b", 1.0),
        ("/c/", f64::INFINITY),
        ("d", f64::NEG_INFINITY),
        ("e", -0.0),
        ("🚀", 1.0),
        (&"x".repeat(300), 1e-300),
    ];
    own.log_metrics(&odd, -1).unwrap();
    let mut params = Dict::new();
    (0..120).for_each(|i| params.set(format!("param {i}"), i64::from(i)));
    params.set("long", "y".repeat(7000).as_str());
    params.set("none", Value::None);
    own.log_hyperparams(&params).unwrap();
    own.log_text("notes/first", "größer\n", 4).unwrap();
    own.log_image("samples/a", &Tensor::ones([3, 4, 5], (Kind::Float, Device::Cpu)), 4).unwrap();
    own.save().unwrap();
    own.finalize(RunStatus::Success).unwrap();
    let warnings = own.take_warnings().join("\n");
    assert!(!warnings.contains("refuses"), "{warnings}");
    let (_, run) = runs.only("by hand");
    assert_eq!(run["metrics"].as_object().unwrap().len(), 1506);
    let value = |name: &str| run["metrics"][name][0][1].as_str().unwrap().to_owned();
    assert_eq!(
        (value("p-a/b"), value("p-d"), steps(&run, "p-d")),
        ("1.0".into(), "-1.7976931348623157e+308".into(), vec![-1])
    );
    let params = run["params"].as_object().unwrap();
    assert_eq!((params.len(), params["long"].as_str().unwrap().len(), &params["none"]), (122, 6000, &"None".into()));
    assert_eq!(run["tags"]["mlflow.loggedImages"], "True");
    let names = file_names(&run);
    assert!(
        names.len() == 2
            && names[0].starts_with("images/samples~a+step+4+timestamp+")
            && names[1] == "text/notes/first/4.txt",
        "{names:?}"
    );
}

fn a_run_without_a_server_is_sent_later(runs: &Runs, root: &Path) {
    let root = root.join("offline");
    let console = Console::memory();
    let own = MLFlowLogger::new("offline: 1")
        .save_dir(root.as_path())
        .offline(true)
        .run_name("later")
        .log_model(LogModel::All);
    let monitored = trainer(&root, &console).callback(DeviceStatsMonitor::new());
    let mut run = monitored.max_epochs(2).logger(own).build().unwrap();
    let mut model = line();
    _ = run.fit(&mut model, &mut Points).unwrap();
    _ = run.validate(&mut model, &mut Points).unwrap();
    assert!(console.contents().contains("`fulgurite sync "), "{}", console.contents());
    let [outbox] = sync::outboxes(&root).try_into().unwrap();
    let error = sync::send(&outbox, None, Pace::default()).unwrap_err().to_string();
    assert!(error.contains("give it by --server or MLFLOW_TRACKING_URI"), "{error}");
    let sent = sync::send(&outbox, Some(runs.url), Pace::default()).unwrap().unwrap();
    assert_eq!((sent.left, &sent.warnings[..]), (None, &[][..]));
    let (_, run) = runs.only("offline: 1");
    assert_eq!(
        (&run["status"], &run["name"], steps(&run, "train_loss").len()),
        (&"FINISHED".into(), &"later".into(), 8)
    );
    assert_eq!(file_names(&run).len(), 6);
    assert_eq!(steps(&run, "system/DeviceStatsMonitor.on_train_batch_end/cpu_percent"), Vec::from_iter(0..8));
}

/// The same run by Lightning: parameters, names and steps of metrics, files, and what is said of checkpoints.
fn it_is_what_lightning_logs(runs: &Runs, root: &Path) {
    let Some(lightning) = lightning() else { return };
    let (root, console) = (root.join("lightning"), Console::memory());
    let args = [runs.url, root.to_str().unwrap(), lightning.to_str().unwrap()];
    python(runs.programs, include_str!("lightning_mlflow.py"), &args);
    let (its_id, its) = runs.only("by Lightning");

    let checkpoint = ModelCheckpoint::monitor("val_loss").filename("{epoch}").save_top_k(2).save_last(SaveLast::Copy);
    let own = logger(runs, "as Lightning").save_dir(root.as_path()).run_name("r").tag("team", "a");
    let own = own.prefix("p").log_model(LogModel::All);
    let mut model = Line::from_config(LineOptions { width: 8, ..LineOptions::default() }).unwrap();
    let run = trainer(&root, &console).max_epochs(3).callback(checkpoint).logger(own);
    _ = run.build().unwrap().fit(&mut model, &mut Points).unwrap();
    let (our_id, ours) = runs.only("as Lightning");

    assert_eq!(ours["params"], its["params"]);
    assert_eq!(
        (&ours["status"], &ours["name"], &ours["tags"]["team"]),
        (&its["status"], &its["name"], &its["tags"]["team"])
    );
    // The epoch goes with every row, and MLflow keeps one of those that have the same millisecond.
    let all_steps = |run: &Json| -> BTreeMap<String, BTreeSet<i64>> {
        let names = run["metrics"].as_object().unwrap().keys();
        names.map(|name| (name.clone(), steps(run, name).into_iter().collect())).collect()
    };
    assert_eq!(all_steps(&ours), all_steps(&its));
    assert_eq!(file_names(&ours), file_names(&its));
    // But for the scores, which begin with other weights.
    let metadata = |id: &str, file: &str| {
        let text = python(runs.programs, include_str!("read_metadata.py"), &[runs.url, id, file]);
        text.lines().filter(|line| !line.starts_with("score:")).collect::<Vec<_>>().join("\n")
    };
    for file in ["epoch=2/metadata.yaml", "last/metadata.yaml", "last/aliases.txt", "epoch=2/aliases.txt"] {
        assert_eq!(metadata(&our_id, file), metadata(&its_id, file), "{file}");
    }
}

/// Steps that are logged while the server is killed and started again are there once.
fn a_server_that_is_killed_loses_nothing(runs: &Runs, root: &Path, server: &mut MlflowServer) {
    let root = root.join("restarts");
    let mut own = logger(runs, "restarted").save_dir(root.as_path());
    let mut left = logger(runs, "left").save_dir(root.as_path()).finish_timeout(1_u64);
    let mut log = |steps: Range<i64>| {
        for step in steps {
            own.log_metrics(&[("a", 0.5), ("b", 1.0)], step).unwrap();
            own.save().unwrap();
        }
    };
    log(0..1000);
    left.log_metrics(&[("a", 0.5)], 0).unwrap();

    server.kill();
    log(1000..2000);
    left.log_metrics(&[("a", 0.5)], 1).unwrap();
    left.finalize(RunStatus::Success).unwrap();
    let warnings = left.take_warnings().join("\n");
    assert!(
        warnings.contains("3 values and 0 files are not sent") && warnings.contains("`fulgurite sync "),
        "{warnings}"
    );
    let error = logger(runs, "left").save_dir(root.as_path()).log_metrics(&[("a", 0.5)], 1).unwrap_err().to_string();
    assert!(
        error.contains("cannot be reached: connection refused") && error.contains("MLFLOW_TRACKING_URI"),
        "{error}"
    );

    server.go_on();
    log(2000..3000);
    own.finalize(RunStatus::Success).unwrap();
    let (_, run) = runs.only("restarted");
    let all = steps(&run, "a");
    let different: HashSet<_> = all.iter().collect();
    assert_eq!((all.len(), different.len(), &run["status"]), (3000, 3000, &"FINISHED".into()));
    let [outbox] = sync::outboxes(&root).try_into().unwrap();
    let sent = sync::send(&outbox, None, Pace::default()).unwrap().unwrap();
    assert_eq!((sent.values, sent.left), (3, None));
    let (_, run) = runs.only("left");
    assert_eq!((steps(&run, "a"), &run["status"]), (vec![0, 1], &"FINISHED".into()));
}
