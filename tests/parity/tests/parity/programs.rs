//! Public Lightning programs, each in Python (`python/programs`) and as an example here: with the same settings and the
//! same scheme of initial values they begin at the same loss, and end at the same metric.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use fulgurite::data::Loader;
use fulgurite::data::datasets::Digits;
use fulgurite::prelude::*;
use fulgurite::torch::serialization;
use fulgurite_parity::python;
use serde_json::json;

/// The programs, and what both are told. Python imports, and Lightning takes steps, slowly: they are as short as the
/// metrics allow.
const PROGRAMS: [(&str, &str); 5] = [
    ("dqn", "--max-epochs 4"),
    ("finetune", "--max-epochs 8 --unfreeze-at-epoch 4 --batch-size 256"),
    ("power", "--max-epochs 5"),
    ("simclr", "--max-epochs 2 --warmup-epochs 1"),
    ("vae", "--max-epochs 6"),
];

/// What each program logged: Python's and ours.
static LOGGED: LazyLock<BTreeMap<&str, [Columns; 2]>> = LazyLock::new(|| {
    let [theirs, ours] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    std::thread::scope(|scope| {
        let python = scope.spawn(|| run_in_python(theirs.path()));
        PROGRAMS.iter().for_each(|(name, args)| run_here(name, args, &ours.path().join(name)));
        python.join().unwrap();
    });
    let both = [theirs.path(), ours.path()];
    PROGRAMS.into_iter().map(|(name, _)| (name, both.map(|folder| columns(&folder.join(name))))).collect()
});

fn run_in_python(folder: &Path) {
    let data = folder.join("digits.pt");
    serialization::save(&data, &digits().into()).unwrap();
    let mut requests = json!({});
    for (name, args) in PROGRAMS {
        let mut args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        let mut add = |option: &str, path: PathBuf| args.extend([option.to_owned(), path.display().to_string()]);
        add("--default-root-dir", folder.join(name));
        match name {
            "dqn" => {}
            "power" => add("--csv", examples().join("power/household.csv")),
            _ => add("--data", data.clone()),
        }
        if name == "finetune" {
            add("--weights", examples().join("finetune/resnet.pt"));
        }
        requests[name] = json!(args);
    }
    python("programs.py", &[&requests.to_string()]);
}

fn run_here(name: &str, args: &str, folder: &Path) {
    let mut program = std::env::current_exe().unwrap();
    program.pop();
    program.set_file_name("examples");
    program.push(name);
    assert!(program.is_file(), "{} is not built: `cargo xtask parity` does that", program.display());
    let output = Command::new(program)
        .args(args.split(' '))
        .args(["--accelerator", "cpu", "--default-root-dir"])
        .arg(folder)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

/// Where the sources and the data of the examples are.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// The digits, in the parts that the examples have.
fn digits() -> Dict {
    let Digits { train, val, .. } = Digits::load().unwrap();
    let mut digits = Dict::new();
    for (name, part) in [("train", train), ("val", val)] {
        let count = part.len();
        let (images, labels) = DataLoader::new(part).batch_size(count).iter(0, 0).unwrap().next().unwrap().unwrap();
        digits.set(name, vec![Value::from(images), labels.into()]);
    }
    digits
}

/// The values of a column of `metrics.csv`, in their order.
type Columns = BTreeMap<String, Vec<f64>>;

fn columns(root: &Path) -> Columns {
    let path = root.join("lightning_logs/version_0/metrics.csv");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut columns = Columns::new();
    for (name, value) in lines.flat_map(|line| names.iter().zip(line.split(','))) {
        if let Ok(value) = value.parse() {
            columns.entry((*name).to_owned()).or_default().push(value);
        }
    }
    columns
}

/// What both logged: Python's and ours.
fn run(name: &str) -> &'static [Columns; 2] {
    let both = &LOGGED[name];
    for (columns, whose) in both.iter().zip(["in Python", "here"]) {
        let of_column =
            |(name, values): (&String, &Vec<f64>)| format!("{name} {} … {}", values[0], values[values.len() - 1]);
        println!("{name} {whose}: {}", columns.iter().map(of_column).collect::<Vec<_>>().join(", "));
    }
    both
}

/// The first losses are this near, as a share of Python's.
#[track_caller]
fn assert_same_start(both: &[Columns; 2], tolerance: f64) {
    let [theirs, ours] = both.each_ref().map(|columns| columns["train_loss"][0]);
    assert!((ours - theirs).abs() <= tolerance * theirs.abs(), "the first loss is {ours}, Python's {theirs}");
}

/// The last values of `metric` are this near.
#[track_caller]
fn assert_same_end(both: &[Columns; 2], metric: &str, tolerance: f64) {
    let [theirs, ours] = both.each_ref().map(|columns| *columns[metric].last().unwrap());
    assert!((ours - theirs).abs() <= tolerance, "{metric} is {ours} at the end, Python's {theirs}");
}

/// The first batches differ, which are shuffled.
#[test]
fn finetune() {
    let both = run("finetune");
    assert_same_start(both, 0.1);
    // After the first epoch it is 0.3 to 0.55; seeds end at 0.88 to 0.94.
    assert_same_end(both, "val_acc", 0.07);
}

/// Both learn to balance the pole for nearly all of 200 steps; after how many epochs is luck.
#[test]
fn dqn() {
    let both = run("dqn");
    assert_same_start(both, 0.1);
    for columns in both {
        let best = columns["balanced_steps"].iter().copied().fold(0.0, f64::max);
        assert!(best > 150.0, "{columns:?}");
    }
}

#[test]
fn simclr() {
    let both = run("simclr");
    assert_same_start(both, 0.03);
    // Seeds end at 0.82 to 0.84.
    assert_same_end(both, "val_acc", 0.05);
}

/// The windows come in the same order. The masks of dropout differ.
#[test]
fn power() {
    let both = run("power");
    assert_same_start(both, 0.01);
    // Seeds end at 172 to 180, and to say that nothing changes is wrong by 243.
    assert_same_end(both, "test_mae_watts", 10.0);
    assert_same_end(both, "persistence_mae_watts", 0.01);
}

#[test]
fn vae() {
    let both = run("vae");
    assert_same_start(both, 0.02);
    // After the first epoch it is 34 to 36; seeds end at 27.3 to 27.5.
    assert_same_end(both, "val_loss", 0.5);
}
