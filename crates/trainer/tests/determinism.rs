//! One seed gives one run, bit by bit: weights, order of the data, dropout. Another seed gives another.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use fulgurite::Console;
use fulgurite::data::{DataLoader, InMemory};
use fulgurite::prelude::*;
use fulgurite::torch::params;

struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    fc2: nn::Linear,
    /// The items of every batch, in order.
    order: Vec<f64>,
    /// The sum of what dropout let pass, per batch.
    passed: Vec<f64>,
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &nn::VarStore {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> {
        self.order.extend(Vec::<f64>::try_from(x.to_kind(Kind::Double))?);
        let hidden = (x.unsqueeze(1) / 10.0).apply(&self.fc1).dropout(0.5, true);
        self.passed.push(hidden.sum(Kind::Float).double_value(&[]));
        Ok(hidden.apply(&self.fc2).square().mean(Kind::Float).into())
    }

    fn configure_optimizers(&mut self) -> Result<Optimizers> {
        Ok(AdamW::new(&self.vars).lr(0.01).into())
    }
}

#[derive(PartialEq, Debug)]
struct Ended {
    weights: Vec<Vec<f32>>,
    order: Vec<f64>,
    passed: Vec<f64>,
}

fn run(seed: u64, workers: usize) -> Ended {
    seed_everything(seed).unwrap();
    let vars = nn::VarStore::new(Device::Cpu);
    let fc1 = nn::linear(vars.root() / "fc1", 1, 8, Default::default());
    let fc2 = nn::linear(vars.root() / "fc2", 8, 1, Default::default());
    let mut net = Net { vars, fc1, fc2, order: Vec::new(), passed: Vec::new() };
    let items = InMemory::new((0..20).map(|i| i as f32));
    let mut trainer = Trainer::builder()
        .max_epochs(2)
        .accelerator("cpu")
        .no_logger()
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory())
        .build()
        .unwrap();
    trainer.fit(&mut net, DataLoader::new(items).batch_size(4).shuffle(true).num_workers(workers)).unwrap();
    let weights = params::named_parameters(&net.vars);
    let weights = weights.iter().map(|(_, w)| Vec::try_from(w.detach().flatten(0, -1)).unwrap());
    Ended { weights: weights.collect(), order: net.order, passed: net.passed }
}

/// One test, because the seed belongs to the process.
#[test]
fn a_seed_decides_everything() {
    let first = run(1, 0);
    assert_eq!(first, run(1, 0));
    assert_eq!(first, run(1, 2));
    assert_ne!(first.order[..20], first.order[20..]);

    let other = run(2, 0);
    assert_ne!(first.order, other.order);
    assert_ne!(first.passed, other.passed);
    assert_ne!(first.weights, other.weights);
}
