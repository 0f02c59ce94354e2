//! A checkpoint holds the scaler, and gradients with their scale.

use std::path::Path;

use fulgurite::fabric::{GradScaler, GradScalerOptions, MixedPrecision};
use fulgurite::optim::StepLR;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::serialization;
use fulgurite::{ModuleView, Plugin, SaveRequest};

use super::{INF, Weight, batches, fp16, quiet};

/// Writes a checkpoint after a batch.
struct SaveAt(usize, std::path::PathBuf);

impl Callback for SaveAt {
    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn std::any::Any,
        batch_idx: usize,
    ) -> Result<()> {
        if batch_idx == self.0 {
            trainer.request_checkpoint(SaveRequest::new(&self.1));
        }
        Ok(())
    }
}

fn module() -> Weight {
    let with_scheduler = |vars: &nn::VarStore| {
        let step = LrSchedulerConfig::new(StepLR::new(1).gamma(0.5)).interval(Interval::Step);
        Optimizers::from(SGD::new(vars).lr(0.5).momentum(0.9)).scheduler(step)
    };
    Weight { optimizers: with_scheduler, ..Weight::new() }
}

const BATCHES: [f32; 9] = [1.0, 3.0, INF, 1.0, 2.0, 1.0, INF, 1.0, 3.0];

/// What happens after `batch_idx`: in one run, and in one that goes on from a checkpoint written there.
fn both(batch_idx: usize, path: &Path) -> (String, String) {
    let trainer = || quiet().accumulate_grad_batches(2).plugin(fp16());
    let mut whole = module();
    let save = SaveAt(batch_idx, path.to_owned());
    _ = trainer().callback(save).build().unwrap().fit(&mut whole, batches(&BATCHES)).unwrap();
    let whole = whole.trace.take();
    let marker = format!("\n{batch_idx}: ");
    let after = whole.split_once(&marker).and_then(|(_, rest)| rest.split_once('\n')).map_or("", |(_, rest)| rest);

    let mut resumed = module();
    let mut other = trainer().build().unwrap();
    _ = other.ckpt_path(path.to_str().unwrap()).fit(&mut resumed, batches(&BATCHES)).unwrap();
    (after.to_owned(), resumed.trace.take())
}

#[test]
fn a_run_goes_on_with_its_scale_and_its_open_window() {
    let folder = tempfile::tempdir().unwrap();
    for batch_idx in 0..BATCHES.len() - 1 {
        let (whole, resumed) = both(batch_idx, &folder.path().join(format!("{batch_idx}.ckpt")));
        assert!(!whole.is_empty());
        assert_eq!(whole, resumed, "from batch {batch_idx}");
    }
}

fn scaler_of(path: &Path) -> Option<Dict> {
    serialization::load(path).unwrap().as_dict().unwrap().dict("MixedPrecision").ok().cloned()
}

#[test]
fn the_scaler_has_lightnings_place_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scaler.ckpt");
    let save = || SaveAt(1, path.clone());
    _ = quiet().plugin(fp16()).callback(save()).build().unwrap().fit(&mut module(), batches(&[1.0, INF])).unwrap();
    let expected = Dict::new()
        .with("scale", 4.0)
        .with("growth_factor", 2.0)
        .with("backoff_factor", 0.5)
        .with("growth_interval", 2)
        .with("_growth_tracker", 0);
    assert_eq!(scaler_of(&path), Some(expected));
    _ = quiet()
        .precision("bf16-mixed")
        .callback(save())
        .build()
        .unwrap()
        .fit(&mut module(), batches(&[1.0, 1.0]))
        .unwrap();
    assert_eq!(scaler_of(&path), None);
}

/// The weight after a window whose first batch was trained on in one precision, and the second in another.
fn across(first: Option<Plugin>, second: Option<Plugin>) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("open.ckpt");
    let trainer = |plugin: Option<Plugin>| {
        let trainer = quiet().accumulate_grad_batches(2);
        if let Some(plugin) = plugin { trainer.plugin(plugin) } else { trainer }
    };
    _ = trainer(first)
        .callback(SaveAt(0, path.clone()))
        .build()
        .unwrap()
        .fit(&mut module(), batches(&[1.0, 3.0]))
        .unwrap();
    let mut module = module();
    let mut resumed = trainer(second).build().unwrap();
    _ = resumed.ckpt_path(path.to_str().unwrap()).fit(&mut module, batches(&[1.0, 3.0])).unwrap();
    module.w()
}

#[test]
fn gradients_of_an_open_window_follow_when_the_precision_changes() {
    let other = || {
        let scaler = GradScaler::new(GradScalerOptions::default().init_scale(1024.0)).unwrap();
        Some(Plugin::precision(MixedPrecision::fp16(scaler)))
    };
    for (first, second) in [(Some(fp16()), None), (None, other()), (Some(fp16()), other()), (None, None)] {
        assert_eq!(across(first, second), 2.0 - 0.5 * 2.0);
    }
}

#[test]
fn a_state_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.ckpt");
    _ = quiet()
        .plugin(fp16())
        .callback(SaveAt(0, path.clone()))
        .build()
        .unwrap()
        .fit(&mut module(), batches(&[1.0, 1.0]))
        .unwrap();
    let mut file = serialization::load(&path).unwrap().as_dict().unwrap().clone();
    file.set("MixedPrecision", Dict::new().with("scale", 4.0));
    serialization::save(&path, &file.into()).unwrap();
    let mut trainer = quiet().plugin(fp16()).build().unwrap();
    let error =
        trainer.ckpt_path(path.to_str().unwrap()).fit(&mut module(), batches(&[1.0, 1.0])).unwrap_err().to_string();
    assert!(error.contains("cannot be resumed from: not the state of a gradient scaler"), "{error}");
}
