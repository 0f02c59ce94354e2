//! A trainer that takes part in a search.

use std::path::Path;

use fulgurite::callbacks::LambdaCallback;
use fulgurite::prelude::*;
use fulgurite::search::{
    Direction, MedianOptions, Pruner, PrunerConfig, PruningCallback, RandomSampler, SearchSpace, Study, TrialState,
};
use fulgurite::{Console, TrainerBuilder};

use crate::callbacks::scripted::{Scripted, batches, quiet};

fn study(root: &Path) -> Study {
    Study::open(root.join("journal.log"), "scripted", Direction::Minimize).unwrap()
}

/// Begins a trial of a study in which five have come from 1.0 to 0.5.
fn begin(root: &Path) -> usize {
    let mut study = study(root);
    let mut ask = || study.ask(&mut RandomSampler::new(Some(0)), &SearchSpace::new()).unwrap().unwrap();
    let trials: Vec<usize> = (0..6).map(|_| ask()).collect();
    for trial in &trials[..5] {
        for (epoch, value) in [1.0, 0.75, 0.5, 0.5].into_iter().enumerate() {
            study.report(*trial, epoch as i64, value).unwrap();
        }
        study.tell(*trial, TrialState::Complete, Some(0.5)).unwrap();
    }
    trials[5]
}

fn pruning(root: &Path, trial: usize, monitor: &str) -> TrainerBuilder {
    let median = Pruner::new(&PrunerConfig::Median(MedianOptions::default())).unwrap();
    let callback = PruningCallback::new(study(root), trial, monitor).pruner(median);
    quiet(root).max_epochs(4).enable_checkpointing(false).callback(callback)
}

/// How the trial has ended, with which value, and the epochs that it reported.
fn ended(root: &Path, trial: usize) -> (TrialState, Option<f64>, usize) {
    let study = study(root);
    let trial = study.trial(trial).unwrap();
    (trial.state, trial.value, trial.intermediate_values.len())
}

#[test]
fn a_trial_that_is_worse_than_the_median_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let trial = begin(folder.path());
    let mut trainer = pruning(folder.path(), trial, "val_loss").build().unwrap();
    // As good as the others at first.
    let outcome = trainer.fit(&mut Scripted::new(&[1.0, 0.8, 0.7, 0.6]), (batches(2), batches(1))).unwrap();
    assert!(matches!(&outcome, Outcome::Stopped(reason) if reason.contains("pruned at epoch 1")), "{outcome:?}");
    assert!(trainer.callback::<PruningCallback>().unwrap().is_pruned());
    let (state, value, reports) = ended(folder.path(), trial);
    assert_eq!((state, value.map(|value| value as f32), reports), (TrialState::Pruned, Some(0.8), 2));
}

#[test]
fn a_trial_that_is_better_is_complete_and_one_that_fails_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let trial = begin(folder.path());
    let mut trainer = pruning(folder.path(), trial, "val_loss").build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[0.5, 0.25, 0.25, 0.25]), (batches(2), batches(1))).unwrap();
    assert_eq!(ended(folder.path(), trial), (TrialState::Complete, Some(0.25), 4));

    let folder = tempfile::tempdir().unwrap();
    let trial = begin(folder.path());
    let failing = LambdaCallback::new().on_train_epoch_start(|trainer, _| match trainer.current_epoch() {
        1 => Err("it was told to fail".into()),
        _ => Ok(()),
    });
    let mut trainer = pruning(folder.path(), trial, "val_loss").callback(failing).build().unwrap();
    assert!(trainer.fit(&mut Scripted::new(&[0.5, 0.25]), (batches(2), batches(1))).is_err());
    assert_eq!(ended(folder.path(), trial), (TrialState::Fail, None, 1));
}

#[test]
fn a_value_that_never_comes_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let (trial, console) = (begin(folder.path()), Console::memory());
    let builder = pruning(folder.path(), trial, "val_lossy").console(console.clone());
    _ = builder.build().unwrap().fit(&mut Scripted::new(&[0.5]), (batches(2), batches(1))).unwrap();
    let said = console.contents();
    assert!(
        said.contains("monitors `val_lossy`, which was not logged; there are: ") && said.contains("val_loss"),
        "{said}"
    );
    assert_eq!(ended(folder.path(), trial), (TrialState::Fail, None, 0));
}
