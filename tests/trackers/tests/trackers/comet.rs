//! Comet: archives, read and uploaded by its own client, and the same run sent to the same backend.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fulgurite::loggers::RunStatus;
use fulgurite::prelude::*;
use fulgurite_tracker_tests::comet::{Comet, Experiment};
use fulgurite_tracker_tests::http::Server;
use fulgurite_trackers::{Pace, sync};
use serde_json::{Value as Json, json};

use crate::model::cli;
use crate::service::{programs, python};

const KEY: &str = "5ecret5ecret5ecret";

/// Names the folder of runs in a process that has Comet's variables.
const CHILD: &str = "FULGURITE_TEST_COMET";

/// All in one pass, because Comet's programs take long to start.
#[test]
fn real_programs_read_and_upload_what_runs_wrote() {
    let Some(programs) = programs("comet") else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let server = Server::<Comet>::start();
    server.shared().key = Some(KEY.to_owned());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "comet::in_a_process_with_a_server"])
        .envs(environment(&server.url))
        .env(CHILD, root)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));

    let [fit] = archives(&root.join("offline")).try_into().unwrap();
    the_archive_of_a_fit_is_whole(&programs, &fit);
    let [everything] = archives(&root.join("everything")).try_into().unwrap();
    everything_is_in_the_archive(&programs, &everything);
    let uploaded = upload(&programs, &server, &fit);
    the_server_has_the_same_of_both(&server, &uploaded);
    let uploaded = upload(&programs, &server, &everything);
    assert_eq!(server.shared().backend.experiments[&uploaded].files.len(), 3);
}

fn environment(url: &str) -> [(&'static str, String); 5] {
    [
        ("COMET_URL_OVERRIDE", format!("{url}/clientlib/")),
        ("COMET_API_KEY", KEY.into()),
        ("COMET_DISABLE_ANNOUNCEMENT", "1".into()),
        ("COMET_MESSAGE_BATCH_USE_COMPRESSION", "false".into()),
        ("COMET_ERROR_TRACKING_ENABLE", "false".into()),
    ]
}

fn archives(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "zip")).collect()
}

/// What the test above runs with the variables of Comet; by itself it does nothing.
#[test]
fn in_a_process_with_a_server() {
    let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let fit = |folder: &str, epochs: &str, more: &[&str]| {
        let logger =
            ["--trainer.logger+=CometLogger", "--trainer.logger.project=by hand/ü", "--trainer.logger.name=first"];
        let options =
            ["--trainer.logger.prefix=p", "--trainer.logger.tags=[\"a b\"]", "--trainer.logger.log_model=true"];
        let epochs = format!("--trainer.max_epochs={epochs}");
        let both = ["--trainer.logger+=CsvLogger", &epochs, "--model.width=8", "--seed_everything=1"];
        cli(&root.join(folder), &[&logger[..], &options[..], more, &both[..]].concat())
    };
    let said = fit("offline", "2", &["--trainer.logger.online=false"]);
    assert!(said.contains("`comet upload "), "{said}");
    let said = fit("online", "2", &[]);
    assert!(!said.contains("not sent") && !said.contains(KEY), "{said}");
    assert!(sync::outboxes(&root.join("online")).is_empty(), "what is sent leaves nothing behind");
    let said = fit("online", "3", &["--ckpt_path=auto"]);
    assert!(said.contains("resumed from"), "{said}");
    log_everything(&root.join("everything"));
}

fn log_everything(root: &Path) {
    let logger = || CometLogger::new().online(false).save_dir(root).experiment_key("0123456789abcdef0123456789abcdef");
    let mut own = logger();
    let names: Vec<String> = (0..1500).map(|i| format!("metric {i}")).collect();
    let many: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.25)).collect();
    own.log_metrics(&many, 3).unwrap();
    let long = "x".repeat(300);
    let odd = [("a//b\"c", f64::NAN), ("d", f64::INFINITY), ("🚀", f64::NEG_INFINITY), (&long, 1e-300), ("epoch", 1.0)];
    own.log_metrics(&odd, -1).unwrap();
    let optim = Dict::new().with("betas", (0.9, 0.999)).with("eps", f64::NAN);
    own.log_hyperparams(&Dict::new().with("optim", optim).with("none", Value::None).with("on", true)).unwrap();
    own.log_image("samples/a", &Tensor::ones([3, 4, 5], (tch::Kind::Float, Device::Cpu)), 4).unwrap();
    own.log_histogram("weights", &Tensor::from_slice(&[0.0, 1.0, 1.0, 2.0]), 5).unwrap();
    own.log_text("notes", "größer\n", 6).unwrap();
    own.save().unwrap();
    // Killed here: what is there becomes an archive.
    drop(own);
    let [outbox] = sync::outboxes(root).try_into().unwrap();
    let synced = sync::send(&outbox, None, Pace::default()).unwrap().unwrap();
    assert_eq!((synced.files, &synced.left), (3, &None));
    let name = outbox.parent().unwrap().join("0123456789abcdef0123456789abcdef.zip");
    fs::rename(name, root.join("everything.zip")).unwrap();

    let mut wrong = CometLogger::new().online(false).experiment_key("../../etc");
    assert!(wrong.connect().unwrap_err().to_string().contains("is no key of an experiment"));
    let mut empty = logger();
    empty.finalize(RunStatus::Success).unwrap();
}

fn read(programs: &Path, archive: &Path) -> Json {
    let script = include_str!("check_comet.py");
    serde_json::from_str(&python(programs, script, &[archive.to_str().unwrap()])).unwrap()
}

fn of_type(archive: &Json, kind: &str) -> Vec<Json> {
    let messages = archive["messages"].as_array().unwrap().iter();
    messages.filter(|message| message["type"] == kind).map(|message| message["payload"].clone()).collect()
}

fn the_archive_of_a_fit_is_whole(programs: &Path, archive: &Path) {
    let held = read(programs, archive);
    assert_eq!(
        (&held["experiment"]["project_name"], &held["experiment"]["tags"]),
        (&json!("by hand/ü"), &json!(["a b"]))
    );
    let metrics = of_type(&held, "metric_msg");
    let steps = |name: &str| -> Vec<i64> {
        let of_name = metrics.iter().filter(|payload| payload["metric"]["metricName"] == name);
        of_name.map(|payload| payload["metric"]["step"].as_i64().unwrap()).collect()
    };
    assert_eq!((steps("p_train_loss"), steps("p_val_loss")), ((0..8).collect(), vec![3, 7]));
    assert_eq!(steps("p_epoch"), Vec::<i64>::new(), "the epoch is no metric");
    let last = metrics.iter().rfind(|payload| payload["metric"]["metricName"] == "p_train_loss").unwrap();
    assert_eq!(last["metric"]["epoch"], 1);
    let model = &of_type(&held, "file_upload")[0]["additional_params"];
    assert!(model["groupingName"].as_str().unwrap().starts_with("model-"), "{model}");

    // The values, as Comet's own reader shows them.
    let said = Command::new(programs.join("comet")).args(["offline", "--csv"]).arg(archive).output().unwrap();
    let csv = String::from_utf8(said.stdout).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.trim_matches('"').split("\",\"").collect()).collect();
    let read: Vec<f64> = rows
        .iter()
        .filter(|row| row.get(3..6) == Some(&["detail", "metric", "p_train_loss"]))
        .map(|row| row[6].parse().unwrap())
        .collect();
    let own = metrics.iter().filter(|payload| payload["metric"]["metricName"] == "p_train_loss");
    let own: Vec<f64> = own.map(|payload| payload["metric"]["metricValue"].as_f64().unwrap()).collect();
    assert_eq!((read.len(), &read), (8, &own), "{csv}");
    assert!(rows.iter().any(|row| row.get(4..7) == Some(&["param", "width", "8"])), "{csv}");
}

fn everything_is_in_the_archive(programs: &Path, archive: &Path) {
    let held = read(programs, archive);
    let metrics = of_type(&held, "metric_msg");
    assert_eq!(metrics.len(), 1504);
    let value = |name: &str| {
        let metric = metrics.iter().find(|payload| payload["metric"]["metricName"] == name).unwrap();
        (metric["metric"]["metricValue"].clone(), metric["metric"]["epoch"].clone())
    };
    assert_eq!((value("a//b\"c"), value("d").0), ((json!("NaN"), json!(1)), json!("Infinity")));
    assert_eq!((value("🚀").0, value("metric 7")), (json!("-Infinity"), (json!(0.25), Json::Null)));
    let params: Vec<(Json, Json)> = of_type(&held, "parameter_msg")
        .into_iter()
        .map(|payload| if payload["param"].is_null() { payload["params"].clone() } else { payload["param"].clone() })
        .map(|param| (param["paramName"].clone(), param["paramValue"].clone()))
        .collect();
    let expected = json!([["optim|betas", [0.9, 0.999]], ["optim|eps", "NaN"], ["none", null], ["on", true]]);
    assert_eq!(json!(params), expected);
    let files = of_type(&held, "file_upload");
    let kinds: Vec<&Json> = files.iter().map(|file| &file["upload_type"]).collect();
    assert_eq!(kinds, ["visualization", "histogram3d", "text-sample"]);
    assert!(files.iter().all(|file| held["files"][file["file_path"].as_str().unwrap()].as_i64() > Some(0)));
}

/// Uploads an archive by Comet's own client, and returns the experiment's key.
fn upload(programs: &Path, server: &Server<Comet>, archive: &Path) -> String {
    let mut command = Command::new(programs.join("comet"));
    let output = command.arg("upload").arg(archive).envs(environment(&server.url)).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("Number of uploaded experiments: 1"), "{said}");
    let held = read(programs, archive);
    held["experiment"]["offline_id"].as_str().unwrap().to_owned()
}

/// The run that was sent, and went on, has what the archive of the same run has.
fn the_server_has_the_same_of_both(server: &Server<Comet>, uploaded: &str) {
    let experiments = server.shared().backend.experiments.clone();
    let [(key, online)] =
        experiments.iter().filter(|(key, _)| !key.is_empty() && *key != uploaded).collect::<Vec<_>>()[..]
    else {
        panic!("the resumed run goes on with the same experiment: {:?}", experiments.keys());
    };
    assert_eq!(key.len(), 32);
    let offline = &experiments[uploaded];
    let mut others = offline.others.clone();
    assert_eq!(others.remove("offline_experiment"), Some(json!(true)));
    assert_eq!((&online.others, &online.tags, &online.begun), (&others, &offline.tags, &offline.begun));
    assert_eq!(online.parameters, offline.parameters);
    assert_eq!((online.alive.first(), online.alive.last()), (Some(&true), Some(&false)));
    // The run that was sent has an epoch more, and the same begin.
    let names = |experiment: &Experiment, epochs: usize| -> Vec<String> {
        let up_to = |metric: &&String| metric.rsplit(' ').next().unwrap().parse::<usize>().unwrap() < epochs;
        experiment.metrics.iter().filter(up_to).cloned().collect()
    };
    assert_eq!((online.metrics.len(), names(online, 2)), (online.metrics.len(), names(offline, 2)));
    assert_eq!(names(online, 3).len() * 2, names(offline, 2).len() * 3);
    let model = |experiment: &Experiment| {
        let file = experiment.files.iter().find(|(name, _)| name.starts_with("model-element")).unwrap();
        (file.0.clone(), file.1.len() > 1000)
    };
    assert!(model(online).1 && model(offline).1, "{:?}", online.files.keys());
}

#[test]
fn a_key_among_the_options_is_neither_shown_nor_written() {
    let logger = CometLogger::new().api_key("s3cret");
    assert!(!format!("{logger:?}").contains("s3cret"));
    let said = crate::model::refused(&["fit", "--trainer.logger+=CometLogger", "--trainer.logger.api_key=s3cret"]);
    assert!(said.contains("set COMET_API_KEY") && !said.contains("s3cret"), "{said}");
}
