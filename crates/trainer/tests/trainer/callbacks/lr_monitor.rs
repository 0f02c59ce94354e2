//! Which learning rates are written, when, and under which names.

use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::optim::{Adagrad, ParamGroupConfig, StepLR};
use fulgurite::prelude::*;
use fulgurite::{Console, TrainerBuilder};

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// Two epochs of four batches, written every second step.
fn fit(
    monitor: LearningRateMonitor,
    optimizers: fn(&Scripted) -> Optimizers,
    change: fn(TrainerBuilder) -> TrainerBuilder,
) -> (Result<Trainer, String>, MemoryLogger, Console) {
    let folder = tempfile::tempdir().unwrap();
    let (logger, console) = (MemoryLogger::new(), Console::memory());
    let builder = quiet(folder.path()).max_epochs(2).limit_val_batches(0).log_every_n_steps(2);
    let builder = change(builder.enable_checkpointing(false).logger(logger.clone()).console(console.clone()));
    let mut trainer = builder.callback(monitor).build().unwrap();
    let mut module = Scripted::new(&[1.0]);
    module.optimizers = optimizers;
    let fitted = trainer.fit(&mut module, (batches(4), batches(1)));
    (fitted.map(|_| trainer).map_err(|error| error.to_string()), logger, console)
}

/// Every row with a learning rate, as `x: name=value …`.
#[track_caller]
fn expect(monitor: LearningRateMonitor, optimizers: fn(&Scripted) -> Optimizers, expected: &[&str]) {
    let (trainer, logger, _) = fit(monitor, optimizers, |trainer| trainer);
    trainer.unwrap();
    assert_eq!(rows(&logger), expected);
}

fn rows(logger: &MemoryLogger) -> Vec<String> {
    let mut rows = Vec::new();
    for call in logger.take() {
        if let Logged::Metrics { metrics, step } = call
            && metrics.iter().all(|(name, _)| !name.starts_with("train_"))
        {
            let values: Vec<String> = metrics.iter().map(|(name, value)| format!("{name}={value}")).collect();
            rows.push(format!("{step}: {}", values.join(" ")));
        }
    }
    rows
}

fn new() -> LearningRateMonitor {
    LearningRateMonitor::new()
}

fn by_epoch() -> LearningRateMonitor {
    new().logging_interval(Interval::Epoch)
}

fn halving(interval: Interval) -> LrSchedulerConfig {
    LrSchedulerConfig::new(StepLR::new(1).gamma(0.5)).interval(interval)
}

fn sgd(module: &Scripted) -> Optimizers {
    SGD::new(module.vars()).lr(1.0).into()
}

fn sgd_per_step(module: &Scripted) -> Optimizers {
    sgd(module).scheduler(halving(Interval::Step))
}

fn sgd_per_epoch(module: &Scripted) -> Optimizers {
    sgd(module).scheduler(halving(Interval::Epoch))
}

fn groups(module: &Scripted, names: [Option<&str>; 2]) -> Optimizers {
    let weight = ParamGroupConfig::new([&module.layer.ws]);
    let bias = ParamGroupConfig::new(module.layer.bs.iter()).lr(0.5);
    let named = |group: ParamGroupConfig, name: Option<&str>| match name {
        Some(name) => group.name(name),
        None => group,
    };
    SGD::new(vec![named(weight, names[0]), named(bias, names[1])]).lr(1.0).into()
}

#[test]
fn when() {
    let at_both = ["0: lr-SGD=1", "1: lr-SGD=1", "3: lr-SGD=1", "4: lr-SGD=1", "5: lr-SGD=1", "7: lr-SGD=1"];
    expect(new(), sgd, &at_both);
    let per_step = ["1: lr-SGD=0.5", "3: lr-SGD=0.125", "5: lr-SGD=0.03125", "7: lr-SGD=0.0078125"];
    expect(new(), sgd_per_step, &per_step);
    expect(new(), sgd_per_epoch, &["0: lr-SGD=1", "4: lr-SGD=0.5"]);
    let forced = ["1: lr-SGD=1", "3: lr-SGD=1", "5: lr-SGD=0.5", "7: lr-SGD=0.5"];
    expect(new().logging_interval(Interval::Step), sgd_per_epoch, &forced);
    expect(by_epoch(), sgd_per_step, &["0: lr-SGD=1", "4: lr-SGD=0.0625"]);
}

#[test]
fn names() {
    let named = |module: &Scripted| sgd(module).scheduler(halving(Interval::Epoch).name("mine"));
    expect(new(), named, &["0: mine=1", "4: mine=0.5"]);
    let both = |module: &Scripted| sgd_per_step(module).scheduler(halving(Interval::Epoch));
    let rows = [
        "0: lr-SGD-1=1",
        "1: lr-SGD=0.5",
        "3: lr-SGD=0.125",
        "4: lr-SGD-1=0.03125",
        "5: lr-SGD=0.015625",
        "7: lr-SGD=0.00390625",
    ];
    expect(new(), both, &rows);
    let once = |group: &str| ["0", "4"].map(|x| format!("{x}: {group}"));
    let check = |optimizers, row: &str| {
        let [first, second] = once(row);
        expect(by_epoch(), optimizers, &[&first, &second]);
    };
    check(|module| groups(module, [None, None]), "lr-SGD/pg1=1 lr-SGD/pg2=0.5");
    check(|module| groups(module, [Some("w"), None]), "lr-SGD/w=1 lr-SGD/pg2=0.5");
    check(|module| SGD::new(vec![ParamGroupConfig::new([&module.layer.ws]).name("w")]).lr(1.0).into(), "lr-SGD/w=1");
    expect(by_epoch().log_key_prefix("opt/"), sgd, &["0: opt/lr-SGD=1", "4: opt/lr-SGD=1"]);
}

#[test]
fn momentum_and_weight_decay() {
    let all = || by_epoch().log_momentum(true).log_weight_decay(true);
    let sgd = |module: &Scripted| SGD::new(module.vars()).lr(1.0).momentum(0.5).weight_decay(0.25).into();
    let row = "lr-SGD=1 lr-SGD-momentum=0.5 lr-SGD-weight_decay=0.25";
    expect(all(), sgd, &[&format!("0: {row}"), &format!("4: {row}")]);
    let adam = |module: &Scripted| AdamW::new(module.vars()).lr(1.0).betas(0.75, 0.9).into();
    let row = "lr-AdamW=1 lr-AdamW-momentum=0.75 lr-AdamW-weight_decay=0.01";
    expect(all(), adam, &[&format!("0: {row}"), &format!("4: {row}")]);

    let adagrad = |module: &Scripted| Adagrad::new(module.vars()).lr(1.0).into();
    let (trainer, logger, console) = fit(by_epoch().log_momentum(true), adagrad, |trainer| trainer);
    trainer.unwrap();
    assert_eq!(rows(&logger), ["0: lr-Adagrad=1 lr-Adagrad-momentum=0", "4: lr-Adagrad=1 lr-Adagrad-momentum=0"]);
    let warning =
        "warning: LearningRateMonitor::log_momentum is on, and some optimizers have no momentum; 0 is written for them";
    assert!(console.contents().contains(warning), "{}", console.contents());
}

#[test]
fn other_callbacks_and_the_program_see_them_too() {
    let (trainer, ..) = fit(new(), sgd_per_epoch, |trainer| trainer);
    let mut trainer = trainer.unwrap();
    assert_eq!(trainer.state_mut().callback_metrics().unwrap()["lr-SGD"].to_f64(), 0.5);
    let monitor = trainer.callback::<LearningRateMonitor>().unwrap();
    assert_eq!(monitor.lrs().collect::<Vec<_>>(), [("lr-SGD", [1.0, 0.5].as_slice())]);
}

#[test]
fn what_cannot_be_is_refused() {
    let (trainer, ..) = fit(new(), sgd, TrainerBuilder::no_logger);
    assert_eq!(
        trainer.err().unwrap(),
        "LearningRateMonitor writes to loggers, and the trainer has none; add one with `Trainer::builder().logger(..)`, or leave the monitor out"
    );
    let (trainer, ..) = fit(new(), |module| groups(module, [Some("w"), Some("w")]), |trainer| trainer);
    assert_eq!(
        trainer.err().unwrap(),
        "LearningRateMonitor would write two parameter groups as `lr-SGD/w`; give the groups of SGD different names"
    );
}
