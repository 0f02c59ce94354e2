//! Training on several ranks, each a process of its own: the test program starts itself again.

use std::time::Instant;

use fulgurite_torch::distributed::{Compression, ProcessGroup, ReduceOp, Reducer, ReducerOptions, verify_parameters};
use fulgurite_torch::grad::{self, backward};
use fulgurite_torch::profiler;
use fulgurite_torch::tch::{self, Device, Kind, Tensor};

const RANKS: usize = 2;

/// What each rank says when `body` runs as two processes; in one of those processes, runs it and gives nothing.
fn processes(test: &str, body: impl Fn(&ProcessGroup) -> Vec<String>) -> Option<Vec<Vec<String>>> {
    crate::processes::run(test, RANKS, body)
}

fn floats(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

/// A net of two layers; the same in every process.
fn net() -> (Vec<String>, Vec<Tensor>) {
    tch::manual_seed(7);
    let shapes: [(&str, &[i64]); 4] =
        [("hidden.weight", &[8, 40]), ("hidden.bias", &[40]), ("output.weight", &[40, 3]), ("output.bias", &[3])];
    let tensor = |shape| (floats(shape) * 0.3).set_requires_grad(true);
    shapes.iter().map(|(name, shape)| (name.to_string(), tensor(shape))).unzip()
}

/// 32 samples; the same in every process.
fn samples() -> (Tensor, Tensor) {
    tch::manual_seed(8);
    (floats(&[32, 8]), floats(&[32, 3]))
}

fn share(tensor: &Tensor, group: &ProcessGroup) -> Tensor {
    tensor.narrow(0, 16 * group.rank() as i64, 16)
}

fn loss(net: &[Tensor], x: &Tensor, y: &Tensor) -> Tensor {
    ((x.matmul(&net[0]) + &net[1]).tanh().matmul(&net[2]) + &net[3] - y).square().mean(Kind::Float)
}

fn descend(net: &[Tensor]) {
    tch::no_grad(|| {
        for parameter in net {
            let _ = parameter.shallow_clone().f_sub_(&(parameter.grad() * 0.2)).unwrap();
        }
    });
    grad::zero_grad(net).unwrap();
}

fn numbers(tensors: &[Tensor]) -> Vec<f32> {
    tensors.iter().flat_map(|tensor| Vec::<f32>::try_from(tensor.detach().flatten(0, -1)).unwrap()).collect()
}

fn say(numbers: &[f32]) -> String {
    serde_json::to_string(numbers).unwrap()
}

/// Five steps of one process on all samples.
fn alone() -> Vec<f32> {
    let (_, net) = net();
    let (x, y) = samples();
    for _ in 0..5 {
        backward(&loss(&net, &x, &y)).unwrap();
        descend(&net);
    }
    numbers(&net)
}

/// Five steps of this rank on its share of the samples.
fn together(group: &ProcessGroup, options: ReducerOptions) -> Vec<f32> {
    let (names, net) = net();
    let (x, y) = samples();
    let reducer = Reducer::new(&net, group, &ReducerOptions { names, ..options }).unwrap();
    for _ in 0..5 {
        reducer.prepare_for_forward().unwrap();
        reducer.backward(&loss(&net, &share(&x, group), &share(&y, group))).unwrap();
        descend(&net);
    }
    numbers(&net)
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn two_ranks_train_as_one_with_all_samples() {
    // Buckets of half a kilobyte: there are several.
    let small = ReducerOptions { bucket_cap_mb: 0.0005, first_bucket_mb: 0.0005, ..Default::default() };
    let variants = [
        ("default", ReducerOptions::default(), 1e-6),
        ("small buckets", small.clone(), 1e-6),
        ("views of buckets", ReducerOptions { gradient_as_bucket_view: true, ..small.clone() }, 1e-6),
        ("unused are looked for", ReducerOptions { find_unused_parameters: true, ..small.clone() }, 1e-6),
        ("static graph", ReducerOptions { static_graph: true, ..small.clone() }, 1e-6),
        ("fp16", ReducerOptions { compression: Some(Compression::Fp16), ..small.clone() }, 1e-3),
        ("bf16", ReducerOptions { compression: Some(Compression::Bf16), ..small }, 1e-2),
    ];
    let run = |group: &ProcessGroup| {
        variants.iter().map(|(_, options, _)| say(&together(group, options.clone()))).collect::<Vec<_>>()
    };
    let Some(said) = processes("reducer::two_ranks_train_as_one_with_all_samples", run) else { return };
    let alone = alone();
    assert!(distance(&alone, &numbers(&net().1)) > 0.01, "training changes the weights");
    for (index, (name, _, tolerance)) in variants.iter().enumerate() {
        assert_eq!(said[0][index], said[1][index], "{name}: the ranks differ");
        let trained: Vec<f32> = serde_json::from_str(&said[0][index]).unwrap();
        let distance = distance(&trained, &alone);
        assert!(distance <= *tolerance, "{name}: {distance}");
        assert!(*tolerance == 1e-6 || distance > 1e-6, "{name}: nothing was compressed");
    }
}

#[test]
fn gradients_accumulate_without_sync_and_are_averaged_with_the_next() {
    let variants = [
        ReducerOptions::default(),
        ReducerOptions { static_graph: true, ..Default::default() },
        ReducerOptions { gradient_as_bucket_view: true, find_unused_parameters: true, ..Default::default() },
    ];
    let run = |group: &ProcessGroup| {
        let mut said = Vec::new();
        for options in &variants {
            let (_, net) = net();
            let (x, y) = samples();
            let mut reducer = Reducer::new(&net, group, options).unwrap();
            for _ in 0..3 {
                for half in 0..2 {
                    reducer.set_require_sync(half == 1);
                    let part = |tensor: &Tensor| share(tensor, group).narrow(0, 8 * half, 8);
                    reducer.prepare_for_forward().unwrap();
                    reducer.backward(&(loss(&net, &part(&x), &part(&y)) / 2)).unwrap();
                    said.push(say(&numbers(&[net[1].grad()])));
                }
                descend(&net);
            }
            said.push(say(&numbers(&net)));
        }
        said
    };
    let test = "reducer::gradients_accumulate_without_sync_and_are_averaged_with_the_next";
    let Some(said) = processes(test, run) else { return };
    let (_, net) = net();
    let (x, y) = samples();
    for _ in 0..3 {
        backward(&loss(&net, &x, &y)).unwrap();
        descend(&net);
    }
    assert_eq!(said[0].len(), 7 * variants.len());
    for (pass, (a, b)) in said[0].iter().zip(&said[1]).enumerate() {
        // Six backward passes, of which every second is averaged, and the weights.
        let averaged = pass % 7 == 6 || pass % 7 % 2 == 1;
        assert_eq!(a == b, averaged, "pass {pass}");
        if pass % 7 == 6 {
            assert!(distance(&serde_json::from_str::<Vec<f32>>(a).unwrap(), &numbers(&net)) <= 1e-6, "pass {pass}");
        }
    }
}

#[test]
fn parameters_without_a_gradient_are_named_or_looked_for() {
    let run = |group: &ProcessGroup| {
        let (names, net) = net();
        let (x, y) = samples();
        let extra = Tensor::from_slice(&[1f32, 2.0]).set_requires_grad(true);
        let never = Tensor::from_slice(&[1f32]).set_requires_grad(true);
        let mut parameters: Vec<Tensor> = net.iter().map(Tensor::shallow_clone).collect();
        parameters.extend([extra.shallow_clone(), never.shallow_clone()]);
        let names = names.into_iter().chain(["extra".into(), "never".into()]).collect();
        let options = ReducerOptions { names, ..Default::default() };
        // Only rank 1 uses `extra`; no rank uses `never`.
        let loss = || {
            let loss = loss(&net, &share(&x, group), &share(&y, group));
            if group.rank() == 1 { loss + extra.sum(Kind::Float) } else { loss }
        };
        let mut said = Vec::new();
        {
            let reducer = Reducer::new(&parameters, group, &options).unwrap();
            reducer.prepare_for_forward().unwrap();
            reducer.backward(&loss()).unwrap();
            said.push(reducer.prepare_for_forward().unwrap_err().to_string());
        }
        grad::zero_grad(&parameters).unwrap();
        let options = ReducerOptions { find_unused_parameters: true, ..options };
        let reducer = Reducer::new(&parameters, group, &options).unwrap();
        for _ in 0..2 {
            reducer.prepare_for_forward().unwrap();
            reducer.backward(&loss()).unwrap();
            assert_eq!(extra.grad(), Tensor::from_slice(&[0.5f32, 0.5]));
            assert!(!never.grad().defined());
            grad::zero_grad(&parameters).unwrap();
        }
        said
    };
    let Some(said) = processes("reducer::parameters_without_a_gradient_are_named_or_looked_for", run) else { return };
    let end = "got no gradient in the last backward pass, so the ranks could not average them; if that is intended, set \
               `find_unused_parameters` (the strategy `ddp_find_unused_parameters_true`); if not, use them in the loss, \
               or freeze them";
    assert_eq!(said[0], [format!("rank 0: `extra`, `never` {end}")]);
    assert_eq!(said[1], [format!("rank 1: `never` {end}")]);
}

#[test]
fn models_that_differ_between_ranks_are_refused() {
    let run = |group: &ProcessGroup| {
        let other = group.rank() == 1;
        let tensor = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
        let check = |shapes: &[(&str, &[i64], Kind)]| {
            let names: Vec<String> = shapes.iter().map(|(name, ..)| name.to_string()).collect();
            let parameters: Vec<Tensor> = shapes.iter().map(|(_, shape, kind)| tensor(shape, *kind)).collect();
            verify_parameters(&parameters, &names, group).map_or_else(|error| error.to_string(), |()| "same".into())
        };
        let two: [(&str, &[i64], Kind); 2] = [("a", &[2], Kind::Float), ("b", &[2], Kind::Float)];
        let weight: &[i64] = if other { &[3, 2] } else { &[2, 3] };
        let kind = if other { Kind::Half } else { Kind::Float };
        vec![
            check(&[("fc.weight", &[2, 3], Kind::Float), ("fc.bias", &[3], Kind::Float)]),
            check(&[("fc.weight", weight, Kind::Float), ("fc.bias", &[3], Kind::Float)]),
            check(&[("fc.weight", &[2, 3], kind)]),
            check(&[(if other { "head" } else { "fc.weight" }, &[2, 3], Kind::Float)]),
            check(&two[..2 - group.rank()]),
            check(&two[..1 + group.rank()]),
        ]
    };
    let Some(said) = processes("reducer::models_that_differ_between_ranks_are_refused", run) else { return };
    assert_eq!(said[0], said[1]);
    let problems = [
        "the parameter `fc.weight` is [2, 3] of Float, frozen on rank 0, and [3, 2] of Float, frozen on rank 1",
        "the parameter `fc.weight` is [2, 3] of Float, frozen on rank 0, and [2, 3] of Half, frozen on rank 1",
        "where rank 0 has the parameter `fc.weight`, rank 1 has `head`",
        "rank 0 has 2 parameters, and rank 1 has 1; `b` is the first that only rank 0 has",
        "rank 1 has 2 parameters, and rank 0 has 1; `b` is the first that only rank 1 has",
    ];
    let errors = problems
        .map(|problem| format!("the model differs between the ranks: {problem}; build it the same way on all of them"));
    assert_eq!(said[0][0], "same");
    assert_eq!(said[0][1..], errors);
}

#[test]
fn a_rank_that_ends_while_training_ends_the_others_with_an_error() {
    let run = |group: &ProcessGroup| {
        let (_, net) = net();
        let (x, y) = samples();
        let reducer = Reducer::new(&net, group, &ReducerOptions::default()).unwrap();
        for step in 0..2 {
            if step == 1 && group.rank() == 1 {
                return vec!["gone".into()];
            }
            let start = Instant::now();
            let pass = reducer.prepare_for_forward();
            if let Err(error) = pass.and_then(|()| reducer.backward(&loss(&net, &x, &y))) {
                assert!(start.elapsed() < group.timeout() / 2);
                return vec![error.to_string()];
            }
        }
        vec!["no error".into()]
    };
    let test = "reducer::a_rank_that_ends_while_training_ends_the_others_with_an_error";
    let Some(said) = processes(test, run) else { return };
    let begin = "rank 0: averaging gradients in group `default` of 2 ranks lost its connection to another rank";
    assert!(said[0][0].starts_with(begin), "{}", said[0][0]);
}

/// The first bucket goes to Gloo's threads before the last gradient is there. When they come to it is up to the system.
#[test]
fn gradients_are_sent_while_others_are_computed() {
    let run = |group: &ProcessGroup| {
        let (_, net) = net();
        let (x, y) = samples();
        // A bucket for each parameter.
        let options = ReducerOptions { bucket_cap_mb: 1e-6, first_bucket_mb: 1e-6, ..ReducerOptions::default() };
        let reducer = Reducer::new(&net, group, &options).unwrap();
        let step = || {
            reducer.prepare_for_forward().unwrap();
            reducer.backward(&loss(&net, &x, &y)).unwrap();
        };
        // After this the buckets are as they stay.
        step();
        profiler::start(&profiler::Options::default()).unwrap();
        step();
        profiler::stop().unwrap().events().into_iter().map(|event| event.name).collect()
    };
    let Some(said) = processes("reducer::gradients_are_sent_while_others_are_computed", run) else { return };
    for names in said {
        let at = |name: &str| -> Vec<usize> {
            names.iter().enumerate().filter(|(_, found)| found.contains(name)).map(|(index, _)| index).collect()
        };
        let (sent, computed) = (at("c10d::allreduce_"), at("evaluate_function: torch::autograd::AccumulateGrad"));
        assert_eq!((sent.len(), computed.len()), (4, 4), "{names:#?}");
        assert!(sent[0] < computed[1] && sent[2] < computed[3], "{names:#?}");
    }
}

#[test]
fn gradients_of_many_backward_passes_agree_to_the_bit() {
    let run = |group: &ProcessGroup| {
        let (names, net) = net();
        let (x, y) = samples();
        verify_parameters(&net, &names, group).unwrap();
        group.broadcast_all(&net, 0).unwrap();
        let options = ReducerOptions { names, gradient_as_bucket_view: true, ..Default::default() };
        let reducer = Reducer::new(&net, group, &options).unwrap();
        for _ in 0..20 {
            reducer.prepare_for_forward().unwrap();
            reducer.backward(&loss(&net, &share(&x, group), &share(&y, group))).unwrap();
            for parameter in &net {
                let all = group.all_gather(&parameter.grad()).unwrap();
                assert_eq!(all[0], all[1]);
            }
            descend(&net);
        }
        let worst = loss(&net, &x, &y).detach();
        group.all_reduce(&worst, ReduceOp::Max).unwrap();
        vec![worst.double_value(&[]).to_string()]
    };
    let Some(said) = processes("reducer::gradients_of_many_backward_passes_agree_to_the_bit", run) else { return };
    assert_eq!(said[0], said[1]);
}

#[test]
fn sparse_gradients_are_refused() {
    let Some(said) = processes("reducer::sparse_gradients_are_refused", |group| {
        let table = Tensor::ones([4, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let reducer = Reducer::new(&[table.shallow_clone()], group, &ReducerOptions::default()).unwrap();
        reducer.prepare_for_forward().unwrap();
        let loss = Tensor::embedding(&table, &Tensor::from_slice(&[1i64, 2]), -1, false, true).sum(Kind::Float);
        vec![reducer.backward(&loss).unwrap_err().to_string()]
    }) else {
        return;
    };
    for error in said.into_iter().flatten() {
        assert!(error.contains("a gradient is sparse, and processes average dense ones"), "{error}");
    }
}
