//! Batch norms over the batches of several ranks, each a process of its own, are those of one process over all items.

use fulgurite_torch::autocast::Autocast;
use fulgurite_torch::distributed::{ProcessGroup, SyncBatchNorm};
use fulgurite_torch::grad::{self, NoGradGuard};
use fulgurite_torch::tch::{self, Device, Kind, Tensor};

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// A batch norm on a batch that is divided between ranks.
#[derive(Clone, Copy)]
struct Case {
    /// Of the whole batch.
    shape: &'static [i64],
    kind: Kind,
    /// Of parameters and running statistics.
    parameters: Kind,
    affine: bool,
    /// Items of each rank.
    parts: &'static [i64],
    /// Far from zero, where a variance from sums of squares would be noise.
    offset: f64,
    tolerance: f64,
}

const PLAIN: Case = Case {
    shape: &[12, 5],
    kind: Kind::Float,
    parameters: Kind::Float,
    affine: true,
    parts: &[6, 6],
    offset: 0.0,
    tolerance: 1e-6,
};

const DOUBLE: Case = Case { kind: Kind::Double, parameters: Kind::Double, tolerance: 1e-12, ..PLAIN };

const OF_TWO: [Case; 11] = [
    PLAIN,
    Case { shape: &[12, 5, 7], ..PLAIN },
    Case { shape: &[12, 5, 4, 3], ..PLAIN },
    Case { shape: &[12, 5, 2, 3, 2], ..PLAIN },
    Case { affine: false, ..PLAIN },
    Case { parts: &[11, 1], ..PLAIN },
    Case { parts: &[0, 12], shape: &[12, 5, 4, 3], ..PLAIN },
    Case { offset: 300.0, ..DOUBLE },
    Case { shape: &[12, 5, 4, 3], parts: &[7, 5], ..DOUBLE },
    Case { kind: Kind::BFloat16, shape: &[12, 5, 4, 3], tolerance: 1e-2, ..PLAIN },
    Case { kind: Kind::BFloat16, parameters: Kind::BFloat16, tolerance: 1e-2, ..PLAIN },
];

const OF_THREE: [Case; 4] = [
    Case { parts: &[4, 4, 4], ..PLAIN },
    Case { parts: &[1, 3, 8], shape: &[12, 5, 4, 3], ..DOUBLE },
    Case { parts: &[5, 0, 7], ..DOUBLE },
    Case { parts: &[2, 4, 6], kind: Kind::Half, tolerance: 2e-3, ..PLAIN },
];

/// What a pass leaves: the output and the gradient of the input, item by item; the gradients of weight and bias; the
/// running statistics.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Pass {
    items: Vec<f64>,
    gradients: Vec<f64>,
    running: Vec<f64>,
}

fn numbers(tensors: &[Tensor]) -> Vec<f64> {
    let flat = |tensor: &Tensor| Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).flatten(0, -1)).unwrap();
    tensors.iter().flat_map(flat).collect()
}

/// The whole batch, and what the output is weighed with in the loss.
fn batch(case: &Case) -> (Tensor, Tensor) {
    tch::manual_seed(5);
    let random = || Tensor::randn(case.shape, (Kind::Double, Device::Cpu));
    (random() * 2.0 + case.offset, random())
}

fn parameters(case: &Case) -> [Tensor; 4] {
    tch::manual_seed(6);
    let random = || Tensor::randn([case.shape[1]], (Kind::Double, Device::Cpu)).to_kind(case.parameters);
    let learned = || random().set_requires_grad(case.affine);
    [learned(), learned(), random(), random().square()]
}

/// A pass of the items from `start` on. Two are made, so that the second sees running statistics of the first.
fn pass(case: &Case, start: i64, len: i64) -> Pass {
    let (x, weigh) = batch(case);
    let x = x.narrow(0, start, len).to_kind(case.kind).set_requires_grad(true);
    let [weight, bias, mean, var] = parameters(case);
    let (scale, shift) = case.affine.then_some((&weight, &bias)).unzip();
    for _ in 0..2 {
        let y = x.batch_norm(scale, shift, Some(&mean), Some(&var), true, MOMENTUM, EPS, false);
        assert_eq!(y.kind(), case.kind);
        let loss = (y.to_kind(Kind::Double) * weigh.narrow(0, start, len)).sum(Kind::Double);
        grad::backward(&loss).unwrap();
    }
    let y = x.batch_norm(scale, shift, None::<&Tensor>, None, true, MOMENTUM, EPS, false);
    let gradients = if case.affine { numbers(&[weight.grad(), bias.grad()]) } else { Vec::new() };
    Pass { items: numbers(&[y, x.grad()]), gradients, running: numbers(&[mean, var]) }
}

fn synchronized(cases: &[Case]) -> impl Fn(&ProcessGroup) -> Vec<String> {
    let cases = cases.to_vec();
    move |group| {
        let sync = SyncBatchNorm::new(group).unwrap();
        let said = cases.iter().map(|case| {
            let _guard = sync.enter();
            let start = case.parts[..group.rank()].iter().sum();
            serde_json::to_string(&pass(case, start, case.parts[group.rank()])).unwrap()
        });
        said.collect()
    }
}

fn worst(a: impl IntoIterator<Item = f64>, b: impl IntoIterator<Item = f64>) -> f64 {
    a.into_iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max)
}

fn agrees_with_one_process(cases: &[Case], said: &[Vec<String>]) {
    for (index, case) in cases.iter().enumerate() {
        let ranks: Vec<Pass> = said.iter().map(|said| serde_json::from_str(&said[index]).unwrap()).collect();
        let one = pass(case, 0, case.shape[0]);
        let apart = pass(case, 0, case.parts[0].max(1));

        // Outputs of all items come before gradients of all items.
        let halves = |pass: &Pass| {
            let (outputs, gradients) = pass.items.split_at(pass.items.len() / 2);
            (outputs.to_vec(), gradients.to_vec())
        };
        let (outputs, gradients): (Vec<_>, Vec<_>) = ranks.iter().map(halves).unzip();
        let joined: Vec<f64> = outputs.concat().into_iter().chain(gradients.concat()).collect();
        assert_eq!(joined.len(), one.items.len());
        let off = worst(joined, one.items.clone());
        assert!(off <= case.tolerance, "case {index}: items differ by {off}");

        let sum = |at: usize| ranks.iter().map(|rank| rank.gradients[at]).sum::<f64>();
        let off = worst((0..one.gradients.len()).map(sum), one.gradients.clone());
        // A sum of as many terms as there are items.
        assert!(off <= 20.0 * case.tolerance, "case {index}: gradients of parameters differ by {off}");

        for rank in &ranks {
            let off = worst(rank.running.clone(), one.running.clone());
            assert!(off <= case.tolerance, "case {index}: running statistics differ by {off}");
            assert_eq!(rank.running, ranks[0].running);
        }
        let alone = worst(apart.running, one.running);
        assert!(alone > case.tolerance, "case {index} would be the same without the other ranks");
    }
}

#[test]
fn two_ranks_normalize_as_one_with_all_items() {
    let Some(said) =
        crate::processes::run("sync_batch_norm::two_ranks_normalize_as_one_with_all_items", 2, synchronized(&OF_TWO))
    else {
        return;
    };
    agrees_with_one_process(&OF_TWO, &said);
}

#[test]
fn so_do_three() {
    let Some(said) = crate::processes::run("sync_batch_norm::so_do_three", 3, synchronized(&OF_THREE)) else { return };
    agrees_with_one_process(&OF_THREE, &said);
}

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn whole() -> Tensor {
    tch::manual_seed(9);
    Tensor::randn([8, 3, 4, 4], FLOAT)
}

fn half(group: &ProcessGroup) -> Tensor {
    whole().narrow(0, 4 * group.rank() as i64, 4)
}

fn normalized(x: &Tensor, training: bool) -> Tensor {
    let (mean, var) = (Tensor::ones([3], FLOAT), Tensor::ones([3], FLOAT));
    x.batch_norm(None::<&Tensor>, None, Some(&mean), Some(&var), training, MOMENTUM, EPS, false)
}

fn largest(x: &Tensor) -> f64 {
    if x.numel() == 0 { 0.0 } else { x.abs().max().double_value(&[]) }
}

#[test]
fn modes_do_as_they_say() {
    let run = |group: &ProcessGroup| {
        let sync = SyncBatchNorm::new(group).unwrap();
        let x = half(group);
        let all = normalized(&whole(), true).narrow(0, 4 * group.rank() as i64, 4);
        let own = normalized(&x, true);
        let evaluated = normalized(&x, false);
        assert!(largest(&(&all - &own)) > 1e-3);
        let is = |a: &Tensor, b: &Tensor| assert!(largest(&(a - b)) < 1e-5);
        {
            let _guard = sync.enter();
            is(&normalized(&x, true), &all);
            {
                let _no_grad = NoGradGuard::new();
                is(&normalized(&x, true), &all);
            }
            {
                let _autocast = Autocast::new(Device::Cpu, Kind::BFloat16).enter().unwrap();
                is(&normalized(&x, true), &all);
            }
            let channels_last = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
            is(&normalized(&channels_last, true), &all);
            if group.rank() == 0 {
                // None of these waits for the other rank.
                is(&normalized(&x, false), &evaluated);
                let instance = x.instance_norm(None::<&Tensor>, None, None::<&Tensor>, None, true, 0.1, EPS, false);
                is(&instance.mean_dim([2, 3].as_slice(), false, Kind::Float), &Tensor::zeros([4, 3], FLOAT));
                drop(sync.enter());
            }
            is(&normalized(&x, true), &all);
        }
        is(&normalized(&x, true), &own);

        // The graph of a guard that is gone is still synchronized.
        let x = x.set_requires_grad(true);
        let y = {
            let _guard = sync.enter();
            normalized(&x, true)
        };
        drop(sync);
        let gradient = Tensor::run_backward(&[y.pow_tensor_scalar(3).sum(Kind::Float)], &[&x], true, true).remove(0);
        let twice = Tensor::f_run_backward(&[gradient.square().sum(Kind::Float)], &[&x], false, false);
        vec![twice.unwrap_err().to_string().lines().next().unwrap().to_owned()]
    };
    let Some(said) = crate::processes::run("sync_batch_norm::modes_do_as_they_say", 2, run) else { return };
    let error =
        "a synchronized batch norm can be differentiated once, and this is the second time; turn sync_batchnorm off";
    assert!(said[0][0].contains(error) && said[1][0].contains(error), "{said:?}");
}

#[test]
fn a_rank_that_ends_ends_the_others_with_an_error() {
    let run = |group: &ProcessGroup| {
        if group.rank() == 1 {
            return vec!["gone".into()];
        }
        let sync = SyncBatchNorm::new(group).unwrap();
        let _guard = sync.enter();
        let error = half(group).f_batch_norm(None::<&Tensor>, None, None::<&Tensor>, None, true, 0.1, EPS, false);
        vec![error.unwrap_err().to_string().lines().next().unwrap().to_owned()]
    };
    let Some(said) = crate::processes::run("sync_batch_norm::a_rank_that_ends_ends_the_others_with_an_error", 2, run)
    else {
        return;
    };
    let said = &said[0][0];
    assert!(said.contains("rank 0: a batch norm could not be synchronized with the other 1 ranks"), "{said}");
}
