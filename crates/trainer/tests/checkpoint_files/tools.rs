//! The program `fulgurite`, on files of every kind.

use std::ffi::OsString;
use std::path::Path;

use expect_test::{Expect, expect};
use fulgurite::prelude::*;
use fulgurite::torch::serialization;
use fulgurite::{Console, tools};

/// What the program prints and its exit status, with the folder's name left out.
fn fulgurite_in(folder: &Path, width: Option<usize>, arguments: &[&str]) -> (String, u8) {
    let console = Console::memory();
    let is_file = |argument: &str| [".ckpt", ".pt", ".onnx", "./.", "run.2"].iter().any(|end| argument.ends_with(end));
    let file = |argument: &&str| match is_file(argument) {
        true => folder.join(argument).into_os_string(),
        false => OsString::from(argument),
    };
    let arguments = ["fulgurite".into(), "ckpt".into()].into_iter().chain(arguments.iter().map(file));
    let status = tools::run(arguments, &console, width);
    let folder = format!("{}/", folder.display());
    (console.contents().replace(&folder, ""), status)
}

/// Without the sizes of whole files, which are those of the container too.
fn without_file_sizes(said: &str) -> String {
    let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["size", _, _] => "  size".to_owned(),
        ["whole", _, _, path] => format!("whole SIZE {path}"),
        _ => match line.split_once(", at ") {
            Some((before, after)) => format!("{before}, at{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
            None => line.to_owned(),
        },
    };
    said.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(folder: &Path, arguments: &[&str], status: u8, expected: &Expect) {
    let (said, exit) = fulgurite_in(folder, Some(80), arguments);
    expected.assert_eq(&without_file_sizes(&said));
    assert_eq!(exit, status);
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values)
}

/// A checkpoint in Lightning's layout.
fn lightning() -> Dict {
    let counts = |n: i64| Dict::new().with("ready", n).with("started", n).with("processed", n).with("completed", n - 1);
    let progress = |n: i64| Dict::new().with("total", counts(n)).with("current", counts(n));
    let none = || Dict::new().with("total", Dict::new().with("ready", 0)).with("current", Dict::new().with("ready", 0));
    let fit = Dict::new()
        .with("state_dict", Dict::new())
        .with("epoch_loop.batch_progress", progress(6).with("is_last_batch", true))
        .with("epoch_progress", progress(3));
    let weight = tensor(&[1.0, -2.5, 1e-3, 3e7, 0.25, 0.0]).view([2, 3]);
    let moments = || Dict::new().with("step", Tensor::from(6.0f32)).with("exp_avg", tensor(&[0.5; 6]).view([2, 3]));
    let group = Dict::new()
        .with("lr", 0.01)
        .with("betas", (0.9, 0.999))
        .with("weight_decay", 0.0)
        .with("maximize", false)
        .with("foreach", ())
        .with("params", vec![0, 1]);
    let adam = Dict::new()
        .with("state", Dict::new().with(0, moments()).with(1, moments()))
        .with("param_groups", vec![Value::Dict(group)]);
    let early_stopping = Dict::new().with("wait_count", 1).with("patience", 3).with("best_score", Tensor::from(0.5f32));
    Dict::new()
        .with("epoch", 2)
        .with("global_step", 6)
        .with("pytorch-lightning_version", "2.6.6")
        .with(
            "state_dict",
            Dict::new()
                .with("fc.weight", &weight)
                .with("tied.weight", &weight)
                .with("fc.bias", tensor(&[f32::NAN, 1.0])),
        )
        .with(
            "loops",
            Dict::new().with("fit_loop", fit).with("validate_loop", Dict::new().with("batch_progress", none())),
        )
        .with("callbacks", Dict::new().with("EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}", early_stopping))
        .with("optimizer_states", vec![Value::Dict(adam)])
        .with("lr_schedulers", vec![Value::Dict(Dict::new().with("step_size", 1).with("_last_lr", vec![0.01]))])
        .with("hparams_name", "kwargs")
        .with(
            "hyper_parameters",
            Dict::new().with("hidden", 64).with("layers", (0..40).collect::<Vec<i64>>()).with("norm", "layer"),
        )
        .with("mine", Dict::new().with("answer", 42))
}

fn folder(contents: &Dict) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    save(&folder, "a.ckpt", contents);
    folder
}

fn save(folder: &tempfile::TempDir, name: &str, contents: &Dict) {
    serialization::save(folder.path().join(name), &Value::Dict(contents.clone())).unwrap();
}

#[test]
fn show_prints_what_a_checkpoint_holds() {
    let folder = folder(&lightning());
    check(folder.path(), &["show", "a.ckpt"], 0, &expect![[""]]);
    check(folder.path(), &["show", "a.ckpt", "--stats"], 0, &expect![[""]]);
}

#[test]
fn show_is_as_wide_as_it_needs_to_be_in_a_pipe() {
    let folder = folder(&lightning());
    let (piped, _) = fulgurite_in(folder.path(), None, &["show", "a.ckpt"]);
    assert!(piped.lines().any(|line| line.len() > 80), "{piped}");
    assert!(!piped.contains('\u{1b}'));
    let (narrow, _) = fulgurite_in(folder.path(), Some(80), &["show", "a.ckpt", "--tensors"]);
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
}

#[test]
fn show_prints_json() {
    let folder = folder(&lightning());
    let (said, status) = fulgurite_in(folder.path(), None, &["show", "a.ckpt", "--json", "--stats"]);
    assert_eq!(status, 0);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["tensors"]["count"], 8);
    assert_eq!(json["shared"][0], serde_json::json!(["state_dict.fc.weight", "state_dict.tied.weight"]));
    let bias = &json["contents"]["state_dict"]["fc.bias"];
    let expected = serde_json::json!({
        "dtype": "float32", "shape": [2], "bytes": 8, "min": 1.0, "max": 1.0, "mean": 1.0, "not_finite": 1,
    });
    assert_eq!(*bias, expected);
    assert_eq!(json["contents"]["optimizer_states"][0]["param_groups"][0]["betas"][1], 0.999);
}

#[test]
fn show_knows_a_checkpoint_of_the_trainer() {
    struct Net(nn::VarStore);
    impl LightningModule for Net {
        type Batch = Tensor;

        fn vars(&self) -> &nn::VarStore {
            &self.0
        }

        fn training_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Loss> {
            Ok((batch * &self.0.variables()["weight"]).sum(Kind::Float).into())
        }

        fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
            Ok(Adam::new(&self.0).lr(0.5).into())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut net = Net(nn::VarStore::new(Device::Cpu));
    let _weight = net.0.root().ones("weight", &[3]);
    let trainer = Trainer::builder().max_epochs(2).no_logger().enable_progress_bar(false).enable_model_summary(false);
    let mut trainer =
        trainer.enable_checkpointing(false).accelerator("cpu").console(Console::memory()).build().unwrap();
    trainer.fit(&mut net, (0..4).map(|_| Tensor::ones([3], (Kind::Float, Device::Cpu))).collect::<Vec<_>>()).unwrap();
    trainer.save_checkpoint(&mut net, folder.path().join("a.ckpt"), false).unwrap();
    let (said, status) = fulgurite_in(folder.path(), Some(100), &["show", "a.ckpt"]);
    assert_eq!(status, 0);
    for line in [
        "  holds                      a Lightning checkpoint, to resume from",
        "  global_step                8",
        "  0           keeps step, exp_avg, exp_avg_sq of 1 parameter",
        "  0, group 0  1 parameter: lr=0.5, betas=(0.9, 0.999), weight_decay=0.0, eps=1e-8, amsgrad=False,",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[test]
fn verify_says_which_are_whole() {
    let folder = folder(&lightning());
    check(folder.path(), &["verify", "a.ckpt"], 0, &expect![[""]]);
    let bytes = std::fs::read(folder.path().join("a.ckpt")).unwrap();
    std::fs::create_dir(folder.path().join("run.1")).unwrap();
    std::fs::write(folder.path().join("run.1/cut.ckpt"), &bytes[..bytes.len() / 2]).unwrap();
    let mut flipped = bytes.clone();
    let at = bytes.windows(4).position(|window| window == 1e-3f32.to_le_bytes()).unwrap();
    flipped[at] ^= 1;
    std::fs::write(folder.path().join("run.1/flipped.pt"), flipped).unwrap();
    std::fs::write(folder.path().join("run.1/metrics.csv"), "loss").unwrap();
    check(folder.path(), &["verify", "./."], 1, &expect![[""]]);
    std::fs::create_dir(folder.path().join("run.2")).unwrap();
    check(folder.path(), &["verify", "run.2"], 2, &expect![[""]]);
}

#[test]
fn diff_says_what_is_not_the_same() {
    let folder = folder(&lightning());
    let mut other = lightning();
    other.set("epoch", 3);
    other.remove("mine");
    let Some(Value::Dict(state)) = other.get_mut("state_dict") else { panic!("no weights") };
    state.set("fc.weight", tensor(&[1.0, -2.5, 2e-3, 3.3e7, 0.25, 0.0]).view([2, 3]));
    state.set("tied.weight", tensor(&[0.0]));
    state.set("fc.bias", tensor(&[f32::NAN, 1.0]).to_kind(Kind::Double));
    state.set("head.bias", tensor(&[0.0]));
    save(&folder, "b.ckpt", &other);
    check(folder.path(), &["diff", "a.ckpt", "a.ckpt"], 0, &expect![[""]]);
    check(folder.path(), &["diff", "a.ckpt", "b.ckpt"], 1, &expect![[""]]);
    check(folder.path(), &["diff", "a.ckpt", "b.ckpt", "--atol", "0.01", "--rtol", "0.2"], 1, &expect![[""]]);
    let Value::Dict(weights) = other.remove("state_dict").unwrap() else { panic!("no weights") };
    save(&folder, "b.pt", &weights);
    check(folder.path(), &["diff", "b.ckpt", "b.pt"], 0, &expect![[""]]);
}

#[test]
fn convert_says_what_is_lost() {
    let folder = folder(&lightning());
    check(folder.path(), &["convert", "a.ckpt", "b.ckpt", "--weights-only"], 0, &expect![[""]]);
    check(folder.path(), &["convert", "a.ckpt", "b.pt", "--dtype", "bf16", "--strip-prefix", "fc."], 0, &expect![[""]]);
    check(
        folder.path(),
        &["convert", "b.pt", "c.ckpt", "--add-prefix", "net.", "--only", "net.weight"],
        0,
        &expect![[""]],
    );
    check(folder.path(), &["show", "c.ckpt", "--tensors"], 0, &expect![[""]]);
    check(folder.path(), &["convert", "a.ckpt", "b.pt"], 2, &expect![[""]]);
    check(folder.path(), &["convert", "a.ckpt", "b.onnx"], 2, &expect![[""]]);
    // Everything is kept, and tied weights stay tied.
    check(folder.path(), &["convert", "a.ckpt", "d.ckpt"], 0, &expect![[""]]);
    check(folder.path(), &["diff", "a.ckpt", "d.ckpt"], 0, &expect![[""]]);
    let (shown, _) = fulgurite_in(folder.path(), None, &["show", "d.ckpt"]);
    assert!(shown.contains("state_dict.fc.weight  = state_dict.tied.weight"), "{shown}");
}

#[test]
fn consolidate_makes_one_file_of_shards() {
    let folder = tempfile::tempdir().unwrap();
    save(&folder, "pytorch_model-00001.bin", &Dict::new().with("a", tensor(&[1.0, 2.0])));
    save(&folder, "pytorch_model-00002.bin", &Dict::new().with("b", tensor(&[3.0])));
    let index = r#"{"weight_map": {"a": "pytorch_model-00001.bin", "b": "pytorch_model-00002.bin"}}"#;
    std::fs::write(folder.path().join("pytorch_model.bin.index.json"), index).unwrap();
    check(folder.path(), &["consolidate", "./.", "whole.pt"], 0, &expect![[""]]);
    check(folder.path(), &["show", "whole.pt", "--stats"], 0, &expect![[""]]);
    check(folder.path(), &["consolidate", "whole.pt", "again.pt"], 2, &expect![[""]]);
}

#[test]
fn what_cannot_be_done_is_one_line() {
    let folder = folder(&lightning());
    std::fs::write(folder.path().join("text.ckpt"), "hello").unwrap();
    check(folder.path(), &["show", "absent.ckpt"], 2, &expect![[""]]);
    check(folder.path(), &["show", "text.ckpt"], 2, &expect![[""]]);
    check(folder.path(), &["convert", "a.ckpt", "b.pt", "--dtype", "int8"], 2, &expect![[""]]);
    let (help, status) = fulgurite_in(folder.path(), None, &["diff", "--help"]);
    assert_eq!(status, 0);
    assert!(help.contains("--rtol <RTOL>"), "{help}");
}
