//! `accumulate_grad_batches` that changes from epoch to epoch.

use expect_test::{Expect, expect};
use fulgurite::callbacks::{GradientAccumulationSchedulerOptions, LambdaCallback};
use fulgurite::config::Configurable;
use fulgurite::prelude::*;

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// Optimizer steps of a run over `epochs` epochs of five batches: what was estimated, and what was taken.
#[track_caller]
fn steps(scheduling: &[(u64, u64)], epochs: u64, max_steps: Maximum, expected: u64) {
    let scheduler = GradientAccumulationScheduler::new(scheduling.iter().copied());
    let folder = tempfile::tempdir().unwrap();
    let builder = quiet(folder.path()).max_epochs(epochs).max_steps(max_steps).enable_checkpointing(false);
    let mut trainer = builder.callback(scheduler).build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[1.0]), (batches(5), batches(1))).unwrap();
    let state = trainer.state();
    assert_eq!((state.estimated_stepping_batches().unwrap(), state.global_step()), (Some(expected), expected));
}

#[test]
fn steps_are_taken_and_estimated_by_the_schedule() {
    let all = Maximum::Unlimited;
    steps(&[(1, 2)], 2, all, 5 + 3);
    steps(&[(0, 4), (2, 1), (3, 5)], 5, all, 2 + 2 + 5 + 1 + 1);
    steps(&[(7, 3)], 2, all, 10);
    steps(&[(1, 5)], 4, Maximum::Of(6), 6);
}

#[test]
fn a_run_resumed_within_an_epoch_keeps_its_factor() {
    let folder = tempfile::tempdir().unwrap();
    let fit = |ckpt_path: Option<&str>| {
        let checkpoint =
            ModelCheckpoint::new().dirpath(folder.path()).every_n_train_steps(6).save_top_k(Maximum::Unlimited);
        let builder = quiet(folder.path()).max_epochs(2).callback(checkpoint.filename("at-{step}"));
        let mut trainer = builder.callback(GradientAccumulationScheduler::new([(1, 2)])).build().unwrap();
        let mut module = Scripted::new(&[1.0]);
        let _ = tch::no_grad(|| module.layer.ws.fill_(0.5));
        _ = trainer
            .ckpt_path(ckpt_path.map(|name| folder.path().join(name)))
            .fit(&mut module, (batches(5), batches(1)))
            .unwrap();
        (trainer.state().global_step(), module.layer.ws.detach().copy())
    };
    let (steps, weight) = fit(None);
    assert_eq!(steps, 8);
    // Step 6 is the first of epoch 1.
    assert_eq!(fit(Some("at-step=6.ckpt")), (steps, weight));
}

fn refused(result: Result<(), String>, expected: Expect) {
    expected.assert_eq(&result.unwrap_err());
}

#[test]
fn what_cannot_be_is_refused() {
    let fit = |scheduling: &[(u64, u64)], factor: u64| {
        let folder = tempfile::tempdir().unwrap();
        let scheduler = GradientAccumulationScheduler::new(scheduling.iter().copied());
        let builder = quiet(folder.path()).max_epochs(1).accumulate_grad_batches(factor).callback(scheduler);
        let mut trainer = builder.build().unwrap();
        let fitted = trainer.fit(&mut Scripted::new(&[1.0]), (batches(2), batches(1)));
        fitted.map(drop).map_err(|error| error.to_string())
    };
    refused(
        fit(&[], 1),
        expect![
            "GradientAccumulationScheduler: `scheduling` is empty; name at least one epoch and its number of batches"
        ],
    );
    refused(
        fit(&[(2, 0)], 1),
        expect!["GradientAccumulationScheduler: epoch 2 is to accumulate 0 batches; an optimizer step needs 1 or more"],
    );
    refused(
        fit(&[(2, 3)], 2),
        expect![
            "GradientAccumulationScheduler: the trainer has accumulate_grad_batches=2 too; leave out that, or the callback"
        ],
    );
}

#[test]
fn a_callback_cannot_schedule_steps_of_no_batch() {
    let zero = LambdaCallback::new().on_train_start(|trainer, _| Ok(trainer.schedule_accumulation([(3, 0)].into())?));
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = quiet(folder.path()).max_epochs(1).callback(zero).build().unwrap();
    let fitted = trainer.fit(&mut Scripted::new(&[1.0]), (batches(2), batches(1)));
    refused(
        fitted.map(drop).map_err(|error| error.to_string()),
        expect!["schedule_accumulation makes steps of 0 batches from epoch 3 on; write 1 for a step with every batch"],
    );
}

#[test]
fn a_file_can_say_it() {
    let options: GradientAccumulationSchedulerOptions = serde_json::from_str(r#"{"scheduling": {"4": 2}}"#).unwrap();
    assert_eq!(options.scheduling.into_iter().collect::<Vec<_>>(), [(4, 2)]);
    assert!(GradientAccumulationScheduler::from_options(Default::default()).is_err());
    assert!(serde_json::from_str::<GradientAccumulationSchedulerOptions>(r#"{"scheduling": {"-1": 2}}"#).is_err());
}
