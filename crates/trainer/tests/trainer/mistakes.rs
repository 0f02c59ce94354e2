//! Mistakes that do not show, found by the trainer itself.

use std::time::Duration;

use fulgurite::data::{BatchIter, DataError, Loader};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{Console, TrainerBuilder};
use fulgurite_test_support::ones;

/// Four layers: one that the loss depends on, one of every other batch, one frozen, one that nothing depends on.
struct Net {
    vars: nn::VarStore,
    used: nn::Linear,
    seldom: nn::Linear,
    manual: bool,
    /// Which batches `seldom` is part of the loss of.
    when: fn(usize) -> bool,
    /// How long a step takes at least.
    works: Duration,
}

impl Net {
    fn new() -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = |name: &str| nn::linear(vars.root() / name, 2, 1, Default::default());
        let (used, seldom, mut frozen, _unused) = (layer("used"), layer("seldom"), layer("frozen"), layer("unused"));
        let _same = frozen.ws.requires_grad_(false);
        let _same = frozen.bs.as_mut().unwrap().requires_grad_(false);
        Net { used, seldom, vars, manual: false, when: |idx| idx % 2 == 1, works: Duration::ZERO }
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        !self.manual
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        std::thread::sleep(self.works);
        let mut loss = batch.apply(&self.used).square().mean(Kind::Float);
        if (self.when)(step.batch_idx()) {
            loss += batch.apply(&self.seldom).square().mean(Kind::Float);
        }
        if self.manual {
            step.zero_grad(0)?;
            step.manual_backward(self, &loss)?;
            step.optimizer_step(self, 0)?;
        }
        Ok(loss.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.01).into())
    }
}

fn quiet(console: &Console) -> TrainerBuilder {
    fulgurite_test_support::quiet().max_epochs(2).console(console.clone())
}

/// What is warned of parameters in a run over four batches.
fn dead(mut module: Net, arguments: impl FnOnce(TrainerBuilder) -> TrainerBuilder) -> Vec<String> {
    let console = Console::memory();
    _ = arguments(quiet(&console)).build().unwrap().fit(&mut module, Loaders::from(ones(4, [2, 2]))).unwrap();
    let text = console.contents();
    text.lines().filter(|line| line.contains("never received")).map(str::to_owned).collect()
}

const UNUSED: &str = "warning: 2 trainable parameters never received a gradient up to the end of epoch 0: unused.weight, unused.bias. No loss depends on them: use them in `training_step`, remove them, or freeze them with `set_requires_grad(false)`";

#[test]
fn parameters_without_a_gradient_are_named_once() {
    assert_eq!(dead(Net::new(), |builder| builder), [UNUSED]);
    assert_eq!(dead(Net { manual: true, ..Net::new() }, |builder| builder), [UNUSED]);
    assert_eq!(dead(Net::new(), |builder| builder.accumulate_grad_batches(4)), [UNUSED]);
    assert_eq!(dead(Net::new(), |builder| builder.accumulate_grad_batches(3)), [UNUSED]);
}

#[test]
fn a_run_shorter_than_an_epoch_is_looked_at_too() {
    let [warning] = dead(Net::new(), |builder| builder.max_steps(1)).try_into().unwrap();
    assert!(warning.contains("4 trainable parameters"), "{warning}");
    assert!(warning.contains("seldom.weight, seldom.bias, unused.weight, unused.bias."), "{warning}");
    // A parameter of the last batch alone is not dead.
    assert_eq!(dead(Net { when: |idx| idx == 3, ..Net::new() }, |builder| builder), [UNUSED]);
}

#[test]
fn nothing_is_said_of_a_run_that_trains_nothing_or_everything() {
    struct Whole(nn::VarStore, nn::Linear, bool);
    impl LightningModule for Whole {
        type Batch = Tensor;
        fn vars(&self) -> &dyn Parameters {
            &self.0
        }
        fn training_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Loss> {
            Ok(if self.2 { Loss::skip() } else { batch.apply(&self.1).mean(Kind::Float).into() })
        }
        fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
            Ok(SGD::new(&self.0).lr(0.01).into())
        }
    }
    for skips in [false, true] {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root(), 2, 1, Default::default());
        let console = Console::memory();
        let mut trainer = quiet(&console).build().unwrap();
        _ = trainer.fit(&mut Whole(vars, layer, skips), Loaders::from(ones(2, [2, 2]))).unwrap();
        assert!(!console.contents().contains("never received"), "{}", console.contents());
    }
}

/// Takes its time for each batch.
struct Slow(Duration);

impl Loader for Slow {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        Some(40)
    }

    fn len_is_exact(&self) -> bool {
        true
    }

    fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<Tensor>, DataError> {
        let takes = self.0;
        Ok(Box::new(ones(40 - skip, [2, 2]).into_iter().map(move |batch| {
            std::thread::sleep(takes);
            Ok(batch)
        })))
    }
}

#[test]
fn a_run_that_waits_for_its_data_is_told_so_once() {
    let run = |loads: u64, works: u64| {
        let console = Console::memory();
        let mut module = Net { works: Duration::from_millis(works), ..Net::new() };
        let loader = Loaders::from(Slow(Duration::from_millis(loads)));
        _ = quiet(&console).build().unwrap().fit(&mut module, loader).unwrap();
        console.contents()
    };
    let text = run(20, 0);
    assert_eq!(text.matches("data loading bounds the training, not compute: a step waited 2").count(), 1, "{text}");
    let text = run(0, 5);
    assert!(!text.contains("data loading"), "{text}");
}
