//! Which checkpoint a run begins with.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use expect_test::{Expect, expect};
use fulgurite::Checkpointer;
use fulgurite::callbacks::SaveLast;
use fulgurite::prelude::*;
use fulgurite::{Console, TrainerBuilder};

use super::{batches, quiet, weight};

fn with_checkpoints(root: &Path) -> TrainerBuilder {
    let checkpoint = ModelCheckpoint::new().dirpath(root).save_last(SaveLast::Copy).filename("{step}");
    quiet().default_root_dir(root).enable_checkpointing(true).callback(checkpoint)
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
        _ = trainer.fit(&mut module, batches(&[batch])).unwrap();
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
    _ = with_checkpoints(root.path()).build().unwrap().fit(&mut first, batches(&[1.0, 2.0])).unwrap();
    let mut second = weight();
    let mut trainer = with_checkpoints(root.path()).max_epochs(2).build().unwrap();
    _ = trainer.ckpt_path("last").fit(&mut second, batches(&[1.0, 2.0])).unwrap();
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
        _ = trainer.ckpt_path("last").fit(&mut module, batches(&[1.0])).unwrap();
        assert_eq!(module.trained_on, [1.0]);
        expect![[r#"warning: ckpt_path="last" was requested, but there is no last checkpoint, so this is a fresh start; `ModelCheckpoint::save_last` writes one"#]]
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
    _ = trainer.fit(&mut module, (batches(&[1.0]), batches(&[1.0]))).unwrap();
    trainer.ckpt_path("best").validate(&mut module, batches(&[1.0])).unwrap();
    assert_eq!(module.w(), 1.0 - 0.125 * 2.0);
    let warning = r#"warning: ckpt_path="best" was requested, but several callbacks have a best checkpoint: that of the first is used"#;
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
            r#"ckpt_path="best" was requested, but fast_dev_run writes no checkpoints; give a path, or leave ckpt_path out"#
        ]],
    );
    refused(
        "hpc",
        |t| t.default_root_dir("nowhere"),
        expect![[r#"ckpt_path="hpc" was requested, but there is no hpc_ckpt_N.ckpt in nowhere; give a path"#]],
    );
    refused(
        "registry:model:version:3",
        |t| t,
        expect![[
            r#"ckpt_path="registry:model:version:3" was requested, but there is no model registry here; download the file, and give its path"#
        ]],
    );
}

#[test]
fn a_path_is_for_the_next_run_alone() {
    let root = tempfile::tempdir().unwrap();
    let mut module = weight();
    let mut trainer = with_checkpoints(root.path()).build().unwrap();
    _ = trainer.fit(&mut module, batches(&[1.0])).unwrap();
    let mut fresh = weight();
    trainer.ckpt_path("last").validate(&mut fresh, batches(&[1.0])).unwrap();
    let mut untouched = weight();
    trainer.validate(&mut untouched, batches(&[1.0])).unwrap();
    assert_eq!((fresh.w(), untouched.w()), (0.875, 1.0));
}

/// What an earlier run has left in the folder may have come further.
#[test]
fn last_is_of_the_run_that_the_trainer_has_trained() {
    let root = tempfile::tempdir().unwrap();
    let mut trainer = with_checkpoints(root.path()).max_epochs(3).build().unwrap();
    _ = trainer.fit(&mut weight(), batches(&[1.0])).unwrap();
    fs::rename(root.path().join("last.ckpt"), root.path().join("interrupted.ckpt")).unwrap();
    let mut trainer = with_checkpoints(root.path()).build().unwrap();
    _ = trainer.fit(&mut weight(), batches(&[2.0])).unwrap();
    let mut fresh = weight();
    trainer.ckpt_path("last").validate(&mut fresh, batches(&[1.0])).unwrap();
    assert_eq!(fresh.w(), 0.75);
    // Another process does not know which run it was.
    let (mut other, mut fresh) = (with_checkpoints(root.path()).build().unwrap(), weight());
    other.ckpt_path("last").validate(&mut fresh, batches(&[1.0])).unwrap();
    assert_eq!(fresh.w(), 0.75);
}

/// Left a checkpoint in a crash.
struct Crashed(std::path::PathBuf);

impl Callback for Crashed {
    fn checkpointer(&self) -> Option<&dyn Checkpointer> {
        Some(self)
    }
}

impl Checkpointer for Crashed {
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
        _ = builder.callback(Crashed(path.clone())).build().unwrap().fit(&mut module, batches(&[1.0])).unwrap();
        (module.trained_on.len(), console.contents())
    };
    assert_eq!(fit().0, 2);
    let mut module = weight();
    let mut trainer = quiet().build().unwrap();
    _ = trainer.fit(&mut module, batches(&[1.0])).unwrap();
    trainer.save_checkpoint(&mut module, &path, false).unwrap();
    let (trained, said) = fit();
    assert_eq!(trained, 1);
    expect!["warning: an error ended the last run, so this one resumes from ROOT/crash.ckpt; set ckpt_path to start from another"]
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

/// Cuts files short; the ages of all are in the order of the names.
fn three_checkpoints(root: &Path, damaged: &[&str]) {
    let mut module = weight();
    let mut trainer = quiet().build().unwrap();
    for (age, name) in ["old", "last", "new"].into_iter().rev().enumerate() {
        let path = root.join(format!("{name}.ckpt"));
        _ = trainer.fit(&mut module, batches(&[1.0])).unwrap();
        trainer.save_checkpoint(&mut module, &path, false).unwrap();
        if damaged.contains(&name) {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
        set_age(&path, 60 * (age as u64 + 1));
    }
}

/// What a fit says of its checkpoints, and what became of it.
fn resumed(root: &Path, damaged: &[&str], ckpt_path: &str) -> String {
    three_checkpoints(root, damaged);
    let console = Console::memory();
    let mut trainer =
        with_checkpoints(root).default_root_dir(root).max_epochs(9).console(console.clone()).build().unwrap();
    let outcome =
        trainer.ckpt_path(ckpt_path.replace("ROOT", root.to_str().unwrap())).fit(&mut weight(), batches(&[1.0]));
    let about = |line: &&str| line.contains("damaged") || line.contains("resumed") || line.contains("checkpoint ");
    let text = console.contents();
    let mut lines: Vec<String> = text.lines().filter(about).map(str::to_owned).collect();
    lines.extend(outcome.err().map(|error| error.to_string()));
    let text = lines.join("\n").replace(root.to_str().unwrap(), "ROOT");
    // What exactly is wrong with a file is told elsewhere.
    text.lines().map(|line| line.split(": ").last().unwrap_or(line).to_owned() + "\n").collect()
}

#[test]
fn the_newest_that_is_whole() {
    for (damaged, ckpt_path, expected) in [
        (&[][..], "auto", "resumed from ROOT/new.ckpt"),
        (&["new"], "auto", "so an older checkpoint is looked for|resumed from ROOT/last.ckpt"),
        (&["new", "last"], "ROOT", "resumed from ROOT/old.ckpt"),
        (&["last"], "last", "resumed from ROOT/new.ckpt"),
        (&["last", "new"], "last", "resumed from ROOT/old.ckpt"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let found = resumed(root.path(), damaged, ckpt_path);
        let last = found.lines().last().unwrap();
        assert_eq!(last, expected.split('|').next_back().unwrap(), "{found}");
        assert_eq!(found.matches("looked for").count(), damaged.len(), "{found}");
    }
    let root = tempfile::tempdir().unwrap();
    let all = resumed(root.path(), &["last", "new", "old"], "auto");
    assert!(all.ends_with("move the damaged ones away to start from scratch\n"), "{all}");
    // Who names a file gets that or nothing, and is told what there is.
    let root = tempfile::tempdir().unwrap();
    let named = resumed(root.path(), &["new"], "ROOT/new.ckpt");
    assert!(named.ends_with("the intact checkpoint with the most progress beside it is ROOT/last.ckpt\n"), "{named}");
}

#[test]
fn weights_alone_are_not_gone_on_with() {
    let root = tempfile::tempdir().unwrap();
    three_checkpoints(root.path(), &[]);
    let mut trainer = quiet().build().unwrap();
    _ = trainer.fit(&mut weight(), batches(&[1.0])).unwrap();
    trainer.save_checkpoint(&mut weight(), root.path().join("weights.ckpt"), true).unwrap();
    let mut trainer = with_checkpoints(root.path()).max_epochs(9).build().unwrap();
    _ = trainer.ckpt_path("auto").fit(&mut weight(), batches(&[1.0])).unwrap();
    assert!(trainer.state().resumed_from().unwrap().ends_with("new.ckpt"));
}
