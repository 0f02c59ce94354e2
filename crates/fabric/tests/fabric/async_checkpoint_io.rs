//! Checkpoints written beside training.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use fulgurite_fabric::{Alias, AsyncCheckpointIo, CheckpointIo, Commit, FabricError, TorchCheckpointIo};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value};

/// The calls that the inner checkpoint I/O received, in order.
type Calls = Arc<Mutex<Vec<String>>>;

/// Writes real files, one each time the test lets it; fails and panics by the file's name.
struct Gated {
    files: TorchCheckpointIo,
    gate: Receiver<()>,
    calls: Calls,
}

impl Gated {
    fn new() -> (Gated, Sender<()>, Calls) {
        let (open, gate) = channel();
        let calls = Calls::default();
        (Gated { files: TorchCheckpointIo::new(), gate, calls: Arc::clone(&calls) }, open, calls)
    }

    fn note(&self, what: &str, path: &Path) {
        self.calls.lock().unwrap().push(format!("{what} {}", path.file_name().unwrap().display()));
    }
}

impl CheckpointIo for Gated {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        self.gate.recv().unwrap();
        self.note("save", path);
        if path.ends_with("bad.ckpt") {
            return Err(FabricError::Checkpoint { path: path.into(), message: "the disk is full".into() });
        }
        assert!(!path.ends_with("worse.ckpt"), "a mistake");
        self.files.save(checkpoint, path)
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.note("load", path);
        self.files.load(path)
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        self.note("remove", path);
        self.files.remove(path)
    }

    fn alias(&mut self, path: &Path, alias: &Alias) -> Result<(), FabricError> {
        self.note("alias", &alias.path);
        self.files.alias(path, alias)
    }
}

fn state(weight: &Tensor) -> Value {
    Value::Dict(Dict::new().with("weight", weight.shallow_clone()).with("tied", weight.shallow_clone()))
}

fn commit(path: &Path) -> Commit {
    Commit { path: path.into(), ..Commit::default() }
}

fn saved_weight(path: &Path) -> Tensor {
    let Value::Dict(saved) = TorchCheckpointIo::new().load(path).unwrap() else { panic!("not a dict") };
    saved.tensor("weight").unwrap().shallow_clone()
}

#[test]
fn a_file_has_the_values_of_the_moment_of_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..4).map(|step| folder.path().join(format!("{step}.ckpt"))).collect();
    let (inner, open, _) = Gated::new();
    let mut io = AsyncCheckpointIo::new(inner).in_flight(2);
    let mut weight = Tensor::zeros([1000], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    for (step, path) in paths.iter().enumerate() {
        if step >= 2 {
            // Two are on their way: nothing is written before the gate opens, and there is room after it.
            open.send(()).unwrap();
        }
        io.commit(&state(&weight), &commit(path)).unwrap();
        // As an optimizer does, at once.
        let _ = fulgurite_torch::tch::no_grad(|| weight.g_add_scalar_(1.0));
    }
    open.send(()).unwrap();
    open.send(()).unwrap();
    assert!(io.wait().is_none());
    for (step, path) in paths.iter().enumerate() {
        assert_eq!(saved_weight(path), Tensor::full([1000], step as f64, (Kind::Float, Device::Cpu)));
    }
    let Value::Dict(saved) = io.load(&paths[3]).unwrap() else { panic!("not a dict") };
    let mut one = saved.tensor("weight").unwrap().detach();
    let _ = one.fill_(9.0);
    assert_eq!(saved.tensor("tied").unwrap().double_value(&[0]), 9.0, "tied weights are written once");
}

#[test]
fn a_commit_beyond_those_in_flight_waits_for_room() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, open, calls) = Gated::new();
    let mut io = AsyncCheckpointIo::new(inner);
    let weight = Tensor::from(1.0);
    io.commit(&state(&weight), &commit(&folder.path().join("a.ckpt"))).unwrap();
    assert_eq!(calls.lock().unwrap().len(), 0, "nothing is written yet");
    let opener = std::thread::spawn(move || {
        open.send(()).unwrap();
        open
    });
    io.commit(&state(&weight), &commit(&folder.path().join("b.ckpt"))).unwrap();
    assert_eq!(*calls.lock().unwrap(), ["save a.ckpt"], "the second began when the first had ended");
    opener.join().unwrap().send(()).unwrap();
    assert!(io.wait().is_none());
}

#[test]
fn order_is_kept_and_a_failure_stops_nothing_but_its_own_commit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let last = |name: &str, old: &str| Commit {
        path: at(name),
        alias: Some(Alias { path: at("last.ckpt"), link: false }),
        remove: vec![at(old)],
    };
    let (inner, open, calls) = Gated::new();
    let mut io = AsyncCheckpointIo::new(inner).in_flight(8);
    let weight = |value: f64| state(&Tensor::from(value));
    io.commit(&weight(1.0), &last("a.ckpt", "none.ckpt")).unwrap();
    io.commit(&weight(2.0), &last("bad.ckpt", "a.ckpt")).unwrap();
    io.commit(&weight(3.0), &last("worse.ckpt", "a.ckpt")).unwrap();
    assert!(io.poll().is_none(), "nothing happened yet");
    io.commit(&weight(4.0), &commit(&at("c.ckpt"))).unwrap();
    (0..4).for_each(|_| open.send(()).unwrap());
    let failure = io.wait().unwrap();
    assert_eq!(failure.commit, last("bad.ckpt", "a.ckpt"));
    assert_eq!(failure.error.to_string(), format!("checkpoint {}: the disk is full", at("bad.ckpt").display()));
    let failure = io.poll().unwrap();
    assert_eq!(failure.commit.path, at("worse.ckpt"));
    assert!(failure.error.to_string().ends_with("its checkpoint I/O panicked: a mistake"), "{}", failure.error);
    assert!(io.poll().is_none() && io.wait().is_none());
    let expected =
        ["save a.ckpt", "alias last.ckpt", "remove none.ckpt", "save bad.ckpt", "save worse.ckpt", "save c.ckpt"];
    assert_eq!(*calls.lock().unwrap(), expected);
    assert_eq!(saved_weight(&at("last.ckpt")).double_value(&[]), 1.0);
    assert!(at("a.ckpt").exists(), "what a failed checkpoint was to replace stays");
}

#[test]
fn everything_else_waits_for_what_was_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    type Question = fn(&mut AsyncCheckpointIo, &Path) -> bool;
    let ask: [(&str, Question); 5] = [
        ("exists", |io, path| io.exists(path).unwrap()),
        ("load", |io, path| io.load(path).is_ok()),
        ("verify", |io, path| io.verify(path).is_ok()),
        ("list", |io, path| io.list(path.parent().unwrap()).unwrap().len() == 1),
        ("remove", |io, path| io.remove(path).is_ok() && !path.exists()),
    ];
    for (what, ask) in ask {
        let (inner, open, _) = Gated::new();
        let mut io = AsyncCheckpointIo::new(inner);
        io.commit(&state(&Tensor::from(1.0)), &commit(&path)).unwrap();
        let opener = std::thread::spawn(move || open.send(()).unwrap());
        assert!(ask(&mut io, &path), "{what}");
        opener.join().unwrap();
        let _ = std::fs::remove_file(&path);
    }
}

#[test]
fn dropping_it_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    let (inner, open, _) = Gated::new();
    let mut io = AsyncCheckpointIo::new(inner);
    io.commit(&state(&Tensor::from(5.0)), &commit(&path)).unwrap();
    open.send(()).unwrap();
    drop(io);
    assert_eq!(saved_weight(&path).double_value(&[]), 5.0);
}

#[test]
fn what_cannot_be_written_is_said_when_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    let sparse = Tensor::eye(3, (Kind::Float, Device::Cpu)).to_sparse_sparse_dim(2);
    let mut io = AsyncCheckpointIo::new(TorchCheckpointIo::new());
    io.commit(&state(&sparse), &commit(&path)).unwrap();
    let error = io.wait().unwrap().error.to_string();
    assert!(error.contains("sparse"), "{error}");
    assert!(!path.exists());
}
