//! Files of Lightning and PyTorch, in the hands of `Checkpoint` and the program `fulgurite`, and back.

use std::ffi::OsString;
use std::path::Path;

use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params;
use fulgurite::{Console, tools};
use fulgurite_parity::python;
use serde::Deserialize;

#[derive(Debug, PartialEq, Deserialize)]
struct Hparams {
    hidden: i64,
    lr: f64,
    norm: String,
}

struct Net(nn::VarStore, Hparams);

impl Net {
    fn new(hparams: Hparams) -> Result<Net> {
        let vars = nn::VarStore::new(Device::Cpu);
        let _fc1 = nn::linear(vars.root() / "fc1", 4, hparams.hidden, Default::default());
        let _norm = nn::batch_norm1d(vars.root() / "norm", hparams.hidden, Default::default());
        let _fc2 = nn::linear(vars.root() / "fc2", hparams.hidden, 3, Default::default());
        Ok(Net(vars, hparams))
    }

    fn total(&self) -> f64 {
        let state = params::state_dict(&self.0).unwrap();
        state.iter().map(|(_, value)| value.as_tensor().unwrap().sum(Kind::Double).double_value(&[])).sum()
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0
    }

    fn training_step(&mut self, _: Self::Batch, _: &mut Step) -> Result<Loss> {
        Err("it is not trained".into())
    }
}

/// What the program prints, which must end with `status`.
#[track_caller]
fn fulgurite_in(folder: &Path, status: u8, arguments: &[&str]) -> String {
    let console = Console::memory();
    let is_file = |argument: &str| argument.contains('.') || argument == "shards";
    let argument = |argument: &&str| match is_file(argument) {
        true => folder.join(argument).into_os_string(),
        false => OsString::from(argument),
    };
    let arguments = [OsString::from("fulgurite-ckpt")].into_iter().chain(arguments.iter().map(argument));
    let exit = tools::run(arguments, &console, Some(80));
    let said = console.contents().replace(&format!("{}/", folder.display()), "");
    assert_eq!(exit, status, "{said}");
    said
}

#[test]
fn files_of_python_are_understood_and_those_converted_open_there() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let script = |what: &str| python("tools.py", &[what, folder.to_str().unwrap()]);
    let total = script("write")["total"].as_f64().unwrap();

    let net = Checkpoint::open(folder.join("lightning.ckpt")).unwrap().hparam("lr", 0.5).load_with(Net::new).unwrap();
    assert_eq!(net.1, Hparams { hidden: 8, lr: 0.5, norm: "batch".into() });
    assert!((net.total() - total).abs() < 1e-9);
    for file in ["plain.pt", "nested.pt", "shards"] {
        let other = Net::new(Hparams { hidden: 8, lr: 0.0, norm: String::new() }).unwrap();
        Checkpoint::open(folder.join(file)).unwrap().load_into(&other.0).unwrap();
        assert!((other.total() - total).abs() < 1e-9, "{file}");
    }

    let shown = fulgurite_in(folder, 0, &["show", "lightning.ckpt", "--tensors"]);
    for line in [
        "  holds                      a Lightning checkpoint, to resume from",
        "  global_step                12",
        "  norm    batch",
        "  0           keeps step, exp_avg, exp_avg_sq of 6 parameters",
        "  0, group 0  6 parameters: lr=0.0025, betas=(0.9, 0.999), eps=1e-8,",
        "  EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}",
        "  norm.num_batches_tracked  int64    []        8 B",
        "  [0].state.4.exp_avg_sq  float32  [3, 8]   96 B",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    let nested = fulgurite_in(folder, 0, &["show", "nested.pt"]);
    assert!(nested.contains("holds   weights, and more") && nested.contains("model        9       100"), "{nested}");
    fulgurite_in(folder, 0, &["verify", "shards", "lightning.ckpt", "plain.pt"]);
    let same = fulgurite_in(folder, 0, &["diff", "lightning.ckpt", "plain.pt"]);
    assert!(
        same.ends_with(
            "The same: 9 tensors, 0 other values.
"
        ),
        "{same}"
    );

    fulgurite_in(folder, 0, &["convert", "lightning.ckpt", "converted-1.ckpt"]);
    fulgurite_in(folder, 0, &["convert", "lightning.ckpt", "converted-2.ckpt", "--weights-only"]);
    fulgurite_in(folder, 0, &["convert", "nested.pt", "converted-3.ckpt"]);
    fulgurite_in(folder, 0, &["convert", "lightning.ckpt", "converted-4.pt"]);
    fulgurite_in(folder, 0, &["consolidate", "shards", "converted-5.bin"]);
    fulgurite_in(folder, 0, &["diff", "lightning.ckpt", "converted-1.ckpt"]);
    let totals = script("read");
    assert_eq!(totals.as_object().unwrap().len(), 5);
    for (file, opened) in totals.as_object().unwrap() {
        assert!((opened[0].as_f64().unwrap() - total).abs() < 1e-9, "{file}");
        assert_eq!(opened[1], 0.01, "{file}");
    }
}
