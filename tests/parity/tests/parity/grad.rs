//! Clipping gives the same bits as PyTorch's, on gradients that both draw from the same seed.

use fulgurite_parity::python;
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{grad, rng};

fn parameters(seed: u64) -> Vec<Tensor> {
    rng::seed_everything(seed).unwrap();
    [&[3, 4][..], &[5], &[], &[7, 2, 2]]
        .into_iter()
        .map(|shape| {
            let parameter = Tensor::zeros(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let gradient = Tensor::randn(shape, (Kind::Float, Device::Cpu));
            grad::backward(&(&parameter * gradient).sum(Kind::Float)).unwrap();
            parameter
        })
        .collect()
}

fn bits(tensor: &Tensor) -> Vec<i32> {
    Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap().into_iter().map(|x| x.to_bits() as i32).collect()
}

#[test]
fn clipping_is_pytorchs_to_the_bit() {
    let expected: Vec<Vec<Vec<i32>>> = serde_json::from_value(python("grad.py", &[])).unwrap();
    let mut ours = Vec::new();
    for seed in 0..20 {
        for norm_type in [2.0, 1.0, 3.0, f64::INFINITY] {
            let clipped = parameters(seed);
            let norm = grad::clip_grad_norm(&clipped, 0.7, norm_type).unwrap();
            ours.push(std::iter::once(bits(&norm)).chain(clipped.iter().map(|p| bits(&p.grad()))).collect());
        }
        let clamped = parameters(seed);
        grad::clip_grad_value(&clamped, 0.3).unwrap();
        ours.push(clamped.iter().map(|p| bits(&p.grad())).collect::<Vec<_>>());
    }
    assert_eq!(ours, expected);
}
