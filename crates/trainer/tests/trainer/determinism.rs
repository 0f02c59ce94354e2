//! One seed gives one run, bit by bit: weights, order of the data, dropout. And what the trainer switches for a whole
//! process: deterministic algorithms, and the search for anomalies.

use fulgurite::TrainerBuilder;
use fulgurite::config::Deterministic;
use fulgurite::data::{DataLoader, InMemory};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params;
use fulgurite_test_support::quiet;

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

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> {
        self.order.extend(Vec::<f64>::try_from(x.to_kind(Kind::Double))?);
        let hidden = (x.unsqueeze(1) / 10.0).apply(&self.fc1).dropout(0.5, true);
        self.passed.push(hidden.sum(Kind::Float).double_value(&[]));
        Ok(hidden.apply(&self.fc2).square().mean(Kind::Float).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
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
    let mut trainer = quiet().max_epochs(2).build().unwrap();
    _ = trainer.fit(&mut net, DataLoader::new(items).batch_size(4).shuffle(true).num_workers(workers)).unwrap();
    let weights = params::named_parameters(&net.vars);
    let weights = weights.iter().map(|(_, w)| Vec::try_from(w.detach().flatten(0, -1)).unwrap());
    Ended { weights: weights.collect(), order: net.order, passed: net.passed }
}

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

/// A weight, and a loss that is a function of it.
struct Weight {
    vars: nn::VarStore,
    w: Tensor,
    loss: fn(&Tensor) -> Tensor,
}

impl LightningModule for Weight {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, _: Tensor, _: &mut Step) -> Result<Loss> {
        Ok((self.loss)(&self.w).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.1).into())
    }
}

/// Trains a weight of zero for one step.
fn train(trainer: TrainerBuilder, loss: fn(&Tensor) -> Tensor) -> Result<(), String> {
    let vars = nn::VarStore::new(Device::Cpu);
    let w = vars.root().var("w", &[1], nn::Init::Const(0.0));
    let batch = Tensor::zeros([1], (Kind::Float, Device::Cpu));
    let ended = trainer.build().unwrap().fit(&mut Weight { vars, w, loss }, vec![batch]);
    ended.map(drop).map_err(|error| error.to_string())
}

#[test]
fn anomalies_of_the_backward_pass_are_found() {
    // The slope of the square root at 0 is infinite, and infinity times 0 is not a number.
    let nan = |w: &Tensor| w.sqrt() * 0.0;
    train(quiet(), nan).unwrap();
    let error = train(quiet().detect_anomaly(true), nan).unwrap_err();
    assert!(error.starts_with("Weight::backward failed (epoch 0, batch 0): "), "{error}");
    assert!(error.contains("Function 'SqrtBackward0' returned nan values in its 0th output"), "{error}");
    // The search ends with its run.
    train(quiet(), nan).unwrap();
}

#[test]
fn what_is_not_deterministic_is_refused_when_asked() {
    let puts = |w: &Tensor| w.put(&Tensor::from_slice(&[0i64, 0]), &Tensor::from_slice(&[1f32, 2.0]), false) + w;
    let refused = train(quiet().deterministic(Deterministic::True), puts).unwrap_err();
    assert!(refused.starts_with("Weight::training_step panicked (epoch 0, batch 0): "), "{refused}");
    assert!(refused.contains("put_ does not have a deterministic implementation"), "{refused}");
    train(quiet().deterministic(Deterministic::Warn), puts).unwrap();
    train(quiet().deterministic(Deterministic::False), puts).unwrap();
}

/// The first batch of its extra epoch passes twice, which random numbers do not show.
#[test]
fn the_extra_epoch_of_weight_averaging_draws_as_if_each_batch_passed_once() {
    struct Draws {
        vars: nn::VarStore,
        norm: nn::BatchNorm,
        drawn: Vec<f64>,
    }

    impl LightningModule for Draws {
        type Batch = Tensor;

        fn vars(&self) -> &dyn Parameters {
            &self.vars
        }

        fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
            self.drawn.push(Tensor::rand([1], (Kind::Float, Device::Cpu)).double_value(&[0]));
            Ok(x.apply_t(&self.norm, step.is_training()).square().mean(Kind::Float).into())
        }

        fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
            Ok(SGD::new(&self.vars).lr(0.01).into())
        }
    }

    let drawn = |epochs: u64, averages: bool| {
        let vars = nn::VarStore::new(Device::Cpu);
        let norm = nn::batch_norm1d(vars.root(), 2, Default::default());
        let mut module = Draws { vars, norm, drawn: Vec::new() };
        let builder = quiet().max_epochs(epochs);
        let builder = if averages { builder.callback(StochasticWeightAveraging::new(0.01)) } else { builder };
        seed_everything(3).unwrap();
        let batches = (0..3).map(|_| Tensor::ones([2, 2], (Kind::Float, Device::Cpu))).collect::<Vec<_>>();
        _ = builder.build().unwrap().fit(&mut module, Loaders::from(batches)).unwrap();
        module.drawn
    };
    let mut with_extra = drawn(1, true);
    let rehearsed = with_extra.remove(3);
    assert_eq!(rehearsed, with_extra[3]);
    assert_eq!(with_extra, drawn(2, false));
}
