//! Several loaders, combined loaders, and loaders that are asked for again.

use expect_test::expect;
use fulgurite::data::{
    BatchIter, BoxLoader, CombinedLoader, DataError, DataLoader, FnLoader, InMemory, IntoLoader, IterableDataLoader,
    IterableFn, Loader, SampleIter, Sampler,
};
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::prelude::*;
use fulgurite::{Console, Data, IntoData, TrainerFn};

use super::{Weight, batches, quiet, weight};

#[test]
fn several_loaders_are_walked_in_turn_and_told_apart() {
    let several = || Loaders::from(batches(&[1.0, 3.0])).and(batches(&[5.0]));
    let logger = MemoryLogger::new();
    let mut trainer = quiet().logger(logger.clone()).build().unwrap();
    for entry in [TrainerFn::Validate, TrainerFn::Test] {
        let mut module = weight();
        let results = match entry {
            TrainerFn::Test => trainer.test(&mut module, several()),
            _ => trainer.validate(&mut module, several()),
        };
        assert_eq!(module.evaluated, ["0.0=1", "0.1=3", "1.0=5"]);
        let names: Vec<String> = results.unwrap().iter().map(|result| format!("{result:?}")).collect();
        assert_eq!(names, [r#"{"loss/dataloader_idx_0": 2.0}"#, r#"{"loss/dataloader_idx_1": 5.0}"#]);
        let written = logger.take().into_iter().filter_map(|call| match call {
            Logged::Metrics { metrics, step } => Some((metrics.into_iter().map(|(name, _)| name).collect(), step)),
            _ => None,
        });
        let names = ["loss/dataloader_idx_0", "loss/dataloader_idx_1", "epoch"].map(str::to_owned).to_vec();
        assert_eq!(written.collect::<Vec<(Vec<String>, i64)>>(), [(names, 0)]);
    }

    let mut module = weight();
    let predictions = trainer.predict(&mut module, several()).unwrap();
    assert_eq!(predictions.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);

    let mut module = weight();
    _ = trainer.fit(&mut module, (batches(&[1.0]), several())).unwrap();
    assert_eq!(module.evaluated, ["0.0=1", "0.1=3", "1.0=5", "0.0=1", "0.1=3", "1.0=5"]);
    assert_eq!(trainer.state().num_eval_batches(), [Some(2), Some(1)]);
    assert_eq!(trainer.state().num_sanity_val_batches(), [Some(2), Some(1)]);
}

#[test]
fn one_loader_alone_adds_no_suffix() {
    let results = quiet().build().unwrap().validate(&mut weight(), batches(&[1.0])).unwrap();
    assert_eq!(format!("{results:?}"), r#"[{"loss": 1.0}]"#);
}

#[test]
fn a_sequential_combination_is_several_loaders() {
    let sequential = || CombinedLoader::sequential([batches(&[1.0, 3.0, 5.0]), batches(&[7.0, 9.0])]);
    let mut module = weight();
    let results = quiet().limit_val_batches(2).build().unwrap().validate(&mut module, sequential()).unwrap();
    assert_eq!(module.evaluated, ["0.0=1", "0.1=3", "1.0=7", "1.1=9"]);
    assert_eq!(results.len(), 2);

    let error = quiet().build().unwrap().fit(&mut weight(), sequential()).unwrap_err();
    expect![
        "fit was given a `CombinedLoader::sequential` to train on, which is for evaluation; choose one of its other modes, or join the data with a `ConcatDataset`"
    ]
    .assert_eq(&error.to_string());
}

/// Trains on two loaders at once.
struct Pairs(Weight, Vec<String>);

impl LightningModule for Pairs {
    type Batch = (Tensor, Option<Tensor>);

    fn vars(&self) -> &dyn Parameters {
        &self.0.vars
    }

    fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
        let number = |tensor: &Tensor| tensor.double_value(&[]).to_string();
        self.1.push(format!("{}+{}", number(&x), y.as_ref().map_or("-".to_owned(), number)));
        self.0.training_step(x, step)
    }

    fn validation_step(&mut self, (x, _): Self::Batch, step: &mut Step) -> Result<()> {
        self.0.validation_step(x, step)
    }

    fn configure_optimizers(&mut self, t: &mut TrainerState) -> Result<Optimizers> {
        self.0.configure_optimizers(t)
    }
}

/// A long and a short one, the short one's batches as `Some`.
fn pair(long: &[f64], short: &[f64]) -> CombinedLoader<(Tensor, Option<Tensor>)> {
    let short: Vec<Option<Tensor>> = batches(short).into_iter().map(Some).collect();
    CombinedLoader::max_size_cycle((batches(long), short))
}

#[test]
fn training_and_validation_on_loaders_walked_together() {
    let mut module = Pairs(weight(), Vec::new());
    let mut trainer = quiet().max_epochs(2).num_sanity_val_steps(0).build().unwrap();
    _ = trainer.fit(&mut module, (pair(&[1.0, 2.0, 3.0], &[0.1, 0.2]), pair(&[4.0], &[5.0]))).unwrap();
    let epoch = ["1+0.10000000149011612", "2+0.20000000298023224", "3+0.10000000149011612"];
    assert_eq!(module.1, [epoch, epoch].concat());
    assert_eq!(module.0.evaluated, ["0.0=4", "0.0=4"]);
    assert_eq!(trainer.state().num_training_batches(), Some(3));

    let mut module = Pairs(weight(), Vec::new());
    let mut trainer = quiet().limit_train_batches(0.5).build().unwrap();
    _ = trainer.fit(&mut module, pair(&[1.0, 2.0, 3.0, 4.0], &[0.5])).unwrap();
    assert_eq!(module.1, ["1+0.5", "2+0.5"]);
}

#[test]
fn a_run_on_combined_loaders_resumes_exactly() {
    let root = tempfile::tempdir().unwrap();
    let data = || pair(&[1.0, 2.0, 3.0, 4.0, 5.0], &[0.5, 0.25]);
    let every = ModelCheckpoint::new()
        .dirpath(root.path())
        .every_n_train_steps(1)
        .save_top_k(Maximum::Unlimited)
        .filename("{step}");
    let mut whole = Pairs(weight(), Vec::new());
    _ = quiet().enable_checkpointing(true).callback(every).build().unwrap().fit(&mut whole, data()).unwrap();
    for step in 1..5 {
        let mut resumed = Pairs(weight(), Vec::new());
        let path = root.path().join(format!("step={step}.ckpt"));
        _ = quiet().build().unwrap().ckpt_path(path.to_str().unwrap()).fit(&mut resumed, data()).unwrap();
        assert_eq!(resumed.1, whole.1[step..]);
        assert_eq!(resumed.0.w(), whole.0.w());
    }
}

#[test]
fn several_training_loaders_must_be_combined() {
    let several = Loaders::from(batches(&[1.0])).and(batches(&[2.0]));
    let error = quiet().build().unwrap().fit(&mut weight(), several).unwrap_err();
    expect![
        "fit was given 2 training loaders; train on all of them at once through a `CombinedLoader`, such as `CombinedLoader::max_size_cycle((a, b))`, or on their data as one with a `ConcatDataset`"
    ]
    .assert_eq(&error.to_string());
}

/// Other batches every time it is asked.
#[derive(Default)]
struct Renewed {
    train: u32,
    val: u32,
}

impl LightningDataModule for Renewed {
    type Batch = Tensor;

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.train += 1;
        Ok(batches(&[f64::from(self.train); 2]).into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.val += 1;
        Ok(batches(&[f64::from(self.val)]).into())
    }
}

#[test]
fn loaders_are_asked_for_again() {
    let run = |every: u64, sanity: u64| {
        let (mut module, mut data) = (weight(), Renewed::default());
        let mut trainer = quiet()
            .max_epochs(5)
            .num_sanity_val_steps(sanity)
            .reload_dataloaders_every_n_epochs(every)
            .build()
            .unwrap();
        _ = trainer.fit(&mut module, &mut data).unwrap();
        let trained: Vec<f64> = module.trained_on.chunks(2).map(|epoch| epoch[0]).collect();
        let evaluated: Vec<String> = module.evaluated.iter().map(|batch| batch.replace("0.0=", "")).collect();
        format!("{trained:?} {}", evaluated.join(" "))
    };
    expect!["[1.0, 1.0, 1.0, 1.0, 1.0] 1 1 1 1 1"].assert_eq(&run(0, 0));
    expect!["[1.0, 2.0, 3.0, 4.0, 5.0] 1 2 3 4 5"].assert_eq(&run(1, 0));
    expect!["[1.0, 1.0, 2.0, 2.0, 3.0] 1 1 2 2 3"].assert_eq(&run(2, 0));
    expect!["[1.0, 2.0, 3.0, 4.0, 5.0] 1 1 2 3 4 5"].assert_eq(&run(1, 2));
}

/// Batches that are others in every epoch.
#[derive(Clone, Copy)]
struct Anew;

fn items_of(epoch: u64) -> impl Iterator<Item = usize> + Send {
    (0..3).map(move |batch| (epoch as usize * 3 + batch) % 30)
}

impl Sampler<Vec<usize>> for Anew {
    fn iter(&self, _: u64, epoch: u64) -> SampleIter<Vec<usize>> {
        Box::new(items_of(epoch).map(|item| vec![item]))
    }

    fn len(&self) -> usize {
        3
    }
}

impl Loader for Anew {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        Some(3)
    }

    fn iter(&self, epoch: u64, skip: usize) -> std::result::Result<BatchIter<Tensor>, DataError> {
        Ok(Box::new(items_of(epoch).skip(skip).map(|item| Ok(Tensor::from(item as f32)))))
    }

    fn is_shuffled(&self) -> bool {
        true
    }
}

#[test]
fn overfitting_sees_the_same_batches_in_every_epoch() {
    let one = |items: Vec<f32>| -> Result<Tensor> { Ok(Tensor::from(items[0])) };
    let sampled = || {
        DataLoader::new(InMemory::new((0..30).map(|item| item as f32))).batch_sampler(Anew).collate(one).into_loader()
    };
    let mapped = || {
        let items = InMemory::new((0..30).map(|item| item as f32));
        DataLoader::new(items).shuffle(true).collate(one).map_batch(|batch, _| Ok(batch + 0.0)).into_loader()
    };
    let mapped_stream = || {
        let items = IterableFn::new("items", |epoch| Ok(items_of(epoch).map(|item| Ok(item as f32))));
        IterableDataLoader::new(items).collate(one).map_batch(|batch, _| Ok(batch + 0.0)).into_loader()
    };
    let stream = || FnLoader::new(|epoch| items_of(epoch).map(|item| Ok(Tensor::from(item as f32)))).into_loader();
    let both = || First(CombinedLoader::min_size((sampled(), Anew))).into_loader();
    for (loader, warning) in [
        (&sampled as &dyn Fn() -> BoxLoader<Tensor>, "as its batch sampler has it in the first epoch"),
        (&|| Anew.into_loader(), "so each is read as the first"),
        (&|| Anew.limit(3).into_loader(), "so each is read as the first"),
        (&both, "so each is read as the first"),
        (&stream, ""),
        (&mapped, "is read in dataset order"),
        (&mapped_stream, ""),
    ] {
        let console = Console::memory();
        let mut module = weight();
        let mut trainer =
            quiet().max_epochs(3).overfit_batches(2).num_sanity_val_steps(0).console(console.clone()).build().unwrap();
        _ = trainer.fit(&mut module, (loader(), loader())).unwrap();
        assert_eq!(module.trained_on, [[0.0, 1.0]; 3].concat());
        assert_eq!(module.evaluated, [["0.0=0", "0.1=1"]; 3].concat());
        assert!(console.contents().contains(warning), "{}", console.contents());
    }
}

/// The first of two loaders that are walked together.
struct First(CombinedLoader<(Tensor, Tensor)>);

impl Loader for First {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        self.0.len()
    }

    fn iter(&self, epoch: u64, skip: usize) -> std::result::Result<BatchIter<Tensor>, DataError> {
        Ok(Box::new(self.0.iter(epoch, skip)?.map(|row| row.map(|(first, _)| first))))
    }

    fn is_shuffled(&self) -> bool {
        self.0.is_shuffled()
    }
}

#[test]
fn loaders_handed_over_are_kept() {
    let mut module = weight();
    let mut trainer = quiet().max_epochs(3).reload_dataloaders_every_n_epochs(1).build().unwrap();
    _ = trainer.fit(&mut module, (batches(&[1.0]), batches(&[2.0]))).unwrap();
    assert_eq!(module.trained_on, [1.0; 3]);
}

#[test]
fn loaders_may_be_boxed() {
    let mut module = weight();
    _ = quiet().build().unwrap().fit(&mut module, batches(&[2.0]).into_loader()).unwrap();
    assert_eq!(module.trained_on, [2.0]);
}

/// Has loaders of its own; what the trainer knew when it asked is written down.
struct WithLoaders {
    weight: Weight,
    asked: Vec<String>,
}

impl WithLoaders {
    fn loader(&mut self, trainer: &mut TrainerState, hook: &str, x: f64) -> Result<Loaders<Tensor>> {
        self.asked.push(format!("{hook} in epoch {}", trainer.current_epoch()));
        Ok(batches(&[x]).into())
    }
}

impl LightningModule for WithLoaders {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.weight.vars
    }

    fn train_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.loader(trainer, "train_dataloader", 1.0)
    }

    fn val_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.loader(trainer, "val_dataloader", 2.0)
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        self.weight.training_step(x, step)
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        self.weight.validation_step(x, step)
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.weight.configure_optimizers(trainer)
    }
}

/// As Lightning's `fit(model, train_loader)` does it.
#[test]
fn each_loader_that_is_not_handed_over_is_asked_of_the_module() {
    fn run<'a, K>(data: impl IntoData<'a, Tensor, K>) -> String {
        let mut module = WithLoaders { weight: weight(), asked: Vec::new() };
        let mut trainer =
            quiet().max_epochs(2).num_sanity_val_steps(0).reload_dataloaders_every_n_epochs(1).build().unwrap();
        _ = trainer.fit(&mut module, data).unwrap();
        let WithLoaders { weight, asked } = module;
        format!("{:?} {} | {}", weight.trained_on, weight.evaluated.join(" "), asked.join(", "))
    }
    expect!["[1.0, 1.0] 0.0=2 0.0=2 | train_dataloader in epoch 0, val_dataloader in epoch 0, train_dataloader in epoch 1, val_dataloader in epoch 1"].assert_eq(&run(()));
    expect!["[10.0, 10.0] 0.0=2 0.0=2 | val_dataloader in epoch 0, val_dataloader in epoch 1"]
        .assert_eq(&run(batches(&[10.0])));
    expect!["[1.0, 1.0] 0.0=20 0.0=20 | train_dataloader in epoch 0, train_dataloader in epoch 1"]
        .assert_eq(&run(Data::val(batches(&[20.0]))));
    expect!["[10.0, 10.0] 0.0=20 0.0=20 | "].assert_eq(&run((batches(&[10.0]), batches(&[20.0]))));
    // An empty list is no validation.
    expect!["[10.0, 10.0]  | "].assert_eq(&run((batches(&[10.0]), Loaders::none())));
}

#[test]
fn a_function_and_the_first_batches_of_a_loader_are_handed_over_as_they_are() {
    let numbers =
        |count: i32| FnLoader::new(move |_| (1..=count).map(|n| Ok::<_, fulgurite::BoxError>(Tensor::from(n))));
    let mut module = weight();
    _ = quiet().max_epochs(1).build().unwrap().fit(&mut module, numbers(3)).unwrap();
    _ = quiet().max_epochs(1).build().unwrap().fit(&mut module, numbers(9).limit(2)).unwrap();
    _ = quiet().max_epochs(1).build().unwrap().fit(&mut module, (numbers(1).limit(5), numbers(4).limit(1))).unwrap();
    assert_eq!(module.trained_on, [1.0, 2.0, 3.0, 1.0, 2.0, 1.0]);
    assert_eq!(module.evaluated.last().unwrap(), "0.0=1");
}
