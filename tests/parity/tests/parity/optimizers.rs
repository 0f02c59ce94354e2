//! Every optimizer against PyTorch's: 50 steps, and a change of sides after 20 of them, both ways.

use std::path::Path;

use fulgurite_optim::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, AdjustLr, LBFGS, LineSearch, Lion, Muon, NAdam,
    OptimError, Optimizer, ParamGroupConfig, RAdam, RMSprop, Rprop, SGD,
};
use fulgurite_parity::python;
use fulgurite_torch::tch::{self, Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value, serialization};
use serde_json::{Value as Json, json};

type Build = Box<dyn Fn(Vec<ParamGroupConfig>) -> Result<Box<dyn Optimizer>, OptimError>>;

/// One optimizer with one set of options, in both languages.
struct Case {
    name: &'static str,
    class: &'static str,
    options: Json,
    build: Build,
    /// Bit for bit, which holds for the fused kernels.
    exact: bool,
}

macro_rules! case {
    ($name:literal, $class:ident { $($options:tt)* } $($setters:tt)*) => {
        Case {
            name: $name,
            class: stringify!($class),
            options: json!({ $($options)* }),
            build: Box::new(|groups| $class::new(groups)$($setters)*.build()),
            exact: false,
        }
    };
}

fn cases() -> Vec<Case> {
    let fused = |case: Case| Case { exact: true, ..case };
    vec![
        case!("sgd", SGD { "lr": 0.05 }.lr(0.05)),
        case!("sgd-momentum", SGD { "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "dampening": 0.1 }
            .lr(0.05).momentum(0.9).weight_decay(0.01).dampening(0.1)),
        case!("sgd-nesterov", SGD { "lr": 0.05, "momentum": 0.8, "nesterov": true, "maximize": true }
            .lr(0.05).momentum(0.8).nesterov(true).maximize(true)),
        fused(case!("sgd-fused", SGD { "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "fused": true }
            .lr(0.05).momentum(0.9).weight_decay(0.01))),
        case!("adam", Adam { "lr": 0.01 }.lr(0.01)),
        case!("adam-amsgrad", Adam { "lr": 0.01, "amsgrad": true, "weight_decay": 0.01, "betas": [0.8, 0.95], "eps": 1e-6 }
            .lr(0.01).amsgrad(true).weight_decay(0.01).betas(0.8, 0.95).eps(1e-6)),
        case!("adam-decoupled", Adam { "lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": true, "maximize": true }
            .lr(0.01).weight_decay(0.1).decoupled_weight_decay(true).maximize(true)),
        fused(
            case!("adam-fused", Adam { "lr": 0.01, "weight_decay": 0.01, "fused": true }.lr(0.01).weight_decay(0.01)),
        ),
        case!("adamw", AdamW { "lr": 0.01 }.lr(0.01)),
        case!("adamw-amsgrad", AdamW { "lr": 0.01, "amsgrad": true, "weight_decay": 0.1, "maximize": true }
            .lr(0.01).amsgrad(true).weight_decay(0.1).maximize(true)),
        fused(
            case!("adamw-fused", AdamW { "lr": 0.01, "betas": [0.9, 0.95], "fused": true }.lr(0.01).betas(0.9, 0.95)),
        ),
        case!("adamax", Adamax { "lr": 0.01 }.lr(0.01)),
        case!("adamax-maximize", Adamax { "lr": 0.01, "weight_decay": 0.05, "maximize": true, "betas": [0.8, 0.9] }
            .lr(0.01).weight_decay(0.05).maximize(true).betas(0.8, 0.9)),
        case!("nadam", NAdam { "lr": 0.01 }.lr(0.01)),
        case!("nadam-decoupled", NAdam { "lr": 0.01, "weight_decay": 0.05, "decoupled_weight_decay": true, "momentum_decay": 0.01 }
            .lr(0.01).weight_decay(0.05).decoupled_weight_decay(true).momentum_decay(0.01)),
        case!("nadam-coupled", NAdam { "lr": 0.01, "weight_decay": 0.05, "maximize": true }
            .lr(0.01).weight_decay(0.05).maximize(true)),
        case!("radam", RAdam { "lr": 0.01 }.lr(0.01)),
        case!("radam-decoupled", RAdam { "lr": 0.01, "betas": [0.8, 0.9], "weight_decay": 0.05, "decoupled_weight_decay": true }
            .lr(0.01).betas(0.8, 0.9).weight_decay(0.05).decoupled_weight_decay(true)),
        case!("radam-coupled", RAdam { "lr": 0.01, "weight_decay": 0.05, "maximize": true }
            .lr(0.01).weight_decay(0.05).maximize(true)),
        case!("rmsprop", RMSprop { "lr": 0.005 }.lr(0.005)),
        case!("rmsprop-centered", RMSprop { "lr": 0.005, "centered": true, "momentum": 0.9, "weight_decay": 0.01, "alpha": 0.9 }
            .lr(0.005).centered(true).momentum(0.9).weight_decay(0.01).alpha(0.9)),
        case!("rmsprop-maximize", RMSprop { "lr": 0.005, "momentum": 0.5, "maximize": true, "eps": 1e-6 }
            .lr(0.005).momentum(0.5).maximize(true).eps(1e-6)),
        case!("adagrad", Adagrad { "lr": 0.05 }.lr(0.05)),
        case!("adagrad-decay", Adagrad { "lr": 0.05, "lr_decay": 0.01, "weight_decay": 0.01, "initial_accumulator_value": 0.1, "maximize": true }
            .lr(0.05).lr_decay(0.01).weight_decay(0.01).initial_accumulator_value(0.1).maximize(true)),
        fused(case!("adagrad-fused", Adagrad { "lr": 0.05, "lr_decay": 0.01, "fused": true }.lr(0.05).lr_decay(0.01))),
        case!("adadelta", Adadelta { "lr": 1.0 }.lr(1.0)),
        case!("adadelta-maximize", Adadelta { "lr": 0.5, "rho": 0.8, "weight_decay": 0.01, "maximize": true, "eps": 1e-5 }
            .lr(0.5).rho(0.8).weight_decay(0.01).maximize(true).eps(1e-5)),
        case!("rprop", Rprop { "lr": 0.01 }.lr(0.01)),
        case!("rprop-maximize", Rprop { "lr": 0.005, "etas": [0.4, 1.1], "step_sizes": [1e-4, 0.02], "maximize": true }
            .lr(0.005).etas(0.4, 1.1).step_sizes(1e-4, 0.02).maximize(true)),
        case!("asgd", ASGD { "lr": 0.05 }.lr(0.05)),
        case!("asgd-averaging", ASGD { "lr": 0.05, "t0": 10.0, "lambd": 0.01, "alpha": 0.6, "weight_decay": 0.01, "maximize": true }
            .lr(0.05).t0(10.0).lambd(0.01).alpha(0.6).weight_decay(0.01).maximize(true)),
        case!("adafactor", Adafactor { "lr": 0.02 }.lr(0.02)),
        case!("adafactor-decay", Adafactor { "lr": 0.02, "beta2_decay": -0.5, "eps": [1e-20, 0.01], "d": 1.5, "weight_decay": 0.01, "maximize": true }
            .lr(0.02).beta2_decay(-0.5).eps(Some(1e-20), 0.01).d(1.5).weight_decay(0.01).maximize(true)),
        case!("muon", Muon { "lr": 0.01 }.lr(0.01)),
        case!("muon-rms", Muon { "lr": 0.01, "momentum": 0.9, "nesterov": false, "weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 4 }
            .lr(0.01).momentum(0.9).nesterov(false).weight_decay(0.01).adjust_lr_fn(AdjustLr::MatchRmsAdamw).ns_steps(4)),
        case!("lion", Lion { "lr": 0.003 }.lr(0.003)),
        case!("lion-decay", Lion { "lr": 0.003, "betas": [0.95, 0.98], "weight_decay": 0.1, "maximize": true }
            .lr(0.003).betas(0.95, 0.98).weight_decay(0.1).maximize(true)),
        case!("lbfgs", LBFGS { "lr": 0.1, "max_iter": 2, "history_size": 5 }.lr(0.1).max_iter(2).history_size(5)),
        case!("lbfgs-wolfe", LBFGS { "lr": 1.0, "max_iter": 2, "line_search_fn": "strong_wolfe" }
            .max_iter(2).line_search_fn(LineSearch::StrongWolfe)),
    ]
}

impl Case {
    /// The parameter groups, by the names of their parameters.
    fn groups(&self) -> Vec<(Vec<&'static str>, Json)> {
        match self.class {
            "LBFGS" => vec![(vec!["w1", "b1", "gain", "w2", "b2"], json!({}))],
            "Muon" => vec![(vec!["w1"], json!({})), (vec!["w2"], json!({ "lr": 0.005 }))],
            "SGD" | "RMSprop" if self.options["momentum"].is_number() => vec![
                (vec!["w1", "gain"], json!({})),
                (vec!["b1", "w2", "b2"], json!({ "lr": 0.004, "momentum": 0.7, "weight_decay": 0.0 })),
            ],
            "Rprop" => vec![(vec!["w1", "gain"], json!({})), (vec!["b1", "w2", "b2"], json!({ "lr": 0.004 }))],
            _ => vec![
                (vec!["w1", "gain"], json!({})),
                (vec!["b1", "w2", "b2"], json!({ "lr": 0.004, "weight_decay": 0.02 })),
            ],
        }
    }

    /// Whether a parameter lacks its gradient now and then. PyTorch's fused SGD cannot.
    fn partial(&self) -> bool {
        self.name != "sgd-fused" && self.class != "LBFGS"
    }

    /// A line search compares losses until nothing but rounding is left of them, which in single precision is soon.
    fn double(&self) -> bool {
        self.name == "lbfgs-wolfe"
    }

    fn description(&self) -> Json {
        let groups: Vec<Json> = self
            .groups()
            .into_iter()
            .map(|(params, mut options)| {
                options["params"] = json!(params);
                options
            })
            .collect();
        let groups = if self.class == "LBFGS" { Json::Null } else { json!(groups) };
        json!({
            "name": self.name, "class": self.class, "options": self.options, "groups": groups, "partial": self.partial(),
            "double": self.double(),
        })
    }

    fn optimizer(&self, params: &Params) -> Box<dyn Optimizer> {
        let group = |(names, options): (Vec<&str>, Json)| {
            let mut group = ParamGroupConfig::new(names.iter().map(|name| params.get(name)));
            if let Some(lr) = options["lr"].as_f64() {
                group = group.lr(lr);
            }
            if let Some(momentum) = options["momentum"].as_f64() {
                group = group.momentum(momentum);
            }
            if let Some(weight_decay) = options["weight_decay"].as_f64() {
                group = group.weight_decay(weight_decay);
            }
            group
        };
        (self.build)(self.groups().into_iter().map(group).collect()).unwrap()
    }
}

/// The weights of the network, in one order everywhere.
struct Params(Vec<(&'static str, Tensor)>);

const NAMES: [&str; 5] = ["w1", "b1", "gain", "w2", "b2"];

impl Params {
    /// Leaves with copies of the values in `dict`.
    fn of(dict: &Dict) -> Params {
        Params(NAMES.map(|name| (name, dict.tensor(name).unwrap().detach().copy().set_requires_grad(true))).into())
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.0.iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn save(&self) -> Dict {
        self.0.iter().map(|(name, tensor)| ((*name).into(), tensor.detach().copy().into())).collect()
    }
}

struct Start {
    params: Dict,
    x: Tensor,
    y: Tensor,
}

impl Start {
    fn double(&self) -> Start {
        let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
        Start { params: self.params.map_tensors(&mut |t| double(t)), x: double(&self.x), y: double(&self.y) }
    }
}

fn start() -> Start {
    tch::manual_seed(11);
    let float = (Kind::Float, Device::Cpu);
    let params = Dict::new()
        .with("w1", Tensor::randn([6, 9], float) * 0.4)
        .with("b1", Tensor::randn([9], float) * 0.1)
        .with("gain", Tensor::randn([1], float) * 0.1 + 1.0)
        .with("w2", Tensor::randn([9, 4], float) * 0.4)
        .with("b2", Tensor::randn([4], float) * 0.1);
    Start { params, x: Tensor::randn([32, 6], float), y: Tensor::randn([32, 4], float) }
}

fn loss(case: &Case, start: &Start, params: &Params, step: u32) -> Tensor {
    let hidden = (start.x.matmul(params.get("w1")) + params.get("b1")).tanh();
    let hidden = if !case.partial() || step % 3 == 1 { hidden * params.get("gain") } else { hidden };
    let output = hidden.matmul(params.get("w2")) + params.get("b2");
    (output - &start.y).pow_tensor_scalar(2).mean(None)
}

/// For LBFGS. On the network, a change in the last bit of PyTorch's own start grows to 10 % in 50 steps.
fn convex_loss(start: &Start, params: &Params) -> Tensor {
    let w = params.get("w1");
    let output = start.x.matmul(&w.narrow(1, 0, 4)) + params.get("b2");
    let bowl = (w - 0.1).pow_tensor_scalar(2) + w.pow_tensor_scalar(4);
    (output - &start.y).pow_tensor_scalar(2).mean(None) + bowl.sum(None) * 0.1
}

fn train(case: &Case, start: &Start, params: &Params, optimizer: &mut dyn Optimizer, steps: std::ops::Range<u32>) {
    let sign = if case.options["maximize"] == true { -1.0 } else { 1.0 };
    for step in steps {
        if step == 10 {
            optimizer.param_groups_mut().iter_mut().for_each(|group| group.lr *= 0.8);
        }
        let mut closure = |optimizer: &mut dyn Optimizer| {
            optimizer.zero_grad()?;
            let loss = if case.class == "LBFGS" { convex_loss(start, params) } else { loss(case, start, params, step) };
            let loss = loss * sign;
            loss.backward();
            Ok(loss)
        };
        if case.class == "LBFGS" {
            let _ = optimizer.step_with(&mut closure).unwrap();
        } else {
            let _ = closure(optimizer).unwrap();
            optimizer.step().unwrap();
        }
    }
}

/// The largest difference, in parts of 1e-5 of the value; under 1 is a pass. Differences of single roundings at the
/// scale of the tensor are no more than that where a value happens to be close to zero.
fn difference(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.size(), theirs.size());
    let (ours, theirs) = (ours.detach().to_kind(Kind::Double), theirs.detach().to_kind(Kind::Double));
    if ours.numel() == 0 {
        return 0.0;
    }
    let scale = theirs.abs().max().double_value(&[]);
    let allowed = theirs.abs() * 1e-5 + 4.0 * f64::from(f32::EPSILON) * scale + f64::MIN_POSITIVE;
    ((ours - &theirs).abs() / allowed).max().double_value(&[])
}

fn compare_params(case: &Case, what: &str, ours: &Dict, theirs: &Dict) -> f64 {
    let mut worst = 0.0f64;
    for name in NAMES {
        let (ours, theirs) = (ours.tensor(name).unwrap(), theirs.tensor(name).unwrap());
        if case.exact {
            assert!(ours.equal(theirs), "{}: {name} {what} is not bit-equal", case.name);
        }
        worst = worst.max(difference(ours, theirs));
    }
    println!("{:20} {what:30} {worst:.3}", case.name);
    assert!(worst < 1.0, "{}: {what} differs by {worst} times 1e-5", case.name);
    worst
}

/// Two state dicts hold the same: keys, types, numbers. Scratch space and the kernel's choice do not count.
fn compare_state(path: &str, ours: &Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Tensor(a), Value::Tensor(b)) => {
            assert_eq!((a.kind(), a.size()), (b.kind(), b.size()), "{path}");
            // Averages of gradients, which differ by more than the parameters.
            let close = a.allclose(b, 1e-3, 1e-3 * b.abs().max().double_value(&[]).max(1e-12), false);
            assert!(close, "{path}: {a} is not {b}");
        }
        (Value::Dict(a), Value::Dict(b)) => {
            let keys = |d: &Dict| {
                let mut keys: Vec<String> = d.iter().map(|(key, _)| format!("{key:?}")).collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(a), keys(b), "{path}");
            for (key, theirs) in b.iter() {
                if key.as_str() != Some("al") && key.as_str() != Some("fused") {
                    compare_state(&format!("{path}/{key:?}"), a.get_value(key).unwrap(), theirs);
                }
            }
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| compare_state(&format!("{path}/{i}"), a, b));
        }
        // PyTorch writes 0 where a default is an int, and a tensor where a length was computed with one.
        _ if ours.as_float().is_some() => {
            let theirs = match theirs {
                Value::Tensor(tensor) => tensor.double_value(&[]),
                other => other.as_float().unwrap_or_else(|| panic!("{path}: {other:?}")),
            };
            let ours = ours.as_float().unwrap();
            assert!((ours - theirs).abs() <= 1e-3 * theirs.abs(), "{path}: {ours} is not {theirs}");
        }
        _ => assert_eq!(ours, theirs, "{path}"),
    }
}

fn read(folder: &Path, file: String) -> Dict {
    match serialization::load(folder.join(&file)).unwrap() {
        Value::Dict(dict) => dict,
        other => panic!("{file} holds {other:?}"),
    }
}

fn write(folder: &Path, file: String, dict: Dict) {
    serialization::save(folder.join(file), &Value::Dict(dict)).unwrap();
}

#[test]
fn all_optimizers_are_pytorchs() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (cases, start) = (cases(), start());
    let double = start.double();
    let descriptions: Vec<Json> = cases.iter().map(Case::description).collect();
    std::fs::write(folder.join("cases.json"), json!(descriptions).to_string()).unwrap();
    let file = Dict::new().with("params", start.params.clone()).with("x", &start.x).with("y", &start.y);
    write(folder, "start.pt".into(), file);
    let folder_name = folder.to_str().unwrap();
    python("optimizers.py", &["reference", folder_name]);

    for case in &cases {
        let start = if case.double() { &double } else { &start };
        let theirs = read(folder, format!("reference-{}.pt", case.name));
        let params = Params::of(&start.params);
        let mut optimizer = case.optimizer(&params);
        train(case, start, &params, optimizer.as_mut(), 0..20);
        compare_params(case, "after 20 steps", &params.save(), theirs.dict("params20").unwrap());
        let state = optimizer.state_dict().unwrap();
        compare_state(case.name, &Value::Dict(state.clone()), theirs.get("state20").unwrap());
        let ours = Dict::new().with("params", params.save()).with("state", state);
        write(folder, format!("ours-{}.pt", case.name), ours);
        train(case, start, &params, optimizer.as_mut(), 20..50);
        compare_params(case, "after 50 steps", &params.save(), theirs.dict("params50").unwrap());

        let params = Params::of(theirs.dict("params20").unwrap());
        let mut optimizer = case.optimizer(&params);
        optimizer.load_state_dict(theirs.dict("state20").unwrap()).unwrap();
        compare_state(case.name, &Value::Dict(optimizer.state_dict().unwrap()), theirs.get("state20").unwrap());
        train(case, start, &params, optimizer.as_mut(), 20..50);
        compare_params(case, "from PyTorch's state at 20", &params.save(), theirs.dict("params50").unwrap());
    }

    // Our state dicts leave the choice of the kernel to PyTorch, which does not take the fused one by itself.
    python("optimizers.py", &["resume", folder_name]);
    for case in cases {
        let case = &Case { exact: false, ..case };
        let resumed = read(folder, format!("resumed-{}.pt", case.name));
        let theirs = read(folder, format!("reference-{}.pt", case.name));
        let (resumed, theirs) = (resumed.dict("params50").unwrap(), theirs.dict("params50").unwrap());
        compare_params(case, "in PyTorch from ours at 20", resumed, theirs);
    }
}
