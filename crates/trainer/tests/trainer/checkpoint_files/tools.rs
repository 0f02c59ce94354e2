//! The program `fulgurite-ckpt`, on files of every kind.

use std::ffi::OsString;
use std::path::Path;

use expect_test::{Expect, expect};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::serialization;
use fulgurite::{Console, tools};

/// What the program prints and its exit status, with the folder's name left out.
pub(super) fn fulgurite_in(folder: &Path, width: Option<usize>, arguments: &[&str]) -> (String, u8) {
    let console = Console::memory();
    let is_file = |argument: &str| {
        [".ckpt", ".pt", ".safetensors", ".onnx", "./.", "run.2"].iter().any(|end| argument.ends_with(end))
    };
    let file = |argument: &&str| match is_file(argument) {
        true => folder.join(argument).into_os_string(),
        false => OsString::from(argument),
    };
    let arguments = [OsString::from("fulgurite-ckpt")].into_iter().chain(arguments.iter().map(file));
    let status = tools::run(arguments, &console, width);
    let folder = format!("{}/", folder.display());
    (console.contents().replace(&folder, ""), status)
}

/// Without the sizes of whole files, which are those of the container too.
fn without_file_sizes(said: &str) -> String {
    let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["size", _, _] => "  size".to_owned(),
        ["intact", _, _, path] => format!("intact SIZE {path}"),
        _ => match line.split_once(", at ") {
            Some((before, after)) => format!("{before}, at{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
            None => line.to_owned(),
        },
    };
    said.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[track_caller]
pub(super) fn check(folder: &Path, arguments: &[&str], status: u8, expected: &Expect) {
    let (said, exit) = fulgurite_in(folder, Some(80), arguments);
    expected.assert_eq(&without_file_sizes(&said));
    assert_eq!(exit, status);
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values)
}

/// A checkpoint in Lightning's layout.
pub(super) fn lightning() -> Dict {
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

pub(super) fn folder(contents: &Dict) -> tempfile::TempDir {
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
    check(
        folder.path(),
        &["show", "a.ckpt"],
        0,
        &expect![[r#"
          file                       a.ckpt
          holds                      a Lightning checkpoint, to resume from
          format                     PyTorch
          size
          epoch                      2
          global_step                6
          pytorch-lightning_version  2.6.6

        Hyper-parameters
          hidden  64
          layers  [0, 1, 2, 3, 4, 5, 6, 7, … 40 items]
          norm    layer

        Progress
          loop                                ready  started  processed  completed
          fit_loop.epoch_loop.batch  total        6        6          6          5
          fit_loop.epoch_loop.batch  current      6        6          6          5
          fit_loop.epoch             total        3        3          3          2
          fit_loop.epoch             current      3        3          3          2

        Optimizers
          0           keeps step, exp_avg of 2 parameters
          0, group 0  2 parameters: lr=0.01, betas=(0.9, 0.999), weight_decay=0.0,
                      maximize=False

        Schedulers
          0  step_size=1, _last_lr=[0.01]

        Callbacks
          EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}
              wait_count=1, patience=3, best_score=tensor(0.5)

        Other entries
          mine  answer=42

        Tensors
          in                tensors  elements   size  dtypes
          state_dict              3        14   56 B  float32
          callbacks               1         1    4 B  float32
          optimizer_states        4        14   56 B  float32
          total                   8        29  116 B  float32

        Tensors in the same memory
          state_dict.fc.weight  = state_dict.tied.weight
    "#]],
    );
    check(
        folder.path(),
        &["show", "a.ckpt", "--stats"],
        0,
        &expect![[r#"
          file                       a.ckpt
          holds                      a Lightning checkpoint, to resume from
          format                     PyTorch
          size
          epoch                      2
          global_step                6
          pytorch-lightning_version  2.6.6

        Hyper-parameters
          hidden  64
          layers  [0, 1, 2, 3, 4, 5, 6, 7, … 40 items]
          norm    layer

        Progress
          loop                                ready  started  processed  completed
          fit_loop.epoch_loop.batch  total        6        6          6          5
          fit_loop.epoch_loop.batch  current      6        6          6          5
          fit_loop.epoch             total        3        3          3          2
          fit_loop.epoch             current      3        3          3          2

        Optimizers
          0           keeps step, exp_avg of 2 parameters
          0, group 0  2 parameters: lr=0.01, betas=(0.9, 0.999), weight_decay=0.0,
                      maximize=False

        Schedulers
          0  step_size=1, _last_lr=[0.01]

        Callbacks
          EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}
              wait_count=1, patience=3, best_score=tensor(0.5)

        Other entries
          mine  answer=42

        Tensors of state_dict
          name         dtype    shape   size   min      max     mean  not finite
          fc.weight    float32  [2, 3]  24 B  -2.5  3.000e7  5.000e6
          tied.weight  float32  [2, 3]  24 B  -2.5  3.000e7  5.000e6
          fc.bias      float32  [2]      8 B     1        1        1           1

        Tensors of callbacks
          name                          dtype    shape  size  min  max  mean  not finite
          EarlyStopping…n'}.best_score  float32  []      4 B  0.5  0.5   0.5

        Tensors of optimizer_states
          name                 dtype    shape   size  min  max  mean  not finite
          [0].state.0.step     float32  []       4 B    6    6     6
          [0].state.0.exp_avg  float32  [2, 3]  24 B  0.5  0.5   0.5
          [0].state.1.step     float32  []       4 B    6    6     6
          [0].state.1.exp_avg  float32  [2, 3]  24 B  0.5  0.5   0.5

        Tensors in the same memory
          state_dict.fc.weight  = state_dict.tied.weight
    "#]],
    );
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

        fn vars(&self) -> &dyn Parameters {
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
    _ = trainer
        .fit(&mut net, (0..4).map(|_| Tensor::ones([3], (Kind::Float, Device::Cpu))).collect::<Vec<_>>())
        .unwrap();
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
fn verify_says_which_are_intact() {
    let folder = folder(&lightning());
    check(
        folder.path(),
        &["verify", "a.ckpt"],
        0,
        &expect![[r#"
        intact SIZE a.ckpt
    "#]],
    );
    let bytes = std::fs::read(folder.path().join("a.ckpt")).unwrap();
    std::fs::create_dir(folder.path().join("run.1")).unwrap();
    std::fs::write(folder.path().join("run.1/cut.ckpt"), &bytes[..bytes.len() / 2]).unwrap();
    let mut flipped = bytes.clone();
    let at = bytes.windows(4).position(|window| window == 1e-3f32.to_le_bytes()).unwrap();
    flipped[at] ^= 1;
    std::fs::write(folder.path().join("run.1/flipped.pt"), flipped).unwrap();
    std::fs::write(folder.path().join("run.1/metrics.csv"), "loss").unwrap();
    check(
        folder.path(),
        &["verify", "./."],
        1,
        &expect![[r#"
        intact SIZE ././a.ckpt
        NOT INTACT         ././run.1/cut.ckpt: the checkpoint is damaged: it begins like a checkpoint and has no end, at bytes; it was cut while being written or copied; use an earlier one
        NOT INTACT         ././run.1/flipped.pt: the checkpoint is damaged: the checksum of entry `data/0` is wrong; use an earlier one
        1 of 3 checkpoints intact
    "#]],
    );
    std::fs::create_dir(folder.path().join("run.2")).unwrap();
    check(
        folder.path(),
        &["verify", "run.2"],
        2,
        &expect![[r#"
        error: checkpoint run.2: is a folder without a checkpoint in it; their names end in .ckpt, .pt, .pth, .bin, .safetensors
    "#]],
    );
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
    check(
        folder.path(),
        &["diff", "a.ckpt", "a.ckpt"],
        0,
        &expect![[r#"
        The same: 8 tensors, 79 other values.
    "#]],
    );
    check(
        folder.path(),
        &["diff", "a.ckpt", "b.ckpt"],
        1,
        &expect![[r#"
        Only in the first
          mine.answer

        Only in the second
          state_dict.head.bias

        Tensors that differ: 3 of 8
          name                        elements  max abs   max rel  also
          state_dict.fc.weight          2 of 6  3.000e6  5.000e-1
          state_dict.tied.weight  [2, 3] | [1]                     shape
          state_dict.fc.bias            0 of 2                     float32 | float64

        Other values that differ: 1 of 78
          epoch  2 | 3
    "#]],
    );
    check(
        folder.path(),
        &["diff", "a.ckpt", "b.ckpt", "--atol", "0.01", "--rtol", "0.2"],
        1,
        &expect![[r#"
        Only in the first
          mine.answer

        Only in the second
          state_dict.head.bias

        Tensors that differ: 2 of 8
          name                        elements  max abs  max rel  also
          state_dict.tied.weight  [2, 3] | [1]                    shape
          state_dict.fc.bias            0 of 2                    float32 | float64

        Other values that differ: 1 of 78
          epoch  2 | 3
    "#]],
    );
    let Value::Dict(weights) = other.remove("state_dict").unwrap() else { panic!("no weights") };
    save(&folder, "b.pt", &weights);
    check(
        folder.path(),
        &["diff", "b.ckpt", "b.pt"],
        0,
        &expect![[r#"
        Only b.ckpt has more than weights, so only weights are compared.

        The same: 4 tensors, 0 other values.
    "#]],
    );
}

#[test]
fn convert_says_what_is_lost() {
    let folder = folder(&lightning());
    check(
        folder.path(),
        &["convert", "a.ckpt", "b.ckpt", "--weights-only"],
        0,
        &expect![[r#"
        b.ckpt: 3 tensors of 56 B
        left out: callbacks, optimizer_states, lr_schedulers, mine
    "#]],
    );
    check(
        folder.path(),
        &["convert", "a.ckpt", "b.pt", "--dtype", "bf16", "--strip-prefix", "fc."],
        0,
        &expect![[r#"
            b.pt: 3 tensors of 28 B
            left out: epoch, global_step, pytorch-lightning_version, loops, callbacks, optimizer_states, lr_schedulers, hparams_name, hyper_parameters, mine
            converted 3 tensors to bfloat16, which changed values by up to 1.549e4
        "#]],
    );
    check(
        folder.path(),
        &["convert", "b.pt", "c.ckpt", "--add-prefix", "net.", "--only", "net.weight"],
        0,
        &expect![[r#"
            c.ckpt: 1 tensor of 12 B
            left out, as --only says: 2 weights
            it has weights only: it can be loaded and tested, but not resumed from
        "#]],
    );
    check(
        folder.path(),
        &["show", "c.ckpt", "--tensors"],
        0,
        &expect![[r#"
              file                       c.ckpt
              holds                      a Lightning checkpoint, weights alone
              format                     PyTorch
              size
              epoch                      0
              global_step                0
              pytorch-lightning_version  2.6.6

            Tensors of state_dict
              name        dtype     shape   size
              net.weight  bfloat16  [2, 3]  12 B
        "#]],
    );
    check(
        folder.path(),
        &["convert", "a.ckpt", "b.pt"],
        2,
        &expect![[r#"
        error: b.pt exists already; --force replaces it
    "#]],
    );
    check(
        folder.path(),
        &["convert", "a.ckpt", "b.onnx"],
        2,
        &expect![[r#"
        error: b.onnx does not determine a format; end it in .ckpt, .pt or .safetensors
    "#]],
    );
    // Everything is kept, and tied weights stay tied.
    check(
        folder.path(),
        &["convert", "a.ckpt", "d.ckpt"],
        0,
        &expect![[r#"
        d.ckpt: 3 tensors of 56 B
    "#]],
    );
    check(
        folder.path(),
        &["diff", "a.ckpt", "d.ckpt"],
        0,
        &expect![[r#"
        The same: 8 tensors, 79 other values.
    "#]],
    );
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
    check(
        folder.path(),
        &["consolidate", "./.", "whole.pt"],
        0,
        &expect![[r#"
        whole.pt: 2 tensors of 12 B
    "#]],
    );
    check(
        folder.path(),
        &["show", "whole.pt", "--stats"],
        0,
        &expect![[r#"
          file    whole.pt
          holds   weights
          format  PyTorch
          size

        Tensors
          name  dtype    shape  size  min  max  mean  not finite
          a     float32  [2]     8 B    1    2   1.5
          b     float32  [1]     4 B    3    3     3
    "#]],
    );
    check(
        folder.path(),
        &["consolidate", "whole.pt", "again.pt"],
        2,
        &expect![[r#"
        error: checkpoint whole.pt: is one file already; `convert` writes it in another format
    "#]],
    );
}

#[test]
fn what_cannot_be_done_is_one_line() {
    let folder = folder(&lightning());
    std::fs::write(folder.path().join("text.ckpt"), "hello").unwrap();
    check(
        folder.path(),
        &["show", "absent.ckpt"],
        2,
        &expect![[r#"
            error: checkpoint absent.ckpt: cannot be opened: No such file or directory (os error 2)
        "#]],
    );
    check(
        folder.path(),
        &["show", "text.ckpt"],
        2,
        &expect![[r#"
        error: checkpoint text.ckpt: not a PyTorch checkpoint: it does not begin like a zip file
    "#]],
    );
    check(
        folder.path(),
        &["convert", "a.ckpt", "b.pt", "--dtype", "int8"],
        2,
        &expect![[r#"
        error: invalid value 'int8' for '--dtype <DTYPE>': choose float64, float32, bfloat16 (bf16) or float16 (fp16)
    "#]],
    );
    let (help, status) = fulgurite_in(folder.path(), None, &["diff", "--help"]);
    assert_eq!(status, 0);
    assert!(help.contains("--rtol <RTOL>"), "{help}");
}
