//! Optimizers on sparse gradients against PyTorch's: 12 steps, and a change of sides after 6 of them, both ways.

use std::ops::Range;

use fulgurite_optim::{Adagrad, OptimError, Optimizer, SGD, SparseAdam};
use fulgurite_parity::python;
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value, serialization};
use serde_json::{Value as Json, json};

type Build = fn(Vec<Tensor>) -> Result<Box<dyn Optimizer>, OptimError>;

/// Name, class, options in Python, and the same here.
fn cases() -> Vec<(&'static str, &'static str, Json, Build)> {
    vec![
        ("adam", "SparseAdam", json!({ "lr": 0.05 }), |p| SparseAdam::new(p).lr(0.05).build()),
        (
            "adam-options",
            "SparseAdam",
            json!({ "lr": 0.05, "betas": [0.8, 0.95], "eps": 1e-4, "maximize": true }),
            |p| SparseAdam::new(p).lr(0.05).betas(0.8, 0.95).eps(1e-4).maximize(true).build(),
        ),
        ("sgd", "SGD", json!({ "lr": 0.1 }), |p| SGD::new(p).lr(0.1).build()),
        ("sgd-momentum", "SGD", json!({ "lr": 0.1, "momentum": 0.9, "dampening": 0.1 }), |p| {
            SGD::new(p).lr(0.1).momentum(0.9).dampening(0.1).build()
        }),
        ("sgd-nesterov", "SGD", json!({ "lr": 0.1, "momentum": 0.8, "nesterov": true, "maximize": true }), |p| {
            SGD::new(p).lr(0.1).momentum(0.8).nesterov(true).maximize(true).build()
        }),
        ("adagrad", "Adagrad", json!({ "lr": 0.1, "lr_decay": 0.01, "initial_accumulator_value": 0.1 }), |p| {
            Adagrad::new(p).lr(0.1).lr_decay(0.01).initial_accumulator_value(0.1).build()
        }),
    ]
}

fn train(table: &Tensor, optimizer: &mut dyn Optimizer, steps: Range<i64>, maximize: bool) {
    for step in steps {
        let indices = Tensor::from_slice(&[step * 2 % 6, (step * 3 + 1) % 6, step % 2]);
        optimizer.zero_grad().unwrap();
        let rows = Tensor::embedding(table, &indices, -1, false, true);
        let difference: Tensor = rows * Tensor::from_slice(&[1.0f32, 0.5, -0.25]) - 0.3;
        let loss = difference.square().sum(Kind::Float);
        (if maximize { -loss } else { loss }).backward();
        optimizer.step().unwrap();
    }
}

fn assert_close(what: &str, ours: &Tensor, theirs: &Json) {
    let theirs: Vec<f32> = theirs.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    let ours = Vec::<f32>::try_from(ours.detach().flatten(0, -1)).unwrap();
    for (a, b) in ours.iter().zip(&theirs) {
        assert!((a - b).abs() <= 1e-6 + 1e-5 * b.abs(), "{what}: {ours:?} is not {theirs:?}");
    }
}

#[test]
fn sparse_gradients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let described: serde_json::Map<String, Json> =
        cases().into_iter().map(|(name, class, options, _)| (name.to_owned(), json!([class, options]))).collect();
    let described = Json::from(described).to_string();
    let theirs = python("sparse_optimizers.py", &[path, "train", &described]);
    let mut ours_at_end = Vec::new();
    for (name, class, options, build) in cases() {
        let maximize = options["maximize"] == true;
        let fresh = || (Tensor::arange(18, (Kind::Float, Device::Cpu)).view([6, 3]) / 10.0 - 0.5).detach();
        let table = fresh().set_requires_grad(true);
        let mut optimizer = build(vec![table.shallow_clone()]).unwrap();
        train(&table, optimizer.as_mut(), 0..6, maximize);
        let saved = Dict::new().with("table", table.detach().copy()).with("optimizer", optimizer.state_dict().unwrap());
        serialization::save(folder.path().join(format!("{name}-ours.pt")), &Value::Dict(saved)).unwrap();
        if class != "SGD" {
            let saved = serialization::load(folder.path().join(format!("{name}-theirs.pt"))).unwrap();
            let saved = saved.as_dict().unwrap();
            let state = saved.dict("optimizer").unwrap();
            if class == "SparseAdam" {
                let entry = |dict: &Dict| {
                    let entry = dict.dict("state").unwrap().get_value(&0.into()).unwrap().as_dict().unwrap().clone();
                    (entry.int("step").unwrap(), entry.iter().map(|(key, _)| format!("{key:?}")).collect::<Vec<_>>())
                };
                assert_eq!(entry(&optimizer.state_dict().unwrap()), entry(state));
                assert_eq!(
                    optimizer.state_dict().unwrap().list("param_groups").unwrap(),
                    state.list("param_groups").unwrap()
                );
            }
            let continued = saved.tensor("table").unwrap().copy().set_requires_grad(true);
            let mut optimizer = build(vec![continued.shallow_clone()]).unwrap();
            optimizer.load_state_dict(state).unwrap();
            train(&continued, optimizer.as_mut(), 6..12, maximize);
            assert_close(&format!("{name} from theirs"), &continued, &theirs[name]);
        }
        train(&table, optimizer.as_mut(), 6..12, maximize);
        assert_close(name, &table, &theirs[name]);
        if options["nesterov"] != true {
            ours_at_end.push((name, table));
        }
    }
    let continued = python("sparse_optimizers.py", &[path, "continue", &described]);
    for (name, table) in ours_at_end {
        assert_close(&format!("{name} from ours"), &table, &continued[name]);
    }
}
