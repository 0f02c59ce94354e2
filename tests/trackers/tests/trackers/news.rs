//! Loggers learn of checkpoints that are on the disk, and of the run that they go on with.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulgurite::callbacks::SaveLast;
use fulgurite::cli::Cli;
use fulgurite::fabric::{AsyncCheckpointIo, CheckpointIo, FabricError, TorchCheckpointIo};
use fulgurite::loggers::{CheckpointNews, LoggerError, RunStatus};
use fulgurite::prelude::*;
use fulgurite::torch::serialization;
use fulgurite::{Console, OnSaveError, Plugin};

use crate::model::{Line, Points, line, trainer};

/// Records what it is told.
#[derive(Clone, Default)]
struct Listener {
    news: Arc<Mutex<Vec<CheckpointNews>>>,
    calls: Arc<Mutex<Vec<String>>>,
    version: String,
}

impl Listener {
    fn call(&self, call: impl Into<String>) -> Result<(), LoggerError> {
        self.calls.lock().unwrap().push(call.into());
        Ok(())
    }
}

impl Logger for Listener {
    fn connect(&mut self) -> Result<(), LoggerError> {
        self.call("connect")
    }

    fn start(&mut self) -> Result<(), LoggerError> {
        self.version = "run-7".into();
        self.call("start")
    }

    fn name(&self) -> &str {
        "remote"
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn save_dir(&self) -> Option<&Path> {
        None
    }

    fn log_dir(&self) -> Option<&Path> {
        None
    }

    fn suggest_version(&mut self, version: &str) {
        self.call(format!("suggest {version}")).unwrap();
    }

    fn log_metrics(&mut self, _: &[(&str, f64)], _: i64) -> Result<(), LoggerError> {
        Ok(())
    }

    fn log_hyperparams(&mut self, _: &Dict) -> Result<(), LoggerError> {
        self.call("hyperparams")
    }

    fn after_save_checkpoint(&mut self, news: &CheckpointNews) -> Result<(), LoggerError> {
        // It is whole.
        serialization::verify(&news.path).unwrap();
        assert!(news.last.as_ref().is_none_or(|last| last.exists()));
        self.news.lock().unwrap().push(news.clone());
        Ok(())
    }

    fn take_warnings(&mut self) -> Vec<String> {
        vec!["listen".into()]
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        Ok(())
    }

    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError> {
        self.call(format!("{status:?}"))
    }
}

/// Takes its time, and fails for some names.
struct Slow {
    io: TorchCheckpointIo,
    failing: HashSet<&'static str>,
}

impl CheckpointIo for Slow {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        std::thread::sleep(Duration::from_millis(30));
        if path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| self.failing.contains(stem)) {
            return Err(FabricError::Checkpoint { path: path.into(), message: "no space".into() });
        }
        self.io.save(checkpoint, path)
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.io.load(path)
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        self.io.remove(path)
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// Three epochs, each of which is better and saved; what a logger hears.
fn news_of(root: &Path, failing: &[&'static str], in_background: bool) -> Vec<CheckpointNews> {
    let (listener, console) = (Listener::default(), Console::memory());
    let checkpoint = ModelCheckpoint::monitor("val_loss")
        .dirpath(root.join("ckpt"))
        .filename("{epoch}")
        .save_top_k(2)
        .save_last(SaveLast::Copy)
        .on_save_error(OnSaveError::Warn);
    let slow = Slow { io: TorchCheckpointIo::new(), failing: failing.iter().copied().collect() };
    let plugin = match in_background {
        true => Plugin::checkpoint_io(AsyncCheckpointIo::new(slow).in_flight(3)),
        false => Plugin::checkpoint_io(slow),
    };
    let trainer = trainer(root, &console).max_epochs(3).callback(checkpoint).plugin(plugin).logger(listener.clone());
    _ = trainer.build().unwrap().fit(&mut line(), &mut Points).unwrap();
    assert_eq!(console.contents().matches("warning: Listener: listen").count(), 1);
    std::mem::take(&mut *listener.news.lock().unwrap())
}

#[test]
fn loggers_learn_of_every_checkpoint_once_it_is_on_the_disk() {
    for in_background in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let news = news_of(root.path(), &[], in_background);
        let names: Vec<String> = news.iter().map(|news| stem(&news.path)).collect();
        assert_eq!(names, ["epoch=0", "epoch=1", "epoch=2"]);
        let last = &news[2];
        assert!(last.is_best && last.is_last && last.save_last && !last.last_is_link);
        let best_k: Vec<String> = last.best_k.iter().map(|(path, _)| stem(path)).collect();
        assert_eq!(best_k, ["epoch=1", "epoch=2"]);
        assert_eq!((last.best.as_ref(), last.best_score), (Some(&last.path), last.score));
        assert_eq!((last.monitor.as_deref(), last.mode, last.save_top_k), (Some("val_loss"), Mode::Min, 2));
        assert_eq!((last.every_n_train_steps, last.every_n_epochs), (0, 1));
        assert_eq!(last.last.as_deref().map(stem), Some("last".into()));
    }
}

#[test]
fn a_checkpoint_that_failed_is_no_news() {
    for in_background in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let news = news_of(root.path(), &["epoch=1"], in_background);
        let names: Vec<String> = news.iter().map(|news| stem(&news.path)).collect();
        assert_eq!(names, ["epoch=0", "epoch=2"], "in the background: {in_background}");
    }
}

#[test]
fn a_resumed_run_tells_each_logger_its_own_run() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = || ModelCheckpoint::new().dirpath(root.path().join("ckpt"));
    let console = Console::memory();
    let calls = |listener: Listener| -> Vec<String> { listener.calls.lock().unwrap().clone() };
    let first = Listener::default();
    let csv = CsvLogger::new(root.path()).version("seven");
    let mut run =
        trainer(root.path(), &console).max_epochs(1).callback(checkpoints()).logger(csv).logger(first.clone());
    run = run.logger(CsvLogger::new(root.path().join("other")));
    _ = run.build().unwrap().fit(&mut line(), &mut Points).unwrap();
    assert_eq!(calls(first), ["connect", "start", "hyperparams", "Success"]);

    let second = Listener::default();
    let other = CsvLogger::new(root.path());
    let mut run =
        trainer(root.path(), &console).max_epochs(2).callback(checkpoints()).logger(second.clone()).logger(other);
    run = run.logger(CsvLogger::new(root.path().join("other")));
    let mut run = run.build().unwrap();
    _ = run.ckpt_path("auto").fit(&mut line(), &mut Points).unwrap();
    assert_eq!(calls(second), ["connect", "suggest run-7", "start", "hyperparams", "Success"]);
    let versions: Vec<PathBuf> =
        run.state_mut().loggers().iter().skip(1).map(|logger| logger.log_dir().unwrap().into()).collect();
    let expected = [root.path().join("lightning_logs/seven"), root.path().join("other/lightning_logs/version_0")];
    assert_eq!(versions, expected);
}

#[test]
fn a_password_in_an_address_is_neither_shown_nor_written() {
    let uri = "http://ann:secret@127.0.0.1:9";
    let mut logger = MLFlowLogger::new("e").tracking_uri(uri);
    assert!(!format!("{logger:?}").contains("secret"));
    assert!(!logger.connect().unwrap_err().to_string().contains("secret"));
    let console = Console::memory();
    let args = ["fit", "--trainer.logger+=MLFlowLogger", "--trainer.logger.tracking_uri", uri];
    let cli = Cli::<Line, Points>::new("line").console(console.clone()).args(args).env([("A", "b")]);
    assert_eq!(format!("{:?}", cli.run()), format!("{:?}", ExitCode::from(2)));
    let said = console.contents();
    assert!(
        said.contains("holds a password") && said.contains("MLFLOW_TRACKING_PASSWORD") && !said.contains("secret"),
        "{said}"
    );
}
