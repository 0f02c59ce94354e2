//! Optimizers that the module steps itself, by hand-made sums: two players, as in a generative adversarial network.

use fulgurite::optim::StepLR;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params;

use super::{batches, quiet};

/// The product of two weights and the batch, which one player lowers and the other raises.
struct Players {
    vars: nn::VarStore,
    low: Tensor,
    high: Tensor,
    manual: bool,
    /// Whether each weight had a gradient when each player moved.
    grads: Vec<[bool; 2]>,
    schedules: usize,
}

impl Players {
    fn new() -> Players {
        let vars = nn::VarStore::new(Device::Cpu);
        let weight = |name: &str| (vars.root() / name).var("w", &[], nn::Init::Const(1.0));
        let (low, high) = (weight("low"), weight("high"));
        Players { low, high, vars, manual: true, grads: Vec::new(), schedules: 2 }
    }

    fn note(&mut self) {
        self.grads.push([self.low.grad().defined(), self.high.grad().defined()]);
    }
}

impl LightningModule for Players {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        !self.manual
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        for (player, sign) in [(0, 1.0), (1, -1.0)] {
            step.toggle_optimizer(player)?;
            let loss = &self.low * &self.high * &x * sign;
            step.zero_grad(player)?;
            step.manual_backward(self, &loss)?;
            self.note();
            step.optimizer_step(self, player)?;
            step.zero_grad(player)?;
        }
        assert!(!self.low.requires_grad());
        step.untoggle_optimizer();
        assert!(self.low.requires_grad() && self.high.requires_grad());
        Ok(Loss::skip())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        (0..self.schedules).try_for_each(|scheduler| trainer.lr_scheduler_step(scheduler, None))
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let sgd = |part| {
            let sgd = SGD::new(params::parameters_of(&self.vars, part)).lr(0.5);
            Optimizers::from(sgd).scheduler(StepLR::new(1).gamma(0.5))
        };
        Ok(if self.manual { sgd("low").and(sgd("high")) } else { sgd("low") })
    }
}

fn fit(players: &mut Players, epochs: u64) -> Result<Trainer, Error> {
    let mut trainer = quiet().max_epochs(epochs).build()?;
    _ = trainer.fit(players, batches(&[1.0]))?;
    Ok(trainer)
}

#[test]
fn each_optimizer_moves_its_own_parameters() {
    let mut players = Players::new();
    let trainer = fit(&mut players, 1).unwrap();
    // The first is at 1 - 0.5 · 1, and the second then at 1 + 0.5 · 0.5.
    assert_eq!((players.low.double_value(&[]), players.high.double_value(&[])), (0.5, 1.25));
    assert_eq!(players.grads, [[true, false], [false, true]]);
    // As in Lightning, every step of an optimizer counts.
    assert_eq!(trainer.state().global_step(), 2);
}

#[test]
fn schedulers_are_stepped_at_the_end_of_an_epoch_by_whoever_wants_it() {
    let mut players = Players::new();
    let mut trainer = fit(&mut players, 2).unwrap();
    let rates: Vec<f64> = trainer.state_mut().optimizers().map(|optimizer| optimizer.param_groups()[0].lr).collect();
    assert_eq!(rates, [0.125, 0.125]);
    // 0.5 - 0.25 · 1.25, and 1.25 + 0.25 · 0.1875.
    assert_eq!((players.low.double_value(&[]), players.high.double_value(&[])), (0.1875, 1.296875));
}

#[test]
fn what_is_not_there_cannot_be_stepped() {
    let mut players = Players { schedules: 3, ..Players::new() };
    let error = fit(&mut players, 1).err().unwrap().to_string();
    assert_eq!(error, "there is no scheduler 2: configure_optimizers returned 2, counted from 0");

    let mut automatic = Players { manual: false, ..Players::new() };
    let error = fit(&mut automatic, 1).err().unwrap().to_string();
    let expected = "toggle_optimizer is for modules that step their optimizers themselves; return `false` from `automatic_optimization`";
    assert_eq!(error, expected);
}
