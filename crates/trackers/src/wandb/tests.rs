//! Runs and a server that fails in every way.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fulgurite_tracker_tests::http::{Fault, Server as Fake};
use fulgurite_tracker_tests::wandb::{Run, Wandb, json_with_nan};

use super::{Artifact, Item, Resume, RunInfo, RunLog, Server, put_media};
use crate::sync::{self, Synced};
use crate::{Pace, TrackerError};

const KEY: &str = "5ecret5ecret5ecret5ecret5ecret5ecret5ecret";

fn pace() -> Pace {
    Pace {
        flush_after: Duration::from_millis(20),
        first_wait: Duration::from_millis(20),
        longest_wait: Duration::from_millis(50),
        connect: Duration::from_millis(500),
        answer: Duration::from_millis(300),
        ..Pace::default()
    }
}

fn variables(url: &str) -> impl Fn(&str) -> Option<String> {
    let url = url.to_owned();
    move |name| match name {
        "WANDB_BASE_URL" => Some(url.clone()),
        "WANDB_API_KEY" => Some(KEY.into()),
        _ => None,
    }
}

fn server(fake: &Fake<Wandb>) -> Server {
    Server::new(pace(), &variables(&fake.url)).unwrap()
}

fn start(fake: &Fake<Wandb>, root: &Path) -> RunLog {
    RunLog::online(root, RunInfo::new("abcd1234", "p"), Resume::Allow, server(fake)).unwrap()
}

fn run(fake: &Fake<Wandb>) -> Run {
    fake.shared().backend.runs["p/abcd1234"].clone()
}

fn item(key: &str, json: impl ToString) -> Item {
    (key.into(), json.to_string())
}

/// The values of a metric, in the order of the rows, whose numbers have to be 0, 1, 2, ….
fn values(run: &Run, metric: &str) -> Vec<f64> {
    let rows: Vec<_> = run.history.iter().map(|line| json_with_nan(line)).collect();
    assert!(rows.iter().enumerate().all(|(number, row)| row["_step"] == number as f64), "{rows:?}");
    rows.iter().filter_map(|row| row[metric].as_f64()).collect()
}

fn synced(fake: &Fake<Wandb>, root: &Path) -> Vec<Option<Synced>> {
    let send = |path: &PathBuf| sync::send_with(path, pace(), &variables(&fake.url)).unwrap();
    sync::outboxes(root).iter().map(send).collect()
}

/// A thread of the run may still wait for its last answer.
fn synced_once_free(fake: &Fake<Wandb>, root: &Path) -> Vec<Synced> {
    for _ in 0..100 {
        let all: Option<Vec<Synced>> = synced(fake, root).into_iter().collect();
        match all {
            Some(all) => return all,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    panic!("the file stays in use");
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_lost_or_doubled_while_the_server_fails_in_every_way() {
    let (fake, root) = (Fake::start(), tempfile::tempdir().unwrap());
    let mut log = start(&fake, root.path());
    let faults = [Fault::Status(500, None), Fault::Half, Fault::Reset, Fault::Status(409, None), Fault::Hang];
    let more = [Fault::None, Fault::Status(429, Some(0)), Fault::Reset, Fault::Status(408, None), Fault::Half];
    fake.fail(faults.into_iter().chain(more.clone()));
    for step in 0..3000 {
        log.row(vec![item("a", step), item("b", "NaN")]).unwrap();
    }
    log.config(vec![item("lr", 0.1), item("nested", "{\"x\": [1, Infinity]}")]).unwrap();
    log.stats(vec![item("cpu", 5)]).unwrap();
    let image = put_media(log.folder(), "images", "val/a", 3000, b"png", "png").unwrap();
    log.media(&image.path).unwrap();
    let checkpoint = log.folder().join("artifacts").join("a");
    fs::create_dir(checkpoint.parent().unwrap()).unwrap();
    fs::write(&checkpoint, vec![7; 100_000]).unwrap();
    let mut artifact = Artifact::of_file(log.info(), "model", "model-abcd1234", "model.ckpt", &checkpoint).unwrap();
    artifact.aliases = vec!["latest".into()];
    fake.fail(more);
    log.artifact(artifact).unwrap();
    let finished = log.finish(0, MINUTE).unwrap();
    assert!(finished.left.is_none() && finished.warnings.len() <= 4, "{finished:?}");

    let run = run(&fake);
    assert!(values(&run, "a").into_iter().eq((0..3000).map(f64::from)));
    assert_eq!((run.events.len(), run.exit_code, run.is_complete), (1, Some(0), true));
    assert_eq!(json_with_nan(&run.summary)["b"], "NaN");
    let config = json_with_nan(run.info["config"].as_str().unwrap());
    assert_eq!((&config["lr"]["value"], &config["nested"]["value"]["x"][1]), (&0.1.into(), &"Infinity".into()));
    assert_eq!(run.files[&image.path], b"png");
    assert!(run.files.contains_key("config.yaml") && run.files.contains_key("wandb-summary.json"));
    let shared = fake.shared();
    let [.., artifact] = &shared.backend.artifacts[..] else { panic!() };
    assert_eq!((artifact.files["model.ckpt"].len(), artifact.is_committed), (100_000, true));
    assert!(shared.faults.is_empty());
    assert!(!checkpoint.exists(), "what waited is removed once it is sent");
    assert_eq!(sync::outboxes(root.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_server_that_is_down_for_the_whole_run_costs_no_time_and_gets_everything_later() {
    let (fake, root) = (Fake::start(), tempfile::tempdir().unwrap());
    let mut log = start(&fake, root.path());
    fake.shared().down = Some(Fault::Hang);
    let begun = Instant::now();
    for step in 0..1000 {
        log.row(vec![item("a", step)]).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let left = log.finish(143, Duration::from_millis(500)).unwrap().left.unwrap();
    assert!(left.why.as_deref().is_some_and(|why| why.ends_with("it does not answer in time")), "{left:?}");
    fake.shared().down = None;
    let [done] = synced_once_free(&fake, root.path()).try_into().unwrap();
    // Each row has its number, its time and the time since the start, too.
    assert_eq!((done.values, done.left.clone()), (4000, None), "{done:?}");
    assert_eq!(done.to, format!("{} run p/abcd1234", fake.url));
    let run = run(&fake);
    assert_eq!((values(&run, "a").len(), run.exit_code), (1000, Some(143)));
    assert_eq!(synced(&fake, root.path()), []);
}

#[test]
fn a_run_goes_on_also_after_parts_that_were_not_sent() {
    let (fake, root) = (Fake::start(), tempfile::tempdir().unwrap());
    let mut log = start(&fake, root.path());
    log.row(vec![item("a", 0)]).unwrap();
    log.stats(vec![item("cpu", 5)]).unwrap();
    log.config(vec![item("lr", 0.1)]).unwrap();
    assert_eq!(log.finish(0, MINUTE).unwrap().left, None);

    // Killed, with the server away, before the end.
    let mut log = start(&fake, root.path());
    fake.shared().down = Some(Fault::Reset);
    log.row(vec![item("a", 1)]).unwrap();
    log.save().unwrap();
    drop(log);
    std::thread::sleep(Duration::from_millis(300));
    fake.shared().down = None;

    // One without a server, and the next one.
    let mut log = RunLog::offline(root.path(), RunInfo::new("abcd1234", "p")).unwrap();
    log.row(vec![item("a", 2)]).unwrap();
    log.stats(vec![item("cpu", 6)]).unwrap();
    log.finish(0, Duration::ZERO).unwrap();
    let mut log = start(&fake, root.path());
    log.row(vec![item("a", 3)]).unwrap();
    log.config(vec![item("more", 1)]).unwrap();
    assert_eq!(log.finish(0, MINUTE).unwrap().left, None);

    let run = run(&fake);
    assert_eq!((values(&run, "a"), run.events.len()), (vec![0.0, 1.0, 2.0, 3.0], 2));
    let config = json_with_nan(run.info["config"].as_str().unwrap());
    assert_eq!((&config["lr"]["value"], &config["more"]["value"]), (&0.1.into(), &1.0.into()));
    assert_eq!(sync::outboxes(root.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_killed_run_that_is_sent_later_has_failed() {
    let (fake, root) = (Fake::start(), tempfile::tempdir().unwrap());
    let mut log = RunLog::offline(root.path(), RunInfo::new("abcd1234", "p")).unwrap();
    log.row(vec![item("a", 0)]).unwrap();
    log.save().unwrap();
    let file = log.folder().join("run-abcd1234.wandb");
    drop(log);
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend([1, 2, 3, 4, 100, 0, 1, 9]);
    fs::write(&file, bytes).unwrap();
    let [Some(done)] = &synced(&fake, root.path())[..] else { panic!() };
    assert!(done.left.is_none() && done.warnings[0].contains("ends with a record that is not whole"), "{done:?}");
    let run = run(&fake);
    assert_eq!((values(&run, "a").len(), run.exit_code, run.is_complete), (1, Some(1), true));
}

/// What was sent and not noted is sent again to the same place.
#[test]
fn an_uploader_that_is_killed_doubles_nothing() {
    let (fake, root) = (Fake::start(), tempfile::tempdir().unwrap());
    let mut log = RunLog::offline(root.path(), RunInfo::new("abcd1234", "p")).unwrap();
    for step in 0..10_000 {
        log.row(vec![item("a", step)]).unwrap();
    }
    let folder = log.folder().to_owned();
    log.finish(0, Duration::ZERO).unwrap();
    let state = fs::read(folder.join(".fulgurite-sync")).unwrap();
    fake.fail(vec![Fault::None; 6].into_iter().chain(vec![Fault::Status(500, None); 5]));
    let [Some(Synced { left: Some(_), .. })] = &synced(&fake, root.path())[..] else { panic!() };
    let had = run(&fake).history.len();
    assert!(had > 0 && had < 10_000, "{had}");
    let other = Fake::<Wandb>::start();
    let [Some(Synced { left: Some(why), .. })] = &synced(&other, root.path())[..] else { panic!() };
    assert!(why.starts_with(&format!("a part of it is at {};", fake.url)), "{why}");
    fs::write(folder.join(".fulgurite-sync"), state).unwrap();
    let [Some(Synced { left: None, .. })] = &synced(&fake, root.path())[..] else { panic!() };
    assert_eq!(values(&run(&fake), "a").len(), 10_000);
}

#[test]
fn a_stop_on_the_server_is_heard() {
    let (fake, root) = (Fake::start(), tempfile::tempdir().unwrap());
    let mut log = start(&fake, root.path());
    fake.shared().backend.stopped = true;
    log.row(vec![item("a", 0)]).unwrap();
    let begun = Instant::now();
    while !log.wants_stop() {
        assert!(begun.elapsed() < MINUTE);
        std::thread::sleep(Duration::from_millis(10));
    }
    log.finish(0, MINUTE).unwrap();
}

#[test]
fn at_the_start_errors_say_what_to_set() {
    let no_key = Server::new(pace(), &|_| None).unwrap_err().to_string();
    assert!(no_key.contains("set WANDB_API_KEY") && no_key.contains("offline=true"), "{no_key}");
    let fake = Fake::<Wandb>::start();
    fake.shared().key = Some("Basic other".into());
    let denied = server(&fake).viewer().unwrap_err().to_string();
    assert!(denied.contains("refuses the key (it answers 401: who?); set WANDB_API_KEY"), "{denied}");
    let server = server(&fake);
    assert!(!denied.contains(KEY) && !format!("{server:?}").contains(KEY));
    fake.shared().key = None;

    let root = tempfile::tempdir().unwrap();
    let begin = |resume| RunLog::online(root.path(), RunInfo::new("abcd1234", "p"), resume, server.clone());
    let refused = |log: Result<RunLog, TrackerError>| log.unwrap_err().to_string();
    let missing = refused(begin(Resume::Must));
    assert!(missing.contains("there is no run abcd1234 in ann/p"), "{missing}");
    begin(Resume::Never).unwrap().finish(0, MINUTE).unwrap();
    let there = refused(begin(Resume::Never));
    assert!(there.contains("resume=never forbids"), "{there}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Server::new(pace(), &variables(&format!("http://{nobody}"))).unwrap().viewer().unwrap_err().to_string();
    assert!(error.contains("cannot be reached: connection refused; correct WANDB_BASE_URL"), "{error}");
}

#[test]
fn a_log_of_somebody_else_sends_no_other_file() {
    let (fake, root) = (Fake::start(), tempfile::tempdir().unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let log = RunLog::offline(root.path(), RunInfo::new("abcd1234", "p")).unwrap();
    let artifact = |name: &str, bytes: &[u8]| {
        let path = elsewhere.path().join(name);
        fs::write(&path, bytes).unwrap();
        log.artifact(Artifact::of_file(log.info(), "model", name, "file", &path).unwrap()).unwrap();
        path
    };
    let (secret, checkpoint) = (artifact("id_rsa", b"private"), artifact("a.ckpt", b"PK\x03\x04rest"));
    fs::write(elsewhere.path().join("x"), b"private").unwrap();
    log.media(elsewhere.path().join("x").to_str().unwrap()).unwrap();
    log.media("../../../../../../../../../../etc/hostname").unwrap();
    log.finish(0, Duration::ZERO).unwrap();
    let [done] = synced(&fake, root.path()).try_into().unwrap();
    let done = done.unwrap();
    assert_eq!(done.warnings.len(), 3, "{done:?}");
    assert!(done.warnings[0].contains("is no checkpoint, and not in the run's folder"), "{done:?}");
    let shared = fake.shared();
    assert_eq!(shared.backend.artifacts.len(), 1);
    assert_eq!(shared.backend.artifacts[0].files["file"], b"PK\x03\x04rest");
    assert_eq!(shared.backend.runs["p/abcd1234"].files.len(), 2, "summary and configuration");
    assert!(secret.exists() && checkpoint.exists());
}
