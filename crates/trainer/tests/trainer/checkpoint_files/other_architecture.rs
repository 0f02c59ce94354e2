//! Weights of another architecture: what is said of them, and that nothing is changed.

use std::path::Path;

use expect_test::expect;
use fulgurite::cli::FromConfig;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::tch::vision::{mobilenet, resnet};
use fulgurite::torch::{params, serialization};
use fulgurite_test_support::quiet;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
enum Arch {
    #[default]
    ResNet18,
    MobileNetV2,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
struct Hparams {
    arch: Arch,
    classes: i64,
}

impl Default for Hparams {
    fn default() -> Hparams {
        Hparams { arch: Arch::ResNet18, classes: 10 }
    }
}

struct Classifier {
    vars: nn::VarStore,
    hparams: Hparams,
}

impl FromConfig for Classifier {
    type Config = Hparams;

    fn from_config(hparams: Hparams) -> Result<Classifier> {
        let vars = nn::VarStore::new(Device::Cpu);
        match hparams.arch {
            Arch::ResNet18 => drop(resnet::resnet18(&vars.root(), hparams.classes)),
            Arch::MobileNetV2 => drop(mobilenet::v2(&vars.root(), hparams.classes)),
        }
        Ok(Classifier { vars, hparams })
    }
}

impl LightningModule for Classifier {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::from_serialize(&self.hparams))
    }

    fn training_step(&mut self, _: Tensor, _: &mut Step) -> Result<Loss> {
        Ok(self.vars.trainable_variables()[0].sum(Kind::Float).into())
    }

    fn validation_step(&mut self, _: Tensor, _: &mut Step) -> Result<()> {
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).into())
    }
}

fn classifier(arch: Arch, classes: i64) -> Classifier {
    Classifier::from_config(Hparams { arch, classes }).unwrap()
}

fn weights(classifier: &Classifier) -> Dict {
    params::state_dict(&classifier.vars).unwrap()
}

/// What is said of weights that cannot be loaded; those of `target` stay as they were.
#[track_caller]
fn refused<T>(
    target: &mut Classifier,
    path: &Path,
    load: impl FnOnce(&mut Classifier) -> Result<T, fulgurite::Error>,
) -> String {
    let before = Value::from(weights(target).map_tensors(&mut Tensor::copy));
    let said = load(target).err().unwrap().to_string();
    assert_eq!(Value::from(weights(target)), before);
    said.replace(path.to_str().unwrap(), "FILE").replace('\t', "    ")
}

/// Of a ResNet-18 for a MobileNetV2, after who says it and before what can be done.
const DIFFERENCES: &str = r#": 262 missing, 102 unexpected; none of the model's 262 tensors can be loaded, so the architecture is another one:
    missing: "features.0.0.weight" [32, 3, 3, 3]
    missing: "features.0.1.weight" [32]
    missing: "features.0.1.bias" [32]
    missing: "features.1.conv.0.0.weight" [32, 1, 3, 3]
    missing: "features.1.conv.0.1.weight" [32]
    unexpected: "conv1.weight" [64, 3, 7, 7]
    unexpected: "bn1.weight" [64]
    unexpected: "bn1.bias" [64]
    unexpected: "layer1.0.conv1.weight" [64, 64, 3, 3]
    unexpected: "layer1.0.bn1.weight" [64]
    and 354 more
"#;

#[test]
fn a_file_of_pytorch_is_not_loaded_into_another_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resnet18.pt");
    serialization::save(&path, &weights(&classifier(Arch::ResNet18, 10)).into()).unwrap();
    let mut other = classifier(Arch::MobileNetV2, 10);
    let said = refused(&mut other, &path, |other| Checkpoint::open(&path)?.load_into(&other.vars));
    let (who, what) = said.split_once(DIFFERENCES).expect(&said);
    assert_eq!(who, "checkpoint FILE: does not fit");
    expect![[r#"
            Nothing was loaded. Load it into a model of the class and hyper-parameters that it was saved from, or a part of it: `only` and `except` select parts, `strip_prefix`, `replace_prefix` and `map_keys` rename, `strict(false)` allows missing and unexpected names, `ignore_mismatched_sizes(true)` skips other shapes"#]].assert_eq(&what.replace("    ", ""));

    let said = refused(&mut other, &path, |other| {
        let Value::Dict(state) = serialization::load(&path)? else { panic!("no dict") };
        Ok(params::load_state_dict(&other.vars, &state, true)?)
    });
    let (who, what) = said.split_once(DIFFERENCES).expect(&said);
    assert_eq!(who, "the state dict does not fit the model");
    expect![[r#"
            Nothing was loaded. Load it into a model of the class and sizes that it was saved from; for another model, rename its entries, leave out those of other shapes, and load the rest with `strict` off"#]].assert_eq(&what.replace("    ", ""));
}

#[test]
fn another_head_is_named_with_both_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resnet18.pt");
    serialization::save(&path, &weights(&classifier(Arch::ResNet18, 10)).into()).unwrap();
    let mut other = classifier(Arch::ResNet18, 3);
    let lenient = |other: &mut Classifier| Checkpoint::open(&path)?.strict(false).load_into(&other.vars);
    let said = refused(&mut other, &path, lenient);
    let differences = r#": 2 of another shape; 100 of the model's 102 tensors can be loaded:
    of another shape: "fc.weight" is [10, 512] in the state dict and [3, 512] in the model
    of another shape: "fc.bias" is [10] in the state dict and [3] in the model
"#;
    assert!(said.contains(differences), "{said}");
    let report = Checkpoint::open(&path).unwrap().ignore_mismatched_sizes(true).load_into(&other.vars).unwrap();
    assert_eq!((report.mismatched.len(), report.missing_keys.len()), (2, 0));
}

#[test]
fn the_names_of_a_wrapped_model_have_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrapped.pt");
    let wrapped = weights(&classifier(Arch::MobileNetV2, 10)).into_iter();
    let wrapped = wrapped.map(|(name, value)| (format!("module.{}", name.as_str().unwrap()).as_str().into(), value));
    serialization::save(&path, &wrapped.collect::<Dict>().into()).unwrap();
    let mut same = classifier(Arch::MobileNetV2, 10);
    let said = refused(&mut same, &path, |same| Checkpoint::open(&path)?.load_into(&same.vars));
    let counts = "262 missing, 262 unexpected; none of the model's 262 tensors can be loaded:\n";
    let prefix = r#"262 of the missing would be found without the prefix "module." of names in the state dict"#;
    assert!(said.contains(counts) && said.contains(prefix), "{said}");
    let report = Checkpoint::open(&path).unwrap().strip_prefix("module.").load_into(&same.vars).unwrap();
    assert!(report.missing_keys.is_empty() && report.unexpected_keys.is_empty());
}

#[test]
fn a_run_of_another_network_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.ckpt");
    let batches = || vec![Tensor::ones([1], (Kind::Float, Device::Cpu))];
    let mut trainer = quiet().build().unwrap();
    let mut trained = classifier(Arch::ResNet18, 10);
    _ = trainer.fit(&mut trained, batches()).unwrap();
    trainer.save_checkpoint(&mut trained, &path, false).unwrap();

    let mut other = classifier(Arch::MobileNetV2, 10);
    let said = refused(&mut other, &path, |_| {
        let loaded = Checkpoint::open(&path)?.hparam("arch", "MobileNetV2").load::<Classifier>();
        loaded.map_err(|error| *error.downcast().unwrap())
    });
    assert!(said.starts_with(&format!("checkpoint FILE: does not fit{DIFFERENCES}")), "{said}");

    let mut trainer = quiet().max_epochs(2).build().unwrap();
    let said = [
        refused(&mut other, &path, |other| trainer.ckpt_path(&path).fit(other, batches())),
        refused(&mut other, &path, |other| trainer.ckpt_path(&path).validate(other, batches())),
    ];
    assert_eq!(said[0], said[1]);
    let (who, what) = said[0].split_once(DIFFERENCES).expect(&said[0]);
    assert_eq!(who, "checkpoint FILE: does not fit Classifier");
    expect![[r#"
            The checkpoint was written with arch="ResNet18" instead of "MobileNetV2".
            Nothing was loaded. Make the module of the checkpoint's class and hyper-parameters (`Checkpoint::load`); to begin a new run with the weights that fit, copy them with `Checkpoint::open(path)?.strict(false).ignore_mismatched_sizes(true).load_into(module.vars())`, and leave ckpt_path out"#]].assert_eq(&what.replace("    ", ""));
    // The trainer is as good as new.
    _ = trainer.ckpt_path(&path).fit(&mut classifier(Arch::ResNet18, 10), batches()).unwrap();
    assert_eq!(trainer.state().global_step(), 2);
}
