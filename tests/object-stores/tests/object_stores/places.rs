//! Stores in memory and files of web servers.

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::{large_state, quick_retries, serve, state, status};
use fulgurite_fabric::{
    Alias, AsyncCheckpointIo, CheckpointIo, Commit, DefaultCheckpointIo, ObjectStoreCheckpointIo, TorchCheckpointIo,
};

/// What every checkpoint I/O does, at `folder`.
fn every_method(io: &mut dyn CheckpointIo, folder: &Path) {
    let at = |name: &str| folder.join(name);
    let names = |io: &mut dyn CheckpointIo| {
        let mut names: Vec<PathBuf> = io.list(folder).unwrap().into_iter().map(|file| file.path).collect();
        names.sort();
        names
    };
    assert!(names(io).is_empty());
    assert!(!io.exists(&at("a.ckpt")).unwrap());
    io.remove(&at("a.ckpt")).unwrap();
    io.save(&state(1.0), &at("a.ckpt")).unwrap();
    io.save(&state(2.0), &at("a.ckpt")).unwrap();
    assert!(io.load(&at("a.ckpt")).unwrap() == state(2.0));
    io.save(&state(9.0), &at("below/b.ckpt")).unwrap();
    assert_eq!(names(io), [at("a.ckpt")], "what lies in a folder below is not listed");
    io.save(&state(9.0), &at("below/further/c.ckpt")).unwrap();
    for (depth, expected) in [(0, 1), (1, 2), (2, 3), (9, 3)] {
        let mut below: Vec<PathBuf> = io.list_below(folder, depth).unwrap().into_iter().map(|file| file.path).collect();
        below.sort();
        assert_eq!(below, [at("a.ckpt"), at("below/b.ckpt"), at("below/further/c.ckpt")][..expected]);
    }
    let commit = Commit {
        path: at("b.ckpt"),
        alias: Some(Alias { path: at("last.ckpt"), link: false }),
        remove: vec![at("a.ckpt"), at("none.ckpt")],
    };
    io.commit(&large_state(3.0), &commit).unwrap();
    assert!(io.wait().is_none() && io.poll().is_none());
    assert_eq!(names(io), [at("b.ckpt"), at("last.ckpt")]);
    io.remove(&at("b.ckpt")).unwrap();
    io.verify(&at("last.ckpt")).unwrap();
    assert!(io.load(&at("last.ckpt")).unwrap() == large_state(3.0));
    assert!(io.outline(&at("last.ckpt")).unwrap() == large_state(3.0).without_tensors());
    assert!(io.exists(&at("last.ckpt")).unwrap() && !io.exists(&at("b.ckpt")).unwrap());
    for error in [io.load(&at("b.ckpt")).map(drop), io.verify(&at("b.ckpt")), io.outline(&at("b.ckpt")).map(drop)] {
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("checkpoint ") && error.contains("b.ckpt: "), "{error}");
    }
    assert!(io.alias(&at("b.ckpt"), &Alias { path: at("c.ckpt"), link: false }).is_err());
}

#[test]
fn every_place_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    every_method(&mut ObjectStoreCheckpointIo::new().part_size(100_000_usize), Path::new("memory://methods/run"));
    every_method(&mut DefaultCheckpointIo::new(), Path::new("memory://methods/default"));
    every_method(&mut DefaultCheckpointIo::new(), &folder.path().join("local"));
    every_method(&mut DefaultCheckpointIo::new(), Path::new(&format!("file://{}/url", folder.path().display())));
    let inner = ObjectStoreCheckpointIo::new().part_size(100_000_usize);
    every_method(&mut AsyncCheckpointIo::new(inner).in_flight(2), Path::new("memory://methods/asynchronous"));
}

#[test]
fn a_name_is_one_store_in_the_process() {
    let path = Path::new("memory://shared/a.ckpt");
    ObjectStoreCheckpointIo::new().save(&state(1.0), path).unwrap();
    assert!(DefaultCheckpointIo::new().exists(path).unwrap());
    assert!(!DefaultCheckpointIo::new().exists(Path::new("memory://other/a.ckpt")).unwrap());
}

#[test]
fn a_second_name_may_be_in_another_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut io = DefaultCheckpointIo::new();
    let (local, remote) = (folder.path().join("a.ckpt"), PathBuf::from("memory://aliases/a.ckpt"));
    io.save(&state(1.0), &local).unwrap();
    io.alias(&local, &Alias { path: remote.clone(), link: true }).unwrap();
    io.alias(&remote, &Alias { path: folder.path().join("b.ckpt"), link: true }).unwrap();
    assert!(io.load(&folder.path().join("b.ckpt")).unwrap() == state(1.0));
}

#[test]
fn a_checkpoint_that_is_not_whole_is_an_error() {
    let store = Arc::new(fulgurite_fabric::object_store::memory::InMemory::new());
    let mut io = ObjectStoreCheckpointIo::new().with_store("gs://bucket", Arc::clone(&store) as _);
    let file = tempfile::NamedTempFile::new().unwrap();
    TorchCheckpointIo::new().save(&large_state(1.0), file.path()).unwrap();
    let whole = std::fs::read(file.path()).unwrap();
    for bytes in [&whole[..0], &whole[..100], &whole[..whole.len() / 2], &whole[..whole.len() - 1]] {
        let (store, bytes) = (Arc::clone(&store), bytes.to_vec());
        futures_util::FutureExt::now_or_never(async move {
            use fulgurite_fabric::object_store::ObjectStoreExt;
            store.put(&"torn.ckpt".into(), bytes.into()).await.unwrap();
        })
        .unwrap();
        assert!(io.verify(Path::new("gs://bucket/torn.ckpt")).is_err());
        assert!(io.load(Path::new("gs://bucket/torn.ckpt")).is_err());
    }
}

#[test]
fn paths_that_lead_nowhere_say_so() {
    let message = |path: &str| ObjectStoreCheckpointIo::new().load(Path::new(path)).unwrap_err().to_string();
    let cases = [
        ("ftp://host/a.ckpt", "no object store supports ftp://; use s3://"),
        ("runs/a.ckpt", "it is not a URL such as s3://bucket/name"),
        ("memory://name/../a.ckpt", "it cannot be named so: "),
    ];
    for (path, expected) in cases {
        let message = message(path);
        assert!(message.starts_with(&format!("checkpoint {path}: {expected}")), "{message}");
    }
}

#[test]
fn a_runtime_around_it_does_no_harm() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let path = Path::new("memory://inside/a.ckpt");
        let mut io = ObjectStoreCheckpointIo::new().part_size(100_000_usize);
        io.save(&large_state(1.0), path).unwrap();
        assert!(io.load(path).unwrap() == large_state(1.0));
    });
}

fn send(socket: &mut TcpStream, bytes: &[u8], length: usize) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(bytes));
}

/// A web server that knows one file, no ranges and no `HEAD`, and is not always well.
#[test]
fn a_web_server_is_read_from_and_not_written_to() {
    let file = tempfile::NamedTempFile::new().unwrap();
    TorchCheckpointIo::new().save(&large_state(5.0), file.path()).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let port = serve(move |number, head, socket| {
        let first = head.lines().next().unwrap_or_default();
        match first {
            _ if !first.starts_with("GET ") => status(socket, "405 Method Not Allowed"),
            _ if number == 0 => status(socket, "503 Service Unavailable"),
            "GET /files/my%20model.ckpt HTTP/1.1" | "GET /signed.ckpt?key=a%2Fb HTTP/1.1" => {
                send(socket, &bytes, bytes.len());
            }
            "GET /cut.ckpt HTTP/1.1" => send(socket, &bytes[..bytes.len() / 2], bytes.len()),
            "GET /page.ckpt HTTP/1.1" => send(socket, b"<html>Sign in</html>", 20),
            "GET /closed.ckpt HTTP/1.1" => status(socket, "403 Forbidden"),
            _ => status(socket, "404 Not Found"),
        }
    });
    let url = |name: &str| PathBuf::from(format!("http://127.0.0.1:{port}/{name}"));
    let stores = ObjectStoreCheckpointIo::new().retry(quick_retries(3));
    let mut io = DefaultCheckpointIo::new().object_stores(stores);
    for name in ["files/my%20model.ckpt", "signed.ckpt?key=a%2Fb"] {
        assert!(io.load(&url(name)).unwrap() == large_state(5.0));
        io.verify(&url(name)).unwrap();
    }
    let refusals = [
        ("none.ckpt", "it does not exist ("),
        ("cut.ckpt", "it cannot be read: "),
        ("page.ckpt", "not a PyTorch checkpoint"),
        ("closed.ckpt", "rejected the credentials ("),
    ];
    for (name, expected) in refusals {
        let error = io.load(&url(name)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let commit = Commit { path: url("new.ckpt"), ..Commit::default() };
    for error in [
        io.commit(&state(1.0), &commit),
        io.remove(&url("new.ckpt")),
        io.alias(&url("signed.ckpt?key=a%2Fb"), &Alias { path: url("new.ckpt"), link: false }),
        io.list(&url("files")).map(drop),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("http:// is read-only; write to s3://, gs://, az:// or a folder"), "{error}");
    }
}
