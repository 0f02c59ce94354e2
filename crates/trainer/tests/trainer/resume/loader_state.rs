//! Loaders whose order depends on a generator of their own.

use std::sync::{Arc, Mutex};

use fulgurite::callbacks::{BatchSizeFinder, LearningRateFinder};
use fulgurite::data::{BoxLoader, CombinedLoader, IntoLoader, Loader};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::tuner::{BatchSizeFinderOptions, LearningRateFinderOptions, Tuner};
use fulgurite::{Console, TrainerBuilder, TrainerFn};
use fulgurite_test_support::quiet;

use crate::drawing::Drawing;

/// Numbers from `from` on.
fn drawing(from: usize, len: usize) -> Drawing<Tensor> {
    let generator = Arc::new(Mutex::new(from as i64));
    Drawing { items: from..from + len, generator, batch: |number| Tensor::from(number as f32) }
}

/// Writes down what it is trained on.
struct Seen<B> {
    vars: nn::VarStore,
    w: Tensor,
    seen: Vec<String>,
    text: fn(&B) -> String,
}

fn seen<B>(text: fn(&B) -> String) -> Seen<B> {
    let vars = nn::VarStore::new(Device::Cpu);
    let w = vars.root().var("w", &[], nn::Init::Const(1.0));
    Seen { vars, w, seen: Vec::new(), text }
}

impl<B: fulgurite::data::Batch> LightningModule for Seen<B> {
    type Batch = B;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: B, _: &mut Step) -> Result<Loss> {
        self.seen.push((self.text)(&batch));
        Ok((&self.w * &self.w).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.1).into())
    }
}

fn number(tensor: &Tensor) -> String {
    tensor.double_value(&[]).to_string()
}

/// Resumes a run from each of its checkpoints, after every batch and after every epoch.
fn resumes_exactly<B: fulgurite::data::Batch>(data: impl Fn() -> BoxLoader<B>, text: fn(&B) -> String) -> Vec<String> {
    resumes_exactly_with(|| quiet().max_epochs(3), data, text)
}

fn resumes_exactly_with<B: fulgurite::data::Batch>(
    trainer: impl Fn() -> TrainerBuilder,
    data: impl Fn() -> BoxLoader<B>,
    text: fn(&B) -> String,
) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let saves = |builder: TrainerBuilder| {
        let every = || ModelCheckpoint::new().dirpath(root.path()).save_top_k(Maximum::Unlimited);
        let batches = every().every_n_train_steps(1).filename("batch-{step}");
        let epochs = every().every_n_epochs(1).save_on_train_epoch_end(true).filename("epoch-{step}");
        builder.enable_checkpointing(true).callback(batches).callback(epochs)
    };
    let mut whole = seen(text);
    _ = saves(trainer()).build().unwrap().fit(&mut whole, data()).unwrap();
    let mut resumed_from = 0;
    for file in std::fs::read_dir(root.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let step: usize = name.rsplit('=').next().unwrap().parse().unwrap();
        let mut resumed = seen(text);
        _ = trainer().build().unwrap().ckpt_path(path.to_str().unwrap()).fit(&mut resumed, data()).unwrap();
        assert_eq!(resumed.seen, whole.seen[step..], "{name}");
        resumed_from += 1;
    }
    assert_eq!(resumed_from, whole.seen.len() + 3);
    whole.seen
}

#[test]
fn a_loader_with_a_generator_of_its_own_resumes_exactly() {
    let whole = resumes_exactly(|| drawing(0, 4).into_loader(), number);
    assert_ne!(whole[..4], whole[4..8], "the generator goes on");
    resumes_exactly(|| drawing(0, 5).limit(3).into_loader(), number);

    // A checkpoint of after the run, whose loader is gone.
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("after.ckpt");
    let mut trainer = quiet().max_epochs(1).build().unwrap();
    let mut first = seen(number);
    _ = trainer.fit(&mut first, drawing(0, 4)).unwrap();
    trainer.save_checkpoint(&mut first, &path, false).unwrap();
    let mut rest = seen(number);
    _ = quiet().max_epochs(3).build().unwrap().ckpt_path(path.to_str().unwrap()).fit(&mut rest, drawing(0, 4)).unwrap();
    assert_eq!([first.seen, rest.seen].concat(), whole);
}

#[test]
fn several_loaders_with_generators_resume_exactly() {
    let both = |(a, b): &(Tensor, Tensor)| format!("{}+{}", number(a), number(b));
    resumes_exactly(|| CombinedLoader::max_size_cycle((drawing(0, 5), drawing(10, 2))).into_loader(), both);
    resumes_exactly(|| CombinedLoader::min_size((drawing(0, 3), drawing(10, 2))).into_loader(), both);
}

#[test]
fn a_checkpoint_without_the_state_of_the_loader_is_told() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("last.ckpt");
    let stateless = || vec![Tensor::from(1.0f32), Tensor::from(2.0f32)];
    let mut trainer = quiet().max_epochs(1).build().unwrap();
    let mut module = seen(number);
    _ = trainer.fit(&mut module, stateless()).unwrap();
    trainer.save_checkpoint(&mut module, &path, false).unwrap();
    let said = |data: BoxLoader<Tensor>| {
        let console = Console::memory();
        let mut trainer = quiet().max_epochs(2).console(console.clone()).build().unwrap();
        _ = trainer.ckpt_path(path.to_str().unwrap()).fit(&mut seen(number), data).unwrap();
        console.contents()
    };
    assert!(said(drawing(0, 2).into_loader()).contains("the training loader has a state"));
    assert!(!said(stateless().into_loader()).contains("the training loader has a state"));
}

#[test]
fn overfitting_repeats_the_first_epoch_of_such_a_loader() {
    let overfit = || quiet().max_epochs(3).overfit_batches(3);
    let whole = resumes_exactly_with(overfit, || drawing(0, 5).into_loader(), number);
    assert_eq!((&whole[3..6], &whole[6..]), (&whole[..3], &whole[..3]));
    let both = |(a, b): &(Tensor, Tensor)| format!("{}+{}", number(a), number(b));
    let data = || CombinedLoader::max_size_cycle((drawing(0, 5), drawing(10, 2))).into_loader();
    let whole = resumes_exactly_with(overfit, data, both);
    assert_eq!((&whole[3..6], &whole[6..]), (&whole[..3], &whole[..3]));
}

/// A module whose loaders draw from one generator, as many batches as have this size.
struct Tuned {
    seen: Seen<Tensor>,
    evaluated: Vec<String>,
    generator: Arc<Mutex<i64>>,
    lr: f64,
    batch_size: i64,
}

/// Batches of more than this are too many for the memory.
const MEMORY: i64 = 4;

impl Tuned {
    fn new() -> Tuned {
        let generator = Arc::new(Mutex::new(3));
        Tuned { seen: seen(number), evaluated: Vec::new(), generator, lr: 0.1, batch_size: 1 }
    }

    fn loader(&self) -> Drawing<Tensor> {
        Drawing { generator: Arc::clone(&self.generator), ..drawing(0, 32 / self.batch_size as usize) }
    }

    fn use_memory(&self) {
        assert!(self.batch_size <= MEMORY, "out of memory");
    }
}

impl LightningModule for Tuned {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        self.seen.vars()
    }

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        Ok(self.loader().into())
    }

    fn predict_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        Ok(self.loader().into())
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        self.use_memory();
        self.seen.training_step(batch, step)
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        self.use_memory();
        self.evaluated.push(number(&batch));
        Ok(Value::None)
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.seen.configure_optimizers(trainer)
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new().with("lr", self.lr).with("batch_size", self.batch_size))
    }

    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        match name {
            "lr" => self.lr = value.as_float().ok_or("no number")?,
            "batch_size" => self.batch_size = value.as_int().ok_or("no number")?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What is trained on after a trial.
fn last<T: Clone>(seen: &[T], count: usize) -> Vec<T> {
    seen[seen.len() - count..].to_vec()
}

#[test]
fn the_learning_rate_finder_leaves_the_order_as_it_was() {
    let fit = |builder: TrainerBuilder, module: &mut Tuned| {
        _ = builder.max_epochs(2).build().unwrap().fit(module, ()).unwrap();
        last(&module.seen.seen, 64)
    };
    let untouched = fit(quiet(), &mut Tuned::new());
    assert_ne!(untouched[..32], untouched[32..], "the generator goes on");
    let options = || LearningRateFinderOptions::default().num_training(50);

    let mut tuned = Tuned::new();
    let mut trainer = quiet().build().unwrap();
    Tuner::new(&mut trainer).lr_find(&mut tuned, (), options()).unwrap().unwrap();
    assert_eq!(fit(quiet(), &mut tuned), untouched);

    let finder = LearningRateFinder::new().num_training(50);
    let mut tuned = Tuned::new();
    assert_eq!(fit(quiet().callback(finder), &mut tuned), untouched);
    assert!(tuned.seen.seen.len() > 64, "there was a trial");
}

#[test]
fn the_batch_size_finder_leaves_the_order_as_it_was() {
    let fit = |builder: TrainerBuilder, module: &mut Tuned| {
        _ = builder.max_epochs(2).build().unwrap().fit(module, ()).unwrap();
        last(&module.seen.seen, 16)
    };
    let predict = |module: &mut Tuned| {
        quiet().build().unwrap().predict(module, ()).unwrap();
        last(&module.evaluated, 8)
    };
    let of_that_size = || Tuned { batch_size: MEMORY, ..Tuned::new() };
    let (trained, predicted) = (fit(quiet(), &mut of_that_size()), predict(&mut of_that_size()));

    let mut tuned = Tuned::new();
    let mut trainer = quiet().build().unwrap();
    let options = BatchSizeFinderOptions::default;
    Tuner::new(&mut trainer).scale_batch_size(&mut tuned, (), options()).unwrap();
    assert_eq!((tuned.batch_size, fit(quiet(), &mut tuned)), (MEMORY, trained.clone()));
    assert_eq!(fit(quiet().callback(BatchSizeFinder::new()), &mut Tuned::new()), trained);

    let mut tuned = Tuned::new();
    Tuner::new(&mut trainer).scale_batch_size_for(TrainerFn::Predict, &mut tuned, (), options()).unwrap();
    assert_eq!((tuned.batch_size, predict(&mut tuned)), (MEMORY, predicted));
}
