//! The writer against a server that fails in every way, and archives.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Asset, Experiment, Kind, Mode, Server, archive, metrics, other, parameters};
use crate::fake::{Fake, Fault, Store};
use crate::{Courier, Entry, Number, Outbox, Pace, RunEnd, TrackerError, sync};

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

fn comet(store: &mut Store, path: &str, body: &[u8]) -> (u16, Value) {
    if store.key.is_some() && store.keys_seen.last() != Some(&store.key) {
        return (400, json!({ "msg": "no such key", "sdk_error_code": 90212 }));
    }
    if path.starts_with("/clientlib/asset/upload") || path.starts_with("/clientlib/visualizations/upload") {
        store.files.insert(path.to_owned(), body.to_vec());
        return (200, json!({ "assetId": "1" }));
    }
    let json: Value = serde_json::from_slice(body).unwrap();
    if store.deleted && path.contains("/batch/") {
        return (404, json!({}));
    }
    let has_bad = |value: &Value| value["metricName"] == "bad";
    if json["values"].as_array().is_some_and(|values| values.iter().any(has_bad)) {
        return (400, json!({ "msg": "a bad name" }));
    }
    if json["experimentKey"] == "0".repeat(32) {
        return (400, json!({ "msg": "there", "sdk_error_code": 90999 }));
    }
    store.calls.push((path.to_owned(), json));
    (200, json!({ "runId": "run 1", "project_id": "p", "link": "http://x" }))
}

fn variables(fake: &Fake) -> impl Fn(&str) -> Option<String> + use<> {
    let url = format!("{}/clientlib/", fake.url);
    move |name| match name {
        "COMET_URL_OVERRIDE" => Some(url.clone()),
        "COMET_API_KEY" => Some("s3cret".into()),
        _ => None,
    }
}

fn begin(fake: &Fake, experiment: &Experiment) -> Result<super::Writer, TrackerError> {
    Ok(Server::new(None, pace(), &variables(fake))?.begin(experiment)?.unwrap())
}

fn courier(fake: &Fake, folder: &Path, experiment: &Experiment) -> Courier {
    let writer = begin(fake, experiment).unwrap();
    let target = experiment.at(&format!("{}/clientlib", fake.url)).to_value();
    let outbox = Outbox::open(folder, "comet", &target).unwrap();
    Courier::start(outbox, Box::new(writer), pace()).unwrap()
}

fn row(step: i64) -> Entry {
    metrics([("a", Number(step as f64)), ("b", Number(f64::NAN))], Some(step), Some(1.0))
}

fn values(store: &Store, call: &str) -> Vec<Value> {
    let calls = store.calls.iter().filter(|(path, _)| path.ends_with(call));
    calls.flat_map(|(_, body)| body["values"].as_array().unwrap().clone()).collect()
}

#[test]
fn nothing_is_lost_while_the_server_fails_in_every_way() {
    let (fake, folder) = (Fake::of(comet), tempfile::tempdir().unwrap());
    fake.store().key = Some("s3cret".into());
    let experiment = Experiment { tags: vec!["t".into()], ..Experiment::new("p") };
    let courier = courier(&fake, folder.path(), &experiment);
    let faults = [Fault::Status(500, None), Fault::Reset, Fault::Status(503, None), Fault::Hang];
    fake.fail(faults.into_iter().chain([Fault::Status(429, Some(0)), Fault::None, Fault::Status(408, None)]));
    courier.post(&Entry::status(RunEnd::Running)).unwrap();
    let names: Vec<String> = (0..1500).map(|i| format!("m/\"{i}\" 🚀")).collect();
    courier.post(&metrics(names.iter().map(|name| (name.as_str(), Number(0.5))), Some(0), None)).unwrap();
    (1..2000).for_each(|step| courier.post(&row(step)).unwrap());
    courier.post(&metrics([("bad", Number(1.0)), ("x", Number(f64::INFINITY))], Some(2000), None)).unwrap();
    courier.post(&parameters([("lr".into(), json!(0.1)), ("l".into(), json!([1, 2]))])).unwrap();
    courier.post(&other("Name", "n")).unwrap();
    let asset = Asset { kind: Kind::Image, name: "a b/ü+1".into(), step: Some(3), metadata: Map::new() };
    courier.post(&asset.with(b"\x89PNG")).unwrap();
    courier.post(&Entry::status(RunEnd::Success)).unwrap();
    let finished = courier.finish(MINUTE).unwrap();
    assert_eq!(finished.left, None);
    assert!(finished.warnings.iter().any(|warning| warning.contains("refuses `bad`")), "{finished:?}");
    let store = fake.store();
    let logged = values(&store, "experiment/metric");
    let mut steps: Vec<i64> =
        logged.iter().filter(|value| value["metricName"] == "a").map(|value| value["step"].as_i64().unwrap()).collect();
    steps.sort_unstable();
    steps.dedup();
    assert!(steps.iter().copied().eq(1..2000), "{} steps", steps.len());
    let of = |name: &str| logged.iter().find(|value| value["metricName"] == name).unwrap();
    assert_eq!((&of("b")["metricValue"], &of("b")["epoch"]), (&json!("NaN"), &json!(1)));
    assert_eq!(of("x")["metricValue"], "Infinity");
    assert_eq!(of("m/\"1499\" 🚀")["metricValue"], 0.5);
    assert!(store.calls.iter().all(|(_, call)| call["values"].as_array().is_none_or(|values| values.len() <= 1000)));
    assert_eq!(values(&store, "experiment/parameter").len(), 2);
    let called =
        |path: &str| store.calls.iter().filter(|(held, _)| held == path).map(|(_, call)| call).collect::<Vec<_>>();
    assert_eq!(called("/api/rest/v2/write/experiment/log-other")[0]["value"], "n");
    assert_eq!(called("/clientlib/tags/add-tags-to-experiment")[0]["addedTags"], json!(["t"]));
    let alive: Vec<&Value> = called("/clientlib/status-report/update").iter().map(|call| &call["is_alive"]).collect();
    assert_eq!((alive.first(), alive.last()), (Some(&&json!(true)), Some(&&json!(false))));
    let (path, file) = store.files.iter().next().unwrap();
    assert!(path.contains("figName=a%20b%2F%C3%BC%2B1") && path.contains("runId=run%201"), "{path}");
    assert!(String::from_utf8_lossy(file).contains("name=\"file\"; filename=\"file\""));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the outbox is removed once it is sent");
}

#[test]
fn what_could_not_be_sent_is_sent_later_to_the_same_server_only() {
    let (fake, folder) = (Fake::of(comet), tempfile::tempdir().unwrap());
    let courier = courier(&fake, folder.path(), &Experiment::new("p"));
    fake.store().down = Some(Fault::Reset);
    courier.post(&row(1)).unwrap();
    assert_eq!(courier.finish(Duration::from_millis(300)).unwrap().left.unwrap().values, 1);
    let path = sync::outboxes(folder.path()).remove(0);
    assert!(!fs::read_to_string(&path).unwrap().contains("s3cret"));
    while Outbox::left_at(&path).unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    fake.store().down = None;
    let seen = fake.store().requests.len();
    let elsewhere = |name: &str| (name == "COMET_API_KEY").then(|| "s3cret".to_owned());
    let error = sync::send_with(&path, pace(), &elsewhere).unwrap_err().to_string();
    assert!(error.contains("set COMET_URL_OVERRIDE") && fake.store().requests.len() == seen, "{error}");
    let done = sync::send_with(&path, pace(), &variables(&fake)).unwrap().unwrap();
    assert_eq!((done.values, done.left), (1, None));
    assert_eq!(values(&fake.store(), "experiment/metric").len(), 2);
    assert!(sync::outboxes(folder.path()).is_empty());
}

#[test]
fn a_server_without_these_calls_leaves_an_archive() {
    let (fake, folder) = (Fake::of(comet), tempfile::tempdir().unwrap());
    let experiment = Experiment::new("p");
    let writer = begin(&fake, &experiment).unwrap();
    let unsupported = writer.unsupported();
    fake.store().deleted = true;
    let outbox = Outbox::open(folder.path(), "comet", &experiment.at("http://x").to_value()).unwrap();
    let path = outbox.path().to_owned();
    let courier = Courier::start(outbox, Box::new(writer), pace()).unwrap();
    (0..10).for_each(|step| courier.post(&row(step)).unwrap());
    let left = courier.finish(MINUTE).unwrap().left.unwrap();
    assert!(left.values == 10 && unsupported.load(std::sync::atomic::Ordering::Relaxed), "{left:?}");
    let written = loop {
        match archive(&path, folder.path()).unwrap() {
            Some(written) => break written,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert_eq!((written.values, written.files), (20, 0));
    let other = Fake::of(|_, _, _| (404, json!({})));
    let begun = Server::new(None, pace(), &variables(&other)).unwrap().begin(&experiment).unwrap();
    assert!(begun.is_none());
}

fn entry(zip: &mut zip::ZipArchive<fs::File>, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    zip.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn an_archive_has_what_a_killed_run_left_and_no_file_of_others() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let experiment = Experiment::new("p");
    let mut outbox = Outbox::go_on(folder.path(), "comet", &experiment.offline().to_value()).unwrap();
    let path = outbox.path().to_owned();
    outbox.append(&row(1)).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        fs::write(elsewhere.path().join(name), bytes).unwrap();
        let kind = Kind::Model("m".into());
        let asset = Asset { kind, name: name.into(), step: None, metadata: Map::new() };
        asset.of_file(&elsewhere.path().join(name), true)
    };
    outbox.append(&file("id_rsa", b"private")).unwrap();
    outbox.append(&file("a.ckpt", b"PK\x03\x04rest")).unwrap();
    let gone = Asset { kind: Kind::Text, name: "gone".into(), step: None, metadata: Map::new() };
    outbox.append(&gone.of_file(Path::new("/does/not/exist"), false)).unwrap();
    outbox.append(&gone.with(b"a text")).unwrap();
    outbox.append(&Entry::Record(json!({ "odd": 1 }))).unwrap();
    outbox.append(&Entry::status(RunEnd::Failed)).unwrap();
    outbox.sync().unwrap();
    assert_eq!(archive(&path, folder.path()).unwrap(), None, "a run is using it");
    drop(outbox);
    let done = sync::send_with(&path, pace(), &|_| None).unwrap().unwrap();
    assert_eq!((done.values, done.files, &done.left), (2, 2, &None));
    let name = folder.path().join(format!("{}.zip", experiment.key));
    assert!(done.to.contains(&format!("`comet upload {}`", name.display())), "{done:?}");
    let mut zip = zip::ZipArchive::new(fs::File::open(&name).unwrap()).unwrap();
    let about: Value = serde_json::from_slice(&entry(&mut zip, "experiment.json")).unwrap();
    assert_eq!((&about["offline_id"], &about["customer_error_reported"]), (&json!(experiment.key), &json!(true)));
    assert_eq!(about["resume_strategy"], "get_or_create");
    let text = String::from_utf8(entry(&mut zip, "messages.json")).unwrap();
    let messages: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<i64> = messages.iter().map(|message| message["payload"]["message_id"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let uploads: Vec<&Value> = messages.iter().filter(|message| message["type"] == "file_upload").collect();
    let contents = uploads.iter().map(|upload| entry(&mut zip, upload["payload"]["file_path"].as_str().unwrap()));
    assert_eq!(contents.collect::<Vec<_>>(), [b"PK\x03\x04rest".to_vec(), b"a text".to_vec()]);
    assert!(elsewhere.path().join("a.ckpt").exists(), "only what lies in the outbox's folder is removed");
    assert!(sync::outboxes(folder.path()).is_empty());

    // A second part of the same experiment is a file of its own, and nothing is none.
    let go_on = || Outbox::go_on(folder.path(), "comet", &experiment.offline().to_value()).unwrap();
    drop(go_on());
    assert_eq!(archive(&path, folder.path()).unwrap(), None);
    let mut outbox = go_on();
    outbox.append(&row(2)).unwrap();
    outbox.sync().unwrap();
    drop(outbox);
    let second = archive(&path, folder.path()).unwrap().unwrap();
    assert!(second.path.ends_with(format!("{}-2.zip", experiment.key)));
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn at_the_start_errors_say_what_to_set() {
    let fake = Fake::of(comet);
    let error = Server::new(None, pace(), &|_| None).unwrap_err().to_string();
    assert!(error.contains("set COMET_API_KEY, or online=false"), "{error}");
    let none = |name: &str| (name == "COMET_URL_OVERRIDE").then(|| "file:x".to_owned());
    assert!(Server::new(Some("k"), pace(), &none).unwrap_err().to_string().contains("COMET_URL_OVERRIDE is no"));
    let server = Server::new(Some("s3cret"), pace(), &variables(&fake)).unwrap();
    assert!(!format!("{server:?}").contains("s3cret"), "{server:?}");
    let there = Experiment { key: "0".repeat(32), mode: Mode::Create, ..Experiment::new("p") };
    let error = begin(&fake, &there).unwrap_err().to_string();
    assert!(error.contains("write mode=get_or_create"), "{error}");
    fake.store().key = Some("other".into());
    let error = begin(&fake, &Experiment::new("p")).unwrap_err().to_string();
    assert!(
        error.contains("no such key") && error.contains("set COMET_API_KEY") && !error.contains("s3cret"),
        "{error}"
    );
    fake.store().down = Some(Fault::Reset);
    let error = begin(&fake, &Experiment::new("p")).unwrap_err().to_string();
    assert!(error.contains("cannot be reached") && error.contains("online=false"), "{error}");
}
