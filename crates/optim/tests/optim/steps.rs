//! What all optimizers have in common. What each of them computes is compared with PyTorch in `tests/parity`.
use fulgurite_optim::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, ChainedScheduler, CosineAnnealingLR,
    CosineAnnealingWarmRestarts, CyclicLR, Interval, LBFGS, LambdaLR, Lion, LrScheduler, LrSchedulerConfig, Momentum,
    Muon, NAdam, OneCycleLR, OptimError, Optimizer, Optimizers, ParamGroupConfig, RAdam, RMSprop, ReduceLROnPlateau,
    Rprop, SGD, SequentialLR, StepLR,
};
use fulgurite_torch::tch::{self, Device, Kind, Tensor, nn};
use fulgurite_torch::{Dict, Value};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

type Build = fn(Vec<Tensor>) -> Result<Box<dyn Optimizer>, OptimError>;

/// Each optimizer with settings that use all of its state.
const ALL: [Build; 15] = [
    |p| SGD::new(p).lr(0.1).build(),
    |p| SGD::new(p).lr(0.1).momentum(0.9).dampening(0.2).build(),
    |p| Adam::new(p).lr(0.1).amsgrad(true).build(),
    |p| AdamW::new(p).lr(0.1).build(),
    |p| Adamax::new(p).lr(0.1).build(),
    |p| NAdam::new(p).lr(0.1).build(),
    |p| RAdam::new(p).lr(0.1).betas(0.8, 0.9).build(),
    |p| RMSprop::new(p).centered(true).momentum(0.9).build(),
    |p| Adagrad::new(p).lr(0.1).lr_decay(0.1).build(),
    |p| Adadelta::new(p).build(),
    |p| Rprop::new(p).build(),
    |p| ASGD::new(p).t0(3.0).build(),
    |p| Adafactor::new(p).build(),
    |p| Muon::new(p).build(),
    |p| Lion::new(p).lr(0.01).build(),
];

/// Different values for each seed. Tests run at once, so they cannot share the random number generator.
fn weight(seed: i64) -> Tensor {
    (Tensor::arange(12, FLOAT) * 0.7 + seed).sin().view([4, 3]).set_requires_grad(true)
}

fn loss(weight: &Tensor) -> Tensor {
    (weight.square() * weight.detach().arange_like()).sum(None)
}

trait ArangeLike {
    fn arange_like(&self) -> Tensor;
}

impl ArangeLike for Tensor {
    /// 1, 2, …, so that every element has a loss of its own.
    fn arange_like(&self) -> Tensor {
        (Tensor::arange(self.numel() as i64, (self.kind(), self.device())) + 1.0).view_as(self) * 0.01
    }
}

fn train(optimizer: &mut dyn Optimizer, weights: &[&Tensor]) {
    optimizer.zero_grad().unwrap();
    weights.iter().for_each(|weight| loss(weight).backward());
    optimizer.step().unwrap();
}

fn state_of(optimizer: &dyn Optimizer, index: i64) -> Option<Dict> {
    optimizer
        .state_dict()
        .unwrap()
        .dict("state")
        .unwrap()
        .get_value(&Value::Int(index))
        .and_then(Value::as_dict)
        .cloned()
}

#[test]
fn parameters_without_a_gradient_are_left_alone() {
    for build in ALL {
        let (a, b) = (weight(1), weight(2));
        let before = b.detach().copy();
        let mut optimizer = build(vec![a.shallow_clone(), b.shallow_clone()]).unwrap();
        let (name, early) = (optimizer.name().to_owned(), state_of(optimizer.as_ref(), 1));
        assert_eq!(early.is_some(), name == "Adagrad", "{name} makes its state at the first gradient");
        train(optimizer.as_mut(), &[&a]);
        assert_eq!(b, before, "{name}");
        assert_eq!(state_of(optimizer.as_ref(), 1), early, "{name}");
        assert_ne!(a, weight(1), "{name}");
    }
}

#[test]
fn together_is_as_apart() {
    for build in ALL {
        let (a, b, c) = (weight(1), weight(2), weight(3));
        let mut together = build(vec![a.shallow_clone(), b.shallow_clone(), c.shallow_clone()]).unwrap();
        let (x, y, z) = (weight(1), weight(2), weight(3));
        let apart = [&x, &y, &z].map(|w| build(vec![w.shallow_clone()]).unwrap());
        let [mut on_x, mut on_y, mut on_z] = apart;
        for step in 0..12 {
            let (with_b, with_c) = (step % 3 == 1, step > 5);
            let mut active = vec![&a];
            train(on_x.as_mut(), &[&x]);
            if with_b {
                active.push(&b);
                train(on_y.as_mut(), &[&y]);
            }
            if with_c {
                active.push(&c);
                train(on_z.as_mut(), &[&z]);
            }
            train(together.as_mut(), &active);
        }
        assert!(a.equal(&x) && b.equal(&y) && c.equal(&z), "{}", together.name());
    }
}

#[test]
fn a_group_added_later_is_as_one_of_its_own() {
    for build in ALL {
        let (a, b) = (weight(1), weight(2));
        let mut optimizer = build(vec![a.shallow_clone()]).unwrap();
        let (x, y) = (weight(1), weight(2));
        let (mut on_x, mut on_y) = (build(vec![x.shallow_clone()]).unwrap(), build(vec![y.shallow_clone()]).unwrap());
        for _ in 0..4 {
            train(optimizer.as_mut(), &[&a]);
            train(on_x.as_mut(), &[&x]);
        }
        optimizer.add_param_group(ParamGroupConfig::new([&b]).lr(0.05)).unwrap();
        on_y.param_groups_mut()[0].lr = 0.05;
        for _ in 0..4 {
            train(optimizer.as_mut(), &[&a, &b]);
            train(on_x.as_mut(), &[&x]);
            train(on_y.as_mut(), &[&y]);
        }
        let name = optimizer.name().to_owned();
        assert!(a.equal(&x) && b.equal(&y), "{name}");
        let state = optimizer.state_dict().unwrap();
        let params = |group: usize| {
            let group = state.list("param_groups").unwrap()[group].as_dict().unwrap();
            group.list("params").unwrap().to_vec()
        };
        assert_eq!((params(0), params(1)), (vec![Value::Int(0)], vec![Value::Int(1)]), "{name}");

        // An optimizer made with both groups takes it up.
        let again = [&a, &b].map(|w| w.detach().copy().set_requires_grad(true));
        let mut resumed = build(vec![again[0].shallow_clone()]).unwrap();
        resumed.add_param_group(ParamGroupConfig::new([&again[1]])).unwrap();
        resumed.load_state_dict(&state).unwrap();
        train(optimizer.as_mut(), &[&a, &b]);
        train(resumed.as_mut(), &[&again[0], &again[1]]);
        assert!(a.equal(&again[0]) && b.equal(&again[1]), "{name}");
    }
}

#[test]
fn schedulers_take_up_a_group_added_later() {
    let lrs = |scheduler: &mut dyn LrScheduler| {
        let mut optimizer = SGD::new(vec![weight(1)]).lr(1.0).build().unwrap();
        scheduler.attach(optimizer.as_mut()).unwrap();
        scheduler.step(optimizer.as_mut(), Some(1.0)).unwrap();
        optimizer.add_param_group(ParamGroupConfig::new([&weight(2)]).lr(0.5)).unwrap();
        scheduler.step(optimizer.as_mut(), Some(2.0)).unwrap();
        assert_eq!(scheduler.last_lr().len(), 2);
        optimizer.param_groups().iter().map(|group| group.lr).collect::<Vec<_>>()
    };
    assert_eq!(lrs(&mut StepLR::new(2).gamma(0.5)), [0.5, 0.25]);
    assert_eq!(lrs(&mut LambdaLR::new(|epoch| 1.0 / (1 << epoch) as f64)), [0.25, 0.125]);
    assert_eq!(lrs(&mut ReduceLROnPlateau::new().patience(0).factor(0.5)), [0.5, 0.25]);
    let cyclic = CyclicLR::new(1.0, 3.0).step_size_up(2).cycle_momentum(false);
    assert_eq!(lrs(&mut { cyclic }), [3.0, 3.0]);
}

#[test]
fn sizes_can_be_mixed() {
    let large = || (Tensor::arange(50_000, FLOAT) * 0.7).sin().view([500, 100]).set_requires_grad(true);
    let threads = tch::get_num_threads();
    for build in ALL {
        let (a, b, c) = (weight(1), large(), weight(2));
        let (x, y, z) = (weight(1), large(), weight(2));
        let mut together = build(vec![a.shallow_clone(), b.shallow_clone(), c.shallow_clone()]).unwrap();
        let mut apart = [&x, &y, &z].map(|w| build(vec![w.shallow_clone()]).unwrap());
        for _ in 0..3 {
            train(together.as_mut(), &[&a, &b, &c]);
            apart.iter_mut().zip([&x, &y, &z]).for_each(|(optimizer, w)| train(optimizer.as_mut(), &[w]));
        }
        assert!(a.equal(&x) && b.equal(&y) && c.equal(&z), "{}", together.name());
        let shape = |i| state_of(together.as_ref(), i).and_then(|s| Some(s.tensor("exp_avg").ok()?.size()));
        assert!([None, Some(vec![500, 100])].contains(&shape(1)), "{}", together.name());
    }
    assert_eq!(tch::get_num_threads(), threads);
}

#[test]
fn kinds_can_be_mixed() {
    for build in ALL {
        let (a, x) = (weight(1), weight(1));
        let double = || weight(2).detach().to_kind(Kind::Double).set_requires_grad(true);
        let (b, y) = (double(), double());
        let mut together = build(vec![a.shallow_clone(), b.shallow_clone()]).unwrap();
        let (mut on_x, mut on_y) = (build(vec![x.shallow_clone()]).unwrap(), build(vec![y.shallow_clone()]).unwrap());
        for _ in 0..5 {
            train(together.as_mut(), &[&a, &b]);
            train(on_x.as_mut(), &[&x]);
            train(on_y.as_mut(), &[&y]);
        }
        assert!(a.equal(&x) && b.equal(&y), "{}", together.name());
    }
}

/// libtorch's fused SGD of 16 bits on a CPU leaves most elements as they were.
#[test]
fn sgd_moves_every_element_in_16_bits() {
    let builds: [Build; 4] = [
        |p| SGD::new(p).lr(0.1).build(),
        |p| SGD::new(p).lr(0.1).momentum(0.9).dampening(0.2).build(),
        |p| SGD::new(p).lr(0.1).momentum(0.9).nesterov(true).weight_decay(0.1).build(),
        |p| SGD::new(p).lr(0.1).maximize(true).build(),
    ];
    for (build, kind) in builds.iter().flat_map(|build| [(build, Kind::BFloat16), (build, Kind::Half)]) {
        let start = (Tensor::arange(1000, FLOAT) * 0.7).sin().to_kind(kind);
        let trained = |kind: Kind| {
            let weight = start.to_kind(kind).copy().set_requires_grad(true);
            let mut optimizer = build(vec![weight.shallow_clone()]).unwrap();
            for step in 0..4 {
                optimizer.zero_grad().unwrap();
                let gradient = (Tensor::arange(1000, FLOAT) + step).cos().to_kind(kind);
                (&weight * gradient).sum(Kind::Float).backward();
                optimizer.step().unwrap();
            }
            weight.detach().to_kind(Kind::Float)
        };
        let largest = (trained(kind) - trained(Kind::Float)).abs().max().double_value(&[]);
        assert!(largest < 0.05, "{kind:?}: {largest}");
    }
}

#[test]
fn state_follows_parameters_to_another_kind() {
    for build in ALL {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let w = vs.root().randn_standard("w", &[4, 3]);
        let mut optimizer = build(vec![w.shallow_clone()]).unwrap();
        (0..3).for_each(|_| train(optimizer.as_mut(), &[&w]));
        optimizer.zero_grad().unwrap();
        let state = state_of(optimizer.as_ref(), 0);
        vs.double();
        let before = w.detach().copy();
        train(optimizer.as_mut(), &[&w]);
        assert_eq!(w.kind(), Kind::Double);
        assert!((&w - before).abs().max().double_value(&[]) > 0.0, "{}", optimizer.name());
        let Some((old, new)) = state.zip(state_of(optimizer.as_ref(), 0)) else { continue };
        for (key, value) in new.iter().filter_map(|(key, value)| Some((key.as_str()?, value.as_tensor()?))) {
            match key {
                "step" => assert_eq!(value.double_value(&[]), 4.0, "{}", optimizer.name()),
                "mu_product" | "eta" | "mu" => {}
                _ => assert_eq!((value.kind(), value.size()), (Kind::Double, old.tensor(key).unwrap().size())),
            }
        }
    }
}

#[test]
fn a_transposed_parameter_is_as_good_as_any() {
    for build in ALL.into_iter().filter(|build| build(vec![weight(1)]).unwrap().name() != "Muon") {
        let plain = weight(1);
        let turned = weight(1).detach().tr().contiguous().tr().set_requires_grad(true);
        assert_ne!(plain.stride(), turned.stride());
        let (mut a, mut b) =
            (build(vec![plain.shallow_clone()]).unwrap(), build(vec![turned.shallow_clone()]).unwrap());
        for _ in 0..5 {
            train(a.as_mut(), &[&plain]);
            train(b.as_mut(), &[&turned]);
        }
        assert!(plain.allclose(&turned, 1e-6, 1e-7, false), "{}", a.name());
    }
}

#[test]
fn a_saved_state_goes_on_as_if_nothing_had_happened() {
    for build in ALL {
        let a = weight(1);
        let mut optimizer = build(vec![a.shallow_clone()]).unwrap();
        (0..7).for_each(|_| train(optimizer.as_mut(), &[&a]));
        let saved = optimizer.state_dict().unwrap().map_tensors(&mut Tensor::copy);
        let b = a.detach().copy().set_requires_grad(true);
        let mut resumed = build(vec![b.shallow_clone()]).unwrap();
        resumed.load_state_dict(&saved).unwrap();
        assert_eq!(resumed.state_dict().unwrap(), saved, "{}", optimizer.name());
        (0..7).for_each(|_| train(optimizer.as_mut(), &[&a]));
        (0..7).for_each(|_| train(resumed.as_mut(), &[&b]));
        assert!(a.equal(&b), "{}", optimizer.name());
        assert_eq!(resumed.state_dict().unwrap(), optimizer.state_dict().unwrap(), "{}", optimizer.name());
    }
}

#[test]
fn a_state_that_does_not_fit_changes_nothing() {
    let a = weight(1);
    let mut optimizer = Adam::new(vec![a.shallow_clone()]).lr(0.1).build().unwrap();
    train(optimizer.as_mut(), &[&a]);
    let before = optimizer.state_dict().unwrap().map_tensors(&mut Tensor::copy);
    let mut other = Adam::new(vec![Tensor::ones([5], FLOAT).set_requires_grad(true)]).lr(0.7).build().unwrap();
    let five = other.param_groups()[0].params[0].shallow_clone();
    train(other.as_mut(), &[&five]);
    assert!(optimizer.load_state_dict(&other.state_dict().unwrap()).is_err());
    assert_eq!(optimizer.state_dict().unwrap(), before);
}

#[test]
fn groups_have_their_own_settings() {
    let groups = vec![
        ParamGroupConfig::new([&weight(1)]),
        ParamGroupConfig::new([&weight(2), &weight(3)]).lr(0.5).weight_decay(0.0).betas(0.5, 0.6).name("head"),
    ];
    let mut optimizer = AdamW::new(groups).lr(0.1).weight_decay(0.3).betas(0.8, 0.9).build().unwrap();
    optimizer.param_groups_mut()[1].extra.set("note", "kept");
    let state = optimizer.state_dict().unwrap();
    let saved = state.list("param_groups").unwrap();
    let (first, second) = (saved[0].as_dict().unwrap(), saved[1].as_dict().unwrap());
    assert_eq!((first.float("lr"), first.float("weight_decay")), (Ok(0.1), Ok(0.3)));
    assert_eq!(first.list("params").unwrap(), [Value::Int(0)]);
    assert_eq!(second.get("betas"), Some(&Value::Tuple(vec![0.5.into(), 0.6.into()])));
    assert_eq!((second.float("lr"), second.str("name"), second.str("note")), (Ok(0.5), Ok("head"), Ok("kept")));
    assert_eq!(second.list("params").unwrap(), [Value::Int(1), Value::Int(2)]);

    let groups = vec![ParamGroupConfig::new([&weight(1)]), ParamGroupConfig::new([&weight(2), &weight(3)])];
    let mut other = AdamW::new(groups).build().unwrap();
    other.load_state_dict(&state).unwrap();
    let group = &other.param_groups()[1];
    assert_eq!((group.lr, group.weight_decay, group.momentum), (0.5, 0.0, Momentum::Betas(0.5, 0.6)));
    assert_eq!((group.name.as_deref(), group.extra.str("note")), (Some("head"), Ok("kept")));
    assert_eq!(other.state_dict().unwrap(), state);
}

#[test]
fn a_var_store_is_trained_in_pytorchs_order() {
    let vs = nn::VarStore::new(Device::Cpu);
    let _first = nn::linear(vs.root() / "z", 2, 3, Default::default());
    let _second = nn::linear(vs.root() / "a", 3, 5, Default::default());
    let optimizer = SGD::new(&vs).build().unwrap();
    let sizes: Vec<_> = optimizer.param_groups()[0].params.iter().map(Tensor::size).collect();
    assert_eq!(sizes, [vec![3, 2], vec![3], vec![5, 3], vec![5]]);
}

#[test]
fn a_scheduler_changes_the_next_step() {
    let a = Tensor::ones([1], FLOAT).set_requires_grad(true);
    let config = LrSchedulerConfig::new(StepLR::new(1).gamma(0.5)).interval(Interval::Step).name("half");
    let optimizers = Optimizers::from(SGD::new(vec![a.shallow_clone()]).lr(0.1)).scheduler(config);
    let (mut optimizers, mut configs) = optimizers.build().unwrap();
    let optimizer = optimizers[0].as_mut();
    for expected in [0.9, 0.85, 0.825] {
        optimizer.zero_grad().unwrap();
        a.sum(None).backward();
        optimizer.step().unwrap();
        configs[0].scheduler.step(optimizer, None).unwrap();
        assert!((a.double_value(&[0]) - expected).abs() < 1e-6);
    }
    assert_eq!(configs[0].scheduler.last_lr(), [0.0125]);
    assert_eq!(optimizer.param_groups()[0].initial_lr, Some(0.1));
}

#[test]
fn several_optimizers_keep_their_schedulers() {
    let optimizers = Optimizers::from(Muon::new(vec![weight(1)]))
        .scheduler(CosineAnnealingLR::new(10))
        .and(Optimizers::from(AdamW::new(vec![weight(2)])).scheduler(StepLR::new(2)))
        .and(LBFGS::new(vec![weight(3)]));
    let (optimizers, configs) = optimizers.build().unwrap();
    assert_eq!(optimizers.iter().map(|o| o.name()).collect::<Vec<_>>(), ["Muon", "AdamW", "LBFGS"]);
    assert_eq!(
        configs.iter().map(|c| (c.scheduler.name(), c.optimizer)).collect::<Vec<_>>(),
        [("CosineAnnealingLR", 0), ("StepLR", 1)]
    );
    let broken = Optimizers::from(SGD::new(vec![weight(1)])).and(SGD::new(vec![weight(2)]).lr(-1.0));
    assert!(broken.build().is_err());
}

#[test]
fn a_closure_is_evaluated_once_and_its_loss_returned() {
    let a = weight(1);
    let mut optimizer = SGD::new(vec![a.shallow_clone()]).lr(0.1).build().unwrap();
    let mut calls = 0;
    let returned = optimizer.step_with(&mut |optimizer| {
        calls += 1;
        optimizer.zero_grad().unwrap();
        let loss = loss(&a);
        loss.backward();
        Ok(loss)
    });
    assert_eq!(returned.unwrap(), loss(&weight(1)));
    assert_eq!(calls, 1);
    assert_ne!(a, weight(1));
}

#[test]
fn momentum_can_begin_later() {
    for build in [|p| SGD::new(p).lr(0.1).build(), |p| RMSprop::new(p).lr(0.1).build()] as [Build; 2] {
        let a = weight(1);
        let mut optimizer = build(vec![a.shallow_clone()]).unwrap();
        train(optimizer.as_mut(), &[&a]);
        optimizer.param_groups_mut()[0].momentum = Momentum::Momentum(0.9);
        train(optimizer.as_mut(), &[&a]);
        assert!(state_of(optimizer.as_ref(), 0).unwrap().tensor("momentum_buffer").is_ok());
        assert!(a.isfinite().all().int64_value(&[]) == 1);
    }
}

/// A step that fails leaves scheduler and optimizer as they were: what is saved afterwards has not lost a step.
#[test]
fn a_scheduler_that_fails_stays_where_it_was() {
    let one_cycle = || OneCycleLR::new(0.1, 3);
    let lambda = || LambdaLR::new(|epoch| if epoch > 2 { f64::NAN } else { 1.0 / (epoch + 1) as f64 });
    let schedulers: [Box<dyn LrScheduler>; 5] = [
        Box::new(one_cycle()),
        Box::new(lambda()),
        Box::new(SequentialLR::new(StepLR::new(1)).then(1, one_cycle())),
        Box::new(ChainedScheduler::new(CosineAnnealingWarmRestarts::new(2)).and(lambda())),
        Box::new(ChainedScheduler::new(StepLR::new(2)).and(SequentialLR::new(one_cycle()))),
    ];
    for mut scheduler in schedulers {
        let weight = Tensor::from(1.0f32).set_requires_grad(true);
        let mut sgd = SGD::new(vec![weight]).lr(0.1).momentum(0.9).build().unwrap();
        scheduler.attach(sgd.as_mut()).unwrap();
        let groups = |sgd: &dyn Optimizer| sgd.param_groups().iter().map(|g| (g.lr, g.momentum)).collect::<Vec<_>>();
        let mut last = (scheduler.state_dict().unwrap(), groups(sgd.as_ref()));
        let failed = (0..9).any(|_| {
            let stepped = scheduler.step(sgd.as_mut(), None);
            let now = (scheduler.state_dict().unwrap(), groups(sgd.as_ref()));
            if stepped.is_err() {
                assert_eq!(now, last, "{}", scheduler.name());
            }
            last = now;
            stepped.is_err()
        });
        assert!(failed, "{}", scheduler.name());
    }
}
