//! `detect_anomaly`: the operation that made the first NaN is named, with its place in the model and in the run.

use expect_test::{Expect, expect};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{Console, ModuleView};

type LossOf = fn(&Net, &Tensor) -> Tensor;

struct Net {
    vars: nn::VarStore,
    fc: nn::Linear,
    scale: Tensor,
    loss: LossOf,
    manual: bool,
    torn_down: bool,
}

impl Net {
    fn new(loss: LossOf, manual: bool) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc = nn::linear(vars.root() / "body" / "fc", 2, 3, Default::default());
        let scale = vars.root().var("scale", &[1], nn::Init::Const(1.0));
        Net { vars, fc, scale, loss, manual, torn_down: false }
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        !self.manual
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = (self.loss)(self, &batch);
        if self.manual {
            step.zero_grad(0)?;
            step.manual_backward(self, &loss)?;
            step.optimizer_step(self, 0)?;
        }
        Ok(loss.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.1).into())
    }

    fn teardown(&mut self, _: &mut TrainerState, _: TrainerFn) -> Result<()> {
        self.torn_down = true;
        Ok(())
    }
}

/// Trains on a batch of ones, then on one of zeros.
fn train(mut net: Net, detect_anomaly: bool) -> String {
    let console = Console::memory();
    let mut trainer = Trainer::builder()
        .max_epochs(1)
        .accelerator("cpu")
        .no_logger()
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .detect_anomaly(detect_anomaly)
        .console(console)
        .build()
        .unwrap();
    let batch = |value: f64| Tensor::full([4, 2], value, (Kind::Float, Device::Cpu));
    let ended = trainer.fit(&mut net, vec![batch(1.0), batch(0.0)]);
    assert!(net.torn_down);
    ended.map_or_else(|error| error.to_string(), |_| "fine".to_owned())
}

fn found(loss: LossOf, expected: Expect) {
    let automatic = train(Net::new(loss, false), true);
    assert_eq!(train(Net::new(loss, true), true), automatic);
    expected.assert_eq(&automatic);
    assert_eq!(train(Net::new(loss, false), false), "fine", "nobody looks for it when nobody asked");
}

#[test]
fn a_healthy_training_goes_on() {
    found(|net, x| x.apply(&net.fc).square().mean(Kind::Float), expect!["fine"]);
}

#[test]
fn the_logarithm_of_zero() {
    found(
        |net, x| (x.apply(&net.fc) * 0.0 + x.sum(Kind::Float)).log().mean(Kind::Float),
        expect![
            "Net::training_step failed (epoch 0, batch 1): the loss is -inf: `aten::log` made an infinity of [4, 3] Float, after layer `body.fc`"
        ],
    );
}

#[test]
fn zero_divided_by_zero() {
    found(
        |net, x| x.apply(&net.fc).sum(Kind::Float) * (x / x).sum(Kind::Float),
        expect![
            "Net::training_step failed (epoch 0, batch 1): the loss is NaN: `aten::div` made NaN of [4, 2] Float and [4, 2] Float, after layer `body.fc`"
        ],
    );
}

#[test]
fn an_exponential_that_overflows_and_then_is_subtracted() {
    found(
        |net, x| {
            let y: Tensor = x.apply(&net.fc) * 0.0 + (1.0 - x.mean(Kind::Float)) * 1000.0;
            let y = y.exp();
            (&y - &y * 1.0).sum(Kind::Float)
        },
        expect![
            "Net::training_step failed (epoch 0, batch 1): the loss is NaN: `aten::exp` made an infinity of [4, 3] Float, after layer `body.fc`; `aten::sub` made NaN of that, after layer `body.fc`"
        ],
    );
}

#[test]
fn the_slope_of_the_square_root_at_zero() {
    found(
        |net, x| ((&net.scale * x).sqrt() * x).sum(Kind::Float),
        expect![
            "Net::backward failed (epoch 0, batch 1): Function 'SqrtBackward0' returned nan values in its 0th output. It is the gradient of `aten::sqrt` of [4, 2] Float, after the use of parameter `scale`"
        ],
    );
}

#[test]
fn a_parameter_that_holds_nan() {
    let net = Net::new(|net, x| x.apply(&net.fc).mean(Kind::Float), false);
    let _ = tch::no_grad(|| net.fc.ws.shallow_clone().fill_(f64::NAN));
    expect!["Net::training_step failed (epoch 0, batch 0): the loss is NaN: the parameter `body.fc.weight` of [3, 2] Float contained NaN when it was passed to `aten::linear`"].assert_eq(&train(net, true));
}

#[test]
fn a_callback_sees_the_error() {
    struct Seen(std::sync::mpsc::Sender<String>);
    impl Callback for Seen {
        fn on_exception(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, error: &Error) -> Result<()> {
            Ok(self.0.send(error.to_string())?)
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut trainer = Trainer::builder()
        .max_epochs(1)
        .no_logger()
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .detect_anomaly(true)
        .callback(Seen(sender))
        .console(Console::memory())
        .build()
        .unwrap();
    let batch = vec![Tensor::zeros([4, 2], (Kind::Float, Device::Cpu))];
    let mut net = Net::new(|net, x| (x.apply(&net.fc) * 0.0).log().mean(Kind::Float), false);
    let error = trainer.fit(&mut net, batch).unwrap_err();
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [error.to_string()]);
}
