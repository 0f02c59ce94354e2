//! The kinds of parameters, inputs, operations and losses in every step.

use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use fulgurite::optim::{
    ASGD, Adadelta, Adagrad, Adam, AdamW, Adamax, Lion, NAdam, Optimizers, RAdam, RMSprop, Rprop, SGD,
};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::autocast::Autocast;
use fulgurite::{Console, TrainerBuilder};

use super::quiet;

type Configure = fn(&nn::VarStore) -> Optimizers;
type Notes = Arc<Mutex<Vec<String>>>;

/// A layer, and the kinds it sees.
struct Layer {
    vars: nn::VarStore,
    layer: nn::Linear,
    notes: Notes,
    optimizers: Configure,
}

impl Layer {
    fn new() -> Layer {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root() / "layer", 4, 2, Default::default());
        Layer { vars, layer, notes: Notes::default(), optimizers: |vars| SGD::new(vars).lr(0.1).into() }
    }

    fn loss(&self, step: &str, (x, y): (Tensor, Tensor)) -> Tensor {
        let out = x.apply(&self.layer);
        let loss = out.cross_entropy_for_logits(&y);
        self.notes.lock().unwrap().push(format!(
            "{step}: weight {:?}, input {:?}, label {:?}, output {:?}, loss {:?}",
            self.layer.ws.kind(),
            x.kind(),
            y.kind(),
            out.kind(),
            loss.kind()
        ));
        loss
    }

    fn note_hook(&self, hook: &str) -> Result<()> {
        let casts = Autocast::current(Device::Cpu)?;
        self.notes.lock().unwrap().push(format!("{hook}: gradient {:?}, casts {casts:?}", self.layer.ws.grad().kind()));
        Ok(())
    }
}

impl LightningModule for Layer {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.loss("train", batch);
        step.log("loss", &loss).on_epoch();
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        let loss = self.loss("validate", batch);
        step.log("val_loss", &loss);
        Ok(())
    }

    fn test_step(&mut self, batch: Self::Batch, _: &mut Step) -> Result<()> {
        let _ = self.loss("test", batch);
        Ok(())
    }

    fn predict_step(&mut self, batch: Self::Batch, _: &mut Step) -> Result<Value> {
        Ok(self.loss("predict", batch).into())
    }

    fn example_forward(&mut self) -> Result<Tensor> {
        Ok(Tensor::ones([1, 4], (Kind::Float, Device::Cpu)).apply(&self.layer))
    }

    fn on_after_backward(&mut self, _: &mut TrainerState) -> Result<()> {
        self.note_hook("after backward")
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok((self.optimizers)(&self.vars))
    }
}

fn data() -> Vec<(Tensor, Tensor)> {
    vec![(Tensor::ones([3, 4], (Kind::Float, Device::Cpu)), Tensor::zeros([3], (Kind::Int64, Device::Cpu)))]
}

#[track_caller]
fn kinds(precision: &str, expected: Expect) {
    let mut module = Layer::new();
    let mut trainer = quiet().num_sanity_val_steps(0).precision(precision).build().unwrap();
    assert_eq!(trainer.state().fabric().precision().name(), precision);
    _ = trainer.fit(&mut module, (data(), data())).unwrap();
    trainer.test(&mut module, Loaders::from(data())).unwrap();
    trainer.predict(&mut module, Loaders::from(data())).unwrap();
    assert_eq!(Autocast::current(Device::Cpu).unwrap(), None);
    expected.assert_eq(&module.notes.lock().unwrap().join("\n"));
}

#[test]
fn in_mixed_precision_parameters_stay_and_products_are_cast() {
    kinds(
        "bf16-mixed",
        expect![[r#"
        train: weight Float, input Float, label Int64, output BFloat16, loss Float
        after backward: gradient Float, casts None
        validate: weight Float, input Float, label Int64, output BFloat16, loss Float
        test: weight Float, input Float, label Int64, output BFloat16, loss Float
        predict: weight Float, input Float, label Int64, output BFloat16, loss Float"#]],
    );
}

#[test]
fn in_true_precisions_everything_has_one_kind() {
    kinds(
        "bf16-true",
        expect![[r#"
        train: weight BFloat16, input BFloat16, label Int64, output BFloat16, loss Float
        after backward: gradient BFloat16, casts None
        validate: weight BFloat16, input BFloat16, label Int64, output BFloat16, loss Float
        test: weight BFloat16, input BFloat16, label Int64, output BFloat16, loss Float
        predict: weight BFloat16, input BFloat16, label Int64, output BFloat16, loss Float"#]],
    );
    kinds(
        "16-true",
        expect![[r#"
        train: weight Half, input Half, label Int64, output Half, loss Float
        after backward: gradient Half, casts None
        validate: weight Half, input Half, label Int64, output Half, loss Float
        test: weight Half, input Half, label Int64, output Half, loss Float
        predict: weight Half, input Half, label Int64, output Half, loss Float"#]],
    );
    kinds(
        "64-true",
        expect![[r#"
        train: weight Double, input Double, label Int64, output Double, loss Float
        after backward: gradient Double, casts None
        validate: weight Double, input Double, label Int64, output Double, loss Float
        test: weight Double, input Double, label Int64, output Double, loss Float
        predict: weight Double, input Double, label Int64, output Double, loss Float"#]],
    );
    kinds(
        "32-true",
        expect![[r#"
        train: weight Float, input Float, label Int64, output Float, loss Float
        after backward: gradient Float, casts None
        validate: weight Float, input Float, label Int64, output Float, loss Float
        test: weight Float, input Float, label Int64, output Float, loss Float
        predict: weight Float, input Float, label Int64, output Float, loss Float"#]],
    );
}

#[test]
fn every_optimizer_trains_parameters_of_16_bits() {
    let optimizers: &[(&str, Configure)] = &[
        ("SGD", |vars| SGD::new(vars).lr(0.1).momentum(0.9).into()),
        ("Adam", |vars| Adam::new(vars).lr(0.01).into()),
        ("AdamW", |vars| AdamW::new(vars).lr(0.01).into()),
        ("Adagrad", |vars| Adagrad::new(vars).lr(0.1).into()),
        ("Adadelta", |vars| Adadelta::new(vars).lr(1.0).into()),
        ("Adamax", |vars| Adamax::new(vars).lr(0.01).into()),
        ("ASGD", |vars| ASGD::new(vars).lr(0.1).into()),
        ("Lion", |vars| Lion::new(vars).lr(0.01).into()),
        ("NAdam", |vars| NAdam::new(vars).lr(0.01).into()),
        ("RAdam", |vars| RAdam::new(vars).lr(0.1).into()),
        ("RMSprop", |vars| RMSprop::new(vars).lr(0.01).into()),
        ("Rprop", |vars| Rprop::new(vars).lr(0.01).into()),
    ];
    for precision in ["bf16-true", "bf16-mixed"] {
        for (name, optimizers) in optimizers {
            let mut module = Layer { optimizers: *optimizers, ..Layer::new() };
            let before = module.layer.ws.copy();
            let mut trainer = quiet().max_epochs(8).precision(precision).build().unwrap();
            _ = trainer.fit(&mut module, data()).unwrap_or_else(|error| panic!("{name} in {precision}: {error}"));
            assert!(module.layer.ws.isfinite().all().int64_value(&[]) == 1, "{name} in {precision}");
            assert_ne!(before.to_kind(module.layer.ws.kind()), module.layer.ws, "{name} in {precision}");
        }
    }
}

/// What is printed of the model.
fn summary(precision: &str) -> String {
    let console = Console::memory();
    let trainer = quiet().console(console.clone()).enable_model_summary(true).precision(precision);
    _ = trainer.build().unwrap().fit(&mut Layer::new(), data()).unwrap();
    console.contents()
}

#[test]
fn an_example_of_another_kind_costs_the_summary_its_sizes_and_not_the_run() {
    for precision in ["32-true", "bf16-mixed"] {
        assert!(summary(precision).contains("[1, 4]"), "{}", summary(precision));
    }
    let without = summary("bf16-true");
    assert!(!without.contains("[1, 4]"), "{without}");
    let warning = "Layer::example_forward does not run in precision bf16-true, so the summary has no sizes; make its input of the kind of the parameters";
    assert!(without.contains(warning), "{without}");
}

#[track_caller]
fn said(trainer: TrainerBuilder, precision: &str, name: &str, expected: Expect) {
    let console = Console::memory();
    let trainer = trainer.console(console.clone()).precision(precision).build().unwrap();
    assert_eq!(trainer.state().fabric().precision().name(), name);
    expected.assert_eq(&console.contents());
}

#[test]
fn old_names_and_half_precision_on_a_cpu_are_told_of() {
    said(
        quiet(),
        "bf16",
        "bf16-mixed",
        expect![[r#"
        warning: precision `bf16` is a deprecated name of `bf16-mixed`; write `bf16-mixed`
    "#]],
    );
    said(
        quiet(),
        "16",
        "bf16-mixed",
        expect![[r#"
        warning: precision `16` is a deprecated name of `16-mixed`; write `16-mixed`
        warning: precision `16-mixed` is not supported on CPUs, so `bf16-mixed` is used instead; write `bf16-mixed`, or use a GPU
    "#]],
    );
    said(quiet(), "64", "64-true", expect![[r#""#]]);
}
