//! What is done to gradients at every step allocates nothing on the Rust heap once warm.

use fulgurite_torch::grad::{self, InferenceModeGuard, NoGradGuard};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{CountingAllocator, to_host_f64};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn a_warm_step_allocates_nothing() {
    let parameters: Vec<Tensor> =
        (1..20).map(|size| Tensor::ones([size], (Kind::Float, Device::Cpu)).set_requires_grad(true)).collect();
    let step = || {
        let mut loss = Tensor::from(0.0f32);
        for parameter in &parameters {
            loss += parameter.sum(Kind::Float);
        }
        let before = CountingAllocator::allocations();
        grad::backward(&loss).unwrap();
        grad::scale_grads(&parameters, 0.5).unwrap();
        grad::clip_grad_value(&parameters, 1.0).unwrap();
        let norm = grad::clip_grad_norm(&parameters, 1.0, 2.0).unwrap();
        {
            let _no_grad = NoGradGuard::new();
            let _inference = InferenceModeGuard::new();
        }
        to_host_f64(&norm).unwrap();
        grad::zero_grad(&parameters).unwrap();
        CountingAllocator::allocations() - before
    };
    assert!(step() > 0, "the first step makes the array of pointers");
    assert_eq!(step(), 0);
}
