//! Checkpoints that are not on this machine's file system: a folder may be a URL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use fulgurite::Checkpointer;
use fulgurite::Plugin;
use fulgurite::callbacks::{OnExceptionCheckpoint, SaveLast};
use fulgurite::fabric::{CheckpointIo, FabricError, StoredFile};
use fulgurite::prelude::*;

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// A store of its own, by path.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<BTreeMap<PathBuf, i64>>>);

impl CheckpointIo for Store {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        let step = checkpoint.as_dict().unwrap().int("global_step").unwrap();
        self.0.lock().unwrap().insert(path.into(), step);
        Ok(())
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        let step = self.0.lock().unwrap().get(path).copied();
        let missing = || FabricError::Checkpoint { path: path.into(), message: "is not there".into() };
        Ok(Value::Dict(Dict::new().with("global_step", step.ok_or_else(missing)?)))
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        self.0.lock().unwrap().remove(path);
        Ok(())
    }

    fn exists(&mut self, path: &Path) -> Result<bool, FabricError> {
        Ok(self.0.lock().unwrap().contains_key(path))
    }

    fn list(&mut self, folder: &Path) -> Result<Vec<StoredFile>, FabricError> {
        let store = self.0.lock().unwrap();
        let within = store.keys().filter(|path| path.parent() == Some(folder));
        let file = |path: &PathBuf| StoredFile { path: path.clone(), modified: SystemTime::UNIX_EPOCH, size: 1 };
        Ok(within.map(file).collect())
    }
}

impl Store {
    fn holds(&self) -> String {
        let store = self.0.lock().unwrap();
        store.iter().map(|(path, step)| format!("{}@{step}", path.display())).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn the_folder_may_be_a_url() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::default();
    let fit = |last: SaveLast| {
        let checkpoint = ModelCheckpoint::monitor("val_loss").dirpath("s3://bucket/run/7").filename("{val_loss:.0f}");
        let io = Plugin::checkpoint_io(store.clone());
        let builder = quiet(root.path()).max_epochs(3).callback(checkpoint.save_top_k(2).save_last(last)).plugin(io);
        let mut trainer = builder.build().unwrap();
        _ = trainer.fit(&mut Scripted::new(&[3.0, 1.0, 2.0]), (batches(4), batches(1))).unwrap();
        let checkpoint = trainer.callback::<ModelCheckpoint>().unwrap().clone();
        let [folder, best, last] =
            [checkpoint.checkpoint_dir(), checkpoint.best_model_path(), checkpoint.last_model_path()]
                .map(|path| path.unwrap().to_str().unwrap().to_owned());
        assert_eq!(folder, "s3://bucket/run/7");
        let files = checkpoint.last_checkpoints(trainer.state_mut());
        (best, last, files.len(), trainer.state().console().contents())
    };
    let (best, last, lasts, said) = fit(SaveLast::Copy);
    assert_eq!(best, "s3://bucket/run/7/val_loss=1.ckpt");
    assert_eq!(last, "s3://bucket/run/7/last.ckpt");
    assert_eq!(lasts, 1);
    assert_eq!(said.matches("is not empty").count(), 0);
    let first =
        "s3://bucket/run/7/last.ckpt@12 s3://bucket/run/7/val_loss=1.ckpt@8 s3://bucket/run/7/val_loss=2.ckpt@12";
    assert_eq!(store.holds(), first);

    // Another run in the same folder leaves the first one's files alone.
    let (best, last, lasts, said) = fit(SaveLast::Link);
    assert_eq!(best, "s3://bucket/run/7/val_loss=1-v1.ckpt");
    assert_eq!(last, "s3://bucket/run/7/last-v1.ckpt");
    assert_eq!(lasts, 2);
    assert_eq!(said.matches("the checkpoint folder s3://bucket/run/7 exists and is not empty").count(), 1);
    assert!(store.holds().contains("last.ckpt@12") && store.holds().contains("val_loss=1-v1.ckpt@8"));
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn what_an_error_leaves_may_go_to_a_url() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::default();
    let callback = OnExceptionCheckpoint::new("memory://runs").filename("broken");
    let builder = quiet(root.path()).callback(callback).plugin(Plugin::checkpoint_io(store.clone()));
    let mut trainer = builder.build().unwrap();
    let mut module = Scripted::new(&[1.0]);
    module.fails_after = Some(3);
    trainer.fit(&mut module, (batches(4), batches(1))).unwrap_err();
    assert_eq!(store.holds(), "memory://runs/broken.ckpt@3");
    let callback = OnExceptionCheckpoint::new("memory://runs").filename("broken");
    assert_eq!(callback.last_checkpoints(trainer.state_mut()), [PathBuf::from("memory://runs/broken.ckpt")]);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}
