//! `fulgurite-ckpt show`: the contents of a checkpoint.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::PathBuf;

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, TorchError, Value, printable};
use serde_json::{Map, Value as Json, json};

use super::dtype::dtype_name;
use super::tensors::{Expansion, Stats, Summaries, as_f64, bytes, once, shared, tensors};
use super::text::{self, Table, count, fields, settings, size};
use crate::load::source::{self, Checksums, Format, Source};
use crate::load::{VERSION_KEY, find_state_dict};
use fulgurite_engine::Error;

/// Prints the contents of a checkpoint.
#[derive(clap::Args)]
pub(super) struct Show {
    /// A checkpoint, an index of shards, or a folder that has one.
    file: PathBuf,
    /// Lists every tensor.
    #[arg(long)]
    tensors: bool,
    /// Lists every tensor with its smallest, largest and mean element, which reads them all.
    #[arg(long)]
    stats: bool,
    /// Prints JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Reads only names, shapes and settings, and does not verify the checksums of tensors, for very large files.
    #[arg(long, conflicts_with = "stats")]
    quick: bool,
    #[command(flatten)]
    expansion: Expansion,
}

/// The entries that have their own table, or are listed at the top.
const KNOWN: [&str; 12] = [
    "epoch",
    "global_step",
    VERSION_KEY,
    "state_dict",
    "loops",
    "callbacks",
    "optimizer_states",
    "lr_schedulers",
    "hparams_name",
    "hyper_parameters",
    "datamodule_hparams_name",
    "datamodule_hyper_parameters",
];

impl Show {
    pub(super) fn run(&self, width: Option<usize>) -> Result<String, Error> {
        let checksums = if self.quick { Checksums::Ignored } else { Checksums::Compared };
        let source = source::read(&self.file, checksums)?;
        if self.stats {
            let checked = self.expansion.check(&tensors(&source.value), as_f64, once);
            checked.map_err(|problem| Error::Checkpoint { path: self.file.clone(), problem })?;
        }
        if self.json {
            return Ok(json_text(&self.to_json(&source)?));
        }
        let rows = |rows: Vec<(String, String)>| fields(&rows, width);
        let mut text = rows(self.facts(&source));
        if let Value::Dict(checkpoint) = &source.value
            && checkpoint.get(VERSION_KEY).is_some()
        {
            text += &section("Hyper-parameters", rows(entries(checkpoint, "hyper_parameters")));
            text += &section("Hyper-parameters of the data", rows(entries(checkpoint, "datamodule_hyper_parameters")));
            text += &section("Progress", progress(checkpoint).render(width));
            text += &section("Optimizers", rows(optimizers(checkpoint)));
            text += &section("Schedulers", rows(schedulers(checkpoint)));
            text += &section("Callbacks", rows(entries(checkpoint, "callbacks")));
            text += &section("Other entries", rows(others(checkpoint)));
        }
        text += &self.tensors(&source, width)?;
        let shared = shared(&tensors(&source.value));
        let groups = shared.iter().map(|names| (names[0].clone(), format!("= {}", names[1..].join(", "))));
        text += &section("Tensors in the same memory", rows(groups.collect()));
        Ok(text)
    }

    fn facts(&self, source: &Source) -> Vec<(String, String)> {
        let mut facts = vec![
            ("file", self.file.display().to_string()),
            ("holds", kind(&source.value).to_owned()),
            ("format", format(source)),
            ("size", size(file_size(source))),
        ];
        if let Value::Dict(checkpoint) = &source.value {
            for key in ["epoch", "global_step", VERSION_KEY] {
                facts.extend(checkpoint.get(key).map(|value| (key, text::value(value))));
            }
            if let Ok(ours) = checkpoint.dict("fulgurite") {
                facts.push(("written by", "Fulgurite".to_owned()));
                facts.extend(ours.int("global_seed").ok().map(|seed| ("seed", (seed as u64).to_string())));
            }
        }
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// All of them, or how many each entry of the checkpoint has.
    fn tensors(&self, source: &Source, width: Option<usize>) -> Result<String, Error> {
        let parts: Vec<(String, Vec<(String, &Tensor)>)> = match &source.value {
            Value::Dict(checkpoint) if !is_state_dict(checkpoint) => {
                let parts = checkpoint.iter().map(|(key, value)| (text::value(key), tensors(value)));
                parts.filter(|(_, tensors)| !tensors.is_empty()).collect()
            }
            value => vec![(String::new(), tensors(value))],
        };
        if self.stats || self.tensors {
            let mut summaries = Summaries::default();
            let tables = parts.iter().map(|(name, tensors)| {
                let title = if name.is_empty() { "\nTensors\n".into() } else { format!("\nTensors of {name}\n") };
                Ok(title + &self.list(tensors, &mut summaries)?.render(width))
            });
            return tables.collect();
        }
        let mut table = Table::new(&["in", ">tensors", ">elements", ">size", "dtypes"]);
        for (name, tensors) in &parts {
            table.push(totals(if name.is_empty() { "total" } else { name }, tensors));
        }
        if parts.len() > 1 {
            table.push(totals("total", &tensors(&source.value)));
        }
        Ok(section("Tensors", table.render(width)))
    }

    fn list(&self, tensors: &[(String, &Tensor)], summaries: &mut Summaries) -> Result<Table, Error> {
        let mut titles = vec!["name", "dtype", "shape", ">size"];
        if self.stats {
            titles.extend([">min", ">max", ">mean", ">not finite"]);
        }
        let mut table = Table::new(&titles);
        for (name, tensor) in tensors {
            let (dtype, shape) = (dtype_name(tensor.kind()).to_owned(), format!("{:?}", tensor.size()));
            let mut cells = vec![name.clone(), dtype, shape, size(bytes(tensor))];
            if self.stats {
                let found = summaries.of(tensor)?;
                cells.extend(match found {
                    Some(stats) => [stats.min, stats.max, stats.mean].map(number),
                    None => Default::default(),
                });
                cells.push(match found {
                    Some(Stats { not_finite: 0, .. }) => String::new(),
                    Some(stats) => stats.not_finite.to_string(),
                    None => String::new(),
                });
            }
            table.push(cells);
        }
        Ok(table)
    }

    fn to_json(&self, source: &Source) -> Result<Json, Error> {
        let all = tensors(&source.value);
        Ok(json!({
            "file": self.file.to_string_lossy(),
            "holds": kind(&source.value),
            "format": format(source),
            "bytes": file_size(source),
            "tensors": {
                "count": all.len(),
                "elements": all.iter().map(|(_, tensor)| tensor.numel()).sum::<usize>(),
                "bytes": all.iter().map(|(_, tensor)| bytes(tensor)).sum::<u64>(),
            },
            "shared": shared(&all),
            "contents": tree(&source.value, self.stats.then(Summaries::default).as_mut())?,
        }))
    }
}

/// Indented JSON, with control characters, which occur in strings only, escaped.
fn json_text(json: &Json) -> String {
    let text = format!("{json:#}\n");
    let is_printed = |c: char| matches!(printable(c.encode_utf8(&mut [0; 4])), Cow::Borrowed(_));
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match is_printed(c) {
            true => escaped.push(c),
            false => escaped += &format!("\\u{:04x}", u32::from(c)),
        }
    }
    escaped
}

/// A title above what there is, if there is anything.
fn section(title: &str, body: String) -> String {
    if body.is_empty() { String::new() } else { format!("\n{title}\n{body}") }
}

fn kind(value: &Value) -> &'static str {
    let Value::Dict(checkpoint) = value else { return "plain data" };
    match checkpoint.get(VERSION_KEY) {
        Some(_) if checkpoint.get("optimizer_states").is_some() => "a Lightning checkpoint, to resume from",
        Some(_) => "a Lightning checkpoint, weights alone",
        None if is_state_dict(checkpoint) => "weights",
        None if find_state_dict(checkpoint, None).is_ok() => "weights, and more",
        None => "plain data",
    }
}

fn format(source: &Source) -> String {
    match source.format {
        Format::Torch => "PyTorch".into(),
        Format::Safetensors => "safetensors".into(),
        Format::Shards => format!("an index of {}", count(source.files.len(), "shard")),
    }
}

fn file_size(source: &Source) -> u64 {
    source.files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Whether weights are all that it has.
fn is_state_dict(checkpoint: &Dict) -> bool {
    find_state_dict(checkpoint, None).is_ok_and(|found| found.len() == checkpoint.len())
}

/// Four digits, which are enough to recognize weights that exploded.
fn number(number: f64) -> String {
    match number.abs() {
        x if x == 0.0 || (1e-3..1e5).contains(&x) => {
            let places = 3 - (x.max(1e-3).log10().floor() as i32).clamp(-3, 3);
            let text = format!("{number:.places$}", places = places as usize);
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        _ => format!("{number:.3e}"),
    }
}

fn totals(name: &str, tensors: &[(String, &Tensor)]) -> Vec<String> {
    let mut dtypes: Vec<&str> = Vec::new();
    for (_, tensor) in tensors {
        let dtype = dtype_name(tensor.kind());
        if !dtypes.contains(&dtype) {
            dtypes.push(dtype);
        }
    }
    let elements: usize = tensors.iter().map(|(_, tensor)| tensor.numel()).sum();
    let size = size(tensors.iter().map(|(_, tensor)| bytes(tensor)).sum());
    vec![name.to_owned(), tensors.len().to_string(), elements.to_string(), size, dtypes.join(", ")]
}

/// The entries of a dict within the checkpoint.
fn entries(checkpoint: &Dict, key: &str) -> Vec<(String, String)> {
    let Ok(dict) = checkpoint.dict(key) else { return Vec::new() };
    let described = |value: &Value| match value {
        Value::Dict(dict) => settings(dict.iter()),
        other => text::value(other),
    };
    dict.iter().map(|(name, value)| (text::value(name), described(value))).collect()
}

/// The counters of the loops.
fn progress(checkpoint: &Dict) -> Table {
    let mut table = Table::new(&["loop", "", ">ready", ">started", ">processed", ">completed"]);
    if let Ok(loops) = checkpoint.dict("loops") {
        for (name, value) in loops.iter() {
            counters(&text::value(name), value, &mut table);
        }
    }
    table
}

fn counters(path: &str, value: &Value, table: &mut Table) {
    let Value::Dict(dict) = value else { return };
    for which in ["total", "current"] {
        let Ok(counts) = dict.dict(which) else { continue };
        if counts.iter().any(|(_, count)| count.as_int().is_some_and(|count| count != 0)) {
            let count = |name: &str| counts.int(name).map_or(String::new(), |count| count.to_string());
            let path = path.replace("automatic_optimization.optim_progress.", "").replace("_progress", "");
            let counts = ["ready", "started", "processed", "completed"].map(count);
            table.push([vec![path, which.to_owned()], counts.to_vec()].concat());
        }
    }
    for (name, value) in dict.iter() {
        let name = text::value(name);
        if !["total", "current"].contains(&name.as_str()) {
            counters(&format!("{path}.{name}"), value, table);
        }
    }
}

fn optimizers(checkpoint: &Dict) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for (index, optimizer) in checkpoint.list("optimizer_states").unwrap_or_default().iter().enumerate() {
        let Value::Dict(optimizer) = optimizer else { continue };
        if let Ok(states) = optimizer.dict("state") {
            let mut kept: Vec<&str> = Vec::new();
            let mut seen = HashSet::new();
            for key in states.iter().filter_map(|(_, state)| state.as_dict()).flat_map(Dict::keys) {
                if seen.insert(key) {
                    kept.push(key);
                }
            }
            let kept = if kept.is_empty() { "nothing".into() } else { kept.join(", ") };
            rows.push((index.to_string(), format!("keeps {kept} of {}", count(states.len(), "parameter"))));
        }
        for (group, options) in optimizer.list("param_groups").unwrap_or_default().iter().enumerate() {
            let Value::Dict(options) = options else { continue };
            let params = options.list("params").map_or(0, <[Value]>::len);
            let is_told = |(key, value): &(&Value, &Value)| key.as_str() != Some("params") && **value != Value::None;
            let options = settings(options.iter().filter(is_told));
            rows.push((format!("{index}, group {group}"), format!("{}: {options}", count(params, "parameter"))));
        }
    }
    rows
}

fn schedulers(checkpoint: &Dict) -> Vec<(String, String)> {
    let schedulers = checkpoint.list("lr_schedulers").unwrap_or_default().iter().enumerate();
    schedulers.filter_map(|(index, state)| Some((index.to_string(), settings(state.as_dict()?.iter())))).collect()
}

fn others(checkpoint: &Dict) -> Vec<(String, String)> {
    let is_other = |(key, _): &(&Value, &Value)| key.as_str().is_none_or(|key| !KNOWN.contains(&key));
    let described = |value: &Value| match value {
        Value::Dict(dict) if dict.iter().any(|(_, value)| value.as_dict().is_some() || value.as_tensor().is_some()) => {
            dict.iter().map(|(key, _)| text::value(key)).collect::<Vec<_>>().join(", ")
        }
        Value::Dict(dict) => settings(dict.iter()),
        other => text::value(other),
    };
    checkpoint.iter().filter(is_other).map(|(key, value)| (text::value(key), described(value))).collect()
}

/// The tree as JSON, with tensors described.
fn tree(value: &Value, mut summaries: Option<&mut Summaries>) -> Result<Json, TorchError> {
    Ok(match value {
        Value::Tensor(tensor) => {
            let mut described = json!({
                "dtype": dtype_name(tensor.kind()), "shape": tensor.size(), "bytes": bytes(tensor),
            });
            if let Some(summaries) = summaries
                && let Some(found) = summaries.of(tensor)?
            {
                described["min"] = found.min.into();
                described["max"] = found.max.into();
                described["mean"] = found.mean.into();
                described["not_finite"] = found.not_finite.into();
            }
            described
        }
        Value::Bytes(bytes) => json!({ "bytes": bytes.len() }),
        Value::List(items) | Value::Tuple(items) => {
            items.iter().map(|item| tree(item, summaries.as_deref_mut())).collect::<Result<Vec<_>, _>>()?.into()
        }
        Value::Dict(dict) => {
            let entries =
                dict.iter().map(|(key, value)| Ok((text::value(key), tree(value, summaries.as_deref_mut())?)));
            Json::Object(entries.collect::<Result<Map<_, _>, TorchError>>()?)
        }
        plain => plain.to_json().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_four_digits() {
        let numbers = [0.0, 1.0, -0.25, 0.001_234_56, 2.141_592_65, 99_999.0, 1e5, 2.5e-7, 1_234.5];
        let texts = numbers.map(number);
        assert_eq!(texts, ["0", "1", "-0.25", "0.001235", "2.142", "99999", "1.000e5", "2.500e-7", "1234"]);
    }
}
