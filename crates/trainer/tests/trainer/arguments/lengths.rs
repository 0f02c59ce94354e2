//! Loaders that do not have as many batches as they say, and data that changed since a checkpoint.

use std::path::Path;

use expect_test::expect;
use fulgurite::data::{BoxError, BoxLoader, DataLoader, FnLoader, InMemory, IntoLoader, SampleIter, Sampler};
use fulgurite::optim::{ReduceLROnPlateau, StepLR};
use fulgurite::prelude::*;
use fulgurite::{Console, TrainerBuilder};

use super::{Weight, batches, quiet, weight};

/// Halves the learning rate after each epoch.
struct Scheduled {
    inner: Weight,
    plateau: bool,
}

fn scheduled() -> Scheduled {
    Scheduled { inner: weight(), plateau: false }
}

impl LightningModule for Scheduled {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.inner.vars
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        self.inner.training_step(x, step)
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        self.inner.validation_step(x, step)
    }

    fn test_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        self.inner.test_step(x, step)
    }

    fn predict_step(&mut self, x: Tensor, step: &mut Step) -> Result<Value> {
        self.inner.predict_step(x, step)
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let optimizer: Optimizers = SGD::new(&self.inner.vars).lr(0.125).into();
        Ok(match self.plateau {
            false => optimizer.scheduler(StepLR::new(1).gamma(0.5)),
            true => {
                let plateau = ReduceLROnPlateau::new().patience(0).factor(0.5).threshold(1e9);
                optimizer.scheduler(LrSchedulerConfig::new(plateau).monitor("loss"))
            }
        })
    }
}

/// Batches of one item; says that it has `.0`, and has `.1`.
#[derive(Clone, Copy)]
struct Mistaken(usize, usize);

impl Sampler<Vec<usize>> for Mistaken {
    fn iter(&self, _: u64, _: u64) -> SampleIter<Vec<usize>> {
        Box::new((0..self.1).map(|index| vec![index]))
    }

    fn len(&self) -> usize {
        self.0
    }

    fn is_shuffled(&self) -> bool {
        false
    }
}

/// A batch sampler of a loader, or a stream: both say that they have one number of batches and have another.
fn mistaken(of: Mistaken, is_stream: bool) -> BoxLoader<Tensor> {
    let one = |items: Vec<f32>| -> Result<Tensor> { Ok(Tensor::from(items[0])) };
    if is_stream {
        let items = move |_| (0..of.1).map(|item| Ok::<_, BoxError>(Tensor::from(item as f32)));
        return FnLoader::new(items).with_len(of.0).into_loader();
    }
    DataLoader::new(InMemory::new((0..20).map(|item| item as f32))).batch_sampler(of).collate(one).into_loader()
}

fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn lr(trainer: &mut Trainer) -> f64 {
    trainer.state().optimizer(0).unwrap().param_groups()[0].lr
}

#[test]
fn an_epoch_ends_with_its_last_batch_whatever_the_loader_says() {
    for (says, is_stream) in [(7, false), (7, true), (3, false), (3, true), (6, false), (4, true)] {
        let folder = tempfile::tempdir().unwrap();
        let best = ModelCheckpoint::monitor("loss").dirpath(folder.path());
        let console = Console::memory();
        let mut trainer = quiet()
            .max_epochs(2)
            .accumulate_grad_batches(2)
            .num_sanity_val_steps(0)
            .enable_checkpointing(true)
            .callback(best)
            .console(console.clone())
            .build()
            .unwrap();
        let mut module = scheduled();
        _ = trainer.fit(&mut module, (mistaken(Mistaken(says, 5), is_stream), batches(&[1.0]))).unwrap();
        assert_eq!(module.inner.trained_on, [[0.0, 1.0, 2.0, 3.0, 4.0]; 2].concat(), "{says}");
        assert_eq!(trainer.state().global_step(), 6);
        assert_eq!(lr(&mut trainer), 0.25 * 0.125);
        assert_eq!(module.inner.evaluated.len(), 2);
        assert_eq!(files(folder.path()).len(), 1);
        let yielded = if says > 5 { "yielded 5" } else { "yielded more" };
        let said = format!("a training loader reports {says} batches per epoch, but {yielded}:");
        assert_eq!(console.contents().matches(&said).count(), 1, "{}", console.contents());
    }
}

#[test]
fn a_scheduler_on_a_plateau_steps_at_such_an_end() {
    for says in [7, 3] {
        let mut trainer = quiet().max_epochs(3).build().unwrap();
        let mut module = Scheduled { plateau: true, ..scheduled() };
        _ = trainer.fit(&mut module, (mistaken(Mistaken(says, 5), false), batches(&[1.0]))).unwrap();
        assert_eq!(lr(&mut trainer), 0.125 * 0.125);
    }
}

#[test]
fn an_evaluation_ends_with_the_last_batch_whatever_the_loader_says() {
    for says in [5, 3, 2] {
        for is_stream in [false, true] {
            let console = Console::memory();
            let mut trainer = quiet().console(console.clone()).build().unwrap();
            let loader = || mistaken(Mistaken(says, 3), is_stream);
            let mut module = scheduled();
            trainer.validate(&mut module, loader()).unwrap();
            trainer.test(&mut module, loader()).unwrap();
            assert_eq!(module.inner.evaluated.len(), 6);
            let predictions = trainer.predict(&mut module, loader()).unwrap();
            assert_eq!(predictions[0].len(), 3);
            _ = trainer.fit(&mut module, (batches(&[1.0]), loader())).unwrap();
            assert_eq!(module.inner.evaluated.len(), 6 + 3 + 2 + 3);
            let warned = console.contents().matches("batches per epoch, but yielded").count();
            // Of validation, test and prediction.
            assert_eq!(warned, if says == 3 { 0 } else { 3 }, "{}", console.contents());
        }
    }
    let mut module = scheduled();
    quiet().limit_val_batches(2).build().unwrap().validate(&mut module, mistaken(Mistaken(5, 3), false)).unwrap();
    quiet().limit_val_batches(4).build().unwrap().validate(&mut module, mistaken(Mistaken(2, 3), false)).unwrap();
    quiet().limit_val_batches(0.5).build().unwrap().validate(&mut module, mistaken(Mistaken(2, 3), false)).unwrap();
    assert_eq!(module.inner.evaluated, ["0.0=0", "0.1=1", "0.0=0", "0.1=1", "0.2=2", "0.0=0"]);
}

/// Two epochs, windows of two batches.
fn windows() -> TrainerBuilder {
    quiet().max_epochs(2).accumulate_grad_batches(2).num_sanity_val_steps(0)
}

#[test]
fn an_epoch_of_fewer_batches_than_were_trained_on_ends_as_an_epoch_does() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = |n: usize| (0..n).map(|x| x as f64).collect::<Vec<_>>();
    let every = ModelCheckpoint::new()
        .dirpath(folder.path())
        .every_n_train_steps(4)
        .save_top_k(Maximum::Unlimited)
        .filename("{step}");
    let mut trainer = windows().enable_checkpointing(true).callback(every).build().unwrap();
    _ = trainer.fit(&mut scheduled(), (batches(&numbers(20)), batches(&[1.0]))).unwrap();
    let path = folder.path().join("step=4.ckpt");
    let resume = |left: usize, console: &Console, saved: &Path| {
        let best = ModelCheckpoint::monitor("loss").dirpath(saved).save_top_k(Maximum::Unlimited);
        let trainer = windows().enable_checkpointing(true).callback(best).console(console.clone());
        let (mut module, mut trainer) = (scheduled(), trainer.build().unwrap());
        _ = trainer
            .ckpt_path(path.to_str().unwrap())
            .fit(&mut module, (batches(&numbers(left)), batches(&[1.0])))
            .unwrap();
        (module, trainer)
    };
    for left in [6, 8] {
        let (console, saved) = (Console::memory(), tempfile::tempdir().unwrap());
        let (module, mut trainer) = resume(left, &console, saved.path());
        assert_eq!(module.inner.trained_on, numbers(left));
        assert_eq!(trainer.state().global_step(), 4 + left as u64 / 2);
        assert_eq!(lr(&mut trainer), 0.25 * 0.125);
        assert_eq!(module.inner.evaluated.len(), 2);
        assert_eq!(files(saved.path()).len(), 2);
        let said = console.contents();
        assert!(said.contains(&format!("there were 20 batches, and now there are {left} batches")), "{said}");
        assert!(said.contains("after batch 8 of epoch 0, and the training loader has no further one"), "{said}");
    }
    // Shorter, and not over.
    let (console, saved) = (Console::memory(), tempfile::tempdir().unwrap());
    let (module, _) = resume(10, &console, saved.path());
    assert_eq!(module.inner.trained_on.len(), 2 + 10);
    assert!(console.contents().contains("now there are 10 batches"), "{}", console.contents());
    // As it was.
    let console = Console::memory();
    resume(20, &console, saved.path());
    assert!(!console.contents().contains("data have changed"), "{}", console.contents());
}

/// Each time it is asked, it has four batches more.
struct Growing(usize);

impl LightningDataModule for Growing {
    type Batch = Tensor;

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.0 += 4;
        Ok(batches(&vec![1.0; self.0]).into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        Ok(batches(&[1.0]).into())
    }
}

#[test]
fn loaders_that_grow_with_each_epoch_begin_small_where_a_run_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let every = ModelCheckpoint::new()
        .dirpath(folder.path())
        .every_n_train_steps(1)
        .save_top_k(Maximum::Unlimited)
        .filename("{step}");
    let growing = |trainer: TrainerBuilder| trainer.max_epochs(3).reload_dataloaders_every_n_epochs(1);
    let mut module = scheduled();
    let mut trainer = growing(quiet()).enable_checkpointing(true).callback(every).build().unwrap();
    _ = trainer.fit(&mut module, &mut Growing(0)).unwrap();
    assert_eq!(trainer.state().global_step(), 4 + 8 + 12);

    // After the sixth batch of the second epoch.
    let console = Console::memory();
    let mut module = scheduled();
    let mut trainer = growing(quiet()).console(console.clone()).build().unwrap();
    _ = trainer.ckpt_path(folder.path().join("step=10.ckpt")).fit(&mut module, &mut Growing(0)).unwrap();
    assert_eq!(trainer.state().global_step(), 10 + 8);
    assert_eq!(lr(&mut trainer), 0.125 * 0.125);
    assert_eq!(module.inner.evaluated.len(), 2);
    assert!(console.contents().contains("there were 8 batches, and now there are 4 batches"), "{}", console.contents());
}

#[test]
fn loaders_are_asked_for_again_when_they_would_have_been() {
    let folder = tempfile::tempdir().unwrap();
    let every = ModelCheckpoint::new()
        .dirpath(folder.path())
        .every_n_train_steps(1)
        .save_top_k(Maximum::Unlimited)
        .filename("{step}");
    let two = |trainer: TrainerBuilder| trainer.max_epochs(4).reload_dataloaders_every_n_epochs(2);
    let mut data = Growing(0);
    _ = two(quiet())
        .enable_checkpointing(true)
        .callback(every)
        .build()
        .unwrap()
        .fit(&mut scheduled(), &mut data)
        .unwrap();
    assert_eq!(data.0, 8);
    // Of the second epoch, whose loader is that of the first; the third has another.
    for (step, left) in [(6, 2 + 8 + 8), (8, 8 + 8)] {
        let mut module = scheduled();
        let mut data = Growing(0);
        let mut trainer = two(quiet()).build().unwrap();
        _ = trainer.ckpt_path(folder.path().join(format!("step={step}.ckpt"))).fit(&mut module, &mut data).unwrap();
        assert_eq!(module.inner.trained_on.len(), left, "{step}");
    }
}

#[test]
fn an_epoch_without_a_batch_says_so() {
    let console = Console::memory();
    let loader = FnLoader::new(|epoch: u64| (epoch..1).map(|_| Ok::<_, BoxError>(Tensor::from(1f32)))).into_loader();
    _ = quiet().max_epochs(2).console(console.clone()).build().unwrap().fit(&mut scheduled(), loader).unwrap();
    let said = console.contents();
    let said = said.lines().filter(|line| line.contains("yielded no batch")).collect::<Vec<_>>().join("\n");
    expect!["warning: the training loader yielded no batch in epoch 1, so nothing was trained in it"].assert_eq(&said);
}

#[test]
fn a_run_on_a_loader_of_wrong_length_resumes_where_it_was() {
    let all = Maximum::Unlimited;
    let cases = [(7, 3, all), (3, 3, all), (7, 9, Maximum::Of(7)), (3, 9, Maximum::Of(7))];
    for (says, max_epochs, max_steps) in cases {
        let folder = tempfile::tempdir().unwrap();
        let every = || ModelCheckpoint::new().every_n_train_steps(1).save_top_k(Maximum::Unlimited).filename("{step}");
        let fit = |from: Option<u64>| {
            let trainer = windows().max_epochs(max_epochs).max_steps(max_steps).enable_checkpointing(true);
            let saved = tempfile::tempdir().unwrap();
            let to = if from.is_none() { folder.path() } else { saved.path() };
            let mut trainer = trainer.callback(every().dirpath(to)).build().unwrap();
            let mut module = scheduled();
            _ = trainer
                .ckpt_path(from.map(|step| folder.path().join(format!("step={step}.ckpt"))))
                .fit(&mut module, (mistaken(Mistaken(says, 5), false), batches(&[1.0])))
                .unwrap();
            let at = (trainer.state().global_step(), trainer.state().current_epoch(), lr(&mut trainer));
            (module.inner.w(), module.inner.trained_on, module.inner.evaluated.len(), at)
        };
        let (w, trained_on, evaluated, end) = fit(None);
        for step in 1..end.0 {
            let (resumed_w, rest, also_evaluated, resumed_end) = fit(Some(step));
            assert_eq!((resumed_w, resumed_end), (w, end), "{says} from step {step}");
            assert_eq!(rest, trained_on[trained_on.len() - rest.len()..], "{says} from step {step}");
            assert!(also_evaluated <= evaluated);
        }
    }
}
