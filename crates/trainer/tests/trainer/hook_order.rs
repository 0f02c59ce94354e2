//! The order in which hooks are called, against what Lightning 2.6.6 calls (`golden/`, kept true by the parity tests).

use std::sync::{Arc, Mutex};

use fulgurite::config::GradientClipAlgorithm;
use fulgurite::optim::{LrScheduler, Optimizer, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{BatchFlow, Console, ModuleView, OptimizerClosure};

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    fn push(&self, owner: &str, name: &str) {
        self.0.lock().unwrap().push(format!("{owner}.{name}"));
    }
}

struct Recorder(Events);
struct Model {
    vars: nn::VarStore,
    layer: nn::Linear,
    events: Events,
    manual: bool,
}
struct Data(Events);

/// Records a hook of no further argument on the callback.
macro_rules! callback_hooks {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView $(, $arg: $type)*) -> Result<()> {
            $(let _ = $arg;)*
            self.0.push("Callback", stringify!($name));
            Ok(())
        })*
    };
}

impl Callback for Recorder {
    fn state_dict(&self) -> Result<Dict> {
        self.0.push("Callback", "state_dict");
        Ok(Dict::new().with("seen", 1))
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
        on_train_batch_start(batch: &dyn std::any::Any, idx: usize);
        on_train_batch_end(outputs: &Loss, batch: &dyn std::any::Any, idx: usize);
        on_before_zero_grad(optimizer: &mut dyn Optimizer);
        on_before_backward(loss: &Tensor);
        on_after_backward();
        on_before_optimizer_step(optimizer: &mut dyn Optimizer);
        on_validation_start();
        on_validation_end();
        on_validation_epoch_start();
        on_validation_epoch_end();
        on_validation_batch_start(batch: &dyn std::any::Any, idx: usize, loader: usize);
        on_validation_batch_end(outputs: &Value, batch: &dyn std::any::Any, idx: usize, loader: usize);
        on_test_start();
        on_test_end();
        on_test_epoch_start();
        on_test_epoch_end();
        on_test_batch_start(batch: &dyn std::any::Any, idx: usize, loader: usize);
        on_test_batch_end(outputs: &Value, batch: &dyn std::any::Any, idx: usize, loader: usize);
        on_predict_start();
        on_predict_end();
        on_predict_epoch_start();
        on_predict_epoch_end();
        on_predict_batch_start(batch: &dyn std::any::Any, idx: usize, loader: usize);
        on_predict_batch_end(outputs: &Value, batch: &dyn std::any::Any, idx: usize, loader: usize);
        on_save_checkpoint(checkpoint: &mut Dict);
        on_load_checkpoint(checkpoint: &mut Dict);
    }
}

impl Model {
    fn new(events: Events, manual: bool) -> Model {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root() / "layer", 4, 1, Default::default());
        Model { vars, layer, events, manual }
    }

    fn record(&self, name: &str) {
        self.events.push("LightningModule", name);
    }

    fn loss(&self, batch: &Tensor) -> Tensor {
        batch.apply(&self.layer).square().mean(Kind::Float)
    }
}

/// Records a hook with the trainer as its first argument on the module.
macro_rules! module_hooks {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name(&mut self, _: &mut TrainerState $(, $arg: $type)*) -> Result<()> {
            $(let _ = $arg;)*
            self.record(stringify!($name));
            Ok(())
        })*
    };
}

impl LightningModule for Model {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        !self.manual
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        self.record("training_step");
        let loss = self.loss(&batch);
        if self.manual {
            step.zero_grad(0)?;
            step.manual_backward(self, &loss)?;
            step.optimizer_step(self, 0)?;
            step.lr_scheduler_step(0, None)?;
        }
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        self.record("validation_step");
        step.log("val_loss", self.loss(&batch));
        Ok(())
    }

    fn test_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        self.record("test_step");
        step.log("test_loss", self.loss(&batch));
        Ok(())
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        self.record("predict_step");
        Ok(batch.apply(&self.layer).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        self.record("configure_optimizers");
        let scheduler = LrSchedulerConfig::new(StepLR::new(1)).interval(Interval::Step);
        Ok(Optimizers::from(SGD::new(&self.vars).lr(0.01)).scheduler(scheduler))
    }

    fn configure_callbacks(&mut self) -> Result<Vec<Box<dyn Callback>>> {
        self.record("configure_callbacks");
        Ok(Vec::new())
    }

    fn prepare_data(&mut self, _: &mut TrainerState) -> Result<()> {
        self.record("prepare_data");
        Ok(())
    }

    fn on_before_batch_transfer(&mut self, _: &mut TrainerState, batch: Tensor, _: usize) -> Result<Tensor> {
        self.record("on_before_batch_transfer");
        Ok(batch)
    }

    fn transfer_batch_to_device(
        &mut self,
        _: &mut TrainerState,
        batch: Tensor,
        device: Device,
        _: usize,
    ) -> Result<Tensor> {
        self.record("transfer_batch_to_device");
        Ok(batch.to_device(device))
    }

    fn on_after_batch_transfer(&mut self, _: &mut TrainerState, batch: Tensor, _: usize) -> Result<Tensor> {
        self.record("on_after_batch_transfer");
        Ok(batch)
    }

    fn on_train_batch_start(&mut self, _: &mut TrainerState, _: &Tensor, _: usize) -> Result<BatchFlow> {
        self.record("on_train_batch_start");
        Ok(BatchFlow::Continue)
    }

    fn optimizer_zero_grad(&mut self, _: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
        self.record("optimizer_zero_grad");
        Ok(optimizer.zero_grad()?)
    }

    fn backward(&mut self, trainer: &mut TrainerState, loss: &Tensor) -> Result<()> {
        self.record("backward");
        trainer.backward(loss)
    }

    fn optimizer_step(
        &mut self,
        optimizer: &mut dyn Optimizer,
        closure: &mut OptimizerClosure<'_, Self>,
    ) -> Result<()> {
        self.record("optimizer_step");
        closure.step(self, optimizer)
    }

    fn configure_gradient_clipping(
        &mut self,
        trainer: &mut TrainerState,
        optimizer: &mut dyn Optimizer,
        value: Option<f64>,
        algorithm: GradientClipAlgorithm,
    ) -> Result<()> {
        self.record("configure_gradient_clipping");
        trainer.clip_gradients(optimizer, value, algorithm)
    }

    fn lr_scheduler_step(
        &mut self,
        _: &mut TrainerState,
        scheduler: &mut dyn LrScheduler,
        optimizer: &mut dyn Optimizer,
        metric: Option<f64>,
    ) -> Result<()> {
        self.record("lr_scheduler_step");
        Ok(scheduler.step(optimizer, metric)?)
    }

    fn on_save_checkpoint(&mut self, _: &mut TrainerState, _: &mut Dict) -> Result<()> {
        self.record("on_save_checkpoint");
        Ok(())
    }

    fn on_load_checkpoint(&mut self, _: Option<&mut TrainerState>, _: &mut Dict) -> Result<()> {
        self.record("on_load_checkpoint");
        Ok(())
    }

    module_hooks! {
        setup(stage: TrainerFn);
        teardown(stage: TrainerFn);
        configure_model();
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
}

impl Data {
    fn loaders(&self, name: &str) -> Result<Loaders<Tensor>> {
        self.0.push("LightningDataModule", name);
        let batches: Vec<Tensor> = (0..3).map(|_| Tensor::ones([2, 4], (Kind::Float, Device::Cpu))).collect();
        Ok(batches.into())
    }
}

impl LightningDataModule for Data {
    type Batch = Tensor;

    fn prepare_data(&mut self, _: &mut TrainerState) -> Result<()> {
        self.0.push("LightningDataModule", "prepare_data");
        Ok(())
    }

    fn setup(&mut self, _: &mut TrainerState, _: TrainerFn) -> Result<()> {
        self.0.push("LightningDataModule", "setup");
        Ok(())
    }

    fn teardown(&mut self, _: &mut TrainerState, _: TrainerFn) -> Result<()> {
        self.0.push("LightningDataModule", "teardown");
        Ok(())
    }

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.loaders("train_dataloader")
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.loaders("val_dataloader")
    }

    fn test_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.loaders("test_dataloader")
    }

    fn predict_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.loaders("predict_dataloader")
    }

    fn state_dict(&self) -> Result<Dict> {
        self.0.push("LightningDataModule", "state_dict");
        Ok(Dict::new().with("seen", 1))
    }
}

/// What `python/hooks.py` does with Lightning. Without a window the module steps its optimizer itself.
fn events_of_fit_test_predict(accumulate: Option<u64>) -> String {
    let root = tempfile::tempdir().unwrap();
    let events = Events::default();
    let mut trainer = Trainer::builder()
        .max_epochs(2)
        .limit_train_batches(2)
        .limit_val_batches(1)
        .limit_test_batches(1)
        .limit_predict_batches(1)
        .num_sanity_val_steps(1)
        .accumulate_grad_batches(accumulate.unwrap_or(1))
        .gradient_clip_val(if accumulate.is_some() { 1.0 } else { 0.0 })
        .callback(Recorder(events.clone()))
        .callback(ModelCheckpoint::monitor("val_loss").dirpath(root.path()))
        .accelerator("cpu")
        .no_logger()
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .default_root_dir(root.path())
        .console(Console::memory())
        .build()
        .unwrap();
    let (mut model, mut data) = (Model::new(events.clone(), accumulate.is_none()), Data(events.clone()));
    let mark = |entry: &str| events.0.lock().unwrap().push(format!("-- {entry}"));
    mark("fit");
    _ = trainer.fit(&mut model, &mut data).unwrap();
    mark("test");
    trainer.test(&mut model, &mut data).unwrap();
    mark("predict");
    trainer.predict(&mut model, &mut data).unwrap();
    let events = events.0.lock().unwrap();
    events.join("\n") + "\n"
}

#[test]
fn hooks_come_in_lightnings_order() {
    similar_asserts(include_str!("../golden/hooks_accumulate_1.txt"), &events_of_fit_test_predict(Some(1)));
}

#[test]
fn hooks_come_in_lightnings_order_in_manual_optimization() {
    similar_asserts(include_str!("../golden/hooks_manual.txt"), &events_of_fit_test_predict(None));
}

#[test]
fn hooks_come_in_lightnings_order_while_accumulating() {
    similar_asserts(include_str!("../golden/hooks_accumulate_2.txt"), &events_of_fit_test_predict(Some(2)));
}

#[track_caller]
fn similar_asserts(golden: &str, here: &str) {
    for (line, (golden, here)) in golden.lines().zip(here.lines()).enumerate() {
        assert_eq!(here, golden, "event {line} differs (here, Lightning)");
    }
    assert_eq!(here.lines().count(), golden.lines().count(), "one of the two has further events");
}
