//! [`Server`]: a stand-in for the servers of experiment trackers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

/// How it takes values. That a run begins, and the first values, it answers at once, whatever the manner.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    Answers,
    AnswersLate,
    IsGone,
}

/// Parts of the addresses to which values are sent.
const VALUES: [&str; 4] = ["runs/log-batch", "file_stream", "bulk_log", "batch/logger/experiment/metric"];

/// How late it answers.
const LATE: Duration = Duration::from_secs(2);

/// A server on a free port of this machine, until the benchmark ends.
pub struct Server {
    pub address: String,
    asked: Arc<Counts>,
}

/// How often values were sent, to each of the addresses.
type Counts = [AtomicUsize; VALUES.len()];

impl Server {
    pub fn start(manner: Manner) -> Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let asked = Arc::new(Counts::default());
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // A connection that breaks is the client's to mend.
                thread::spawn(move || serve(&stream, manner, &counter).unwrap_or_default());
            }
        });
        Ok(Server { address, asked })
    }

    /// How often values were sent, by the logger that did it least often.
    pub fn values_asked(&self) -> usize {
        self.asked.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}

fn serve(mut stream: &TcpStream, manner: Manner, asked: &Counts) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        if let Some(service) = VALUES.iter().position(|path| request.contains(path))
            && asked[service].fetch_add(1, Ordering::Relaxed) > 0
        {
            match manner {
                Manner::Answers => {}
                Manner::AnswersLate => thread::sleep(LATE),
                Manner::IsGone => return Ok(()),
            }
        }
        let answer = answer().to_string();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
}

/// What every request is answered, since the names of the services do not meet.
fn answer() -> Value {
    json!({
        // MLflow.
        "experiment": { "experiment_id": "1", "lifecycle_stage": "active" },
        "run": {
            "info": { "run_id": "1", "experiment_id": "1", "artifact_uri": "mlflow-artifacts:/1", "lifecycle_stage": "active" },
            "data": {},
        },
        // W&B.
        "data": {
            "viewer": { "entity": "bench" },
            "model": { "bucket": null },
            "upsertBucket": {
                "bucket": { "id": "1", "name": "1", "project": { "name": "bench", "entity": { "name": "bench" } } },
                "inserted": true,
            },
        },
        // Trackio.
        "version": "0.43.0",
        "api_version": 1,
        // Comet.
        "runId": "1",
        "projectId": "1",
    })
}
