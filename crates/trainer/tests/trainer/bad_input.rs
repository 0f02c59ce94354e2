//! What people get wrong, and what they are told. Every message is pinned.

use expect_test::{Expect, expect};
use fulgurite::config::TrainerConfig;
use fulgurite::data::{BatchIter, DataError, FnLoader, Loader};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{BoxError, Console, ModuleView, TrainerBuilder};

/// A module that does what its fields say.
struct Module {
    vars: nn::VarStore,
    layer: nn::Linear,
    step: fn(&Module, &Tensor, &mut Step) -> Result<Loss>,
    optimizers: Option<fn(&nn::VarStore) -> Optimizers>,
}

fn good_step(module: &Module, batch: &Tensor, step: &mut Step) -> Result<Loss> {
    let loss = batch.apply(&module.layer).square().mean(Kind::Float);
    step.log("train_loss", &loss);
    Ok(loss.into())
}

fn sgd(vars: &nn::VarStore) -> Optimizers {
    SGD::new(vars).lr(0.01).into()
}

fn module() -> Module {
    let vars = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(vars.root(), 4, 1, Default::default());
    Module { vars, layer, step: good_step, optimizers: Some(sgd) }
}

impl LightningModule for Module {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        (self.step)(self, &batch, step)
    }

    fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        step.log("val_loss", batch.apply(&self.layer).square().mean(Kind::Float));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        match self.optimizers {
            Some(configure) => Ok(configure(&self.vars)),
            None => fulgurite::not_implemented("configure_optimizers"),
        }
    }
}

fn batches(n: usize) -> Vec<Tensor> {
    (0..n).map(|i| Tensor::full([2, 4], i as f64 + 1.0, (Kind::Float, Device::Cpu))).collect()
}

fn quiet() -> TrainerBuilder {
    fulgurite_test_support::quiet().max_epochs(2)
}

#[track_caller]
fn check<T>(result: Result<T, impl std::fmt::Display>, expected: Expect) {
    let message = match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&message);
}

#[track_caller]
fn check_step(step: fn(&Module, &Tensor, &mut Step) -> Result<Loss>, expected: Expect) {
    let mut module = Module { step, ..module() };
    check(quiet().build().unwrap().fit(&mut module, (batches(3), batches(1))), expected);
}

#[track_caller]
fn check_arguments(change: impl FnOnce(TrainerBuilder) -> TrainerBuilder, expected: Expect) {
    check(change(quiet()).build().and_then(|mut t| t.fit(&mut module(), (batches(10), batches(2)))), expected);
}

#[test]
fn losses_that_cannot_be_trained_on() {
    check_step(
        |m, x, _| Ok(x.apply(&m.layer).square().into()),
        expect![
            "training_step of `Module` returned a loss of shape [2, 1]; return one number, for example with `.mean(Kind::Float)`"
        ],
    );
    check_step(
        |_, x, _| Ok(x.mean(Kind::Float).into()),
        expect![
            "training_step of `Module` returned a loss without a gradient: it does not depend on the module's parameters, or was computed under `no_grad`; compute it from parameters that require a gradient, or return `Loss::skip()`"
        ],
    );
    check_step(
        |_, _, _| Ok(Tensor::new().into()),
        expect![
            "training_step of `Module` returned an undefined tensor; return the loss, or `Loss::skip()` for a batch without one"
        ],
    );
}

#[test]
fn a_users_own_error_passes_through_unharmed() {
    let mut module = Module { step: |_, _, _| Err(std::fmt::Error.into()), ..module() };
    let error = quiet().build().unwrap().fit(&mut module, (batches(3), batches(1))).unwrap_err();
    expect!["Module::training_step failed (epoch 0, batch 0): an error occurred when formatting an argument"]
        .assert_eq(&error.to_string());
    assert!(std::error::Error::source(&error).is_some_and(|source| source.is::<std::fmt::Error>()));
}

#[test]
fn a_tch_panic_in_a_step_names_hook_epoch_and_batch() {
    let wrong_shape = |_: &Module, x: &Tensor, _: &mut Step| {
        Ok(Loss::from(x.matmul(&Tensor::ones([3, 3], (Kind::Float, Device::Cpu)))))
    };
    let mut module = Module { step: wrong_shape, ..module() };
    let error = quiet().build().unwrap().fit(&mut module, (batches(3), batches(1))).unwrap_err().to_string();
    let (where_it_was, what) = error.split_once(": ").unwrap();
    assert_eq!(where_it_was, "Module::training_step panicked (epoch 0, batch 0)");
    assert!(what.contains("mat1 and mat2 shapes cannot be multiplied"), "{what}");
}

#[test]
fn modules_that_lack_something() {
    struct NoLoaders;
    impl LightningDataModule for NoLoaders {
        type Batch = Tensor;
    }
    let mut no_optimizer = Module { optimizers: None, ..module() };
    check(
        quiet().build().unwrap().fit(&mut no_optimizer, (batches(3), batches(1))),
        expect![
            "fit needs `configure_optimizers`, and `Module` does not implement it; implement `LightningModule::configure_optimizers`, or return `Optimizers::none()` from it to train without one"
        ],
    );
    check(
        quiet().build().unwrap().fit(&mut module(), ()),
        expect![
            "fit needs `train_dataloader`, and `Module` does not implement it; implement `LightningModule::train_dataloader`, or pass a loader to `fit`"
        ],
    );
    check(
        quiet().build().unwrap().test(&mut module(), batches(1)),
        expect!["test needs `test_step`, and `Module` does not implement it; implement `LightningModule::test_step`"],
    );
    check(
        quiet().build().unwrap().predict(&mut module(), batches(1)),
        expect![
            "predict needs `predict_step`, and `Module` does not implement it; implement `LightningModule::predict_step`"
        ],
    );
    check(
        quiet().build().unwrap().validate(&mut module(), ()),
        expect![
            "validate needs `val_dataloader`, and `Module` does not implement it; implement `LightningModule::val_dataloader`, or pass a loader to `validate`"
        ],
    );
    check(
        quiet().build().unwrap().predict(&mut module(), &mut NoLoaders),
        expect![
            "predict needs `predict_dataloader`, and `NoLoaders` does not implement it; implement `LightningDataModule::predict_dataloader`"
        ],
    );
}

#[test]
fn two_optimizers_are_one_too_many() {
    let two = |vars: &nn::VarStore| sgd(vars).and(sgd(vars));
    let mut module = Module { optimizers: Some(two), ..module() };
    check(
        quiet().build().unwrap().fit(&mut module, (batches(3), batches(1))),
        expect![
            "configure_optimizers returned 2 optimizers, and one step updates one; let them take turns with `Optimizers::frequency`, step them yourself with `automatic_optimization` false, or put the parameters into groups of one optimizer"
        ],
    );
}

#[test]
fn an_optimizer_for_parameters_of_another_model() {
    let foreign = |_: &nn::VarStore| {
        let elsewhere = nn::VarStore::new(Device::Cpu);
        let _layer = nn::linear(elsewhere.root(), 5, 7, Default::default());
        sgd(&elsewhere)
    };
    let mut module = Module { optimizers: Some(foreign), ..module() };
    check(
        quiet().build().unwrap().fit(&mut module, (batches(3), batches(1))),
        expect![
            "SGD was given a parameter of shape [7, 5] (group 0) that is not among the parameters that `Module::vars` returns, so it would be in no checkpoint; create its layer from that `VarStore`, or list it there"
        ],
    );
}

#[test]
fn values_that_cannot_be_logged() {
    check_step(
        |m, x, s| {
            s.log("x", x);
            good_step(m, x, s)
        },
        expect![[
            r#"log("x") in training_step: a tensor of shape [2, 4] is not one number; reduce it first, for example with `.mean(Kind::Float)`"#
        ]],
    );
    check_step(
        |m, x, s| {
            s.log("x", 1.0).when(false, false);
            good_step(m, x, s)
        },
        expect![[r#"log("x") in training_step: it is recorded neither on step nor on epoch; turn one of them on"#]],
    );
    check_step(
        |m, x, s| {
            s.log("x/dataloader_idx_0", 1.0);
            good_step(m, x, s)
        },
        expect![[
            r#"log("x/dataloader_idx_0") in training_step: `/dataloader_idx_` is appended to names when there are several loaders; choose another name, or set add_dataloader_idx(false)"#
        ]],
    );
    check_step(
        |m, x, s| {
            s.log("x", 1.0);
            s.log("x", 1.0).prog_bar();
            good_step(m, x, s)
        },
        expect![[
            r#"log("x") in training_step: it was logged before in this hook with other options; use the same options, or another name"#
        ]],
    );
}

#[test]
fn a_monitor_that_was_never_logged_lists_what_was() {
    check_arguments(
        |t| t.callback(EarlyStopping::monitor("val_los")),
        expect![[
            r#"EarlyStopping monitors `val_los`, which was not logged; logged so far: train_loss, val_loss. Log it with `step.log("val_los", ..)`, or monitor one of these"#
        ]],
    );
}

#[test]
fn a_plateau_scheduler_without_its_value() {
    use fulgurite::optim::ReduceLROnPlateau;
    let plateau =
        |vars: &nn::VarStore| sgd(vars).scheduler(LrSchedulerConfig::new(ReduceLROnPlateau::new()).monitor("val_los"));
    let mut with_monitor = Module { optimizers: Some(plateau), ..module() };
    check(
        quiet().build().unwrap().fit(&mut with_monitor, (batches(3), batches(1))),
        expect![[
            r#"ReduceLROnPlateau monitors `val_los`, which was not logged; logged so far: train_loss, val_loss. Log it with `step.log("val_los", ..)`, or monitor one of these"#
        ]],
    );
    let mut without = Module { optimizers: Some(|vars| sgd(vars).scheduler(ReduceLROnPlateau::new())), ..module() };
    check(
        quiet().build().unwrap().fit(&mut without, (batches(3), batches(1))),
        expect![[
            r#"ReduceLROnPlateau needs a value to monitor; name one with `LrSchedulerConfig::monitor("val_loss")`"#
        ]],
    );
}

#[test]
fn arguments_that_cannot_be() {
    check_arguments(
        |t| t.min_epochs(3),
        expect!["min_epochs=3 is above max_epochs=2; lower min_epochs or raise max_epochs"],
    );
    check_arguments(
        |t| t.max_steps(5).min_steps(6),
        expect!["min_steps=6 is above max_steps=5; lower min_steps or raise max_steps"],
    );
    check_arguments(
        |t| t.limit_train_batches(1.5),
        expect![
            "limit_train_batches=1.5 is not between 0.0 and 1.0; write a fraction in that range, or a whole number of batches"
        ],
    );
    check_arguments(
        |t| t.limit_train_batches(0.01),
        expect!["limit_train_batches=0.01 of 10 batches is not one batch; write at least 0.1, or a whole number"],
    );
    check_arguments(
        |t| t.val_check_interval(0.0),
        expect![
            "val_check_interval=0 is not above 0.0 and up to 1.0; write a fraction of an epoch in that range, a whole number of batches, or a time"
        ],
    );
    check_arguments(
        |t| t.val_check_interval(11),
        expect![
            "val_check_interval=11 is above the 10 training batches of an epoch, so validation would never run; lower it, or set check_val_every_n_epoch to None to count across epochs"
        ],
    );
    check_arguments(
        |t| t.check_val_every_n_epoch(None),
        expect![
            "val_check_interval=1 is a fraction of an epoch, and check_val_every_n_epoch=None counts batches across epochs; give val_check_interval a whole number of batches or a time"
        ],
    );
    check_arguments(
        |t| t.check_val_every_n_epoch(0),
        expect!["check_val_every_n_epoch=0 never validates; to turn validation off set limit_val_batches to 0"],
    );
    check_arguments(
        |t| t.accumulate_grad_batches(0),
        expect!["accumulate_grad_batches=0 would never step; write 1 or more"],
    );
    check_arguments(
        |t| t.gradient_clip_val(f64::NAN),
        expect!["gradient_clip_val=NaN is not a number; write a positive number, or leave it out"],
    );
    check_arguments(
        |t| t.accelerator("tpu"),
        expect!["this configuration cannot run here: this machine has no TPU that can be used"],
    );
    check_arguments(
        |t| t.accelerator("hpu"),
        expect![
            "accelerator `hpu` no longer exists: Lightning 2.5 removed HPUs with the package lightning-habana; write `cpu`, `cuda` or `mps`"
        ],
    );
    check_arguments(
        |t| t.strategy("dp"),
        expect![
            "strategy `dp` no longer exists: Lightning 2.0 removed DataParallel, which had one process for all devices; write `ddp`, which has one for each"
        ],
    );
    check_arguments(
        |t| t.devices(usize::MAX),
        expect![
            "devices=18446744073709551615 was requested, but a machine can have 4096 processes of a run; write a smaller number"
        ],
    );
    check_arguments(
        |t| t.default_root_dir(""),
        expect!["default_root_dir is empty; write a folder, such as `.`, or leave it out"],
    );
    check_arguments(
        |t| t.devices(0),
        expect!["devices=0 was requested; a run needs at least one device, so set devices to 1"],
    );
    check_arguments(
        |t| t.precision("bf16-mixd"),
        expect![
            "unknown precision `bf16-mixd`; did you mean `bf16-mixed`? Else choose one of 16-mixed, 16-true, 32-true, 64-true, bf16-mixed, bf16-true"
        ],
    );
}

#[test]
fn arguments_that_contradict_each_other() {
    check_arguments(
        |t| t.barebones(true).fast_dev_run(1),
        expect!["barebones=true measures the bare loop, but fast_dev_run is on; leave one of them out"],
    );
    check_arguments(
        |t| t.barebones(true).detect_anomaly(true),
        expect!["barebones=true measures the bare loop, but detect_anomaly is on; leave one of them out"],
    );
    check_arguments(
        |t| t.callback(ModelCheckpoint::new()),
        expect![
            "enable_checkpointing=false, and a checkpoint callback is among the callbacks; leave one of the two out"
        ],
    );
    check_arguments(
        |t| t.callback(ProgressBar::new()),
        expect!["enable_progress_bar=false, and a progress bar is among the callbacks; leave one of the two out"],
    );
    check_arguments(
        |t| t.enable_progress_bar(true).callback(ProgressBar::new()).callback(ProgressBar::new()),
        expect!["there are 2 callbacks that are a progress bar; leave one"],
    );
    check_arguments(
        |t| t.callback(EarlyStopping::monitor("val_loss")).callback(EarlyStopping::monitor("val_loss")),
        expect![
            "two callbacks have the state key `EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}`, so a checkpoint could not distinguish them; give them different arguments, or implement `Callback::state_key`"
        ],
    );
}

#[test]
fn a_misspelt_argument_in_a_file() {
    check(
        serde_json::from_str::<TrainerConfig>(r#"{"max_epoch": 3}"#).map_err(|e| e.to_string()[..40].to_owned()),
        expect!["unknown field `max_epoch`, expected one "],
    );
    check(
        serde_json::from_str::<TrainerConfig>(r#"{"max_time": "1:2"}"#),
        expect!["`1:2` is not a time; write DD:HH:MM:SS, such as 00:12:00:00 for twelve hours at line 1 column 19"],
    );
}

#[test]
fn a_loader_of_length_zero_trains_nothing_and_says_so() {
    let console = Console::memory();
    let mut trainer = quiet().console(console.clone()).build().unwrap();
    assert_eq!(trainer.fit(&mut module(), (batches(0), batches(1))).unwrap(), Outcome::Finished);
    expect![[r#"
        warning: a training loader reports 0 batches; check its dataset and `drop_last`, or return None from its `len` if the number is unknown
        `Trainer.fit` stopped: No training batches.
    "#]]
    .assert_eq(&console.contents());
}

struct Unsized(usize);

impl Loader for Unsized {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        None
    }

    fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<Tensor>, DataError> {
        Ok(Box::new(batches(self.0).into_iter().skip(skip).map(Ok)))
    }
}

#[test]
fn fractions_of_an_unknown_length() {
    let fit = |t: TrainerBuilder| t.build().and_then(|mut t| t.fit(&mut module(), (Unsized(4), batches(1))));
    check(
        fit(quiet().limit_train_batches(0.5)),
        expect![
            "limit_train_batches=0.5 is a fraction, and the data loader does not know its length; write a whole number of batches, 0.0 or 1.0"
        ],
    );
    check(
        fit(quiet().val_check_interval(0.5)),
        expect![
            "val_check_interval=0.5 is a fraction, and the training loader does not know its length; write 1.0, a whole number of batches, or a time"
        ],
    );
}

/// Fails in the hook it is told to.
struct Failing;

impl Callback for Failing {
    fn on_train_epoch_start(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        Err("the disk is on fire".into())
    }
}

#[test]
fn a_failing_callback_is_named() {
    check_arguments(
        |t| t.callback(Failing),
        expect!["Failing::on_train_epoch_start failed (epoch 0): the disk is on fire"],
    );
}

#[test]
fn checkpoints_that_cannot_be_used() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let fit_from = |path: String| {
        let mut trainer = quiet().build().unwrap();
        let result = trainer.ckpt_path(path).fit(&mut module(), (batches(3), batches(1)));
        result.map_err(|error| error.to_string().replace(root.path().to_str().unwrap(), "ROOT"))
    };
    check(
        fit_from("best".into()),
        expect![[
            r#"ckpt_path="best" was requested, but no checkpoint has been written; fit first with a `ModelCheckpoint`, or give a path"#
        ]],
    );
    check(
        fit_from(at("missing.ckpt")),
        expect![
            "checkpoint ROOT/missing.ckpt: there is no such file; check the path, or leave ckpt_path out to start from scratch"
        ],
    );

    check(
        fit_from("bset".into()),
        expect![
            "checkpoint bset: there is no such file; write a run folder, best, last, hpc or auto, check the path, or leave ckpt_path out to start from scratch"
        ],
    );
    check(
        fit_from(String::new()),
        expect![[
            r#"ckpt_path="" was requested, but an empty path names no checkpoint; leave ckpt_path out to start from scratch"#
        ]],
    );

    let validate_from = |path: String| quiet().build().unwrap().ckpt_path(path).validate(&mut module(), batches(1));
    check(
        validate_from("bset".into()),
        expect![
            "checkpoint bset: there is no such file; write a run folder, best, last, hpc or auto, check the path, or leave ckpt_path out to use the module as it is"
        ],
    );
    check(
        validate_from("last".into()),
        expect![[
            r#"ckpt_path="last" was requested, but there is no last checkpoint; `ModelCheckpoint::save_last` writes one, or give a path"#
        ]],
    );
    let mut rehearsal = quiet().fast_dev_run(1).build().unwrap();
    rehearsal.ckpt_path("auto").validate(&mut module(), batches(1)).unwrap();
    let empty = at("empty");
    std::fs::create_dir(&empty).unwrap();
    let result = validate_from(empty).map_err(|error| error.to_string().replace(root.path().to_str().unwrap(), "ROOT"));
    check(
        result,
        expect![
            "there is no checkpoint in ROOT/empty; give the path of one, or leave ckpt_path out to use the module as it is"
        ],
    );

    std::fs::write(at("foreign.ckpt"), "I am a poem").unwrap();
    check(
        fit_from(at("foreign.ckpt")),
        expect!["checkpoint ROOT/foreign.ckpt: not a PyTorch checkpoint: it does not begin like a zip file"],
    );

    let mut trainer = quiet().enable_checkpointing(true).default_root_dir(root.path()).build().unwrap();
    _ = trainer.fit(&mut module(), (batches(3), batches(1))).unwrap();
    let whole = std::fs::read(trainer.best_model_path().unwrap()).unwrap();
    std::fs::write(at("truncated.ckpt"), &whole[..1000]).unwrap();
    check(
        fit_from(at("truncated.ckpt")),
        expect![
            "checkpoint ROOT/truncated.ckpt: the checkpoint is damaged: it begins like a checkpoint and has no end, at 1000 bytes; it was cut while being written or copied; use an earlier one"
        ],
    );
}

#[test]
fn a_field_of_a_file_name_without_a_value_is_named() {
    let root = tempfile::tempdir().unwrap();
    let said = |filename: &str| {
        let console = Console::memory();
        let checkpoint = ModelCheckpoint::new().dirpath(root.path()).filename(filename);
        let trainer = quiet().console(console.clone()).enable_checkpointing(true).callback(checkpoint);
        _ = trainer.build().unwrap().fit(&mut module(), (batches(3), batches(1))).unwrap();
        console.contents()
    };
    let warned = said("{epoc}-{step}");
    let warning = |line: &str| line.strip_prefix("warning: ").map(str::to_owned);
    assert_eq!(
        warned.lines().find_map(warning).unwrap(),
        "the file name of ModelCheckpoint has the field `epoc`, of which no value was logged before the save, so it is written as 0; correct `filename`, or log the value earlier"
    );
    assert!(root.path().join("epoc=0-step=6.ckpt").exists());
    let silent = said("{epoch}-{train_loss:.2f}");
    assert!(!silent.contains("the field"), "{silent}");
}

#[test]
fn errors_of_loaders_say_their_batch_once_and_no_backtrace() {
    let fails = |second: fn() -> Result<Tensor, BoxError>| {
        let loader =
            FnLoader::new(move |_| (0..2).map(move |i| if i == 0 { Ok(batches(1).remove(0)) } else { second() }));
        quiet().build().unwrap().fit(&mut module(), loader)
    };
    check(
        fails(|| Err("the tape is torn".into())),
        expect!["the training data loader failed at batch 1: the tape is torn"],
    );
    fn mismatch() -> Result<Tensor, BoxError> {
        let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        Ok(ones(&[2, 3]).f_matmul(&ones(&[2]))?)
    }
    let error = fails(mismatch).unwrap_err().to_string();
    assert!(
        error.contains("at batch 1: ") && error.contains("size mismatch") && !error.contains("Exception raised"),
        "{error}"
    );
    check(
        fails(|| panic!("the tape is torn")),
        expect!["the training data loader failed at batch 1: its code panicked: the tape is torn"],
    );
}

#[test]
fn an_unwritable_log_folder() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "").unwrap();
    let result =
        quiet().logger(CsvLogger::new(&file)).build().and_then(|mut t| t.fit(&mut module(), (batches(3), batches(1))));
    check(
        result.map_err(|error| error.to_string().replace(root.path().to_str().unwrap(), "ROOT")),
        expect![
            "CsvLogger cannot write ROOT/file/lightning_logs/version_0/hparams.yaml: Not a directory (os error 20); check that the folder exists, is writable and has free space"
        ],
    );
}
