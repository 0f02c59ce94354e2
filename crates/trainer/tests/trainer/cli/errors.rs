//! What is wrong is said with its place, and what was meant.

use expect_test::{Expect, expect};

use crate::cli::program::{Folder, refused};

#[track_caller]
fn args(args: &str, expected: Expect) {
    expected.assert_eq(&refused(&args.split_whitespace().collect::<Vec<_>>()));
}

#[track_caller]
fn file(yaml: &str, expected: Expect) {
    expected.assert_eq(&Folder::with(&[("a.yaml", yaml)]).refused("fit --config @a.yaml --print_config"));
}

#[test]
fn errors_for_misspelled_options_suggest_the_right_one() {
    args(
        "fit --trainer.max_epoch 3",
        expect![[r#"
        error: --trainer.max_epoch: there is no option `trainer.max_epoch`; did you mean `trainer.max_epochs`?
    "#]],
    );
    args(
        "fit --max_epochs 3",
        expect![[r#"
        error: --max_epochs: there is no option `max_epochs`; did you mean `trainer.max_epochs`?
    "#]],
    );
    args(
        "fit --max-epochs 3",
        expect![[r#"
        error: --max-epochs: there is no option `max-epochs`; did you mean `trainer.max_epochs`?
    "#]],
    );
    args(
        "fit --confg a.yaml",
        expect![[r#"
        error: --confg: there is no option `confg`; did you mean `--config`?
    "#]],
    );
    args(
        "fit --modell.hidden 3",
        expect![[r#"
        error: --modell.hidden: there is no option `modell`; did you mean `model`?
    "#]],
    );
    args(
        "fit --model.hiden 3",
        expect![[r#"
        error: --model.hiden: there is no option `model.hiden`; did you mean `model.hidden`?
    "#]],
    );
    args(
        "fit --model.init.bond 3",
        expect![[r#"
        error: --model.init.bond: there is no option `model.init.bond`; did you mean `model.init.bound`?
    "#]],
    );
    args(
        "fit --model.zzz 3",
        expect![[r#"
        error: --model.zzz: there is no option `model.zzz`; `model` has hidden, name, activation, sizes, init
    "#]],
    );
    args(
        "fit --optimizer AdamW --optimizer.weight_decai 3",
        expect![[r#"
        error: --optimizer.weight_decai: there is no option `AdamW.weight_decai`; did you mean `AdamW.weight_decay`?
    "#]],
    );
    args(
        "fit --trainer.callbacks+=EarlyStopping --trainer.callbacks.patiense 3",
        expect![[r#"
        error: --trainer.callbacks.patiense: there is no option `EarlyStopping.patiense`; did you mean `EarlyStopping.patience`?
    "#]],
    );
    file(
        "trainer:\n  max_epochs: 3\n  acelerator: cpu\n",
        expect![[r#"
        error: @a.yaml:3: there is no option `trainer.acelerator`; did you mean `trainer.accelerator`?
    "#]],
    );
    file(
        "trainer:\n  callbacks:\n    - class_path: EarlyStopping\n      init_args:\n        monitr: x\n",
        expect![[r#"
        error: @a.yaml:5: there is no option `EarlyStopping.monitr`; did you mean `EarlyStopping.monitor`?
    "#]],
    );
    file(
        "trainer:\n  callbacks:\n    - class_path: EarlyStopping\n      monitor: x\n",
        expect![[r#"
        error: @a.yaml:4: there is no option `trainer.callbacks.monitor`; `trainer.callbacks` has class_path, init_args
    "#]],
    );
}

#[test]
fn errors_for_unknown_classes_suggest_the_right_one() {
    args(
        "fit --optimizer AdmaW",
        expect![[r#"
        error: --optimizer: there is no optimizer `AdmaW`; did you mean `AdamW`?
    "#]],
    );
    args(
        "fit --trainer.callbacks+=EarlyStoping",
        expect![[r#"
        error: --trainer.callbacks: there is no callback `EarlyStoping`; did you mean `EarlyStopping`?
    "#]],
    );
    args(
        "fit --lr_scheduler Zzz",
        expect![[r#"
            error: --lr_scheduler: there is no lr_scheduler `Zzz`; there are StepLR, MultiStepLR, ConstantLR, LinearLR, ExponentialLR, PolynomialLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, LinearWarmupCosineAnnealingLR, CyclicLR, OneCycleLR, ReduceLROnPlateau
        "#]],
    );
    file(
        "trainer:\n  logger: CsvLoger\n",
        expect![[r#"
        error: @a.yaml:2: there is no logger `CsvLoger`; did you mean `CsvLogger`?
    "#]],
    );
    file(
        "trainer:\n  callbacks:\n    - init_args:\n        monitor: x\n",
        expect![[r#"
        error: @a.yaml:3: `trainer.callbacks` needs `class_path`, the name of a class
    "#]],
    );
    file(
        "optimizer: [AdamW]\n",
        expect![[r#"
        error: @a.yaml:1: `optimizer` takes the name of a class, or `class_path` and `init_args`, not the list `["AdamW"]`
    "#]],
    );
}

#[test]
fn wrong_types_name_the_place_and_the_type() {
    file(
        "trainer:\n  max_epochs: ten\n",
        expect![[r#"
        error: @a.yaml:2: `trainer.max_epochs` takes int|null, not the text `ten`
    "#]],
    );
    file(
        "trainer:\n  limit_val_batches: all\n",
        expect![[r#"
        error: @a.yaml:2: `trainer.limit_val_batches` takes int|float, not the text `all`
    "#]],
    );
    file(
        "trainer:\n  gradient_clip_algorithm: nrm\n",
        expect![[r#"
            error: @a.yaml:2: `trainer.gradient_clip_algorithm` takes norm|value, not the text `nrm`; did you mean `norm`?
        "#]],
    );
    file(
        "trainer:\n  deterministic: perhaps\n",
        expect![[r#"
            error: @a.yaml:2: `trainer.deterministic` takes bool|warn, not the text `perhaps`
        "#]],
    );
    file(
        "trainer:\n  max_time: 12 hours\n",
        expect![[r#"
        error: @a.yaml:2: `trainer.max_time` cannot be the text `12 hours`: `12 hours` is not a time; write DD:HH:MM:SS, such as 00:12:00:00 for twelve hours
    "#]],
    );
    file(
        "trainer:\n  devices: two\n",
        expect![[r#"
        error: @a.yaml:2: `trainer.devices` cannot be the text `two`: devices="two" is not a device list; write a count (1), a list of indices ("0," or "0,1"), -1 or "auto"
    "#]],
    );
    file(
        "trainer: 3\n",
        expect![[r#"
        error: @a.yaml:1: `trainer` takes options by name, not `3`
    "#]],
    );
    file(
        "model:\n  sizes: [1, two]\n",
        expect![[r#"
            error: @a.yaml:2: `model.sizes.1` takes int, not the text `two`
        "#]],
    );
    file(
        "model:\n  activation: rely\n",
        expect![[r#"
        error: @a.yaml:2: `model.activation` takes relu|tanh, not the text `rely`; did you mean `relu`?
    "#]],
    );
    file(
        "model:\n  init:\n    bound: high\n",
        expect![[r#"
        error: @a.yaml:3: `model.init.bound` takes float, not the text `high`
    "#]],
    );
    file(
        "seed_everything: -1\n",
        expect![[r#"
            error: @a.yaml:1: `seed_everything` takes bool|int, not `-1`
        "#]],
    );
    file(
        "trainer:\n  callbacks:\n    - class_path: EarlyStopping\n      init_args:\n        patience: -1\n",
        expect![[r#"
            error: @a.yaml:5: `EarlyStopping.patience` is 0 or more, not `-1`
        "#]],
    );
    file(
        "optimizer:\n  class_path: AdamW\n  init_args:\n    betas: [0.9]\n",
        expect![[r#"
        error: @a.yaml:4: `AdamW.betas` takes [float, float], not the list `[0.9]`
    "#]],
    );
    args(
        "fit --trainer.max_epochs 1.5 --print_config",
        expect![[r#"
        error: --trainer.max_epochs: `trainer.max_epochs` takes int|null, not `1.5`
    "#]],
    );
    args(
        "fit --trainer.max_epochs",
        expect![[r#"
        error: --trainer.max_epochs needs a value: `trainer.max_epochs` takes int|null
    "#]],
    );
    args(
        "fit --data.batch_size=many --print_config",
        expect![[r#"
        error: --data.batch_size: `data.batch_size` takes int, not the text `many`
    "#]],
    );
}

#[test]
fn values_that_cannot_be_are_refused_before_anything_runs() {
    args(
        "fit --trainer.max_epochs -2",
        expect![[r#"
            error: --trainer.max_epochs: `trainer.max_epochs` cannot be `-2`: -2 is below -1; write 0 or more, or -1 for no limit
        "#]],
    );
    args(
        "fit --trainer.callbacks+=ModelCheckpoint --trainer.callbacks.save_top_k=-2",
        expect![[r#"
            error: --trainer.callbacks.save_top_k: `ModelCheckpoint.save_top_k` cannot be `-2`: -2 is below -1; write 0 or more, or -1 for no limit
        "#]],
    );
    args(
        "fit --trainer.devices -2",
        expect![[r#"
            error: --trainer.devices: `trainer.devices` cannot be `-2`: devices="-2" is not a device list; write a count (1), a list of indices ("0," or "0,1"), -1 or "auto"
        "#]],
    );
    args(
        "fit --trainer.num_nodes 0",
        expect![[r#"
        error: num_nodes=0 means no machine; write 1
    "#]],
    );
    args(
        "fit --trainer.callbacks+=Greeter --trainer.callbacks.whom=",
        expect![[r#"
        error: --trainer.callbacks: Greeter needs a name to greet
    "#]],
    );
    args(
        "fit --trainer.callbacks+=EarlyStopping",
        expect![[r#"
        error: --trainer.callbacks: EarlyStopping needs `monitor`, the name of a logged value
    "#]],
    );
    args(
        "fit --lr_scheduler StepLR",
        expect![[r#"
        error: --lr_scheduler: `lr_scheduler` schedules the optimizer that is named beside it; name one with --optimizer
    "#]],
    );
    args(
        "fit --optimizer SGD --lr_scheduler ReduceLROnPlateau",
        expect![[r#"
        error: --lr_scheduler: ReduceLROnPlateau needs `lr_scheduler.monitor`, the name of a logged value
    "#]],
    );
    args(
        "fit --optimizer.lr 0.1",
        expect![[r#"
        error: --optimizer.lr belongs to no optimizer; name it before, with --optimizer CLASS
    "#]],
    );
    args(
        "fit --trainer.callbacks.monitor x",
        expect![[r#"
        error: --trainer.callbacks.monitor belongs to no callback; name it before, with --trainer.callbacks+=CLASS
    "#]],
    );
    args(
        "fit --trainer.strategy dpp",
        expect![[r#"
            error: unknown strategy `dpp`; choose one of auto, single_device, ddp, ddp_find_unused_parameters_false, ddp_find_unused_parameters_true
        "#]],
    );
}

#[test]
fn options_of_strategies_that_cannot_be() {
    args(
        "fit --trainer.strategy ddp --trainer.strategy.static_grph true",
        expect![[r#"
        error: --trainer.strategy.static_grph: there is no option `DdpStrategy.static_grph`; did you mean `DdpStrategy.static_graph`?
    "#]],
    );
    args(
        "fit --trainer.strategy ddp --trainer.strategy.bucket_cap_mb many",
        expect![[r#"
        error: --trainer.strategy.bucket_cap_mb: `DdpStrategy.bucket_cap_mb` takes float, not the text `many`
    "#]],
    );
    args(
        "fit --trainer.strategy ddp --trainer.strategy.timeout 30",
        expect![[r#"
        error: --trainer.strategy.timeout: `DdpStrategy.timeout` cannot be the text `30`: timeout "30" is not a positive duration; write hours:minutes:seconds, such as 0:30:00
    "#]],
    );
    args(
        "fit --trainer.strategy ddp --trainer.strategy.ddp_comm_hook powerSGD_hook",
        expect![[r#"
        error: --trainer.strategy.ddp_comm_hook: `DdpStrategy.ddp_comm_hook` cannot be the text `powerSGD_hook`: ddp_comm_hook "powerSGD_hook" is neither fp16_compress_hook nor bf16_compress_hook
    "#]],
    );
    args(
        "fit --trainer.strategy.static_graph true",
        expect![[r#"
        error: --trainer.strategy.static_graph belongs to no strategy; name it before, with --trainer.strategy CLASS
    "#]],
    );
    args(
        "fit --trainer.strategy DDPStrateg",
        expect![[r#"
        error: unknown strategy `DDPStrateg`; did you mean `ddp`?
    "#]],
    );
    args(
        "fit --trainer.strategy SingleDeviceStrategy",
        expect![[r#"
        error: --trainer.strategy: there is no strategy `SingleDeviceStrategy`; did you mean `single_device`?
    "#]],
    );
    args(
        "fit --trainer.strategy FSDPStrategy",
        expect![[r#"
        error: this configuration cannot run here: this version does not support strategy `FSDPStrategy` yet
    "#]],
    );
    args(
        "fit --trainer.strategy 3",
        expect![[r#"
        error: --trainer.strategy: `trainer.strategy` takes the name of a class, or `class_path` and `init_args`, not `3`
    "#]],
    );
}

#[test]
fn what_lightning_has_and_this_version_does_not_is_one_sentence() {
    args(
        "fit --trainer.strategy fsdp",
        expect![[r#"
            error: this configuration cannot run here: this version does not support strategy `fsdp` yet
        "#]],
    );
    args(
        "fit --trainer.strategy deepspeed_stage_2 --trainer.precision transformer-engine --trainer.num_nodes 2",
        expect![[r#"
            error: this configuration cannot run here: this version does not support strategy `deepspeed_stage_2` and precision `transformer-engine` yet
        "#]],
    );
    args(
        "fit --trainer.accelerator tpu",
        expect![[r#"
        error: this configuration cannot run here: this machine has no TPU that can be used
    "#]],
    );
    args(
        "fit --trainer.logger LitLogger",
        expect![[r#"
            error: this configuration cannot run here: this version does not support logger `LitLogger` yet
        "#]],
    );
}

/// Names of Lightning, which are not typos.
#[test]
fn names_that_lightning_once_had() {
    args(
        "fit --trainer.accelerator ipu",
        expect![[r#"
            error: accelerator `ipu` no longer exists: IPUs left Lightning for the package lightning-graphcore; write `cpu`, `cuda` or `mps`
        "#]],
    );
    args(
        "fit --trainer.accelerator ddp",
        expect![[r#"
            error: accelerator `ddp` no longer exists: since Lightning 1.7 the accelerator is a kind of device only; write the name as `strategy`, and `cpu` or `gpu` here
        "#]],
    );
    args(
        "fit --trainer.strategy horovod",
        expect![[r#"
            error: strategy `horovod` no longer exists: Lightning 2.0 removed Horovod; write `ddp`
        "#]],
    );
    args(
        "fit --trainer.strategy ColossalAIStrategy",
        expect![[r#"
            error: --trainer.strategy: strategy `ColossalAIStrategy` no longer exists: Lightning 2.0 moved ColossalAI to the package lightning-colossalai; write `ddp` for a model that fits on a device
        "#]],
    );
    args(
        "fit --trainer.plugins ApexMixedPrecisionPlugin",
        expect![[r#"
            error: --trainer.plugins: plugin `ApexMixedPrecisionPlugin` no longer exists: Lightning 2.0 replaced it by the argument `precision`; write `16-mixed` or `bf16-mixed` there
        "#]],
    );
    args(
        "fit --trainer.gpus 2",
        expect![[r#"
            error: --trainer.gpus: `trainer.gpus` no longer exists: Lightning 2.0 removed it; write `accelerator: gpu` and how many as `devices`
        "#]],
    );
    file(
        "trainer:\n  strategy: bagua\n  amp_level: O2\n",
        expect![[r#"
            error: @a.yaml:3: `trainer.amp_level` no longer exists: Lightning 2.0 removed Apex; write `16-mixed` or `bf16-mixed` as `precision`
        "#]],
    );
    file(
        "trainer:\n  logger: lightning.pytorch.loggers.NeptuneLogger\n",
        expect![[r#"
            error: @a.yaml:2: logger `NeptuneLogger` no longer exists: its service ended on 2026-03-05, and Lightning removed the logger; write `WandbLogger`, `MLFlowLogger`, `CometLogger` or `TrackioLogger`
        "#]],
    );
    file(
        "trainer:\n  callbacks:\n    - class_path: pytorch_lightning.callbacks.GPUStatsMonitor\n",
        expect![[r#"
            error: @a.yaml:3: callback `GPUStatsMonitor` no longer exists: Lightning 1.7 removed it; write `DeviceStatsMonitor`
        "#]],
    );
}

#[test]
fn files_that_cannot_be_used() {
    args(
        "fit --config no.yaml",
        expect![[r#"
        error: the configuration file no.yaml cannot be read: there is no such file
    "#]],
    );
    args(
        "fit --config",
        expect![[r#"
        error: --config needs the name of a file
    "#]],
    );
    file(
        "trainer:\n  max_epochs: [1\n",
        expect![[r#"
        error: @a.yaml:2: this is not YAML: unclosed bracket '['
    "#]],
    );
    file(
        "- trainer\n",
        expect![[r#"
        error: @a.yaml:1: a configuration file is a mapping, such as `trainer:` and its options
    "#]],
    );
    file(
        "trainer:\n  max_epochs: 1\n  max_epochs: 2\n",
        expect![[r#"
        error: @a.yaml:3: this is not YAML: duplicate mapping key: max_epochs; leave one of the two out
    "#]],
    );
    let folder = Folder::with(&[
        ("a.yaml", "include: b.yaml"),
        ("b.yaml", "include: [c.yaml]"),
        ("c.yaml", "include: a.yaml"),
        ("d.yaml", "include: 3"),
        ("e.yaml", "trainer:\n  max_epochs: 3\n"),
    ]);
    expect![[r#"
        error: these configuration files include each other: a.yaml -> b.yaml -> c.yaml -> a.yaml; leave one `include` out
    "#]].assert_eq(&folder.refused("fit --config @a.yaml"));
    expect![[r#"
        error: @d.yaml:1: `include` names files; write one, or a list of them
    "#]]
    .assert_eq(&folder.refused("fit --config @d.yaml"));
    expect![[r#"
        error: @e.yaml:2: a file before the subcommand has sections fit, validate, test, predict, tune and sweep, not `trainer`; give it after the subcommand, or put its content under `fit`
    "#]].assert_eq(&folder.refused("--config @e.yaml fit"));
}

#[test]
fn arguments_that_mean_nothing() {
    args(
        "train",
        expect![[r#"
            error: there is no subcommand `train`; there are fit, validate, test, predict, tune, sweep, completions
        "#]],
    );
    args(
        "ft",
        expect![[r#"
            error: there is no subcommand `ft`; there are fit, validate, test, predict, tune, sweep, completions
        "#]],
    );
    args(
        "--trainer.max_epochs 3 fit",
        expect![[r#"
            error: --trainer.max_epochs comes before the subcommand; write one of fit, validate, test, predict, tune, sweep, completions first
        "#]],
    );
    args(
        "--config a.yaml",
        expect![[r#"
            error: write one of fit, validate, test, predict, tune, sweep, completions first
        "#]],
    );
    args(
        "fit 3",
        expect![[r#"
        error: `3` is not an option; write --name value or --name=value
    "#]],
    );
    args(
        "test --resume",
        expect![[r#"
        error: --resume is of fit; write --ckpt_path, with a file, a run folder or `auto`
    "#]],
    );
    args(
        "fit --print_config=all",
        expect![[r#"
        error: --print_config takes comments, skip_default, skip_null, not `all`
    "#]],
    );
    args(
        "completions cmd",
        expect![[r#"
        error: completions are available for bash, zsh, fish, elvish, powershell, not for `cmd`
    "#]],
    );
    args(
        "fit --optimizr.help",
        expect![[r#"
        error: --optimizr.help: `optimizr` does not name a class; did you mean `optimizer`?
    "#]],
    );
    args(
        "fit --optimizer.help AdamX",
        expect![[r#"
        error: --optimizer.help: there is no optimizer `AdamX`; did you mean `Adamax`?
    "#]],
    );
    args(
        "fit --model a.yaml",
        expect![[r#"
        error: the configuration file a.yaml cannot be read: there is no such file
    "#]],
    );
}
