//! The checkpoints of a run as files of MLflow, where Lightning puts them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fulgurite_optim::Mode;
use fulgurite_torch::{Dict, Value};
use fulgurite_trackers::{Entry, run_id};

use crate::checkpoint_io::is_url;
use crate::loggers::CheckpointNews;
use crate::loggers::yaml::to_yaml;

/// Which checkpoints were sent, and when these were written: `last.ckpt` is written again and again.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    sent: HashMap<PathBuf, SystemTime>,
    /// What each callback wrote last.
    news: Vec<CheckpointNews>,
}

impl Checkpoints {
    /// Notes what a callback has written.
    pub(super) fn note(&mut self, news: &CheckpointNews) {
        self.news.retain(|held| held.callback != news.callback);
        self.news.push(news.clone());
    }

    /// The files that the callbacks keep and that were not sent, the oldest first. With `waiting`, a folder in which they get a
    /// second name until they are sent, because the callback may remove them before.
    pub(super) fn unsent(&mut self, waiting: Option<&Path>) -> Vec<Entry> {
        let mut files = Vec::new();
        for news in &self.news {
            for (path, score) in kept(news) {
                // A file that is gone was replaced by a better one.
                let Some(modified) = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok() else {
                    continue;
                };
                if self.sent.get(&path).is_none_or(|sent| *sent < modified) {
                    files.push((modified, path, score, news));
                }
            }
        }
        files.sort_by_key(|(modified, ..)| *modified);
        let mut entries = Vec::new();
        for (modified, path, score, news) in files {
            let linked = waiting.and_then(|waiting| link(&path, waiting));
            entries.push(as_artifact(&path, linked, score, news));
            self.sent.insert(path, modified);
        }
        entries
    }

    /// A checkpoint that was written and cannot be uploaded from here.
    pub(super) fn is_out_of_reach(news: &CheckpointNews) -> bool {
        is_url(&news.path)
    }
}

/// The last, the best, and those kept by their value: each once, with its value.
fn kept(news: &CheckpointNews) -> Vec<(PathBuf, Option<f64>)> {
    let mut kept: Vec<(PathBuf, Option<f64>)> = Vec::new();
    let last = news.last.iter().map(|path| (path, news.score));
    let best = news.best.iter().map(|path| (path, news.best_score));
    let best_k = news.best_k.iter().map(|(path, score)| (path, Some(*score)));
    for (path, score) in last.chain(best).chain(best_k) {
        match kept.iter_mut().find(|(other, _)| other == path) {
            Some((_, held)) => *held = score,
            None => kept.push((path.clone(), score)),
        }
    }
    kept
}

/// A second name for a file, which takes no space as long as the file is there. `None` where that is not possible, or if many
/// wait already: a server that is away must not fill the disk.
fn link(path: &Path, waiting: &Path) -> Option<PathBuf> {
    const MOST: usize = 8;
    fs::create_dir_all(waiting).ok()?;
    if fs::read_dir(waiting).ok()?.count() >= MOST {
        return None;
    }
    let linked = waiting.join(run_id());
    // A link to another file is not what is meant.
    fs::hard_link(path.canonicalize().ok()?, &linked).ok()?;
    Some(linked)
}

/// A folder with the file, what is known of it, and its aliases.
fn as_artifact(path: &Path, linked: Option<PathBuf>, score: Option<f64>, news: &CheckpointNews) -> Entry {
    let as_text = |name: Option<&OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
    let (folder, name) = (as_text(path.file_stem()), as_text(path.file_name()));
    let save_last = match (news.save_last, news.last_is_link) {
        (false, _) => Value::None,
        (true, false) => Value::Bool(true),
        (true, true) => "link".into(),
    };
    let callback = Dict::new()
        .with("monitor", news.monitor.clone())
        .with("mode", if news.mode == Mode::Min { "min" } else { "max" })
        .with("save_last", save_last)
        .with("save_top_k", news.save_top_k)
        .with("save_weights_only", news.save_weights_only)
        .with("_every_n_train_steps", news.every_n_train_steps);
    let metadata =
        Dict::new().with("score", score).with("original_filename", name.as_str()).with("Checkpoint", callback);
    let is_best = news.best.as_deref() == Some(path);
    let aliases = if is_best { "['latest', 'best']" } else { "['latest']" };
    let text = |file: &str, text: String| (format!("{folder}/{file}"), text);
    Entry::File {
        path: format!("{folder}/{name}"),
        remove: linked.is_some(),
        from: linked.unwrap_or_else(|| path.to_owned()),
        with: vec![text("metadata.yaml", to_yaml(&metadata)), text("aliases.txt", aliases.to_owned())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_sent_once_and_again_when_it_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a.ckpt", "b.ckpt", "last.ckpt"] {
            fs::write(path(name), name).unwrap();
        }
        let news = CheckpointNews {
            path: path("b.ckpt"),
            score: Some(0.5),
            last: Some(path("last.ckpt")),
            best: Some(path("b.ckpt")),
            best_score: Some(0.25),
            best_k: vec![(path("a.ckpt"), 0.75), (path("b.ckpt"), 0.25), (path("gone.ckpt"), 1.0)],
            monitor: Some("val_loss".into()),
            save_last: true,
            save_top_k: 3,
            ..CheckpointNews::default()
        };
        let mut checkpoints = Checkpoints::default();
        checkpoints.note(&news);
        checkpoints.note(&news);
        let entries = checkpoints.unsent(None);
        let texts = |name: &str| {
            let of_name = |entry: &Entry| match entry {
                Entry::File { path, with, from, remove: false, .. } if path == name => {
                    assert!(from.ends_with(name.rsplit('/').next().unwrap()));
                    Some(with.clone())
                }
                _ => None,
            };
            entries.iter().find_map(of_name).unwrap()
        };
        assert_eq!(entries.len(), 3);
        let aliases = |stem: &str, text: &str| (format!("{stem}/aliases.txt"), text.to_owned());
        assert_eq!(texts("b/b.ckpt")[1], aliases("b", "['latest', 'best']"));
        assert_eq!(texts("a/a.ckpt")[1], aliases("a", "['latest']"));
        let yaml = "Checkpoint:\n  _every_n_train_steps: 0\n  mode: min\n  monitor: val_loss\n  save_last: true\n  save_top_k: 3\n  save_weights_only: false\noriginal_filename: last.ckpt\nscore: 0.5\n";
        assert_eq!(texts("last/last.ckpt")[0], ("last/metadata.yaml".to_owned(), yaml.to_owned()));
        assert_eq!(checkpoints.unsent(None), []);
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        fs::File::options().write(true).open(path("last.ckpt")).unwrap().set_modified(later).unwrap();
        let waiting = folder.path().join("waiting");
        let again = checkpoints.unsent(Some(&waiting));
        let [Entry::File { from, remove: true, .. }] = again.as_slice() else { panic!("{again:?}") };
        fs::remove_file(path("last.ckpt")).unwrap();
        assert_eq!(fs::read(from).unwrap(), b"last.ckpt");
    }
}
