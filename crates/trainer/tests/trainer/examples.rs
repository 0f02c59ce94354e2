//! The examples, run as a person would run them, for a few steps.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What an example printed, and whether it succeeded.
fn run(folder: &Path, example: &str, args: &str) -> (bool, String) {
    let mut program = std::env::current_exe().unwrap();
    program.pop();
    program.set_file_name("examples");
    let program = program.join(example).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.is_file(), "{} is not built; run `cargo build --examples` first", program.display());
    let output = Command::new(program)
        .args(args.split_whitespace())
        .current_dir(folder)
        // The tests share the processors.
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[track_caller]
fn assert_prints(folder: &Path, example: &str, args: &str, expected: &[&str]) -> String {
    let (success, text) = run(folder, example, args);
    assert!(success, "{text}");
    for line in expected {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
    text
}

#[track_caller]
fn assert_fails(example: &str, args: &str, message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (success, text) = run(folder.path(), example, args);
    assert!(!success, "{text}");
    assert!(text.contains(message), "no {message:?} in:\n{text}");
}

/// The files of a run with this extension.
fn files(folder: PathBuf, extension: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// The loader's own account of what it initialised.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn help_is_printed_before_libtorch_is_initialised() {
    let folder = tempfile::tempdir().unwrap();
    for (args, initialised) in
        [("fit --help", false), ("fit --optimizer.help AdamW", false), ("fit --print_config", true)]
    {
        let account = folder.path().join("account");
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        program.set_file_name("examples");
        let started = Command::new(program.join("digits"))
            .args(args.split_whitespace())
            .env("LD_DEBUG", "files")
            .env("LD_DEBUG_OUTPUT", &account)
            .output()
            .unwrap();
        assert!(started.status.success() && !started.stdout.is_empty());
        let accounts = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
        let text: String = accounts.map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let of_libtorch = text.lines().any(|line| line.contains("calling init") && line.contains("libtorch_cpu"));
        assert_eq!(of_libtorch, initialised, "{args}");
    }
}

const TINY_GPT: &str = "fit --model.layers 1 --model.width 16 --model.heads 2 --data.context 16 --data.batch_size 2 \
                        --data.steps_per_epoch 2 --trainer.limit_val_batches 1 --model.sample_length 20 \
                        --trainer.accelerator cpu";

#[test]
fn gpt_trains_writes_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("lightning_logs/version_0");
    // Step metrics are written every 10 steps.
    let args = format!("{TINY_GPT} --trainer.max_steps 10");
    let expected = ["bytes of text from", "val_perplexity", "sample after epoch 1", "logs: ", "checkpoint: "];
    assert_prints(folder.path(), "gpt", &args, &expected);
    let checkpoints = files(run.join("checkpoints"), "ckpt");
    assert_eq!(checkpoints.len(), 1);
    let metrics = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let columns = metrics.lines().next().unwrap();
    for name in ["lr-AdamW/decay", "lr-AdamW/no_decay", "val_loss", "val_perplexity"] {
        assert!(columns.contains(name), "no {name} among {columns}");
    }

    let args = format!("{TINY_GPT} --trainer.max_steps 14 --ckpt_path {}", checkpoints[0].display());
    assert_prints(folder.path(), "gpt", &args, &["resumed from", "sample after epoch 6"]);
}

#[test]
fn gpt_explains_what_it_cannot_do() {
    assert_fails("gpt", "fit --model.width 10 --model.heads 3", "model.width=10 cannot be shared by model.heads=3");
    assert_fails("gpt", "fit --model.temperature 0", "model.temperature must be above 0");
    assert_fails("gpt", "fit --data.text no-such-file.txt", "cannot read no-such-file.txt");
    assert_fails("gpt", "fit --data.text . --data.extension poem", "there is no .poem file in .");
    assert_fails("gpt", "fit --max-steps 200", "did you mean `trainer.max_steps`?");
}

#[test]
fn autoencoder_draws_what_it_learned() {
    let folder = tempfile::tempdir().unwrap();
    let expected = ["val_loss", "what the model draws from 4 numbers", "██", "logs: ", "checkpoints: "];
    assert_prints(folder.path(), "autoencoder", "--max-epochs 2 --latent 4 --accelerator cpu", &expected);
    assert_eq!(files(folder.path().join("lightning_logs/version_0/checkpoints"), "ckpt").len(), 1);
}

#[test]
fn gan_draws_after_every_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let args = "--max-epochs 2 --width 2 --latent 4 --batch-size 256 --accelerator cpu";
    let expected = ["d_loss", "g_loss", "generated digits", "samples: ", "logs: ", "checkpoints: "];
    assert_prints(folder.path(), "gan", args, &expected);
    let run = folder.path().join("lightning_logs/version_0");
    let mut samples = files(run.join("samples"), "png");
    samples.sort();
    let names: Vec<_> = samples.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["epoch-000.png", "epoch-001.png"]);
    // Both networks learned: what is drawn from the same noise has changed.
    assert_ne!(std::fs::read(&samples[0]).unwrap(), std::fs::read(&samples[1]).unwrap());
    let metrics = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let columns = metrics.lines().next().unwrap();
    for name in ["d_loss", "g_loss", "D(x)_epoch", "D(G(z))_epoch"] {
        assert!(columns.contains(name), "no {name} among {columns}");
    }
}

#[test]
fn digits_are_tested_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let expected = ["val_acc", "test_acc", "██", "logs: ", "checkpoint: "];
    assert_prints(folder.path(), "digits", "fit --trainer.max_epochs 1 --trainer.accelerator cpu", &expected);

    let run = folder.path().join("lightning_logs/version_0");
    let checkpoint = files(run.join("checkpoints"), "ckpt").remove(0);
    let args = format!("test --config {}/config.yaml --ckpt_path {}", run.display(), checkpoint.display());
    assert_prints(folder.path(), "digits", &args, &["test_acc"]);
    let args = format!("predict --trainer.logger false --ckpt_path {}", checkpoint.display());
    assert_prints(folder.path(), "digits", &args, &["██"]);
}

/// By hand, on a Fabric, and on a Fabric of two processes: the losses are of one kind.
#[test]
fn a_loop_of_ones_own_runs_on_two_processes() {
    let folder = tempfile::tempdir().unwrap();
    assert_prints(folder.path(), "fabric_loop", "--plain --epochs 1", &["epoch 0: loss"]);
    let args = "--epochs 1 --accelerator cpu --devices 2";
    assert_prints(folder.path(), "fabric_loop", args, &["epoch 0: loss", "2 process(es)"]);
    assert!(folder.path().join("fabric_loop.ckpt").exists());
    let args = "fit --trainer.devices 2 --trainer.strategy ddp --trainer.max_epochs 1 --trainer.accelerator cpu";
    assert_prints(folder.path(), "digits", args, &["strategy ddp", "val_acc", "test_acc"]);
}

/// A pipe is read once, and every rank needs what came out of it.
#[cfg(unix)]
#[test]
fn a_configuration_from_a_pipe_reaches_every_rank() {
    use std::io::Write;

    let folder = tempfile::tempdir().unwrap();
    let mut program = std::env::current_exe().unwrap();
    program.pop();
    program.set_file_name("examples");
    let mut child = Command::new(program.join("digits"))
        .args(["fit", "--config", "/dev/stdin", "--trainer.accelerator", "cpu"])
        .current_dir(folder.path())
        .env("OMP_NUM_THREADS", "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let config = "trainer:\n  devices: 2\n  max_epochs: 1\nmodel:\n  dropout: 0.25\n";
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && text.contains("strategy ddp"), "{text}");
    let saved = std::fs::read_to_string(folder.path().join("lightning_logs/version_0/config.yaml")).unwrap();
    assert!(saved.contains("devices: 2") && saved.contains("dropout: 0.25"), "{saved}");
}

/// The four configurations of the talk; the machines that they were written for are not this one.
#[test]
fn the_configurations_run_or_say_what_is_missing() {
    let config = |name: &str| format!("fit --config {}/../../examples/configs/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    assert_prints(folder.path(), "digits", &config("laptop"), &["fast_dev_run", "test_acc", "██"]);
    assert_prints(folder.path(), "digits", &format!("{} --print_config", config("laptop")), &["fast_dev_run: true"]);
    for (name, expected) in [
        ("student", ["accelerator `gpu` is not usable", "on this machine"]),
        ("cluster", ["strategy `fsdp`", "cannot run here"]),
        ("tpu", ["no TPU that can be used", "strategy `xla`"]),
    ] {
        for part in expected {
            assert_fails("digits", &config(name), part);
        }
    }
}

#[test]
fn every_example_has_a_dry_run_that_leaves_nothing() {
    let gpt = format!("{TINY_GPT} --trainer.fast_dev_run");
    for (example, args) in [
        ("digits", "fit --trainer.fast_dev_run true"),
        ("gpt", &gpt),
        ("autoencoder", "--fast-dev-run"),
        ("gan", "--fast-dev-run"),
        ("vae", "--fast-dev-run"),
        ("finetune", "--fast-dev-run"),
        ("power", "--fast-dev-run"),
        ("simclr", "--fast-dev-run"),
        ("dqn", "--fast-dev-run --warm-start 64"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        assert_prints(folder.path(), example, args, &["fast_dev_run"]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{example} left something");
    }
}
