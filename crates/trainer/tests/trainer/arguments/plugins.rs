//! Parts of the trainer's foundation that the user brings.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use fulgurite::fabric::{CheckpointIo, FabricError, Precision, TorchCheckpointIo};
use fulgurite::prelude::*;
use fulgurite::{Plugin, TrainerBuilder};

use super::{batches, quiet, weight};

/// Writes down what it is asked for.
#[derive(Clone, Default)]
struct Recording(Arc<Mutex<Vec<String>>>);

impl Recording {
    fn note(&self, what: &str, path: &Path) {
        self.0.lock().unwrap().push(format!("{what} {}", path.file_name().unwrap().to_string_lossy()));
    }
}

impl CheckpointIo for Recording {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        self.note("save", path);
        TorchCheckpointIo::new().save(checkpoint, path)
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.note("load", path);
        TorchCheckpointIo::new().load(path)
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        self.note("remove", path);
        TorchCheckpointIo::new().remove(path)
    }
}

#[test]
fn checkpoints_go_through_the_users_io() {
    let root = tempfile::tempdir().unwrap();
    let io = Recording::default();
    let checkpoint = ModelCheckpoint::new().dirpath(root.path()).every_n_train_steps(1).filename("{step}");
    let builder = quiet().enable_checkpointing(true).callback(checkpoint).plugin(Plugin::checkpoint_io(io.clone()));
    let mut trainer = builder.build().unwrap();
    _ = trainer.fit(&mut weight(), batches(&[1.0, 2.0])).unwrap();
    trainer.ckpt_path("best").validate(&mut weight(), batches(&[1.0])).unwrap();
    assert_eq!(
        *io.0.lock().unwrap(),
        ["save step=1.ckpt", "save step=2.ckpt", "remove step=1.ckpt", "load step=2.ckpt"]
    );
}

/// Half of every loss.
struct Halving;

impl Precision for Halving {
    fn name(&self) -> &'static str {
        "halving"
    }

    fn backward(&mut self, loss: &Tensor) -> Result<(), FabricError> {
        (loss * 0.5).backward();
        Ok(())
    }
}

#[test]
fn steps_go_through_the_users_precision() {
    let mut module = weight();
    let mut trainer = quiet().plugin(Plugin::precision(Halving)).build().unwrap();
    _ = trainer.fit(&mut module, batches(&[1.0])).unwrap();
    assert_eq!(module.w(), 1.0 - 0.5 * 0.125);
    assert_eq!(trainer.state().fabric().precision().name(), "halving");
}

#[track_caller]
fn refused(trainer: TrainerBuilder, expected: Expect) {
    expected.assert_eq(&trainer.build().err().unwrap().to_string());
}

#[test]
fn two_of_a_kind_are_refused() {
    let io = || Plugin::checkpoint_io(TorchCheckpointIo::new());
    refused(quiet().plugin(io()).plugin(io()), expect!["there are two plugins for checkpoint I/O; leave one"]);
    let precision = || Plugin::precision(Halving);
    refused(
        quiet().plugin(precision()).plugin(precision()),
        expect!["there are two plugins for the precision; leave one"],
    );
    refused(
        quiet().precision("64-true").plugin(precision()),
        expect![[r#"precision="64-true", and a precision is among the plugins; leave one of the two out"#]],
    );
    assert!(quiet().plugin(precision()).plugin(io()).build().is_ok());
}

#[test]
fn a_file_that_cannot_be_written_ends_the_run() {
    struct Full;
    impl CheckpointIo for Full {
        fn save(&mut self, _: &Value, path: &Path) -> Result<(), FabricError> {
            Err(FabricError::Checkpoint {
                path: PathBuf::from(path.file_name().unwrap()),
                message: "the disk is full".into(),
            })
        }

        fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
            TorchCheckpointIo::new().load(path)
        }

        fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
            TorchCheckpointIo::new().remove(path)
        }
    }
    let root = tempfile::tempdir().unwrap();
    let builder =
        quiet().enable_checkpointing(true).callback(ModelCheckpoint::new().dirpath(root.path()).filename("x"));
    let mut trainer = builder.plugin(Plugin::checkpoint_io(Full)).build().unwrap();
    let error = trainer.fit(&mut weight(), batches(&[1.0])).unwrap_err();
    assert_eq!(error.to_string(), "checkpoint x.ckpt: the disk is full");
}
