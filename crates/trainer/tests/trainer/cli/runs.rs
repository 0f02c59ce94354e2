//! What runs make of a configuration.

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use expect_test::expect;
use fulgurite::cli::SaveConfig;
use fulgurite::fabric::DdpOptions;

use crate::cli::program::{Folder, program};

const FIT: &str = "fit --trainer.max_epochs 2 --trainer.accelerator cpu --trainer.enable_progress_bar false \
                   --trainer.enable_model_summary false --trainer.default_root_dir @.";

#[test]
fn a_run_saves_its_configuration_and_can_be_repeated() {
    let folder = Folder::with(&[]);
    let (text, code) = folder.answer(program(), &format!("{FIT} --model.hidden 3 --trainer.callbacks+=Greeter"));
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    assert!(text.contains("hello world"), "{text}");
    let saved = folder.path().join("lightning_logs/version_0/config.yaml");
    let config = std::fs::read_to_string(&saved).unwrap();
    assert!(config.starts_with("# fulgurite=="), "{config}");
    let again = folder.printed("fit --config @lightning_logs/version_0/config.yaml --print_config");
    assert_eq!(config.split_once('\n').unwrap().1.replace(&format!("{}/", folder.path().display()), "@"), again);
    let hparams = std::fs::read_to_string(folder.path().join("lightning_logs/version_0/hparams.yaml")).unwrap();
    assert!(hparams.contains("hidden: 3"), "{hparams}");
}

#[test]
fn a_configuration_that_is_there_is_not_overwritten_unless_asked() {
    let folder = Folder::with(&[]);
    let args = format!("{FIT} --trainer.logger CsvLogger --trainer.logger.version here");
    assert_eq!(folder.answer(program(), &args).1, ExitCode::SUCCESS);
    let (text, code) = folder.answer(program(), &args);
    assert_eq!(code, ExitCode::from(2));
    let last = text.lines().last().unwrap();
    expect!["error: @./lightning_logs/here/config.yaml exists already, from another run; give the logger another version, or let the program overwrite it with `Cli::save_config(SaveConfig::Overwrite)`"].assert_eq(last);
    assert_eq!(folder.answer(program().save_config(SaveConfig::Overwrite), &args).1, ExitCode::SUCCESS);
    assert_eq!(folder.answer(program().save_config(SaveConfig::Off), &args).1, ExitCode::SUCCESS);
}

#[test]
fn a_dry_run_and_a_run_without_logger_save_no_configuration() {
    let folder = Folder::with(&[]);
    assert_eq!(folder.answer(program(), &format!("{FIT} --trainer.fast_dev_run")).1, ExitCode::SUCCESS);
    let args = format!("{FIT} --trainer.logger false --trainer.enable_checkpointing false");
    assert_eq!(folder.answer(program(), &args).1, ExitCode::SUCCESS);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn loggers_of_a_run_share_its_version() {
    let folder = Folder::with(&[]);
    let (text, code) = folder.answer(program(), &format!("{FIT} --trainer.logger [TensorBoardLogger,CSVLogger]"));
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    let runs = std::fs::read_dir(folder.path().join("lightning_logs")).unwrap().count();
    assert_eq!(runs, 1);
    assert!(folder.path().join("lightning_logs/version_0/metrics.csv").is_file());
}

/// The optimizer and the learning rate a fit ended with, and what was printed.
fn optimization(args: &str) -> String {
    let folder = Folder::with(&[]);
    let seen = Rc::new(RefCell::new(String::new()));
    let saw = seen.clone();
    let cli = program().after_fit(move |trainer, _, _| {
        let schedulers = trainer.state().lr_schedulers().len();
        let optimizer = trainer.state().optimizer(0).unwrap();
        let lr = optimizer.param_groups()[0].lr;
        *saw.borrow_mut() = format!("{} lr {lr:.4}, {schedulers} scheduler(s)", optimizer.name());
        Ok(())
    });
    let (text, code) = folder.answer(cli, &format!("{FIT} --trainer.logger false {args}"));
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    let warning = text.lines().find(|line| line.contains("configure_optimizers")).unwrap_or("no warning");
    format!("{}\n{warning}", seen.borrow())
}

#[test]
fn the_optimizer_named_takes_the_place_of_the_models() {
    expect![[r#"
        SGD lr 0.5000, 0 scheduler(s)
        no warning"#]]
    .assert_eq(&optimization(""));
    expect![[r#"
        AdamW lr 0.2500, 0 scheduler(s)
        warning: Line::configure_optimizers is overridden by the optimizer that the trainer was given"#]]
    .assert_eq(&optimization("--optimizer AdamW --optimizer.lr 0.25"));
    expect![[r#"
        SGD lr 0.2500, 1 scheduler(s)
        warning: Line::configure_optimizers is overridden by the optimizer that the trainer was given"#]]
    .assert_eq(&optimization(
        "--optimizer SGD --optimizer.lr 1 --lr_scheduler StepLR --lr_scheduler.step_size 1 --lr_scheduler.gamma 0.5",
    ));
    // Two epochs of two steps, counted by the trainer.
    expect![[r#"
        SGD lr 0.2831, 1 scheduler(s)
        warning: Line::configure_optimizers is overridden by the optimizer that the trainer was given"#]]
    .assert_eq(&optimization(
        "--optimizer SGD --lr_scheduler OneCycleLR --lr_scheduler.max_lr 1 --lr_scheduler.interval step \
         --lr_scheduler.cycle_momentum false",
    ));
    expect![[r#"
        SGD lr 0.0100, 1 scheduler(s)
        warning: Line::configure_optimizers is overridden by the optimizer that the trainer was given"#]]
    .assert_eq(&optimization(
        "--optimizer SGD --optimizer.lr 1 --lr_scheduler ReduceLROnPlateau --lr_scheduler.monitor val_loss \
         --lr_scheduler.patience 0 --lr_scheduler.threshold 100",
    ));
}

#[test]
fn a_checkpoint_knows_the_model_it_is_of() {
    let folder = Folder::with(&[]);
    assert_eq!(folder.answer(program(), &format!("{FIT} --model.hidden 3")).1, ExitCode::SUCCESS);
    let checkpoint = "--ckpt_path @lightning_logs/version_0/checkpoints/epoch=1-step=4.ckpt --trainer.logger false \
                      --trainer.enable_progress_bar false";
    let (text, code) = folder.answer(program(), &format!("validate {checkpoint}"));
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    assert!(text.contains("val_loss"), "{text}");
    let text = folder.printed(&format!("predict {checkpoint} --print_config"));
    assert!(text.contains("hidden: 3"), "{text}");
    // What is said wins, and the checkpoint does not fit it.
    let (text, code) = folder.answer(program(), &format!("validate {checkpoint} --model.hidden 2"));
    assert_eq!(code, ExitCode::from(1));
    assert!(text.contains("does not fit Line"), "{text}");
}

#[test]
fn hooks_see_what_they_come_after() {
    let folder = Folder::with(&[]);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (before, after, evaluated, predicted) = (seen.clone(), seen.clone(), seen.clone(), seen.clone());
    let cli = move || {
        let (before, after) = (before.clone(), after.clone());
        let (evaluated, predicted) = (evaluated.clone(), predicted.clone());
        program()
            .before_fit(move |_, _, _| {
                before.borrow_mut().push("before fit".to_owned());
                Ok(())
            })
            .after_fit(move |trainer, _, _| {
                after.borrow_mut().push(format!("after {} steps", trainer.state().global_step()));
                Ok(())
            })
            .after_evaluation(move |_, results| {
                evaluated.borrow_mut().push(format!("{} loader", results.len()));
                Ok(())
            })
            .after_predict(move |_, _, batches| {
                predicted.borrow_mut().push(format!("{} batches", batches[0].len()));
                Ok(())
            })
    };
    let rest = FIT.trim_start_matches("fit ");
    for subcommand in ["fit", "validate", "predict"] {
        let (text, code) = folder.answer(cli(), &format!("{subcommand} {rest}"));
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
    }
    assert_eq!(*seen.borrow(), ["before fit", "after 4 steps", "1 loader", "2 batches"]);
}

#[test]
fn options_of_the_strategy_reach_the_run() {
    let folder = Folder::with(&[]);
    let seen = Rc::new(RefCell::new(None));
    let strategy = seen.clone();
    let cli = program().before_fit(move |trainer, _, _| {
        *strategy.borrow_mut() = Some(trainer.state().config().strategy.clone());
        Ok(())
    });
    let options = "--trainer.strategy ddp --trainer.strategy.static_graph true --trainer.strategy.timeout 0:00:30";
    let (text, code) = folder.answer(cli, &format!("{FIT} {options}"));
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    let expected = DdpOptions::default().static_graph(true).timeout(Duration::from_secs(30));
    assert_eq!(*seen.borrow(), Some(expected.into()));
}

#[test]
fn a_model_that_cannot_be_made_is_an_error_of_the_run() {
    let folder = Folder::with(&[]);
    let (text, code) = folder.answer(program(), &format!("{FIT} --model.hidden 0"));
    assert_eq!((text.lines().last(), code), (Some("error: a layer of 0 numbers"), ExitCode::from(1)));
}

#[test]
fn resume_goes_on_in_the_folder_of_the_last_run() {
    let fit = |epochs: u64| FIT.replace("max_epochs 2", &format!("max_epochs {epochs} --trainer.log_every_n_steps 1"));
    let folder = Folder::with(&[]);
    let (text, code) = folder.answer(program(), &format!("{} --resume", fit(2)));
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    assert!(text.contains("there is no checkpoint yet, so this is a fresh start"), "{text}");
    let version = folder.path().join("lightning_logs/version_0");
    for (epochs, from, resume) in [
        (3, "epoch=1-step=4.ckpt", "--resume auto"),
        (4, "epoch=2-step=6.ckpt", "--resume @lightning_logs/version_0"),
        (5, "epoch=3-step=8.ckpt", "--ckpt_path=@."),
    ] {
        let (text, code) = folder.answer(program(), &format!("{} {resume}", fit(epochs)));
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        let line = text.lines().find(|line| line.starts_with("resumed from")).unwrap_or(&text);
        assert!(line.ends_with(&format!("version_0/checkpoints/{from}")), "{line}");
        assert_eq!(std::fs::read_dir(folder.path().join("lightning_logs")).unwrap().count(), 1);
        let config = std::fs::read_to_string(version.join("config.yaml")).unwrap();
        assert!(config.contains(&format!("max_epochs: {epochs}")), "{config}");
    }
    assert!(version.join("config.old.2.yaml").is_file());
    let straight = Folder::with(&[]);
    assert_eq!(straight.answer(program(), &fit(5)).1, ExitCode::SUCCESS);
    let metrics =
        |folder: &Folder| std::fs::read_to_string(folder.path().join("lightning_logs/version_0/metrics.csv")).unwrap();
    assert_eq!(metrics(&folder), metrics(&straight));
}

#[test]
fn plugins_are_named_by_class() {
    let folder = Folder::with(&[(
        "slurm.yaml",
        "trainer:\n  plugins:\n  - class_path: lightning.pytorch.plugins.environments.SLURMEnvironment\n    init_args:\n      auto_requeue: false\n",
    )]);
    let printed = folder.printed("fit --config @slurm.yaml --trainer.plugins.requeue_signal SIGUSR2 --print_config");
    let at = printed.find("plugins:").unwrap();
    expect![[r#"
        plugins:
        - class_path: SlurmEnvironment
          init_args:
            auto_requeue: false
            requeue_signal: SIGUSR2
    "#]]
    .assert_eq(
        &printed[at..]
            .lines()
            .take(5)
            .map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line)))
            .collect::<String>(),
    );
    let refused = folder.refused("fit --trainer.plugins+=SlurmEnvironment --trainer.plugins.requeue_signal SIGKILL");
    assert!(refused.contains("SIGKILL"), "{refused}");
}
