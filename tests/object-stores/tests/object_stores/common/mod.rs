//! What the tests of this folder share.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fulgurite_fabric::ObjectStoreCheckpointIo;
use fulgurite_fabric::object_store::{BackoffConfig, RetryConfig};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value};

/// A state of a few numbers.
pub(crate) fn state(value: f64) -> Value {
    Value::Dict(Dict::new().with("weight", Tensor::full([8], value, (Kind::Float, Device::Cpu))).with("epoch", 3))
}

/// A state of one MiB.
pub(crate) fn large_state(value: f64) -> Value {
    state_of(1 << 20, value)
}

/// A state of so many bytes, in four tensors.
pub(crate) fn state_of(bytes: i64, value: f64) -> Value {
    let tensor = |i: i64| Tensor::arange(bytes / 16, (Kind::Float, Device::Cpu)) + value + i as f64;
    Value::Dict((0..4).map(|i| (format!("layer{i}").into(), tensor(i).into())).collect())
}

pub(crate) fn same(a: &Value, b: &Value) -> bool {
    a == b
}

/// Retries that do not take long.
pub(crate) fn quick_retries(retries: usize) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(20), max_backoff: Duration::from_millis(500), base: 2.0 };
    RetryConfig { backoff, max_retries: retries, retry_timeout: Duration::from_secs(60) }
}

/// The S3 server as a process, with one bucket, `bucket`.
pub(crate) struct S3Server {
    pub folder: PathBuf,
    pub port: u16,
    process: Child,
}

impl S3Server {
    pub(crate) fn start(folder: &Path) -> S3Server {
        std::fs::create_dir_all(folder.join("bucket")).unwrap();
        let (process, port) = launch(folder, 0);
        S3Server { folder: folder.into(), port, process }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// At the address it had.
    pub(crate) fn restart(&mut self) {
        self.process = launch(&self.folder, self.port).0;
    }

    pub(crate) fn io(&self) -> ObjectStoreCheckpointIo {
        io_of(&format!("http://127.0.0.1:{}", self.port))
    }

    /// How many parts of unfinished uploads there are.
    pub(crate) fn parts(&self) -> usize {
        let names = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".upload_id-")).count()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(folder: &Path, port: u16) -> (Child, u16) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_fulgurite-object-stores"))
        .arg(folder)
        .arg(port.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (process, line.trim().parse().unwrap())
}

/// A client of the server at `endpoint`.
pub(crate) fn io_of(endpoint: &str) -> ObjectStoreCheckpointIo {
    ObjectStoreCheckpointIo::new()
        .with_config("aws_endpoint_url", endpoint)
        .with_config("aws_access_key_id", "test-key")
        .with_config("aws_secret_access_key", "test-secret")
        .retry(quick_retries(10))
        .part_size(5_usize << 20)
}

/// Serves every connection with `answer`, which gets its number, from 0 on, and the request's head.
pub(crate) fn serve(answer: impl Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for (number, socket) in listener.incoming().enumerate() {
            let (mut socket, answer) = (socket.unwrap(), std::sync::Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|read| read > 0) {
                    head.push(byte[0]);
                }
                answer(number, &String::from_utf8_lossy(&head), &mut socket);
                let _ = socket.flush();
            });
        }
    });
    port
}

/// An answer without a body.
pub(crate) fn status(socket: &mut TcpStream, status: &str) {
    let _ = write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

/// Sends a request on to a server, and what that answers back.
pub(crate) fn forward(port: u16, head: &str, client: &mut TcpStream) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut to_server, mut from_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let head = head.to_owned();
    std::thread::spawn(move || {
        let _ = to_server.write_all(head.as_bytes()).and_then(|()| std::io::copy(&mut from_client, &mut to_server));
        let _ = to_server.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}
