//! Losses that jump.

use std::path::Path;

use fulgurite::callbacks::{SpikeDetection, TrainingSpike};
use fulgurite::config::Configurable;
use fulgurite::prelude::*;

use crate::callbacks::scripted::quiet;
use crate::callbacks::watched::{SKIP, Watched, values, watch};

const NAN: f64 = f64::NAN;

/// The batch at which a run over these losses ends; `None` if it does not.
fn spike(detection: SpikeDetection, losses: &[f64]) -> Option<TrainingSpike> {
    let folder = tempfile::tempdir().unwrap();
    let run = watch(detection, losses, folder.path());
    match run.outcome {
        Ok(_) => None,
        Err(Error::Hook { source, .. }) => Some(source.downcast_ref::<TrainingSpike>().unwrap().clone()),
        Err(other) => panic!("{other}"),
    }
}

fn at(detection: SpikeDetection, losses: &[f64]) -> Option<usize> {
    spike(detection, losses).map(|spike| spike.batch_idx)
}

#[test]
fn a_spike_is_worse_than_the_last_loss_and_far_from_the_mean() {
    let new = SpikeDetection::new;
    assert_eq!(at(new(), &[1.0, 1.1, 2.9, 1.0]), None, "less than twice the mean away from it");
    assert_eq!(at(new(), &[1.0, 1.0, 3.0, 1.0]), Some(2));
    assert_eq!(at(new(), &[9.0, 0.1, 0.1]), None, "better is never a spike");
    assert_eq!(at(new().mode(Mode::Max), &[9.0, 1.0]), None, "0.9 of the mean");
    assert_eq!(at(new().mode(Mode::Max).rtol(0.5), &[9.0, 1.0]), Some(1));
    assert_eq!(at(new().rtol(None), &[1.0, 1.01]), Some(1), "any worse loss");
    assert_eq!(at(new().rtol(None).atol(0.5), &[1.0, 1.4, 1.8]), Some(2));
    assert_eq!(at(new().atol(5.0), &[1.0, 4.0, 9.0]), Some(2), "both must be exceeded");
    assert_eq!(at(new().warmup(3), &[1.0, 9.0, 1.0, 99.0]), Some(3));
    assert_eq!(at(new().window(1), &[1.0, 2.0, 4.0, 8.0]), None, "each is one mean away");
    assert_eq!(at(new().window(3), &[1.0, 2.0, 4.0, 8.0]), Some(3));
}

#[test]
fn a_loss_that_is_not_finite_is_a_spike_and_never_part_of_the_mean() {
    let new = SpikeDetection::new;
    assert_eq!(at(new(), &[1.0, NAN]), Some(1));
    assert_eq!(at(new().finite_only(false), &[1.0, NAN, 1.0, 2.9, 1.0, 9.0]), Some(5));
    assert_eq!(at(new(), &[NAN, 1.0, 1.5, 1.0]), None, "the first is not looked at");
    let spike = spike(new(), &[1.0, 2.0, f64::INFINITY]).unwrap();
    assert_eq!((spike.mean, spike.loss, spike.batches), (1.5, f64::INFINITY, vec![1, 2]));
}

/// Fits with checkpoints after every step; returns the batches noted in the file, and the error.
fn fit(root: &Path, losses: &[f64], from: Option<&Path>) -> (String, Option<String>) {
    let checkpoint =
        ModelCheckpoint::new().dirpath(root).filename("{step}").save_top_k(Maximum::Unlimited).every_n_train_steps(1);
    let builder = quiet(root).max_epochs(1).callback(checkpoint).callback(SpikeDetection::new());
    let mut trainer = builder.build().unwrap();
    let outcome = trainer.ckpt_path(from).fit(&mut Watched::new(), Loaders::from(values(losses)));
    let noted = std::fs::read_to_string(root.join("skip_batches.json")).unwrap_or_default();
    (noted, outcome.err().map(|error| error.to_string()))
}

#[test]
fn the_batches_are_noted_and_a_resumed_run_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (noted, error) = fit(root, &[1.0, 1.0, 50.0, 1.0, 1.0], None);
    assert_eq!(noted, "[\n    1,\n    2\n]");
    let error = error.unwrap();
    assert!(error.starts_with("SpikeDetection::on_train_batch_end failed (epoch 0, batch 2): training spike: the loss of batch 2 is 50, after a running mean of 1;"), "{error}");
    assert!(error.contains("skip_batches.json. Resume from a checkpoint written before them"), "{error}");

    // From after the first batch, without the two: the running mean is still 1, so 30 is a spike at once.
    let from = root.join("step=1.ckpt");
    let (noted, error) = fit(root, &[1.0, SKIP, SKIP, 30.0, 1.0], Some(&from));
    assert!(error.unwrap().contains("the loss of batch 3 is 30, after a running mean of 1;"));
    assert_eq!(noted, "[\n    1,\n    2,\n    2,\n    3\n]");

    let (noted, error) = fit(root, &[1.0, SKIP, SKIP, SKIP, 1.0], Some(&from));
    assert_eq!((noted.matches(',').count(), error), (3, None));
    // A new run is not told what another one noted.
    assert_eq!(fit(root, &[1.0, 50.0], None).0, "[\n    0,\n    1\n]");
}

#[test]
fn its_state_has_the_originals_keys() {
    let folder = tempfile::tempdir().unwrap();
    let run = watch(SpikeDetection::new(), &[1.0, 2.0], folder.path());
    let state = run.trainer.callback::<SpikeDetection>().unwrap().state_dict().unwrap();
    let keys: Vec<&str> = state.keys().collect();
    assert_eq!(
        keys,
        ["last_val", "mode", "warmup", "atol", "rtol", "bad_batches", "bad_batches_path", "running", "mean"]
    );
    let mut restored = SpikeDetection::new().rtol(7.0);
    restored.load_state_dict(&state).unwrap();
    let again = restored.state_dict().unwrap();
    for key in ["last_val", "bad_batches", "running"] {
        assert_eq!(again.get(key), state.get(key), "{key}");
    }
    assert_eq!(again.float("rtol").unwrap(), 7.0, "who resumes may have changed it");
}

#[test]
fn the_file_can_be_elsewhere_and_tolerances_must_make_sense() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/bad.json");
    let found = spike(SpikeDetection::new().exclude_batches_path(&path), &[1.0, 9.0]).unwrap();
    assert_eq!(found.path, path);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "[\n    0,\n    1\n]");

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let run = watch(SpikeDetection::new().exclude_batches_path(file.join("below")), &[1.0, 9.0], folder.path());
    let error = run.outcome.unwrap_err().to_string();
    assert!(error.contains("found a spike in batch 1 (loss 9), and cannot write"), "{error}");

    for (options, expected) in [
        (SpikeDetection::new().window(0), "SpikeDetection: window=0"),
        (SpikeDetection::new().rtol(-1.0), "SpikeDetection: atol and rtol"),
        (SpikeDetection::new().atol(NAN), "SpikeDetection: atol and rtol"),
    ] {
        let error = watch(options, &[1.0], folder.path()).outcome.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let options = serde_json::from_str(r#"{"mode": "max", "rtol": null, "window": 0}"#).unwrap();
    assert!(SpikeDetection::from_options(options).is_err());
}
