//! A real S3 server, which keeps its data on the disk, is killed and started again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{S3Server, io_of, large_state, quick_retries, serve, state, state_of, status};
use fulgurite_fabric::{Alias, AsyncCheckpointIo, CheckpointIo, Commit, DefaultCheckpointIo, ObjectStoreCheckpointIo};

/// More than ten parts of the least size that S3 takes.
const BYTES: i64 = 56 << 20;

fn url(name: &str) -> PathBuf {
    Path::new("s3://bucket/run").join(name)
}

fn names(io: &mut ObjectStoreCheckpointIo) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = io.list(Path::new("s3://bucket/run")).unwrap().into_iter().map(|f| f.path).collect();
    names.sort();
    names
}

#[test]
fn every_method_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(folder.path());
    let mut io = server.io();
    assert!(!io.exists(&url("a.ckpt")).unwrap());
    assert!(names(&mut io).is_empty());
    for (name, value) in [("epoch=0-step=1.ckpt", state(1.0)), ("large one #2 100%.ckpt", state_of(12 << 20, 2.0))] {
        io.save(&value, &url(name)).unwrap();
        assert!(io.exists(&url(name)).unwrap());
        assert!(io.load(&url(name)).unwrap() == value);
        io.verify(&url(name)).unwrap();
    }
    let commit = Commit {
        path: url("epoch=1-step=2.ckpt"),
        alias: Some(Alias { path: url("last.ckpt"), link: true }),
        remove: vec![url("epoch=0-step=1.ckpt"), url("never.ckpt")],
    };
    io.commit(&state(3.0), &commit).unwrap();
    assert_eq!(names(&mut io), [url("epoch=1-step=2.ckpt"), url("large one #2 100%.ckpt"), url("last.ckpt")]);
    assert!(io.load(&url("last.ckpt")).unwrap() == state(3.0));
    let listed = io.list(Path::new("s3://bucket/run")).unwrap();
    let large = listed.iter().find(|file| file.size > 12 << 20).unwrap();
    assert_eq!(large.path, url("large one #2 100%.ckpt"));
    assert!(large.modified.elapsed().unwrap() < Duration::from_secs(600));
    let error = io.load(&url("none.ckpt")).unwrap_err().to_string();
    assert!(error.starts_with("checkpoint s3://bucket/run/none.ckpt: it does not exist"), "{error}");
    assert_eq!(server.parts(), 0);
}

/// When a proxy stops to pass on what a client says.
#[derive(Clone, Copy)]
enum Moment {
    /// In the middle of a part.
    Part(usize),
    /// When the parts were put together, and the client does not know yet.
    Completed,
}

/// A proxy before `server`, which stands still at `moment`, once: it says so, waits for a word, and hangs up.
fn interrupted(server: &S3Server, moment: Moment) -> (String, Receiver<()>, Sender<()>) {
    let (port, once) = (server.port, AtomicBool::new(false));
    let (reached, reaching) = channel();
    let (go_on, going_on) = channel();
    let going_on = Mutex::new(going_on);
    let proxy = serve(move |_, head, client| {
        let request = head.lines().next().unwrap_or_default();
        let is_it = match moment {
            Moment::Part(number) => request.starts_with("PUT ") && request.contains(&format!("partNumber={number}&")),
            Moment::Completed => request.starts_with("POST ") && request.contains("uploadId="),
        };
        if !is_it || once.swap(true, Ordering::SeqCst) {
            return crate::common::forward(port, head, client);
        }
        let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
        server.write_all(head.as_bytes()).unwrap();
        match moment {
            Moment::Part(_) => drop(std::io::copy(&mut client.take(1 << 20), &mut server).unwrap()),
            Moment::Completed => {
                let length =
                    head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                std::io::copy(&mut client.take(length.unwrap()), &mut server).unwrap();
                let mut answer = [0; 12];
                server.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"HTTP/1.1 200");
            }
        }
        reached.send(()).unwrap();
        let _ = going_on.lock().unwrap().recv();
    });
    (format!("http://127.0.0.1:{proxy}"), reaching, go_on)
}

/// With one request for each connection, which is what the proxies count.
fn io_through(proxy: &str) -> ObjectStoreCheckpointIo {
    io_of(proxy).with_config("pool_max_idle_per_host", "0")
}

#[test]
fn a_server_that_is_killed_during_an_upload_and_comes_back_has_the_whole_checkpoint() {
    let moments = [Moment::Part(1), Moment::Part(5), Moment::Part(12), Moment::Completed];
    for (round, moment) in moments.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = S3Server::start(folder.path());
        server.io().save(&state_of(BYTES, 1.0), &url("last.ckpt")).unwrap();
        let (proxy, reached, go_on) = interrupted(&server, moment);
        let saving = std::thread::spawn(move || io_through(&proxy).save(&state_of(BYTES, 2.0), &url("last.ckpt")));
        reached.recv().unwrap();
        server.kill();
        go_on.send(()).unwrap();
        server.restart();
        // Somebody who reads meanwhile gets one of the two, or hears that it changed under him.
        match server.io().load(&url("last.ckpt")) {
            Ok(seen) => assert!(seen == state_of(BYTES, 1.0) || seen == state_of(BYTES, 2.0), "round {round}"),
            Err(error) => {
                let error = error.to_string();
                assert!(error.ends_with("it was replaced while it was being read; try again"), "{error}");
            }
        }
        saving.join().unwrap().unwrap();
        assert!(server.io().load(&url("last.ckpt")).unwrap() == state_of(BYTES, 2.0), "round {round}");
        assert_eq!(names(&mut server.io()), [url("last.ckpt")]);
    }
}

#[test]
fn a_server_that_stays_away_is_an_error_and_the_previous_checkpoint_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = S3Server::start(folder.path());
    server.io().save(&state_of(BYTES, 1.0), &url("old.ckpt")).unwrap();
    let (proxy, reached, go_on) = interrupted(&server, Moment::Part(3));
    let mut io = io_through(&proxy).retry(quick_retries(2));
    let commit = Commit {
        path: url("new.ckpt"),
        alias: Some(Alias { path: url("last.ckpt"), link: false }),
        remove: vec![url("old.ckpt")],
    };
    let saving = std::thread::spawn(move || io.commit(&state_of(BYTES, 2.0), &commit));
    reached.recv().unwrap();
    server.kill();
    go_on.send(()).unwrap();
    let error = saving.join().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("checkpoint s3://bucket/run/new.ckpt: it cannot be written: "), "{error}");
    assert!(error.contains("2 retries"), "{error}");
    server.restart();
    let mut io = server.io();
    assert_eq!(names(&mut io), [url("old.ckpt")]);
    assert!(io.load(&url("old.ckpt")).unwrap() == state_of(BYTES, 1.0));
    io.save(&state(3.0), &url("new.ckpt")).unwrap();
}

#[test]
fn a_program_that_is_killed_during_an_upload_leaves_the_previous_checkpoint() {
    if let Ok(endpoint) = std::env::var("KILLED_WHILE_IT_SAVES") {
        io_through(&endpoint).save(&state_of(BYTES, 2.0), &url("last.ckpt")).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(folder.path());
    server.io().save(&state_of(BYTES, 1.0), &url("last.ckpt")).unwrap();
    let (proxy, reached, _held) = interrupted(&server, Moment::Part(7));
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "s3::a_program_that_is_killed_during_an_upload_leaves_the_previous_checkpoint"])
        .env("KILLED_WHILE_IT_SAVES", &proxy)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    reached.recv().unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    assert!(server.parts() > 0, "of an upload that nobody sees");
    assert_eq!(names(&mut server.io()), [url("last.ckpt")]);
    assert!(server.io().load(&url("last.ckpt")).unwrap() == state_of(BYTES, 1.0));
    server.io().save(&state_of(BYTES, 3.0), &url("last.ckpt")).unwrap();
    assert!(server.io().load(&url("last.ckpt")).unwrap() == state_of(BYTES, 3.0));
}

#[test]
fn the_environment_says_where_the_server_is() {
    if std::env::var("AWS_ENDPOINT_URL").is_ok() {
        let mut io = AsyncCheckpointIo::new(DefaultCheckpointIo::new());
        let commit = Commit { path: url("a.ckpt"), ..Commit::default() };
        io.commit(&state(1.0), &commit).unwrap();
        assert!(io.wait().is_none());
        assert!(io.load(&url("a.ckpt")).unwrap() == state(1.0));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(folder.path());
    let program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "s3::the_environment_says_where_the_server_is"])
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", server.port))
        .envs([
            ("AWS_ACCESS_KEY_ID", "test-key"),
            ("AWS_SECRET_ACCESS_KEY", "test-secret"),
            ("AWS_REGION", "eu-west-1"),
        ])
        .output()
        .unwrap();
    assert!(program.status.success(), "{}", String::from_utf8_lossy(&program.stdout));
    assert!(folder.path().join("bucket/run/a.ckpt").exists());
}

#[test]
fn refusals_say_what_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(folder.path());
    let mut io = server.io().with_config("aws_secret_access_key", "wrong").upload_attempts(1_usize);
    for error in [
        io.save(&state(1.0), &url("a.ckpt")),
        io.save(&state_of(BYTES, 1.0), &url("a.ckpt")),
        io.load(&url("a.ckpt")).map(drop),
        io.list(Path::new("s3://bucket")).map(drop),
        io.alias(&url("a.ckpt"), &Alias { path: url("b.ckpt"), link: false }),
        io.remove(&url("a.ckpt")),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("s3://bucket rejected the credentials ("), "{error}");
        assert!(error.contains("check AWS_ACCESS_KEY_ID"), "{error}");
    }

    let port = serve(|_, _, client| {
        let body = "<Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message></Error>";
        let length = body.len();
        let _ = write!(client, "HTTP/1.1 404 Not Found\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    });
    let mut io = io_of(&format!("http://127.0.0.1:{port}"));
    for value in [state(1.0), state_of(BYTES, 1.0)] {
        let error = io.save(&value, &url("a.ckpt")).unwrap_err().to_string();
        let expected = "s3://bucket does not exist (NoSuchBucket: The bucket does not exist); create the bucket, or choose another";
        assert!(error.ends_with(expected), "{error}");
    }
}

/// Between a client and the server: every third request is answered with an error.
#[test]
fn a_server_that_is_overloaded_at_times_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(folder.path());
    let (port, refused) = (server.port, Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&refused);
    let proxy = serve(move |number, head, client| {
        if number % 3 == 0 {
            counter.fetch_add(1, Ordering::SeqCst);
            return status(client, ["503 Slow Down", "500 Internal Server Error"][number % 2]);
        }
        crate::common::forward(port, head, client);
    });
    let mut io = io_through(&format!("http://127.0.0.1:{proxy}"));
    let saved = state_of(BYTES, 4.0);
    io.save(&saved, &url("a.ckpt")).unwrap();
    io.alias(&url("a.ckpt"), &Alias { path: url("b.ckpt"), link: false }).unwrap();
    assert!(io.load(&url("b.ckpt")).unwrap() == saved);
    assert!(refused.load(Ordering::SeqCst) >= 4, "{refused:?}");
}

#[test]
fn a_server_that_says_nothing_is_an_error() {
    let port = serve(|_, _, _| std::thread::sleep(Duration::from_secs(30)));
    let mut io =
        io_of(&format!("http://127.0.0.1:{port}")).retry(quick_retries(1)).request_timeout(Duration::from_millis(200));
    for error in [
        io.save(&large_state(1.0), &url("a.ckpt")),
        io.load(&url("a.ckpt")).map(drop),
        io.exists(&url("a.ckpt")).map(drop),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("checkpoint s3://bucket/run/a.ckpt: it cannot be "), "{error}");
        assert!(error.contains("1 retries") && error.contains("timed out"), "{error}");
    }
}
