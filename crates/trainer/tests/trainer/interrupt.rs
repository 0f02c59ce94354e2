//! Ctrl-C in the middle of training. The process that gets it is this test's binary, started again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use fulgurite::Console;
use fulgurite::callbacks::OnExceptionCheckpoint;
use fulgurite::data::{DataLoader, InMemory};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params;

/// Where the child works, and at which batch of the run it sends itself a signal.
const FOLDER: &str = "FULGURITE_INTERRUPT_FOLDER";
const AT: &str = "FULGURITE_INTERRUPT_AT";

/// A module that says what happens to it, on standard output.
struct Net {
    vars: nn::VarStore,
    layer: nn::Linear,
    interrupt_at: Option<u64>,
    validates_at: bool,
    hangs: bool,
    seen: u64,
}

impl Net {
    fn new() -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root(), 1, 1, Default::default());
        Net { vars, layer, interrupt_at: None, validates_at: false, hangs: false, seen: 0 }
    }

    fn interrupt(&self) -> Result<()> {
        println!("interrupted");
        signal_hook::low_level::raise(signal_hook::consts::SIGINT)?;
        if self.hangs {
            std::thread::sleep(std::time::Duration::from_secs(60));
            return Err("no signal ended the process: are signals ignored where the tests were started?".into());
        }
        Ok(())
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Loss> {
        let hidden = batch.unsqueeze(1).apply(&self.layer).dropout(0.2, true);
        if !self.validates_at && self.interrupt_at == Some(self.seen) {
            self.interrupt()?;
        }
        self.seen += 1;
        Ok(hidden.square().mean(Kind::Float).into())
    }

    fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        step.log("val_loss", batch.mean(Kind::Float));
        if self.validates_at && self.interrupt_at == Some(self.seen) {
            self.interrupt()?;
        }
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(AdamW::new(&self.vars).lr(0.01).into())
    }

    fn on_train_batch_end(&mut self, _: &mut TrainerState, _: &Loss, _: &Tensor, _: usize) -> Result<()> {
        println!("batch {} ended", self.seen);
        Ok(())
    }

    fn on_train_end(&mut self, _: &mut TrainerState) -> Result<()> {
        println!("training ended");
        Ok(())
    }

    fn teardown(&mut self, _: &mut TrainerState, _: TrainerFn) -> Result<()> {
        println!("teardown");
        Ok(())
    }
}

fn fit(net: &mut Net, folder: &Path, ckpt_path: Option<&Path>) -> Outcome {
    let items = || InMemory::new((0..20).map(|i| i as f32 / 10.0));
    let mut trainer = Trainer::builder()
        .max_epochs(3)
        .accelerator("cpu")
        .val_check_interval(2)
        .num_sanity_val_steps(0)
        .no_logger()
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .callback(ModelCheckpoint::new().dirpath(folder).save_top_k(0))
        .callback(OnExceptionCheckpoint::new(folder).filename("ended"))
        .console(Console::memory())
        .build()
        .unwrap();
    let train = DataLoader::new(items()).batch_size(4).shuffle(true).num_workers(1);
    trainer.ckpt_path(ckpt_path).fit(net, (train, DataLoader::new(items()).batch_size(10))).unwrap()
}

fn weights(net: &Net) -> Vec<f32> {
    let parameters = params::named_parameters(&net.vars);
    parameters.iter().flat_map(|(_, w)| Vec::<f32>::try_from(w.detach().flatten(0, -1)).unwrap()).collect()
}

/// What the child does; nothing when the tests run as usual.
#[test]
fn child() {
    let (Some(folder), Ok(at)) = (std::env::var_os(FOLDER), std::env::var(AT)) else { return };
    seed_everything(11).unwrap();
    let mut net = Net::new();
    net.interrupt_at = at.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    net.validates_at = at.ends_with("validation");
    net.hangs = at.ends_with("hangs");
    println!("{:?}", fit(&mut net, Path::new(&folder), None));
}

fn start(folder: &Path, at: &str) -> Child {
    fulgurite_test_support::this_program("interrupt::child")
        // With one thread, the test's name would be on the line of the child's first words.
        .arg("--test-threads=2")
        .env(FOLDER, folder)
        .env(AT, at)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the child said about itself, and how it ended.
fn end(child: Child) -> (Vec<String>, ExitStatus) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let of_cargo = |line: &&str| line.is_empty() || line.starts_with("test ") || line.starts_with("running ");
    (text.lines().filter(|line| !of_cargo(line)).map(str::to_owned).collect(), output.status)
}

#[track_caller]
fn check(at: &str, said: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (lines, status) = end(start(folder.path(), at));
    let path = folder.path().join("interrupted.ckpt");
    let outcome = format!("Interrupted {{ checkpoint: Some({path:?}) }}");
    assert_eq!(lines, [said, &["teardown", &outcome]].concat());
    assert!(status.success());
    // Whoever writes checkpoints has the same one.
    let ended = folder.path().join("ended.ckpt");
    assert_eq!(std::fs::metadata(&ended).unwrap().len(), std::fs::metadata(&path).unwrap().len());
    let resumes_from = if at == "1" { &ended } else { &path };

    seed_everything(11).unwrap();
    let mut straight = Net::new();
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(fit(&mut straight, elsewhere.path(), None), Outcome::Finished);
    seed_everything(12).unwrap();
    let mut resumed = Net::new();
    assert_eq!(fit(&mut resumed, folder.path(), Some(resumes_from)), Outcome::Finished);
    assert!(!ended.exists());
    assert_eq!(weights(&resumed), weights(&straight), "interrupted at {at}");
}

#[test]
fn the_batch_in_hand_ends_and_the_run_can_be_resumed() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    check("0", &["interrupted", "batch 1 ended"]);
    // Validation is due after the second batch, and was not run.
    check("1", &["batch 1 ended", "interrupted", "batch 2 ended"]);
    // The last batch of an epoch.
    let five = ["batch 1 ended", "batch 2 ended", "batch 3 ended", "batch 4 ended", "interrupted", "batch 5 ended"];
    check("4", &five);
    check("2 validation", &["batch 1 ended", "batch 2 ended", "interrupted"]);
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(folder.path(), "0 hangs");
    let id = child.id().to_string();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("interrupted") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "the child ended by itself");
    }
    // It says so before the signal is there.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!folder.path().join("interrupted.ckpt").exists());
}
