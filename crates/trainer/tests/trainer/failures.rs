//! Whatever fails, wherever: the error says who and where, everything is torn down, and the loggers are told.

mod foreign;
mod foreign_parts;
mod loaders;

use std::any::Any;
use std::cell::Cell;

use expect_test::{Expect, expect};
use fulgurite::callbacks::LambdaCallback;
use fulgurite::config::GradientClipAlgorithm;
use fulgurite::data::{DataLoader, Dataset, ItemRng};
use fulgurite::loggers::{CsvLogger, Logged, MemoryLogger, RunStatus};
use fulgurite::optim::{LrScheduler, Optimizer, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{BatchFlow, ModuleView, OptimizerClosure, SaveRequest};
use fulgurite_test_support::quiet;

/// What a hook does.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Error,
    Panic,
}

/// The hook that fails, and how.
#[derive(Clone, Copy)]
struct At(&'static str, Fault);

thread_local! {
    /// Whether faults happen.
    static ARMED: Cell<bool> = const { Cell::new(true) };
}

const NOWHERE: At = At("", Fault::Error);

impl At {
    fn reach(self, hook: &str) -> Result<()> {
        match self.1 {
            _ if self.0 != hook || !ARMED.get() => Ok(()),
            Fault::Error => Err("out of luck".into()),
            // After which gradients are off.
            Fault::Panic => tch::no_grad(|| panic!("out of luck")),
        }
    }
}

struct Watcher(At);

/// Calls `reach` in hooks of a callback.
macro_rules! callback_hooks {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        const CALLBACK_HOOKS: &[&str] = &[$(stringify!($name)),*];

        impl Callback for Watcher {
            $(fn $name(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView $(, $arg: $type)*) -> Result<()> {
                $(let _ = $arg;)*
                self.0.reach(stringify!($name))
            })*
        }
    };
}

callback_hooks! {
    setup(stage: TrainerFn);
    teardown(stage: TrainerFn);
    on_fit_start();
    on_fit_end();
    on_sanity_check_start();
    on_sanity_check_end();
    on_train_start();
    on_train_end();
    on_train_epoch_start();
    on_train_epoch_end();
    on_train_batch_start(batch: &dyn Any, idx: usize);
    on_train_batch_end(outputs: &Loss, batch: &dyn Any, idx: usize);
    on_before_zero_grad(optimizer: &mut dyn Optimizer);
    on_before_backward(loss: &Tensor);
    on_after_backward();
    on_before_optimizer_step(optimizer: &mut dyn Optimizer);
    on_validation_start();
    on_validation_end();
    on_validation_epoch_start();
    on_validation_epoch_end();
    on_validation_batch_start(batch: &dyn Any, idx: usize, loader: usize);
    on_validation_batch_end(outputs: &Value, batch: &dyn Any, idx: usize, loader: usize);
    on_test_start();
    on_test_end();
    on_test_epoch_start();
    on_test_epoch_end();
    on_test_batch_start(batch: &dyn Any, idx: usize, loader: usize);
    on_test_batch_end(outputs: &Value, batch: &dyn Any, idx: usize, loader: usize);
    on_predict_start();
    on_predict_end();
    on_predict_epoch_start();
    on_predict_epoch_end();
    on_predict_batch_start(batch: &dyn Any, idx: usize, loader: usize);
    on_predict_batch_end(outputs: &Value, batch: &dyn Any, idx: usize, loader: usize);
    on_save_checkpoint(checkpoint: &mut Dict);
}

struct Net {
    vars: nn::VarStore,
    layer: nn::Linear,
    at: At,
    torn_down: Cell<usize>,
}

impl Net {
    fn new(at: At) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root(), 2, 1, Default::default());
        Net { vars, layer, at, torn_down: Cell::new(0) }
    }

    fn loss(&self, batch: &Tensor) -> Tensor {
        batch.apply(&self.layer).square().mean(Kind::Float)
    }
}

/// Calls `reach` in hooks of the module that do nothing by default.
macro_rules! module_hooks {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name(&mut self $(, $arg: $type)*) -> Result<()> {
            $(let _ = $arg;)*
            self.at.reach(stringify!($name))
        })*
    };
}

/// Calls `reach` in hooks of the module that get the trainer first.
macro_rules! trainer_hooks {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        const MODULE_HOOKS: &[&str] = &[
            $(stringify!($name),)*
            "prepare_data", "configure_model", "on_save_checkpoint", "teardown", "configure_optimizers",
            "on_train_batch_start", "on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer",
            "training_step", "validation_step", "test_step", "predict_step", "optimizer_zero_grad", "backward",
            "configure_gradient_clipping", "optimizer_step", "lr_scheduler_step",
        ];

        impl LightningModule for Net {
            type Batch = Tensor;

            fn vars(&self) -> &dyn Parameters {
                &self.vars
            }

            $(fn $name(&mut self, _: &mut TrainerState $(, $arg: $type)*) -> Result<()> {
                $(let _ = $arg;)*
                self.at.reach(stringify!($name))
            })*

            module_hooks! {
                prepare_data(trainer: &mut TrainerState);
                configure_model(trainer: &mut TrainerState);
                on_save_checkpoint(trainer: &mut TrainerState, checkpoint: &mut Dict);
            }

            fn teardown(&mut self, _: &mut TrainerState, _: TrainerFn) -> Result<()> {
                self.torn_down.set(self.torn_down.get() + 1);
                self.at.reach("teardown")
            }

            fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
                self.at.reach("configure_optimizers")?;
                let scheduler = LrSchedulerConfig::new(StepLR::new(1)).interval(Interval::Step);
                Ok(Optimizers::from(SGD::new(&self.vars).lr(0.01)).scheduler(scheduler))
            }

            fn on_train_batch_start(&mut self, _: &mut TrainerState, _: &Tensor, _: usize) -> Result<BatchFlow> {
                self.at.reach("on_train_batch_start").map(|()| BatchFlow::Continue)
            }

            fn on_before_batch_transfer(&mut self, _: &mut TrainerState, batch: Tensor, _: usize) -> Result<Tensor> {
                self.at.reach("on_before_batch_transfer").map(|()| batch)
            }

            fn transfer_batch_to_device(&mut self, _: &mut TrainerState, batch: Tensor, _: Device, _: usize) -> Result<Tensor> {
                self.at.reach("transfer_batch_to_device").map(|()| batch)
            }

            fn on_after_batch_transfer(&mut self, _: &mut TrainerState, batch: Tensor, _: usize) -> Result<Tensor> {
                self.at.reach("on_after_batch_transfer").map(|()| batch)
            }

            fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
                self.at.reach("training_step")?;
                let loss = self.loss(&batch);
                step.log("loss", &loss);
                Ok(loss.into())
            }

            fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
                step.log("val_loss", self.loss(&batch));
                self.at.reach("validation_step")
            }

            fn test_step(&mut self, _: Tensor, _: &mut Step) -> Result<()> {
                self.at.reach("test_step")
            }

            fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
                self.at.reach("predict_step").map(|()| self.loss(&batch).into())
            }

            fn optimizer_zero_grad(&mut self, _: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
                optimizer.zero_grad()?;
                self.at.reach("optimizer_zero_grad")
            }

            fn backward(&mut self, trainer: &mut TrainerState, loss: &Tensor) -> Result<()> {
                self.at.reach("backward").and_then(|()| trainer.backward(loss))
            }

            fn configure_gradient_clipping(
                &mut self,
                _: &mut TrainerState,
                _: &mut dyn Optimizer,
                _: Option<f64>,
                _: GradientClipAlgorithm,
            ) -> Result<()> {
                self.at.reach("configure_gradient_clipping")
            }

            fn optimizer_step(
                &mut self,
                optimizer: &mut dyn Optimizer,
                closure: &mut OptimizerClosure<'_, Self>,
            ) -> Result<()> {
                closure.step(self, optimizer)?;
                self.at.reach("optimizer_step")
            }

            fn lr_scheduler_step(
                &mut self,
                _: &mut TrainerState,
                _: &mut dyn LrScheduler,
                _: &mut dyn Optimizer,
                _: Option<f64>,
            ) -> Result<()> {
                self.at.reach("lr_scheduler_step")
            }
        }
    };
}

trainer_hooks! {
    setup(stage: TrainerFn);
    on_fit_start();
    on_fit_end();
    on_train_start();
    on_train_end();
    on_train_epoch_start();
    on_train_epoch_end();
    on_train_batch_end(outputs: &Loss, batch: &Tensor, idx: usize);
    on_before_zero_grad(optimizer: &mut dyn Optimizer);
    on_before_backward(loss: &Tensor);
    on_after_backward();
    on_before_optimizer_step(optimizer: &mut dyn Optimizer);
    on_validation_model_eval();
    on_validation_model_train();
    on_validation_model_zero_grad();
    on_validation_start();
    on_validation_end();
    on_validation_epoch_start();
    on_validation_epoch_end();
    on_validation_batch_start(batch: &Tensor, idx: usize, loader: usize);
    on_validation_batch_end(outputs: &Value, batch: &Tensor, idx: usize, loader: usize);
    on_test_model_eval();
    on_test_model_train();
    on_test_start();
    on_test_end();
    on_test_epoch_start();
    on_test_epoch_end();
    on_test_batch_start(batch: &Tensor, idx: usize, loader: usize);
    on_test_batch_end(outputs: &Value, batch: &Tensor, idx: usize, loader: usize);
    on_predict_model_eval();
    on_predict_start();
    on_predict_end();
    on_predict_epoch_start();
    on_predict_epoch_end();
    on_predict_batch_start(batch: &Tensor, idx: usize, loader: usize);
    on_predict_batch_end(outputs: &Value, batch: &Tensor, idx: usize, loader: usize);
}

fn batches(n: usize) -> Vec<Tensor> {
    (0..n).map(|i| Tensor::full([2, 2], i as f64, (Kind::Float, Device::Cpu))).collect()
}

/// The error of a run in which one hook fails; the entry point is the one that has it.
#[track_caller]
fn run(hook: &str, in_module: At, in_callback: At) -> String {
    let folder = tempfile::tempdir().unwrap();
    let logger = MemoryLogger::new();
    let mut builder =
        quiet().max_epochs(3).enable_checkpointing(true).logger(logger.clone()).callback(Watcher(in_callback));
    builder = builder.callback(ModelCheckpoint::new().dirpath(folder.path()));
    let (mut trainer, mut net) = (builder.build().unwrap(), Net::new(in_module));
    let error = if hook.contains("test") {
        trainer.test(&mut net, Loaders::from(batches(1))).err()
    } else if hook.contains("predict") {
        trainer.predict(&mut net, Loaders::from(batches(1))).err()
    } else {
        trainer.fit(&mut net, (batches(2), batches(1))).err()
    };
    let error = error.unwrap_or_else(|| panic!("{hook} was not called, or its error is lost"));
    assert!((Tensor::from(1.0).set_requires_grad(true) * 2.0).requires_grad(), "gradients are off after {hook}");
    assert_eq!(net.torn_down.get(), 1, "{hook}");
    assert_eq!(logger.take().last(), Some(&Logged::Finalize(RunStatus::Failed)), "{hook}");
    ARMED.set(false);
    let again = trainer.fit(&mut net, (batches(2), batches(1)));
    assert_eq!(again.unwrap(), Outcome::Finished, "after {hook}");
    assert_eq!(net.torn_down.get(), 2, "{hook}");
    assert_eq!(logger.take().last(), Some(&Logged::Finalize(RunStatus::Success)), "{hook}");
    trainer.ckpt_path("best").validate(&mut net, Loaders::from(batches(1))).unwrap();
    ARMED.set(true);
    error.to_string()
}

#[test]
fn every_hook_of_the_module() {
    for &hook in MODULE_HOOKS {
        for (fault, how) in [(Fault::Error, "failed"), (Fault::Panic, "panicked")] {
            let error = run(hook, At(hook, fault), NOWHERE);
            assert!(error.starts_with(&format!("Net::{hook} {how}")) && error.ends_with(": out of luck"), "{error}");
        }
    }
}

#[test]
fn every_hook_of_a_callback() {
    for &hook in CALLBACK_HOOKS {
        for (fault, how) in [(Fault::Error, "failed"), (Fault::Panic, "panicked")] {
            let error = run(hook, NOWHERE, At(hook, fault));
            assert!(
                error.starts_with(&format!("Watcher::{hook} {how}")) && error.ends_with(": out of luck"),
                "{error}"
            );
        }
    }
}

/// Its evaluations fail, and it minds the mode they leave it in.
struct Moody {
    net: Net,
    is_training: bool,
}

impl LightningModule for Moody {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.net.vars
    }

    fn train(&mut self, mode: bool) -> Result<()> {
        self.is_training = mode;
        Ok(())
    }

    fn training_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Loss> {
        Ok(self.net.loss(&batch).into())
    }

    fn validation_step(&mut self, _: Tensor, _: &mut Step) -> Result<()> {
        assert!(self.is_training, "out of luck");
        Ok(())
    }

    fn predict_step(&mut self, _: Tensor, _: &mut Step) -> Result<Value> {
        Err("out of luck".into())
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.net.configure_optimizers(trainer)
    }
}

#[test]
fn an_evaluation_that_fails_leaves_the_module_in_training_mode() {
    let mut module = Moody { net: Net::new(NOWHERE), is_training: true };
    let mut trainer = quiet().num_sanity_val_steps(0).build().unwrap();
    trainer.fit(&mut module, (batches(1), batches(1))).unwrap_err();
    assert!(module.is_training);
    trainer.validate(&mut module, Loaders::from(batches(1))).unwrap_err();
    assert!(module.is_training);
    trainer.predict(&mut module, Loaders::from(batches(1))).unwrap_err();
    assert!(module.is_training);
    // It has no such step.
    trainer.test(&mut module, Loaders::from(batches(1))).unwrap_err();
    assert!(module.is_training);
}

#[test]
fn epoch_and_batch_are_named_where_there_are_any() {
    let check = |hook: &'static str, expected: Expect| expected.assert_eq(&run(hook, At(hook, Fault::Error), NOWHERE));
    check("setup", expect!["Net::setup failed (epoch 0): out of luck"]);
    check("training_step", expect!["Net::training_step failed (epoch 0, batch 0): out of luck"]);
    check("on_train_epoch_end", expect!["Net::on_train_epoch_end failed (epoch 0): out of luck"]);
    check("validation_step", expect!["Net::validation_step failed (epoch 0, batch 0): out of luck"]);
    check("test_step", expect!["Net::test_step failed (batch 0): out of luck"]);
    check("on_predict_end", expect!["Net::on_predict_end failed: out of luck"]);
}

/// Item 5 cannot be had.
struct Broken(Fault);

impl Dataset for Broken {
    type Item = Tensor;

    fn len(&self) -> usize {
        8
    }

    fn get(&self, index: usize, _: &mut ItemRng) -> Result<Tensor> {
        let at = At(if index == 5 { "get" } else { "" }, self.0);
        at.reach("get").map(|()| Tensor::from_slice(&[index as f32, 1.0]))
    }
}

#[test]
fn an_item_that_cannot_be_had_is_named() {
    let check = |fault: Fault, workers: usize, expected: Expect| {
        let logger = MemoryLogger::new();
        let mut trainer = quiet().logger(logger.clone()).build().unwrap();
        let mut net = Net::new(NOWHERE);
        let loader = DataLoader::new(Broken(fault)).batch_size(2).num_workers(workers);
        expected.assert_eq(&trainer.fit(&mut net, loader).unwrap_err().to_string());
        assert_eq!(net.torn_down.get(), 1);
        assert_eq!(logger.take().last(), Some(&Logged::Finalize(RunStatus::Failed)));
    };
    for workers in [0, 2] {
        check(
            Fault::Error,
            workers,
            expect!["the training data loader failed at batch 2: item 5 of Broken could not be loaded: out of luck"],
        );
        check(
            Fault::Panic,
            workers,
            expect![
                "the training data loader failed at batch 2: item 5 of Broken could not be loaded: the code of the dataset panicked: out of luck"
            ],
        );
    }
}

/// A disk that fills up: the run happens in a process of its own whose files cannot grow.
#[test]
fn a_full_disk_ends_the_run_and_leaves_the_rows_written_before() {
    const CHILD: &str = "FULGURITE_LIMITED_FILES";
    if std::env::var_os(CHILD).is_none() {
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg("trap '' XFSZ; ulimit -f 20; exec \"$0\" --exact failures::a_full_disk_ends_the_run_and_leaves_the_rows_written_before --nocapture")
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = quiet().logger(CsvLogger::new(folder.path())).log_every_n_steps(1).build().unwrap();
    let mut net = Net::new(NOWHERE);
    let error = trainer.fit(&mut net, batches(5000)).unwrap_err().to_string();
    let path = folder.path().join("lightning_logs/version_0/metrics.csv");
    let expected = format!(
        "CsvLogger cannot write {}: File too large (os error 27); check that the folder exists, is writable and has free space",
        path.display()
    );
    assert_eq!(error, expected);
    assert_eq!(net.torn_down.get(), 1);
    let text = std::fs::read_to_string(&path).unwrap();
    let columns = text.lines().next().unwrap().split(',').count();
    assert!(text.ends_with("\r\n") && text.lines().count() > 100);
    assert!(text.lines().all(|row| row.split(',').count() == columns));
}

#[test]
fn errors_of_libtorch_are_told_without_its_stack() {
    let x = || Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
    let returned = LambdaCallback::new().on_train_start(move |_, _| x().f_matmul(&x()).map(drop).map_err(Into::into));
    let panicked = LambdaCallback::new().on_train_start(move |_, _| {
        drop(x().matmul(&x()));
        Ok(())
    });
    for callback in [returned, panicked] {
        let mut trainer = quiet().callback(callback).build().unwrap();
        let error = trainer.fit(&mut Net::new(NOWHERE), batches(1)).unwrap_err().to_string();
        assert!(error.contains("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"), "{error}");
        assert!(!error.contains("Exception raised") && !error.contains("frame #"), "{error}");
    }
}

#[test]
fn a_save_removes_neither_itself_nor_its_second_name() {
    let mut request = SaveRequest::new("a.ckpt");
    request.also = Some("last.ckpt".into());
    request.remove = ["a.ckpt", "b.ckpt", "last.ckpt"].map(Into::into).into();
    let commit = request.commit();
    assert_eq!((commit.remove, commit.alias.is_some()), (vec!["b.ckpt".into()], true));
    request.also = Some("a.ckpt".into());
    assert!(request.commit().alias.is_none());
}
