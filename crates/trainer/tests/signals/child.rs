//! The program that trains: what it does at which moment is its plan.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};
use std::time::Duration;

use fulgurite::callbacks::OnExceptionCheckpoint;
use fulgurite::data::{DataLoader, InMemory};
use fulgurite::fabric::{CheckpointIo, FabricError, TorchCheckpointIo};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params;
use fulgurite::tuner::{LearningRateFinderOptions, Tuner};
use fulgurite::{Plugin, Signal, SlurmRequeue};
use signal_hook::low_level::raise;

use super::process::{FOLDER, PLAN};

/// `batch=3 signal=SIGTERM hang`: the words of the plan.
#[derive(Clone)]
struct Plan(String);

impl Plan {
    fn has(&self, word: &str) -> bool {
        self.0.split(' ').any(|held| held == word)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.value(name).map(|value| value.parse().unwrap())
    }

    /// Sends the signal, if the moment has come.
    fn at(&self, moment: &str, count: u64) {
        if self.number(moment) != Some(count) {
            return;
        }
        let signal = match self.value("signal") {
            Some("SIGINT") => Signal::Interrupt,
            Some("SIGHUP") => Signal::Hangup,
            Some("SIGUSR1") => Signal::User1,
            Some("SIGUSR2") => Signal::User2,
            Some("SIGTERM") | None => Signal::Terminate,
            Some(other) => panic!("{other}"),
        };
        println!("{signal} in {moment}");
        raise(signal.number()).unwrap();
        while self.has("hang") {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

struct Net {
    vars: nn::VarStore,
    layer: nn::Linear,
    plan: Plan,
    seen: u64,
    validated: u64,
    epochs: u64,
}

impl Net {
    fn new(plan: &Plan) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root(), 1, 4, Default::default());
        Net { vars, layer, plan: plan.clone(), seen: 0, validated: 0, epochs: 0 }
    }

    fn weights(&self) -> Vec<f32> {
        let parameters = params::named_parameters(&self.vars);
        parameters.iter().flat_map(|(_, w)| Vec::<f32>::try_from(w.detach().flatten(0, -1)).unwrap()).collect()
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn prepare_data(&mut self, _: &mut TrainerState) -> Result<()> {
        self.plan.at("prepare_data", 0);
        Ok(())
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        self.seen += 1;
        self.plan.at("batch", self.seen);
        if self.plan.number("slow") == Some(self.seen) {
            std::thread::sleep(Duration::from_millis(50));
        }
        if self.plan.number("fails") == Some(self.seen) {
            return Err("no more".into());
        }
        let hidden = batch.unsqueeze(1).apply(&self.layer).dropout(0.2, true);
        let loss = hidden.square().mean(Kind::Float);
        step.log("loss", &loss).on_step().on_epoch();
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        self.validated += 1;
        self.plan.at("validation", self.validated);
        step.log("val_loss", batch.unsqueeze(1).apply(&self.layer).square().mean(Kind::Float));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(AdamW::new(&self.vars).lr(0.01).into())
    }

    fn on_train_epoch_end(&mut self, _: &mut TrainerState) -> Result<()> {
        self.epochs += 1;
        self.plan.at("epoch_end", self.epochs);
        Ok(())
    }

    fn on_train_end(&mut self, _: &mut TrainerState) -> Result<()> {
        self.plan.at("train_end", 0);
        Ok(())
    }

    fn teardown(&mut self, _: &mut TrainerState, _: TrainerFn) -> Result<()> {
        println!("teardown after batch {}", self.seen);
        while self.plan.has("hang_in_teardown") {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Sends the signal while a checkpoint is written.
struct Io(TorchCheckpointIo, Plan, u64);

impl CheckpointIo for Io {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        self.2 += 1;
        self.1.at("saving", self.2);
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        self.0.save(checkpoint, path)?;
        println!("saved {name}");
        Ok(())
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.0.load(path)
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        self.0.remove(path)
    }

    fn alias(&mut self, path: &Path, alias: &fulgurite::fabric::Alias) -> Result<(), FabricError> {
        self.0.alias(path, alias)
    }
}

pub(crate) fn train() -> ExitCode {
    let plan = Plan(std::env::var(PLAN).unwrap());
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let ended = run(&plan, &folder);
    if plan.has("main") {
        // What `#[fulgurite::main]` does.
        return fulgurite::exit_code(ended);
    }
    match ended {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error}");
            let signal = error.downcast_ref().and_then(Error::signal);
            signal.map_or(ExitCode::FAILURE, Signal::exit_code)
        }
    }
}

fn run(plan: &Plan, folder: &Path) -> Result<ExitCode> {
    seed_everything(plan.number("seed").unwrap_or(11))?;
    let items = || InMemory::new((0..20).map(|i| i as f32 / 10.0));
    let mut builder = Trainer::builder()
        .max_epochs(3)
        .accelerator("cpu")
        .val_check_interval(2)
        .num_sanity_val_steps(if plan.has("sanity") { 1 } else { 0 })
        .accumulate_grad_batches(plan.number("accumulate").unwrap_or(1))
        .log_every_n_steps(1)
        .default_root_dir(folder)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .plugin(Plugin::checkpoint_io(Io(TorchCheckpointIo::new(), plan.clone(), 0)));
    if plan.has("csv") {
        builder = builder.logger(CsvLogger::new(folder));
    } else if !plan.has("default_loggers") {
        builder = builder.no_logger();
    }
    if let Some(milliseconds) = plan.number("time") {
        builder = builder.max_time(Duration::from_millis(milliseconds));
    }
    builder = match plan.number("save_every") {
        Some(0) => builder.callback(ModelCheckpoint::new()),
        Some(n) => builder.callback(ModelCheckpoint::new().every_n_train_steps(n)),
        None => builder.callback(ModelCheckpoint::new().save_top_k(0)),
    };
    if plan.has("on_exception") {
        builder = builder.callback(OnExceptionCheckpoint::new(folder).filename("ended"));
    }
    if let Some(seconds) = plan.number("grace") {
        builder = builder.termination_grace_period(Duration::from_secs(seconds));
    }
    match plan.value("slurm") {
        Some("off") => builder = builder.plugin(Plugin::slurm(SlurmRequeue::new().auto_requeue(false))),
        Some("SIGUSR2") => {
            builder = builder.plugin(Plugin::slurm(SlurmRequeue::new().requeue_signal(Signal::User2)));
        }
        _ => {}
    }
    let mut net = Net::new(plan);
    let mut trainer = builder.build()?;
    let train = DataLoader::new(items()).batch_size(4).shuffle(true).num_workers(1);
    let val = || DataLoader::new(items()).batch_size(10);
    if plan.has("evaluates") {
        trainer.ckpt_path(plan.value("ckpt_path")).verbose(false).validate(&mut net, val())?;
        println!("evaluated");
        return Ok(ExitCode::SUCCESS);
    }
    if plan.has("tunes") {
        let options = || LearningRateFinderOptions::default().num_training(8).update_attr(false);
        for _ in 0..2 {
            match Tuner::new(&mut trainer).lr_find(&mut net, train.clone(), options()) {
                Ok(_) => println!("tuned"),
                Err(error) => println!("{}", error.to_string().replace(&format!("{}/", folder.display()), "")),
            }
        }
        if plan.has("goes_on") {
            trainer.continue_after_interruption();
        }
    }
    let outcome = trainer.ckpt_path(plan.value("ckpt_path")).fit(&mut net, (train, val()))?;
    let shown = format!("{outcome:?}").replace(&format!("{}/", folder.display()), "");
    println!("{shown}");
    plan.at("after", 0);
    if plan.has("main") {
        outcome.clone().completed()?;
    }
    if plan.has("goes_on") {
        trainer.continue_after_interruption();
    }
    if plan.has("then_evaluates") {
        trainer.validate(&mut net, val())?;
        println!("evaluated");
    }
    if outcome == Outcome::Finished {
        println!("results:\n{:?}", net.weights());
        if let Some(log_dir) = trainer.state_mut().loggers().iter().rev().find_map(|logger| logger.log_dir()) {
            print!("{}", std::fs::read_to_string(log_dir.join("metrics.csv"))?);
        }
    }
    Ok(outcome.report())
}
