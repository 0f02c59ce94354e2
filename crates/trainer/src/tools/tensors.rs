//! The tensors of a checkpoint: where they are, their kinds, which share memory, and their values in short.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use fulgurite_torch::tch::{Kind, Tensor};
use fulgurite_torch::{TorchError, Value};

use super::dtype::dtype_name;

/// The maximum length of a printed path, in bytes.
const LONGEST_WAY: usize = 1000;

/// The leaves of a tree, each with its path.
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
                collect(shortened(if path.is_empty() { key } else { format!("{path}.{key}") }), value, found);
            }
        }
        Value::List(items) | Value::Tuple(items) if !items.is_empty() => {
            let way = |index| shortened(format!("{path}[{index}]"));
            items.iter().enumerate().for_each(|(index, item)| collect(way(index), item, found));
        }
        _ => found.push((path, value)),
    }
}

/// A path is part of all paths below it, so a long one is shortened, and distinguished by a hash.
fn shortened(way: String) -> String {
    if way.len() <= LONGEST_WAY {
        return way;
    }
    let mut hasher = DefaultHasher::new();
    way.hash(&mut hasher);
    let shown = LONGEST_WAY - "…0123456789abcdef".len();
    format!("{}…{:016x}", &way[..way.floor_char_boundary(shown)], hasher.finish())
}

/// The tensors of a tree, each with its path.
pub(super) fn tensors(value: &Value) -> Vec<(String, &Tensor)> {
    leaves(value).into_iter().filter_map(|(path, value)| Some((path, value.as_tensor()?))).collect()
}

/// The bytes that the elements of a tensor take.
pub(super) fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// The memory location and view of a tensor: the same for tied tensors.
pub(super) type Place = (usize, Vec<i64>, Vec<i64>, &'static str);

pub(super) fn place(tensor: &Tensor) -> Place {
    (tensor.data_ptr() as usize, tensor.size(), tensor.stride(), dtype_name(tensor.kind()))
}

/// A tensor in which what `expand` repeats is there once.
pub(super) fn once(tensor: &Tensor) -> Result<Tensor, TorchError> {
    let mut once = tensor.f_detach()?;
    for (dim, (size, stride)) in tensor.size().into_iter().zip(tensor.stride()).enumerate() {
        if stride == 0 && size > 1 {
            once = once.f_narrow(dim as i64, 0, 1)?;
        }
    }
    Ok(once)
}

/// How much tensors may take when each is written out by itself.
#[derive(clap::Args)]
pub(super) struct Expansion {
    /// What tensors that lie over each other in memory may take beyond it, each by itself, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = MAX_EXPANSION)]
    pub(super) max_expansion: u64,
}

/// Bytes of an element as values are looked at: in f64.
pub(super) fn as_f64(_: &Tensor) -> u64 {
    8
}

/// Bytes of an element in the tensor's own kind.
pub(super) fn as_it_is(tensor: &Tensor) -> u64 {
    tensor.kind().elt_size_in_bytes() as u64
}

/// More than models with fused and expanded weights need, beyond several times their own size.
pub(super) const MAX_EXPANSION: u64 = 256;

impl Expansion {
    /// What is wrong with `tensors`, of which each place is worked on once, `part` of it, in elements of so many bytes.
    pub(super) fn check(
        &self,
        tensors: &[(String, &Tensor)],
        element: impl Fn(&Tensor) -> u64,
        part: impl Fn(&Tensor) -> Result<Tensor, TorchError>,
    ) -> Result<(), String> {
        let mut places: HashMap<Place, [u64; 2]> = HashMap::new();
        let mut largest = (0, "");
        for (name, tensor) in tensors {
            let elements = part(tensor).map_err(|error| error.to_string())?.numel() as u64;
            let bytes = [element(tensor), as_it_is(tensor)].map(|element| elements.saturating_mul(element));
            largest = largest.max((bytes[1], name));
            places.insert(place(tensor), bytes);
        }
        let all = |which: usize| places.values().fold(0u64, |all, bytes| all.saturating_add(bytes[which]));
        let held = covered(tensors, element);
        let allowed = held.saturating_mul(4).saturating_add(self.max_expansion.saturating_mul(1 << 20));
        if all(0) <= allowed {
            return Ok(());
        }
        let [all, held] = [all(1), covered(tensors, as_it_is)].map(super::text::size);
        Err(format!(
            "has tensors whose elements lie over each other: {held} in memory, {all} when each is written out (the \
             largest is `{}`); --max-expansion allows more",
            largest.1
        ))
    }
}

/// The first byte of each tensor that is not empty, the one after its last, and its index; in the order of memory.
fn ranges(tensors: &[(String, &Tensor)]) -> Vec<(usize, usize, usize)> {
    let mut ranges: Vec<(usize, usize, usize)> = Vec::new();
    for (index, (_, tensor)) in tensors.iter().enumerate() {
        if tensor.numel() > 0 {
            let start = tensor.data_ptr() as usize;
            let reach: i64 = tensor.size().iter().zip(tensor.stride()).map(|(size, stride)| (size - 1) * stride).sum();
            ranges.push((start, start + (reach as usize + 1) * tensor.kind().elt_size_in_bytes(), index));
        }
    }
    ranges.sort_unstable();
    ranges
}

/// What tensors take that are worked on where they lie, in elements of so many bytes.
fn covered(tensors: &[(String, &Tensor)], element: impl Fn(&Tensor) -> u64) -> u64 {
    let mut end = 0;
    let mut covered: u64 = 0;
    for (start, stop, index) in ranges(tensors) {
        let tensor = tensors[index].1;
        let elements = stop.saturating_sub(start.max(end)) / tensor.kind().elt_size_in_bytes().max(1);
        covered = covered.saturating_add((elements as u64).saturating_mul(element(tensor)));
        end = end.max(stop);
    }
    covered
}

/// Tensors that lie over each other in memory, in groups.
pub(super) fn shared(tensors: &[(String, &Tensor)]) -> Vec<Vec<String>> {
    let ranges = ranges(tensors);
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
    /// The number of infinite and NaN elements, which are not included above.
    pub(super) not_finite: usize,
}

/// `None` for a tensor of complex numbers, or without a finite element.
fn stats(tensor: &Tensor) -> Result<Option<Stats>, TorchError> {
    if matches!(tensor.kind(), Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble) {
        return Ok(None);
    }
    // Each element is repeated as often as any other, which changes no mean.
    let once = once(tensor)?;
    let flat = once.f_reshape([-1])?.f_to_kind(Kind::Double)?;
    let finite = flat.f_masked_select(&flat.f_isfinite()?)?;
    if finite.numel() == 0 {
        return Ok(None);
    }
    Ok(Some(Stats {
        min: f64::try_from(finite.f_min()?)?,
        max: f64::try_from(finite.f_max()?)?,
        mean: f64::try_from(finite.f_mean(Kind::Double)?)?,
        not_finite: (flat.numel() - finite.numel()) * (tensor.numel() / flat.numel()),
    }))
}

/// The [`stats`] of tensors, each place worked out once.
#[derive(Default)]
pub(super) struct Summaries(HashMap<Place, Option<Stats>>);

impl Summaries {
    pub(super) fn of(&mut self, tensor: &Tensor) -> Result<Option<Stats>, TorchError> {
        let place = place(tensor);
        if let Some(known) = self.0.get(&place) {
            return Ok(*known);
        }
        let found = stats(tensor)?;
        self.0.insert(place, found);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::Dict;

    use super::*;

    #[test]
    fn a_long_key_is_not_repeated_for_everything_below_it() {
        let inner: Dict = (0..1000).map(|n| (n.into(), Value::None)).collect();
        let long = |last: &str| "k".repeat(1 << 20) + last;
        let value = Value::Dict(Dict::new().with(long("a"), inner.clone()).with(long("b"), inner));
        let found = leaves(&value);
        assert!(found.iter().map(|(path, _)| path.len()).sum::<usize>() < 3 << 20);
        let names: std::collections::HashSet<&String> = found.iter().map(|(path, _)| path).collect();
        assert_eq!(names.len(), 2000);
    }
}
