//! A server of this process, which can be told to fail.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What happens to a request instead of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// This status, and `Retry-After`.
    Status(u16, Option<u64>),
    /// The connection is closed at once.
    Reset,
    /// Nothing comes.
    Hang,
    /// The request is carried out, and half of the answer comes.
    Half,
    /// No fault: for one in the middle.
    None,
}

/// A request.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub key: Option<String>,
    pub body: Vec<u8>,
}

/// What answers requests.
pub trait Backend: Send + 'static {
    /// The status and the answer. `url` is where the server is.
    fn answer(&mut self, request: &Request, url: &str) -> (u16, String);
}

/// What a server has, and how it fails.
#[derive(Debug, Default)]
pub struct Shared<B> {
    pub backend: B,
    pub faults: VecDeque<Fault>,
    /// This happens to all requests.
    pub down: Option<Fault>,
    /// The `Authorization` that is wanted.
    pub key: Option<String>,
    /// Method and path of each request.
    pub requests: Vec<String>,
}

/// A server on a free port of this machine.
pub struct Server<B> {
    pub url: String,
    shared: Arc<Mutex<Shared<B>>>,
}

impl<B: Backend + Default> Server<B> {
    pub fn start() -> Server<B> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared {
            backend: B::default(),
            faults: VecDeque::new(),
            down: None,
            key: None,
            requests: Vec::new(),
        }));
        let (held, own) = (Arc::clone(&shared), url.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (held, own) = (Arc::clone(&held), own.clone());
                thread::spawn(move || serve(stream, &held, &own));
            }
        });
        Server { url, shared }
    }

    pub fn shared(&self) -> MutexGuard<'_, Shared<B>> {
        lock(&self.shared)
    }

    /// The next requests fail.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared().faults.extend(faults);
    }
}

fn lock<B>(shared: &Mutex<Shared<B>>) -> MutexGuard<'_, Shared<B>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve<B: Backend>(mut stream: TcpStream, shared: &Mutex<Shared<B>>, url: &str) {
    let Some(request) = read(&stream) else { return };
    let mut shared = lock(shared);
    shared.requests.push(format!("{} {}", request.method, request.path));
    let fault = shared.down.clone().or_else(|| shared.faults.pop_front()).unwrap_or(Fault::None);
    match fault {
        Fault::Reset => return,
        Fault::Hang => {
            drop(shared);
            thread::sleep(Duration::from_secs(5));
            return;
        }
        Fault::Status(status, retry_after) => {
            drop(shared);
            let header = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 0\r\n{header}\r\n");
            return;
        }
        Fault::Half | Fault::None => {}
    }
    let is_denied = request.method == "POST" && shared.key.is_some() && shared.key != request.key;
    let (status, text) =
        if is_denied { (401, "{\"error\": \"who?\"}".into()) } else { shared.backend.answer(&request, url) };
    drop(shared);
    let sent = if fault == Fault::Half { &text[..text.len() / 2] } else { &text };
    let length = text.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{sent}"
    );
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut parts = line.split_whitespace().map(str::to_owned);
    let (method, path) = (parts.next()?, parts.next()?);
    let (mut length, mut key) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => key = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, key, body })
}
