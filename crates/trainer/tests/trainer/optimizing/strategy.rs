//! A strategy from outside, which owns the step and has a state dict of its own.

use std::path::Path;
use std::sync::{Arc, Mutex};

use fulgurite::fabric::precision::OptimizerStep;
use fulgurite::fabric::strategy::{ContextGuard, Strategies};
use fulgurite::fabric::{CheckpointIo, Clip, Commit, FabricError, Pass, Precision, Strategy};
use fulgurite::optim::Optimizer;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params::{self, IncompatibleKeys};
use fulgurite::torch::serialization;
use fulgurite::{Console, TrainerBuilder};

type Calls = Arc<Mutex<Vec<&'static str>>>;

/// Holds doubled weights in its checkpoints, and notes what it is asked for.
struct Doubling(Calls);

impl Doubling {
    fn note(&self, call: &'static str) {
        self.0.lock().unwrap().push(call);
    }
}

fn times(state: &Dict, factor: f64) -> Dict {
    state.map_tensors(&mut |tensor| tensor * factor)
}

/// Notes when it is dropped.
struct Ends(Calls, &'static str);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(self.1);
    }
}

impl Strategy for Doubling {
    fn name(&self) -> &str {
        "doubling"
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn model_init_context(&self) -> std::result::Result<ContextGuard, FabricError> {
        self.note("init");
        Ok(ContextGuard::new(Ends(self.0.clone(), "init ends")))
    }

    fn begin_micro_batch(&mut self, syncs: bool) -> std::result::Result<(), FabricError> {
        self.note(if syncs { "micro batch" } else { "micro batch without sync" });
        Ok(())
    }

    fn forward_context(&self, _: Pass) -> std::result::Result<ContextGuard, FabricError> {
        self.note("forward");
        Ok(ContextGuard::new(Ends(self.0.clone(), "forward ends")))
    }

    fn backward(&mut self, loss: &Tensor, precision: &mut dyn Precision) -> std::result::Result<(), FabricError> {
        self.note("backward");
        precision.backward(loss)
    }

    fn clip_gradients(
        &mut self,
        optimizer: &dyn Optimizer,
        clip: Clip,
    ) -> std::result::Result<Option<Tensor>, FabricError> {
        self.note(if matches!(clip, Clip::Value { .. }) { "clip by value" } else { "clip by norm" });
        clip.clip(optimizer)
    }

    fn optimizer_step(
        &mut self,
        optimizer: &mut dyn Optimizer,
        precision: &mut dyn Precision,
    ) -> std::result::Result<OptimizerStep, FabricError> {
        self.note("step");
        precision.optimizer_step(optimizer)
    }

    fn module_state_dict(&mut self, vars: &dyn Parameters) -> std::result::Result<Dict, FabricError> {
        self.note("state of the module");
        Ok(times(&params::state_dict(vars)?, 2.0))
    }

    fn load_module_state_dict(
        &mut self,
        vars: &dyn Parameters,
        state: &Dict,
        strict: bool,
    ) -> std::result::Result<IncompatibleKeys, FabricError> {
        self.note("load the module");
        Ok(tch::no_grad(|| params::load_state_dict(vars, &times(state, 0.5), strict))?)
    }

    fn optimizer_state_dict(&mut self, optimizer: &dyn Optimizer) -> std::result::Result<Dict, FabricError> {
        self.note("state of the optimizer");
        Ok(optimizer.state_dict()?)
    }

    fn load_optimizer_state_dict(
        &mut self,
        optimizer: &mut dyn Optimizer,
        state: &Dict,
    ) -> std::result::Result<(), FabricError> {
        self.note("load the optimizer");
        Ok(optimizer.load_state_dict(state)?)
    }

    fn save_checkpoint(
        &mut self,
        io: &mut dyn CheckpointIo,
        checkpoint: &Value,
        commit: &Commit,
    ) -> std::result::Result<(), FabricError> {
        self.note("save");
        io.commit(checkpoint, commit)
    }

    fn load_checkpoint(&mut self, io: &mut dyn CheckpointIo, path: &Path) -> std::result::Result<Value, FabricError> {
        self.note("load");
        io.load(path)
    }
}

struct Line {
    vars: nn::VarStore,
    w: Tensor,
    manual: bool,
}

impl Line {
    fn new(manual: bool) -> Line {
        let vars = nn::VarStore::new(Device::Cpu);
        let w = vars.root().var("w", &[], nn::Init::Const(2.0));
        Line { vars, w, manual }
    }
}

impl LightningModule for Line {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        !self.manual
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = &self.w * x.mean(Kind::Float);
        if self.manual {
            step.zero_grad(0)?;
            step.manual_backward(self, &loss)?;
            step.clip_gradients(0, 0.5, fulgurite::config::GradientClipAlgorithm::Value)?;
            step.optimizer_step(self, 0)?;
        }
        Ok(loss.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(Adam::new(&self.vars).lr(0.1).into())
    }
}

fn builder(calls: &Calls, name: &str) -> TrainerBuilder {
    let of_strategy = calls.clone();
    Strategies::register(name, move |_| Ok(Box::new(Doubling(of_strategy.clone())))).unwrap();
    Trainer::builder()
        .accelerator("cpu")
        .devices(1)
        .strategy(name)
        .no_logger()
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory())
}

fn batches() -> DataLoader<fulgurite::data::InMemory<f32>> {
    DataLoader::new(fulgurite::data::InMemory::new([1.0f32, 2.0]))
}

#[test]
fn a_strategy_of_ones_own_takes_every_step_of_automatic_optimization() {
    let calls = Calls::default();
    let mut trainer =
        builder(&calls, "doubling").max_epochs(1).accumulate_grad_batches(2).gradient_clip_val(1.0).build().unwrap();
    _ = trainer.fit(&mut Line::new(false), batches()).unwrap();
    let batch = ["forward", "forward ends", "backward"];
    let expected = [
        &["init", "init ends", "micro batch without sync"][..],
        &batch,
        &["micro batch"],
        &batch,
        &["clip by norm", "step"],
    ];
    assert_eq!(*calls.lock().unwrap(), expected.concat());
}

#[test]
fn a_strategy_of_ones_own_takes_every_step_of_manual_optimization() {
    let calls = Calls::default();
    let mut trainer = builder(&calls, "doubling_by_hand").max_steps(1).build().unwrap();
    _ = trainer.fit(&mut Line::new(true), batches()).unwrap();
    let expected = ["init", "init ends", "micro batch", "forward", "backward", "clip by value", "step", "forward ends"];
    assert_eq!(*calls.lock().unwrap(), expected);
}

#[test]
fn a_strategy_of_ones_own_has_a_state_dict_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let calls = Calls::default();
    let checkpoints = ModelCheckpoint::new().dirpath(folder.path()).filename("end");
    let mut trainer = builder(&calls, "doubling_files")
        .max_epochs(1)
        .enable_checkpointing(true)
        .callback(checkpoints)
        .build()
        .unwrap();
    let mut module = Line::new(false);
    _ = trainer.fit(&mut module, batches()).unwrap();
    let path = folder.path().join("end.ckpt");
    let saves = ["state of the module", "state of the optimizer", "save"];
    assert!(calls.lock().unwrap().ends_with(&saves), "{:?}", calls.lock().unwrap());
    let Value::Dict(checkpoint) = serialization::load(&path).unwrap() else { panic!("no dict") };
    let weight = |state: &Dict| state.tensor("w").unwrap().double_value(&[]);
    assert_eq!(weight(checkpoint.dict("state_dict").unwrap()), 2.0 * module.w.double_value(&[]));

    calls.lock().unwrap().clear();
    let mut trainer = builder(&calls, "doubling_files").max_epochs(1).build().unwrap();
    let mut resumed = Line::new(false);
    _ = trainer.ckpt_path(path.to_str().unwrap()).fit(&mut resumed, batches()).unwrap();
    assert_eq!(resumed.w.double_value(&[]), module.w.double_value(&[]));
    let expected = ["init", "init ends", "load", "load the module", "load the optimizer", "state of the optimizer"];
    assert_eq!(*calls.lock().unwrap(), expected);
}
