//! Callbacks that watch a run write what Lightning's write, at the same steps: throughput by a clock that moves on at every
//! look, device statistics by their names, norms of gradients, and losses that jump.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use fulgurite::callbacks::{DeviceStatsMonitor, GradientNorm, SpikeDetection, ThroughputMonitor, TrainingSpike};
use fulgurite::config::{Configurable, ValCheckInterval};
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::optim::Optimizer;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{OptimizerClosure, TrainerBuilder};
use fulgurite_parity::python;
use serde_json::{Value as Json, json};

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    fn sizes(&mut self, at_most: u64) -> Vec<u64> {
        let size = 1 + self.below(4);
        vec![size; 1 + self.below(at_most) as usize]
    }
}

static CASES: LazyLock<Json> = LazyLock::new(|| {
    let mut n = Numbers(7);
    let watch: Vec<Json> = (0..24)
        .map(|_| {
            // The last window is whole: a short one is averaged over what it has here, and not in Lightning.
            let accumulate = *n.choose(&[1, 1, 2, 3]);
            let train = n.sizes(12).repeat(accumulate);
            let mut trainer = json!({
                "max_epochs": 1 + n.below(3),
                "log_every_n_steps": n.choose(&[0, 1, 1, 2, 3]),
                "accumulate_grad_batches": accumulate,
                "num_sanity_val_steps": n.choose(&[0, 2]),
            });
            if n.below(2) == 1 {
                trainer["val_check_interval"] = json!(1 + n.below(train.len() as u64));
            }
            json!({
                "train": train,
                "val": n.sizes(6),
                "trainer": trainer,
                "monitor": { "window_size": 2 + n.below(4), "separator": n.choose(&["/", "|"]) },
                "lengths": n.below(2) == 1,
                "flops": n.choose(&[None, Some(1000)]),
                "norm_type": n.choose(&[None, Some(2.0), Some(1.0)]),
            })
        })
        .collect();
    let spike: Vec<Json> = (0..60)
        .map(|_| {
            let mut losses: Vec<f64> = (0..30).map(|_| 1.0 + n.below(1000) as f64 / 997.0).collect();
            for _ in 0..n.below(4) {
                let at = n.below(30) as usize;
                losses[at] *= 1.0 + n.below(5000) as f64 / 991.0;
            }
            if n.below(4) == 0 {
                losses[10 + n.below(20) as usize] = f64::NAN;
            }
            let losses: Vec<String> = losses.into_iter().map(|loss| (loss as f32).to_string()).collect();
            let options = json!({
                "mode": n.choose(&["min", "min", "max"]),
                "window": 1 + n.below(12),
                "warmup": n.below(8),
                "atol": n.choose(&[None, Some(0.5), Some(2.0)]),
                "rtol": n.choose(&[None, Some(0.3), Some(1.0), Some(2.0)]),
                "finite_only": n.below(3) > 0,
            });
            json!({ "losses": losses, "options": options })
        })
        .collect();
    json!({ "watch": watch, "spike": spike })
});

static LIGHTNING: LazyLock<Json> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), CASES.to_string()).unwrap();
    python("watching.py", &[file.path().to_str().unwrap()])
});

struct Net {
    vars: nn::VarStore,
    w: Tensor,
    v: Tensor,
    flops: Option<f64>,
}

impl Net {
    fn new(flops: Option<f64>) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let (w, v) = (vars.root().zeros("w", &[3]), vars.root().zeros("v", &[1]));
        Net { vars, w, v, flops }
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Loss> {
        let product = batch.matmul(&self.w).mean(Kind::Float);
        Ok((product + (&self.v + 1.0).sum(Kind::Float) * batch.mean(Kind::Float)).into())
    }

    fn validation_step(&mut self, _: Tensor, _: &mut Step) -> Result<()> {
        Ok(())
    }

    fn test_step(&mut self, _: Tensor, _: &mut Step) -> Result<()> {
        Ok(())
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        Ok(batch.into())
    }

    fn flops_per_batch(&self) -> Option<f64> {
        self.flops
    }

    /// The parameters stay as they are, whatever the gradients.
    fn optimizer_step(&mut self, optimizer: &mut dyn Optimizer, closure: &mut OptimizerClosure<Self>) -> Result<()> {
        _ = closure.evaluate(self, optimizer)?;
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.1).into())
    }
}

fn ticking() -> impl Fn() -> f64 + Send {
    let state = Mutex::new((0u64, 0.0));
    move || {
        let mut state = state.lock().unwrap();
        state.0 += 1;
        state.1 += 0.25 + 0.125 * (state.0 * 7 % 5) as f64;
        state.1
    }
}

fn batches(sizes: &Json) -> Vec<Tensor> {
    let size = |size: &Json| size.as_i64().unwrap();
    let batch = |n: i64| Tensor::arange(3 * n, (Kind::Float, Device::Cpu)).reshape([n, 3]);
    sizes.as_array().unwrap().iter().map(|n| batch(size(n))).collect()
}

fn quiet(root: &std::path::Path) -> TrainerBuilder {
    fulgurite_test_support::quiet().default_root_dir(root)
}

type Row = (i64, BTreeMap<String, Option<f64>>);

fn watch(case: &Json) -> Vec<Row> {
    let root = tempfile::tempdir().unwrap();
    let logger = MemoryLogger::new();
    let monitor: ThroughputMonitor =
        Configurable::from_options(serde_json::from_value(case["monitor"].clone()).unwrap()).unwrap();
    let mut monitor = monitor.clock(ticking());
    if case["lengths"].as_bool().unwrap() {
        monitor = monitor.length_fn(|batch: &Tensor| batch.numel());
    }
    let trainer = &case["trainer"];
    let number = |key: &str| trainer[key].as_u64().unwrap();
    let mut builder = quiet(root.path())
        .max_epochs(number("max_epochs"))
        .log_every_n_steps(number("log_every_n_steps"))
        .accumulate_grad_batches(number("accumulate_grad_batches"))
        .num_sanity_val_steps(number("num_sanity_val_steps"))
        .logger(logger.clone())
        .callback(monitor)
        .callback(DeviceStatsMonitor::new());
    if let Some(interval) = trainer["val_check_interval"].as_u64() {
        builder = builder.val_check_interval(ValCheckInterval::Batches(interval));
    }
    if let Some(norm_type) = case["norm_type"].as_f64() {
        builder = builder.callback(GradientNorm::new().norm_type(norm_type).per_parameter(true));
    }
    let mut trainer = builder.build().unwrap();
    let mut module = Net::new(case["flops"].as_f64());
    _ = trainer.fit(&mut module, (batches(&case["train"]), batches(&case["val"]))).unwrap();
    trainer.verbose(false).test(&mut module, batches(&case["val"])).unwrap();
    trainer.predict(&mut module, batches(&case["val"])).unwrap();
    let metrics = |call: Logged| match call {
        Logged::Metrics { metrics, step } => {
            let stats = metrics.iter().any(|(name, _)| name.starts_with("DeviceStatsMonitor"));
            Some((step, metrics.into_iter().map(|(name, value)| (name, (!stats).then_some(value))).collect()))
        }
        _ => None,
    };
    logger.take().into_iter().filter_map(metrics).collect()
}

#[test]
fn throughput_device_statistics_and_gradient_norms_are_written_as_lightning_writes_them() {
    let mut compared = 0;
    for (case, expected) in CASES["watch"].as_array().unwrap().iter().zip(LIGHTNING["watch"].as_array().unwrap()) {
        let expected: Vec<Row> = serde_json::from_value(expected.clone()).unwrap();
        let ours = watch(case);
        let names = |row: Option<&Row>| row.map(|(step, row)| (*step, row.keys().cloned().collect::<Vec<_>>()));
        for row in 0..ours.len().max(expected.len()) {
            assert_eq!(names(ours.get(row)), names(expected.get(row)), "row {row} of {case}");
        }
        for ((step, ours), (_, expected)) in ours.iter().zip(&expected) {
            for ((name, ours), expected) in ours.iter().zip(expected.values()) {
                let (ours, expected) = (ours.unwrap_or(0.0), expected.unwrap_or(0.0));
                let tolerance = if name.starts_with("grad_") { 1e-6 * expected.abs() } else { 1e-12 };
                assert!((ours - expected).abs() <= tolerance, "{name} at {step}: {ours} and {expected} in {case}");
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "{compared}");
}

#[test]
fn losses_jump_where_lightning_says_so() {
    let mut found = 0;
    for (case, expected) in CASES["spike"].as_array().unwrap().iter().zip(LIGHTNING["spike"].as_array().unwrap()) {
        let root = tempfile::tempdir().unwrap();
        let detection: SpikeDetection =
            Configurable::from_options(serde_json::from_value(case["options"].clone()).unwrap()).unwrap();
        let losses = case["losses"].as_array().unwrap().iter();
        let losses = losses.map(|loss| loss.as_str().unwrap().to_lowercase().parse::<f64>().unwrap());
        let batches: Vec<Tensor> = losses.map(|loss| Tensor::full([1, 3], loss, (Kind::Float, Device::Cpu))).collect();
        let mut trainer = quiet(root.path()).max_epochs(1).callback(detection).build().unwrap();
        let error = trainer.fit(&mut Net::new(None), Loaders::from(batches)).err();
        let spike = error.map(|error| match error {
            Error::Hook { source, .. } => source.downcast_ref::<TrainingSpike>().unwrap().batch_idx,
            other => panic!("{other}"),
        });
        let noted = std::fs::read_to_string(root.path().join("skip_batches.json")).ok();
        let spike = spike.map(|batch_idx| format!("Training spike detected in batch {batch_idx}"));
        assert_eq!(json!([spike, noted]), *expected, "{case}");
        found += usize::from(spike.is_some());
    }
    assert!((20..60).contains(&found), "{found}");
}
