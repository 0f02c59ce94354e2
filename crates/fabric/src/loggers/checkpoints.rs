//! Which checkpoints loggers have to send.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fulgurite_optim::Mode;
use fulgurite_torch::{Dict, Value};
use fulgurite_trackers::run_id;

use super::CheckpointNews;
use crate::checkpoint_io::is_url;

/// Which checkpoints were sent, and when these were written: `last.ckpt` is written again and again.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    sent: HashMap<PathBuf, SystemTime>,
    /// What each callback wrote last.
    news: Vec<CheckpointNews>,
}

/// Where checkpoints get a second name until they are sent, because the callback may remove them before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub(super) folder: &'a Path,
    /// A server that is away must not fill the disk: so many wait at most.
    pub(super) most: usize,
}

/// A checkpoint that is kept, and was not sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unsent {
    pub(super) path: PathBuf,
    /// Its second name.
    pub(super) linked: Option<PathBuf>,
    pub(super) score: Option<f64>,
    pub(super) is_best: bool,
    news: CheckpointNews,
}

impl Checkpoints {
    /// Notes what a callback has written.
    pub(super) fn note(&mut self, news: &CheckpointNews) {
        self.news.retain(|held| held.callback != news.callback);
        self.news.push(news.clone());
    }

    /// The files that the callbacks keep and that were not sent, the oldest first.
    pub(super) fn unsent(&mut self, waiting: Option<Waiting>) -> Vec<Unsent> {
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
        let mut unsent = Vec::new();
        for (modified, path, score, news) in files {
            self.sent.insert(path.clone(), modified);
            let linked = waiting.and_then(|waiting| link(&path, waiting));
            let is_best = news.best.as_ref() == Some(&path);
            unsent.push(Unsent { path, linked, score, is_best, news: news.clone() });
        }
        unsent
    }

    /// A checkpoint that was written and cannot be uploaded from here.
    pub(super) fn is_out_of_reach(news: &CheckpointNews) -> bool {
        is_url(&news.path)
    }
}

impl Unsent {
    /// The name of the file, as the callback chose it.
    pub(super) fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What Lightning's loggers say of a checkpoint; the options of the callback under `class`.
    pub(super) fn metadata(&self, class: &str) -> Dict {
        let news = &self.news;
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
        Dict::new().with("score", self.score).with("original_filename", self.file_name()).with(class, callback)
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
/// wait already.
fn link(path: &Path, waiting: Waiting) -> Option<PathBuf> {
    fs::create_dir_all(waiting.folder).ok()?;
    if fs::read_dir(waiting.folder).ok()?.count() >= waiting.most {
        return None;
    }
    let linked = waiting.folder.join(run_id());
    // A link to another file is not what is meant.
    fs::hard_link(path.canonicalize().ok()?, &linked).ok()?;
    Some(linked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loggers::yaml::to_yaml;

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
        let unsent = checkpoints.unsent(None);
        let named = |name: &str| unsent.iter().find(|checkpoint| checkpoint.path == path(name)).unwrap();
        assert_eq!(unsent.len(), 3);
        assert!(unsent.iter().all(|checkpoint| checkpoint.linked.is_none()));
        assert_eq!(
            (named("b.ckpt").is_best, named("a.ckpt").is_best, named("a.ckpt").score),
            (true, false, Some(0.75))
        );
        let yaml = "Checkpoint:\n  _every_n_train_steps: 0\n  mode: min\n  monitor: val_loss\n  save_last: true\n  save_top_k: 3\n  save_weights_only: false\noriginal_filename: last.ckpt\nscore: 0.5\n";
        assert_eq!(to_yaml(&named("last.ckpt").metadata("Checkpoint")), yaml);
        assert_eq!(checkpoints.unsent(None), []);

        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        fs::File::options().write(true).open(path("last.ckpt")).unwrap().set_modified(later).unwrap();
        let waiting = folder.path().join("waiting");
        let again = checkpoints.unsent(Some(Waiting { folder: &waiting, most: 1 }));
        let [Unsent { linked: Some(linked), .. }] = again.as_slice() else { panic!("{again:?}") };
        fs::remove_file(path("last.ckpt")).unwrap();
        assert_eq!(fs::read(linked).unwrap(), b"last.ckpt");
        assert_eq!(link(&path("a.ckpt"), Waiting { folder: &waiting, most: 1 }), None);
    }
}
