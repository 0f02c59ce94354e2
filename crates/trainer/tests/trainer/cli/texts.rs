//! Help, printed configurations and completion scripts.

use expect_test::{expect, expect_file};

use crate::cli::program::printed;

#[test]
fn help_shows_every_option() {
    expect_file!["../../golden/cli_help.txt"].assert_eq(&printed("--help"));
    // The feature `trackers` is on where the tests of the workspace are built.
    expect_file!["../../golden/cli_fit_help.txt"]
        .assert_eq(&printed("fit --help").replace(", CometLogger, MLFlowLogger, TrackioLogger, WandbLogger", ""));
    assert!(printed("test --help").contains("--verbose <bool>"));
    assert!(!printed("fit --help").contains("--verbose <bool>"));
    assert_eq!(printed(""), printed("--help"));
}

#[test]
fn classes_explain_their_options() {
    expect![[r#"
        callback `EarlyStopping`

          --trainer.callbacks.monitor <str>
                  The name of the metric to monitor. [default: ""]

          --trainer.callbacks.min_delta <float>
                  The minimum change that counts as an improvement; the change must be greater than this. [default: 0.0]

          --trainer.callbacks.patience <int>
                  Checks (not epochs) without improvement after which the run ends. [default: 3]

          --trainer.callbacks.mode <min|max>
                  Whether a lower or a higher value is better. [default: min]

          --trainer.callbacks.strict <bool>
                  Whether a missing value is an error, or the check is skipped. [default: true]

          --trainer.callbacks.check_finite <bool>
                  Whether NaN and infinity end the run. [default: true]

          --trainer.callbacks.stopping_threshold <float|null>
                  Ends the run as soon as the value is better than this. [default: null]

          --trainer.callbacks.divergence_threshold <float|null>
                  Ends the run as soon as the value is worse than this. [default: null]

          --trainer.callbacks.check_on_train_epoch_end <bool|null>
                  Whether to check at the end of the training epoch or at the end of validation. [default: null]

          --trainer.callbacks.verbose <bool>
                  Prints a line for each improvement and for the end. [default: false]
    "#]]
    .assert_eq(&printed("fit --trainer.callbacks.help EarlyStopping"));
    expect![[r#"
        lr_scheduler `StepLR`

          --lr_scheduler.step_size <int|null>
                  Period of the decay, in epochs (or steps); required. [default: null]

          --lr_scheduler.gamma <float>
                  Multiplicative factor of learning rate decay. [default: 0.1]

          --lr_scheduler.interval <epoch|step>
                  When it is stepped [default: epoch]

          --lr_scheduler.frequency <int>
                  The number of intervals between its steps [default: 1]

          --lr_scheduler.monitor <str|null>
                  The logged value it monitors [default: null]
    "#]]
    .assert_eq(&printed("fit --lr_scheduler.help StepLR"));
    expect![[r#"
        callbacks:
          BackboneFinetuning
          BatchSizeFinder
          DeviceStatsMonitor
          EMAWeightAveraging
          EarlyStopping
          GradientAccumulationScheduler
          GradientNorm
          LearningRateFinder
          LearningRateMonitor
          ModelCheckpoint
          ModelPruning
          ModelSummary
          OnExceptionCheckpoint
          ProgressBar
          SpikeDetection
          StochasticWeightAveraging
          TerminateOnNaN
          ThroughputMonitor
          Timer
          WeightAveraging
          Greeter
        --trainer.callbacks.help CLASS shows the options of one.
    "#]]
    .assert_eq(&printed("fit --trainer.callbacks.help"));
    assert!(printed("fit --optimizer.help AdamW").contains("--optimizer.betas <[float, float]>"));
}

#[test]
fn a_configuration_is_printed_with_comments() {
    let text = printed("fit --print_config=comments --optimizer SGD");
    expect_file!["../../golden/cli_config.yaml"].assert_eq(&text);
}

#[test]
fn shells_complete_options_and_choices() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&format!("completions {shell}"));
        for word in ["trainer.max_epochs", "model.init.bound", "gradient_clip_algorithm", "AdamW", "predict"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
    }
}
