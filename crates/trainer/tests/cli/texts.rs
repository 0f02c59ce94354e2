//! Help, printed configurations and completion scripts.

use expect_test::{expect, expect_file};

use crate::program::printed;

#[test]
fn help_shows_every_option() {
    expect_file!["../golden/cli_help.txt"].assert_eq(&printed("--help"));
    expect_file!["../golden/cli_fit_help.txt"].assert_eq(&printed("fit --help"));
    assert!(printed("test --help").contains("--verbose <bool>"));
    assert!(!printed("fit --help").contains("--verbose <bool>"));
    assert_eq!(printed(""), printed("--help"));
}

#[test]
fn classes_explain_their_options() {
    expect![[""]].assert_eq(&printed("fit --trainer.callbacks.help EarlyStopping"));
    expect![[""]].assert_eq(&printed("fit --lr_scheduler.help StepLR"));
    expect![[""]].assert_eq(&printed("fit --trainer.callbacks.help"));
    assert!(printed("fit --optimizer.help AdamW").contains("--optimizer.betas <[float, float]>"));
}

#[test]
fn a_configuration_is_printed_with_comments() {
    let text = printed("fit --print_config=comments --optimizer SGD");
    expect_file!["../golden/cli_config.yaml"].assert_eq(&text);
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
