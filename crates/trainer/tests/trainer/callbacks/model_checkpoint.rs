//! Which checkpoints are written, under which names, and what stays of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fulgurite::callbacks::SaveLast;
use fulgurite::config::ValCheckInterval;
use fulgurite::prelude::*;
use fulgurite::torch::serialization;
use fulgurite::{Console, TrainerBuilder};

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// A run of three epochs of four batches, unless the case says otherwise.
struct Case {
    checkpoint: ModelCheckpoint,
    trainer: fn(TrainerBuilder) -> TrainerBuilder,
    losses: &'static [f64],
    batches: usize,
}

fn case(checkpoint: ModelCheckpoint) -> Case {
    Case { checkpoint, trainer: |trainer| trainer, losses: &[3.0, 1.0, 2.0], batches: 4 }
}

fn val_loss() -> ModelCheckpoint {
    ModelCheckpoint::monitor("val_loss")
}

impl Case {
    fn trainer(mut self, trainer: fn(TrainerBuilder) -> TrainerBuilder) -> Case {
        self.trainer = trainer;
        self
    }

    fn losses(mut self, losses: &'static [f64]) -> Case {
        self.losses = losses;
        self
    }

    fn batches(mut self, batches: usize) -> Case {
        self.batches = batches;
        self
    }

    /// `saved at <steps>; <file>@<step in it> …; best <file>`.
    #[track_caller]
    fn expect(self, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let builder = quiet(folder.path()).max_epochs(3).callback(self.checkpoint.dirpath(folder.path()));
        let mut trainer = (self.trainer)(builder).build().unwrap();
        let mut module = Scripted::new(self.losses);
        _ = trainer.fit(&mut module, (batches(self.batches), batches(1))).unwrap();
        assert_eq!(summary(folder.path(), &trainer, &module), expected);
    }
}

fn summary(folder: &Path, trainer: &Trainer, module: &Scripted) -> String {
    let saves: Vec<String> = module.saves.iter().map(i64::to_string).collect();
    let name = |path: &Path| path.strip_prefix(folder).unwrap().with_extension("").display().to_string();
    let files: Vec<String> = files(folder).iter().map(|path| format!("{}@{}", name(path), step_in(path))).collect();
    let best = trainer.best_model_path().map_or("-".into(), |path| name(&path));
    format!("saved at {}; {}; best {best}", saves.join(" "), files.join(" "))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn step_in(path: &Path) -> i64 {
    serialization::load(path).unwrap().as_dict().unwrap().int("global_step").unwrap()
}

#[test]
fn the_best_or_the_latest_are_kept() {
    case(ModelCheckpoint::new()).expect("saved at 4 8 12; epoch=2-step=12@12; best epoch=2-step=12");
    case(ModelCheckpoint::monitor("train_loss"))
        .trainer(|t| t.limit_val_batches(0))
        .expect("saved at 4 8 12; epoch=2-step=12@12; best epoch=2-step=12");
    case(val_loss()).expect("saved at 4 8; epoch=1-step=8@8; best epoch=1-step=8");
    case(val_loss().mode(Mode::Max)).expect("saved at 4; epoch=0-step=4@4; best epoch=0-step=4");
    case(val_loss().save_top_k(2)).expect("saved at 4 8 12; epoch=1-step=8@8 epoch=2-step=12@12; best epoch=1-step=8");
    case(val_loss().save_top_k(Maximum::Unlimited))
        .expect("saved at 4 8 12; epoch=0-step=4@4 epoch=1-step=8@8 epoch=2-step=12@12; best epoch=1-step=8");
    case(ModelCheckpoint::new().save_top_k(Maximum::Unlimited))
        .expect("saved at 4 8 12; epoch=0-step=4@4 epoch=1-step=8@8 epoch=2-step=12@12; best epoch=2-step=12");
    case(ModelCheckpoint::new().save_top_k(0)).expect("saved at ; ; best -");
    case(val_loss().save_top_k(2))
        .losses(&[f64::NAN, 1.0, f64::NAN])
        .expect("saved at 4 8; epoch=0-step=4@4 epoch=1-step=8@8; best epoch=1-step=8");
    case(ModelCheckpoint::monitor("step").mode(Mode::Max))
        .expect("saved at 4 8 12; epoch=2-step=12@12; best epoch=2-step=12");
}

#[test]
fn last_is_a_second_name_of_the_newest_checkpoint() {
    let latest = ModelCheckpoint::new;
    case(latest().save_last(SaveLast::Copy))
        .expect("saved at 4 8 12; epoch=2-step=12@12 last@12; best epoch=2-step=12");
    case(latest().save_last(SaveLast::Link))
        .expect("saved at 4 8 12; epoch=2-step=12@12 last@12; best epoch=2-step=12");
    case(val_loss().save_last(SaveLast::Link))
        .losses(&[1.0, 2.0, 3.0])
        .expect("saved at 4; epoch=0-step=4@4 last@4; best epoch=0-step=4");
    case(latest().save_top_k(0).save_last(SaveLast::Copy)).expect("saved at 12; last@12; best -");
    case(latest().save_top_k(0).save_last(SaveLast::Copy).every_n_train_steps(4))
        .expect("saved at 4 8 12; last@12; best -");
    case(latest().save_last(SaveLast::Copy).checkpoint_name_last("{epoch}-last"))
        .expect("saved at 4 8 12; epoch=2-last@12 epoch=2-step=12@12; best epoch=2-step=12");
    case(latest().filename("last").save_last(SaveLast::Copy)).expect("saved at 4 8 12; last-v1@12 last@12; best last");
}

#[test]
fn triggers() {
    let all = || ModelCheckpoint::new().save_top_k(Maximum::Unlimited);
    case(ModelCheckpoint::new().every_n_epochs(2)).expect("saved at 8; epoch=1-step=8@8; best epoch=1-step=8");
    case(all().every_n_epochs(2))
        .trainer(|trainer| trainer.max_epochs(4))
        .expect("saved at 8 16; epoch=1-step=8@8 epoch=3-step=16@16; best epoch=3-step=16");
    case(ModelCheckpoint::new().every_n_epochs(0)).expect("saved at ; ; best -");
    case(all().every_n_train_steps(3)).expect(
        "saved at 3 6 9 12; epoch=0-step=3@3 epoch=1-step=6@6 epoch=2-step=12@12 epoch=2-step=9@9; best epoch=2-step=12",
    );
    case(ModelCheckpoint::new().every_n_train_steps(3))
        .expect("saved at 3 6 9 12; epoch=2-step=12@12; best epoch=2-step=12");
    case(ModelCheckpoint::new().every_n_train_steps(3))
        .trainer(|trainer| trainer.accumulate_grad_batches(2))
        .expect("saved at 3 6; epoch=2-step=6@6; best epoch=2-step=6");
    case(all().train_time_interval(Duration::ZERO)).trainer(|trainer| trainer.max_epochs(1)).expect(
        "saved at 1 2 3 4; epoch=0-step=1@1 epoch=0-step=2@2 epoch=0-step=3@3 epoch=0-step=4@4; best epoch=0-step=4",
    );
    case(ModelCheckpoint::new().train_time_interval(Duration::from_secs(3600))).expect("saved at ; ; best -");
    case(ModelCheckpoint::new())
        .trainer(|trainer| trainer.max_steps(6))
        .expect("saved at 4 6; epoch=1-step=6@6; best epoch=1-step=6");
}

#[test]
fn epochs_are_saved_after_validation_if_that_runs_within_them() {
    let all = || ModelCheckpoint::new().save_top_k(Maximum::Unlimited);
    let after_each = "saved at 2 4 6 8 10 12; epoch=0-step=2@2 epoch=0-step=4@4 epoch=1-step=6@6 epoch=1-step=8@8 epoch=2-step=10@10 epoch=2-step=12@12; best epoch=2-step=12";
    let epochs = "saved at 4 8 12; epoch=0-step=4@4 epoch=1-step=8@8 epoch=2-step=12@12; best epoch=2-step=12";
    case(all()).trainer(|trainer| trainer.val_check_interval(2)).expect(after_each);
    case(all()).trainer(|trainer| trainer.val_check_interval(0.5)).expect(after_each);
    case(all().save_on_train_epoch_end(true)).trainer(|trainer| trainer.val_check_interval(2)).expect(epochs);
    case(all().save_on_train_epoch_end(false)).expect(epochs);
    case(all()).trainer(|trainer| trainer.limit_val_batches(0)).expect(epochs);
    case(all()).trainer(|trainer| trainer.limit_val_batches(0).val_check_interval(2)).expect(epochs);
    case(all())
        .trainer(|trainer| trainer.val_check_interval(ValCheckInterval::Time(Duration::from_nanos(1))).max_epochs(1))
        .expect("saved at 1 2 3 4; epoch=0-step=1@1 epoch=0-step=2@2 epoch=0-step=3@3 epoch=0-step=4@4; best epoch=0-step=4");
}

/// Lightning stops at the last validation: step 2 of 3, and step 8 of 12.
#[test]
fn the_last_update_of_a_run_is_saved() {
    case(ModelCheckpoint::new())
        .trainer(|trainer| trainer.val_check_interval(2).accumulate_grad_batches(3).max_epochs(1))
        .batches(7)
        .expect("saved at 1 2 3; epoch=0-step=3@3; best epoch=0-step=3");
    case(ModelCheckpoint::new().save_top_k(Maximum::Unlimited))
        .trainer(|trainer| trainer.check_val_every_n_epoch(2))
        .expect("saved at 8 12; epoch=1-step=8@8 epoch=2-step=12@12; best epoch=2-step=12");
    case(val_loss().save_last(SaveLast::Copy))
        .losses(&[1.0, 2.0, 3.0])
        .expect("saved at 4 12; epoch=0-step=4@4 last@12; best epoch=0-step=4");
}

/// Lightning-AI/pytorch-lightning#20919: a step trigger on the last batch of an epoch ranked its weights by the
/// validation of the epoch before.
#[test]
fn issue_20919_a_step_trigger_waits_for_the_validation_of_its_step() {
    let fresh = "saved at 4 6 8 10 12; epoch=0-step=4@4 epoch=1-step=6@6 epoch=1-step=8@8 epoch=2-step=10@10 epoch=2-step=12@12; best epoch=1-step=8";
    let every_two = || val_loss().save_top_k(Maximum::Unlimited).every_n_train_steps(2);
    case(every_two().save_on_train_epoch_end(false)).expect(fresh);
    // Lightning does not wait here, and loses the save of step 4.
    case(every_two()).expect(fresh);
    // Nor here: it saves step 6 with the loss of step 4.
    case(every_two().filename("{step}-{val_loss:.0f}"))
        .trainer(|trainer| trainer.val_check_interval(2).max_epochs(2))
        .losses(&[6.0, 5.0, 4.0, 3.0])
        .expect("saved at 2 4 6 8; step=2-val_loss=6@2 step=4-val_loss=5@4 step=6-val_loss=4@6 step=8-val_loss=3@8; best step=8-val_loss=3");
    case(every_two().save_on_train_epoch_end(true).filename("{step}-{val_loss:.0f}"))
        .trainer(|trainer| trainer.max_epochs(2))
        .expect("saved at 4 6 8; step=4-val_loss=3@4 step=6-val_loss=3@6 step=8-val_loss=3@8; best step=4-val_loss=3");
}

#[test]
fn a_monitored_value_of_training_needs_no_validation() {
    case(ModelCheckpoint::monitor("train_loss").save_top_k(Maximum::Unlimited).every_n_train_steps(3))
        .trainer(|trainer| trainer.limit_val_batches(0))
        .expect("saved at 3 6 9 12; epoch=0-step=3@3 epoch=1-step=6@6 epoch=2-step=12@12 epoch=2-step=9@9; best epoch=2-step=12");
}

#[test]
fn names_and_versions() {
    let latest = || ModelCheckpoint::new().filename("x");
    case(latest().save_top_k(Maximum::Unlimited)).expect("saved at 4 8 12; x@12; best x");
    case(latest()).expect("saved at 4 8 12; x@12; best x");
    case(val_loss().save_top_k(2).filename("x")).expect("saved at 4 8 12; x-v1@8 x@12; best x-v1");
    case(latest().save_top_k(Maximum::Unlimited).enable_version_counter(false)).expect("saved at 4 8 12; x@12; best x");
    case(val_loss().save_top_k(2).filename("{epoch}-{val_loss:.2f}"))
        .expect("saved at 4 8 12; epoch=1-val_loss=1.00@8 epoch=2-val_loss=2.00@12; best epoch=1-val_loss=1.00");
    case(val_loss().filename("{val_loss:.1f}/m").auto_insert_metric_name(false))
        .expect("saved at 4 8; 1.0/m@8; best 1.0/m");
    case(val_loss().filename("{val_loss:.1f}-{nothing}"))
        .expect("saved at 4 8; val_loss=1.0-nothing=0@8; best val_loss=1.0-nothing=0");
    case(ModelCheckpoint::new().checkpoint_join_char("_").checkpoint_equals_char(":"))
        .expect("saved at 4 8 12; epoch:2_step:12@12; best epoch:2_step:12");
}

#[test]
fn files_of_other_runs_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["x.ckpt", "last.ckpt"] {
        std::fs::write(folder.path().join(name), "precious").unwrap();
    }
    let checkpoint = ModelCheckpoint::new().dirpath(folder.path()).filename("x").save_last(SaveLast::Copy);
    let console = fulgurite::Console::memory();
    let builder = quiet(folder.path()).max_epochs(1).callback(checkpoint).console(console.clone());
    let mut trainer = builder.build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[1.0]), (batches(2), batches(1))).unwrap();
    for name in ["x.ckpt", "last.ckpt"] {
        assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), "precious");
    }
    let checkpoint = trainer.callback::<ModelCheckpoint>().unwrap();
    let real = folder.path().canonicalize().unwrap();
    assert_eq!(checkpoint.best_model_path(), Some(real.join("x-v1.ckpt").as_path()));
    assert_eq!(checkpoint.last_model_path(), Some(real.join("last-v1.ckpt").as_path()));
    let warning = format!("warning: the checkpoint folder {} exists and is not empty", real.display());
    assert!(console.contents().contains(&warning), "{}", console.contents());
}

#[test]
fn two_callbacks_in_one_folder_do_not_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let named = |callback: ModelCheckpoint| callback.dirpath(folder.path()).filename("x");
    let mut trainer = quiet(folder.path())
        .max_epochs(3)
        .callback(named(ModelCheckpoint::new()))
        .callback(named(val_loss()))
        .build()
        .unwrap();
    let mut module = Scripted::new(&[3.0, 1.0, 2.0]);
    _ = trainer.fit(&mut module, (batches(4), batches(1))).unwrap();
    let steps: Vec<i64> = files(folder.path()).iter().map(|path| step_in(path)).collect();
    assert_eq!((files(folder.path()).len(), steps.iter().sum::<i64>()), (2, 12 + 8));
}

#[test]
fn last_links_and_shares_space() {
    let folder = tempfile::tempdir().unwrap();
    for (save_last, target) in [(SaveLast::Link, Some("epoch=0-step=2.ckpt")), (SaveLast::Copy, None)] {
        let folder = folder.path().join(format!("{save_last:?}"));
        let checkpoint = ModelCheckpoint::new().dirpath(&folder).save_last(save_last);
        let mut trainer = quiet(&folder).max_epochs(1).callback(checkpoint).build().unwrap();
        _ = trainer.fit(&mut Scripted::new(&[1.0]), (batches(2), batches(1))).unwrap();
        let link = std::fs::read_link(folder.join("last.ckpt")).ok();
        assert_eq!(link.as_deref(), target.map(Path::new));
        let contents = |name: &str| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(contents("last.ckpt"), contents("epoch=0-step=2.ckpt"));
    }
}

#[test]
fn folders_follow_the_logger_or_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let root = std::path::absolute(folder.path()).unwrap();
    let dir = |trainer: TrainerBuilder| {
        let mut trainer = trainer.max_epochs(1).build().unwrap();
        _ = trainer.fit(&mut Scripted::new(&[1.0]), (batches(1), batches(1))).unwrap();
        trainer.callback::<ModelCheckpoint>().unwrap().checkpoint_dir().unwrap().to_path_buf()
    };
    assert_eq!(dir(quiet(&root)), root.join("checkpoints"));
    assert_eq!(dir(quiet(&root).logger(CsvLogger::new(&root))), root.join("lightning_logs/version_0/checkpoints"));
    let memory = fulgurite::loggers::MemoryLogger::new();
    assert_eq!(dir(quiet(&root).logger(memory)), root.join("memory/version_0/checkpoints"));
    let given = ModelCheckpoint::new().dirpath(root.join("a/./b/../c"));
    assert_eq!(dir(quiet(&root).callback(given)), root.canonicalize().unwrap().join("a/c"));
}

#[test]
fn a_checkpoint_knows_itself_and_resuming_goes_on_ranking() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    let checkpoint = || val_loss().save_top_k(2).dirpath(folder.path()).save_last(SaveLast::Copy);
    let mut first = quiet(folder.path()).max_epochs(2).callback(checkpoint()).build().unwrap();
    _ = first.fit(&mut Scripted::new(&[3.0, 1.0]), (batches(4), batches(1))).unwrap();

    let best = real.join("epoch=1-step=8.ckpt");
    let file = serialization::load(&best).unwrap();
    let key = "ModelCheckpoint{'monitor': 'val_loss', 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, 'train_time_interval': None}";
    let state = file.as_dict().unwrap().dict("callbacks").unwrap().dict(key).unwrap();
    assert_eq!(state.str("best_model_path").unwrap(), best.to_str().unwrap());
    assert_eq!(state.str("last_model_path").unwrap(), real.join("last.ckpt").to_str().unwrap());
    assert_eq!(state.str("kth_best_model_path").unwrap(), real.join("epoch=0-step=4.ckpt").to_str().unwrap());
    assert_eq!(state.tensor("best_model_score").unwrap().double_value(&[]), 1.0);
    assert_eq!(state.tensor("kth_value").unwrap().double_value(&[]), 3.0);
    let names: Vec<&str> = state.keys().collect();
    let lightning = [
        "monitor",
        "best_model_score",
        "best_model_path",
        "current_score",
        "dirpath",
        "best_k_models",
        "kth_best_model_path",
        "kth_value",
        "last_model_path",
    ];
    assert_eq!(names, lightning);

    let mut second = quiet(folder.path()).max_epochs(3).callback(checkpoint()).build().unwrap();
    _ = second.ckpt_path(best.to_str().unwrap()).fit(&mut Scripted::new(&[2.0]), (batches(4), batches(1))).unwrap();
    let checkpoint = second.callback::<ModelCheckpoint>().unwrap();
    let kept = [(best.clone(), 1.0), (real.join("epoch=2-step=12.ckpt"), 2.0)];
    assert_eq!(checkpoint.best_k_models(), kept);
    assert_eq!(checkpoint.best_model_path(), Some(best.as_path()));
    let last = checkpoint.last_model_path().unwrap();
    assert_eq!((last, step_in(last)), (real.join("last.ckpt").as_path(), 12));
}

#[test]
fn the_file_resumed_from_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = || ModelCheckpoint::new().dirpath(folder.path());
    let fit = |epochs: u64, from: Option<&Path>| {
        let mut trainer = quiet(folder.path()).max_epochs(epochs).callback(checkpoint()).build().unwrap();
        _ = trainer.ckpt_path(from).fit(&mut Scripted::new(&[1.0]), (batches(2), batches(1))).unwrap();
        trainer.best_model_path().unwrap()
    };
    let first = fit(1, None);
    let second = fit(3, Some(&first));
    assert_eq!(files(&folder.path().canonicalize().unwrap()), [first, second]);
}

#[test]
fn another_folder_starts_the_ranking_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let mut first = quiet(folder.path()).max_epochs(1).callback(val_loss().dirpath(&one)).build().unwrap();
    _ = first.fit(&mut Scripted::new(&[1.0]), (batches(2), batches(1))).unwrap();
    let best = first.best_model_path().unwrap();

    let console = fulgurite::Console::memory();
    let builder = quiet(folder.path()).max_epochs(2).console(console.clone());
    let mut second = builder.callback(val_loss().dirpath(&two)).build().unwrap();
    _ = second.ckpt_path(best.to_str().unwrap()).fit(&mut Scripted::new(&[5.0]), (batches(2), batches(1))).unwrap();
    assert_eq!(second.callback::<ModelCheckpoint>().unwrap().best_model_score(), Some(5.0));
    assert!(console.contents().contains("so the ranking starts anew"), "{}", console.contents());
    assert!(best.exists());
}

#[test]
fn weights_only_leaves_the_rest_out() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = ModelCheckpoint::new().dirpath(folder.path()).save_weights_only(true);
    let mut trainer = quiet(folder.path()).max_epochs(1).callback(checkpoint).build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[1.0]), (batches(1), batches(1))).unwrap();
    let file = serialization::load(trainer.best_model_path().unwrap()).unwrap();
    let file = file.as_dict().unwrap();
    assert!(file.get("state_dict").is_some());
    assert!(file.get("optimizer_states").is_none() && file.get("callbacks").is_none());
}

#[test]
fn an_error_leaves_a_checkpoint_if_asked_to() {
    for (save, expected) in [(true, "saved at 3; epoch=0-step=3@3 last@3; best -"), (false, "saved at ; ; best -")] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = ModelCheckpoint::new().dirpath(folder.path()).save_on_exception(save);
        let checkpoint = checkpoint.save_last(SaveLast::Copy);
        let mut trainer = quiet(folder.path()).max_epochs(1).callback(checkpoint).build().unwrap();
        let mut module = Scripted::new(&[1.0]);
        module.fails_after = Some(3);
        let error = trainer.fit(&mut module, (batches(4), batches(1))).unwrap_err();
        assert!(error.to_string().contains("the disk melted"), "{error}");
        assert_eq!(summary(folder.path(), &trainer, &module), expected);
    }
}

#[test]
fn a_rehearsal_saves_nothing() {
    case(ModelCheckpoint::new().save_last(SaveLast::Copy))
        .trainer(|trainer| trainer.fast_dev_run(1))
        .expect("saved at ; ; best -");
}

#[test]
fn the_ranking_can_be_read_as_yaml() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = val_loss().save_top_k(2).filename("{epoch}").dirpath(folder.path());
    let mut trainer = quiet(folder.path()).max_epochs(2).callback(checkpoint).build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[f64::NAN, 0.5]), (batches(1), batches(1))).unwrap();
    let yaml = trainer.callback::<ModelCheckpoint>().unwrap().to_yaml(None).unwrap();
    let real = folder.path().canonicalize().unwrap();
    assert_eq!(yaml, real.join("best_k_models.yaml"));
    let real = real.display();
    let expected = format!("\"{real}/epoch=0.ckpt\": .inf\n\"{real}/epoch=1.ckpt\": 0.5\n");
    assert_eq!(std::fs::read_to_string(yaml).unwrap(), expected);
}

#[test]
fn what_cannot_be_is_refused_at_the_start() {
    let new = ModelCheckpoint::new;
    for (checkpoint, expected) in [
        (
            new().save_top_k(3),
            "ModelCheckpoint::save_top_k(3) ranks checkpoints, and there is nothing to rank them by; name a value with `ModelCheckpoint::monitor(\"val_loss\")`, or keep 0, 1 or all (`Maximum::Unlimited`, -1 in files)",
        ),
        (
            new().every_n_epochs(1).every_n_train_steps(2),
            "ModelCheckpoint was given every_n_train_steps and every_n_epochs, which exclude each other; use one callback for each",
        ),
        (
            new().every_n_epochs(1).train_time_interval(Duration::ZERO),
            "ModelCheckpoint was given train_time_interval and every_n_epochs, which exclude each other; use one callback for each",
        ),
        (
            new().filename("{epoch"),
            "the file name `{epoch` has a `{` without its `}`; write fields as `{val_loss:.2f}`",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = quiet(folder.path()).max_epochs(1).callback(checkpoint).build().unwrap();
        let error = trainer.fit(&mut Scripted::new(&[1.0]), (batches(1), batches(1))).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    // 0 turns a trigger off, so these do not exclude each other.
    case(new().every_n_epochs(1).every_n_train_steps(0))
        .expect("saved at 4 8 12; epoch=2-step=12@12; best epoch=2-step=12");
}

#[test]
fn a_value_that_is_never_logged() {
    let folder = tempfile::tempdir().unwrap();
    let console = fulgurite::Console::memory();
    let fit = |checkpoint: ModelCheckpoint, val_batches: usize| {
        let builder = quiet(folder.path()).max_epochs(1).limit_val_batches(val_batches).console(console.clone());
        let mut trainer = builder.callback(checkpoint.dirpath(folder.path())).build().unwrap();
        trainer.fit(&mut Scripted::new(&[1.0]), (batches(2), batches(1))).map_err(|error| error.to_string())
    };
    let missing = |logged: &str| {
        format!(
            "ModelCheckpoint monitors `val_los`, which was not logged; logged so far: {logged}. Log it with `step.log(\"val_los\", ..)`, or monitor one of these"
        )
    };
    let monitor = || ModelCheckpoint::monitor("val_los");
    assert_eq!(fit(monitor(), 1).unwrap_err(), missing("train_loss, train_mean, val_loss"));
    assert_eq!(fit(monitor().every_n_train_steps(1), 1).unwrap_err(), missing("train_loss, val_loss"));
    // Without a validation it may still come: a warning.
    assert!(fit(monitor(), 0).is_ok());
    let warning = "one of these (so nothing is saved yet)";
    assert!(console.contents().contains(warning), "{}", console.contents());
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_step_trigger_whose_value_never_comes_says_so_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let console = fulgurite::Console::memory();
    let checkpoint = val_loss().every_n_train_steps(2).dirpath(folder.path());
    let builder = quiet(folder.path()).max_epochs(1).limit_val_batches(0).console(console.clone());
    let mut trainer = builder.callback(checkpoint).build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[1.0]), (batches(3), batches(1))).unwrap();
    assert!(console.contents().contains("ModelCheckpoint monitors `val_loss`"), "{}", console.contents());
}

#[test]
fn verbose_tells_of_each_decision() {
    let folder = tempfile::tempdir().unwrap();
    let console = fulgurite::Console::memory();
    let checkpoint = val_loss().filename("{epoch}").verbose(true).dirpath(folder.path());
    let mut trainer = quiet(folder.path()).max_epochs(2).console(console.clone()).callback(checkpoint).build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[0.5, 0.75]), (batches(2), batches(1))).unwrap();
    let real = folder.path().canonicalize().unwrap();
    let saved = format!(
        "Epoch 0, global step 2: 'val_loss' reached 0.50000 (best 0.50000), saving model to '{}/epoch=0.ckpt' as top 1",
        real.display()
    );
    let lines = console.contents();
    assert!(lines.contains(&saved), "{lines}");
    assert!(lines.contains("Epoch 1, global step 4: 'val_loss' was not in top 1"), "{lines}");
}

/// The state that an evaluation loads is that of its checkpoint; the fit that follows goes on with its own.
#[test]
fn a_checkpoint_that_was_only_evaluated_is_nothing_that_a_fit_goes_back_to() {
    let folder = tempfile::tempdir().unwrap();
    let console = Console::memory();
    let checkpoint = val_loss().dirpath(folder.path()).filename("{step}").save_top_k(2);
    let builder = quiet(folder.path()).max_epochs(3).console(console.clone()).callback(checkpoint);
    let mut trainer = builder.build().unwrap();
    let mut module = Scripted::new(&[3.0, 2.0, 1.0, 0.5]);
    _ = trainer.fit(&mut module, (batches(4), batches(1))).unwrap();
    let files = || {
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(), ["step=12.ckpt", "step=8.ckpt"]);
    let earlier = folder.path().join("step=8.ckpt");
    trainer.ckpt_path(&earlier).validate(&mut module, batches(1)).unwrap();
    assert_eq!(trainer.best_model_path().unwrap(), earlier);
    _ = trainer.fit(&mut module, (batches(4), batches(1))).unwrap();
    assert!(!console.contents().contains("goes back"), "{}", console.contents());
    // The two best of both fits: what the second wrote under a name of the first is another file.
    assert_eq!(files().len(), 2, "{:?}", files());
}
