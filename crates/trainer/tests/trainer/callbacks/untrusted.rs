//! Untrusted checkpoints: only files of this run are removed or overwritten.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fulgurite::callbacks::{OnExceptionCheckpoint, SaveLast};
use fulgurite::prelude::*;
use fulgurite::torch::serialization;

use crate::callbacks::scripted::{Scripted, batches, quiet};

const KEY: &str = "ModelCheckpoint{'monitor': 'val_loss', 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, 'train_time_interval': None}";

fn callback() -> ModelCheckpoint {
    ModelCheckpoint::monitor("val_loss").save_last(SaveLast::Copy)
}

/// Logs to `root`, and keeps its checkpoints beside the logs or in `dirpath`.
fn fit(root: &Path, dirpath: Option<&Path>, epochs: u64, ckpt_path: Option<&Path>) -> Trainer {
    let checkpoint = dirpath.map_or_else(callback, |dirpath| callback().dirpath(dirpath));
    let builder = quiet(root).logger(CsvLogger::new(root)).max_epochs(epochs).callback(checkpoint);
    let mut trainer = builder.log_every_n_steps(1).build().unwrap();
    _ = trainer.ckpt_path(ckpt_path).fit(&mut Scripted::new(&[5.0, 4.0, 3.0, 2.0]), (batches(3), batches(1))).unwrap();
    trainer
}

/// Every file below a folder, and what is in it.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    all
}

#[track_caller]
fn assert_untouched(before: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, bytes) in before {
        assert!(fs::read(path).is_ok_and(|now| now == *bytes), "{} was touched", path.display());
    }
}

/// A checkpoint of another run in `folder/checkpoints`, changed by `change`.
fn untrusted(folder: &Path, change: impl FnOnce(&mut Dict)) -> PathBuf {
    let elsewhere = tempfile::tempdir().unwrap();
    let best = fit(elsewhere.path(), None, 1, None).best_model_path().unwrap();
    let Value::Dict(mut checkpoint) = serialization::load(best).unwrap() else { panic!() };
    change(&mut checkpoint);
    let path = folder.join("checkpoints/epoch=0-step=3.ckpt");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    serialization::save(&path, &Value::Dict(checkpoint)).unwrap();
    path
}

fn entry<'c>(checkpoint: &'c mut Dict, keys: &[&str]) -> &'c mut Dict {
    keys.iter().fold(checkpoint, |dict, key| match dict.get_mut(key) {
        Some(Value::Dict(inner)) => inner,
        _ => panic!("no {key}"),
    })
}

fn set_versions(checkpoint: &mut Dict, version: &str) {
    entry(checkpoint, &["fulgurite"]).set("log_versions", vec![version]);
}

#[test]
fn a_version_is_no_way_to_the_logs_of_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let (root, victim) = (folder.path().join("mine"), folder.path().join("victim"));
    fit(&root, None, 2, None);
    fit(&victim, None, 2, None);
    fs::write(victim.join("lightning_logs/version_0/config.yaml"), "precious").unwrap();
    let before: BTreeMap<_, _> = contents(&root).into_iter().chain(contents(&victim)).collect();
    let absolute = victim.join("lightning_logs/version_0");
    let long = "x".repeat(300);
    let versions = [
        absolute.to_str().unwrap(),
        "../../victim/lightning_logs/version_0",
        "..",
        "",
        "a/b",
        "a\0b",
        &long,
        "version_0",
    ];
    for (index, version) in versions.into_iter().enumerate() {
        // A folder that is called as one of this run's.
        let theirs = folder.path().join(format!("theirs_{index}/version_0"));
        untrusted(&theirs, |checkpoint| set_versions(checkpoint, version));
        let trainer = fit(&root, None, 3, Some(&theirs));
        assert_untouched(&before);
        let logged = trainer.callback::<ModelCheckpoint>().unwrap().checkpoint_dir().unwrap().to_path_buf();
        let new = format!("lightning_logs/version_{}/checkpoints", index + 1);
        assert!(logged.ends_with(&new), "{version:?}: {}", logged.display());
    }
    // One of this run's own goes on in its place.
    let own = root.join("lightning_logs/version_0");
    let trainer = fit(&root, None, 3, Some(&own));
    assert!(trainer.best_model_path().unwrap().starts_with(&own));
}

#[cfg(unix)]
#[test]
fn a_link_is_no_way_to_the_logs_of_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let (root, victim) = (folder.path().join("mine"), folder.path().join("victim"));
    fit(&victim, None, 2, None);
    fs::create_dir_all(root.join("lightning_logs")).unwrap();
    let link = root.join("lightning_logs/version_0");
    std::os::unix::fs::symlink(victim.join("lightning_logs/version_0"), &link).unwrap();
    let before = contents(&victim);
    fit(&root, None, 3, Some(&link));
    assert_untouched(&before);
    assert!(root.join("lightning_logs/version_1/metrics.csv").exists());
}

/// All that a checkpoint can say of files, in the way of a run that keeps its checkpoints in `dirpath`.
fn claim(checkpoint: &mut Dict, dirpath: &Path, files: &[PathBuf]) {
    let text = |path: &Path| Value::from(path.to_str().unwrap());
    let ranking: Dict = files.iter().map(|path| (text(path), Value::from(Tensor::from(9.0)))).collect();
    let state = entry(checkpoint, &["callbacks", KEY]);
    state.set("dirpath", text(dirpath));
    state.set("best_k_models", ranking);
    for key in ["best_model_path", "last_model_path", "kth_best_model_path"] {
        state.set(key, text(&files[0]));
    }
    state.set("best_model_score", Tensor::from(9.0));
}

#[test]
fn nothing_is_removed_that_the_run_did_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let (own, other) = (root.join("own"), root.join("other"));
    // Real checkpoints of other runs, in the folder and elsewhere, and a text.
    fit(&root, Some(&own), 1, None);
    fit(&root, Some(&other), 1, None);
    fs::write(own.join("notes.ckpt"), "precious").unwrap();
    fs::write(own.join("epoch=1-step=6.ckpt"), "precious").unwrap();
    let before: BTreeMap<_, _> = contents(&own).into_iter().chain(contents(&other)).collect();
    let mut targets: Vec<PathBuf> = before.keys().cloned().collect();
    targets.extend([own.join("../other/last.ckpt"), own.join("../own/last.ckpt"), PathBuf::from("/etc/hostname")]);
    for (index, target) in targets.iter().enumerate() {
        // In a folder of its own, and in the run's.
        for place in [root.join(format!("theirs_{index}")), own.join(format!("theirs_{index}"))] {
            let path = untrusted(&place, |checkpoint| claim(checkpoint, &own, std::slice::from_ref(target)));
            for ckpt_path in [path.as_path(), place.as_path()] {
                fit(&root, Some(&own), 3, Some(ckpt_path));
                assert_untouched(&before);
            }
        }
    }
}

#[test]
fn what_an_error_is_said_to_have_left_is_removed_only_if_it_is_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("on_exception.ckpt");
    fs::write(&notes, "precious").unwrap();
    let builder = quiet(folder.path()).max_epochs(1).callback(OnExceptionCheckpoint::new(folder.path()));
    let mut trainer = builder.build().unwrap();
    // A text is no checkpoint to resume from, which is an error; the one that is named is.
    _ = trainer
        .ckpt_path(untrusted(&folder.path().join("from"), |_| {}))
        .fit(&mut Scripted::new(&[1.0]), (batches(3), batches(1)))
        .unwrap();
    assert_eq!(fs::read_to_string(&notes).unwrap(), "precious");
}
