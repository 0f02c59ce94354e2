//! A callback made of closures.

use std::sync::{Arc, Mutex};

use fulgurite::Error;
use fulgurite::callbacks::LambdaCallback;
use fulgurite::prelude::*;

use crate::callbacks::scripted::{Scripted, batches, quiet};

#[test]
fn closures_are_called_where_their_hooks_are() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = |text: &'static str| {
        let seen = seen.clone();
        move |more: String| seen.lock().unwrap().push(format!("{text}{more}"))
    };
    let folder = tempfile::tempdir().unwrap();
    let [setup, batch_start, batch_end, backward, val_batch, end, save, teardown] =
        ["setup ", "start ", "end ", "loss ", "val ", "fit ends", "saves ", "teardown "].map(note);
    let callback = LambdaCallback::new()
        .setup(move |_, _, stage| {
            setup(format!("{stage:?}"));
            Ok(())
        })
        .on_train_batch_start(move |_, module, batch, idx| {
            batch_start(format!("{idx} {:?} of {}", batch.downcast_ref::<Tensor>().map(Tensor::size), module.name()));
            Ok(())
        })
        .on_before_backward(move |_, _, loss| {
            backward(format!("{:?}", loss.size()));
            Ok(())
        })
        .on_train_batch_end(move |trainer, _, outputs, _, _| {
            batch_end(format!("{} {}", trainer.global_step(), outputs.loss().is_some()));
            Ok(())
        })
        .on_validation_batch_end(move |_, _, _, _, idx, loader| {
            val_batch(format!("{idx} {loader}"));
            Ok(())
        })
        // The last one counts.
        .on_fit_end(|_, _| Err("not this one".into()))
        .on_fit_end(move |_, _| {
            end(String::new());
            Ok(())
        })
        .on_save_checkpoint(move |_, _, checkpoint| {
            checkpoint.set("more", 7);
            save(format!("{}", checkpoint.int("global_step")?));
            Ok(())
        })
        .teardown(move |_, _, stage| {
            teardown(format!("{stage:?}"));
            Ok(())
        });
    // Two of them get along.
    let builder = quiet(folder.path()).max_epochs(1).callback(callback).callback(LambdaCallback::new());
    _ = builder.build().unwrap().fit(&mut Scripted::new(&[1.0]), (batches(1), batches(1))).unwrap();
    let seen = seen.lock().unwrap();
    let expected = [
        "setup Fit",
        "start 0 Some([2, 4]) of Scripted",
        "loss []",
        "end 1 true",
        "val 0 0",
        "saves 1",
        "fit ends",
        "teardown Fit",
    ];
    assert_eq!(*seen, expected);
}

#[test]
fn an_error_of_a_closure_names_the_hook() {
    let folder = tempfile::tempdir().unwrap();
    let told: Arc<Mutex<String>> = Arc::default();
    let hears = told.clone();
    let callback = LambdaCallback::new().on_train_epoch_start(|_, _| Err("no more epochs".into())).on_exception(
        move |_, _, error: &Error| {
            *hears.lock().unwrap() = error.to_string();
            Ok(())
        },
    );
    let mut trainer = quiet(folder.path()).max_epochs(1).callback(callback).build().unwrap();
    let error = trainer.fit(&mut Scripted::new(&[1.0]), (batches(1), batches(1))).unwrap_err().to_string();
    assert_eq!(error, "LambdaCallback::on_train_epoch_start failed (epoch 0): no more epochs");
    assert_eq!(*told.lock().unwrap(), error);
}

/// Hands the hooks after every second batch the sum of the batch, and hears of it itself.
struct Summing {
    net: Scripted,
    heard: Vec<String>,
}

impl Summing {
    fn evaluate(&mut self, batch: &Tensor, step: &mut Step) {
        if step.batch_idx().is_multiple_of(2) {
            step.set_outputs(Dict::new().with("sum", batch.sum(Kind::Float).double_value(&[])));
        }
    }
}

impl LightningModule for Summing {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        LightningModule::vars(&self.net)
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        step.set_outputs("not for validation");
        self.net.training_step(batch, step)
    }

    fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        self.evaluate(&batch, step);
        Ok(())
    }

    fn test_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        self.evaluate(&batch, step);
        Ok(())
    }

    fn on_validation_batch_end(
        &mut self,
        _: &mut TrainerState,
        outputs: &Value,
        _: &Tensor,
        _: usize,
        _: usize,
    ) -> Result<()> {
        self.heard.push(format!("{outputs:?}"));
        Ok(())
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.net.configure_optimizers(trainer)
    }
}

#[test]
fn outputs_of_evaluation_steps_reach_the_hooks_after_the_batch() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = |stage: &'static str| {
        let seen = seen.clone();
        move |outputs: &Value, idx: usize| {
            let sum = outputs.as_dict().map(|outputs| outputs.float("sum").unwrap());
            seen.lock().unwrap().push(format!("{stage} {idx}: {sum:?}"));
        }
    };
    let (val, test) = (note("val"), note("test"));
    let callback = LambdaCallback::new()
        .on_validation_batch_end(move |_, _, outputs, _, idx, _| {
            val(outputs, idx);
            Ok(())
        })
        .on_test_batch_end(move |_, _, outputs, _, idx, _| {
            test(outputs, idx);
            Ok(())
        });
    let data =
        || [1.0, 2.0, 3.0].map(|x| Tensor::full([2], x, (Kind::Float, Device::Cpu))).into_iter().collect::<Vec<_>>();
    let folder = tempfile::tempdir().unwrap();
    let mut module = Summing { net: Scripted::new(&[]), heard: Vec::new() };
    let mut trainer = quiet(folder.path()).max_epochs(1).callback(callback).build().unwrap();
    _ = trainer.fit(&mut module, (batches(1), data())).unwrap();
    trainer.test(&mut module, data()).unwrap();
    let expected = ["val 0: Some(2.0)", "val 1: None", "val 2: Some(6.0)"];
    let of_test = ["test 0: Some(2.0)", "test 1: None", "test 2: Some(6.0)"];
    assert_eq!(*seen.lock().unwrap(), [expected, of_test].concat());
    assert_eq!(module.heard.len(), 3);
    assert_eq!(module.heard[1], "None");
}
