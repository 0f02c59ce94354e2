//! The tuner: what it finds, and that it leaves everything else as it was.

pub(crate) mod net;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use expect_test::expect;
use fulgurite::callbacks::{BatchSizeFinder, LearningRateFinder};
use fulgurite::loggers::MemoryLogger;
use fulgurite::optim::{Closure, OptimError, Optimizer, ParamGroup, ParamGroupConfig};
use fulgurite::prelude::*;
use fulgurite::torch::params;
use fulgurite::tuner::{BatchSizeFinderOptions, LearningRateFinderOptions, LrFindMode, ScaleMode, Tuner};
use net::{Net, quiet, samples};

fn lr_options() -> LearningRateFinderOptions {
    LearningRateFinderOptions::default().num_training(40)
}

#[test]
fn a_learning_rate_is_found_and_set() {
    let mut net = Net::new();
    let mut trainer = quiet().build().unwrap();
    let found = Tuner::new(&mut trainer).lr_find(&mut net, (), lr_options()).unwrap().unwrap();
    assert_eq!(found.lr[0], 1e-8);
    assert!((found.lr.last().unwrap() - 1.0).abs() < 1e-12 || found.lr.len() < 40);
    assert_eq!(found.suggestion(), Some(net.lr));
    assert!((1e-6..0.5).contains(&net.lr), "{}", net.lr);
}

#[test]
fn the_callback_lets_fit_go_on_with_what_it_found() {
    let mut net = Net::new();
    let mut trainer = quiet().callback(LearningRateFinder::new().num_training(40)).build().unwrap();
    _ = trainer.fit(&mut net, ()).unwrap();
    let found = trainer.callback::<LearningRateFinder>().unwrap().found().unwrap().suggestion().unwrap();
    assert_eq!(trainer.state().optimizer(0).unwrap().param_groups()[0].lr, found);
    assert_eq!(net.lr, found);
    assert_eq!(trainer.state().global_step(), 16);
}

#[test]
fn a_diverging_loss_ends_the_test_early() {
    let mut net = Net::new();
    let mut trainer = quiet().build().unwrap();
    let options = lr_options().min_lr(1e-3).max_lr(1e6).num_training(200).early_stop_threshold(1.5);
    let found = Tuner::new(&mut trainer).lr_find(&mut net, (), options).unwrap().unwrap();
    assert!(found.lr.len() < 200, "{}", found.lr.len());
}

#[test]
fn a_linear_test_rises_by_equal_amounts() {
    let mut net = Net::new();
    let mut trainer = quiet().build().unwrap();
    let options = lr_options().mode(LrFindMode::Linear).min_lr(0.01).max_lr(0.41).early_stop_threshold(None);
    let found = Tuner::new(&mut trainer).lr_find(&mut net, (), options).unwrap().unwrap();
    let rises: Vec<f64> = found.lr.windows(2).skip(1).map(|pair| ((pair[1] - pair[0]) * 1e6).round() / 1e6).collect();
    assert!(rises.iter().all(|rise| *rise == 0.01), "{rises:?}");
}

#[test]
fn the_curve_is_drawn() {
    let mut net = Net::new();
    let mut trainer = quiet().build().unwrap();
    let found = Tuner::new(&mut trainer).lr_find(&mut net, (), lr_options()).unwrap().unwrap();
    let plot = found.plot();
    assert!(plot.contains("steepest at a learning rate of"));
    let drawn = plot.chars().filter(|char| ('\u{2801}'..='\u{28ff}').contains(char)).count();
    assert!(drawn > 20, "{plot}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lr.svg");
    found.save_plot(&path).unwrap();
    let svg = std::fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("Learning rate") && svg.contains("<circle"), "{svg}");
    let error = found.save_plot(folder.path().join("no/such/folder.svg")).unwrap_err().to_string();
    assert!(error.contains("choose another path"), "{error}");
}

#[test]
fn a_run_before_the_test_changes_nothing_about_it() {
    let test = |before: fn(&mut Trainer, &mut Net)| {
        let mut net = Net::new();
        let mut trainer = quiet().build().unwrap();
        before(&mut trainer, &mut net);
        let options = lr_options().update_attr(false);
        let found = Tuner::new(&mut trainer).lr_find(&mut net, (), options).unwrap().unwrap();
        assert_eq!(found.lr.len(), found.loss.len());
        let size = Tuner::new(&mut trainer).scale_batch_size(&mut Net { memory: 20, ..net }, (), Default::default());
        assert_eq!(size.unwrap(), Some(16));
        found
    };
    let fresh = test(|_, _| {});
    assert_eq!(fresh.lr.len(), 40);
    assert_eq!(test(|trainer, net| drop(trainer.validate(net, ()).unwrap())), fresh);
    let after_fit = test(|trainer, net| drop(trainer.fit(net, ()).unwrap()));
    assert_eq!(after_fit.lr, fresh.lr);
    assert!(after_fit.suggestion().is_some());
    let after_two_fits = test(|trainer, net| {
        _ = trainer.fit(net, ()).unwrap();
        _ = trainer.fit(net, ()).unwrap();
    });
    assert_eq!(after_two_fits.lr, fresh.lr);
}

/// The random numbers of a batch are those of its place, and trials take none from the run that follows.
#[test]
fn functions_of_batches_draw_the_same_after_trials() {
    let fit = |tunes: bool, overfit: usize| {
        let mut net = Net { mixes: true, ..Net::new() };
        let mut trainer = quiet().overfit_batches(overfit).build().unwrap();
        if tunes {
            let mut tuner = Tuner::new(&mut trainer);
            tuner.lr_find(&mut net, (), lr_options().update_attr(false)).unwrap().unwrap();
            net.memory = 20;
            let size = tuner.scale_batch_size(&mut net, (), BatchSizeFinderOptions::default()).unwrap();
            assert_eq!(size, Some(16));
            net.batch_size = 8;
        }
        _ = trainer.fit(&mut net, ()).unwrap();
        net.weights()
    };
    for overfit in [0, 2] {
        assert_eq!(fit(true, overfit), fit(false, overfit), "{overfit} batches");
    }
    assert_ne!(fit(false, 0), fit(false, 2));
}

/// A loss that may be below zero, as a log-likelihood is.
struct Shifted {
    net: Net,
    by: f64,
    /// Batches without a loss, at the beginning.
    skips: u64,
}

impl LightningModule for Shifted {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.net.vars
    }

    fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.net.training_step(batch, step)?;
        if step.global_step() < self.skips {
            return Ok(Loss::skip());
        }
        Ok((loss.loss().unwrap() + self.by).into())
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.net.configure_optimizers(trainer)
    }

    fn train_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        self.net.train_dataloader(trainer)
    }
}

#[test]
fn the_test_goes_on_below_zero_until_the_loss_diverges() {
    let points = |by: f64, skips: u64, max_lr: f64| {
        let mut module = Shifted { net: Net::new(), by, skips };
        let mut trainer = quiet().build().unwrap();
        let options = lr_options().max_lr(max_lr).update_attr(false);
        Tuner::new(&mut trainer).lr_find(&mut module, (), options).unwrap().unwrap().lr.len()
    };
    for by in [0.0, -0.5, -1.0, -2.0, -100.0] {
        assert_eq!(points(by, 0, 0.1), 40, "{by}");
        assert!(points(by, 0, 1e8) < 40, "{by}");
    }
    assert_eq!(points(0.0, 3, 0.1), 40);
}

/// The batch size found when more than `memory` samples do not fit.
fn batch_size(memory: i64, options: BatchSizeFinderOptions) -> (u64, usize) {
    let mut net = Net { memory, ..Net::new() };
    let before = net.weights();
    let mut trainer = quiet().build().unwrap();
    let found = Tuner::new(&mut trainer).scale_batch_size(&mut net, (), options).unwrap().unwrap();
    assert_eq!(net.weights(), before);
    (found, net.batch_size)
}

#[test]
fn batch_sizes_double_until_memory_runs_out() {
    let options = BatchSizeFinderOptions::default;
    assert_eq!(batch_size(20, options()), (16, 16));
    assert_eq!(batch_size(1, options()), (1, 1));
    // Nothing is gained by more than all the data.
    assert_eq!(batch_size(i64::MAX, options()), (64, 64));
    assert_eq!(batch_size(i64::MAX, options().max_val(24)), (24, 24));
    assert_eq!(batch_size(i64::MAX, options().max_trials(2)), (4, 4));
    assert_eq!(batch_size(3, options().init_val(32)), (2, 2));
}

#[test]
fn a_binary_search_finds_the_last_size_that_fits() {
    let options = || BatchSizeFinderOptions::default().mode(ScaleMode::BinSearch);
    assert_eq!(batch_size(21, options().margin(0.0)), (21, 21));
    assert_eq!(batch_size(21, options()), (19, 19));
}

#[test]
fn evaluation_has_a_batch_size_of_its_own() {
    let mut net = Net { memory: 20, ..Net::new() };
    let mut trainer = quiet().build().unwrap();
    let options = BatchSizeFinderOptions::default();
    let found = Tuner::new(&mut trainer).scale_batch_size_for(TrainerFn::Validate, &mut net, (), options).unwrap();
    assert_eq!((found, net.batch_size), (Some(16), 16));
}

#[test]
fn the_callback_trains_with_the_size_it_found() {
    let mut net = Net { memory: 20, ..Net::new() };
    let mut trainer = quiet().max_epochs(1).callback(BatchSizeFinder::new()).build().unwrap();
    _ = trainer.fit(&mut net, ()).unwrap();
    assert_eq!(trainer.callback::<BatchSizeFinder>().unwrap().optimal_batch_size(), Some(16));
    assert_eq!(trainer.state().global_step(), 4);
}

#[test]
fn a_run_that_is_resumed_keeps_the_size_that_was_found_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let fit = |from: Option<&str>, finder: BatchSizeFinder| {
        let mut net = Net { memory: 20, ..Net::new() };
        let every = ModelCheckpoint::new()
            .dirpath(folder.path())
            .every_n_train_steps(3)
            .save_top_k(Maximum::Unlimited)
            .filename("{step}");
        let trainer = quiet().enable_checkpointing(true).callback(every).callback(finder);
        let mut trainer = trainer.build().unwrap();
        _ = trainer.ckpt_path(from.map(|name| folder.path().join(name))).fit(&mut net, ()).unwrap();
        assert_eq!(net.batch_size, 16);
        assert_eq!(trainer.state().global_step(), 8);
        net.weights()
    };
    let straight = fit(None, BatchSizeFinder::new());
    // It would find 2.
    assert_eq!(fit(Some("step=3.ckpt"), BatchSizeFinder::new().max_val(2)), straight);
}

#[test]
fn fast_dev_run_finds_nothing() {
    let mut net = Net::new();
    let mut trainer = quiet().fast_dev_run(1).build().unwrap();
    let mut tuner = Tuner::new(&mut trainer);
    assert_eq!(tuner.lr_find(&mut net, (), lr_options()).unwrap(), None);
    assert_eq!(tuner.scale_batch_size(&mut net, (), Default::default()).unwrap(), None);
}

fn lr_error(options: LearningRateFinderOptions) -> String {
    let mut trainer = quiet().build().unwrap();
    Tuner::new(&mut trainer).lr_find(&mut Net::new(), (), options).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_is_said() {
    expect!["lr_find from min_lr=0.1 to max_lr=0.01 cannot rise; write 0 < min_lr < max_lr, such as 1e-8 and 1"]
        .assert_eq(&lr_error(lr_options().min_lr(0.1).max_lr(0.01)));
    expect!["lr_find with num_training=1 has too few points for a slope; write 3 or more, better 100"]
        .assert_eq(&lr_error(lr_options().num_training(1)));
    expect!["the learning-rate finder sets a hyper-parameter, and `Net` has no `eta`; return it from `hparams` and set it in `set_hparam`, name another with attr_name, or turn update_attr off"]
        .assert_eq(&lr_error(lr_options().attr_name("eta")));

    let mut net = Net::new();
    let mut trainer = quiet().build().unwrap();
    let loader = DataLoader::new(samples(8)).batch_size(2);
    let error = Tuner::new(&mut trainer).scale_batch_size(&mut net, loader, Default::default()).unwrap_err();
    expect!["the batch-size finder makes the loaders anew with another batch size, and these were passed directly; give a data module, or `()` and the module's own loader methods"]
        .assert_eq(&error.to_string());
    let options = BatchSizeFinderOptions::default().batch_arg_name("samples");
    let error = Tuner::new(&mut trainer).scale_batch_size(&mut net, (), options).unwrap_err();
    expect!["the batch-size finder sets the hyper-parameter `samples`, and neither the data module nor `Net` has one; set the field in `set_hparam` and return true, or name another with batch_arg_name"]
        .assert_eq(&error.to_string());
    (net.memory, net.batch_size) = (0, 8);
    let error = Tuner::new(&mut trainer).scale_batch_size(&mut net, (), Default::default()).unwrap_err();
    expect!["the batch-size finder ran out of memory with every size it tried, down to 1; begin with a smaller init_val, or make the model smaller"]
        .assert_eq(&error.to_string());
    assert_eq!(net.batch_size, 8, "as it was");
}

#[test]
fn an_error_in_a_trial_leaves_everything_as_it_was() {
    struct Fails(Net);
    impl LightningModule for Fails {
        type Batch = (Tensor, Tensor);

        fn vars(&self) -> &dyn Parameters {
            &self.0.vars
        }

        fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss> {
            if step.global_step() == 5 {
                return Err("a broken cable".into());
            }
            self.0.training_step(batch, step)
        }

        fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
            self.0.configure_optimizers(trainer)
        }

        fn train_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
            self.0.train_dataloader(trainer)
        }
    }
    let mut net = Fails(Net::new());
    let before = net.0.weights();
    let mut trainer = quiet().build().unwrap();
    let options = lr_options().update_attr(false);
    let error = Tuner::new(&mut trainer).lr_find(&mut net, (), options).unwrap_err();
    expect!["Fails::training_step failed (epoch 0, batch 5): a broken cable"].assert_eq(&error.to_string());
    assert_eq!(net.0.weights(), before);
    assert_eq!(trainer.state().global_step(), 0);
}

/// An optimizer that panics when it is to forget a trial, and says nothing else.
struct Stubborn(Box<dyn Optimizer>, Arc<AtomicBool>);

impl Optimizer for Stubborn {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn param_groups(&self) -> &[ParamGroup] {
        self.0.param_groups()
    }

    fn param_groups_mut(&mut self) -> &mut [ParamGroup] {
        self.0.param_groups_mut()
    }

    fn add_param_group(&mut self, group: ParamGroupConfig) -> Result<(), OptimError> {
        self.0.add_param_group(group)
    }

    fn step(&mut self) -> Result<(), OptimError> {
        self.0.step()
    }

    fn step_with(&mut self, closure: Closure<'_>) -> Result<Tensor, OptimError> {
        self.0.step_with(closure)
    }

    fn zero_grad(&mut self) -> Result<(), OptimError> {
        self.0.zero_grad()
    }

    fn state_dict(&self) -> Result<Dict, OptimError> {
        self.0.state_dict()
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        assert!(!self.1.load(Ordering::Relaxed), "never");
        self.0.load_state_dict(state)
    }
}

#[test]
fn a_panic_after_a_trial_loses_no_callback_and_no_logger() {
    for finds_lr in [true, false] {
        let (mut net, logger) = (Net::new(), MemoryLogger::new());
        let panics = Arc::new(AtomicBool::new(true));
        let its_panics = panics.clone();
        let mut trainer = quiet()
            .optimizers(move |vars, _| {
                let adam = AdamW::new(params::trainable_parameters(vars)).build()?;
                Ok(Optimizers::from_result(Ok(Box::new(Stubborn(adam, its_panics.clone())))))
            })
            .logger(logger.clone())
            .callback(LearningRateMonitor::new())
            .build()
            .unwrap();
        let mut tuner = Tuner::new(&mut trainer);
        let error = match finds_lr {
            true => tuner.lr_find(&mut net, (), lr_options()).unwrap_err(),
            false => tuner.scale_batch_size(&mut net, (), BatchSizeFinderOptions::default()).unwrap_err(),
        };
        assert!(error.to_string().ends_with("never"), "{error}");
        assert_eq!((trainer.state().global_step(), net.lr, net.batch_size), (0, 0.01, 8));
        panics.store(false, Ordering::Relaxed);
        assert_eq!(trainer.fit(&mut net, ()).unwrap(), Outcome::Finished);
        assert!(trainer.callback::<LearningRateMonitor>().is_some_and(|monitor| monitor.lrs().count() == 1));
        assert!(!logger.metric("lr-AdamW").is_empty());
    }
}
