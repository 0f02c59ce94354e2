//! Defaults from the environment: each case runs in a process of its own.

use fulgurite::TrainerConfig;
use fulgurite::{Console, Trainer};

/// What the process says that has these variables.
fn with(variables: &[(&str, &str)]) -> String {
    let output = fulgurite_test_support::this_program("arguments::environment::child")
        .env("FULGURITE_CHILD", "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split_once("said: "))
        .map(|(_, said)| said.to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn child() {
    if std::env::var_os("FULGURITE_CHILD").is_none() {
        return;
    }
    let console = Console::memory();
    let builder = Trainer::builder().max_steps(7).no_logger().console(console.clone()).accelerator("cpu");
    let said = match builder.build() {
        Ok(trainer) => {
            let config = trainer.state().config();
            format!("{:?} {:?} {:?}", config.max_epochs, config.max_steps, config.enable_progress_bar)
        }
        Err(error) => error.to_string(),
    };
    let from_env = TrainerConfig::from_env().map(|config| config.max_epochs);
    println!("said: {said}");
    console.contents().lines().for_each(|line| println!("said: {line}"));
    println!("said: {from_env:?}");
}

#[test]
fn it_gives_defaults_and_arguments_win() {
    assert_eq!(with(&[]), "None Of(7) None\nOk(None)");
    let variables =
        [("PL_TRAINER_MAX_EPOCHS", "3"), ("PL_TRAINER_MAX_STEPS", "9"), ("PL_TRAINER_ENABLE_PROGRESS_BAR", "False")];
    assert_eq!(with(&variables), "Some(Of(3)) Of(7) Some(false)\nOk(Some(Of(3)))");
}

#[test]
fn a_wrong_value_and_an_unknown_variable_are_named() {
    let refused = "the environment variable PL_TRAINER_MAX_EPOCHS=three is not a valid value of `max_epochs`; write one, or unset it";
    assert_eq!(with(&[("PL_TRAINER_MAX_EPOCHS", "three")]), format!("{refused}\nErr({refused})"));
    assert_eq!(
        with(&[("PL_TRAINER_MAX_EPOCH", "3")]),
        "None Of(7) None\nwarning: the environment variable PL_TRAINER_MAX_EPOCH is about no argument of the trainer\nOk(None)"
    );
    assert_eq!(
        with(&[("PL_TRAINER_GPUS", "3")]),
        "None Of(7) None\nwarning: the environment variable PL_TRAINER_GPUS is about an argument that no longer exists: Lightning 2.0 \
         removed it; write `accelerator: gpu` and how many as `devices`\nOk(None)"
    );
    let empty =
        "the environment variable PL_TRAINER_MAX_EPOCHS= is not a valid value of `max_epochs`; write one, or unset it";
    assert_eq!(with(&[("PL_TRAINER_MAX_EPOCHS", "")]), format!("{empty}\nErr({empty})"));
    assert_eq!(
        with(&[("PL_GLOBAL_SEED", "")]),
        "PL_GLOBAL_SEED is \"\", which is not a seed; set it to an integer from 0 to 18446744073709551615, or unset \
         it\nOk(None)"
    );
}
