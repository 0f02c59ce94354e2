//! Averaged and unfrozen weights: runs that are cut and taken up again, that fail, and that cannot be.
//! What the numbers are is compared with Lightning in `tests/parity`.

use std::any::Any;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use fulgurite::callbacks::finetuning::{self, BaseFinetuning, Finetuning, Unfreeze};
use fulgurite::callbacks::{EMAWeightAveragingOptions, StochasticWeightAveragingOptions};
use fulgurite::config::Configurable;
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::optim::{Optimizer, StepLR};
use fulgurite::prelude::*;
use fulgurite::torch::{params, serialization};
use fulgurite::{ModuleView, SaveRequest, TrainerBuilder};

use crate::callbacks::scripted::quiet;

/// A backbone with a batch norm, and a head. Tests run at once, so it draws no random numbers.
struct Net {
    vars: nn::VarStore,
    fc: nn::Linear,
    bn: nn::BatchNorm,
    head: nn::Linear,
    /// The validation of this epoch fails.
    fails_in: Option<u64>,
    /// The head's weight as each validation step saw it.
    validated: Vec<Tensor>,
    /// Calls of `training_step`.
    steps: usize,
    everything: bool,
}

impl Net {
    fn new() -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc = nn::linear(3, 4).at(vars.root() / "backbone" / "fc").unwrap();
        let bn = nn::batch_norm1d(4).at(vars.root() / "backbone" / "bn").unwrap();
        let head = nn::linear(4, 1).at(vars.root() / "head").unwrap();
        for (seed, (_, mut tensor)) in params::named_parameters(&vars).into_iter().enumerate() {
            let values = (Tensor::arange(tensor.numel() as i64, (Kind::Float, Device::Cpu)) + seed as i64).sin();
            tch::no_grad(|| tensor.copy_(&values.view_as(&tensor)));
        }
        Net { vars, fc, bn, head, fails_in: None, validated: Vec::new(), steps: 0, everything: false }
    }

    fn output(&self, x: &Tensor) -> Tensor {
        self.head.forward(&self.bn.forward(&self.fc.forward(x)).tanh())
    }

    /// The batches that the batch norm has counted.
    fn count(&self) -> i64 {
        self.bn.num_batches_tracked.as_ref().unwrap().int64_value(&[])
    }

    fn weights(&self) -> Dict {
        params::state_dict(&self.vars).unwrap().map_tensors(&mut |tensor| tensor.copy())
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        self.steps += 1;
        let loss = (self.output(&x) - 1.0).square().mean(Kind::Float);
        step.log("loss", &loss).on_epoch();
        Ok(loss.into())
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        if self.fails_in == Some(step.current_epoch()) {
            return Err("the disk melted".into());
        }
        self.validated.push(self.head.weight.detach().copy());
        step.log("val_loss", self.output(&x).square().mean(Kind::Float));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let all = || params::named_parameters(&self.vars).into_iter().map(|(_, tensor)| tensor).collect();
        let parameters = if self.everything { all() } else { params::trainable_parameters(&self.vars) };
        Ok(Optimizers::from(Adam::new(parameters).lr(0.05)).scheduler(StepLR::new(1).gamma(0.8)))
    }
}

/// Leaves a checkpoint after every batch.
struct Everywhere(PathBuf, usize);

impl Callback for Everywhere {
    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        self.1 += 1;
        trainer.request_checkpoint(SaveRequest::new(self.0.join(format!("{}.ckpt", self.1))));
        Ok(())
    }
}

fn batches(n: i64) -> Vec<Tensor> {
    (0..n)
        .map(|i| ((Tensor::arange(12, (Kind::Float, Device::Cpu)) * (0.3 + i as f64)).sin() + i).view([4, 3]))
        .collect()
}

fn builder(folder: &Path, add: fn(TrainerBuilder) -> TrainerBuilder) -> TrainerBuilder {
    add(quiet(folder).max_epochs(3).enable_checkpointing(false))
}

/// Three epochs of three batches; the module afterwards.
fn fit(folder: &Path, add: fn(TrainerBuilder) -> TrainerBuilder, from: Option<usize>) -> (Net, Trainer) {
    let mut trainer = builder(folder, add).callback(Everywhere(folder.into(), from.unwrap_or(0))).build().unwrap();
    let mut net = Net::new();
    _ = trainer
        .ckpt_path(from.map(|from| folder.join(format!("{from}.ckpt"))))
        .fit(&mut net, (batches(3), batches(2)))
        .unwrap();
    (net, trainer)
}

/// A run that goes on from any batch ends as one that was not cut, to the bit.
fn resumes_anywhere(add: fn(TrainerBuilder) -> TrainerBuilder, batches: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (whole, mut trainer) = fit(folder.path(), add, None);
    let lrs = |trainer: &mut Trainer| -> Vec<f64> {
        trainer.state().optimizer(0).unwrap().param_groups().iter().map(|group| group.lr).collect()
    };
    assert!(!folder.path().join(format!("{}.ckpt", batches + 1)).exists());
    for from in 1..=batches {
        let again = tempfile::tempdir().unwrap();
        let name = format!("{from}.ckpt");
        std::fs::copy(folder.path().join(&name), again.path().join(&name)).unwrap();
        let (net, mut resumed) = fit(again.path(), add, Some(from));
        assert_eq!(net.weights(), whole.weights(), "from batch {from}");
        assert_eq!(lrs(&mut resumed), lrs(&mut trainer), "from batch {from}");
    }
}

#[test]
fn stochastic_weight_averaging_resumes_anywhere() {
    // Three epochs, and the extra one.
    resumes_anywhere(
        |trainer| trainer.callback(StochasticWeightAveraging::new(0.01).swa_epoch_start(2).annealing_epochs(2)),
        12,
    );
}

#[test]
fn averaged_weights_resume_anywhere() {
    resumes_anywhere(|trainer| trainer.callback(EMAWeightAveraging::new().decay(0.8).update_starting_at_step(2)), 9);
    resumes_anywhere(
        |trainer| {
            let every_epoch = |at| matches!(at, fulgurite::callbacks::AveragingMoment::Epoch(_));
            trainer.callback(WeightAveraging::new().use_buffers(false).should_update(every_epoch))
        },
        9,
    );
}

#[test]
fn finetuning_resumes_anywhere() {
    resumes_anywhere(|trainer| trainer.callback(BackboneFinetuning::new().unfreeze_backbone_at_epoch(1)), 9);
}

#[test]
fn the_extra_epoch_trains_nothing_and_counts_its_batches_once() {
    let folder = tempfile::tempdir().unwrap();
    let logger = MemoryLogger::new();
    let mut trainer = builder(folder.path(), |trainer| trainer.callback(StochasticWeightAveraging::new(0.01)))
        .logger(logger.clone())
        .log_every_n_steps(1)
        .build()
        .unwrap();
    let mut net = Net::new();
    _ = trainer.fit(&mut net, (batches(3), batches(2))).unwrap();
    // The first batch of the extra epoch passes twice.
    assert_eq!(net.steps, 3 * 3 + 3 + 1);
    assert_eq!((trainer.state().current_epoch(), trainer.state().max_epochs()), (4, Maximum::Of(3)));
    assert_eq!(trainer.state().global_step(), 3 * 3 + 1);
    // The statistics are the mean over the extra epoch, so they count its batches alone.
    assert_eq!(net.count(), 3);
    let epoch_rows = logger.take().into_iter().filter(|call| match call {
        Logged::Metrics { metrics, .. } => metrics.iter().any(|(name, _)| name == "loss_epoch"),
        _ => false,
    });
    assert_eq!(epoch_rows.count(), 4);
    // 0.8 of three epochs is two; the second and the third began with weights that count.
    assert_eq!(trainer.callback::<StochasticWeightAveraging>().unwrap().n_averaged(), 2);
}

#[test]
fn a_layer_that_is_left_alone_keeps_its_statistics() {
    struct Still(Net);

    impl LightningModule for Still {
        type Batch = Tensor;

        fn vars(&self) -> &dyn Parameters {
            &self.0.vars
        }

        fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> {
            Ok(self.0.output(&x).square().mean(Kind::Float).into())
        }

        fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
            Ok(SGD::new(&self.0.vars).lr(0.1).into())
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let mut trainer =
        builder(folder.path(), |trainer| trainer.callback(StochasticWeightAveraging::new(0.01))).build().unwrap();
    let mut module = Still(Net::new());
    module.0.bn.train(false);
    let mean = Tensor::from_slice(&[1f32, 2., 3., 4.]);
    let tensors =
        [&module.0.bn.running_mean, &module.0.bn.num_batches_tracked].map(|t| t.as_ref().unwrap().shallow_clone());
    let [mut running_mean, mut count] = tensors;
    tch::no_grad(|| {
        running_mean.copy_(&mean);
        let _ = count.fill_(7);
    });
    _ = trainer.fit(&mut module, Loaders::from(batches(3))).unwrap();
    assert_eq!((running_mean, module.0.count()), (mean, 7));
    assert_eq!(module.0.bn.running_var, Some(Tensor::ones([4], (Kind::Float, Device::Cpu))));
}

#[test]
fn validation_sees_the_averages_and_training_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = builder(folder.path(), |trainer| trainer.callback(EMAWeightAveraging::new().decay(1.0)))
        .callback(Everywhere(folder.path().into(), 0))
        .build()
        .unwrap();
    let mut net = Net::new();
    _ = trainer.fit(&mut net, (batches(3), batches(2))).unwrap();
    let load = |name: &str| match serialization::load(folder.path().join(name)).unwrap() {
        Value::Dict(checkpoint) => checkpoint,
        other => panic!("{other:?}"),
    };
    // With decay 1 the average stays what it was after the first step.
    let first = load("1.ckpt").dict("state_dict").unwrap().clone();
    assert!(net.validated.iter().all(|weight| weight == first.tensor("head.weight").unwrap()));
    assert_eq!(net.weights(), first);
    let last = load("9.ckpt");
    assert_eq!(last.dict("state_dict").unwrap(), &first);
    assert_ne!(
        last.dict("current_model_state").unwrap().tensor("head.weight").unwrap(),
        first.tensor("head.weight").unwrap()
    );
    assert_eq!(last.dict("averaging_state").unwrap().tensor("n_averaged").unwrap(), &Tensor::from(9i64));
    assert_eq!(
        last.dict("callbacks").unwrap().dict("EMAWeightAveraging").unwrap().int("latest_update_step").unwrap(),
        9
    );
}

#[test]
fn without_an_update_there_is_no_average() {
    let plain = tempfile::tempdir().unwrap();
    let late = tempfile::tempdir().unwrap();
    let (plain, _) = fit(plain.path(), |trainer| trainer, None);
    let (late, _) =
        fit(late.path(), |trainer| trainer.callback(EMAWeightAveraging::new().update_starting_at_step(1000)), None);
    assert_eq!(late.weights(), plain.weights());
    assert_eq!(late.validated, plain.validated);
}

#[test]
fn a_validation_that_fails_leaves_the_weights_in_training() {
    let failing = |add: fn(TrainerBuilder) -> TrainerBuilder| {
        let folder = tempfile::tempdir().unwrap();
        let mut net = Net::new();
        net.fails_in = Some(1);
        let mut trainer = builder(folder.path(), add).build().unwrap();
        let error = trainer.fit(&mut net, (batches(3), batches(2))).unwrap_err().to_string();
        assert!(error.contains("the disk melted"), "{error}");
        net.weights()
    };
    assert_eq!(failing(|trainer| trainer.callback(EMAWeightAveraging::new())), failing(|trainer| trainer));
}

/// A module that has no `validation_step`, and minds in which mode it trains.
struct Unvalidated {
    net: Net,
    is_training: bool,
}

impl LightningModule for Unvalidated {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.net.vars
    }

    fn train(&mut self, mode: bool) -> Result<()> {
        self.is_training = mode;
        Ok(())
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        assert!(self.is_training, "trains in evaluation mode");
        self.net.training_step(x, step)
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.net.configure_optimizers(trainer)
    }
}

#[test]
fn a_validation_without_a_step_leaves_the_weights_and_the_mode_of_training() {
    let fit = |validation: usize, sanity: u64| {
        let folder = tempfile::tempdir().unwrap();
        let builder = builder(folder.path(), |trainer| trainer.callback(EMAWeightAveraging::new().decay(0.5)));
        let mut module = Unvalidated { net: Net::new(), is_training: true };
        let data = (batches(3), batches(validation as i64));
        _ = builder.num_sanity_val_steps(sanity).build().unwrap().fit(&mut module, data).unwrap();
        module.net.weights()
    };
    let without_data = fit(0, 0);
    assert_eq!(fit(2, 0), without_data);
    assert_eq!(fit(2, 2), without_data);
}

#[test]
fn a_checkpoint_without_averages_begins_one() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, _) = fit(folder.path(), |trainer| trainer, None);
    let (net, trainer) = fit(folder.path(), |trainer| trainer.callback(EMAWeightAveraging::new().decay(0.0)), Some(3));
    assert_eq!(trainer.callback::<EMAWeightAveraging>().unwrap().n_averaged(), 6);
    assert!(trainer_warned(folder.path()));
    // With decay 0 the average is the last step's weights.
    assert_eq!(net.weights(), plain.weights());
}

/// The warning is looked for in a run of its own, whose console can be read.
fn trainer_warned(folder: &Path) -> bool {
    let console = fulgurite::Console::memory();
    let mut trainer = builder(folder, |trainer| trainer.callback(EMAWeightAveraging::new()))
        .console(console.clone())
        .build()
        .unwrap();
    _ = trainer.ckpt_path(folder.join("3.ckpt")).fit(&mut Net::new(), (batches(3), batches(2))).unwrap();
    console.contents().contains("was written without averaged weights")
}

fn refused(add: fn(TrainerBuilder) -> TrainerBuilder, expected: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = builder(folder.path(), add).build().unwrap();
    let error = trainer.fit(&mut Net::new(), (batches(3), batches(2))).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn what_cannot_be_is_refused() {
    refused(
        |trainer| trainer.callback(StochasticWeightAveraging::new(0.0)),
        expect![
            "StochasticWeightAveraging: swa_lrs is [0.0]; write a learning rate above 0, or one for each parameter group"
        ],
    );
    refused(
        |trainer| trainer.callback(StochasticWeightAveraging::new(0.1).swa_epoch_start(0)),
        expect![
            "StochasticWeightAveraging: swa_epoch_start is 0; write an epoch counted from 1, or a part of max_epochs from 0.0 to 1.0"
        ],
    );
    refused(
        |trainer| trainer.callback(StochasticWeightAveraging::new(0.1).swa_epoch_start(1.5)),
        expect![
            "StochasticWeightAveraging: swa_epoch_start is 1.5; write an epoch counted from 1, or a part of max_epochs from 0.0 to 1.0"
        ],
    );
    refused(
        |trainer| trainer.max_epochs(Maximum::Unlimited).max_steps(3).callback(StochasticWeightAveraging::new(0.1)),
        expect![
            "StochasticWeightAveraging: swa_epoch_start is 0.8, a part of max_epochs, and without a limit (`Maximum::Unlimited`, -1 in files) max_epochs has no parts; write a number of epochs"
        ],
    );
    refused(
        |trainer| trainer.callback(StochasticWeightAveraging::new(vec![0.1, 0.2])),
        expect![
            "StochasticWeightAveraging: swa_lrs has 2 values, and the optimizer has 1 parameter groups; write one for each, or one number for all"
        ],
    );
    refused(
        |trainer| trainer.callback(EMAWeightAveraging::new().decay(1.5)),
        expect!["EMAWeightAveraging: decay is 1.5, the part of the average that an update keeps; write 0.0 to 1.0"],
    );
    refused(
        |trainer| trainer.callback(EMAWeightAveraging::new().device("gpu")),
        expect![
            "EMAWeightAveraging: there is no device `gpu`; write `cpu`, `cuda`, `cuda:1` or `mps`, or leave `device` out for the module's own"
        ],
    );
    refused(
        |trainer| trainer.callback(BackboneFinetuning::new().backbone("trunk")),
        expect![[
            r#"BackboneFinetuning: no parameter of the module has a path that begins with `trunk`; there are: backbone, head. Make the layers under `vars.root() / "trunk"`, before the run is set up"#
        ]],
    );
    refused(
        |trainer| trainer.callback(BackboneFinetuning::new().backbone_initial_lr(-1.0)),
        expect!["BackboneFinetuning: backbone_initial_lr is -1; write a finite number, 0.0 or more"],
    );
}

#[test]
fn options_come_from_a_file() {
    let swa: StochasticWeightAveragingOptions = serde_json::from_str(
        r#"{"swa_lrs": [0.1, 0.2], "swa_epoch_start": 3, "annealing_strategy": "linear", "device": null}"#,
    )
    .unwrap();
    assert!(StochasticWeightAveraging::from_options(swa).is_ok());
    assert!(StochasticWeightAveraging::from_options(Default::default()).is_err());
    let ema: EMAWeightAveragingOptions = serde_json::from_str(r#"{"decay": 0.9, "device": "cpu"}"#).unwrap();
    assert!(EMAWeightAveraging::from_options(ema).is_ok());
    assert!(serde_json::from_str::<EMAWeightAveragingOptions>(r#"{"decai": 0.9}"#).is_err());
}

/// Freezes all of the backbone, batch norm and all, and unfreezes it in epoch 1.
struct All;

impl Finetuning for All {
    fn freeze_before_training(&mut self, module: &mut dyn ModuleView) -> Result<()> {
        Ok(finetuning::freeze(module.vars(), &["backbone"], false)?)
    }

    fn finetune_function(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        epoch: u64,
        optimizer: &mut dyn Optimizer,
    ) -> Result<()> {
        if epoch == 1 {
            let how = Unfreeze { initial_denom_lr: 4.0, ..Unfreeze::default() };
            finetuning::unfreeze_and_add_param_group(trainer, module.vars(), &["backbone"], optimizer, how)?;
        }
        Ok(())
    }
}

#[test]
fn frozen_layers_do_not_change_and_unfrozen_ones_do() {
    let folder = tempfile::tempdir().unwrap();
    let logger = MemoryLogger::new();
    let mut trainer = builder(folder.path(), |trainer| trainer.callback(LearningRateMonitor::new()))
        .callback(BaseFinetuning::with(All))
        .callback(Everywhere(folder.path().into(), 0))
        .logger(logger.clone())
        .build()
        .unwrap();
    let (mut net, before) = (Net::new(), Net::new().weights());
    _ = trainer.fit(&mut net, (batches(3), batches(2))).unwrap();
    let saved = |name: &str| match serialization::load(folder.path().join(name)).unwrap() {
        Value::Dict(checkpoint) => checkpoint.dict("state_dict").unwrap().clone(),
        other => panic!("{other:?}"),
    };
    for name in before.keys() {
        let (then, early, late) = (before.tensor(name).unwrap(), saved("3.ckpt"), saved("6.ckpt"));
        assert_eq!(then == early.tensor(name).unwrap(), name.starts_with("backbone"), "{name} in epoch 0");
        assert_ne!(early.tensor(name).unwrap(), late.tensor(name).unwrap(), "{name} in epoch 1");
    }
    // The schedule of 0.05, 0.04, ... goes on for both groups; the new one begins with a quarter.
    let monitor = trainer.callback::<LearningRateMonitor>().unwrap();
    let lrs: Vec<String> = monitor.lrs().map(|(name, lrs)| format!("{name} {lrs:.4?}")).collect();
    assert_eq!(lrs, ["lr-Adam/pg1 [0.0500, 0.0400, 0.0320]", "lr-Adam/pg2 [0.0080]"]);
}

#[test]
fn parameters_that_are_in_the_optimizer_are_not_added() {
    let folder = tempfile::tempdir().unwrap();
    let console = fulgurite::Console::memory();
    let mut trainer =
        builder(folder.path(), |trainer| trainer.callback(BackboneFinetuning::new().unfreeze_backbone_at_epoch(1)))
            .console(console.clone())
            .build()
            .unwrap();
    let mut net = Net::new();
    net.everything = true;
    _ = trainer.fit(&mut net, (batches(3), batches(2))).unwrap();
    assert_eq!(trainer.state().optimizer(0).unwrap().param_groups().len(), 1);
    assert!(
        console.contents().contains("2 parameters to unfreeze are in the optimizer already"),
        "{}",
        console.contents()
    );
}

/// One learning rate is also that of the parameters which are unfrozen while the weights are averaged; several are not.
#[test]
fn swa_anneals_a_group_that_was_added_later_or_says_what_it_lacks() {
    let fit = |swa: StochasticWeightAveraging| {
        let folder = tempfile::tempdir().unwrap();
        let all = BaseFinetuning::with(All);
        let swa = swa.swa_epoch_start(1).annealing_epochs(1);
        let mut trainer =
            builder(folder.path(), |trainer| trainer).callback(swa).callback(all).max_epochs(3).build().unwrap();
        let fitted = trainer.fit(&mut Net::new(), (batches(3), batches(2)));
        fitted.map(|_| {
            trainer.state().optimizer(0).unwrap().param_groups().iter().map(|group| group.lr).collect::<Vec<_>>()
        })
    };
    assert_eq!(fit(StochasticWeightAveraging::new(0.01)).unwrap(), [0.01, 0.01]);
    let error = fit(StochasticWeightAveraging::new(vec![0.01])).unwrap_err().to_string();
    let lacks = "StochasticWeightAveraging: swa_lrs has 1 values, and the optimizer has 2 parameter groups";
    assert!(error.starts_with(lacks), "{error}");
}
