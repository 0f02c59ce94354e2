//! `auto`, `last` and folders stand for the furthest checkpoint, wherever the writer put it and whatever its time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fulgurite::callbacks::SaveLast;
use fulgurite::prelude::*;
use fulgurite::torch::serialization;
use fulgurite::{Console, TrainerBuilder};

use super::{Weight, batches, quiet, weight};

fn with(checkpoint: ModelCheckpoint, root: &Path) -> TrainerBuilder {
    quiet().default_root_dir(root).enable_checkpointing(true).callback(checkpoint.dirpath(root.join("checkpoints")))
}

/// All epochs of a run.
fn all() -> ModelCheckpoint {
    ModelCheckpoint::new().save_top_k(Maximum::Unlimited)
}

/// Fits up to `epochs` epochs of two batches; returns from which step the run went on, and what it said.
fn fit(builder: TrainerBuilder, epochs: u64, ckpt_path: &str, mut module: Weight) -> (Option<PathBuf>, String) {
    let console = Console::memory();
    let mut trainer = builder.max_epochs(epochs).console(console.clone()).build().unwrap();
    _ = trainer
        .ckpt_path(Some(ckpt_path).filter(|path| !path.is_empty()))
        .fit(&mut module, (batches(&[1.0, 2.0]), batches(&[1.0])))
        .unwrap();
    (trainer.state().resumed_from().map(Path::to_path_buf), console.contents())
}

fn step_of(path: &Path) -> i64 {
    serialization::load(path).unwrap().as_dict().unwrap().int("global_step").unwrap()
}

/// Copies the files of a folder in an order of its own, each a minute younger than the one before, or all of one time.
fn copy(from: &Path, to: &Path, order: impl Fn(i64) -> i64, apart: u64) {
    fs::create_dir_all(to).unwrap();
    let mut files: Vec<PathBuf> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| order(step_of(path)));
    let mut time = SystemTime::now() - Duration::from_secs(100_000);
    for path in files {
        let copy = to.join(path.file_name().unwrap());
        fs::copy(&path, &copy).unwrap();
        fs::File::options().write(true).open(&copy).unwrap().set_modified(time).unwrap();
        time += Duration::from_secs(apart);
    }
}

#[test]
fn a_folder_that_was_copied_in_another_order() {
    let first = tempfile::tempdir().unwrap();
    fit(with(all(), first.path()), 12, "", weight());
    let files = first.path().join("checkpoints");
    assert_eq!(fs::read_dir(&files).unwrap().count(), 12);
    type Order = fn(i64) -> i64;
    let orders: [(Order, u64); 4] =
        [(|step| -step, 60), (|step| step, 0), (|step| step * 7 % 26, 60), (|step| -step, 0)];
    for (order, apart) in orders {
        let root = tempfile::tempdir().unwrap();
        copy(&files, &root.path().join("checkpoints"), order, apart);
        for ckpt_path in ["auto", root.path().to_str().unwrap()] {
            let (from, said) = fit(with(all(), root.path()), 12, ckpt_path, weight());
            assert!(from.unwrap().ends_with("epoch=11-step=24.ckpt"), "{said}");
        }
        let lasts = || all().checkpoint_name_last("epoch={epoch}-step={step}").save_last(SaveLast::Copy);
        let (from, said) = fit(with(lasts(), root.path()), 12, "last", weight());
        assert!(from.unwrap().ends_with("epoch=11-step=24.ckpt"), "{said}");
    }
}

#[test]
fn requeued_jobs_go_on_from_the_furthest_too() {
    let root = tempfile::tempdir().unwrap();
    let mut module = weight();
    for (number, epochs) in [(2, 1), (1, 3)] {
        let mut trainer = quiet().max_epochs(epochs).build().unwrap();
        _ = trainer.fit(&mut module, batches(&[1.0])).unwrap();
        let path = root.path().join(format!("hpc_ckpt_{number}.ckpt"));
        trainer.save_checkpoint(&mut module, &path, false).unwrap();
    }
    for ckpt_path in ["hpc", "auto"] {
        let (from, _) = fit(quiet().default_root_dir(root.path()), 3, ckpt_path, weight());
        assert!(from.unwrap().ends_with("hpc_ckpt_1.ckpt"), "{ckpt_path}");
    }
}

/// A file that cannot be read says nothing of its progress: the newest ones are told of.
#[test]
fn a_damaged_one_is_told_of_where_it_may_have_been_the_furthest() {
    let root = tempfile::tempdir().unwrap();
    fit(with(all(), root.path()), 4, "", weight());
    let at = |name: &str| root.path().join("checkpoints").join(name);
    for (name, age) in [("epoch=0-step=2.ckpt", 90), ("epoch=2-step=6.ckpt", 60), ("epoch=3-step=8.ckpt", 30)] {
        if name != "epoch=2-step=6.ckpt" {
            fs::write(at(name), "half a checkpoint").unwrap();
        }
        let time = SystemTime::now() - Duration::from_secs(age);
        fs::File::options().write(true).open(at(name)).unwrap().set_modified(time).unwrap();
    }
    let (from, said) = fit(with(all(), root.path()), 5, "auto", weight());
    assert!(from.unwrap().ends_with("epoch=2-step=6.ckpt"), "{said}");
    assert_eq!(said.matches("so an older checkpoint is looked for").count(), 1, "{said}");
    assert!(said.contains("epoch=3-step=8.ckpt"), "{said}");
}

#[test]
fn names_with_folders_in_them_are_found() {
    let root = tempfile::tempdir().unwrap();
    let in_folders =
        || all().filename("{epoch}-{val/loss:.3f}").save_last(SaveLast::Copy).checkpoint_name_last("l/{epoch}");
    fit(with(in_folders(), root.path()), 2, "", weight());
    let checkpoints = root.path().join("checkpoints");
    let (mut folder, mut names) = (checkpoints.clone(), Vec::new());
    for _ in 0..2 {
        names.extend(fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()));
        folder = checkpoints.join("epoch=1-val");
    }
    names.sort();
    assert_eq!(names, ["epoch=0-val", "epoch=1-val", "l", "loss=0.000.ckpt"]);
    for (ckpt_path, name) in [
        ("auto", "l/epoch=1.ckpt"),
        ("last", "l/epoch=1.ckpt"),
        (root.path().to_str().unwrap(), "l/epoch=1.ckpt"),
        (checkpoints.to_str().unwrap(), "l/epoch=1.ckpt"),
    ] {
        let (from, said) = fit(with(in_folders(), root.path()), 2, ckpt_path, weight());
        let from = from.unwrap_or_else(|| panic!("{ckpt_path}: {said}"));
        // One file under two names.
        assert!(from.ends_with(name) || from.ends_with("epoch=1-val/loss=0.000.ckpt"), "{}", from.display());
    }
    // Another program, that does not know of the folders.
    let (from, said) = fit(quiet().default_root_dir(root.path()), 2, root.path().to_str().unwrap(), weight());
    assert_eq!(step_of(&from.unwrap()), 4, "{said}");
}

#[test]
fn the_folders_of_names_go_with_their_files() {
    let root = tempfile::tempdir().unwrap();
    let latest = || ModelCheckpoint::new().filename("{epoch}-{val/loss:.3f}");
    fit(with(latest(), root.path()), 3, "", weight());
    fit(with(latest(), root.path()), 5, "auto", weight());
    let entries = fs::read_dir(root.path().join("checkpoints")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    // The one that the second run was resumed from stays.
    assert_eq!(names, ["epoch=2-val", "epoch=4-val"]);
}

#[test]
fn another_extension_is_found() {
    let root = tempfile::tempdir().unwrap();
    fit(with(all().file_extension(".pth"), root.path()), 2, "", weight());
    let (from, said) = fit(with(all().file_extension(".pth"), root.path()), 2, "auto", weight());
    assert!(from.unwrap().ends_with("epoch=1-step=4.pth"), "{said}");
}

/// The same computation with other hyper-parameters.
struct Configured(Weight, f64);

impl LightningModule for Configured {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        self.0.vars()
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new().with("lr", self.1))
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        self.0.training_step(x, step)
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.0.configure_optimizers(trainer)
    }
}

#[test]
fn auto_goes_on_with_runs_of_the_same_hyper_parameters_alone() {
    let root = tempfile::tempdir().unwrap();
    let fit = |lr: f64, epochs: u64, ckpt_path: &str| {
        let console = Console::memory();
        let builder = quiet().default_root_dir(root.path()).enable_checkpointing(true).console(console.clone());
        let mut trainer = builder.logger(CsvLogger::new(root.path())).max_epochs(epochs).build().unwrap();
        let mut module = Configured(weight(), lr);
        _ = trainer.ckpt_path(ckpt_path).fit(&mut module, batches(&[1.0, 2.0])).unwrap();
        let said = console.contents().replace(root.path().to_str().unwrap(), "ROOT");
        (module.0.trained_on.len(), said)
    };
    let (trained, said) = fit(0.1, 3, "auto");
    assert_eq!(trained, 6);
    assert!(said.contains("there is no checkpoint yet, so this is a fresh start"), "{said}");
    // Seen before: "Finished", and nothing trained.
    let (trained, said) = fit(0.2, 2, "auto");
    assert_eq!(trained, 4);
    let passed = "ROOT/lightning_logs/version_0/checkpoints/epoch=2-step=6.ckpt is skipped, because its run had other hyper-parameters: lr=0.1 instead of 0.2; give its path to resume from it";
    assert!(said.contains(passed), "{said}");
    assert!(said.contains("there is no checkpoint to resume from, so this is a fresh start"), "{said}");
    // What may change: each goes on with its own, in its folder, to another number of epochs.
    for (lr, epochs, trained) in [(0.1, 4, 2), (0.2, 4, 4)] {
        assert_eq!(fit(lr, epochs, "auto").0, trained);
    }
    assert_eq!(fs::read_dir(root.path().join("lightning_logs")).unwrap().count(), 2);
    // Who names it gets it.
    let named = root.path().join("lightning_logs/version_0");
    assert_eq!(fit(0.3, 5, named.to_str().unwrap()).0, 2);
}
