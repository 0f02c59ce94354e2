//! The writer against a server that fails in every way.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{NewRun, Run, Server, Target};
use crate::fake::{Fake, Fault};
use crate::sync::{self, Synced};
use crate::{Courier, Entry, Outbox, Pace, RunEnd, TrackerError};

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

fn no_variables(_: &str) -> Option<String> {
    None
}

fn server(fake: &Fake) -> Server {
    Server::new(&fake.url, pace(), &no_variables).unwrap()
}

/// A run, and what is sent to it.
fn start(fake: &Fake, folder: &Path) -> (Run, Courier) {
    let run = server(fake).start(&NewRun::new("e")).unwrap();
    let courier = go_on(fake, folder, &run);
    (run, courier)
}

fn go_on(fake: &Fake, folder: &Path, run: &Run) -> Courier {
    let target = Target::run(&fake.url, run).to_value();
    let outbox = Outbox::open(folder, "mlflow", &target).unwrap();
    Courier::start(outbox, Box::new(server(fake).writer(run.clone())), pace()).unwrap()
}

fn synced(folder: &Path) -> Vec<Option<Synced>> {
    let send = |path| sync::send_with(path, pace(), &no_variables).unwrap();
    sync::outboxes(folder).iter().map(|path| send(path)).collect()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_lost_or_doubled_while_the_server_fails_in_every_way() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let (_, courier) = start(&fake, folder.path());
    let faults = [Fault::Status(500, None), Fault::Half, Fault::Reset, Fault::Status(503, None), Fault::Hang];
    let more = [Fault::Page, Fault::None, Fault::Status(429, Some(0)), Fault::Reset, Fault::Status(408, None)];
    fake.fail(faults.into_iter().chain(more));
    for step in 0..3000 {
        courier.post(&Entry::metrics([("a", step as f64), ("b", f64::NAN)], step)).unwrap();
    }
    courier.post(&Entry::Params(vec![("lr".into(), "0.1".into())])).unwrap();
    courier.post(&Entry::status(RunEnd::Success)).unwrap();
    let warnings = courier.take_warnings();
    assert!(warnings.len() <= 1, "{warnings:?}");
    assert_eq!(courier.finish(MINUTE).unwrap().left, None);
    let store = fake.store();
    let mut steps: Vec<i64> = store.metrics.iter().filter(|row| row.0 == "a").map(|row| row.1).collect();
    steps.sort_unstable();
    assert!(steps.iter().copied().eq(0..3000), "{} of 3000", steps.len());
    assert_eq!(store.metrics.iter().filter(|row| row.0 == "b" && row.2 == "\"NaN\"").count(), 3000);
    assert_eq!((store.params["lr"].as_str(), &store.statuses[..]), ("0.1", &["FINISHED".to_owned()][..]));
    assert!(store.faults.is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the outbox is removed once it is sent");
}

#[test]
fn a_server_that_is_down_costs_no_time_and_gets_everything_later() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let (run, courier) = start(&fake, folder.path());
    fake.store().down = Some(Fault::Hang);
    let begun = Instant::now();
    for step in 0..1000 {
        courier.post(&Entry::metrics([("a", 0.5)], step)).unwrap();
        courier.save().unwrap();
    }
    courier.post(&Entry::Content { path: "t.txt".into(), bytes: b"hi".to_vec() }).unwrap();
    courier.post(&Entry::status(RunEnd::Interrupted)).unwrap();
    let logged = begun.elapsed();
    let left = courier.finish(Duration::from_millis(700)).unwrap().left.unwrap();
    assert!(begun.elapsed() < logged + Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((left.values, left.files), (1001, 1));
    assert!(left.why.as_deref().is_some_and(|why| why.ends_with("it does not answer in time")), "{left:?}");

    let path = sync::outboxes(folder.path()).remove(0);
    // The thread of the run may still wait for its last answer.
    while Outbox::left_at(&path).unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    fake.store().down = None;
    let done = synced(folder.path()).pop().unwrap().unwrap();
    assert_eq!((done.values, done.files, done.left), (1001, 1, None));
    assert_eq!(done.to, format!("{} run {}", fake.url, run.run_id));
    let store = fake.store();
    assert_eq!((store.metrics.len(), &store.statuses[..]), (1000, &["KILLED".to_owned()][..]));
    assert_eq!(store.files[&format!("1/{}/artifacts/t.txt", run.run_id)], b"hi");
    assert_eq!(sync::outboxes(folder.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_a_killed_process_left_is_sent_by_the_next_one() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let (run, courier) = start(&fake, folder.path());
    fake.store().down = Some(Fault::Reset);
    courier.post(&Entry::metrics([("a", 1.0)], 1)).unwrap();
    courier.save().unwrap();
    drop(courier);
    std::thread::sleep(Duration::from_millis(400));
    fake.store().down = None;
    let courier = go_on(&fake, folder.path(), &run);
    courier.post(&Entry::metrics([("a", 2.0)], 2)).unwrap();
    assert_eq!(courier.finish(MINUTE).unwrap().left, None);
    let steps: Vec<i64> = fake.store().metrics.iter().map(|row| row.1).collect();
    assert_eq!(steps, [1, 2]);
}

#[test]
fn what_is_refused_takes_nothing_else_with_it() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let (_, courier) = start(&fake, folder.path());
    courier.post(&Entry::metrics((0..1500).map(|i| (format!("m{i}"), 1.0)), 0)).unwrap();
    courier.post(&Entry::metrics([("bad@", 1.0), ("good", 1.0)], 0)).unwrap();
    let params = (0..120).map(|i| (format!("p{i}"), "x".repeat(6000)));
    courier.post(&Entry::Params(params.collect())).unwrap();
    for value in ["1", "1", "2"] {
        courier.post(&Entry::Params(vec![("q".into(), value.into())])).unwrap();
    }
    assert_eq!(courier.send_within(MINUTE).unwrap(), None);
    let mut warnings = courier.take_warnings();
    warnings.sort();
    let expected = [
        "MLflow refuses the metric `bad@`: it answers 400: a name has @",
        "the hyper-parameter `q` is \"2\" now and \"1\" in the run of MLflow, which keeps the first value",
    ];
    assert_eq!(warnings, expected);
    let store = fake.store();
    assert_eq!((store.metrics.len(), store.params.len(), store.params["q"].as_str()), (1501, 121, "1"));
}

#[test]
fn a_deleted_run_is_said_once_and_kept() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let (_, courier) = start(&fake, folder.path());
    fake.store().deleted = true;
    for step in 0..50 {
        courier.post(&Entry::metrics([("a", 1.0)], step)).unwrap();
    }
    let left = courier.send_within(MINUTE).unwrap().unwrap();
    assert_eq!(left.values, 50);
    let warnings = courier.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("was deleted; `mlflow runs restore"), "{warnings:?}");
}

#[test]
fn at_the_start_errors_say_what_to_set() {
    let wrong = |server: Result<Server, TrackerError>| server.unwrap_err().to_string();
    let error = wrong(Server::new("file:./mlruns", pace(), &no_variables));
    assert!(error.contains("give tracking_uri or set MLFLOW_TRACKING_URI"), "{error}");
    let error = wrong(Server::new("htps://ann:secret@x", pace(), &no_variables));
    assert!(!error.contains("secret"), "{error}");

    let fake = Fake::start();
    let first = |name: &str| server(&fake).start(&NewRun::new(name)).unwrap_err().to_string();
    let error = first("gone");
    assert!(error.contains("was deleted; choose another experiment_name"), "{error}");
    fake.store().key = Some("Basic YTpi".into());
    let error = first("e");
    assert!(
        error.contains("set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"),
        "{error}"
    );
    fake.store().down = Some(Fault::Page);
    fake.store().key = None;
    let error = first("e");
    assert!(error.contains("is no MLflow server"), "{error}");

    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = Server::new(&format!("http://ann:secret@{unused}"), pace(), &no_variables).unwrap();
    let error = nobody.start(&NewRun::new("e")).unwrap_err().to_string();
    assert!(error.starts_with(&format!("http://{unused} cannot be reached: connection refused; ")), "{error}");
    assert!(error.contains("MLFLOW_TRACKING_URI") && !error.contains("secret"), "{error}");
    assert!(!format!("{nobody:?}").contains("secret"));
}

#[test]
fn a_lost_answer_leaves_no_second_run() {
    let fake = Fake::start();
    fake.fail([Fault::None, Fault::Half]);
    let run = server(&fake).start(&NewRun::new("e")).unwrap();
    assert_eq!(fake.store().runs.len(), 1);
    assert_eq!(run.run_id, format!("{:032x}", 1));
    fake.fail([Fault::None, Fault::Status(503, None)]);
    server(&fake).start(&NewRun::new("e")).unwrap();
    assert_eq!(fake.store().runs.len(), 2);
}

#[test]
fn an_offline_run_is_created_when_it_is_sent_and_goes_on() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let new = NewRun { run_name: Some("n".into()), tags: vec![("k".into(), "v".into())], ..NewRun::new("new") };
    let start_ms = new.start_ms;
    let write = |x: f64| {
        let target = Target::offline(&fake.url, NewRun { start_ms: 1, ..new.clone() }).to_value();
        let mut outbox = Outbox::go_on(folder.path(), "mlflow", &target).unwrap();
        outbox.append(&Entry::metrics([("a", x)], 0)).unwrap();
        outbox.sync().unwrap();
    };
    let target = Target::offline(&fake.url, new.clone()).to_value();
    drop(Outbox::go_on(folder.path(), "mlflow", &target).unwrap());
    write(1.0);
    assert_eq!(synced(folder.path())[0].as_ref().unwrap().values, 1);
    write(2.0);
    assert_eq!(synced(folder.path())[0].as_ref().unwrap().values, 1);
    assert_eq!(synced(folder.path())[0].as_ref().unwrap().values, 0);
    let store = fake.store();
    assert_eq!((store.runs.len(), store.metrics.len()), (1, 2));
    assert_eq!(store.runs[0]["asked"]["start_time"], start_ms);
    assert_eq!(store.runs[0]["asked"]["run_name"], "n");
}

#[test]
fn an_outbox_of_somebody_else_gets_no_key_and_no_file() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let (run, courier) = start(&fake, folder.path());
    drop(courier);
    let elsewhere = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        fs::write(elsewhere.path().join(name), bytes).unwrap();
        Entry::File { path: format!("x/{name}"), from: elsewhere.path().join(name), remove: true, with: Vec::new() }
    };
    let outbox_folder = folder.path().join("sub");
    let target = Target::run(&fake.url, &run).to_value();
    let mut outbox = Outbox::open(&outbox_folder, "mlflow", &target).unwrap();
    outbox.append(&file("id_rsa", b"private")).unwrap();
    outbox.append(&file("a.ckpt", b"PK\x03\x04rest")).unwrap();
    outbox
        .append(&Entry::File {
            path: "x/none".into(),
            from: "/does/not/exist".into(),
            remove: false,
            with: vec![("x/more".into(), "a".into())],
        })
        .unwrap();
    outbox.sync().unwrap();
    drop(outbox);
    fake.store().keys_seen.clear();
    let var = |own: String| {
        move |name: &str| match name {
            "MLFLOW_TRACKING_TOKEN" => Some("t0ken".to_owned()),
            "MLFLOW_TRACKING_URI" => Some(own.clone()),
            _ => None,
        }
    };
    let path = sync::outboxes(&outbox_folder).remove(0);
    let done = sync::send_with(&path, pace(), &var("http://other.example".into())).unwrap().unwrap();
    assert_eq!(done.warnings.len(), 1, "{done:?}");
    assert!(done.warnings[0].contains("is not uploaded"), "{done:?}");
    assert!(fake.store().keys_seen.iter().all(Option::is_none));
    assert_eq!(fake.store().files.keys().collect::<Vec<_>>(), [&format!("1/{}/artifacts/x/a.ckpt", run.run_id)]);

    assert!(elsewhere.path().join("a.ckpt").exists(), "only what lies in the outbox's folder is removed");

    let mut outbox = Outbox::open(&outbox_folder, "mlflow", &target).unwrap();
    outbox.append(&Entry::metrics([("a", 1.0)], 0)).unwrap();
    outbox.sync().unwrap();
    drop(outbox);
    sync::send_with(&path, pace(), &var(format!("{}/", fake.url))).unwrap().unwrap();
    assert_eq!(fake.store().keys_seen.last().unwrap().as_deref(), Some("Bearer t0ken"));
}
