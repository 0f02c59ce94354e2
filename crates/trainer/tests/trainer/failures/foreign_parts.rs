//! Callbacks, optimizers, schedulers and metrics whose methods run foreign code: each may fail, and no checkpoint is
//! written of what could not be gathered.

use std::any::Any;
use std::cell::Cell;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use fulgurite::metrics::{Field, MeanMetric, Metric, MetricError};
use fulgurite::optim::{Closure, LrScheduler, OptimError, Optimizer, ParamGroup, ParamGroupConfig, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite_test_support::quiet;

use super::batches;

/// The method that fails, and after how many calls.
#[derive(Clone, Default)]
struct Raises {
    method: &'static str,
    after: usize,
    calls: Cell<usize>,
}

impl Raises {
    fn reach(&self, method: &str) -> Result<(), &'static str> {
        if method != self.method {
            return Ok(());
        }
        self.calls.set(self.calls.get() + 1);
        if self.calls.get() > self.after { Err("KeyError: lr") } else { Ok(()) }
    }
}

struct ForeignCallback(Raises);

impl Callback for ForeignCallback {
    fn state_key(&self) -> String {
        "LitCallback".into()
    }

    fn state_dict(&self) -> Result<Dict> {
        assert_ne!(self.0.method, "panic", "no state");
        self.0.reach("callback.state_dict")?;
        Ok(Dict::new().with("seen", 1))
    }
}

struct ForeignOptimizer(Box<dyn Optimizer>, Raises);

impl ForeignOptimizer {
    fn reach(&self, method: &str) -> Result<(), OptimError> {
        self.1.reach(method).map_err(|exception| OptimError::other("torch.optim.Adam", exception))
    }
}

impl Optimizer for ForeignOptimizer {
    fn name(&self) -> &str {
        "torch.optim.Adam"
    }

    fn param_groups(&self) -> &[ParamGroup] {
        self.0.param_groups()
    }

    fn param_groups_mut(&mut self) -> &mut [ParamGroup] {
        self.0.param_groups_mut()
    }

    fn add_param_group(&mut self, group: ParamGroupConfig) -> Result<(), OptimError> {
        self.0.add_param_group(group)
    }

    fn step(&mut self) -> Result<(), OptimError> {
        self.0.step()
    }

    fn step_with(&mut self, closure: Closure<'_>) -> Result<Tensor, OptimError> {
        self.0.step_with(closure)
    }

    fn zero_grad(&mut self) -> Result<(), OptimError> {
        self.reach("optimizer.zero_grad")?;
        self.0.zero_grad()
    }

    fn state_dict(&self) -> Result<Dict, OptimError> {
        self.reach("optimizer.state_dict")?;
        self.0.state_dict()
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        self.0.load_state_dict(state)
    }
}

struct ForeignScheduler(StepLR, Raises);

impl LrScheduler for ForeignScheduler {
    fn name(&self) -> &str {
        "LitScheduler"
    }

    fn attach(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.0.attach(optimizer)
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer, metric: Option<f64>) -> Result<(), OptimError> {
        self.0.step(optimizer, metric)
    }

    fn last_lr(&self) -> &[f64] {
        self.0.last_lr()
    }

    fn state_dict(&self) -> Result<Dict, OptimError> {
        self.1.reach("scheduler.state_dict").map_err(|exception| OptimError::other("LitScheduler", exception))?;
        self.0.state_dict()
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        self.0.load_state_dict(state)
    }
}

#[derive(Clone)]
struct ForeignMetric(MeanMetric, Raises);

impl ForeignMetric {
    fn reach(&self, method: &str) -> Result<(), MetricError> {
        self.1.reach(method).map_err(|exception| MetricError::other("LitMetric", exception))
    }
}

impl Metric for ForeignMetric {
    fn compute(&self) -> Result<Tensor, MetricError> {
        Metric::compute(&self.0)
    }

    fn batch_value(&self) -> Option<Tensor> {
        self.0.batch_value()
    }

    fn reset(&self) -> Result<(), MetricError> {
        self.reach("metric.reset")?;
        Metric::reset(&self.0)
    }

    fn share(&self) -> Box<dyn Metric> {
        Box::new(self.clone())
    }

    fn state_id(&self) -> usize {
        self.0.state_id()
    }

    fn state_dict(&self) -> Result<Dict, MetricError> {
        self.reach("metric.state_dict")?;
        self.0.state_dict()
    }

    fn load_state_dict(&self, state: &Dict) -> Result<(), MetricError> {
        self.0.load_state_dict(state)
    }

    fn merge_state(&self, other: &Dict) -> Result<(), MetricError> {
        self.0.merge_state(other)
    }

    fn fields(&self) -> &'static [Field] {
        self.0.fields()
    }
}

/// A module with all of them.
struct Foreign {
    vars: nn::VarStore,
    layer: nn::Linear,
    metric: ForeignMetric,
    raises: Raises,
}

impl LightningModule for Foreign {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = batch.apply(&self.layer).square().mean(Kind::Float);
        self.metric.0.update(&loss.detach())?;
        step.log("mean", &self.metric).on_epoch();
        Ok(loss.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let adam = ForeignOptimizer(Adam::new(&self.vars).build()?, self.raises.clone());
        let scheduler = ForeignScheduler(StepLR::new(1), self.raises.clone());
        Ok(Optimizers::from_result(Ok(Box::new(adam))).scheduler(scheduler))
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Two epochs of one step, each with a checkpoint, in which `method` fails after so many calls: the error is as expected, the
/// checkpoint of step `saved` is there, complete, and the only one, and `ModelCheckpoint` agrees.
#[track_caller]
fn check(method: &'static str, after: usize, saved: Option<i64>, expected: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let raises = Raises { method, after, calls: Cell::new(0) };
    let vars = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(vars.root(), 2, 1, Default::default());
    let metric = ForeignMetric(MeanMetric::new(), raises.clone());
    let mut module = Foreign { vars, layer, metric, raises: raises.clone() };
    let mut trainer = quiet()
        .enable_checkpointing(true)
        .callback(ForeignCallback(raises))
        .callback(ModelCheckpoint::new().dirpath(folder.path()))
        .max_epochs(2)
        .build()
        .unwrap();
    let error = trainer.fit(&mut module, batches(1)).unwrap_err();
    expected.assert_eq(&error.to_string());
    let kept = trainer.callback::<ModelCheckpoint>().unwrap().best_model_path().map(Path::to_owned);
    assert_eq!(files(folder.path()), Vec::from_iter(kept.clone()), "{method}");
    let written = kept.map(|path| fulgurite::torch::serialization::load(path).unwrap());
    let step = written.map(|checkpoint| checkpoint.as_dict().unwrap().int("global_step").unwrap());
    assert_eq!(step, saved, "{method}");
}

#[test]
fn a_state_that_cannot_be_had_ends_the_run_and_leaves_the_checkpoint_before() {
    check("callback.state_dict", 0, None, expect!["LitCallback::state_dict failed (epoch 0): KeyError: lr"]);
    check("callback.state_dict", 1, Some(1), expect!["LitCallback::state_dict failed (epoch 1): KeyError: lr"]);
    check("optimizer.state_dict", 1, Some(1), expect!["torch.optim.Adam: KeyError: lr"]);
    check("scheduler.state_dict", 1, Some(1), expect!["LitScheduler: KeyError: lr"]);
    check("metric.state_dict", 1, Some(1), expect!["`LitMetric`: KeyError: lr"]);
    check(
        "panic",
        0,
        None,
        expect![[r#"
        LitCallback::state_dict panicked (epoch 0): assertion `left != right` failed: no state
          left: "panic"
         right: "panic""#]],
    );
}

#[test]
fn gradients_that_cannot_be_zeroed_and_metrics_that_cannot_be_reset_end_the_run() {
    check(
        "optimizer.zero_grad",
        2,
        Some(1),
        expect!["Foreign::optimizer_zero_grad failed (epoch 1, batch 0): torch.optim.Adam: KeyError: lr"],
    );
    check("metric.reset", 1, Some(2), expect!["`LitMetric`: KeyError: lr"]);
}

#[test]
fn a_trainer_may_be_sent_to_another_thread() {
    fn is_send<T: Send + Any>() {}
    is_send::<Trainer>();
}
