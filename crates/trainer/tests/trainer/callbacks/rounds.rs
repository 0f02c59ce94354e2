//! A run that is resumed from a checkpoint that was written before others: those are the run's all the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fulgurite::callbacks::{LambdaCallback, SaveLast};
use fulgurite::prelude::*;
use fulgurite::torch::serialization;

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// `<file>@<step in it>` of a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| format!("{}@{}", path.file_stem().unwrap().display(), step_in(&path)))
        .collect();
    files.sort();
    files
}

fn step_in(path: &Path) -> i64 {
    serialization::load(path).unwrap().as_dict().unwrap().int("global_step").unwrap()
}

/// Ends within an epoch, as a run does whose time is over: `interrupted.ckpt` is written before the end's checkpoints.
fn round(root: &Path, number: u32, checkpoint: ModelCheckpoint, ckpt_path: &str) -> u64 {
    let slow = LambdaCallback::new().on_train_batch_end(|_, _, _, _, _| {
        std::thread::sleep(Duration::from_millis(10));
        Ok(())
    });
    let builder = quiet(root).max_epochs(Maximum::Unlimited).max_time(Duration::from_millis(200) * number);
    let mut trainer = builder.callback(slow).callback(checkpoint).build().unwrap();
    _ = trainer.ckpt_path(ckpt_path).fit(&mut Scripted::new(&[1.0]), (batches(1000), batches(1))).unwrap();
    trainer.state().global_step()
}

#[test]
fn four_rounds_leave_one_of_each() {
    for (ckpt_path, in_default_folder) in [("auto", true), ("auto", false), ("last", false)] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path().join("checkpoints");
        let mut steps = 0;
        for number in 1..=4 {
            let checkpoint = || ModelCheckpoint::new().save_last(SaveLast::Copy);
            let dirpath = if in_default_folder { checkpoint() } else { checkpoint().dirpath(&checkpoints) };
            let reached = round(folder.path(), number, dirpath, ckpt_path);
            assert!(reached > steps, "{ckpt_path}: {:?}", files(&checkpoints));
            steps = reached;
            let one_of_each =
                [format!("epoch=0-step={steps}@{steps}"), format!("interrupted@{steps}"), format!("last@{steps}")];
            assert_eq!(files(&checkpoints), one_of_each, "{ckpt_path}, round {number}");
        }
    }
}

/// One callback keeps every epoch elsewhere, for going back.
fn fit(root: &Path, checkpoint: ModelCheckpoint, losses: &[f64], epochs: u64, from: Option<PathBuf>) -> Trainer {
    let every = ModelCheckpoint::monitor("epoch").save_top_k(Maximum::Unlimited).dirpath(root.join("every"));
    let builder = quiet(root).max_epochs(epochs).callback(every).callback(checkpoint.dirpath(root.join("best")));
    let mut trainer = builder.build().unwrap();
    _ = trainer.ckpt_path(from).fit(&mut Scripted::new(losses), (batches(2), batches(1))).unwrap();
    trainer
}

#[test]
fn going_back_replaces_what_was_written_since() {
    let folder = tempfile::tempdir().unwrap();
    let (root, best) = (folder.path(), folder.path().join("best"));
    let latest = || ModelCheckpoint::new().save_last(SaveLast::Copy);
    fit(root, latest(), &[1.0], 3, None);
    assert_eq!(files(&best), ["epoch=2-step=6@6", "last@6"]);
    // To the end of the first epoch, and on to the second, whose name was used before; and then further.
    let first = || Some(root.join("every/epoch=0-step=2.ckpt"));
    let trainer = fit(root, latest(), &[1.0], 2, first());
    assert_eq!(files(&best), ["epoch=1-step=4@4", "last@4"]);
    let said = trainer.state().console().contents();
    let told = said.lines().filter(|line| line.contains("what it wrote after that is replaced"));
    let told: Vec<&str> =
        told.filter_map(|line| line.split_once("continues: ")?.1.split_once(';')).map(|(n, _)| n).collect();
    assert_eq!(told, ["epoch=2-step=6.ckpt, epoch=1-step=4.ckpt", "epoch=2-step=6.ckpt"], "{said}");
    fit(root, latest(), &[1.0], 4, first());
    assert_eq!(files(&best), ["epoch=3-step=8@8", "last@8"]);
    assert_eq!(files(&root.join("every")).len(), 4);
}

#[test]
fn the_best_of_what_was_written_since_keeps_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (root, best) = (folder.path(), folder.path().join("best"));
    let ranked = || ModelCheckpoint::monitor("val_loss").save_top_k(2).save_last(SaveLast::Copy);
    fit(root, ranked(), &[5.0, 1.0, 4.0], 3, None);
    assert_eq!(files(&best), ["epoch=1-step=4@4", "epoch=2-step=6@6", "last@6"]);
    let first = || Some(root.join("every/epoch=0-step=2.ckpt"));
    // The second epoch again, and worse; the third again, and better.
    let trainer = fit(root, ranked(), &[6.0, 3.0], 3, first());
    assert_eq!(files(&best), ["epoch=1-step=4@4", "epoch=2-step=6@6", "last@6"]);
    assert_eq!(scores(&trainer), [1.0, 3.0]);
}

/// Of the second `ModelCheckpoint`, in order.
fn scores(trainer: &Trainer) -> Vec<f64> {
    let mut scores: Vec<f64> = trainer
        .callbacks::<ModelCheckpoint>()
        .nth(1)
        .unwrap()
        .best_k_models()
        .iter()
        .map(|(_, score)| *score)
        .collect();
    scores.sort_by(f64::total_cmp);
    scores
}

/// As Lightning has it: a run that begins anew leaves the files of earlier ones alone, and numbers its own.
#[test]
fn runs_of_one_folder_that_begin_anew_keep_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let latest = || ModelCheckpoint::new().save_last(SaveLast::Copy);
    for _ in 0..2 {
        fit(folder.path(), latest(), &[1.0], 1, None);
    }
    let best = folder.path().join("best");
    assert_eq!(files(&best), ["epoch=0-step=2-v1@2", "epoch=0-step=2@2", "last-v1@2", "last@2"]);
    // One that goes on from one of them replaces that one's.
    fit(folder.path(), latest(), &[1.0], 2, Some(best.join("last-v1.ckpt")));
    assert_eq!(files(&best), ["epoch=0-step=2@2", "epoch=1-step=4@4", "last-v1@4", "last@2"]);
}
