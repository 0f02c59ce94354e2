//! `Checkpoint`: a module of a file, or some of its weights.

use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use fulgurite::cli::FromConfig;
use fulgurite::fabric::TorchCheckpointIo;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{params, serialization};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Hparams {
    hidden: i64,
    lr: f64,
}

impl Default for Hparams {
    fn default() -> Hparams {
        Hparams { hidden: 4, lr: 0.1 }
    }
}

struct Net {
    vars: nn::VarStore,
    hparams: Hparams,
    /// What `on_load_checkpoint` was given.
    restored: Option<i64>,
}

impl Net {
    fn new(hparams: Hparams) -> Result<Net> {
        let vars = nn::VarStore::new(Device::Cpu);
        let _backbone = nn::linear(vars.root() / "backbone", 2, hparams.hidden, Default::default());
        let _head = nn::linear(vars.root() / "head", hparams.hidden, 3, Default::default());
        Ok(Net { vars, hparams, restored: None })
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, _: Tensor, _: &mut Step) -> Result<Loss> {
        Err("it is only loaded".into())
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::from_serialize(&self.hparams))
    }

    fn on_save_checkpoint(&mut self, _: &mut TrainerState, checkpoint: &mut Dict) -> Result<()> {
        checkpoint.set("mine", 7);
        Ok(())
    }

    fn on_load_checkpoint(&mut self, _: Option<&mut TrainerState>, checkpoint: &mut Dict) -> Result<()> {
        self.restored = Some(checkpoint.int("mine")?);
        Ok(())
    }
}

impl FromConfig for Net {
    type Config = Hparams;

    fn from_config(config: Hparams) -> Result<Net> {
        Net::new(config)
    }
}

/// A trained module and its checkpoint.
fn saved(folder: &Path) -> (Net, PathBuf) {
    let path = folder.join("net.ckpt");
    let mut net = Net::new(Hparams { hidden: 8, lr: 0.2 }).unwrap();
    Trainer::builder().no_logger().build().unwrap().save_checkpoint(&mut net, &path, false).unwrap();
    (net, path)
}

fn state(vars: &nn::VarStore) -> Value {
    params::state_dict(vars).unwrap().map_tensors(&mut Tensor::copy).into()
}

/// Changes what a checkpoint holds.
fn rewrite(path: &Path, change: impl FnOnce(&mut Dict)) {
    let Value::Dict(mut checkpoint) = serialization::load(path).unwrap() else { panic!("no dict") };
    change(&mut checkpoint);
    serialization::save(path, &Value::Dict(checkpoint)).unwrap();
}

fn weights_of(net: &Net) -> Dict {
    params::state_dict(&net.vars).unwrap()
}

fn says<T>(outcome: Result<T, impl std::fmt::Display>, path: &Path, expected: &Expect) {
    let said = outcome.err().unwrap().to_string();
    expected.assert_eq(&said.replace(path.to_str().unwrap(), "FILE").replace('\t', "    "));
}

#[test]
fn a_module_is_made_of_its_hyper_parameters_and_given_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (net, path) = saved(folder.path());
    let same = Net::load_from_checkpoint(&path).unwrap();
    assert_eq!((&same.hparams, same.restored), (&net.hparams, Some(7)));
    assert_eq!(state(&same.vars), state(&net.vars));

    let changed: Net = Checkpoint::open(&path).unwrap().hparam("lr", 3e-4).load().unwrap();
    assert_eq!(changed.hparams, Hparams { hidden: 8, lr: 3e-4 });
    let by_hand = Checkpoint::open(&path).unwrap();
    let by_hand = by_hand.load_with(|hparams: Hparams| Net::new(Hparams { lr: 1.0, ..hparams })).unwrap();
    assert_eq!(by_hand.hparams, Hparams { hidden: 8, lr: 1.0 });
    assert_eq!(state(&by_hand.vars), state(&net.vars));
    let read = |dict: Dict| Net::new(Hparams { hidden: dict.int("hidden")?, lr: dict.float("lr")? });
    let of_dict = Checkpoint::open(&path).unwrap().load_with(read).unwrap();
    assert_eq!(of_dict.hparams, net.hparams);

    let io = &mut TorchCheckpointIo::new();
    let elsewhere: Net = Checkpoint::open_with(io, &path).unwrap().load().unwrap();
    assert_eq!(state(&elsewhere.vars), state(&net.vars));
}

#[test]
fn hyper_parameters_that_the_module_does_not_take_are_left_out_and_those_set_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = saved(folder.path());
    rewrite(&path, |checkpoint| {
        let Some(Value::Dict(hparams)) = checkpoint.get_mut("hyper_parameters") else { panic!("no hparams") };
        hparams.set("optimizer_name", "Lion");
    });
    assert_eq!(Net::load_from_checkpoint(&path).unwrap().hparams, Hparams { hidden: 8, lr: 0.2 });
    let misspelt = Checkpoint::open(&path).unwrap().hparam("learning_rate", 1.0);
    says(
        misspelt.load::<Net>(),
        &path,
        &expect![
            "checkpoint FILE: its hyper-parameter `learning_rate` does not fit: unknown field `learning_rate`, expected `hidden` or `lr`"
        ],
    );
    let wrong = Checkpoint::open(&path).unwrap().hparam("hidden", "many");
    says(
        wrong.load::<Net>(),
        &path,
        &expect![[
            r#"checkpoint FILE: its hyper-parameter `hidden` does not fit: invalid type: string "many", expected i64"#
        ]],
    );
}

#[test]
fn what_does_not_fit_is_listed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = saved(folder.path());
    rewrite(&path, |checkpoint| {
        let Some(Value::Dict(state)) = checkpoint.get_mut("state_dict") else { panic!("no weights") };
        state.remove("head.bias");
        state.set("neck.bias", Tensor::from(1.0));
    });
    let other = Net::new(Hparams { hidden: 4, lr: 0.1 }).unwrap();
    let before = state(&other.vars);
    says(
        Checkpoint::open(&path).unwrap().dtype(Kind::Double).load_into(&other.vars),
        &path,
        &expect![[r#"
            checkpoint FILE: does not fit: 1 missing, 1 unexpected, 3 of another shape; none of the model's 4 tensors can be loaded:
                missing: "head.bias" [3]
                unexpected: "neck.bias" []
                of another shape: "backbone.weight" is [8, 2] in the state dict and [4, 2] in the model
                of another shape: "backbone.bias" is [8] in the state dict and [4] in the model
                of another shape: "head.weight" is [3, 8] in the state dict and [3, 4] in the model
                Nothing was loaded. Load it into a model of the class and hyper-parameters that it was saved from, or a part of it: `only` and `except` select parts, `strip_prefix`, `replace_prefix` and `map_keys` rename, `strict(false)` allows missing and unexpected names, `ignore_mismatched_sizes(true)` skips other shapes"#]],
    );
    assert_eq!(state(&other.vars), before);

    let report = Checkpoint::open(&path).unwrap().strict(false).ignore_mismatched_sizes(true);
    let report = report.load_into(&other.vars).unwrap();
    assert_eq!(report.missing_keys, ["head.bias"]);
    assert_eq!(report.unexpected_keys, ["neck.bias"]);
    let mismatched: Vec<&str> = report.mismatched.iter().map(|mismatch| mismatch.key.as_str()).collect();
    assert_eq!(mismatched, ["backbone.weight", "backbone.bias", "head.weight"]);
    assert_eq!((&report.mismatched[2].checkpoint, &report.mismatched[2].model), (&vec![3, 8], &vec![3, 4]));
    assert!(report.loaded_keys.is_empty());
    assert_eq!(state(&other.vars), before);
}

#[test]
fn a_part_goes_into_another_model_under_other_names() {
    let folder = tempfile::tempdir().unwrap();
    let (net, path) = saved(folder.path());
    let vars = nn::VarStore::new(Device::Cpu);
    let encoder = nn::linear(vars.root() / "encoder" / "fc", 2, 8, Default::default());
    let _decoder = nn::linear(vars.root() / "decoder", 8, 5, Default::default());
    let open = || Checkpoint::open(&path).unwrap().replace_prefix("backbone.", "encoder.fc.");

    let report = open().only("encoder").load_into(&vars).unwrap();
    assert_eq!(report.loaded_keys, ["encoder.fc.weight", "encoder.fc.bias"]);
    assert_eq!(report.skipped_keys, ["head.weight", "head.bias"]);
    assert_eq!(Value::from(&encoder.ws), *weights_of(&net).get("backbone.weight").unwrap());

    // Strict about the part.
    assert!(
        open().map_keys(|key| (!key.ends_with("bias")).then(|| key.into())).only("encoder.*").load_into(&vars).is_err()
    );
    let report = open().except("decoder").except("head.*").load_into(&vars).unwrap();
    assert_eq!(report.loaded_keys, ["encoder.fc.weight", "encoder.fc.bias"]);
}

#[test]
fn weights_are_found_in_the_files_of_pytorch_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let net = Net::new(Hparams::default()).unwrap();
    let weights = weights_of(&net);
    let wrapped = |key: &str| Dict::new().with("epoch", 3).with(key, weights.clone());
    for contents in [weights.clone(), wrapped("state_dict"), wrapped("model_state_dict"), wrapped("model")] {
        serialization::save(&path, &Value::Dict(contents)).unwrap();
        let other = Net::new(Hparams::default()).unwrap();
        Checkpoint::open(&path).unwrap().load_into(&other.vars).unwrap();
        assert_eq!(state(&other.vars), state(&net.vars));
    }
    serialization::save(&path, &wrapped("ema").with("nested", wrapped("weights")).into()).unwrap();
    says(
        Checkpoint::open(&path).unwrap().load_into(&net.vars),
        &path,
        &expect![
            "checkpoint FILE: has no weights under state_dict, model_state_dict, model, module, weights; it has: epoch, ema, nested. Set their key with `state_dict_key`"
        ],
    );
    for key in ["ema", "nested.weights"] {
        let other = Net::new(Hparams::default()).unwrap();
        Checkpoint::open(&path).unwrap().state_dict_key(key).load_into(&other.vars).unwrap();
        assert_eq!(state(&other.vars), state(&net.vars));
    }
    serialization::save(&path, &vec![1, 2].into()).unwrap();
    says(
        Checkpoint::open(&path).map(drop),
        &path,
        &expect!["checkpoint FILE: contains a list, but a checkpoint is a dict"],
    );
}

#[test]
fn kinds_are_those_of_the_model_or_the_one_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (net, path) = saved(folder.path());
    let weight = |net: &Net| net.vars.variables().remove("head.weight").unwrap();
    let same: Net = Checkpoint::open(&path).unwrap().load().unwrap();
    assert_eq!(weight(&same).kind(), Kind::Float);
    let halved: Net = Checkpoint::open(&path).unwrap().dtype(Kind::BFloat16).load().unwrap();
    assert_eq!(weight(&halved).kind(), Kind::BFloat16);
    assert_eq!(weight(&halved), weight(&net).to_kind(Kind::BFloat16));

    // And back: a file of bfloat16 into a model of float32.
    serialization::save(&path, &weights_of(&halved).into()).unwrap();
    let back = Net::new(Hparams { hidden: 8, lr: 0.1 }).unwrap();
    Checkpoint::open(&path).unwrap().map_location(Device::Cpu).load_into(&back.vars).unwrap();
    assert_eq!(weight(&back).kind(), Kind::Float);
    assert_eq!(weight(&back), weight(&halved).to_kind(Kind::Float));
}

struct Data(Hparams, i64);

impl LightningDataModule for Data {
    type Batch = Tensor;

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.1 = state.int("cursor")?;
        Ok(())
    }
}

impl FromConfig for Data {
    type Config = Hparams;

    fn from_config(config: Hparams) -> Result<Data> {
        Ok(Data(config, 0))
    }
}

#[test]
fn a_data_module_comes_back_with_its_hyper_parameters_and_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.ckpt");
    let hparams = Dict::new().with("hidden", 2).with("lr", 0.5);
    let checkpoint =
        Dict::new().with("datamodule_hyper_parameters", hparams).with("Data", Dict::new().with("cursor", 12));
    serialization::save(&path, &checkpoint.into()).unwrap();
    let open = || Checkpoint::open(&path).unwrap().datamodule_hparam("lr", 0.25);
    let Data(hparams, cursor) = open().load_datamodule().unwrap();
    assert_eq!((hparams, cursor), (Hparams { hidden: 2, lr: 0.25 }, 12));
    let data = open().load_datamodule_with(|hparams: Hparams| Ok(Data(hparams, 0))).unwrap();
    assert_eq!(data.1, 12);
}

#[test]
fn shards_are_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let net = Net::new(Hparams::default()).unwrap();
    let mut map = serde_json::Map::new();
    for (index, (key, value)) in weights_of(&net).iter().enumerate() {
        let file = format!("pytorch_model-0000{index}.bin");
        serialization::save(folder.path().join(&file), &Dict::new().with(key.clone(), value.clone()).into()).unwrap();
        map.insert(key.as_str().unwrap().into(), file.into());
    }
    let index = folder.path().join("pytorch_model.bin.index.json");
    let write = |map: &serde_json::Map<String, serde_json::Value>| {
        std::fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    };
    write(&map);
    for path in [folder.path(), &index] {
        let other = Net::new(Hparams::default()).unwrap();
        Checkpoint::open(path).unwrap().load_into(&other.vars).unwrap();
        assert_eq!(state(&other.vars), state(&net.vars));
    }
    map.insert("head.bias".into(), "../elsewhere.bin".into());
    write(&map);
    says(
        Checkpoint::open(&index).map(drop),
        &index,
        &expect![[r#"checkpoint FILE: names the shard "../elsewhere.bin", which is not a file beside it"#]],
    );
    std::fs::remove_file(&index).unwrap();
    std::fs::write(folder.path().join(".metadata"), "").unwrap();
    says(
        Checkpoint::open(folder.path()).map(drop),
        folder.path(),
        &expect![
            "checkpoint FILE: is a distributed checkpoint (FSDP), which this version does not read; in Python, `python -m lightning.pytorch.utilities.consolidate_checkpoint FOLDER` makes one file of it"
        ],
    );
}

#[test]
fn a_changed_bit_is_no_weight() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    serialization::save(&path, &Dict::new().with("weight", Tensor::from_slice(&[1.0f32, 1e-3])).into()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|window| window == 1e-3f32.to_le_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    says(
        Checkpoint::open(&path).map(drop),
        &path,
        &expect![
            "checkpoint FILE: the checkpoint is damaged: the checksum of entry `data/0` is wrong; use an earlier one"
        ],
    );
    // Whoever asks for speed gets what is in the file.
    let opened = Checkpoint::open_mmap(&path).unwrap();
    assert_ne!(opened.contents().tensor("weight").unwrap(), &Tensor::from_slice(&[1.0f32, 1e-3]));
}
