//! A warm step allocates nothing on the Rust heap.
#![allow(clippy::unwrap_used)]

use fulgurite_optim::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, ChainedScheduler, CosineAnnealingLR, CyclicLR,
    ExponentialLR, LinearLR, Lion, LrScheduler, Muon, NAdam, OneCycleLR, Optimizer, RAdam, RMSprop, ReduceLROnPlateau,
    Rprop, SGD, SequentialLR,
};
use fulgurite_torch::CountingAllocator;
use fulgurite_torch::tch::{Device, Kind, Tensor};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Several matrices of two kinds, which makes two buckets.
fn weights() -> Vec<Tensor> {
    let weight = |kind| Tensor::ones([4, 3], (kind, Device::Cpu)).set_requires_grad(true);
    vec![weight(Kind::Float), weight(Kind::Float), weight(Kind::Float), weight(Kind::Double)]
}

fn give_gradients(weights: &[Tensor]) {
    for weight in weights {
        (weight * 0.5).square().sum(None).backward();
    }
}

fn optimizers(weights: impl Fn() -> Vec<Tensor>) -> Vec<Box<dyn Optimizer>> {
    [
        SGD::new(weights()).build(),
        SGD::new(weights()).momentum(0.9).weight_decay(0.1).build(),
        Adam::new(weights()).weight_decay(0.1).amsgrad(true).build(),
        AdamW::new(weights()).build(),
        Adamax::new(weights()).build(),
        NAdam::new(weights()).weight_decay(0.1).build(),
        RAdam::new(weights()).betas(0.5, 0.5).build(),
        RMSprop::new(weights()).centered(true).momentum(0.9).build(),
        Adagrad::new(weights()).build(),
        Adadelta::new(weights()).maximize(true).build(),
        Rprop::new(weights()).build(),
        ASGD::new(weights()).build(),
        Adafactor::new(weights()).build(),
        Muon::new(weights()).build(),
        Lion::new(weights()).weight_decay(0.1).build(),
    ]
    .map(Result::unwrap)
    .into()
}

fn allocations(mut step: impl FnMut()) -> u64 {
    let before = CountingAllocator::allocations();
    for _ in 0..10 {
        step();
    }
    CountingAllocator::allocations() - before
}

#[test]
fn a_step_with_all_gradients() {
    for mut optimizer in optimizers(weights) {
        give_gradients(&optimizer.param_groups()[0].params);
        (0..3).for_each(|_| optimizer.step().unwrap());
        assert_eq!(allocations(|| optimizer.step().unwrap()), 0, "{}", optimizer.name());
    }
}

#[test]
fn a_step_with_some_gradients_at_different_steps() {
    for mut optimizer in optimizers(weights) {
        give_gradients(&optimizer.param_groups()[0].params[..1]);
        optimizer.step().unwrap();
        give_gradients(&optimizer.param_groups()[0].params[1..2]);
        (0..3).for_each(|_| optimizer.step().unwrap());
        assert_eq!(allocations(|| optimizer.step().unwrap()), 0, "{}", optimizer.name());
    }
}

#[test]
fn dropping_gradients() {
    let weights = weights();
    let mut optimizer = AdamW::new(&weights[..]).build().unwrap();
    give_gradients(&weights);
    assert_eq!(allocations(|| optimizer.zero_grad().unwrap()), 0);
    assert!(weights.iter().all(|weight| !weight.grad().defined()));
}

#[test]
fn a_step_of_a_scheduler() {
    let warmup = SequentialLR::new(LinearLR::new()).then(5, CosineAnnealingLR::new(20));
    let schedulers: [Box<dyn LrScheduler>; 5] = [
        Box::new(warmup),
        Box::new(ChainedScheduler::new(LinearLR::new()).and(ExponentialLR::new(0.9))),
        Box::new(OneCycleLR::new(0.1, 100)),
        Box::new(CyclicLR::new(0.1, 0.2)),
        Box::new(ReduceLROnPlateau::new().patience(1)),
    ];
    for mut scheduler in schedulers {
        let mut optimizer = AdamW::new(weights()).build().unwrap();
        scheduler.attach(optimizer.as_mut()).unwrap();
        let count = allocations(|| scheduler.step(optimizer.as_mut(), Some(1.0)).unwrap());
        assert_eq!(count, 0, "{}", scheduler.name());
    }
}
