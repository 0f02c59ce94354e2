//! Checkpoints that cannot be written: nothing that was there is lost, and what a `ModelCheckpoint` says is true.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use fulgurite::callbacks::{LambdaCallback, OnExceptionCheckpoint, SaveLast};
use fulgurite::fabric::{CheckpointIo, Commit, CommitFailure, FabricError, TorchCheckpointIo};
use fulgurite::loggers::{LoggerError, MemoryLogger, RunStatus};
use fulgurite::prelude::*;
use fulgurite::torch::serialization::faults::{Fault, FaultyFileSystem};
use fulgurite::torch::serialization::{self, FileSystem, LocalFileSystem, SyncWrite};
use fulgurite::{Console, OnSaveError, Plugin};

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// Writes each checkpoint when so many more were asked for, or someone waits, as a writer in the background does; those
/// whose names are listed fail.
#[derive(Default)]
struct Late {
    io: TorchCheckpointIo,
    lag: usize,
    failing: Vec<&'static str>,
    queue: VecDeque<(Value, Commit)>,
    failures: VecDeque<CommitFailure>,
}

impl Late {
    fn write_one(&mut self) {
        let Some((checkpoint, commit)) = self.queue.pop_front() else { return };
        let fails = |path: &Path| self.failing.iter().any(|name| path.file_stem().unwrap() == *name);
        let failing = [Some(&commit.path), commit.alias.as_ref().map(|alias| &alias.path)].into_iter().flatten();
        let done = match failing.into_iter().find(|path| fails(path)).cloned() {
            Some(path) => {
                if path != commit.path {
                    self.io.save(&checkpoint, &commit.path).unwrap();
                }
                Err(FabricError::Checkpoint { path, message: "no space".into() })
            }
            None => self.io.commit(&checkpoint, &commit),
        };
        if let Err(error) = done {
            self.failures.push_back(CommitFailure { commit, error });
        }
    }
}

impl CheckpointIo for Late {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        self.io.save(checkpoint, path)
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.io.load(path)
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        self.io.remove(path)
    }

    fn commit(&mut self, checkpoint: &Value, commit: &Commit) -> Result<(), FabricError> {
        self.queue.push_back((checkpoint.map_tensors(&mut |t| t.copy()), commit.clone()));
        while self.queue.len() > self.lag {
            self.write_one();
        }
        Ok(())
    }

    fn exists(&mut self, path: &Path) -> Result<bool, FabricError> {
        Ok(path.exists() || self.queue.iter().any(|(_, commit)| commit.path == path))
    }

    fn poll(&mut self) -> Option<CommitFailure> {
        self.failures.pop_front()
    }

    fn wait(&mut self) -> Option<CommitFailure> {
        while !self.queue.is_empty() {
            self.write_one();
        }
        self.poll()
    }
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// The visible files in a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|path| !name(path).starts_with('.')).collect();
    files.sort();
    files
}

fn step_in(path: &Path) -> i64 {
    serialization::load(path).unwrap().as_dict().unwrap().int("global_step").unwrap()
}

/// Six validations with these losses, one every two steps, each of which saves; the named saves fail. Returns what is
/// said of the checkpoints kept, in one line.
fn kept(checkpoint: ModelCheckpoint, losses: &[f64], lag: usize, failing: &[&'static str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint.dirpath(folder.path()).filename("{step}").auto_insert_metric_name(false);
    let console = Console::memory();
    let mut trainer = quiet(folder.path())
        .max_epochs(3)
        .val_check_interval(2)
        .callback(checkpoint.on_save_error(OnSaveError::Warn))
        .plugin(Plugin::checkpoint_io(Late { lag, failing: failing.into(), ..Late::default() }))
        .console(console.clone())
        .build()
        .unwrap();
    _ = trainer.fit(&mut Scripted::new(losses), (batches(4), batches(1))).unwrap();
    assert_eq!(console.contents().matches("warning: a save failed, and the run continues").count(), failing.len());

    let said = trainer.callback::<ModelCheckpoint>().unwrap();
    let models: Vec<String> =
        said.best_k_models().iter().map(|(path, loss)| format!("{}={loss}", name(path))).collect();
    let there = files(folder.path());
    let mentioned = said.best_k_models().iter().map(|(path, _)| path.as_path());
    let mentioned: Vec<&Path> = mentioned.chain(said.best_model_path()).chain(said.last_model_path()).collect();
    assert!(mentioned.iter().all(|path| path.exists()), "{mentioned:?} {there:?}");
    let or_dash = |path: Option<&Path>| path.map_or("-".into(), name);
    let forgotten = there.iter().filter(|path| !mentioned.contains(&path.as_path()));
    let forgotten: Vec<String> = forgotten.map(|path| name(path)).collect();
    let last = said.last_model_path().map_or("-".into(), |path| step_in(path).to_string());
    format!("{}; best {}; last is {last}; forgotten {forgotten:?}", models.join(" "), or_dash(said.best_model_path()))
}

fn table(checkpoint: &ModelCheckpoint, losses: &[f64], failing: &[&[&'static str]], expected: Expect) {
    let mut table = String::new();
    for failing in failing {
        for lag in [0, 1, 3] {
            let kept = kept(checkpoint.clone(), losses, lag, failing);
            table.push_str(&format!("{} known {lag} later: {kept}\n", failing.join(", ")));
        }
    }
    expected.assert_eq(&table);
}

#[test]
fn a_save_that_failed_is_as_if_it_had_not_happened() {
    let (falling, uneven) = (&[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], &[3.0, 1.0, 5.0, 2.0, 4.0, 1.5]);
    let one = ModelCheckpoint::monitor("val_loss");
    let two = one.clone().save_top_k(2).save_last(SaveLast::Copy);
    table(
        &one,
        falling,
        &[&["2"], &["6"], &["12"]],
        expect![[r#"
        2 known 0 later: 12=1; best 12; last is -; forgotten []
        2 known 1 later: 12=1; best 12; last is -; forgotten []
        2 known 3 later: 12=1; best 12; last is -; forgotten []
        6 known 0 later: 12=1; best 12; last is -; forgotten []
        6 known 1 later: 12=1; best 12; last is -; forgotten []
        6 known 3 later: 4=5 12=1; best 12; last is -; forgotten []
        12 known 0 later: 10=2; best 10; last is -; forgotten []
        12 known 1 later: 10=2; best 10; last is -; forgotten []
        12 known 3 later: 10=2; best 10; last is -; forgotten []
    "#]],
    );
    table(
        &two,
        falling,
        &[&["2"], &["6"], &["12"], &["8", "10"]],
        expect![[r#"
        2 known 0 later: 10=2 12=1; best 12; last is 12; forgotten []
        2 known 1 later: 10=2 12=1; best 12; last is 12; forgotten []
        2 known 3 later: 10=2 12=1; best 12; last is 12; forgotten []
        6 known 0 later: 10=2 12=1; best 12; last is 12; forgotten []
        6 known 1 later: 10=2 12=1; best 12; last is 12; forgotten []
        6 known 3 later: 2=6 10=2 12=1; best 12; last is 12; forgotten []
        12 known 0 later: 8=3 10=2; best 10; last is 12; forgotten []
        12 known 1 later: 8=3 10=2; best 10; last is 12; forgotten []
        12 known 3 later: 8=3 10=2; best 10; last is 12; forgotten []
        8, 10 known 0 later: 6=4 12=1; best 12; last is 12; forgotten []
        8, 10 known 1 later: 6=4 12=1; best 12; last is 12; forgotten []
        8, 10 known 3 later: 4=5 6=4 12=1; best 12; last is 12; forgotten []
    "#]],
    );
    table(
        &two,
        uneven,
        &[&["2"], &["4"], &["8"], &["4", "12"]],
        expect![[r#"
        2 known 0 later: 4=1 12=1.5; best 4; last is 12; forgotten []
        2 known 1 later: 4=1 12=1.5; best 4; last is 12; forgotten []
        2 known 3 later: 4=1 12=1.5; best 4; last is 12; forgotten []
        4 known 0 later: 8=2 12=1.5; best 12; last is 12; forgotten []
        4 known 1 later: 8=2 12=1.5; best 12; last is 12; forgotten []
        4 known 3 later: 12=1.5; best 12; last is 12; forgotten []
        8 known 0 later: 4=1 12=1.5; best 4; last is 12; forgotten []
        8 known 1 later: 2=3 4=1 12=1.5; best 4; last is 12; forgotten []
        8 known 3 later: 2=3 4=1 12=1.5; best 4; last is 12; forgotten []
        4, 12 known 0 later: 2=3 8=2; best 8; last is 12; forgotten []
        4, 12 known 1 later: 8=2 10=4; best 8; last is 12; forgotten []
        4, 12 known 3 later: 8=2; best 8; last is 12; forgotten []
    "#]],
    );
    let latest = ModelCheckpoint::new().save_last(SaveLast::Link);
    table(
        &latest,
        falling,
        &[&["2"], &["10"], &["12"]],
        expect![[r#"
        2 known 0 later: ; best 12; last is 12; forgotten []
        2 known 1 later: ; best 12; last is 12; forgotten []
        2 known 3 later: ; best 12; last is 12; forgotten []
        10 known 0 later: ; best 12; last is 12; forgotten []
        10 known 1 later: ; best 12; last is 12; forgotten ["8"]
        10 known 3 later: ; best 12; last is 12; forgotten ["8"]
        12 known 0 later: ; best 10; last is 10; forgotten []
        12 known 1 later: ; best 10; last is 10; forgotten []
        12 known 3 later: ; best 10; last is 10; forgotten []
    "#]],
    );
}

#[test]
fn a_second_name_that_cannot_be_made_leaves_the_file() {
    let last = ModelCheckpoint::new().save_last(SaveLast::Link).checkpoint_name_last("last-{step}");
    table(
        &last,
        &[1.0],
        &[&["last-2"], &["last-6"], &["last-12"]],
        expect![[r#"
        last-2 known 0 later: ; best 12; last is 12; forgotten []
        last-2 known 1 later: ; best 12; last is 12; forgotten []
        last-2 known 3 later: ; best 12; last is 12; forgotten []
        last-6 known 0 later: ; best 12; last is 12; forgotten []
        last-6 known 1 later: ; best 12; last is 12; forgotten []
        last-6 known 3 later: ; best 12; last is 12; forgotten ["4", "last-4"]
        last-12 known 0 later: ; best 12; last is 10; forgotten ["10"]
        last-12 known 1 later: ; best 12; last is 10; forgotten ["10"]
        last-12 known 3 later: ; best 12; last is 10; forgotten ["10"]
    "#]],
    );
}

/// Every call of the file system, once each, or from then on.
#[test]
fn whichever_call_fails_what_is_said_to_be_there_is_there() {
    let count = |files: FaultyFileSystem, checkpoint: ModelCheckpoint, folder: &Path, on_error| {
        let checkpoint = checkpoint.dirpath(folder).every_n_train_steps(2).on_save_error(on_error);
        let io = TorchCheckpointIo::on(Arc::new(files));
        let builder = quiet(folder).max_epochs(2).callback(checkpoint).plugin(Plugin::checkpoint_io(io));
        let mut trainer = builder.limit_val_batches(0).build().unwrap();
        let outcome = trainer.fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1)));
        (trainer, outcome)
    };
    let ways = [
        ModelCheckpoint::monitor("train_loss").mode(Mode::Max).save_top_k(2).save_last(SaveLast::Link),
        ModelCheckpoint::monitor("train_loss").save_top_k(2).save_last(SaveLast::Copy),
        ModelCheckpoint::new().save_last(SaveLast::Link),
    ];
    for way in ways {
        let folder = tempfile::tempdir().unwrap();
        let sound = FaultyFileSystem::without_faults();
        _ = count(sound.clone(), way.clone(), folder.path(), OnSaveError::Raise).1.unwrap();
        assert!(sound.calls() > 12, "{}", sound.calls());
        for call in 0..sound.calls() {
            for fault in [Fault::NoSpace, Fault::TornWrite] {
                for files in [FaultyFileSystem::new(call, fault), FaultyFileSystem::from_then_on(call, fault)] {
                    for on_error in [OnSaveError::Warn, OnSaveError::Raise] {
                        let folder = tempfile::tempdir().unwrap();
                        let (trainer, outcome) = count(files.clone(), way.clone(), folder.path(), on_error);
                        if on_error == OnSaveError::Warn {
                            _ = outcome.unwrap();
                        }
                        let said = trainer.callback::<ModelCheckpoint>().unwrap();
                        let models = said.best_k_models().iter().map(|(path, _)| path.as_path());
                        for path in models.chain(said.best_model_path()).chain(said.last_model_path()) {
                            step_in(path);
                        }
                        // Whatever has a name is whole, and no name leads nowhere.
                        assert!(self::files(folder.path()).iter().all(|path| step_in(path) > 0));
                    }
                }
            }
        }
    }
}

/// Looks at the folder after every call, as a run would that is killed there.
#[derive(Debug, Default)]
struct Watched {
    folder: PathBuf,
    had_one: Mutex<bool>,
    wrong: Mutex<Vec<String>>,
}

impl Watched {
    fn look(&self, call: &str) {
        let files = files(&self.folder);
        for path in &files {
            if let Err(error) = serialization::load(path) {
                self.wrong.lock().unwrap().push(format!("{} after {call}: {error}", name(path)));
            }
        }
        let mut had_one = self.had_one.lock().unwrap();
        if *had_one && files.is_empty() {
            self.wrong.lock().unwrap().push(format!("nothing is left after {call}"));
        }
        *had_one |= !files.is_empty();
    }

    fn looked<T>(&self, call: &str, outcome: T) -> T {
        self.look(call);
        outcome
    }
}

impl FileSystem for Watched {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
        self.looked("create_new", LocalFileSystem.create_new(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.looked("rename", LocalFileSystem.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.looked("remove_file", LocalFileSystem.remove_file(path))
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.looked("hard_link", LocalFileSystem.hard_link(original, link))
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.looked("symlink", LocalFileSystem.symlink(target, link))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.looked("sync_folder", LocalFileSystem.sync_folder(folder))
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.looked("create_dir_all", LocalFileSystem.create_dir_all(folder))
    }
}

#[test]
fn at_no_moment_does_a_name_lead_nowhere_or_is_the_last_good_file_gone() {
    let named = |checkpoint: ModelCheckpoint| checkpoint.checkpoint_name_last("last-{step}");
    let (rising, falling) = (ModelCheckpoint::monitor("step").mode(Mode::Max), ModelCheckpoint::monitor("step"));
    let (link, copy) = (SaveLast::Link, SaveLast::Copy);
    let ways = [
        rising.clone().save_last(link),
        named(rising.clone().save_last(link)),
        named(rising.clone().save_top_k(2).save_last(copy)),
        // The ranking evicts nothing, and then it is `last` that moves on.
        falling.clone().save_last(copy),
        falling.save_top_k(2).save_last(link),
        // One name for all, overwritten in place.
        rising.filename("best").save_last(link),
        ModelCheckpoint::new().filename("all").enable_version_counter(false).save_last(link),
        named(ModelCheckpoint::new().save_last(link)),
        ModelCheckpoint::new().save_top_k(0).save_last(copy),
    ];
    for way in ways {
        let folder = tempfile::tempdir().unwrap();
        // Twice in the same folder, so that names are taken; and once resumed.
        for resumes in [false, false, true] {
            let watched = Arc::new(Watched { folder: folder.path().into(), ..Watched::default() });
            let checkpoint = way.clone().dirpath(folder.path()).every_n_train_steps(1);
            let io = Plugin::checkpoint_io(TorchCheckpointIo::on(watched.clone()));
            let builder = quiet(folder.path()).limit_val_batches(0).callback(checkpoint).plugin(io);
            let mut trainer = builder.max_epochs(if resumes { 3 } else { 2 }).build().unwrap();
            _ = trainer
                .ckpt_path(resumes.then_some("last"))
                .fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1)))
                .unwrap();
            assert_eq!(trainer.state().resumed_from().is_some(), resumes);
            assert_eq!(*watched.wrong.lock().unwrap(), Vec::<String>::new());
            assert!(*watched.had_one.lock().unwrap());
        }
    }
}

#[test]
fn what_is_gone_when_a_run_is_resumed_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let fit = |epochs: u64, from: Option<&str>| {
        let checkpoint = ModelCheckpoint::monitor("val_loss").dirpath(folder.path()).save_top_k(3).filename("{step}");
        let builder = quiet(folder.path()).max_epochs(epochs).callback(checkpoint.auto_insert_metric_name(false));
        let mut trainer = builder.build().unwrap();
        _ = trainer
            .ckpt_path(from.map(|from| folder.path().join(from)))
            .fit(&mut Scripted::new(&[1.0, 2.0, 3.0, 4.0]), (batches(4), batches(1)))
            .unwrap();
        let said = trainer.callback::<ModelCheckpoint>().unwrap();
        let models: Vec<String> =
            said.best_k_models().iter().map(|(path, loss)| format!("{}={loss}", name(path))).collect();
        let best = said.best_model_path().map_or("-".into(), name);
        let kth = said.kth_best_model_path().map_or("-".into(), name);
        format!("{}; best {best}={:?}; next to go {kth}", models.join(" "), said.best_model_score())
    };
    assert_eq!(fit(3, None), "4=1 8=2 12=3; best 4=Some(1.0); next to go 12");
    std::fs::remove_file(folder.path().join("4.ckpt")).unwrap();
    // The losses begin anew: 1.0 is now that of step 16.
    assert_eq!(fit(4, Some("12.ckpt")), "8=2 12=3 16=1; best 16=Some(1.0); next to go 12");
    std::fs::remove_file(folder.path().join("16.ckpt")).unwrap();
    std::fs::remove_file(folder.path().join("8.ckpt")).unwrap();
    assert_eq!(fit(3, Some("12.ckpt")), "12=3; best 12=Some(3.0); next to go -");
}

/// A file system of 96 KB. It takes the right to mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=96k", "none"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(folder)),
            _ => None,
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that cannot run says why")]
fn a_disk_that_fills_up_keeps_what_is_on_it() {
    for on_error in [OnSaveError::Warn, OnSaveError::Raise] {
        let Some(disk) = SmallDisk::new() else {
            eprintln!("skipped: a tmpfs cannot be mounted here");
            return;
        };
        let folder = disk.0.path();
        let checkpoint = ModelCheckpoint::new().dirpath(folder).every_n_train_steps(1).save_top_k(Maximum::Unlimited);
        let console = Console::memory();
        let builder = quiet(folder).max_epochs(5).console(console.clone());
        let mut trainer = builder.callback(checkpoint.on_save_error(on_error)).build().unwrap();
        let outcome = trainer.fit(&mut Scripted::new(&[1.0]), (batches(8), batches(1)));
        let saved = files(folder);
        let no_space = "No space left on device";
        if on_error == OnSaveError::Warn {
            _ = outcome.unwrap();
            assert!(console.contents().contains(no_space), "{}", console.contents());
            assert_eq!(trainer.state().global_step(), 40);
        } else {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(no_space), "{error}");
        }
        assert!(saved.len() > 2 && saved.len() < 40, "{saved:?}");
        assert!(saved.iter().all(|path| step_in(path) > 0));
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), saved.len(), "nothing half-written is left");
    }
}

#[test]
fn a_failure_ends_the_run_unless_it_is_told_not_to() {
    let folder = tempfile::tempdir().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&heard);
    let listener = LambdaCallback::new().on_checkpoint_failed(move |trainer, _, commit, error| {
        let heard = format!("{} at {}: {error}", name(&commit.path), trainer.global_step());
        notes.lock().unwrap().push(heard.replace(&commit.path.display().to_string(), "it"));
        Ok(())
    });
    let checkpoint = ModelCheckpoint::new().dirpath(folder.path()).every_n_train_steps(2).filename("{step}");
    // It learns of step 2 in step 4, and the error ends the run there.
    let late = Late { lag: 1, failing: vec!["step=2"], ..Late::default() };
    let builder = quiet(folder.path()).max_epochs(5).callback(checkpoint).callback(listener);
    let mut trainer = builder.plugin(Plugin::checkpoint_io(late)).build().unwrap();
    let error = trainer.fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1))).unwrap_err();
    assert!(error.to_string().ends_with("step=2.ckpt: no space"), "{error}");
    assert_eq!(*heard.lock().unwrap(), ["step=2 at 4: checkpoint it: no space"]);
    // What was on its way is there.
    assert_eq!(files(folder.path()).iter().map(|path| step_in(path)).collect::<Vec<_>>(), [4]);
}

#[test]
fn what_an_error_or_an_impatient_user_leaves_may_fail_too() {
    let folder = tempfile::tempdir().unwrap();
    let console = Console::memory();
    let late = Late { lag: 3, failing: vec!["on_exception"], ..Late::default() };
    let builder = quiet(folder.path()).console(console.clone()).callback(OnExceptionCheckpoint::new(folder.path()));
    let mut trainer = builder.plugin(Plugin::checkpoint_io(late)).build().unwrap();
    let mut module = Scripted::new(&[1.0]);
    module.fails_after = Some(2);
    let error = trainer.fit(&mut module, (batches(4), batches(1))).unwrap_err();
    assert!(error.to_string().contains("the disk melted"), "{error}");
    assert!(console.contents().contains("on_exception.ckpt: no space"), "{}", console.contents());

    // What `save_checkpoint` returned from is there, or it says why not.
    module.fails_after = None;
    let path = folder.path().join("mine.ckpt");
    trainer.save_checkpoint(&mut module, &path, false).unwrap();
    assert_eq!(step_in(&path), 2);
    let error = trainer.save_checkpoint(&mut module, folder.path().join("on_exception.ckpt"), false).unwrap_err();
    assert!(error.to_string().ends_with("on_exception.ckpt: no space"), "{error}");
}

/// Cannot write the values of step 2 the first time.
struct Stumbles(MemoryLogger, bool);

impl Logger for Stumbles {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn version(&self) -> &str {
        self.0.version()
    }

    fn save_dir(&self) -> Option<&Path> {
        None
    }

    fn log_dir(&self) -> Option<&Path> {
        None
    }

    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        match step == 2 && !std::mem::replace(&mut self.1, true) {
            true => Err(LoggerError::other("Stumbles", "no answer")),
            false => self.0.log_metrics(metrics, step),
        }
    }

    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError> {
        self.0.log_hyperparams(params)
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        self.0.save()
    }

    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError> {
        self.0.finalize(status)
    }
}

#[test]
fn no_checkpoint_is_written_after_a_row_that_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let every = ModelCheckpoint::new().dirpath(folder.path()).every_n_train_steps(1).save_top_k(Maximum::Unlimited);
    let mut trainer = quiet(folder.path())
        .max_epochs(1)
        .log_every_n_steps(1)
        .logger(Stumbles(MemoryLogger::new(), false))
        .callback(every.filename("{step}"))
        .build()
        .unwrap();
    let error = trainer.fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1))).unwrap_err();
    assert_eq!(error.to_string(), "Stumbles: no answer");
    let there = files(folder.path());
    let rows = there.iter().map(|path| step_in(path)).collect::<Vec<_>>();
    assert_eq!(rows, [1, 2]);
    assert_eq!(trainer.best_model_path().as_ref(), there.last());
}

#[test]
fn a_callback_that_fails_on_a_failed_save_hides_nothing() {
    let (folder, console) = (tempfile::tempdir().unwrap(), Console::memory());
    let mut trainer = quiet(folder.path())
        .max_epochs(1)
        .console(console.clone())
        .callback(LambdaCallback::new().on_checkpoint_failed(|_, _, _, _| Err("nor can this".into())))
        .callback(ModelCheckpoint::new().dirpath(folder.path()).filename("one"))
        .plugin(Plugin::checkpoint_io(Late { failing: vec!["one"], ..Late::default() }))
        .build()
        .unwrap();
    let error = trainer.fit(&mut Scripted::new(&[1.0]), (batches(1), batches(1))).unwrap_err().to_string();
    assert!(error.contains("no space"), "{error}");
    assert!(console.contents().contains("nor can this"), "{}", console.contents());
    assert_eq!(trainer.best_model_path(), None);
}
