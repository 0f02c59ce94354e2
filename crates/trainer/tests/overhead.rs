//! What a step costs besides the user's own work: no allocation, and no read from the device that was not due.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use fulgurite::callbacks::EMAWeightAveraging;
use fulgurite::data::{BatchIter, DataError, Loader};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{CountingAllocator, host_reads};
use fulgurite::{Console, TrainerBuilder};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Yields the same batch again and again.
struct Same {
    batch: Tensor,
    times: usize,
}

impl Loader for Same {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        Some(self.times)
    }

    fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<Tensor>, DataError> {
        let batch = self.batch.shallow_clone();
        Ok(Box::new((skip..self.times).map(move |_| Ok(batch.shallow_clone()))))
    }
}

struct Line {
    vars: nn::VarStore,
    layer: nn::Linear,
    /// Allocations and host reads after each step.
    costs: Vec<(u64, u64)>,
}

impl LightningModule for Line {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        // Without a profiler this is a call of the closure.
        let loss = step.profile("forward", |_| batch.apply(&self.layer).square().mean(Kind::Float));
        step.trainer().profile("nothing", |_| ());
        step.log("train_loss", &loss).on_epoch();
        step.log("constant", 3.0);
        Ok(loss.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(AdamW::new(&self.vars).lr(1e-3).into())
    }

    fn on_train_batch_end(&mut self, _: &mut TrainerState, _: &Loss, _: &Tensor, _: usize) -> Result<()> {
        self.costs.push((CountingAllocator::allocations(), host_reads()));
        Ok(())
    }
}

const STEPS: usize = 1200;

/// Allocations and host reads of steps 200 to 1200 of a run with CSV logger and checkpointing.
fn costs(log_every_n_steps: u64) -> (u64, u64) {
    costs_with(log_every_n_steps, |builder| builder)
}

fn costs_with(log_every_n_steps: u64, more: impl FnOnce(TrainerBuilder) -> TrainerBuilder) -> (u64, u64) {
    let root = tempfile::tempdir().unwrap();
    let vars = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(vars.root(), 8, 4, Default::default());
    let mut module = Line { vars, layer, costs: Vec::with_capacity(STEPS) };
    let loader = Same { batch: Tensor::randn([4, 8], (Kind::Float, Device::Cpu)), times: STEPS };
    let builder = Trainer::builder()
        .max_epochs(1)
        .accelerator("cpu")
        .log_every_n_steps(log_every_n_steps)
        .logger(CsvLogger::new(root.path()))
        .default_root_dir(root.path())
        .console(Console::memory());
    let mut trainer = more(builder).build().unwrap();
    _ = trainer.fit(&mut module, Loaders::from(loader)).unwrap();
    let ((a0, r0), (a1, r1)) = (module.costs[199], module.costs[STEPS - 1]);
    (a1 - a0, r1 - r0)
}

#[test]
fn a_step_allocates_nothing_of_ours_and_reads_only_what_is_due() {
    let (allocations, reads) = costs(50);
    // 1,000 steps, of which 20 write the one tensor that is logged.
    assert_eq!(reads, 20);
    // What is written now and then may allocate; a step may not.
    assert!(allocations < 20, "{allocations} allocations in 1,000 steps");
}

#[test]
fn logging_every_step_allocates_nothing_of_ours_either() {
    let (allocations, reads) = costs(1);
    assert_eq!(reads, 1000);
    // The CSV writer hands its buffer to the file now and then, which is not per step.
    assert!(allocations < 50, "{allocations} allocations in 1,000 steps");
}

#[test]
fn a_profiler_reads_nothing_from_the_device() {
    for name in ["simple", "advanced"] {
        let (_, reads) = costs_with(50, |builder| builder.profiler(name));
        assert_eq!(reads, 20, "{name}");
    }
}

#[test]
fn an_average_of_the_weights_allocates_nothing_either() {
    let (allocations, reads) = costs_with(50, |builder| builder.callback(EMAWeightAveraging::new()));
    assert_eq!(reads, 20);
    assert!(allocations < 20, "{allocations} allocations in 1,000 steps");
}
