//! Which checkpoint a run begins with.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use expect_test::{Expect, expect};
use fulgurite::callbacks::Role;
use fulgurite::callbacks::SaveLast;
use fulgurite::prelude::*;
use fulgurite::{Console, TrainerBuilder};

use super::{batches, quiet, weight};

fn with_checkpoints(root: &Path) -> TrainerBuilder {
    let checkpoint = ModelCheckpoint::new().dirpath(root).save_last(SaveLast::Copy).filename("{step}");
    quiet().enable_checkpointing(true).callback(checkpoint)
}

/// The weight that a run evaluates which begins at `ckpt_path`.
fn begins_with(trainer: TrainerBuilder, ckpt_path: &str) -> f64 {
    let mut module = weight();
    trainer.build().unwrap().ckpt_path(ckpt_path).validate(&mut module, batches(&[1.0])).unwrap();
    module.w()
}

fn set_age(path: &Path, seconds: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn last_is_the_newest_of_its_kind() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for (name, batch) in [("last", 1.0), ("last-v1", 2.0), ("interrupted", 3.0), ("lasting", 4.0), ("last-x", 5.0)] {
        let mut module = weight();
        let mut trainer = quiet().build().unwrap();
        trainer.fit(&mut module, batches(&[batch])).unwrap();
        trainer.save_checkpoint(&mut module, at(&format!("{name}.ckpt")), false).unwrap();
    }
    let weight_after = |batch: f64| 1.0 - 0.125 * batch;
    for (newest, batch) in [("last", 1.0), ("last-v1", 2.0), ("interrupted", 3.0)] {
        for name in ["last", "last-v1", "interrupted"] {
            set_age(&at(&format!("{name}.ckpt")), if name == newest { 60 } else { 120 });
        }
        assert_eq!(begins_with(with_checkpoints(root.path()), "last"), weight_after(batch), "{newest}");
    }
}

#[test]
fn last_goes_on_where_the_last_fit_ended() {
    let root = tempfile::tempdir().unwrap();
    let mut first = weight();
    with_checkpoints(root.path()).build().unwrap().fit(&mut first, batches(&[1.0, 2.0])).unwrap();
    let mut second = weight();
    let mut trainer = with_checkpoints(root.path()).max_epochs(2).build().unwrap();
    trainer.ckpt_path("last").fit(&mut second, batches(&[1.0, 2.0])).unwrap();
    assert_eq!((second.trained_on.clone(), trainer.state().global_step()), (vec![1.0, 2.0], 4));
    assert_eq!(second.w(), 1.0 - 0.125 * 6.0);
}

#[test]
fn without_a_last_one_the_start_is_fresh() {
    let root = tempfile::tempdir().unwrap();
    for builder in [with_checkpoints(root.path()), quiet()] {
        let console = Console::memory();
        let mut module = weight();
        let mut trainer = builder.console(console.clone()).build().unwrap();
        trainer.ckpt_path("last").fit(&mut module, batches(&[1.0])).unwrap();
        assert_eq!(module.trained_on, [1.0]);
        expect![[r#"warning: ckpt_path="last" was asked for, and there is no last checkpoint, so this is a fresh start; `ModelCheckpoint::save_last` writes one"#]]
            .assert_eq(console.contents().lines().next().unwrap());
    }
}

#[test]
fn best_is_that_of_the_first_callback() {
    let root = tempfile::tempdir().unwrap();
    let console = Console::memory();
    let checkpoint = |name: &str| ModelCheckpoint::monitor("loss").dirpath(root.path().join(name));
    let both = quiet().callback(checkpoint("a").mode(Mode::Min)).callback(checkpoint("b").mode(Mode::Max));
    let mut trainer = both.max_epochs(2).enable_checkpointing(true).console(console.clone()).build().unwrap();
    let mut module = weight();
    trainer.fit(&mut module, (batches(&[1.0]), batches(&[1.0]))).unwrap();
    trainer.ckpt_path("best").validate(&mut module, batches(&[1.0])).unwrap();
    assert_eq!(module.w(), 1.0 - 0.125 * 2.0);
    let warning = r#"warning: ckpt_path="best" was asked for, and several callbacks have a best checkpoint: that of the first is taken"#;
    assert!(console.contents().contains(warning), "{}", console.contents());
}

#[track_caller]
fn refused(ckpt_path: &str, arguments: fn(TrainerBuilder) -> TrainerBuilder, expected: Expect) {
    let mut trainer = arguments(quiet()).build().unwrap();
    let error = trainer.ckpt_path(ckpt_path).fit(&mut weight(), batches(&[1.0])).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn what_cannot_be() {
    refused(
        "best",
        |t| t.fast_dev_run(1),
        expect![[
            r#"ckpt_path="best" was asked for, and fast_dev_run writes no checkpoints; give a path, or leave ckpt_path out"#
        ]],
    );
    refused(
        "hpc",
        |t| t,
        expect![[
            r#"ckpt_path="hpc" was asked for, and this version writes no checkpoints for a cluster's scheduler; give a path"#
        ]],
    );
    refused(
        "registry:model:version:3",
        |t| t,
        expect![[
            r#"ckpt_path="registry:model:version:3" was asked for, and there is no model registry here; download the file, and give its path"#
        ]],
    );
}

#[test]
fn a_path_is_for_the_next_run_alone() {
    let root = tempfile::tempdir().unwrap();
    let mut module = weight();
    let mut trainer = with_checkpoints(root.path()).build().unwrap();
    trainer.fit(&mut module, batches(&[1.0])).unwrap();
    let mut fresh = weight();
    trainer.ckpt_path("last").validate(&mut fresh, batches(&[1.0])).unwrap();
    let mut untouched = weight();
    trainer.validate(&mut untouched, batches(&[1.0])).unwrap();
    assert_eq!((fresh.w(), untouched.w()), (0.875, 1.0));
}

/// Left a checkpoint in a crash.
struct Crashed(std::path::PathBuf);

impl Callback for Crashed {
    fn role(&self) -> Role {
        Role::Checkpoint
    }

    fn last_checkpoints(&self, _: &mut TrainerState) -> Vec<std::path::PathBuf> {
        vec![self.0.clone()]
    }

    fn resumes_by_itself(&self) -> bool {
        true
    }
}

#[test]
fn after_a_crash_fit_goes_on_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("crash.ckpt");
    let fit = || {
        let console = Console::memory();
        let builder = quiet().max_epochs(2).enable_checkpointing(true).console(console.clone());
        let mut module = weight();
        builder.callback(Crashed(path.clone())).build().unwrap().fit(&mut module, batches(&[1.0])).unwrap();
        (module.trained_on.len(), console.contents())
    };
    assert_eq!(fit().0, 2);
    let mut module = weight();
    let mut trainer = quiet().build().unwrap();
    trainer.fit(&mut module, batches(&[1.0])).unwrap();
    trainer.save_checkpoint(&mut module, &path, false).unwrap();
    let (trained, said) = fit();
    assert_eq!(trained, 1);
    expect!["warning: an error ended the last run, so this one goes on from ROOT/crash.ckpt; set ckpt_path to start from another"]
        .assert_eq(&said.lines().next().unwrap().replace(root.path().to_str().unwrap(), "ROOT"));
    // Only fit does.
    let mut module = weight();
    quiet()
        .callback(Crashed(path))
        .enable_checkpointing(true)
        .build()
        .unwrap()
        .validate(&mut module, batches(&[1.0]))
        .unwrap();
    assert_eq!(module.w(), 1.0);
}
