//! Trackio: what its own dashboard shows of files in its inbox, and of what it is sent.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fulgurite::Console;
use fulgurite::callbacks::DeviceStatsMonitor;
use fulgurite::loggers::{Resume, RunStatus};
use fulgurite::prelude::*;
use fulgurite_trackers::trackio::{Run, Target};
use fulgurite_trackers::{Entry, Outbox, Pace, sync};
use serde_json::Value as Json;

use crate::model::{cli, line, trainer};
use crate::service::{programs, python};

const TOKEN: &str = "the-token-of-the-tests";

/// Names the folder of runs in a process whose Trackio is that of a dashboard.
const CHILD: &str = "FULGURITE_TEST_TRACKIO";

/// A dashboard on a free port of this machine, which ends with this value.
struct Dashboard {
    url: String,
    port: u16,
    folder: PathBuf,
    process: Child,
}

impl Dashboard {
    fn start(programs: &Path, folder: &Path) -> Dashboard {
        fs::create_dir_all(folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(folder.join("dashboard.log")).unwrap();
        let process = Command::new(programs.join("trackio"))
            .args(["show", "--no-footer"])
            .envs(environment(folder))
            .env("GRADIO_SERVER_PORT", port.to_string())
            .envs([("TRACKIO_WRITE_TOKEN", TOKEN), ("TRACKIO_INBOX_POLL_INTERVAL", "5"), ("BROWSER", "true")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Dashboard { url: format!("http://127.0.0.1:{port}"), port, folder: folder.into(), process }
    }

    fn wait(&self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.folder.join("dashboard.log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(120), "Trackio's dashboard does not start: {}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until it has taken in all that waits.
    fn take_in(&self) {
        let begun = Instant::now();
        let waiting = || fs::read_dir(self.folder.join("inbox")).into_iter().flatten().count();
        while waiting() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the dashboard does not take in what waits");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// All runs of projects.
    fn read(&self, programs: &Path, projects: &[&str]) -> Json {
        let args: Vec<&str> = [self.url.as_str()].iter().chain(projects).copied().collect();
        serde_json::from_str(&python(programs, include_str!("read_trackio.py"), &args)).unwrap()
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn environment(folder: &Path) -> [(&'static str, String); 2] {
    [("TRACKIO_DIR", folder.display().to_string()), ("HF_HUB_OFFLINE", "1".into())]
}

fn rows(run: &Json) -> &Vec<Json> {
    run["rows"].as_array().unwrap()
}

/// The values of a metric with their steps.
fn values<'a>(run: &'a Json, metric: &str) -> Vec<(i64, &'a Json)> {
    let rows = rows(run).iter().filter_map(|row| Some((row["step"].as_i64()?, row.get(metric)?)));
    let mut values: Vec<_> = rows.collect();
    values.sort_by_key(|(step, _)| *step);
    values
}

fn steps(run: &Json, metric: &str) -> Vec<i64> {
    values(run, metric).into_iter().map(|(step, _)| step).collect()
}

/// All in one pass, because the dashboard takes long to start.
#[test]
fn a_real_dashboard_shows_what_runs_logged() {
    let Some(programs) = programs("trackio") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (trackio, root) = (folder.path().join("trackio"), folder.path().join("runs"));
    let dashboard = Dashboard::start(&programs, &trackio);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "trackio::in_a_process_with_trackio_here"])
        .envs(environment(&trackio))
        .env(CHILD, &root)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    damage(&trackio);
    dashboard.wait();
    values_are_sent_to_a_dashboard(&dashboard, &root);
    dashboard.take_in();
    let all = dashboard.read(&programs, &["by hand", "everything", "elsewhere", "damaged"]);
    a_fit_goes_on_with_its_run(&all["by hand"]);
    everything_is_shown(&all["everything"], &dashboard);
    what_was_sent_is_there_once(&all["elsewhere"]);
    let twice = all["damaged"].as_object().unwrap().values().next().unwrap();
    assert_eq!(steps(twice, "a"), (0..100).collect::<Vec<_>>());

    let mut get = Command::new(programs.join("trackio"));
    get.args(["get", "run", "--project", "by hand", "--run", "first", "--json"]).envs(environment(&trackio));
    let said = get.output().unwrap();
    let summary: Json = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    assert_eq!((&summary["last_step"], &summary["config"]["width"]), (&11.into(), &8.into()), "{summary}");
}

/// What the test above runs with the folder of its dashboard as that of Trackio; by itself it does nothing.
#[test]
fn in_a_process_with_trackio_here() {
    let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let logger = ["--trainer.logger+=TrackioLogger", "--trainer.logger.project=by hand", "--trainer.logger.name=first"];
    let options = ["--trainer.logger.config={\"team\": \"a \\\"b\\\"\", \"n\": [1]}", "--trainer.logger.group=g"];
    let fit = |epochs: &str, more: &[&str]| {
        let epochs = format!("--trainer.max_epochs={epochs}");
        let both = ["--trainer.logger+=CsvLogger", "--trainer.callbacks+=DeviceStatsMonitor"];
        cli(&root, &[&logger[..], &options[..], &both[..], &[&epochs], more].concat())
    };
    let said = fit("2", &["--model.width=8"]);
    assert!(said.contains("`trackio show --project \"by hand\"` shows it"), "{said}");
    let said = fit("3", &["--model.width=8", "--ckpt_path=auto"]);
    assert!(said.contains("resumed from"), "{said}");
    assert!(sync::outboxes(&root).is_empty(), "what is in the inbox leaves nothing behind");
    log_everything(&root);
}

fn log_everything(root: &Path) {
    let name = "a/../\"b\" 🚀";
    let logger = || TrackioLogger::new("everything").name(name).save_dir(root);
    let mut own = logger();
    let names: Vec<String> = (0..1500).map(|i| format!("metric {i}")).collect();
    let many: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.25)).collect();
    own.log_metrics(&many, 3).unwrap();
    let long = "x".repeat(300);
    let odd = [("a//b\"c", f64::NAN), ("d", f64::INFINITY), ("🚀", f64::NEG_INFINITY), (&long, 1e-300), ("time", 1.0)];
    own.log_metrics(&odd, -1).unwrap();
    own.log_hyperparams(&Dict::new().with("optim", Dict::new().with("betas", (0.9, 0.999)))).unwrap();
    own.log_image("samples/a", &Tensor::ones([3, 4, 5], (tch::Kind::Float, Device::Cpu)), 4).unwrap();
    own.log_histogram("weights", &Tensor::from_slice(&[0.0, 1.0, 1.0, 2.0]), 5).unwrap();
    own.log_text("notes", "**größer**\n", 6).unwrap();
    own.save().unwrap();
    own.finalize(RunStatus::Success).unwrap();
    assert!(own.take_warnings().join("\n").contains("it is logged as \"__time\""));

    let mut again = logger().resume(Resume::Allow);
    again.log_metrics(&[("again", 1.0)], 7).unwrap();
    again.finalize(RunStatus::Success).unwrap();
    assert_eq!(again.version(), own.version());
    let mut none = TrackioLogger::new("everything").name("none").save_dir(root).resume(Resume::Must);
    let error = none.log_metrics(&[("a", 1.0)], 0).unwrap_err().to_string();
    assert!(error.contains("has no run \"none\""), "{error}");
    for project in ["a_system", "registry-a", ""] {
        let error = TrackioLogger::new(project).connect().unwrap_err().to_string();
        assert!(error.contains("choose another name as `project`"), "{error}");
    }
}

/// A file that is there twice, with a last line that is torn.
fn damage(trackio: &Path) {
    let run = Run { project: "damaged".into(), name: "twice".into(), id: fulgurite_trackers::run_id() };
    let line = |step: i64| match run.metrics([("a", 0.5.into())], step, None) {
        Entry::Record(record) => format!("{record}\n"),
        other => panic!("{other:?}"),
    };
    let lines: String = (0..100).map(line).chain(["{\"v\":1,\"kind\":\"metric\",\"proj".to_owned()]).collect();
    for writer in ["0123456789abcdef", "fedcba9876543210"] {
        let folder = trackio.join("inbox").join(writer);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("torn.tmp"), &lines).unwrap();
        fs::rename(folder.join("torn.tmp"), folder.join("00000000.jsonl")).unwrap();
    }
}

fn a_fit_goes_on_with_its_run(runs: &Json) {
    let runs = runs.as_object().unwrap();
    assert_eq!(runs.len(), 1, "the resumed program goes on with the same run");
    let run = &runs.values().next().unwrap();
    assert_eq!(run["name"], "first");
    assert_eq!(steps(run, "train_loss"), (0..12).collect::<Vec<_>>());
    assert_eq!(steps(run, "val_loss"), [3, 7, 11]);
    assert!(values(run, "not/a@number").iter().all(|(_, value)| value.is_null()), "NaN is shown as null");
    let config = &run["config"];
    assert_eq!((&config["width"], &config["_Group"], &config["n"]), (&8.into(), &"g".into(), &serde_json::json!([1])));
    assert_eq!((&config["team"], &config["optim"]["betas"][1]), (&"a \"b\"".into(), &0.999.into()));
    assert!(config["_Created"].as_str().unwrap().ends_with("+00:00"));
    let system = run["system"].as_array().unwrap();
    let percent = |row: &Json| row["DeviceStatsMonitor.on_train_batch_start/cpu_vm_percent"].as_f64();
    assert_eq!(system.iter().filter_map(percent).filter(|percent| *percent > 0.0).count(), 12, "{system:?}");
    assert!(rows(run).iter().all(|row| !row.to_string().contains("DeviceStatsMonitor")), "statistics are apart");
}

fn everything_is_shown(runs: &Json, dashboard: &Dashboard) {
    let runs = runs.as_object().unwrap();
    let run = runs.values().next().unwrap();
    assert_eq!((runs.len(), &run["name"]), (1, &"a/../\"b\" 🚀".into()));
    let only = |metric: &str| match values(run, metric)[..] {
        [(step, value)] => (step, value.clone()),
        ref other => panic!("{metric}: {other:?}"),
    };
    assert_eq!(only("metric 1499"), (3, 0.25.into()));
    assert_eq!((only("a//b\"c").0, only("__time"), only(&"x".repeat(300)).1), (-1, (-1, 1.0.into()), 1e-300.into()));
    assert_eq!(only("weights").1["values"].as_array().unwrap().len(), 64);
    assert_eq!(only("weights").1["bins"][64], 2.0);
    assert_eq!(only("notes"), (6, serde_json::json!({"_type": "trackio.markdown", "_value": "**größer**\n"})));
    assert_eq!(only("again").0, 7);
    assert_eq!(run["config"]["optim"]["betas"], serde_json::json!([0.9, 0.999]));
    let image = only("samples/a").1;
    let path = dashboard.folder.join("media").join(image["file_path"].as_str().unwrap());
    is_served(dashboard, &path);
}

/// The dashboard serves an image that lies in its folder.
fn is_served(dashboard: &Dashboard, path: &Path) {
    use std::io::{Read, Write};
    let own = fs::read(path).unwrap();
    assert!(own.starts_with(b"\x89PNG"));
    let plain = |c: &u8| c.is_ascii_alphanumeric() || b"/.-_".contains(c);
    let query: String = path
        .to_str()
        .unwrap()
        .bytes()
        .map(|c| if plain(&c) { char::from(c).to_string() } else { format!("%{c:02X}") })
        .collect();
    let mut stream = TcpStream::connect(("127.0.0.1", dashboard.port)).unwrap();
    write!(stream, "GET /file?path={query} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&own), "{}", String::from_utf8_lossy(&answer));
}

fn values_are_sent_to_a_dashboard(dashboard: &Dashboard, root: &Path) {
    let url = format!("{}/?write_token={TOKEN}", dashboard.url);
    let logger = |name: &str| TrackioLogger::new("elsewhere").name(name).save_dir(root);
    let console = Console::memory();
    let run = trainer(root, &console).max_epochs(2).callback(DeviceStatsMonitor::new());
    let mut run = run.logger(logger("fit").server_url(url.clone())).logger(CsvLogger::new(root)).build().unwrap();
    _ = run.fit(&mut line(), &mut crate::model::Points).unwrap();
    let warnings = console.contents();
    assert!(!warnings.contains("not sent") && !warnings.contains(TOKEN), "{warnings}");

    let mut own = logger("fit").server_url(url.clone()).resume(Resume::Must);
    own.log_image("samples", &Tensor::ones([1, 2, 2], (tch::Kind::Float, Device::Cpu)), 8).unwrap();
    own.log_metrics(&[("late", f64::NAN)], 9).unwrap();
    own.finalize(RunStatus::Success).unwrap();
    assert_eq!(own.take_warnings(), Vec::<String>::new());

    let error = logger("wrong").server_url(format!("{}/?write_token=wrong", dashboard.url));
    let error = { error }.log_metrics(&[("a", 1.0)], 0).unwrap_err().to_string();
    assert!(error.contains("A write_token is required") && error.contains("set TRACKIO_WRITE_TOKEN"), "{error}");

    // No dashboard at all.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = logger("away").server_url(format!("http://127.0.0.1:{port}/?write_token=a"));
    let error = { error }.log_metrics(&[("a", 1.0)], 0).unwrap_err().to_string();
    assert!(error.contains("connection refused") && error.contains("TRACKIO_SERVER_URL"), "{error}");

    // What a killed run left: outboxes of the same run twice, of which each line is kept once.
    let folder = root.join("left");
    let target = Target::Server(dashboard.url.clone()).to_value();
    let run = Run { project: "elsewhere".into(), name: "killed".into(), id: fulgurite_trackers::run_id() };
    let rows: Vec<_> = (0..1500).map(|step| run.metrics([("a", 0.5.into())], step, None)).collect();
    for _ in 0..2 {
        let mut outbox = Outbox::open(&folder, "trackio", &target).unwrap();
        rows.iter().for_each(|row| outbox.append(row).unwrap());
        outbox.sync().unwrap();
        drop(outbox);
        let [path] = sync::outboxes(&folder).try_into().unwrap();
        let sent = sync::send(&path, Some(&url), Pace::default()).unwrap().unwrap();
        assert_eq!((sent.values, sent.left), (1500, None));
    }
}

fn what_was_sent_is_there_once(runs: &Json) {
    let of = |name: &str| {
        let mut of_name = runs.as_object().unwrap().values().filter(|run| run["name"] == name);
        let run = of_name.next().unwrap();
        assert!(of_name.next().is_none(), "{name} is there twice");
        run
    };
    let fit = of("fit");
    assert_eq!((steps(fit, "train_loss"), steps(fit, "late")), ((0..8).collect(), vec![9]));
    assert_eq!(values(fit, "samples")[0].1["_type"], "trackio.image");
    assert!(!fit["system"].as_array().unwrap().is_empty());
    let killed = steps(of("killed"), "a");
    assert_eq!((killed.len(), killed.iter().collect::<BTreeSet<_>>().len()), (1500, 1500));
}

#[test]
fn a_token_in_an_address_is_neither_shown_nor_written() {
    let uri = "http://127.0.0.1:9/?write_token=s3cret";
    let mut logger = TrackioLogger::new("e").server_url(uri);
    assert!(!format!("{logger:?}").contains("s3cret"));
    assert!(!logger.connect().unwrap_err().to_string().contains("s3cret"));
    let said = crate::model::refused(&["fit", "--trainer.logger+=TrackioLogger", "--trainer.logger.server_url", uri]);
    assert!(
        said.contains("holds a token") && said.contains("TRACKIO_WRITE_TOKEN") && !said.contains("s3cret"),
        "{said}"
    );
}
