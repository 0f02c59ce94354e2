//! The record of a run, `run.jsonl` in its folder.

use std::path::Path;
use std::time::Duration;

use fulgurite::TrainerBuilder;
use fulgurite::data::{BatchIter, DataError, Loader};
use fulgurite::loggers::MemoryLogger;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite_test_support::{ones, quiet};
use serde_json::Value as Json;

pub(crate) fn events(folder: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(folder.join("lightning_logs/version_0/run.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Which events there are, with those in a row that are the same once.
fn kinds(events: &[Json]) -> String {
    let mut kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    kinds.dedup();
    kinds.join(" ")
}

pub(crate) fn of_kind<'e>(events: &'e [Json], kind: &str) -> Vec<&'e Json> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

struct Line {
    vars: nn::VarStore,
    layer: nn::Linear,
    fails_at: Option<usize>,
}

impl Line {
    fn new() -> Line {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root(), 3, 1, Default::default());
        Line { vars, layer, fails_at: None }
    }
}

impl LightningModule for Line {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        if self.fails_at == Some(step.batch_idx()) {
            return Err("no\u{1b}[2J more".into());
        }
        step.trainer().warn("slow");
        Ok(batch.apply(&self.layer).square().mean(Kind::Float).into())
    }

    fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        std::thread::sleep(Duration::from_millis(4));
        step.log("val_loss", batch.apply(&self.layer).square().mean(Kind::Float));
        Ok(())
    }

    fn test_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        step.log("test_loss", batch.apply(&self.layer).square().mean(Kind::Float));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.01).into())
    }
}

/// A batch every so often.
struct Slow(usize);

impl Loader for Slow {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        Some(self.0)
    }

    fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<Tensor>, DataError> {
        let slow = |batch| {
            std::thread::sleep(Duration::from_millis(5));
            Ok(batch)
        };
        Ok(Box::new(ones(self.0, [2, 3]).into_iter().skip(skip).map(slow)))
    }
}

fn trainer(root: &Path) -> TrainerBuilder {
    quiet().logger(CsvLogger::new(root)).default_root_dir(root).num_sanity_val_steps(0)
}

#[test]
fn a_fit_has_an_account_of_its_time() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = ModelCheckpoint::monitor("val_loss").save_top_k(5);
    let builder = trainer(root.path()).max_epochs(2).enable_model_summary(true).enable_checkpointing(true);
    let mut trainer = builder.callback(checkpoints).build().unwrap();
    _ = trainer.fit(&mut Line::new(), (Slow(3), ones(2, [2, 3]))).unwrap();
    let events = events(root.path());
    assert_eq!(kinds(&events), "start summary train warning progress checkpoint progress checkpoint progress end");

    let start = &events[0];
    assert_eq!((&start["v"], &start["entry"], &start["ranks"]), (&1.into(), &"fit".into(), &1.into()));
    assert_eq!((&start["device"], &start["precision"]), (&"cpu".into(), &"32-true".into()));
    assert_eq!(start["pid"], std::process::id());
    assert!(start["libtorch"].as_str().unwrap().starts_with("2."), "{start}");
    assert!(start["command"][0].as_str().unwrap().contains("trainer"), "{start}");
    assert!(of_kind(&events, "summary")[0]["text"].as_str().unwrap().contains("Total params"));
    assert_eq!(of_kind(&events, "train")[0]["step"], 0);
    assert_eq!(of_kind(&events, "progress")[0]["of_steps"], 6);
    assert_eq!(of_kind(&events, "warning").iter().filter(|warning| warning["text"] == "slow").count(), 1);
    let saved = of_kind(&events, "checkpoint");
    assert_eq!((saved.len(), &saved[0]["monitor"], &saved[0]["mode"]), (2, &"val_loss".into(), &"min".into()));
    assert!(saved[0]["score"].as_f64().unwrap() > saved[1]["score"].as_f64().unwrap() && saved[1]["best"] == true);

    let end = events.last().unwrap();
    assert_eq!((&end["status"], &end["error"], &end["omitted"]), (&"success".into(), &Json::Null, &0.into()));
    assert_eq!((&end["step"], &end["batches"], &end["samples"]), (&6.into(), &6.into(), &12.into()));
    let seconds = |name: &str| end["seconds"][name].as_f64().unwrap();
    // Six batches of 5 ms, and four validation steps of 4 ms.
    assert!(seconds("data") >= 0.03 && seconds("validation") >= 0.016, "{end}");
    assert!(["setup", "training", "checkpoints"].into_iter().all(|name| seconds(name) > 0.0), "{end}");
    let spent: f64 = end["seconds"].as_object().unwrap().values().map(|spent| spent.as_f64().unwrap()).sum();
    let lasted = end["time"].as_f64().unwrap() - start["time"].as_f64().unwrap();
    assert!((spent - lasted).abs() < 0.1, "{spent} of {lasted}");
}

#[test]
fn entry_points_follow_each_other() {
    let root = tempfile::tempdir().unwrap();
    let mut module = Line::new();
    let mut trainer = trainer(root.path()).build().unwrap();
    _ = trainer.fit(&mut module, ones(2, [2, 3])).unwrap();
    trainer.verbose(false).test(&mut module, ones(2, [2, 3])).unwrap();
    // It logs nothing, and so leaves nothing.
    trainer.predict(&mut module, ones(1, [2, 3])).unwrap_err();
    let events = events(root.path());
    let of_start: Vec<&str> = of_kind(&events, "start").iter().map(|start| start["entry"].as_str().unwrap()).collect();
    assert_eq!(of_start, ["fit", "test"]);
    assert_eq!(kinds(&events), "start train warning progress end start end");
    assert!(events.last().unwrap()["seconds"]["test"].is_number());
    assert_eq!(events.last().unwrap()["batches"], 0);
}

#[test]
fn a_fit_that_fails_says_why() {
    let root = tempfile::tempdir().unwrap();
    let mut module = Line { fails_at: Some(2), ..Line::new() };
    trainer(root.path()).build().unwrap().fit(&mut module, ones(4, [2, 3])).unwrap_err();
    let events = events(root.path());
    let end = events.last().unwrap();
    assert_eq!((&end["status"], &end["step"], &end["batches"]), (&"failed".into(), &2.into(), &3.into()));
    let error = end["error"].as_str().unwrap();
    assert!(error.contains("training_step") && error.contains("no\\u{1b}[2J more"), "{error}");
}

#[test]
fn a_run_without_a_folder_or_in_rehearsal_leaves_none() {
    let root = tempfile::tempdir().unwrap();
    let in_memory = quiet().logger(MemoryLogger::new()).default_root_dir(root.path());
    let rehearsed = trainer(root.path()).fast_dev_run(1);
    for builder in [in_memory, rehearsed] {
        _ = builder.build().unwrap().fit(&mut Line::new(), ones(2, [2, 3])).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_cannot_be_written_ends_no_run() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("lightning_logs/version_0/run.jsonl")).unwrap();
    let builder = quiet().logger(CsvLogger::new(root.path()).version(0)).default_root_dir(root.path());
    let mut trainer = builder.build().unwrap();
    _ = trainer.fit(&mut Line::new(), ones(2, [2, 3])).unwrap();
    let said = trainer.state().console().contents();
    assert_eq!(said.matches("run.jsonl, is not written any more: it is no file").count(), 1, "{said}");
}
