//! A loop of one's own in mixed precision: the scaler's rules, and clipping.

use expect_test::{Expect, expect};
use fulgurite_fabric::{
    Clip, Fabric, GradScaler, GradScalerOptions, MixedPrecision, OptimizerStep, Precision, ScalerError,
};
use fulgurite_optim::{LBFGS, Optimizer, SGD};
use fulgurite_torch::tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn weight() -> (Tensor, Box<dyn Optimizer>) {
    let w = Tensor::zeros([1], CPU).set_requires_grad(true);
    let optimizer = SGD::new(vec![w.shallow_clone()]).lr(1.0).build().unwrap();
    (w, optimizer)
}

/// A loss whose gradient is `x`.
fn loss(w: &Tensor, x: f64) -> Tensor {
    (w * x).sum(Kind::Float)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ScalerError>, expected: Expect) {
    expected.assert_eq(&result.unwrap_err().to_string());
}

#[test]
fn calls_out_of_order_are_errors() {
    let (w, mut optimizer) = weight();
    let optimizer = optimizer.as_mut();
    let mut scaler = GradScaler::default();
    refused(
        scaler.unscale_(optimizer),
        expect![
            "unscale_ was called before any loss was scaled; multiply the loss with `scale(&loss)` before its backward pass"
        ],
    );
    refused(
        scaler.step(optimizer),
        expect![
            "step was called before any loss was scaled; multiply the loss with `scale(&loss)` before its backward pass"
        ],
    );
    refused(
        scaler.update(),
        expect![
            "update was called before any loss was scaled; multiply the loss with `scale(&loss)` before its backward pass"
        ],
    );
    let scaled = scaler.scale(&loss(&w, 1.0)).unwrap();
    refused(
        scaler.step(optimizer),
        expect!["none of the parameters of SGD has a gradient, so it cannot step; run a backward pass first"],
    );
    scaled.backward();
    scaler.update_to(4.0).unwrap();
    refused(
        scaler.update(),
        expect![
            "update was called, but no gradients were checked since the last update; call it after the optimizers' steps"
        ],
    );
    scaler.unscale_(optimizer).unwrap();
    refused(
        scaler.unscale_(optimizer),
        expect![
            "unscale_ has already been called for this optimizer since the last update; call it once per step, after the last backward pass"
        ],
    );
    assert_eq!(scaler.step(optimizer).unwrap(), OptimizerStep::Taken);
    refused(
        scaler.step(optimizer),
        expect![
            "step has already been called for this optimizer since the last update; call update after the steps of all optimizers"
        ],
    );
    refused(
        scaler.unscale_(optimizer),
        expect!["unscale_ was called for this optimizer after its step; call update first"],
    );
    scaler.update().unwrap();
    scaler.unscale_(optimizer).unwrap();
}

#[test]
fn options_and_states_that_make_no_sense_are_errors() {
    let options = GradScalerOptions::default;
    refused(
        GradScaler::new(options().growth_factor(1.0)),
        expect!["growth_factor=1 is invalid for GradScaler: it must be above 1"],
    );
    refused(
        GradScaler::new(options().backoff_factor(1.0)),
        expect!["backoff_factor=1 is invalid for GradScaler: it must be between 0 and 1"],
    );
    refused(
        GradScaler::new(options().growth_interval(0)),
        expect!["growth_interval=0 is invalid for GradScaler: it must be 1 or more"],
    );
    refused(
        GradScaler::new(options().init_scale(f64::NAN)),
        expect!["init_scale=NaN is invalid for GradScaler: it must be a finite number above 0"],
    );
    let off = GradScaler::new(options().enabled(false)).unwrap();
    refused(
        GradScaler::default().load_state_dict(&off.state_dict().unwrap()),
        expect!["the saved state is empty, since its scaler was not enabled"],
    );
    let mut lbfgs = LBFGS::new(vec![weight().0]).build().unwrap();
    let mut scaler = GradScaler::default();
    refused(
        scaler.step(lbfgs.as_mut()),
        expect![
            "LBFGS evaluates the loss several times in a step, which a gradient scaler does not support; use another optimizer, or precision bf16-mixed"
        ],
    );
}

#[test]
fn a_scaler_that_is_off_does_what_would_be_done_without_one() {
    let (w, mut optimizer) = weight();
    let mut scaler = GradScaler::new(GradScalerOptions::default().enabled(false)).unwrap();
    scaler.scale(&loss(&w, f64::INFINITY)).unwrap().backward();
    scaler.unscale_(optimizer.as_ref()).unwrap();
    assert_eq!(scaler.step(optimizer.as_mut()).unwrap(), OptimizerStep::Taken);
    scaler.update().unwrap();
    assert_eq!((w.double_value(&[0]), scaler.get_scale().unwrap()), (f64::NEG_INFINITY, 1.0));
    assert!(scaler.state_dict().unwrap().is_empty());
}

#[test]
fn a_state_goes_on_where_it_was() {
    let (w, mut optimizer) = weight();
    let options = GradScalerOptions::default().init_scale(8.0).growth_interval(3);
    let mut one = GradScaler::new(options).unwrap();
    let mut step = |scaler: &mut GradScaler, x: f64| {
        optimizer.zero_grad().unwrap();
        scaler.scale(&loss(&w, x)).unwrap().backward();
        let _ = scaler.step(optimizer.as_mut()).unwrap();
        scaler.update().unwrap();
        scaler.get_scale().unwrap()
    };
    assert_eq!((step(&mut one, f64::NAN), step(&mut one, 1.0), step(&mut one, 1.0)), (4.0, 4.0, 4.0));
    let mut other = GradScaler::default();
    other.load_state_dict(&one.state_dict().unwrap()).unwrap();
    assert_eq!(other.state_dict().unwrap(), one.state_dict().unwrap());
    assert_eq!((step(&mut other, 1.0), step(&mut one, 1.0)), (8.0, 8.0));
}

fn half() -> Fabric {
    let mut fabric = Fabric::new("cpu", &1.into(), "32-true").unwrap();
    fabric.set_precision(Box::new(MixedPrecision::fp16(GradScaler::default())));
    fabric
}

#[test]
fn gradients_are_clipped_without_their_scale_and_unscaled_once() {
    let (w, mut optimizer) = weight();
    let mut fabric = half();
    fabric.backward(&loss(&w, 4.0)).unwrap();
    assert_eq!(w.grad().double_value(&[0]), 4.0 * 65536.0);
    let norm = fabric.clip_gradients(optimizer.as_ref(), Clip::norm(2.0)).unwrap().unwrap();
    assert_eq!(norm.double_value(&[]), 4.0);
    assert_eq!(fabric.clip_gradients(optimizer.as_ref(), Clip::value(1.5)).unwrap(), None);
    assert_eq!(fabric.optimizer_step(optimizer.as_mut()).unwrap(), OptimizerStep::Taken);
    assert_eq!(w.double_value(&[0]), -1.5);
}

#[test]
fn a_norm_that_is_not_finite_is_an_error_where_that_is_wanted() {
    let (w, mut optimizer) = weight();
    let mut fabric = half();
    fabric.backward(&loss(&w, f64::INFINITY)).unwrap();
    let strict = Clip::Norm { max_norm: 1.0, norm_type: 2.0, error_if_nonfinite: true };
    let error = fabric.clip_gradients(optimizer.as_ref(), strict).unwrap_err().to_string();
    expect!["the norm of the gradients is inf, so they cannot be clipped to a norm; look for the cause in the loss, or set error_if_nonfinite to false"].assert_eq(&error);
    assert_eq!(fabric.optimizer_step(optimizer.as_mut()).unwrap(), OptimizerStep::Skipped);
    assert_eq!((w.double_value(&[0]), fabric.loss_scale().unwrap()), (0.0, 32768.0));
    fabric.backward(&loss(&w, 0.0)).unwrap();
    assert_eq!(
        fabric.optimizer_step(optimizer.as_mut()).unwrap(),
        OptimizerStep::Skipped,
        "the infinity is still there"
    );
}

#[test]
fn a_strategy_can_tell_a_process_of_an_infinity_elsewhere() {
    let (w, mut optimizer) = weight();
    let mut precision = MixedPrecision::fp16(GradScaler::default());
    precision.scale_loss(&loss(&w, 1.0)).unwrap().unwrap().backward();
    precision.unscale_gradients(optimizer.as_ref()).unwrap();
    let mut found = precision.scaler().unwrap().found_inf(optimizer.as_ref()).unwrap();
    let _ = found.fill_(1.0);
    assert_eq!(precision.optimizer_step(optimizer.as_mut()).unwrap(), OptimizerStep::Skipped);
}
