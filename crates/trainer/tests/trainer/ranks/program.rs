//! What every rank runs: a small training program, told by variables what to do, which writes down what came of it.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fulgurite::Console;
use fulgurite::callbacks::finetuning::{freeze, make_trainable};
use fulgurite::callbacks::{
    BackboneFinetuning, LambdaCallback, LearningRateFinder, ModelPruning, OnExceptionCheckpoint, PruningFn,
};
use fulgurite::data::{
    BatchIter, BoxLoader, DataError, DataLoader, Dataset, IntoLoader, ItemRng, IterableDataLoader, IterableFn, Loader,
};
use fulgurite::fabric::strategy::StrategyChoice;
use fulgurite::metrics::MulticlassAccuracy;
use fulgurite::prelude::*;
use fulgurite::torch::{params, rng};
use serde::{Deserialize, Serialize};

/// Under which variable a run is described to the program.
pub(crate) const PLAN: &str = "FULGURITE_TEST_PLAN";

/// The file that says that slow batches have begun.
pub(crate) const BEGAN: &str = "began";

/// The file with what each process knew once its trainer was built.
pub(crate) const BUILT: &str = "built";

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Plan {
    pub folder: PathBuf,
    pub devices: usize,
    pub num_nodes: u64,
    pub strategy: StrategyChoice,
    pub batch_size: usize,
    /// Items of the training data.
    pub items: usize,
    pub epochs: u64,
    pub accumulate: u64,
    pub dropout: f64,
    /// A batch norm after the first layer.
    pub batch_norm: bool,
    pub sync_batchnorm: bool,
    /// Trains on streams, of which rank 1's has this many items less.
    pub stream_lacks: Option<usize>,
    /// Those streams, on every rank, say that they have so many batches.
    pub stream_says: Option<usize>,
    /// The validation loader of every rank reads all items, and rank 1's has so many less than it says.
    pub eval_lacks: Option<usize>,
    /// Rank 1 asks for the end after this batch.
    pub stop_at: Option<u64>,
    /// Rank 1 is killed in this batch, once.
    pub kill_at: Option<u64>,
    /// Rank 1 has no loss in this batch.
    pub skip_at: Option<u64>,
    /// Rank 1 fails in this batch.
    pub fail_at: Option<u64>,
    /// Whether it panics.
    pub panics: bool,
    /// Whether a checkpoint is asked for after an error.
    pub saves_errors: bool,
    /// Items of the validation and test data.
    pub eval_items: usize,
    /// A learning rate is looked for before.
    pub lr_find: bool,
    /// A layer that takes no part in the loss.
    pub unused: bool,
    /// A checkpoint is written after this many steps, and the run ends there.
    pub cut_at: Option<u64>,
    pub ckpt_path: Option<String>,
    /// Every batch takes this long.
    pub batch_ms: u64,
    /// And every batch of a validation this long.
    pub eval_ms: u64,
    /// A validation is due after this long, not at the end of an epoch.
    pub validate_after_ms: Option<u64>,
    pub seed: u64,
    /// Checkpoints are written to the folder `saved` after so many steps each.
    pub save_every: Option<u64>,
    /// The averages of the weights are validated and saved, and nothing but weights.
    pub ema: bool,
    /// The end of the run is asked for in this batch of the first validation, after a checkpoint of it.
    pub cut_in_validation: Option<usize>,
    /// The checkpoint is tested, and fit is called once more.
    pub again: bool,
    /// The training loader has two batches in the first epoch, and one more in each that follows.
    pub grows: bool,
    /// This rank logs NaN where the other logs 1.
    pub nan_of: Option<usize>,
    /// Rank 1's loss is NaN in this batch.
    pub lost_at: Option<u64>,
    /// Trains on files of this kind.
    pub files: Option<String>,
    /// The first layer is frozen before this epoch.
    pub unfreeze_at: Option<u64>,
    /// The first layer is frozen until this step, within an epoch.
    pub thaw_at: Option<u64>,
    /// Some of the weights are pruned by chance, and the others drawn anew.
    pub prunes: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            folder: PathBuf::new(),
            devices: 2,
            num_nodes: 1,
            strategy: "auto".into(),
            batch_size: 4,
            items: 32,
            epochs: 2,
            accumulate: 1,
            dropout: 0.0,
            batch_norm: false,
            sync_batchnorm: false,
            stream_lacks: None,
            stream_says: None,
            eval_lacks: None,
            stop_at: None,
            kill_at: None,
            skip_at: None,
            fail_at: None,
            panics: false,
            saves_errors: false,
            eval_items: 7,
            lr_find: false,
            unused: false,
            cut_at: None,
            ckpt_path: None,
            batch_ms: 0,
            eval_ms: 0,
            validate_after_ms: None,
            seed: 7,
            save_every: None,
            ema: false,
            cut_in_validation: None,
            again: false,
            grows: false,
            nan_of: None,
            lost_at: None,
            files: None,
            unfreeze_at: None,
            thaw_at: None,
            prunes: false,
        }
    }
}

/// What came of a run on one rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub outcome: String,
    pub steps: u64,
    pub batches: u64,
    pub logged: std::collections::BTreeMap<String, f64>,
    /// Names of what is NaN, which JSON does not have.
    pub nans: Vec<String>,
    pub weights: Vec<f64>,
    /// Running means and variances.
    pub buffers: Vec<f64>,
    /// The items of every training batch.
    pub seen: Vec<Vec<i64>>,
    /// The items of the test.
    pub tested: Vec<i64>,
    /// For every batch of validations, how many training batches were before it.
    pub validated: Vec<u64>,
    pub test_results: Vec<std::collections::BTreeMap<String, f64>>,
    /// The `val_loss` of a checkpoint that the run wrote.
    pub validated_again: Option<f64>,
}

struct Points(usize);

impl Dataset for Points {
    type Item = (Tensor, i64);

    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize, _: &mut ItemRng) -> Result<(Tensor, i64)> {
        Ok(point(index))
    }
}

pub(crate) fn point(index: usize) -> (Tensor, i64) {
    let x = index as f32;
    (Tensor::from_slice(&[(x * 0.7).sin(), (x * 0.3).cos(), x / 10.0]), index as i64)
}

/// Says that it has another number of batches than it may have.
struct Saying(BoxLoader<(Tensor, Tensor)>, usize);

impl Loader for Saying {
    type Batch = (Tensor, Tensor);

    fn len(&self) -> Option<usize> {
        Some(self.1)
    }

    fn iter(&self, epoch: u64, skip: usize) -> std::result::Result<BatchIter<Self::Batch>, DataError> {
        self.0.iter(epoch, skip)
    }
}

/// Has as many batches as it is told, and one loader for all epochs.
struct Growing(Arc<AtomicUsize>);

impl Loader for Growing {
    type Batch = (Tensor, Tensor);

    fn len(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed))
    }

    fn len_is_exact(&self) -> bool {
        true
    }

    fn iter(&self, _: u64, skip: usize) -> std::result::Result<BatchIter<Self::Batch>, DataError> {
        let batch = |index| {
            let (x, item) = point(index);
            Ok((x.unsqueeze(0), Tensor::from_slice(&[item])))
        };
        Ok(Box::new((skip..self.0.load(Ordering::Relaxed)).map(batch)))
    }
}

fn is_rank_1() -> bool {
    std::env::var("RANK").as_deref() == Ok("1")
}

struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    norm: Option<nn::BatchNorm>,
    dropout: nn::Dropout,
    fc2: nn::Linear,
    plan: Plan,
    accuracy: MulticlassAccuracy,
    train_accuracy: MulticlassAccuracy,
    batches: Arc<AtomicUsize>,
    seen: Vec<Vec<i64>>,
    tested: Vec<i64>,
    validated: Vec<u64>,
}

impl Net {
    fn new(plan: &Plan) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        // A bias before a batch norm has a gradient of rounding errors, which AdamW makes steps of.
        let fc1 = nn::linear(3, 16).bias(!plan.batch_norm).at(vars.root() / "fc1").unwrap();
        let norm = plan.batch_norm.then(|| nn::batch_norm1d(16).at(vars.root() / "norm").unwrap());
        let dropout = nn::dropout(plan.dropout).at(vars.root() / "dropout").unwrap();
        let fc2 = nn::linear(16, 3).at(vars.root() / "fc2").unwrap();
        if plan.unused {
            nn::linear(2, 2).at(vars.root() / "spare").unwrap();
        }
        let accuracy = MulticlassAccuracy::new(3);
        Net {
            vars,
            fc1,
            norm,
            dropout,
            fc2,
            plan: plan.clone(),
            accuracy,
            train_accuracy: MulticlassAccuracy::new(3),
            batches: Arc::new(AtomicUsize::new(2)),
            seen: Vec::new(),
            tested: Vec::new(),
            validated: Vec::new(),
        }
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let hidden = self.fc1.forward(x);
        let hidden = self.norm.as_ref().map_or(hidden.shallow_clone(), |norm| norm.forward(&hidden));
        self.fc2.forward(&self.dropout.forward(&hidden.relu()))
    }

    fn take_time(&self, milliseconds: u64) -> Result<()> {
        if milliseconds > 0 {
            std::fs::write(self.plan.folder.join(BEGAN), "")?;
            std::thread::sleep(Duration::from_millis(milliseconds));
        }
        Ok(())
    }
}

fn numbers(items: &Tensor) -> Vec<i64> {
    items.try_into().unwrap()
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        let Plan { batch_size, items, stream_lacks, .. } = self.plan;
        #[cfg(all(feature = "parquet", feature = "webdataset"))]
        if let Some(kind) = &self.plan.files {
            return super::streams::loader(kind, &self.plan.folder, batch_size);
        }
        if self.plan.grows {
            return Ok(Growing(Arc::clone(&self.batches)).into());
        }
        let Some(lacks) = stream_lacks else {
            return Ok(DataLoader::new(Points(items)).batch_size(batch_size).shuffle(true).into());
        };
        let items = if is_rank_1() { items - lacks } else { items };
        let stream = IterableFn::new("points", move |_| Ok((0..items).map(|index| Ok(point(index)))));
        let stream = IterableDataLoader::new(stream).batch_size(batch_size);
        Ok(match self.plan.stream_says {
            Some(batches) => Saying(stream.into_loader(), batches).into(),
            None => stream.into(),
        })
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        if let Some(lacks) = self.plan.eval_lacks {
            let says = self.plan.eval_items;
            let items = if is_rank_1() { says - lacks } else { says };
            return Ok(Saying(DataLoader::new(Points(items)).into_loader(), says).into());
        }
        Ok(DataLoader::new(Points(self.plan.eval_items)).batch_size(2).into())
    }

    fn test_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(DataLoader::new(Points(self.plan.eval_items)).batch_size(2).into())
    }

    fn on_train_epoch_end(&mut self, _: &mut TrainerState) -> Result<()> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn training_step(&mut self, (x, items): Self::Batch, step: &mut Step) -> Result<Loss> {
        self.take_time(self.plan.batch_ms)?;
        self.seen.push(numbers(&items));
        let (logits, classes) = (self.logits(&x), items.remainder(3));
        let loss = logits.cross_entropy_for_logits(&classes);
        self.train_accuracy.update(&logits, &classes)?;
        step.log("train_acc", &self.train_accuracy).epoch_only();
        if let Some(rank) = self.plan.nan_of {
            let value = if is_rank_1() == (rank == 1) { f64::NAN } else { 1.0 };
            step.log("max", value).step_only().sync_dist(true).reduce(Reduce::Max);
            step.log("min", value).step_only().sync_dist(true).reduce(Reduce::Min);
            step.log("finite", value.max(1.0)).step_only().sync_dist(true).reduce(Reduce::Max);
        }
        step.log("narrow", loss.to_kind(Kind::Half) * 1000).epoch_only().sync_dist(true);
        step.log("train_loss", &loss).on_step().on_epoch();
        step.log("synced", &loss).step_only().sync_dist(true);
        let batch = step.trainer().progress().batch.total.ready;
        let is_other = !step.trainer().is_global_zero();
        if is_other && Some(batch) == self.plan.stop_at {
            step.trainer().request_stop("rank 1 has seen enough");
        }
        if is_other && Some(batch) == self.plan.fail_at {
            assert!(!self.plan.panics, "rank 1 has a bug");
            return Err("rank 1 read a broken file".into());
        }
        if is_other
            && Some(batch) == self.plan.kill_at
            && std::fs::File::create_new(self.plan.folder.join("killed")).is_ok()
        {
            std::process::Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status()?;
        }
        if is_other && Some(batch) == self.plan.skip_at {
            return Ok(Loss::skip());
        }
        Ok(if is_other && Some(batch) == self.plan.lost_at { (loss * f64::NAN).into() } else { loss.into() })
    }

    fn validation_step(&mut self, (x, items): Self::Batch, step: &mut Step) -> Result<()> {
        if !step.trainer().is_sanity_checking() {
            self.take_time(self.plan.eval_ms)?;
            self.validated.push(step.trainer().progress().batch.total.ready);
        }
        let loss = self.logits(&x).cross_entropy_for_logits(&items.remainder(3));
        step.log("val_loss", &loss);
        let batch = self.validated.len();
        if self.plan.cut_in_validation == Some(batch) {
            let path = self.plan.folder.join("cut.ckpt");
            step.trainer().request_checkpoint(fulgurite::SaveRequest::new(&path));
            step.trainer().request_stop("cut");
        }
        Ok(())
    }

    fn test_step(&mut self, (x, items): Self::Batch, step: &mut Step) -> Result<()> {
        self.tested.extend(numbers(&items));
        let (logits, classes) = (self.logits(&x), items.remainder(3));
        self.accuracy.update(&logits, &classes)?;
        step.log("test_acc", &self.accuracy);
        step.log("test_loss", logits.cross_entropy_for_logits(&classes));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        // What is frozen joins with a parameter group of its own.
        match self.plan.unfreeze_at {
            Some(_) => Ok(AdamW::new(params::trainable_parameters(&self.vars)).lr(0.01).into()),
            None => Ok(AdamW::new(&self.vars).lr(0.01).into()),
        }
    }
}

/// Runs the plan that the environment holds, if it holds one.
pub(crate) fn run_from_env() -> Option<Result<()>> {
    let plan = std::env::var(PLAN).ok()?;
    Some(serde_json::from_str(&plan).map_err(Into::into).and_then(|plan| run(&plan)))
}

/// Notes what the trainer is once it is built, a line for each process.
fn note_building(plan: &Plan, trainer: &Trainer) -> Result<()> {
    let fabric = trainer.state().fabric();
    let (world_size, is_zero) = (fabric.world_size(), fabric.is_global_zero());
    let line = format!("launched {}, zero {is_zero}, of {world_size}\n", fabric.is_launched());
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(plan.folder.join(BUILT))?;
    Ok(file.write_all(line.as_bytes())?)
}

/// Where a plan asks for several processes, this is called in each of them, and before in the one that starts them.
fn run(plan: &Plan) -> Result<()> {
    rng::seed_everything(plan.seed)?;
    let mut trainer = Trainer::builder()
        .accelerator("cpu")
        .devices(plan.devices)
        .num_nodes(plan.num_nodes)
        .strategy(plan.strategy.clone())
        .max_epochs(plan.epochs)
        .accumulate_grad_batches(plan.accumulate)
        .sync_batchnorm(plan.sync_batchnorm)
        .log_every_n_steps(1)
        .default_root_dir(&plan.folder)
        .enable_checkpointing(plan.save_every.is_some() || plan.saves_errors)
        .enable_model_summary(false)
        .console(Console::stderr());
    if let Some(interval) = plan.validate_after_ms {
        trainer = trainer.val_check_interval(Duration::from_millis(interval));
    }
    if plan.lr_find {
        trainer = trainer.callback(LearningRateFinder::new());
    }
    if plan.saves_errors {
        trainer = trainer.callback(OnExceptionCheckpoint::new(&plan.folder));
    }
    if let Some(cut_at) = plan.cut_at {
        let path = plan.folder.join("cut.ckpt");
        trainer = trainer.callback(LambdaCallback::new().on_train_batch_end(move |trainer, _, _, _, _| {
            if trainer.global_step() == cut_at {
                trainer.request_checkpoint(fulgurite::SaveRequest::new(&path));
                trainer.request_stop("cut");
            }
            Ok(())
        }));
    }
    if let Some(steps) = plan.save_every {
        let checkpoints =
            ModelCheckpoint::new().dirpath(plan.folder.join("saved")).filename("{step}").save_top_k(Maximum::Unlimited);
        trainer = trainer.callback(checkpoints.every_n_train_steps(steps).save_last(SaveLast::Link));
    }
    if plan.ema {
        let best = ModelCheckpoint::monitor("val_loss").dirpath(plan.folder.join("best")).save_weights_only(true);
        trainer = trainer.callback(EMAWeightAveraging::new().decay(0.8)).callback(best).enable_checkpointing(true);
    }
    if let Some(epoch) = plan.unfreeze_at {
        let finetuning = BackboneFinetuning::new().backbone("fc1").unfreeze_backbone_at_epoch(epoch);
        trainer = trainer.callback(finetuning.backbone_initial_lr(0.01));
    }
    if let Some(step) = plan.thaw_at {
        trainer = trainer.callback(LambdaCallback::new().on_train_batch_end(move |trainer, module, _, _, _| {
            if trainer.global_step() == step {
                make_trainable(module.vars(), &["fc1"])?;
            }
            Ok(())
        }));
    }
    if plan.prunes {
        let pruning = ModelPruning::new(PruningFn::RandomUnstructured).amount(0.3);
        trainer = trainer.callback(pruning.resample_parameters(true));
    }
    let mut trainer = trainer.build()?;
    note_building(plan, &trainer)?;
    let mut net = Net::new(plan);
    if plan.thaw_at.is_some() {
        freeze(&net.vars, &["fc1"], false)?;
    }
    let outcome = trainer.ckpt_path(plan.ckpt_path.as_ref()).fit(&mut net, ())?;
    trainer.continue_after_interruption();
    let flat = |tensors: Vec<(String, Tensor)>| {
        tensors.iter().flat_map(|(_, tensor)| Vec::<f64>::try_from(tensor.flatten(0, -1)).unwrap()).collect::<Vec<_>>()
    };
    let weights = flat(params::named_parameters(&net.vars));
    let buffers = flat(params::named_buffers(&net.vars));
    let state = trainer.state();
    let (steps, batches) = (state.global_step(), state.progress().batch.total.completed);
    let (logged, rank) = (state.logged_metrics().clone(), state.fabric().global_rank());
    let (nans, logged) = logged.into_iter().partition::<std::collections::BTreeMap<_, _>, _>(|(_, x)| x.is_nan());
    if plan.again {
        trainer.ckpt_path("last").verbose(false).test(&mut net, ())?;
        _ = trainer.fit(&mut net, ())?;
    }
    let best = plan.ema.then(|| trainer.ckpt_path("best")).map(|trainer| trainer.verbose(false).validate(&mut net, ()));
    let validated_best = best.transpose()?.map(|results| results[0]["val_loss"]);
    let saved = plan.save_every.map(|steps| plan.folder.join(format!("saved/step={}.ckpt", steps)));
    let validated_saved = match saved.filter(|path| !plan.ema && path.exists()) {
        Some(path) => {
            Some(trainer.ckpt_path(path.display().to_string()).verbose(false).validate(&mut net, ())?[0]["val_loss"])
        }
        None => None,
    };
    let test_results = trainer.verbose(false).test(&mut net, ())?;
    let report = Report {
        outcome: format!("{outcome:?}"),
        steps,
        batches,
        logged,
        nans: nans.into_keys().collect(),
        weights,
        buffers,
        seen: net.seen,
        tested: net.tested,
        validated: net.validated,
        test_results,
        validated_again: validated_best.or(validated_saved),
    };
    std::fs::write(plan.folder.join(format!("rank{rank}.json")), serde_json::to_string(&report)?)?;
    if let Some(signal) = outcome.signal() {
        std::process::exit(128 + signal.number());
    }
    Ok(())
}
