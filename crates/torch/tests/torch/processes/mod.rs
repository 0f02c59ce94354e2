//! Ranks as processes: a test program that starts itself again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use fulgurite_torch::distributed::{GroupOptions, ProcessGroup, Store, TcpStoreOptions};

const RANK: &str = "FULGURITE_TEST_RANK";
const PORT: &str = "FULGURITE_TEST_PORT";
const FOLDER: &str = "FULGURITE_TEST_FOLDER";

/// What each rank says when `body` runs as `ranks` processes; in one of those processes, runs it and gives nothing.
pub(crate) fn run(test: &str, ranks: usize, body: impl Fn(&ProcessGroup) -> Vec<String>) -> Option<Vec<Vec<String>>> {
    if let Ok(rank) = env::var(RANK) {
        let rank: usize = rank.parse().unwrap();
        let port = env::var(PORT).unwrap().parse().unwrap();
        let store = Store::tcp(TcpStoreOptions { host: "127.0.0.1".into(), port, ..Default::default() }).unwrap();
        let options = GroupOptions { timeout: Duration::from_secs(20), ..Default::default() };
        let said = body(&ProcessGroup::new(&store, rank, ranks, &options).unwrap());
        let path = Path::new(&env::var(FOLDER).unwrap()).join(rank.to_string());
        fs::write(path, serde_json::to_string(&said).unwrap()).unwrap();
        return None;
    }
    let options = TcpStoreOptions { host: "127.0.0.1".into(), port: 0, is_server: true, ..Default::default() };
    let store = Store::tcp(options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..ranks)
        .map(|rank| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(RANK, rank.to_string())
                .env(PORT, store.port().unwrap().to_string())
                .env(FOLDER, folder.path())
                .env("OMP_NUM_THREADS", "1")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let said = children.into_iter().enumerate().map(|(rank, child)| {
        let output = child.wait_with_output().unwrap();
        let text = fs::read_to_string(folder.path().join(rank.to_string()));
        let text = text.unwrap_or_else(|_| panic!("rank {rank}: {}", String::from_utf8_lossy(&output.stderr)));
        serde_json::from_str(&text).unwrap()
    });
    Some(said.collect())
}
