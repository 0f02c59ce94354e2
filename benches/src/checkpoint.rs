//! `checkpoint`: what it costs to save and load a gigabyte of model and Adam state, here, in PyTorch and in Lightning.
//!
//! A save of ours ends when the file is on the disk; one of PyTorch's and Lightning's when the system has taken it into
//! memory. So both are measured both ways, and the disk itself with the same bytes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fulgurite::fabric::{AsyncCheckpointIo, CheckpointIo, Commit, TorchCheckpointIo};
use fulgurite::prelude::{Device, Kind, Tensor};
use fulgurite::torch::{Dict, Value, serialization};
use serde::{Deserialize, Serialize};

use crate::child::{self, Program, Surroundings};
use crate::stopwatch::median;

/// Of a GPT: eight layers of width 768 and 32000 tokens. The same as in `python/checkpoint.py`.
const LAYERS: i64 = 8;
const WIDTH: i64 = 768;
const TOKENS: i64 = 32_000;

/// What is done, and in which ways, the one that the others are compared with first. The stall is what training waits for
/// when a checkpoint is written beside it: the first of a process, and one after that.
const OPERATIONS: &[(&str, &[&str])] = &[
    ("save", &["torch_save", "lightning_save", "fulgurite_save_unsynced"]),
    ("save to the disk", &["torch_save_synced", "disk", "fulgurite_save"]),
    ("load", &["torch_load_mmap", "torch_load", "fulgurite_load_mmap", "fulgurite_load", "fulgurite_verify"]),
    ("stall", &["memory_copy", "asynchronous_save", "asynchronous_again"]),
];

/// What a process measured.
#[derive(Serialize, Deserialize)]
struct Measured {
    ms: f64,
    /// Memory at the worst moment, above what it was before.
    extra_mb: f64,
}

/// The repeats of one variant.
#[derive(Serialize)]
pub struct Row {
    operation: &'static str,
    variant: &'static str,
    megabytes: f64,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    extra_mb: f64,
}

pub fn measure(repeats: usize) -> Result<Vec<Row>> {
    // Beside the build, which is on a disk; the folder for temporary files may be in memory.
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"))?;
    let whole = folder.path().join("whole.ckpt");
    serialization::save(&whole, &state())?;
    let megabytes = fs::metadata(&whole)?.len() as f64 / 1e6;
    let mut rows = Vec::new();
    for &(operation, variants) in OPERATIONS {
        let mut runs: Vec<(&str, Vec<Measured>)> = variants.iter().map(|variant| (*variant, Vec::new())).collect();
        for repeat in 1..=repeats {
            for (variant, measured) in &mut runs {
                eprintln!("{variant}, {repeat} of {repeats}");
                let in_python = variant.starts_with("torch") || variant.starts_with("lightning");
                let program =
                    if in_python { Program::Python("checkpoint.py") } else { Program::Rust("checkpoint-once") };
                let written = folder.path().join("written.ckpt");
                let path = if operation == "load" { &whole } else { &written };
                let args = [variant.to_string(), path.display().to_string()];
                measured.push(child::measure(&program, &args, Surroundings::default())?);
                // What one leaves to be written would be charged to the next.
                if let Ok(file) = File::open(&written) {
                    file.sync_all()?;
                }
            }
        }
        rows.extend(runs.into_iter().map(|(variant, measured)| row(operation, variant, megabytes, &measured)));
    }
    Ok(rows)
}

fn row(operation: &'static str, variant: &'static str, megabytes: f64, runs: &[Measured]) -> Row {
    let times = || runs.iter().map(|run| run.ms);
    Row {
        operation,
        variant,
        megabytes,
        median_ms: median(times().collect()).unwrap_or(f64::NAN),
        min_ms: times().fold(f64::INFINITY, f64::min),
        max_ms: times().fold(0.0, f64::max),
        extra_mb: median(runs.iter().map(|run| run.extra_mb).collect()).unwrap_or(f64::NAN),
    }
}

/// One block of lines per operation; the last column says how many times as fast as the first variant each is.
pub fn render(rows: &[Row]) -> String {
    let mut text = String::new();
    for block in rows.chunk_by(|a, b| a.operation == b.operation) {
        let title = format!("{}, {:.0} MB", block[0].operation, block[0].megabytes);
        text += &format!(
            "\n{title:<28}{:>11}{:>10}{:>10}{:>8}{:>14}{:>12}\n",
            "median ms", "min", "max", "GB/s", "MB of memory", "times as fast"
        );
        for row in block {
            text += &format!(
                "  {:<26}{:>11.1}{:>10.1}{:>10.1}{:>8.2}{:>14.0}{:>12.2}\n",
                row.variant,
                row.median_ms,
                row.min_ms,
                row.max_ms,
                row.megabytes / row.median_ms,
                row.extra_mb,
                block[0].median_ms / row.median_ms
            );
        }
    }
    text
}

/// Does one thing once, in a process of its own.
pub fn run(variant: &str, path: &Path, result: &Path) -> Result<()> {
    let is_load = matches!(variant, "fulgurite_load" | "fulgurite_load_mmap" | "fulgurite_verify");
    let state = if is_load { Value::None } else { state() };
    // Whatever happens once in a process has happened.
    let small = PathBuf::from(format!("{}.small", path.display()));
    serialization::save(&small, &Value::Int(1))?;
    serialization::load(&small)?;
    fs::remove_file(&small)?;

    let mut beside = AsyncCheckpointIo::new(TorchCheckpointIo::new());
    let commit = Commit { path: path.to_owned(), ..Commit::default() };
    if variant == "asynchronous_again" {
        commit_whole(&mut beside, &state, &commit)?;
    }

    let before = memory("VmRSS:")?;
    fs::write("/proc/self/clear_refs", "5").context("the peak of memory cannot be reset")?;
    let started = Instant::now();
    let made = match variant {
        "fulgurite_save" => serialization::save(path, &state).map(|()| Value::None)?,
        "fulgurite_save_unsynced" => serialization::write_to(File::create(path)?, &state).map(|()| Value::None)?,
        "disk" => write_plainly(path, &state)?,
        "fulgurite_load" => serialization::load(path)?,
        "fulgurite_load_mmap" => serialization::load_mmap(path)?,
        "fulgurite_verify" => serialization::verify(path).map(|()| Value::None)?,
        "asynchronous_save" | "asynchronous_again" => beside.commit(&state, &commit).map(|()| Value::None)?,
        "memory_copy" => state.map_tensors(&mut Tensor::copy),
        _ => bail!("there is no variant {variant}"),
    };
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let extra_mb = memory("VmHWM:")? - before;
    drop(made);
    beside.wait().map_or(Ok(()), |failure| Err(failure.error))?;
    fs::write(result, serde_json::to_string(&Measured { ms, extra_mb })?)?;
    Ok(())
}

fn commit_whole(io: &mut AsyncCheckpointIo, state: &Value, commit: &Commit) -> Result<()> {
    io.commit(state, commit)?;
    io.wait().map_or(Ok(()), |failure| Err(failure.error))?;
    Ok(())
}

/// The same bytes, and nothing else: the speed of the disk.
fn write_plainly(path: &Path, state: &Value) -> Result<Value> {
    let mut file = File::create(path)?;
    let mut outcome = Ok(());
    state.map_tensors(&mut |tensor| {
        let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
        let zeros = vec![0u8; bytes.min(8 << 20)];
        let mut left = bytes;
        while left > 0 && outcome.is_ok() {
            let piece = left.min(zeros.len());
            outcome = file.write_all(&zeros[..piece]);
            left -= piece;
        }
        tensor.shallow_clone()
    });
    outcome?;
    file.sync_all()?;
    Ok(Value::None)
}

/// A line of what the system says about this process, in megabytes.
fn memory(name: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

fn state() -> Value {
    let mut shapes = vec![("embedding".to_owned(), vec![TOKENS, WIDTH])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("attention", vec![3 * WIDTH, WIDTH]),
            ("projection", vec![WIDTH, WIDTH]),
            ("up", vec![4 * WIDTH, WIDTH]),
            ("down", vec![WIDTH, 4 * WIDTH]),
            ("norm", vec![WIDTH]),
        ] {
            shapes.push((format!("layers.{layer}.{name}.weight"), shape));
        }
    }
    let filled = |shape: &[i64], value: usize| Tensor::full(shape, value as i64, (Kind::Float, Device::Cpu));
    let (mut weights, mut moments) = (Dict::new(), Dict::new());
    for (index, (name, shape)) in shapes.iter().enumerate() {
        weights.push(name.as_str(), filled(shape, index));
        let state = Dict::new()
            .with("step", Tensor::from(1.0f32))
            .with("exp_avg", filled(shape, index + 1))
            .with("exp_avg_sq", filled(shape, index + 2));
        moments.push(index as i64, state);
    }
    let optimizer = Dict::new().with("state", moments).with("param_groups", Value::List(Vec::new()));
    Value::Dict(
        Dict::new()
            .with("epoch", 1)
            .with("global_step", 1000)
            .with("state_dict", weights)
            .with("optimizer_states", vec![optimizer]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compares_with_the_first_variant() {
        let run = |ms| Measured { ms, extra_mb: 3.0 };
        let rows = [
            row("save", "torch_save", 1000.0, &[run(1000.0), run(900.0), run(1100.0)]),
            row("save", "fulgurite_save", 1000.0, &[run(500.0)]),
        ];
        let expected = "
save, 1000 MB                 median ms       min       max    GB/s  MB of memory times as fast
  torch_save                     1000.0     900.0    1100.0    1.00             3        1.00
  fulgurite_save                  500.0     500.0     500.0    2.00             3        2.00
";
        assert_eq!(render(&rows), expected);
    }
}
