//! A log that cannot be written: what a checkpoint says was logged is on the disk, so none is written that would lie.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fulgurite::callbacks::LambdaCallback;
use fulgurite::fabric::loggers::{Logger, LoggerError, RunStatus};
use fulgurite::loggers::TensorBoardLogger;
use fulgurite::prelude::*;
use fulgurite::{OnSaveError, TrainerBuilder};

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// A logger on a disk that is full when `full` says so. It holds rows, as the real ones do.
struct OnDisk<L: Logger> {
    inner: L,
    full: Arc<AtomicBool>,
}

impl<L: Logger> OnDisk<L> {
    fn check(&self) -> Result<(), LoggerError> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(LoggerError::Write {
                logger: "OnDisk",
                path: "metrics".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            }),
            false => Ok(()),
        }
    }
}

impl<L: Logger> Logger for OnDisk<L> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn version(&self) -> &str {
        self.inner.version()
    }

    fn save_dir(&self) -> Option<&Path> {
        self.inner.save_dir()
    }

    fn log_dir(&self) -> Option<&Path> {
        self.inner.log_dir()
    }

    fn suggest_version(&mut self, version: &str) {
        self.inner.suggest_version(version);
    }

    fn runs(&self) -> Vec<String> {
        self.inner.runs()
    }

    fn resume_after(&mut self, step: i64) -> Result<(), LoggerError> {
        self.inner.resume_after(step)
    }

    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        self.inner.log_metrics(metrics, step)
    }

    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError> {
        self.inner.log_hyperparams(params)
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        self.check()?;
        self.inner.save()
    }

    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError> {
        self.check()?;
        self.inner.finalize(status)
    }
}

/// 60 batches; the disk fills up in batch 35, and there is a checkpoint every 10 steps.
fn fit(builder: TrainerBuilder, full: &Arc<AtomicBool>, fills_up: bool, ckpt_path: &str) -> Result<u64, String> {
    full.store(false, Ordering::Relaxed);
    let flag = Arc::clone(full);
    let fill = LambdaCallback::new().on_train_batch_end(move |trainer, _, _, _, _| {
        flag.fetch_or(fills_up && trainer.global_step() == 35, Ordering::Relaxed);
        Ok(())
    });
    // Warning of saves that fail is no reason to go on without a log.
    let checkpoint =
        ModelCheckpoint::new().every_n_train_steps(10).save_top_k(Maximum::Unlimited).on_save_error(OnSaveError::Warn);
    let builder = builder.log_every_n_steps(1).max_epochs(1).limit_val_batches(0).callback(fill).callback(checkpoint);
    let mut trainer = builder.build().unwrap();
    let fitted = trainer.ckpt_path(ckpt_path).fit(&mut Scripted::new(&[1.0]), (batches(60), batches(1)));
    let best = trainer.best_model_path();
    assert!(best.is_none_or(|path| path.exists()), "what the callback says is true");
    fitted.map(|_| trainer.state().global_step()).map_err(|error| error.to_string())
}

fn checkpoints(root: &Path) -> usize {
    std::fs::read_dir(root.join("lightning_logs/version_0/checkpoints")).unwrap().count()
}

#[test]
fn rows_of_csv_are_on_the_disk_before_their_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let builder = || {
        // Nothing is written but with checkpoints.
        let inner = CsvLogger::new(folder.path()).flush_logs_every_n_steps(1_000_000);
        quiet(folder.path()).logger(OnDisk { inner, full: Arc::clone(&full) })
    };
    let error = fit(builder(), &full, true, "auto").unwrap_err();
    assert!(error.starts_with("OnDisk cannot write metrics"), "{error}");
    assert_eq!(checkpoints(folder.path()), 3);
    assert_eq!(fit(builder(), &full, false, "auto"), Ok(60));
    let text = std::fs::read_to_string(folder.path().join("lightning_logs/version_0/metrics.csv")).unwrap();
    let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let rows = text.lines().skip(1).map(|row| row.split(',').collect::<Vec<_>>());
    let steps: Vec<usize> = rows
        .filter(|row| !row[column("train_loss")].is_empty())
        .map(|row| row[column("step")].parse().unwrap())
        .collect();
    assert_eq!(steps, (0..60).collect::<Vec<_>>());
}

#[test]
fn events_are_on_the_disk_before_their_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let inner = TensorBoardLogger::new(folder.path());
    let builder = quiet(folder.path()).logger(OnDisk { inner, full: Arc::clone(&full) });
    let error = fit(builder, &full, true, "auto").unwrap_err();
    assert!(error.starts_with("OnDisk cannot write metrics"), "{error}");
    assert_eq!(checkpoints(folder.path()), 3);
}
