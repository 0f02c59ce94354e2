//! What is wrong is said with its place, and what was meant.

use expect_test::{Expect, expect};

use crate::program::{Folder, refused};

#[track_caller]
fn args(args: &str, expected: Expect) {
    expected.assert_eq(&refused(&args.split_whitespace().collect::<Vec<_>>()));
}

#[track_caller]
fn file(yaml: &str, expected: Expect) {
    expected.assert_eq(&Folder::with(&[("a.yaml", yaml)]).refused("fit --config @a.yaml --print_config"));
}

#[test]
fn misspelt_options_are_told_the_right_one() {
    args("fit --trainer.max_epoch 3", expect![[""]]);
    args("fit --max_epochs 3", expect![[""]]);
    args("fit --max-epochs 3", expect![[""]]);
    args("fit --modell.hidden 3", expect![[""]]);
    args("fit --model.hiden 3", expect![[""]]);
    args("fit --model.init.bond 3", expect![[""]]);
    args("fit --model.zzz 3", expect![[""]]);
    args("fit --optimizer AdamW --optimizer.weight_decai 3", expect![[""]]);
    args("fit --trainer.callbacks+=EarlyStopping --trainer.callbacks.patiense 3", expect![[""]]);
    file("trainer:\n  max_epochs: 3\n  acelerator: cpu\n", expect![[""]]);
    file("trainer:\n  callbacks:\n    - class_path: EarlyStopping\n      init_args:\n        monitr: x\n", expect![[""]]);
    file("trainer:\n  callbacks:\n    - class_path: EarlyStopping\n      monitor: x\n", expect![[""]]);
}

#[test]
fn missing_classes_are_told_the_right_one() {
    args("fit --optimizer AdmaW", expect![[""]]);
    args("fit --trainer.callbacks+=EarlyStoping", expect![[""]]);
    args("fit --lr_scheduler Zzz", expect![[""]]);
    file("trainer:\n  logger: CsvLoger\n", expect![[""]]);
    file("trainer:\n  callbacks:\n    - init_args:\n        monitor: x\n", expect![[""]]);
    file("optimizer: [AdamW]\n", expect![[""]]);
}

#[test]
fn wrong_types_name_the_place_and_the_type() {
    file("trainer:\n  max_epochs: ten\n", expect![[""]]);
    file("trainer:\n  limit_val_batches: all\n", expect![[""]]);
    file("trainer:\n  gradient_clip_algorithm: nrm\n", expect![[""]]);
    file("trainer:\n  deterministic: perhaps\n", expect![[""]]);
    file("trainer:\n  max_time: 12 hours\n", expect![[""]]);
    file("trainer:\n  devices: two\n", expect![[""]]);
    file("trainer: 3\n", expect![[""]]);
    file("model:\n  sizes: [1, two]\n", expect![[""]]);
    file("model:\n  activation: rely\n", expect![[""]]);
    file("model:\n  init:\n    bound: high\n", expect![[""]]);
    file("seed_everything: -1\n", expect![[""]]);
    file("trainer:\n  callbacks:\n    - class_path: EarlyStopping\n      init_args:\n        patience: -1\n", expect![[""]]);
    file("optimizer:\n  class_path: AdamW\n  init_args:\n    betas: [0.9]\n", expect![[""]]);
    args("fit --trainer.max_epochs 1.5 --print_config", expect![[""]]);
    args("fit --trainer.max_epochs", expect![[""]]);
    args("fit --data.batch_size=many --print_config", expect![[""]]);
}

#[test]
fn values_that_cannot_be_are_refused_before_anything_runs() {
    args("fit --trainer.max_epochs -2", expect![[""]]);
    args("fit --trainer.num_nodes 0", expect![[""]]);
    args("fit --trainer.callbacks+=Greeter --trainer.callbacks.whom=", expect![[""]]);
    args("fit --trainer.callbacks+=EarlyStopping", expect![[""]]);
    args("fit --lr_scheduler StepLR", expect![[""]]);
    args("fit --optimizer SGD --lr_scheduler ReduceLROnPlateau", expect![[""]]);
    args("fit --optimizer.lr 0.1", expect![[""]]);
    args("fit --trainer.callbacks.monitor x", expect![[""]]);
    args("fit --trainer.strategy dpp", expect![[""]]);
}

#[test]
fn what_lightning_has_and_this_version_does_not_is_one_sentence() {
    args("fit --trainer.strategy ddp", expect![[""]]);
    args("fit --trainer.strategy deepspeed_stage_2 --trainer.precision 16 --trainer.num_nodes 2", expect![[""]]);
    args("fit --trainer.devices 4 --trainer.sync_batchnorm true", expect![[""]]);
    args("fit --trainer.accelerator tpu", expect![[""]]);
    args("fit --trainer.logger WandbLogger", expect![[""]]);
}

#[test]
fn files_that_cannot_be_used() {
    args("fit --config no.yaml", expect![[""]]);
    args("fit --config", expect![[""]]);
    file("trainer:\n  max_epochs: [1\n", expect![[""]]);
    file("- trainer\n", expect![[""]]);
    file("trainer:\n  max_epochs: 1\n  max_epochs: 2\n", expect![[""]]);
    let folder = Folder::with(&[
        ("a.yaml", "include: b.yaml"),
        ("b.yaml", "include: [c.yaml]"),
        ("c.yaml", "include: a.yaml"),
        ("d.yaml", "include: 3"),
        ("e.yaml", "trainer:\n  max_epochs: 3\n"),
    ]);
    expect![[""]].assert_eq(&folder.refused("fit --config @a.yaml"));
    expect![[""]].assert_eq(&folder.refused("fit --config @d.yaml"));
    expect![[""]].assert_eq(&folder.refused("--config @e.yaml fit"));
}

#[test]
fn arguments_that_mean_nothing() {
    args("train", expect![[""]]);
    args("ft", expect![[""]]);
    args("--trainer.max_epochs 3 fit", expect![[""]]);
    args("--config a.yaml", expect![[""]]);
    args("fit 3", expect![[""]]);
    args("fit --print_config=all", expect![[""]]);
    args("completions cmd", expect![[""]]);
    args("fit --optimizr.help", expect![[""]]);
    args("fit --optimizer.help AdamX", expect![[""]]);
    args("fit --model a.yaml", expect![[""]]);
}
