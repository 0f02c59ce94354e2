//! Stores: what processes find each other with.

use std::thread;
use std::time::{Duration, Instant};

use fulgurite_torch::TorchError;
use fulgurite_torch::distributed::{DistributedError, Store, TcpStoreOptions};

fn server(timeout: Duration) -> Store {
    Store::tcp(TcpStoreOptions { host: "127.0.0.1".into(), port: 0, is_server: true, timeout, ..Default::default() })
        .unwrap()
}

fn client(port: u16, timeout: Duration) -> Result<Store, TorchError> {
    Store::tcp(TcpStoreOptions { host: "127.0.0.1".into(), port, timeout, ..Default::default() })
}

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

#[test]
fn what_one_sets_the_others_get() {
    let server = server(LONG);
    let client = client(server.port().unwrap(), LONG).unwrap();
    assert!(server.port().unwrap() > 0);
    client.set("key", &[0, 255, 10]).unwrap();
    assert_eq!(server.get("key").unwrap(), [0, 255, 10]);
    client.set("nothing", &[]).unwrap();
    assert_eq!(server.get("nothing").unwrap(), [0u8; 0]);
    assert_eq!(server.add("count", 2).unwrap(), 2);
    assert_eq!(client.add("count", 3).unwrap(), 5);
    assert!(client.delete("key").unwrap());
    assert!(!client.check(&["key"]).unwrap());
    assert!(client.check(&["nothing", "count"]).unwrap());
    client.set("text", b"many").unwrap();
    // This client is done then; the others are not.
    assert!(client.add("text", 1).is_err());
    assert_eq!(server.add("count", 1).unwrap(), 6);
}

#[test]
fn prefixes_keep_users_apart() {
    let whole = server(LONG);
    let (a, b) = (whole.prefixed("a").unwrap(), whole.prefixed("b").unwrap());
    a.set("key", b"of a").unwrap();
    assert!(!b.check(&["key"]).unwrap());
    assert_eq!(whole.get("a/key").unwrap(), b"of a");
    assert_eq!(a.port(), whole.port());
    // The server lives as long as the store is used.
    drop(whole);
    assert_eq!(a.get("key").unwrap(), b"of a");
}

#[test]
fn who_waits_does_not_keep_others_from_the_store() {
    let store = server(LONG);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| store.get("late").unwrap());
        thread::sleep(Duration::from_millis(20));
        store.set("late", b"here").unwrap();
        assert_eq!(waiting.join().unwrap(), b"here");
    });
}

#[test]
fn keys_that_nobody_sets_are_named() {
    let store = server(SHORT);
    store.set("here", b"").unwrap();
    let error = store.wait(&["here", "gone", "lost"], SHORT).unwrap_err().to_string();
    let expected =
        format!("no process set `gone`, `lost` in the store at 127.0.0.1:{} within 200ms", store.port().unwrap());
    assert_eq!(error, expected);
    let Err(TorchError::Distributed(error)) = store.get("gone") else { panic!("it is there") };
    assert!(matches!(*error, DistributedError::KeysMissing { keys, .. } if keys == ["gone"]));
}

#[test]
fn a_port_that_is_in_use_is_named() {
    let port = server(LONG).port().unwrap();
    let taken = std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port_taken = taken.local_addr().unwrap().port();
    assert_ne!(port, port_taken);
    let options = TcpStoreOptions { host: "127.0.0.1".into(), port: port_taken, is_server: true, ..Default::default() };
    let error = Store::tcp(options).unwrap_err().to_string();
    assert!(error.starts_with(&format!("port {port_taken} is in use")), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = Instant::now();
    let error = client(free, SHORT).unwrap_err().to_string();
    assert!(error.starts_with(&format!("no store responds at 127.0.0.1:{free} within 200ms; is the")), "{error}");
    assert!(start.elapsed() < LONG);
}

#[test]
fn processes_that_do_not_come_are_counted() {
    let options = TcpStoreOptions {
        host: "127.0.0.1".into(),
        port: 0,
        is_server: true,
        world_size: Some(2),
        timeout: SHORT,
        ..Default::default()
    };
    let error = Store::tcp(options).unwrap_err().to_string();
    assert!(error.starts_with("not all of the 2 processes connected to the store at 127.0.0.1:"), "{error}");
    assert!(error.contains("1/2 clients joined"), "{error}");
}

#[test]
fn a_server_that_ended_is_an_error() {
    let server = server(LONG);
    let client = client(server.port().unwrap(), LONG).unwrap();
    drop(server);
    let error = client.get("key").unwrap_err().to_string();
    assert!(error.contains("has the process that serves it exited?"), "{error}");
}

#[test]
fn a_file_is_a_store_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (a, b) = (Store::file(&path, Some(2)).unwrap(), Store::file(&path, Some(2)).unwrap());
    a.set("key", b"value").unwrap();
    assert_eq!(b.get("key").unwrap(), b"value");
    assert_eq!(b.add("count", 1).unwrap() + a.add("count", 1).unwrap(), 3);
    assert_eq!(a.port(), None);
    let error = Store::file(folder.path().join("none/store"), None).unwrap_err().to_string();
    assert!(error.contains("No such file or directory"), "{error}");
}
