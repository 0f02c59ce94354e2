//! What is said later wins.

use expect_test::{Expect, expect};

use crate::cli::program::{Folder, printed, program};

/// What is printed of a configuration without its defaults.
#[track_caller]
fn changed(folder: &Folder, args: &str, expected: Expect) {
    expected.assert_eq(&folder.printed(&format!("{args} --print_config=skip_default")));
}

fn folder() -> Folder {
    Folder::with(&[
        ("a.yaml", "trainer:\n  max_epochs: 1\n  min_epochs: 1\nmodel:\n  init:\n    bound: 1\n"),
        ("b.yaml", "trainer:\n  max_epochs: 2\nmodel:\n  init:\n    bias: true\n  sizes: [1, 2]\n"),
        ("c.yaml", "include: [a.yaml, b.yaml]\ntrainer:\n  min_epochs: 2\n"),
        ("trainer.yaml", "max_epochs: 7\nmax_time: 00:01:00:00\n"),
        ("sections.yaml", "fit:\n  trainer:\n    max_epochs: 8\ntest:\n  verbose: false\n"),
        (
            "callbacks.yaml",
            "trainer:\n  callbacks:\n    - Timer\n    - class_path: lightning.pytorch.callbacks.EarlyStopping\n      init_args:\n        monitor: val_loss\n",
        ),
    ])
}

#[test]
fn files_are_merged_and_arguments_go_from_left_to_right() {
    let folder = folder();
    changed(
        &folder,
        "fit --config @a.yaml --config @b.yaml",
        expect![[r#"
        trainer:
          max_epochs: 2
          min_epochs: 1
        model:
          sizes: [1, 2]
          init:
            bound: 1
            bias: true
    "#]],
    );
    changed(
        &folder,
        "fit --config @b.yaml --config @a.yaml",
        expect![[r#"
        trainer:
          max_epochs: 1
          min_epochs: 1
        model:
          sizes: [1, 2]
          init:
            bound: 1
            bias: true
    "#]],
    );
    changed(
        &folder,
        "fit --config @c.yaml",
        expect![[r#"
        trainer:
          max_epochs: 2
          min_epochs: 2
        model:
          sizes: [1, 2]
          init:
            bound: 1
            bias: true
    "#]],
    );
    changed(
        &folder,
        "fit --trainer.max_epochs 5 --config @a.yaml",
        expect![[r#"
        trainer:
          max_epochs: 1
          min_epochs: 1
        model:
          init:
            bound: 1
    "#]],
    );
    changed(
        &folder,
        "fit --config=@a.yaml --trainer.max_epochs=5 --trainer.min_epochs=null",
        expect![[r#"
        trainer:
          max_epochs: 5
        model:
          init:
            bound: 1
    "#]],
    );
    changed(
        &folder,
        "fit --trainer @trainer.yaml",
        expect![[r#"
        trainer:
          max_epochs: 7
          max_time: "00:01:00:00"
    "#]],
    );
    changed(
        &folder,
        "--config @sections.yaml fit",
        expect![[r#"
        trainer:
          max_epochs: 8
    "#]],
    );
    changed(
        &folder,
        "--config @sections.yaml test",
        expect![[r#"
        verbose: false
    "#]],
    );
}

#[test]
fn every_source_has_its_place() {
    let folder = folder();
    let config = folder.path().join("a.yaml").display().to_string();
    let env = |variables: &[(&str, &str)]| {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        program().defaults("trainer:\n  max_epochs: 10\n  min_steps: 4\n").env(variables)
    };
    let max_epochs = |cli, args: &str| {
        let (text, _) = folder.answer(cli, &format!("fit {args} --print_config"));
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().trim().to_owned();
        format!("{} {} {}", line("max_epochs"), line("min_epochs"), line("min_steps"))
    };
    let variable = ("PL_FIT__TRAINER__MAX_EPOCHS", "6");
    let mut seen = vec![
        max_epochs(env(&[]), ""),
        max_epochs(env(&[("PL_CONFIG", &config)]), ""),
        max_epochs(env(&[("PL_FIT__CONFIG", &config), variable]), ""),
        max_epochs(env(&[("PL_CONFIG", &config), variable]), "--config @b.yaml"),
        max_epochs(env(&[("PL_CONFIG", &config), variable]), "--config @b.yaml --trainer.max_epochs 9"),
        max_epochs(env(&[("PL_TEST__TRAINER__MAX_EPOCHS", "6")]), ""),
    ];
    seen.push(max_epochs(env(&[]), "--trainer.min_steps null"));
    expect![[r#"
        max_epochs: 10 min_epochs: null min_steps: 4
        max_epochs: 1 min_epochs: 1 min_steps: 4
        max_epochs: 6 min_epochs: 1 min_steps: 4
        max_epochs: 2 min_epochs: 1 min_steps: 4
        max_epochs: 9 min_epochs: 1 min_steps: 4
        max_epochs: 10 min_epochs: null min_steps: 4
        max_epochs: 10 min_epochs: null min_steps: null"#]]
    .assert_eq(&seen.join("\n"));

    let (text, _) = folder.answer(env(&[("PL_FIT__TRAINER__MAX_EPOCH", "6")]), "fit");
    expect![[r#"
        error: environment variable PL_FIT__TRAINER__MAX_EPOCH: there is no option `trainer.max_epoch`; did you mean `trainer.max_epochs`?
    "#]].assert_eq(&text);
    let variables = env(&[("PL_FIT__LR_SCHEDULER", "CosineAnnealingLR"), ("PL_FIT__LR_SCHEDULER__T_MAX", "6")]);
    let (text, _) = folder.answer(variables, "fit --print_config=skip_default");
    expect![[r#"
        trainer:
          max_epochs: 10
          min_steps: 4
        lr_scheduler:
          class_path: CosineAnnealingLR
          init_args:
            T_max: 6
    "#]]
    .assert_eq(&text);
}

#[test]
fn classes_are_named_changed_and_added() {
    let folder = folder();
    changed(
        &folder,
        "fit --config @callbacks.yaml --trainer.callbacks.patience 5",
        expect![[r#"
        trainer:
          callbacks:
          - class_path: Timer
            init_args: {}
          - class_path: EarlyStopping
            init_args:
              monitor: val_loss
              patience: 5
    "#]],
    );
    changed(
        &folder,
        "fit --config @callbacks.yaml --trainer.callbacks.Timer.interval epoch",
        expect![[r#"
        trainer:
          callbacks:
          - class_path: Timer
            init_args:
              interval: epoch
          - class_path: EarlyStopping
            init_args:
              monitor: val_loss
    "#]],
    );
    changed(
        &folder,
        "fit --config @callbacks.yaml --trainer.callbacks Timer",
        expect![[r#"
        trainer:
          callbacks:
          - class_path: Timer
            init_args: {}
    "#]],
    );
    changed(
        &folder,
        "fit --trainer.callbacks+=Timer --trainer.callbacks+=LearningRateMonitor",
        expect![[r#"
        trainer:
          callbacks:
          - class_path: Timer
            init_args: {}
          - class_path: LearningRateMonitor
            init_args: {}
    "#]],
    );
    changed(
        &folder,
        "fit --trainer.logger CSVLogger --trainer.logger.name x",
        expect![[r#"
        trainer:
          logger:
          - class_path: CsvLogger
            init_args:
              name: x
    "#]],
    );
    changed(
        &folder,
        "fit --trainer.logger false",
        expect![[r#"
        trainer:
          logger: false
    "#]],
    );
    changed(
        &folder,
        "fit --optimizer SGD --optimizer.lr 1e-2 --optimizer AdamW --optimizer.betas [0.5,0.9] --optimizer AdamW",
        expect![[r#"
            optimizer:
              class_path: AdamW
              init_args:
                betas: [0.5, 0.9]
        "#]],
    );
    changed(
        &folder,
        "fit --optimizer SGD --lr_scheduler CosineAnnealingLR --lr_scheduler.T_max 10 --lr_scheduler.interval step",
        expect![[r#"
            optimizer:
              class_path: SGD
              init_args: {}
            lr_scheduler:
              class_path: CosineAnnealingLR
              init_args:
                T_max: 10
              interval: step
        "#]],
    );
    changed(
        &folder,
        "fit --optimizer {\"class_path\":\"SGD\",\"init_args\":{\"lr\":1}}",
        expect![[r#"
        optimizer:
          class_path: SGD
          init_args:
            lr: 1
    "#]],
    );
}

#[test]
fn values_are_read_as_their_options_want_them() {
    changed(
        &folder(),
        "fit --model.name 16 --model.sizes [1,2] --model.sizes+=3 --model.init {\"bound\":2}",
        expect![[r#"
            model:
              name: "16"
              sizes: [1, 2, 3]
              init:
                bound: 2
        "#]],
    );
    changed(
        &folder(),
        "fit --model.name null --trainer.precision 64 --trainer.devices 0, --trainer.accelerator cpu",
        expect![[r#"
            trainer:
              accelerator: cpu
              devices: "0,"
              precision: "64"
        "#]],
    );
    changed(
        &folder(),
        "fit --trainer.fast_dev_run --trainer.deterministic warn --trainer.detect_anomaly",
        expect![[r#"
            trainer:
              fast_dev_run: true
              deterministic: warn
              detect_anomaly: true
        "#]],
    );
    changed(
        &folder(),
        "fit --trainer.limit_train_batches 0.5 --trainer.limit_val_batches 10 --trainer.limit_test_batches 1.0",
        expect![[r#"
            trainer:
              limit_train_batches: 0.5
              limit_val_batches: 10
        "#]],
    );
    changed(
        &folder(),
        "fit --trainer.val_check_interval 00:01:00:00 --trainer.max_epochs -1",
        expect![[r#"
        trainer:
          max_epochs: -1
          val_check_interval: "00:01:00:00"
    "#]],
    );
}

/// Lightning writes `null` for what it decides later.
#[test]
fn null_is_the_default_where_there_is_no_null() {
    let folder = Folder::with(&[(
        "a.yaml",
        "trainer:\n  limit_train_batches: null\n  num_sanity_val_steps: null\n  strategy: null\n",
    )]);
    changed(
        &folder,
        "fit --config @a.yaml",
        expect![[r#"
        {}
    "#]],
    );
}

/// A file that `LightningCLI` of Lightning 2.6.6 printed.
#[test]
fn lightnings_own_file_is_read() {
    let folder = Folder::with(&[("a.yaml", include_str!("../../golden/lightning_cli.yaml"))]);
    changed(
        &folder,
        "fit --config @a.yaml",
        expect![[r#"
            trainer:
              overfit_batches: 0.0
              callbacks:
              - class_path: EarlyStopping
                init_args:
                  monitor: val_loss
              logger:
              - class_path: CsvLogger
                init_args:
                  save_dir: logs
              plugins: null
              model_registry: null
            optimizer:
              class_path: AdamW
              init_args: {}
            lr_scheduler:
              class_path: ReduceLROnPlateau
              init_args: {}
              monitor: val_loss
        "#]],
    );
}

#[test]
fn a_strategy_has_a_name_or_options() {
    changed(
        &folder(),
        "fit --trainer.strategy ddp",
        expect![[r#"
        trainer:
          strategy: ddp
    "#]],
    );
    changed(
        &folder(),
        "fit --trainer.strategy ddp --trainer.strategy.static_graph true --trainer.strategy.timeout 0:00:30",
        expect![[r#"
            trainer:
              strategy:
                class_path: DdpStrategy
                init_args:
                  static_graph: true
                  timeout: "0:00:30"
        "#]],
    );
    changed(
        &folder(),
        "fit --trainer.strategy ddp_find_unused_parameters_true --trainer.strategy.bucket_cap_mb 5",
        expect![[r#"
            trainer:
              strategy:
                class_path: DdpStrategy
                init_args:
                  find_unused_parameters: true
                  bucket_cap_mb: 5
        "#]],
    );
    changed(
        &folder(),
        "fit --trainer.strategy DdpStrategy --trainer.strategy.static_graph true --trainer.strategy auto",
        expect![[r#"
            {}
        "#]],
    );
    let hook = "torch.distributed.algorithms.ddp_comm_hooks.default_hooks.bf16_compress_hook";
    let yaml = format!(
        "trainer:\n  strategy:\n    class_path: lightning.pytorch.strategies.DDPStrategy\n    init_args:\n      ddp_comm_hook: {hook}\n"
    );
    let folder = Folder::with(&[("a.yaml", &yaml)]);
    changed(
        &folder,
        "fit -c @a.yaml --trainer.strategy.gradient_as_bucket_view true",
        expect![[r#"
        trainer:
          strategy:
            class_path: DdpStrategy
            init_args:
              gradient_as_bucket_view: true
              ddp_comm_hook: torch.distributed.algorithms.ddp_comm_hooks.default_hooks.bf16_compress_hook
    "#]],
    );
}

/// What `LightningCLI` of Lightning 2.6.6 prints of `--trainer.strategy DDPStrategy`.
#[test]
fn lightnings_own_strategy_is_read() {
    let folder = Folder::with(&[("a.yaml", include_str!("../../golden/lightning_ddp.yaml"))]);
    changed(
        &folder,
        "fit --config @a.yaml",
        expect![[r#"
        trainer:
          strategy:
            class_path: DdpStrategy
            init_args:
              find_unused_parameters: true
    "#]],
    );
}

#[test]
fn a_linked_option_follows() {
    let linked = || program().link("data.batch_size", "model.hidden");
    let folder = folder();
    let (text, _) = folder.answer(linked(), "fit --data.batch_size 5 --print_config=skip_default");
    expect![[r#"
        model:
          hidden: 5
        data:
          batch_size: 5
    "#]]
    .assert_eq(&text);
    let (text, _) = folder.answer(linked(), "fit --model.hidden 5");
    expect![[r#"
        error: --model.hidden: `model.hidden` follows `data.batch_size`; set that instead
    "#]]
    .assert_eq(&text);
}

#[test]
fn what_is_printed_can_be_read_again() {
    for args in [
        "fit",
        "fit --trainer.max_time 01:02:03:04 --trainer.callbacks+=ModelCheckpoint --trainer.callbacks.save_last link",
        "fit --model.name yes --model.sizes [1,2] --trainer.logger+=CsvLogger --trainer.gradient_clip_val 1e-7",
        "test --optimizer Adafactor --lr_scheduler OneCycleLR --lr_scheduler.max_lr 0.1",
    ] {
        for flags in ["", "=comments", "=skip_null", "=comments,skip_default"] {
            let first = printed(&format!("{args} --print_config{flags}"));
            let folder = Folder::with(&[("a.yaml", &first)]);
            let subcommand = args.split(' ').next().unwrap();
            let again = folder.printed(&format!("{subcommand} --config @a.yaml --print_config{flags}"));
            assert_eq!(first, again);
        }
    }
}
