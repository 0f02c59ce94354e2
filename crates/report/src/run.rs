//! [`Run`]: the files of a training run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{ReportError, Result, failed};
use crate::events::{self, event_files};
use crate::metrics::Metrics;
use crate::record::{RECORD, Record};

const METRICS: &str = "metrics.csv";
/// How deep below a folder runs are looked for: `DIR/lightning_logs/version_0`.
const DEPTH: usize = 3;

/// A training run, read from its folder.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) metrics: Metrics,
    /// Hyper-parameters, and the configuration of a command line, by dotted names.
    pub(crate) params: Vec<(String, String)>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) record: Record,
}

#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// The folders of runs in what was named, each once, in order.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        let is_file = path.file_name().is_some_and(|name| name == METRICS || name == RECORD);
        let folder = if is_file { path.parent().unwrap_or(path) } else { path };
        let mut below = Vec::new();
        collect(folder, DEPTH, &mut below);
        if below.is_empty() {
            return Err(ReportError::NoRun(path.clone()));
        }
        below.sort_by_key(|folder| natural_key(folder));
        let same = |folder: &PathBuf| folder.canonicalize().unwrap_or_else(|_| folder.clone());
        found.extend(below.into_iter().filter(|folder| seen.insert(same(folder))));
    }
    Ok(found)
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let has = |file| folder.join(file).is_file();
    if has(METRICS) || has(RECORD) || !event_files(folder).is_empty() {
        found.push(folder.to_owned());
    } else if depth > 0 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.for_each(|entry| collect(&entry.path(), depth - 1, found));
    }
}

/// So that `version_10` comes after `version_9`.
fn natural_key(path: &Path) -> Vec<(String, u64)> {
    let text = path.to_string_lossy();
    let mut key: Vec<(String, u64)> = vec![(String::new(), 0)];
    for c in text.chars() {
        let last = key.len() - 1;
        match c.to_digit(10) {
            Some(digit) => key[last].1 = key[last].1.saturating_mul(10).saturating_add(u64::from(digit)),
            None if key[last].1 > 0 => key.push((c.to_string(), 0)),
            None => key[last].0.push(c),
        }
    }
    key
}

impl Run {
    pub(crate) fn read(folder: &Path) -> Result<Run> {
        let metrics = folder.join(METRICS);
        let metrics = match metrics.is_file() {
            true => Metrics::read(&metrics)?,
            false => events::read(&event_files(folder))?,
        };
        let mut params = Vec::new();
        for (file, prefix) in [("hparams.yaml", ""), ("config.yaml", "")] {
            // A file that is no YAML, such as one with Python objects, has nothing to compare.
            let parsed = fs::read_to_string(folder.join(file)).ok().and_then(|text| serde_saphyr::from_str(&text).ok());
            if let Some(value) = parsed {
                flatten(&value, prefix.to_owned(), &mut params);
            }
        }
        let mut names = BTreeSet::new();
        params.retain(|(name, _): &(String, String)| names.insert(name.clone()));
        let (checkpoints, record) = (checkpoints(folder)?, Record::read(folder)?);
        Ok(Run { name: name(folder), folder: folder.to_owned(), metrics, params, checkpoints, record })
    }
}

/// `lightning_logs/version_0`: the folder and the one that it is in.
fn name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let parts: Vec<_> = folder.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

fn checkpoints(folder: &Path) -> Result<Vec<Checkpoint>> {
    let folder = folder.join("checkpoints");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).map_err(failed(&folder, "read"))?.flatten();
    let checkpoints = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_checkpoint = name.ends_with(".ckpt");
        is_checkpoint.then(|| Checkpoint { name, bytes: entry.metadata().map_or(0, |meta| meta.len()) })
    });
    let mut checkpoints: Vec<Checkpoint> = checkpoints.collect();
    checkpoints.sort_by_key(|checkpoint| natural_key(Path::new(&checkpoint.name)));
    Ok(checkpoints)
}

/// The values of a tree by dotted names. Lists of values stay together.
fn flatten(value: &Value, name: String, params: &mut Vec<(String, String)>) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(entries) => entries.iter().for_each(|(key, value)| flatten(value, below(key), params)),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().enumerate().for_each(|(at, item)| flatten(item, below(&at.to_string()), params));
        }
        Value::String(text) => params.push((name, text.clone())),
        other => params.push((name, other.to_string())),
    }
}
