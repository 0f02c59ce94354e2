//! A module whose methods run foreign code: each may fail, and the foreign error comes back as it was.

use std::error::Error as _;

use expect_test::{Expect, expect};
use fulgurite::callbacks::LambdaCallback;
use fulgurite::loggers::CsvLogger;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::Opaque;
use fulgurite_test_support::quiet;

use super::batches;

/// An exception of another language.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{class}: {message}")]
struct Exception {
    class: &'static str,
    message: &'static str,
}

fn raise_in(method: &str, raises: &str) -> Result<()> {
    if method == raises { Err(Exception { class: "KeyError", message: "lr" }.into()) } else { Ok(()) }
}

/// A module, and a data module, of a class whose name is known only at run time.
struct Foreign {
    vars: nn::VarStore,
    layer: nn::Linear,
    class: String,
    hparams: Dict,
    raises: &'static str,
}

fn foreign(raises: &'static str) -> Foreign {
    let vars = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(vars.root(), 2, 1, Default::default());
    Foreign { vars, layer, class: "LitModel".into(), hparams: Dict::new(), raises }
}

impl LightningModule for Foreign {
    type Batch = Tensor;

    fn name(&self) -> &str {
        &self.class
    }

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn hparams(&self) -> Result<Dict> {
        raise_in("hparams", self.raises).map(|()| self.hparams.clone())
    }

    fn configure_callbacks(&mut self) -> Result<Vec<Box<dyn Callback>>> {
        raise_in("configure_callbacks", self.raises).map(|()| Vec::new())
    }

    fn train(&mut self, mode: bool) -> Result<()> {
        raise_in(if mode { "train" } else { "eval" }, self.raises)
    }

    fn training_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Loss> {
        Ok(batch.apply(&self.layer).square().mean(Kind::Float).into())
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        Ok(Opaque::new(Exception { class: "Sequence", message: if batch.dim() == 2 { "2-d" } else { "" } }).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.01).into())
    }
}

struct ForeignData(&'static str);

impl LightningDataModule for ForeignData {
    type Batch = Tensor;

    fn name(&self) -> &str {
        "LitData"
    }

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        Ok(batches(1).into())
    }

    fn hparams(&self) -> Result<Dict> {
        raise_in("hparams", self.0).map(|()| Dict::new())
    }

    fn state_dict(&self) -> Result<Dict> {
        raise_in("state_dict", self.0).map(|()| Dict::new())
    }
}

#[track_caller]
fn check<T>(outcome: Result<T, Error>, expected: Expect) {
    let error = outcome.err().unwrap();
    expected.assert_eq(&error.to_string());
    let source = error.source().and_then(|source| source.downcast_ref::<Exception>());
    assert_eq!(source, Some(&Exception { class: "KeyError", message: "lr" }));
    let Error::Hook { source, .. } = error else { panic!("{error}") };
    let exception = source.downcast::<Exception>().unwrap();
    assert_eq!(*exception, Exception { class: "KeyError", message: "lr" });
}

#[test]
fn what_a_foreign_method_raises_is_the_source_of_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let fit = |module, data| {
        let mut trainer = quiet()
            .enable_checkpointing(true)
            .callback(ModelCheckpoint::new().dirpath(folder.path()))
            .max_epochs(1)
            .build()
            .unwrap();
        trainer.fit(&mut foreign(module), &mut ForeignData(data))
    };
    check(fit("hparams", ""), expect!["LitModel::hparams failed (epoch 0): KeyError: lr"]);
    check(fit("configure_callbacks", ""), expect!["LitModel::configure_callbacks failed (epoch 0): KeyError: lr"]);
    check(fit("", "hparams"), expect!["LitData::hparams failed: KeyError: lr"]);
    check(fit("", "state_dict"), expect!["LitData::state_dict failed: KeyError: lr"]);
    let predict = |raises| quiet().build().unwrap().predict(&mut foreign(raises), batches(1));
    check(predict("eval"), expect!["LitModel::on_predict_model_eval failed: KeyError: lr"]);
    check(predict("train"), expect!["LitModel::train failed: KeyError: lr"]);
}

#[test]
fn foreign_objects_are_predictions_and_hyper_parameters_and_not_in_files() {
    let predictions = quiet().build().unwrap().predict(&mut foreign(""), batches(1)).unwrap();
    let object = predictions[0][0].as_opaque().and_then(|object| object.downcast_ref::<Exception>());
    assert_eq!(object.map(|object| object.message), Some("2-d"));

    let folder = tempfile::tempdir().unwrap();
    let fit = |checkpoints: &str, takes_it_out: bool| {
        let mut builder = quiet().enable_checkpointing(true).logger(CsvLogger::new(folder.path()).version(checkpoints));
        builder = builder.callback(ModelCheckpoint::new().dirpath(folder.path().join(checkpoints)));
        if takes_it_out {
            builder = builder.callback(LambdaCallback::new().on_save_checkpoint(|_, _, checkpoint| {
                checkpoint.remove("hyper_parameters");
                Ok(())
            }));
        }
        let hparams = Dict::new().with("tokenizer", Opaque::new(3u8).named("transformers.Tokenizer"));
        builder.build().unwrap().fit(&mut Foreign { hparams, ..foreign("") }, batches(1))
    };
    let error = fit("with", false).unwrap_err().to_string();
    assert!(error.contains("hyper_parameters.tokenizer"), "{error}");
    assert!(error.contains("transformers.Tokenizer"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path().join("with")).unwrap().count(), 0, "nothing half-written");
    let written = folder.path().join("lightning_logs/with/hparams.yaml");
    assert_eq!(std::fs::read_to_string(written).unwrap(), "tokenizer: transformers.Tokenizer\n");
    _ = fit("without", true).unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("without")).unwrap().count(), 1);
}
