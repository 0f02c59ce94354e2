//! Every scheduler against PyTorch's: 100 values, and a change of sides after 40 steps, both ways.

use std::path::Path;

use fulgurite_optim::{
    AdamW, AnnealStrategy, ChainedScheduler, ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, CyclicLR,
    CyclicMode, CyclicScaleMode, ExponentialLR, LambdaLR, LinearLR, LinearWarmupCosineAnnealingLR, LrScheduler, Mode,
    Momentum, MultiStepLR, MultiplicativeLR, OneCycleLR, Optimizer, ParamGroupConfig, PolynomialLR, ReduceLROnPlateau,
    SGD, SWALR, SequentialLR, StepLR, ThresholdMode,
};
use fulgurite_parity::python;
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value, serialization};

/// The schedulers that schedulers.py makes under the same names.
fn cases() -> Vec<(&'static str, Box<dyn LrScheduler>)> {
    let decay = |gamma: f64| ExponentialLR::new(gamma);
    let constant = |factor: f64, iters: u32| ConstantLR::new().factor(factor).total_iters(iters);
    let linear = |factor: f64, iters: u32| LinearLR::new().start_factor(factor).total_iters(iters);
    vec![
        ("lambda", Box::new(LambdaLR::new(|epoch| 0.95f64.powf(epoch as f64)))),
        (
            "lambda-per-group",
            Box::new(LambdaLR::per_group(vec![
                Box::new(|epoch| 1.0 / (1.0 + epoch as f64)),
                Box::new(|epoch| 0.9f64.powf((epoch / 10) as f64)),
            ])),
        ),
        ("multiplicative", Box::new(MultiplicativeLR::new(|epoch| 1.0 - 0.5 / (epoch + 1) as f64))),
        ("step", Box::new(StepLR::new(7))),
        ("step-gamma", Box::new(StepLR::new(3).gamma(0.9))),
        ("multistep", Box::new(MultiStepLR::new([5, 20, 20, 60]).gamma(0.3))),
        ("constant", Box::new(ConstantLR::new())),
        ("constant-half", Box::new(constant(0.5, 33))),
        ("linear", Box::new(LinearLR::new())),
        ("linear-down", Box::new(linear(0.9, 50).end_factor(0.2))),
        ("exponential", Box::new(decay(0.97))),
        ("polynomial", Box::new(PolynomialLR::new(5))),
        ("polynomial-square", Box::new(PolynomialLR::new(80).power(2.0))),
        ("cosine", Box::new(CosineAnnealingLR::new(30))),
        ("cosine-min", Box::new(CosineAnnealingLR::new(45).eta_min(0.01))),
        ("restarts", Box::new(CosineAnnealingWarmRestarts::new(9))),
        ("restarts-longer", Box::new(CosineAnnealingWarmRestarts::new(7).t_mult(2).eta_min(0.001))),
        ("cyclic", Box::new(CyclicLR::new(0.01, 0.2).step_size_up(13))),
        (
            "cyclic-2",
            Box::new(
                CyclicLR::new(vec![0.01, 0.02], vec![0.1, 0.3])
                    .step_size_up(5)
                    .step_size_down(11)
                    .mode(CyclicMode::Triangular2)
                    .base_momentum(0.7)
                    .max_momentum(0.95),
            ),
        ),
        ("cyclic-exp", Box::new(CyclicLR::new(0.01, 0.2).step_size_up(8).mode(CyclicMode::ExpRange).gamma(0.98))),
        (
            "cyclic-scale",
            Box::new(
                CyclicLR::new(0.01, 0.2)
                    .step_size_up(8)
                    .scale_fn(CyclicScaleMode::Iterations, |x| 1.0 / (1.0 + x))
                    .cycle_momentum(false),
            ),
        ),
        ("one-cycle", Box::new(OneCycleLR::new(0.5, 100))),
        (
            "one-cycle-linear",
            Box::new(
                OneCycleLR::new(vec![0.5, 1.0], 120)
                    .pct_start(0.2)
                    .anneal_strategy(AnnealStrategy::Linear)
                    .div_factor(10.0)
                    .final_div_factor(100.0),
            ),
        ),
        (
            "one-cycle-three",
            Box::new(OneCycleLR::new(0.3, 110).three_phase(true).base_momentum(0.8).max_momentum(0.9).pct_start(0.35)),
        ),
        ("one-cycle-no-momentum", Box::new(OneCycleLR::new(0.3, 101).cycle_momentum(false))),
        ("plateau", Box::new(ReduceLROnPlateau::new().patience(3))),
        (
            "plateau-max",
            Box::new(
                ReduceLROnPlateau::new()
                    .mode(Mode::Max)
                    .factor(0.5)
                    .patience(2)
                    .threshold(0.05)
                    .threshold_mode(ThresholdMode::Abs)
                    .cooldown(4)
                    .min_lr(vec![0.001, 0.01])
                    .eps(1e-4),
            ),
        ),
        (
            "plateau-min-abs",
            Box::new(
                ReduceLROnPlateau::new().factor(0.7).patience(1).threshold(0.2).threshold_mode(ThresholdMode::Abs),
            ),
        ),
        (
            "plateau-max-rel",
            Box::new(ReduceLROnPlateau::new().mode(Mode::Max).factor(0.9).patience(0).threshold(0.1).min_lr(0.002)),
        ),
        ("sequential", Box::new(SequentialLR::new(constant(0.1, 20)).then(20, decay(0.9)))),
        (
            "sequential-three",
            Box::new(
                SequentialLR::new(linear(0.01, 10))
                    .then(10, CosineAnnealingLR::new(30).eta_min(0.001))
                    .then(55, StepLR::new(5).gamma(0.5)),
            ),
        ),
        (
            "sequential-restarts",
            Box::new(
                SequentialLR::new(MultiStepLR::new([3, 5]))
                    .then(9, CosineAnnealingWarmRestarts::new(8).t_mult(2))
                    .then(50, PolynomialLR::new(30)),
            ),
        ),
        (
            "sequential-lambda",
            Box::new(
                SequentialLR::new(LambdaLR::new(|epoch| (epoch + 1) as f64 / 10.0))
                    .then(9, MultiplicativeLR::new(|_| 0.95))
                    .then(30, LinearLR::new()),
            ),
        ),
        (
            "sequential-momentum",
            Box::new(
                SequentialLR::new(ConstantLR::new())
                    .then(7, CyclicLR::new(0.01, 0.2).step_size_up(6))
                    .then(40, OneCycleLR::new(0.4, 60)),
            ),
        ),
        (
            "sequential-nested",
            Box::new(
                SequentialLR::new(SequentialLR::new(LinearLR::new()).then(6, constant(0.5, 4))).then(25, decay(0.9)),
            ),
        ),
        (
            "sequential-of-chain",
            Box::new(
                SequentialLR::new(ChainedScheduler::new(constant(0.1, 5)).and(decay(0.95))).then(30, StepLR::new(10)),
            ),
        ),
        ("chained", Box::new(ChainedScheduler::new(constant(0.1, 20)).and(decay(0.9)))),
        (
            "chained-three",
            Box::new(
                ChainedScheduler::new(linear(0.2, 15))
                    .and(MultiStepLR::new([30, 60]).gamma(0.5))
                    .and(CosineAnnealingLR::new(100)),
            ),
        ),
        (
            "chained-sequential",
            Box::new(
                ChainedScheduler::new(SequentialLR::new(constant(0.5, 3)).then(8, StepLR::new(4)))
                    .and(MultiplicativeLR::new(|_| 0.99)),
            ),
        ),
        ("swa", Box::new(SWALR::new(0.02))),
        ("swa-linear", Box::new(SWALR::new(vec![0.02, 0.3]).anneal_epochs(25).anneal_strategy(AnnealStrategy::Linear))),
        ("swa-at-once", Box::new(SWALR::new(0.3).anneal_epochs(0))),
        ("warmup-cosine", Box::new(LinearWarmupCosineAnnealingLR::new(10, 90))),
        (
            "warmup-cosine-floor",
            Box::new(LinearWarmupCosineAnnealingLR::new(1, 60).warmup_start_lr(1e-3).eta_min(1e-2)),
        ),
    ]
}

fn optimizer(name: &str) -> Box<dyn Optimizer> {
    let weight = || Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let groups = vec![ParamGroupConfig::new([&weight()]), ParamGroupConfig::new([&weight()]).lr(0.05)];
    match name {
        "cyclic-2" | "one-cycle-three" => AdamW::new(groups).lr(0.1).build().unwrap(),
        _ => SGD::new(groups).lr(0.1).momentum(0.9).build().unwrap(),
    }
}

fn attached(name: &str, mut scheduler: Box<dyn LrScheduler>) -> (Box<dyn Optimizer>, Box<dyn LrScheduler>) {
    let mut optimizer = optimizer(name);
    scheduler.attach(optimizer.as_mut()).unwrap();
    (optimizer, scheduler)
}

fn metric(step: u32) -> f64 {
    2.0 * (-f64::from(step) / 12.0).exp() + 0.3 * (f64::from(step) * 0.7).sin()
}

/// Learning rate and momentum of each group.
type Row = Vec<[f64; 2]>;

fn row(optimizer: &dyn Optimizer) -> Row {
    let momentum = |momentum| match momentum {
        Momentum::Momentum(momentum) | Momentum::Betas(momentum, _) => momentum,
        _ => unreachable!("both optimizers have momentum"),
    };
    optimizer.param_groups().iter().map(|group| [group.lr, momentum(group.momentum)]).collect()
}

fn run(optimizer: &mut dyn Optimizer, scheduler: &mut dyn LrScheduler, steps: std::ops::Range<u32>) -> Vec<Row> {
    steps
        .map(|step| {
            scheduler.step(optimizer, Some(metric(step))).unwrap();
            let row = row(optimizer);
            assert_eq!(scheduler.last_lr(), row.iter().map(|[lr, _]| *lr).collect::<Vec<_>>());
            row
        })
        .collect()
}

fn rows(value: &Dict) -> Vec<Row> {
    let floats = |value: &Value| {
        let values: Vec<f64> = value.as_list().unwrap().iter().map(|v| v.as_float().unwrap()).collect();
        <[f64; 2]>::try_from(values).unwrap()
    };
    value.list("rows").unwrap().iter().map(|row| row.as_list().unwrap().iter().map(floats).collect()).collect()
}

fn compare(name: &str, what: &str, ours: &[Row], theirs: &[Row]) {
    assert_eq!(ours.len(), theirs.len(), "{name}: {what}");
    let mut worst = 0.0f64;
    for (step, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
            worst = worst.max((ours - theirs).abs());
            assert!((ours - theirs).abs() < 1e-12, "{name}: {what}, step {step}: {ours} is not {theirs}");
        }
    }
    println!("{name:24} {what:30} {worst:.1e}");
}

/// Two state dicts hold the same: keys, types, numbers. PyTorch writes 0 where a default is an int.
fn compare_state(path: &str, ours: &Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Dict(a), Value::Dict(b)) => {
            let keys = |d: &Dict| {
                let mut keys: Vec<String> = d.iter().map(|(key, _)| format!("{key:?}")).collect();
                keys.sort();
                keys
            };
            // Traces of how PyTorch's nested schedulers were made, without use.
            let used: Dict = b
                .iter()
                .filter(|(key, _)| {
                    let trace = matches!(key.as_str(), Some("_is_initial" | "_step_count"));
                    !trace || a.get_value(key).is_some()
                })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            assert_eq!(keys(a), keys(&used), "{path}");
            for (key, theirs) in used.iter() {
                compare_state(&format!("{path}/{key:?}"), a.get_value(key).unwrap(), theirs);
            }
        }
        (Value::List(a), Value::List(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| compare_state(&format!("{path}/{i}"), a, b));
        }
        _ => match (ours.as_float(), theirs.as_float()) {
            (Some(a), Some(b)) => assert!(a == b || (a - b).abs() < 1e-12, "{path}: {a} is not {b}"),
            _ => assert_eq!(ours, theirs, "{path}"),
        },
    }
}

fn read(folder: &Path, file: &str) -> Dict {
    match serialization::load(folder.join(file)).unwrap() {
        Value::Dict(dict) => dict,
        other => panic!("{file} holds {other:?}"),
    }
}

#[test]
fn all_schedulers_are_pytorchs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let folder_name = folder.to_str().unwrap();
    python("schedulers.py", &["reference", folder_name]);
    let reference = read(folder, "reference.pt");
    assert_eq!(reference.len(), cases().len());

    let mut saved = Dict::new();
    for ((name, scheduler), (_, again)) in cases().into_iter().zip(cases()) {
        let theirs = reference.dict(name).unwrap();
        let (mut optimizer, mut scheduler) = attached(name, scheduler);
        let mut ours = vec![row(optimizer.as_ref())];
        ours.extend(run(optimizer.as_mut(), scheduler.as_mut(), 0..40));
        let state = Dict::new()
            .with("optimizer", optimizer.state_dict().unwrap())
            .with("scheduler", scheduler.state_dict().unwrap());
        saved.set(name, state.clone());
        ours.extend(run(optimizer.as_mut(), scheduler.as_mut(), 40..99));
        compare(name, "100 values", &ours, &rows(theirs));

        // PyTorch has no scheduler of this name, so a state of it comes from here.
        let state = if name.starts_with("warmup") {
            state
        } else {
            let theirs = theirs.dict("state").unwrap().clone();
            let ours = state.get("scheduler").unwrap();
            compare_state(name, ours, theirs.get("scheduler").unwrap());
            theirs
        };
        let (mut optimizer, mut scheduler) = attached(name, again);
        optimizer.load_state_dict(state.dict("optimizer").unwrap()).unwrap();
        scheduler.load_state_dict(state.dict("scheduler").unwrap()).unwrap();
        let resumed = run(optimizer.as_mut(), scheduler.as_mut(), 40..99);
        compare(name, "from PyTorch's state at 40", &resumed, &rows(theirs)[41..]);
    }

    serialization::save(folder.join("ours.pt"), &Value::Dict(saved)).unwrap();
    python("schedulers.py", &["resume", folder_name]);
    let resumed = read(folder, "resumed.pt");
    for (name, theirs) in resumed.iter().map(|(name, rows)| (name.as_str().unwrap(), rows.as_dict().unwrap())) {
        let expected = &rows(reference.dict(name).unwrap())[41..];
        compare(name, "in PyTorch from ours at 40", &rows(theirs), expected);
    }
}
