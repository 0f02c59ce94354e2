//! Whole numbers beyond all bounds end in an error or in a run, and never in a panic.

use std::time::Instant;

use crate::cli::program::{Folder, printed, program};

/// What is asked for by name: names of options with whole numbers, and whether they are needed.
fn integers(help: &str, prefix: &str) -> Vec<String> {
    let lines = help.lines().filter_map(|line| line.trim_start().strip_prefix("--")?.strip_prefix(prefix));
    let typed = lines.filter_map(|line| line.split_once(" <"));
    let is_integer = |kind: &str| kind.trim_end_matches('>').split('|').any(|word| word == "int");
    typed.filter(|(_, kind)| is_integer(kind)).map(|(name, _)| name.to_owned()).collect()
}

fn classes(option: &str) -> Vec<String> {
    let list = printed(&format!("fit --{option}.help"));
    list.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect()
}

const HUGE: [&str; 3] = ["9223372036854775807", "18446744073709551615", "-9223372036854775808"];

/// A short run with these arguments; what it said, if anything panicked or took long.
fn trouble(args: &str) -> Option<String> {
    let folder = Folder::with(&[]);
    let short = "--trainer.max_steps=3 --trainer.max_epochs=2 --trainer.enable_model_summary=false \
                 --trainer.log_every_n_steps=1 --trainer.accelerator=cpu --trainer.default_root_dir=@runs";
    let begun = Instant::now();
    let (text, _) = folder.answer(program(), &format!("fit {short} {args}"));
    let took = begun.elapsed().as_secs();
    (text.contains("panic") || text.contains("overflow") || took > 20).then(|| format!("{args} ({took} s):\n{text}\n"))
}

fn assert_no_trouble(runs: impl IntoIterator<Item = String>) {
    let troubles: Vec<String> = runs.into_iter().filter_map(|args| trouble(&args)).collect();
    assert!(troubles.is_empty(), "{}", troubles.concat());
}

#[test]
fn of_the_trainer_and_of_the_data() {
    let options = integers(&printed("fit --help"), "trainer.");
    assert!(options.len() > 15 && options.iter().any(|name| name == "accumulate_grad_batches"), "{options:?}");
    let names = options.iter().map(|name| format!("trainer.{name}"));
    let names: Vec<String> = names.chain(["data.batch_size".into(), "seed_everything".into()]).collect();
    assert_no_trouble(names.iter().flat_map(|name| HUGE.map(|value| format!("--{name}={value}"))));
}

#[test]
fn of_callbacks() {
    for class in classes("trainer.callbacks") {
        // They try as often as they are told to.
        if ["LearningRateFinder", "BatchSizeFinder"].contains(&class.as_str()) {
            continue;
        }
        let help = printed(&format!("fit --trainer.callbacks.help {class}"));
        let monitor = if help.contains("callbacks.monitor ") { "--trainer.callbacks.monitor=train_loss " } else { "" };
        let options = integers(&help, "trainer.callbacks.");
        assert_no_trouble(options.iter().flat_map(|name| {
            HUGE.map(|value| format!("--trainer.callbacks+={class} {monitor}--trainer.callbacks.{name}={value}"))
        }));
    }
}

#[test]
fn of_loggers_optimizers_and_schedulers() {
    for option in ["trainer.logger", "optimizer", "lr_scheduler"] {
        for class in classes(option) {
            let help = printed(&format!("fit --{option}.help {class}"));
            let optimizer = if option == "lr_scheduler" { "--optimizer=SGD --optimizer.lr=0.1 " } else { "" };
            let monitor = if class == "ReduceLROnPlateau" { " --lr_scheduler.monitor=train_loss" } else { "" };
            let options = integers(&help, &format!("{option}."));
            assert_no_trouble(options.iter().flat_map(|name| {
                HUGE.map(|value| format!("{optimizer}--{option}={class}{monitor} --{option}.{name}={value}"))
            }));
        }
    }
}
