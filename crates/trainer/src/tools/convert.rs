//! `fulgurite-ckpt convert`: the same checkpoint in another format.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fulgurite_torch::serialization::{self, safetensors};
use fulgurite_torch::tch::{Kind, Tensor};
use fulgurite_torch::{Dict, TorchError, Value};

use super::dtype::{dtype_name, parse_dtype};
use super::tensors::{Expansion, MAX_EXPANSION, Place, as_f64, as_it_is, bytes, once, place, tensors};
use super::text::{self, count, size};
use crate::load::source::{self, Checksums};
use crate::load::{Keys, VERSION_KEY, find_state_dict};
use fulgurite_engine::Error;

/// The entries of a weights-only checkpoint of Lightning.
const WEIGHTS_ONLY: [&str; 11] = [
    "epoch",
    "global_step",
    VERSION_KEY,
    "state_dict",
    "loops",
    "hparams_name",
    "hyper_parameters",
    "hparams_type",
    "datamodule_hparams_name",
    "datamodule_hyper_parameters",
    "datamodule_hparams_type",
];

/// Writes a checkpoint in another format, and reports what is lost.
///
/// The extension of the new name determines the format: .ckpt (Lightning's; everything is kept), .pt, .pth or .bin
/// (PyTorch's; the state dict only), .safetensors (weights only).
#[derive(clap::Args)]
pub(super) struct Convert {
    /// A checkpoint, an index of shards, or a folder that has one.
    input: PathBuf,
    /// The new file.
    output: PathBuf,
    /// Leaves out optimizers, schedulers and callbacks.
    #[arg(long)]
    weights_only: bool,
    #[command(flatten)]
    change: Change,
}

/// What is changed on the way.
#[derive(clap::Args)]
pub(super) struct Change {
    /// Converts floating-point weights: float64, float32, bfloat16 (bf16), float16 (fp16).
    #[arg(long, value_parser = parse_dtype)]
    dtype: Option<Kind>,
    /// Strips this prefix from the names of weights.
    #[arg(long, value_name = "PREFIX")]
    strip_prefix: Option<String>,
    /// Adds this prefix to the names of weights.
    #[arg(long, value_name = "PREFIX")]
    add_prefix: Option<String>,
    /// Selects the weights of this name: a part of the model, or a pattern with * and ?.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The key of the weights in the file, such as current_model_state.
    #[arg(long, value_name = "KEY")]
    state_dict_key: Option<String>,
    /// Replaces an existing file.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    expansion: Expansion,
}

impl Convert {
    pub(super) fn run(&self) -> Result<String, Error> {
        self.change.write(
            &self.input,
            source::read(&self.input, Checksums::Compared)?.value,
            &self.output,
            self.weights_only,
        )
    }
}

/// The format requested by a file's extension.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    Lightning,
    Torch,
    Safetensors,
}

impl Target {
    fn of(path: &Path) -> Result<Target, Error> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("ckpt") => Ok(Target::Lightning),
            Some("pt" | "pth" | "bin") => Ok(Target::Torch),
            Some("safetensors") => Ok(Target::Safetensors),
            _ => Err(Error::Config(format!(
                "{} does not determine a format; end it in .ckpt, .pt or .safetensors",
                path.display()
            ))),
        }
    }
}

impl Change {
    /// Writes `value`, that was read from `input`, to `output`; what became of it.
    pub(super) fn write(&self, input: &Path, value: Value, output: &Path, weights_only: bool) -> Result<String, Error> {
        let target = Target::of(output)?;
        if output.exists() && !self.force {
            return Err(Error::Config(format!("{} exists already; --force replaces it", output.display())));
        }
        let wrong = |problem: String| Error::Checkpoint { path: input.into(), problem };
        let Value::Dict(contents) = value else {
            return Err(wrong(format!("contains a {}, and no weights", value.type_name())));
        };
        let mut notes = Vec::new();
        let found = find_state_dict(&contents, self.state_dict_key.as_deref()).map_err(wrong)?;
        let mut weights = self.weights(found, &mut notes).map_err(wrong)?;
        if target == Target::Safetensors {
            let (tensors, others): (Vec<_>, Vec<_>) =
                weights.into_iter().partition(|(_, value)| value.as_tensor().is_some());
            weights = tensors.into_iter().collect();
            weights = self.written_out(weights).map_err(wrong)?;
            if !others.is_empty() {
                let names: Vec<String> = others.iter().map(|(name, _)| text::value(name)).collect();
                notes.push(format!("left out, because they are not tensors: {}", names.join(", ")));
            }
        }
        let left_out = |kept: &dyn Fn(&str) -> bool| {
            contents.keys().filter(|key| !kept(key)).map(String::from).collect::<Vec<_>>()
        };
        let is_plain = found.len() == contents.len() && contents.iter().any(|(_, value)| value.as_tensor().is_some());
        let besides_weights = || {
            let is_other = |value: &Value| !value.as_dict().is_some_and(|dict| std::ptr::eq(dict, found));
            let others = contents.iter().filter(|(_, value)| !is_plain && is_other(value));
            others.filter_map(|(key, _)| key.as_str().map(String::from)).collect::<Vec<_>>()
        };
        let lost;
        let written = match target {
            Target::Lightning if contents.get(VERSION_KEY).is_some() => {
                let is_kept = |key: &str| !weights_only || WEIGHTS_ONLY.contains(&key);
                lost = left_out(&is_kept);
                let mut kept: Dict = contents
                    .iter()
                    .filter(|(key, _)| key.as_str().is_none_or(is_kept))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                kept.set("state_dict", weights.clone());
                kept
            }
            Target::Lightning => {
                lost = besides_weights();
                notes.push("it has weights only: it can be loaded and tested, but not resumed from".to_owned());
                Dict::new()
                    .with("epoch", 0)
                    .with("global_step", 0)
                    .with(VERSION_KEY, fulgurite_engine::LIGHTNING_VERSION)
                    .with("state_dict", weights.clone())
            }
            Target::Torch | Target::Safetensors => {
                lost = besides_weights();
                weights.clone()
            }
        };
        let weights = Value::Dict(weights);
        let tensors = tensors(&weights);
        let written = Value::Dict(written);
        let saved = match &written {
            Value::Dict(tensors) if target == Target::Safetensors => {
                safetensors::save(output, tensors, &[("format".to_owned(), "pt".to_owned())].into())
            }
            written => serialization::save(output, written),
        };
        saved.map_err(|error| Error::Checkpoint { path: output.into(), problem: error.to_string() })?;
        let total = tensors.iter().map(|(_, tensor)| bytes(tensor)).sum();
        let mut text = format!("{}: {} of {}\n", output.display(), count(tensors.len(), "tensor"), size(total));
        if !lost.is_empty() {
            text += &format!("left out: {}\n", lost.join(", "));
        }
        notes.iter().for_each(|note| text += &format!("{note}\n"));
        Ok(text)
    }

    /// Weights that safetensors can hold, each by itself: real tensors, where the limit was raised for it.
    fn written_out(&self, weights: Dict) -> Result<Dict, String> {
        let weights = Value::Dict(weights);
        self.expansion.check(&tensors(&weights), as_it_is, |tensor| Ok(tensor.shallow_clone()))?;
        let Value::Dict(mut weights) = weights else { return Ok(Dict::new()) };
        if self.expansion.max_expansion > MAX_EXPANSION {
            let mut copies: HashMap<Place, Tensor> = HashMap::new();
            weights = weights.map_tensors(&mut |tensor| {
                copies.entry(place(tensor)).or_insert_with(|| tensor.detach().copy()).shallow_clone()
            });
        }
        Ok(weights)
    }

    /// The weights under their new names, in their new kind.
    fn weights(&self, state: &Dict, notes: &mut Vec<String>) -> Result<Dict, String> {
        let mut keys = Keys::default();
        if let Some(prefix) = &self.strip_prefix {
            keys.replace_prefix(prefix.clone(), String::new());
        }
        if let Some(prefix) = &self.add_prefix {
            keys.replace_prefix(String::new(), prefix.clone());
        }
        self.only.iter().for_each(|pattern| keys.only(pattern.clone()));
        let mut skipped = Vec::new();
        let renamed = keys.apply(state, &mut skipped)?;
        if renamed.is_empty() {
            return Err("has no weights of these names".into());
        }
        if !skipped.is_empty() {
            notes.push(format!("left out, as --only says: {}", count(skipped.len(), "weight")));
        }
        let Some(kind) = self.dtype else { return Ok(renamed) };
        // Weights that are tied stay tied.
        let mut seen: HashMap<Place, Tensor> = HashMap::new();
        let weights = Value::Dict(renamed);
        self.expansion.check(&tensors(&weights), as_f64, once)?;
        let Value::Dict(renamed) = weights else { return Ok(Dict::new()) };
        let mut converted = 0;
        let mut worst: f64 = 0.0;
        let mut result = Dict::new();
        for (name, value) in renamed {
            let Value::Tensor(tensor) = &value else {
                result.push(name, value);
                continue;
            };
            if !tensor.is_floating_point() || tensor.kind() == kind {
                result.push(name, value);
                continue;
            }
            converted += 1;
            let place = place(tensor);
            if !seen.contains_key(&place) {
                let (rounded, change) = rounded(tensor, kind).map_err(|error| error.to_string())?;
                worst = worst.max(change);
                seen.insert(place.clone(), rounded);
            }
            result.push(name, &seen[&place]);
        }
        if converted > 0 {
            let change = if worst == 0.0 { "no value".to_owned() } else { format!("values by up to {worst:.3e}") };
            let converted = count(converted, "tensor");
            notes.push(format!("converted {converted} to {}, which changed {change}", dtype_name(kind)));
        }
        Ok(result)
    }
}

/// A tensor in another kind, and the largest change of an element.
fn rounded(tensor: &Tensor, kind: Kind) -> Result<(Tensor, f64), TorchError> {
    let once = once(tensor)?;
    let converted = once.f_to_kind(kind)?;
    let change = (once.f_to_kind(Kind::Double)? - converted.f_to_kind(Kind::Double)?).f_abs()?;
    let change = if change.numel() == 0 { 0.0 } else { f64::try_from(change.f_max()?)? };
    Ok((converted.f_expand(tensor.size(), false)?, change))
}
