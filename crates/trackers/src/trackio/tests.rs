//! The writer against a dashboard that fails in every way, and files of the inbox.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Inbox, Run, Server, Target, image, number};
use crate::fake::{Fake, Fault, Store};
use crate::{Courier, Entry, Outbox, Pace, TrackerError, run_id, sync};

const MINUTE: Duration = Duration::from_secs(60);

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

fn dashboard(store: &mut Store, path: &str, body: &[u8]) -> (u16, Value) {
    if path == "/version" {
        return (200, json!({ "version": "0.43.0", "api_version": 1 }));
    }
    if store.key.is_some() && store.keys_seen.last() != Some(&store.key) {
        return (400, json!({ "error": "A write_token is required to log metrics or upload to this server." }));
    }
    if path == "/api/upload" {
        store.files.insert("upload".into(), body.to_vec());
        return (200, json!({ "paths": ["/tmp/trackio-upload-1.png"] }));
    }
    let json: Value = serde_json::from_slice(body).unwrap();
    for log in json["logs"].as_array().into_iter().flatten() {
        if log["metrics"].get("bad").is_some() {
            return (400, json!({ "error": "no such thing" }));
        }
    }
    store.calls.push((path.to_owned(), json));
    (200, json!({ "data": null }))
}

fn run() -> Run {
    Run { project: "my project/ü".into(), name: "a \"run\" 🚀".into(), id: run_id() }
}

fn row(run: &Run, step: i64) -> Entry {
    run.metrics([("a", number(step as f64)), ("b", number(f64::NAN))], step, None)
}

fn variables(url: &str) -> impl Fn(&str) -> Option<String> + use<> {
    let url = url.to_owned();
    move |name| match name {
        "TRACKIO_SERVER_URL" => Some(url.clone()),
        "TRACKIO_WRITE_TOKEN" => Some("t0ken".into()),
        _ => None,
    }
}

fn courier(fake: &Fake, folder: &Path) -> Courier {
    let server = Server::new(&fake.url, pace(), &variables(&fake.url)).unwrap();
    server.check().unwrap();
    let target = Target::Server(server.url().into()).to_value();
    let outbox = Outbox::open(folder, "trackio", &target).unwrap();
    Courier::start(outbox, Box::new(server.writer()), pace()).unwrap()
}

/// All rows that were logged, each once.
fn logged(store: &Store) -> Vec<Value> {
    let mut ids = BTreeSet::new();
    let calls = store.calls.iter().filter(|(path, _)| path == "/api/bulk_log");
    let rows = calls.flat_map(|(_, call)| call["logs"].as_array().unwrap().clone());
    rows.filter(|row| ids.insert(row["log_id"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn nothing_is_lost_while_the_dashboard_fails_in_every_way() {
    let (fake, folder, run) = (Fake::of(dashboard), tempfile::tempdir().unwrap(), run());
    fake.store().key = Some("t0ken".into());
    let courier = courier(&fake, folder.path());
    let faults = [Fault::Status(500, None), Fault::Half, Fault::Reset, Fault::Status(503, None), Fault::Hang];
    let more = [Fault::Page, Fault::None, Fault::Status(429, Some(0)), Fault::Reset, Fault::Status(404, None)];
    fake.fail(faults.into_iter().chain(more));
    let names: Vec<String> = (0..1500).map(|i| format!("m/{i}")).collect();
    courier.post(&run.metrics(names.iter().map(|name| (name.as_str(), number(0.5))), 0, None)).unwrap();
    for step in 1..3000 {
        courier.post(&row(&run, step)).unwrap();
    }
    let config = Map::from_iter([("lr".to_owned(), json!(0.1))]);
    courier.post(&run.metrics([("bad", number(1.0)), ("x", number(1.0))], 3000, None)).unwrap();
    courier.post(&run.metrics([(&*"x".repeat(300), number(f64::INFINITY))], 3001, Some(&config))).unwrap();
    courier.post(&run.system_metrics([("cpu", number(12.5))])).unwrap();
    let finished = courier.finish(MINUTE).unwrap();
    assert_eq!(finished.left, None);
    assert!(finished.warnings.iter().any(|warning| warning.contains("no such thing")), "{finished:?}");
    let store = fake.store();
    let rows = logged(&store);
    let steps: BTreeSet<i64> = rows.iter().map(|row| row["step"].as_i64().unwrap()).collect();
    assert!(steps.iter().copied().eq((0..3000).chain([3001])), "{} steps", steps.len());
    let of = |step: i64| rows.iter().find(|row| row["step"] == step).unwrap();
    assert_eq!(of(0)["metrics"].as_object().unwrap().len(), 1500);
    assert_eq!((&of(1)["metrics"]["b"], &of(1)["run"]), (&json!("NaN"), &json!(run.name)));
    assert_eq!(of(3001)["config"], json!({ "lr": 0.1 }));
    assert_eq!(store.calls.last().unwrap().0, "/api/bulk_log_system");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the outbox is removed once it is sent");
}

#[test]
fn a_dashboard_that_is_away_gets_everything_later_and_no_other_gets_the_token() {
    let (fake, folder, run) = (Fake::of(dashboard), tempfile::tempdir().unwrap(), run());
    let courier = courier(&fake, folder.path());
    fake.store().down = Some(Fault::Reset);
    let media = run.media(7);
    courier.post(&Entry::Content { path: media.clone(), bytes: b"\x89PNG".to_vec() }).unwrap();
    courier.post(&run.metrics([("image", image(&media))], 7, None)).unwrap();
    courier.post(&row(&run, 8)).unwrap();
    let left = courier.finish(Duration::from_millis(300)).unwrap().left.unwrap();
    assert_eq!((left.values, left.files), (2, 1));
    let path = sync::outboxes(folder.path()).remove(0);
    // The thread of the run may still wait for its last answer.
    while Outbox::left_at(&path).unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    fake.store().down = None;
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("t0ken"), "{text}");
    let seen = fake.store().requests.len();
    let error = sync::send_with(&path, pace(), &variables("http://other.example")).unwrap_err().to_string();
    assert!(error.contains("give --server") && fake.store().requests.len() == seen, "{error}");
    let with_slash = format!("{}/", fake.url);
    let done = sync::send_with(&path, pace(), &variables(&with_slash)).unwrap().unwrap();
    assert_eq!((done.values, done.files, done.left), (2, 1, None));
    let store = fake.store();
    assert_eq!(logged(&store).len(), 2);
    let form = String::from_utf8_lossy(&store.files["upload"]).into_owned();
    assert!(form.contains("name=\"files\"; filename=\"image.png\"") && form.contains("PNG\r\n--"), "{form}");
    let upload = &store.calls.iter().find(|(path, _)| path == "/api/bulk_upload_media").unwrap().1["uploads"][0];
    let name = media.rsplit('/').next().unwrap();
    assert_eq!((&upload["uploaded_file"]["orig_name"], &upload["step"]), (&json!(name), &json!(7)));
    assert_eq!(sync::outboxes(folder.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn at_the_start_errors_say_what_to_set() {
    let fake = Fake::of(dashboard);
    let none = |_: &str| None;
    let error = |server: Result<Server, TrackerError>| {
        server.and_then(|server| server.check().map(|()| server)).unwrap_err().to_string()
    };
    let said = error(Server::new(&fake.url, pace(), &none));
    assert!(said.contains("set TRACKIO_WRITE_TOKEN"), "{said}");
    fake.store().key = Some("right".into());
    let wrong = Server::new(&format!("{}?write_token=wr0ng", fake.url), pace(), &none).unwrap();
    assert!(!format!("{wrong:?}").contains("wr0ng"));
    let said = error(Ok(wrong));
    assert!(said.contains("set TRACKIO_WRITE_TOKEN") && said.contains("write_token is required"), "{said}");
    assert!(!said.contains("wr0ng"), "{said}");
    let said = error(Server::new("htps://h?write_token=wr0ng", pace(), &none));
    assert!(said.contains("server_url is no http") && !said.contains("wr0ng"), "{said}");
    let said = error(Server::space("me", pace(), &none));
    assert!(said.contains("as user/name"), "{said}");
    let other = Fake::of(|_, _, _| (404, json!({})));
    let said = error(Server::new(&format!("{}?write_token=a", other.url), pace(), &none));
    assert!(said.contains("is no Trackio server"), "{said}");
    fake.store().down = Some(Fault::Reset);
    let said = error(Server::new(&format!("{}?write_token=a", fake.url), pace(), &none));
    assert!(said.contains("cannot be reached") && said.contains("TRACKIO_SERVER_URL"), "{said}");
}

#[test]
fn an_inbox_has_whole_files_and_what_a_killed_run_left() {
    let (folder, run) = (tempfile::tempdir().unwrap(), run());
    let (logs, trackio) = (folder.path().join("logs"), folder.path().join("trackio"));
    let mut outbox = Outbox::open(&logs, "trackio", &Target::Inbox.to_value()).unwrap();
    let media = run.media(-1);
    outbox.append(&Entry::Content { path: media.clone(), bytes: b"png".to_vec() }).unwrap();
    outbox.append(&Entry::Content { path: "../../../evil".into(), bytes: b"x".to_vec() }).unwrap();
    outbox.append(&Entry::Record(json!({ "kind": "other" }))).unwrap();
    (0..2500).for_each(|step| outbox.append(&row(&run, step)).unwrap());
    outbox.sync().unwrap();
    drop(outbox);
    let var = |name: &str| (name == "TRACKIO_DIR").then(|| trackio.display().to_string());
    let path = sync::outboxes(&logs).remove(0);
    let done = sync::send_with(&path, pace(), &var).unwrap().unwrap();
    assert_eq!((done.values, done.files, &done.left), (2501, 2, &None));
    assert!(done.to.contains("`trackio show`"), "{done:?}");

    let [writer] = fs::read_dir(trackio.join("inbox"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let mut files: Vec<_> = fs::read_dir(&writer).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["00000000.jsonl", "00000001.jsonl", "00000002.jsonl"]);
    let lines: Vec<Value> = files
        .iter()
        .flat_map(|file| {
            fs::read_to_string(file)
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(lines.len(), 2500);
    let line = &lines[7];
    assert_eq!(
        (&line["v"], &line["kind"], &line["step"], &line["metrics"]["a"]),
        (&json!(1), &json!("metric"), &json!(7), &json!(7.0))
    );
    assert!(line["timestamp"].as_str().unwrap().ends_with("+00:00"));
    assert_eq!(fs::read(trackio.join("media").join(&media)).unwrap(), b"png");
    assert!(media.starts_with("myprojectü/a _run_ _/-1/"), "{media}");
    // Without what was there, a writer leaves no folder.
    drop(Inbox::open(&trackio).unwrap());
    assert_eq!(fs::read_dir(trackio.join("inbox")).unwrap().count(), 1);
}
