//! `fulgurite-ckpt diff`: the differences between two checkpoints.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;

use fulgurite_torch::tch::{Kind, Tensor};
use fulgurite_torch::{TorchError, Value};

use super::dtype::dtype_name;
use super::findings::Findings;
use super::tensors::{Expansion, Place, as_f64, leaves, place, tensors};
use super::text::{self, Table, count, fields};
use crate::load::source::{self, Checksums};
use crate::load::{VERSION_KEY, find_state_dict};
use fulgurite_engine::Error;

/// Elements that are compared at a time, in doubles.
const CHUNK: i64 = 1 << 22;

/// Compares two checkpoints, and exits with 1 if they differ.
///
/// Elements a and b differ if |a - b| > atol + rtol·|b|; NaN is the same as NaN. The relative difference is that to the
/// larger of the two.
#[derive(clap::Args)]
pub(super) struct Diff {
    /// A checkpoint.
    a: PathBuf,
    /// Another.
    b: PathBuf,
    /// The absolute tolerance.
    #[arg(long, default_value_t = 0.0)]
    atol: f64,
    /// The relative tolerance.
    #[arg(long, default_value_t = 0.0)]
    rtol: f64,
    /// Compares only the weights. This is also done if only one of the two has more.
    #[arg(long)]
    weights_only: bool,
    #[command(flatten)]
    expansion: Expansion,
}

impl Diff {
    pub(super) fn run(&self, width: Option<usize>) -> Result<Findings, Error> {
        let (a, b) =
            (source::read(&self.a, Checksums::Compared)?.value, source::read(&self.b, Checksums::Compared)?.value);
        let is_more = |value: &Value| value.as_dict().is_some_and(|dict| dict.get(VERSION_KEY).is_some());
        let mut notes = String::new();
        let (a, b) = if self.weights_only || is_more(&a) != is_more(&b) {
            if !self.weights_only {
                let more = if is_more(&a) { &self.a } else { &self.b };
                notes = format!("Only {} has more than weights, so only weights are compared.\n\n", more.display());
            }
            (weights(a, &self.a)?, weights(b, &self.b)?)
        } else {
            (a, b)
        };
        for (value, path) in [(&a, &self.a), (&b, &self.b)] {
            let checked = self.expansion.check(&tensors(value), as_f64, |tensor| Ok(tensor.shallow_clone()));
            checked.map_err(|problem| Error::Checkpoint { path: path.clone(), problem })?;
        }
        let comparison = self.compare(&a, &b)?;
        let good = comparison.is_empty();
        Ok(Findings { text: notes + &comparison.render(width), good })
    }

    fn compare(&self, a: &Value, b: &Value) -> Result<Comparison, Error> {
        let (a, b) = (leaves(a), leaves(b));
        // Different keys may have the same way, such as 0 and "0"; they are compared in their order.
        let mut others: HashMap<&str, VecDeque<&Value>> = HashMap::new();
        for (path, value) in &b {
            others.entry(path).or_default().push_back(value);
        }
        let mut comparison = Comparison::default();
        // Tied tensors are compared once.
        let mut known: HashMap<(Place, Place), Option<Vec<String>>> = HashMap::new();
        for (path, ours) in &a {
            let Some(theirs) = others.get_mut(path.as_str()).and_then(VecDeque::pop_front) else {
                comparison.only_in_a.push(path.clone());
                continue;
            };
            match (ours, theirs) {
                (Value::Tensor(ours), Value::Tensor(theirs)) => {
                    comparison.tensors += 1;
                    let places = (place(ours), place(theirs));
                    if !known.contains_key(&places) {
                        known.insert(places.clone(), self.compare_tensors(path, ours, theirs)?);
                    }
                    if let Some(mut row) = known[&places].clone() {
                        row[0].clone_from(path);
                        comparison.differing_tensors.push(row);
                    }
                }
                _ => {
                    comparison.values += 1;
                    if !self.is_same(ours, theirs) {
                        comparison
                            .differing_values
                            .push((path.clone(), format!("{} | {}", text::value(ours), text::value(theirs))));
                    }
                }
            }
        }
        let only_in_b =
            b.iter().filter(|(path, _)| others.get_mut(path.as_str()).and_then(VecDeque::pop_front).is_some());
        comparison.only_in_b = only_in_b.map(|(path, _)| path.clone()).collect();
        Ok(comparison)
    }

    fn is_same(&self, a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Float(a), Value::Float(b)) => {
                a.to_bits() == b.to_bits() || a == b || (a - b).abs() <= self.atol + self.rtol * b.abs()
            }
            _ => a == b,
        }
    }

    fn compare_tensors(&self, path: &str, a: &Tensor, b: &Tensor) -> Result<Option<Vec<String>>, TorchError> {
        let kinds = [a, b].map(|tensor| dtype_name(tensor.kind()));
        let sizes = [a, b].map(Tensor::size);
        if sizes[0] != sizes[1] {
            let [ours, theirs] = sizes;
            return Ok(Some(vec![
                path.into(),
                format!("{ours:?} | {theirs:?}"),
                String::new(),
                String::new(),
                "shape".into(),
            ]));
        }
        let found = self.difference(a, b)?;
        let what = if kinds[0] == kinds[1] { String::new() } else { kinds.join(" | ") };
        if found.elements == 0 && what.is_empty() {
            return Ok(None);
        }
        let share = format!("{} of {}", found.elements, a.numel());
        let number = |number: f64| if found.elements == 0 { String::new() } else { format!("{number:.3e}") };
        Ok(Some(vec![path.into(), share, number(found.max_abs), number(found.max_rel), what]))
    }

    fn difference(&self, a: &Tensor, b: &Tensor) -> Result<Difference, TorchError> {
        let real = |tensor: &Tensor| match tensor.kind() {
            Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble => {
                tensor.f_detach()?.f_to_kind(Kind::ComplexDouble)?.f_view_as_real()?.f_reshape([-1])
            }
            _ => tensor.f_detach()?.f_reshape([-1]),
        };
        let (a, b) = (real(a)?, real(b)?);
        let mut found = Difference::default();
        for start in (0..a.numel() as i64).step_by(CHUNK as usize) {
            let length = CHUNK.min(a.numel() as i64 - start);
            let part = |tensor: &Tensor| tensor.f_narrow(0, start, length)?.f_to_kind(Kind::Double);
            let (a, b) = (part(&a)?, part(&b)?);
            let both_nan = a.f_isnan()?.f_logical_and(&b.f_isnan()?)?;
            let equal = a.f_eq_tensor(&b)?.f_logical_or(&both_nan)?;
            let apart = (&a - &b).f_abs()?.f_masked_fill(&equal, 0.0)?;
            let tolerance = b.f_abs()? * self.rtol + self.atol;
            // Values that are not comparable, such as NaN and a number, differ.
            let within = apart.f_le_tensor(&tolerance)?.f_logical_or(&equal)?;
            let differs = within.f_logical_not()?;
            let elements = i64::try_from(differs.f_sum(Kind::Int64)?)?;
            if elements == 0 {
                continue;
            }
            found.elements += elements;
            let apart = apart.f_masked_select(&differs)?;
            let larger = a.f_abs()?.f_maximum(&b.f_abs()?)?.f_masked_select(&differs)?;
            let largest = |tensor: &Tensor| Ok::<f64, TorchError>(f64::try_from(tensor.f_max()?)?);
            found.max_abs = worse(found.max_abs, largest(&apart)?);
            found.max_rel = worse(found.max_rel, largest(&(&apart / larger))?);
        }
        Ok(found)
    }
}

#[derive(Default)]
struct Difference {
    elements: i64,
    max_abs: f64,
    max_rel: f64,
}

/// The larger; NaN is worse than any number.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[derive(Default)]
struct Comparison {
    only_in_a: Vec<String>,
    only_in_b: Vec<String>,
    /// Name, how many elements, largest differences, and what else differs.
    differing_tensors: Vec<Vec<String>>,
    differing_values: Vec<(String, String)>,
    tensors: usize,
    values: usize,
}

impl Comparison {
    fn is_empty(&self) -> bool {
        self.only_in_a.is_empty()
            && self.only_in_b.is_empty()
            && self.differing_tensors.is_empty()
            && self.differing_values.is_empty()
    }

    fn render(self, width: Option<usize>) -> String {
        if self.is_empty() {
            return format!("The same: {}, {}.\n", count(self.tensors, "tensor"), count(self.values, "other value"));
        }
        let mut sections = Vec::new();
        for (which, names) in [("first", &self.only_in_a), ("second", &self.only_in_b)] {
            if !names.is_empty() {
                let lines: String = names.iter().map(|name| format!("  {name}\n")).collect();
                sections.push(format!("Only in the {which}\n{lines}"));
            }
        }
        if !self.differing_tensors.is_empty() {
            let title = format!("Tensors that differ: {} of {}\n", self.differing_tensors.len(), self.tensors);
            let mut table = Table::new(&["name", ">elements", ">max abs", ">max rel", "also"]);
            self.differing_tensors.into_iter().for_each(|row| table.push(row));
            sections.push(title + &table.render(width));
        }
        if !self.differing_values.is_empty() {
            let title = format!("Other values that differ: {} of {}\n", self.differing_values.len(), self.values);
            sections.push(title + &fields(&self.differing_values, width));
        }
        sections.join("\n")
    }
}

fn weights(value: Value, path: &std::path::Path) -> Result<Value, Error> {
    let found = match &value {
        Value::Dict(dict) => find_state_dict(dict, None).map(|found| Value::Dict(found.clone())),
        other => Err(format!("contains a {}, and no weights", other.type_name())),
    };
    found.map_err(|problem| Error::Checkpoint { path: path.into(), problem })
}
