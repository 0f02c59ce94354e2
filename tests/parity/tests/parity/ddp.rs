//! Two ranks with the Reducer train as two processes with PyTorch's DistributedDataParallel do.

use std::thread;
use std::time::Duration;

use fulgurite_optim::{Adam, Optimizer, ParamGroupConfig, SGD};
use fulgurite_parity::python;
use fulgurite_torch::distributed::{
    Compression, GroupOptions, ProcessGroup, Reducer, ReducerOptions, Store, TcpStoreOptions,
};
use fulgurite_torch::tch::{self, Device, Kind, Tensor};
use serde::Deserialize;

const RANKS: usize = 2;
const STEPS: i64 = 10;
const SAMPLES: i64 = 16;

#[derive(Deserialize)]
struct Trained {
    /// Of each rank, at each step.
    losses: Vec<Vec<f64>>,
    /// At the end, equal on all ranks.
    weights: Vec<f32>,
}

fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

fn net() -> Vec<Tensor> {
    tch::manual_seed(7);
    [&[8, 40][..], &[40], &[40, 3], &[3]].map(|shape| (randn(shape) * 0.3).set_requires_grad(true)).into()
}

fn samples() -> [Tensor; 2] {
    tch::manual_seed(8);
    [8, 3].map(|width| randn(&[STEPS, RANKS as i64 * SAMPLES, width]))
}

fn optimizer(case: &str, net: &[Tensor]) -> Box<dyn Optimizer> {
    let group = vec![ParamGroupConfig::new(net)];
    if case == "adam" {
        Adam::new(group).lr(0.01).build().unwrap()
    } else {
        SGD::new(group).lr(0.1).momentum(0.9).build().unwrap()
    }
}

/// The losses of this rank, and the weights at the end.
fn train(case: &str, group: &ProcessGroup, net: &[Tensor], [xs, ys]: &[Tensor; 2]) -> (Vec<f64>, Vec<f32>) {
    let default = ReducerOptions::default();
    let options = match case {
        "small_buckets" => ReducerOptions { bucket_cap_mb: 0.0005, ..default },
        "bucket_views" => ReducerOptions { gradient_as_bucket_view: true, ..default },
        "find_unused" => ReducerOptions { find_unused_parameters: true, ..default },
        "static_graph" => ReducerOptions { static_graph: true, ..default },
        "fp16" => ReducerOptions { compression: Some(Compression::Fp16), ..default },
        "bf16" => ReducerOptions { compression: Some(Compression::Bf16), ..default },
        _ => default,
    };
    let accumulate = if case == "no_sync" { 2 } else { 1 };
    let mut reducer = Reducer::new(net, group, &options).unwrap();
    let mut optimizer = optimizer(case, net);
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let share = |all: &Tensor| all.select(0, step).narrow(0, group.rank() as i64 * SAMPLES, SAMPLES);
        reducer.set_require_sync((step + 1) % accumulate == 0);
        reducer.prepare_for_forward().unwrap();
        let output = (share(xs).matmul(&net[0]) + &net[1]).tanh().matmul(&net[2]) + &net[3];
        let loss = (output - share(ys)).square().mean(Kind::Float);
        reducer.backward(&loss).unwrap();
        losses.push(loss.double_value(&[]));
        if reducer.require_sync() {
            optimizer.step().unwrap();
            optimizer.zero_grad().unwrap();
        }
    }
    let weights = Tensor::cat(&net.iter().map(|weight| weight.detach().flatten(0, -1)).collect::<Vec<_>>(), 0);
    (losses, Vec::try_from(weights).unwrap())
}

#[test]
fn losses_and_weights_are_those_of_distributed_data_parallel() {
    let expected: std::collections::BTreeMap<String, Trained> = serde_json::from_value(python("ddp.py", &[])).unwrap();
    let store = Store::tcp(TcpStoreOptions {
        host: "127.0.0.1".into(),
        port: 0,
        is_server: true,
        ..TcpStoreOptions::default()
    })
    .unwrap();
    tch::set_num_threads(1);
    assert_eq!(expected.len(), 9);
    for (case, expected) in &expected {
        // Drawn here, because the threads share one generator.
        let nets: Vec<Vec<Tensor>> = (0..RANKS).map(|_| net()).collect();
        let data: Vec<[Tensor; 2]> = (0..RANKS).map(|_| samples()).collect();
        let trained: Vec<_> = thread::scope(|scope| {
            let store = &store;
            let ranks: Vec<_> = nets
                .into_iter()
                .zip(data)
                .enumerate()
                .map(|(rank, (net, data))| {
                    scope.spawn(move || {
                        let options = GroupOptions { timeout: Duration::from_secs(60), ..Default::default() };
                        let group = ProcessGroup::new(store, rank, RANKS, &options).unwrap();
                        train(case, &group, &net, &data)
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert_eq!(trained[0].1, trained[1].1, "{case}: the ranks differ");
        for (rank, (losses, _)) in trained.iter().enumerate() {
            for (step, (ours, theirs)) in losses.iter().zip(&expected.losses[rank]).enumerate() {
                assert!((ours - theirs).abs() <= 1e-6, "{case}, rank {rank}, step {step}: {ours}, PyTorch {theirs}");
            }
        }
        let difference = trained[0].1.iter().zip(&expected.weights).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-6, "{case}: the weights differ by {difference}");
    }
}
