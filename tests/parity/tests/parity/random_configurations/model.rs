//! The module and the callback of every run: they write down each hook, and do what the configuration wants in it.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use fulgurite::config::GradientClipAlgorithm;
use fulgurite::optim::{CosineAnnealingLR, LrScheduler, OneCycleLR, Optimizer, ReduceLROnPlateau, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{BatchFlow, ModuleView, OptimizerClosure};
use serde_json::{Value as Json, json};

use super::trace::Events;

/// What module and callback share: the configuration, the events, and how often what was called.
#[derive(Clone)]
pub struct Script {
    pub config: Arc<Json>,
    pub events: Events,
    calls: Arc<Mutex<HashMap<String, usize>>>,
}

impl Script {
    pub fn new(config: &Json, events: &Events) -> Script {
        Script { config: Arc::new(config.clone()), events: events.clone(), calls: Arc::default() }
    }

    fn count(&self, what: &str) -> usize {
        let mut calls = self.calls.lock().unwrap();
        let count = calls.entry(what.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn calls(&self, what: &str) -> usize {
        self.calls.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    /// Whether the configuration wants `what` at this call.
    fn wants(&self, what: &str, call: usize) -> bool {
        self.config[what].as_array().unwrap().contains(&json!(call))
    }

    /// A hook is called: notes it, and does what is to be done in it.
    fn act(&self, owner: &str, hook: &str, trainer: &mut TrainerState, more: Vec<Json>) {
        self.events.note(owner, hook, trainer, more);
        let at = format!("{owner}.{hook}");
        let call = self.count(&at);
        self.log_all(trainer, &at, None, 0);
        if self.config["stop"] == json!([at, call]) {
            trainer.request_stop("the configuration says so");
        }
    }

    fn log_all(&self, trainer: &mut TrainerState, at: &str, loss: Option<&Tensor>, dataloader_idx: usize) {
        let config = self.config.clone();
        for entry in config["logs"].as_array().unwrap().iter().filter(|entry| entry["at"] == at) {
            let (options, mut name) = (&entry["options"], entry["name"].as_str().unwrap().to_owned());
            let value = match (loss, entry["value"].as_array()) {
                (_, Some(value)) => {
                    self.count(&name);
                    let (by, script) = (value[0].as_str().unwrap(), value[1].as_array().unwrap());
                    let call = self.calls(if by == "call" { &name } else { by });
                    // Python's index of -1 is the last.
                    script[(call + script.len() - 1) % script.len()].as_f64().unwrap().into()
                }
                (loss, None) => fulgurite::metrics::LogValue::from(loss.unwrap()),
            };
            let flag = |key: &str| options[key].as_bool();
            if flag("add_dataloader_idx") == Some(false) && entry["one_name"] != true {
                name = format!("{name}{dataloader_idx}");
            }
            let mut log = trainer.log(&name, value).logger(flag("logger").unwrap_or(true));
            log = log.add_dataloader_idx(flag("add_dataloader_idx").unwrap_or(true));
            log = match (flag("on_step"), flag("on_epoch")) {
                (Some(step), Some(epoch)) => log.when(step, epoch),
                (Some(true), None) => log.on_step(),
                (None, Some(true)) => log.on_epoch(),
                _ => log,
            };
            if flag("prog_bar") == Some(true) {
                log = log.prog_bar();
            }
            if let Some(size) = options["batch_size"].as_u64() {
                log = log.batch_size(size as usize);
            }
            let _recorded = match options["reduce_fx"].as_str() {
                Some("min") => log.reduce(Reduce::Min),
                Some("max") => log.reduce(Reduce::Max),
                Some("sum") => log.reduce(Reduce::Sum),
                _ => log,
            };
        }
    }
}

fn lrs(optimizer: &dyn Optimizer) -> Vec<Json> {
    vec![json!(optimizer.param_groups().iter().map(|group| group.lr).collect::<Vec<_>>())]
}

fn stage_name(stage: TrainerFn) -> Vec<Json> {
    vec![json!(format!("{stage:?}").to_lowercase())]
}

pub struct Recorder(pub Script);

/// Hooks of the callback, with what of their arguments an event holds.
macro_rules! callback_hooks {
    ($($name:ident($($arg:ident: $type:ty),*) => $more:expr;)*) => {
        $(fn $name(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView $(, $arg: $type)*) -> Result<()> {
            self.0.act("Callback", stringify!($name), trainer, $more);
            Ok(())
        })*
    };
}

impl Callback for Recorder {
    callback_hooks! {
        setup(stage: TrainerFn) => stage_name(stage);
        teardown(stage: TrainerFn) => stage_name(stage);
        on_fit_start() => vec![];
        on_fit_end() => vec![];
        on_sanity_check_start() => vec![];
        on_sanity_check_end() => vec![];
        on_train_start() => vec![];
        on_train_end() => vec![];
        on_train_epoch_start() => vec![];
        on_train_epoch_end() => vec![];
        on_train_batch_start(_batch: &dyn Any, idx: usize) => vec![json!(idx)];
        on_train_batch_end(_outputs: &Loss, _batch: &dyn Any, idx: usize) => vec![json!(idx)];
        on_before_zero_grad(_optimizer: &mut dyn Optimizer) => vec![];
        on_before_backward(_loss: &Tensor) => vec![];
        on_after_backward() => vec![];
        on_before_optimizer_step(optimizer: &mut dyn Optimizer) => lrs(optimizer);
        on_validation_start() => vec![];
        on_validation_end() => vec![];
        on_validation_epoch_start() => vec![];
        on_validation_epoch_end() => vec![];
        on_validation_batch_start(_batch: &dyn Any, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_validation_batch_end(_outputs: &Value, _batch: &dyn Any, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_test_start() => vec![];
        on_test_end() => vec![];
        on_test_epoch_start() => vec![];
        on_test_epoch_end() => vec![];
        on_test_batch_start(_batch: &dyn Any, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_test_batch_end(_outputs: &Value, _batch: &dyn Any, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_predict_start() => vec![];
        on_predict_end() => vec![];
        on_predict_epoch_start() => vec![];
        on_predict_epoch_end() => vec![];
        on_predict_batch_start(_batch: &dyn Any, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_predict_batch_end(_outputs: &Value, _batch: &dyn Any, idx: usize, loader: usize)
            => vec![json!(idx), json!(loader)];
    }
}

pub type Pair = (Tensor, Tensor);

pub struct Net {
    vars: nn::VarStore,
    a: nn::Linear,
    b: nn::Linear,
    script: Script,
}

impl Net {
    pub fn new(script: Script) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let a = nn::linear(vars.root() / "a", 3, 2, Default::default());
        let b = nn::linear(vars.root() / "b", 2, 1, Default::default());
        Net { vars, a, b, script }
    }

    fn loss(&self, (x, y): &Pair) -> Tensor {
        let kind = self.a.ws.kind();
        (x.apply(&self.a).tanh().apply(&self.b) - y).square().mean(kind)
    }

    fn evaluation_step(&mut self, name: &str, batch: &Pair, step: &mut Step) {
        let (batch_idx, dataloader_idx) = (step.batch_idx(), step.dataloader_idx());
        self.script.events.push(json!([format!("Module.{name}"), batch_idx, dataloader_idx]));
        self.script.log_all(step.trainer(), name, Some(&self.loss(batch)), dataloader_idx);
    }

    fn step_by_hand(&mut self, batch: &Pair, step: &mut Step) -> Result<()> {
        let config = self.script.config.clone();
        let manual = &config["manual"];
        let call = self.script.calls("training_step");
        for (index, _) in config["optimizers"].as_array().unwrap().iter().enumerate() {
            let toggles = manual["toggle"] == true;
            if toggles {
                step.toggle_optimizer(index)?;
            }
            let loss = self.loss(batch);
            step.manual_backward(self, &loss)?;
            if call.is_multiple_of(manual["every"][index].as_u64().unwrap() as usize) {
                step.optimizer_step(self, index)?;
                step.zero_grad(index)?;
            }
            if toggles {
                step.untoggle_optimizer();
            }
        }
        for index in 0..config["schedulers"].as_array().unwrap().len() {
            step.lr_scheduler_step(index, None)?;
        }
        Ok(())
    }
}

/// Hooks of the module, with what of their arguments an event holds.
macro_rules! module_hooks {
    ($($name:ident($($arg:ident: $type:ty),*) => $more:expr;)*) => {
        $(fn $name(&mut self, trainer: &mut TrainerState $(, $arg: $type)*) -> Result<()> {
            self.script.act("Module", stringify!($name), trainer, $more);
            Ok(())
        })*
    };
}

impl LightningModule for Net {
    type Batch = Pair;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        self.script.config["manual"].is_null()
    }

    fn training_step(&mut self, batch: Pair, step: &mut Step) -> Result<Loss> {
        self.script.events.push(json!(["Module.training_step", step.batch_idx()]));
        let call = self.script.count("training_step");
        let loss = self.loss(&batch);
        self.script.log_all(step.trainer(), "training_step", Some(&loss), 0);
        if !self.script.config["manual"].is_null() {
            self.step_by_hand(&batch, step)?;
        }
        Ok(if self.script.wants("skip_loss", call) { Loss::skip() } else { loss.into() })
    }

    fn validation_step(&mut self, batch: Pair, step: &mut Step) -> Result<()> {
        self.evaluation_step("validation_step", &batch, step);
        Ok(())
    }

    fn test_step(&mut self, batch: Pair, step: &mut Step) -> Result<()> {
        self.evaluation_step("test_step", &batch, step);
        Ok(())
    }

    fn predict_step(&mut self, batch: Pair, step: &mut Step) -> Result<Value> {
        self.script.events.push(json!(["Module.predict_step", step.batch_idx(), step.dataloader_idx()]));
        Ok(self.loss(&batch).into())
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.script.act("Module", "configure_optimizers", trainer, vec![]);
        let config = self.script.config.clone();
        let [a, b] = [&self.a, &self.b].map(|l| vec![l.ws.shallow_clone(), l.bs.as_ref().unwrap().shallow_clone()]);
        let optimizers = config["optimizers"].as_array().unwrap();
        let parts = if optimizers.len() == 1 { vec![a.into_iter().chain(b).collect()] } else { vec![a, b] };
        let mut all = Optimizers::none();
        for (index, (parameters, options)) in parts.into_iter().zip(optimizers).enumerate() {
            let mut one = optimizer(parameters, options);
            if let Some(options) = config["schedulers"].get(index) {
                one = one.scheduler(scheduler(options));
            }
            all = all.and(one);
        }
        Ok(all)
    }

    fn on_train_batch_start(&mut self, trainer: &mut TrainerState, _: &Pair, idx: usize) -> Result<BatchFlow> {
        self.script.act("Module", "on_train_batch_start", trainer, vec![json!(idx)]);
        let call = self.script.calls("Module.on_train_batch_start");
        Ok(if self.script.wants("end_epoch", call) { BatchFlow::EndEpoch } else { BatchFlow::Continue })
    }

    fn optimizer_zero_grad(&mut self, trainer: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
        self.script.act("Module", "optimizer_zero_grad", trainer, vec![]);
        Ok(optimizer.zero_grad()?)
    }

    fn backward(&mut self, trainer: &mut TrainerState, loss: &Tensor) -> Result<()> {
        self.script.act("Module", "backward", trainer, vec![]);
        trainer.backward(loss)
    }

    fn optimizer_step(
        &mut self,
        optimizer: &mut dyn Optimizer,
        closure: &mut OptimizerClosure<'_, Self>,
    ) -> Result<()> {
        self.script.act("Module", "optimizer_step", closure.trainer(), vec![]);
        closure.step(self, optimizer)
    }

    fn configure_gradient_clipping(
        &mut self,
        trainer: &mut TrainerState,
        optimizer: &mut dyn Optimizer,
        value: Option<f64>,
        algorithm: GradientClipAlgorithm,
    ) -> Result<()> {
        self.script.act("Module", "configure_gradient_clipping", trainer, vec![]);
        trainer.clip_gradients(optimizer, value, algorithm)
    }

    fn lr_scheduler_step(
        &mut self,
        trainer: &mut TrainerState,
        scheduler: &mut dyn LrScheduler,
        optimizer: &mut dyn Optimizer,
        metric: Option<f64>,
    ) -> Result<()> {
        self.script.act("Module", "lr_scheduler_step", trainer, vec![]);
        Ok(scheduler.step(optimizer, metric)?)
    }

    fn on_validation_model_zero_grad(&mut self, trainer: &mut TrainerState) -> Result<()> {
        self.script.act("Module", "on_validation_model_zero_grad", trainer, vec![]);
        Ok(trainer.zero_grad()?)
    }

    fn on_save_checkpoint(&mut self, _: &mut TrainerState, _: &mut Dict) -> Result<()> {
        self.script.events.push(json!(["Module.on_save_checkpoint"]));
        Ok(())
    }

    fn on_load_checkpoint(&mut self, _: Option<&mut TrainerState>, _: &mut Dict) -> Result<()> {
        self.script.events.push(json!(["Module.on_load_checkpoint"]));
        Ok(())
    }

    module_hooks! {
        setup(stage: TrainerFn) => stage_name(stage);
        teardown(stage: TrainerFn) => stage_name(stage);
        on_fit_start() => vec![];
        on_fit_end() => vec![];
        on_train_start() => vec![];
        on_train_end() => vec![];
        on_train_epoch_start() => vec![];
        on_train_epoch_end() => vec![];
        on_train_batch_end(_outputs: &Loss, _batch: &Pair, idx: usize) => vec![json!(idx)];
        on_before_zero_grad(_optimizer: &mut dyn Optimizer) => vec![];
        on_before_backward(_loss: &Tensor) => vec![];
        on_after_backward() => vec![];
        on_before_optimizer_step(optimizer: &mut dyn Optimizer) => lrs(optimizer);
        on_validation_model_eval() => vec![];
        on_validation_model_train() => vec![];
        on_validation_start() => vec![];
        on_validation_end() => vec![];
        on_validation_epoch_start() => vec![];
        on_validation_epoch_end() => vec![];
        on_validation_batch_start(_batch: &Pair, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_validation_batch_end(_outputs: &Value, _batch: &Pair, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_test_model_eval() => vec![];
        on_test_model_train() => vec![];
        on_test_start() => vec![];
        on_test_end() => vec![];
        on_test_epoch_start() => vec![];
        on_test_epoch_end() => vec![];
        on_test_batch_start(_batch: &Pair, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_test_batch_end(_outputs: &Value, _batch: &Pair, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_predict_model_eval() => vec![];
        on_predict_start() => vec![];
        on_predict_end() => vec![];
        on_predict_epoch_start() => vec![];
        on_predict_epoch_end() => vec![];
        on_predict_batch_start(_batch: &Pair, idx: usize, loader: usize) => vec![json!(idx), json!(loader)];
        on_predict_batch_end(_outputs: &Value, _batch: &Pair, idx: usize, loader: usize)
            => vec![json!(idx), json!(loader)];
    }
}

fn optimizer(parameters: Vec<Tensor>, options: &Json) -> Optimizers {
    let number = |key: &str, default: f64| options[key].as_f64().unwrap_or(default);
    let lr = number("lr", 0.0);
    match options["name"].as_str().unwrap() {
        "Adam" => Adam::new(parameters).lr(lr).into(),
        "AdamW" => AdamW::new(parameters).lr(lr).weight_decay(number("weight_decay", 0.01)).into(),
        _ => {
            let sgd = SGD::new(parameters).lr(lr).momentum(number("momentum", 0.0));
            sgd.weight_decay(number("weight_decay", 0.0)).into()
        }
    }
}

fn scheduler(options: &Json) -> LrSchedulerConfig {
    let count = |key: &str| options[key].as_u64().unwrap() as u32;
    let number = |key: &str| options[key].as_f64().unwrap();
    let mut config: LrSchedulerConfig = match options["name"].as_str().unwrap() {
        "StepLR" => StepLR::new(count("step_size")).gamma(number("gamma")).into(),
        "CosineAnnealingLR" => CosineAnnealingLR::new(count("T_max")).into(),
        "OneCycleLR" => OneCycleLR::new(number("max_lr"), count("total_steps")).cycle_momentum(false).into(),
        _ => ReduceLROnPlateau::new().patience(count("patience")).factor(number("factor")).into(),
    };
    config = config.strict(options["strict"].as_bool().unwrap_or(true));
    config = config.frequency(options["frequency"].as_u64().unwrap_or(1));
    if options["interval"] == "step" {
        config = config.interval(Interval::Step);
    }
    match options["monitor"].as_str() {
        Some(monitor) => config.monitor(monitor),
        None => config,
    }
}
