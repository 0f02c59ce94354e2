//! The tensors of a checkpoint: where they are, their kinds, which share memory, and their values in short.

use fulgurite_torch::tch::{Kind, Tensor};
use fulgurite_torch::{TorchError, Value};

/// A tree as a list of what is at its ends, each with the way to it.
pub(super) fn leaves(value: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    collect(String::new(), value, &mut found);
    found
}

fn collect<'a>(path: String, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Dict(dict) if !dict.is_empty() => {
            for (key, value) in dict.iter() {
                let key = super::text::value(key);
                collect(if path.is_empty() { key } else { format!("{path}.{key}") }, value, found);
            }
        }
        Value::List(items) | Value::Tuple(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, item)| collect(format!("{path}[{index}]"), item, found));
        }
        _ => found.push((path, value)),
    }
}

/// The tensors of a tree, each with the way to it.
pub(super) fn tensors(value: &Value) -> Vec<(String, &Tensor)> {
    leaves(value).into_iter().filter_map(|(path, value)| Some((path, value.as_tensor()?))).collect()
}

/// The bytes that the elements of a tensor take.
pub(super) fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// Tensors that lie over each other in memory, in groups.
pub(super) fn shared(tensors: &[(String, &Tensor)]) -> Vec<Vec<String>> {
    let mut ranges: Vec<(usize, usize, usize)> = Vec::new();
    for (index, (_, tensor)) in tensors.iter().enumerate() {
        if tensor.numel() > 0 {
            let start = tensor.data_ptr() as usize;
            let reach: i64 = tensor.size().iter().zip(tensor.stride()).map(|(size, stride)| (size - 1) * stride).sum();
            ranges.push((start, start + (reach as usize + 1) * tensor.kind().elt_size_in_bytes(), index));
        }
    }
    ranges.sort_unstable();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut end = 0;
    for (start, stop, index) in ranges {
        match groups.last_mut() {
            Some(group) if start < end => group.push(index),
            _ => groups.push(vec![index]),
        }
        end = end.max(stop);
    }
    groups.retain(|group| group.len() > 1);
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups.sort_unstable();
    groups.into_iter().map(|group| group.into_iter().map(|index| tensors[index].0.clone()).collect()).collect()
}

/// The values of a tensor in short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stats {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    /// Elements that are infinite or no number; the others alone count above.
    pub(super) not_finite: usize,
}

/// `None` for a tensor of complex numbers, or without a finite element.
pub(super) fn stats(tensor: &Tensor) -> Result<Option<Stats>, TorchError> {
    if matches!(tensor.kind(), Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble) {
        return Ok(None);
    }
    let flat = tensor.f_detach()?.f_reshape([-1])?.f_to_kind(Kind::Double)?;
    let finite = flat.f_masked_select(&flat.f_isfinite()?)?;
    if finite.numel() == 0 {
        return Ok(None);
    }
    Ok(Some(Stats {
        min: f64::try_from(finite.f_min()?)?,
        max: f64::try_from(finite.f_max()?)?,
        mean: f64::try_from(finite.f_mean(Kind::Double)?)?,
        not_finite: flat.numel() - finite.numel(),
    }))
}

/// PyTorch's name of a kind, without `torch.`.
pub(super) fn dtype_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "float32",
        Kind::Double => "float64",
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Int64 => "int64",
        Kind::Int => "int32",
        Kind::Int16 => "int16",
        Kind::Int8 => "int8",
        Kind::Uint8 => "uint8",
        Kind::Bool => "bool",
        Kind::ComplexFloat => "complex64",
        Kind::ComplexDouble => "complex128",
        Kind::ComplexHalf => "complex32",
        Kind::Float8e5m2 => "float8_e5m2",
        Kind::Float8e4m3fn => "float8_e4m3fn",
        Kind::Float8e5m2fnuz => "float8_e5m2fnuz",
        Kind::Float8e4m3fnuz => "float8_e4m3fnuz",
        Kind::QInt8 => "qint8",
        Kind::QUInt8 => "quint8",
        Kind::QInt32 => "qint32",
    }
}

/// The floating-point kind of a name, as PyTorch or the trainer's `precision` spells it.
pub(super) fn parse_dtype(name: &str) -> Result<Kind, String> {
    match name {
        "fp32" | "float32" | "float" => Ok(Kind::Float),
        "fp64" | "float64" | "double" => Ok(Kind::Double),
        "fp16" | "float16" | "half" => Ok(Kind::Half),
        "bf16" | "bfloat16" => Ok(Kind::BFloat16),
        _ => Err("choose float64, float32, bfloat16 (bf16) or float16 (fp16)".into()),
    }
}
