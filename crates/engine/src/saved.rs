//! [`Saved`]: typed access to the entries of a checkpoint. An entry of the wrong type is an error that names it; a
//! missing entry is recorded, because exact resume is then impossible.

use std::cell::RefCell;

use fulgurite_torch::{Dict, Value};

use crate::error::BoxError;

/// Entries that exact resume needs and the checkpoint lacks.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    names: RefCell<Vec<String>>,
    /// Whether the checkpoint was written by Lightning; the many missing entries are then reported as one.
    is_of_lightning: bool,
}

/// A part of a checkpoint.
#[derive(Clone)]
pub(crate) struct Saved<'c> {
    pub entries: &'c Dict,
    path: String,
    missing: &'c Missing,
}

/// An error about an entry, as a sentence that names it.
type Wrong = String;

impl Missing {
    /// More of them are not listed.
    const LISTED: usize = 20;

    pub(crate) fn of(checkpoint: &Dict) -> Missing {
        Missing { names: RefCell::default(), is_of_lightning: checkpoint.get("fulgurite").is_none() }
    }

    /// The entries of the checkpoint itself.
    pub(crate) fn reader<'c>(&'c self, checkpoint: &'c Dict) -> Saved<'c> {
        Saved { entries: checkpoint, path: String::new(), missing: self }
    }

    pub(crate) fn note(&self, name: String) {
        let mut names = self.names.borrow_mut();
        if !names.contains(&name) {
            names.push(name);
        }
    }

    /// Compares the state of a restored object with the one saved under `path`: entries saved with
    /// another type are errors, and entries that were not saved are missing. The type of what is `None` now is unknown.
    pub(crate) fn compare(&self, path: &str, saved: &Dict, restored: &Dict) -> Result<(), Wrong> {
        for (key, now) in restored.iter() {
            let path = format!("{path}.{}", name_of(key));
            match saved.get_value(key) {
                Some(saved) => self.compare_values(&path, saved, now)?,
                // Lightning and PyTorch write fewer settings, or more, with each version.
                None if self.is_of_lightning => {}
                None => self.note(path),
            }
        }
        Ok(())
    }

    fn compare_values(&self, path: &str, saved: &Value, now: &Value) -> Result<(), Wrong> {
        match (saved, now) {
            (_, Value::None) => Ok(()),
            (Value::None, _) => {
                self.note(path.to_owned());
                Ok(())
            }
            (Value::Dict(saved), Value::Dict(now)) => self.compare(path, saved, now),
            (Value::List(saved) | Value::Tuple(saved), Value::List(now) | Value::Tuple(now)) => {
                let mut pairs = saved.iter().zip(now).enumerate();
                pairs.try_for_each(|(at, (saved, now))| self.compare_values(&format!("{path}[{at}]"), saved, now))
            }
            _ if is_number(saved) && is_number(now) || same_type(saved, now) => Ok(()),
            _ => Err(wrong_type(path, saved, now.type_name())),
        }
    }

    /// The warning that the run does not continue exactly, and why. Rank zero prints it, and other ranks only what
    /// concerns them.
    pub(crate) fn warning(&self, is_rank_zero: bool) -> Option<String> {
        if self.is_of_lightning && is_rank_zero {
            return Some(
                "the checkpoint has no entry `fulgurite`, as those of Lightning itself have none: the state of random numbers, the seed of the data's order, and what was logged and accumulated since the epoch or the window began are not in it, so the run does not resume exactly where it was".into(),
            );
        }
        let names = self.names.borrow();
        let names: Vec<&String> =
            names.iter().filter(|name| is_rank_zero || name.starts_with("fulgurite.ranks[")).collect();
        let mut listed: Vec<String> = names.iter().take(Self::LISTED).map(|name| format!("`{name}`")).collect();
        if names.len() > Self::LISTED {
            listed.push(format!("and {} more", names.len() - Self::LISTED));
        }
        (!names.is_empty()).then(|| {
            format!("the run does not resume exactly where it was, because the checkpoint lacks {}", listed.join(", "))
        })
    }
}

impl<'c> Saved<'c> {
    /// The full name of an entry.
    pub(crate) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An entry of any type.
    pub(crate) fn value(&self, key: &str) -> Option<&'c Value> {
        let value = self.entries.get(key);
        if value.is_none() {
            self.missing.note(self.name(key));
        }
        value
    }

    pub(crate) fn int(&self, key: &str) -> Result<Option<i64>, Wrong> {
        self.typed(key, "int", Value::as_int)
    }

    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>, Wrong> {
        self.typed(key, "float", Value::as_float)
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, Wrong> {
        self.typed(key, "bool", Value::as_bool)
    }

    pub(crate) fn list(&self, key: &str) -> Result<Option<&'c [Value]>, Wrong> {
        self.typed(key, "list", Value::as_list)
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&'c str>, Wrong> {
        let items = self.list(key)?.unwrap_or_default().iter().enumerate();
        let text = |(at, item): (usize, &'c Value)| {
            item.as_str().ok_or_else(|| wrong_type(&format!("{}[{at}]", self.name(key)), item, "str"))
        };
        items.map(text).collect()
    }

    /// A count.
    pub(crate) fn count(&self, key: &str) -> Result<Option<u64>, Wrong> {
        self.value(key).map(|value| count(&self.name(key), value)).transpose()
    }

    /// A number without which the run cannot resume.
    pub(crate) fn required_count(&self, key: &str) -> Result<u64, Wrong> {
        self.count(key)?.ok_or_else(|| format!("there is no entry `{}`", self.name(key)))
    }

    /// A count, or `None`.
    pub(crate) fn optional_count(&self, key: &str) -> Result<Option<u64>, Wrong> {
        match self.value(key) {
            None | Some(Value::None) => Ok(None),
            Some(value) => count(&self.name(key), value).map(Some),
        }
    }

    /// A string, or `None`.
    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&'c str>, Wrong> {
        match self.value(key) {
            Some(Value::None) => Ok(None),
            _ => self.of_type(key, "str", Value::as_str),
        }
    }

    pub(crate) fn dict(&self, key: &str) -> Result<Option<Saved<'c>>, Wrong> {
        let entries = self.typed(key, "dict", Value::as_dict)?;
        Ok(entries.map(|entries| Saved { entries, path: self.name(key), missing: self.missing }))
    }

    /// A dict, which may as well be absent if `is_empty`: it would be of nothing.
    pub(crate) fn dict_unless(&self, key: &str, is_empty: bool) -> Result<Option<Saved<'c>>, Wrong> {
        if is_empty && self.entries.get(key).is_none() { Ok(None) } else { self.dict(key) }
    }

    /// Compares this with the state of its owner after the restore; see [`Missing::compare`].
    pub(crate) fn compare(&self, restored: &Dict) -> Result<(), Wrong> {
        self.missing.compare(&self.path, self.entries, restored)
    }

    /// A dict without which the run cannot resume.
    pub(crate) fn required_dict(&self, key: &str) -> Result<Saved<'c>, Wrong> {
        self.dict(key)?.ok_or_else(|| format!("there is no entry `{}`", self.name(key)))
    }

    /// A dict in a list.
    pub(crate) fn dict_at(&self, key: &str, at: usize) -> Result<Option<Saved<'c>>, Wrong> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let path = format!("{}[{at}]", self.name(key));
        let Some(value) = list.get(at) else {
            self.missing.note(path);
            return Ok(None);
        };
        let entries = value.as_dict().ok_or_else(|| wrong_type(&path, value, "dict"))?;
        Ok(Some(Saved { entries, path, missing: self.missing }))
    }

    /// Notes an entry that is known to be missing.
    pub(crate) fn lacks(&self, key: &str) {
        self.missing.note(self.name(key));
    }

    fn typed<T>(&self, key: &str, expected: &str, read: impl Fn(&'c Value) -> Option<T>) -> Result<Option<T>, Wrong> {
        self.value(key);
        self.of_type(key, expected, read)
    }

    fn of_type<T>(&self, key: &str, expected: &str, read: impl Fn(&'c Value) -> Option<T>) -> Result<Option<T>, Wrong> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| wrong_type(&self.name(key), value, expected))
    }
}

/// A list in a state: `read` converts an item, `expected` describes its type.
///
/// # Errors
///
/// Fails if there is no list with that name, or an item has another type.
pub fn list_of<'s, T>(
    state: &'s Dict,
    key: &str,
    expected: &str,
    read: impl Fn(&'s Value) -> Option<T>,
) -> Result<Vec<T>, BoxError> {
    let items = state.list(key)?.iter().enumerate();
    let item = |(at, item)| read(item).ok_or_else(|| wrong_type(&format!("{key}[{at}]"), item, expected).into());
    items.map(item).collect()
}

/// A count under `name`.
pub(crate) fn count(name: &str, value: &Value) -> Result<u64, Wrong> {
    let number = value.as_int().ok_or_else(|| wrong_type(name, value, "int"))?;
    u64::try_from(number).map_err(|_| format!("entry `{name}` is {number}, expected 0 or more"))
}

pub(crate) fn wrong_type(name: &str, found: &Value, expected: &str) -> Wrong {
    format!("entry `{name}` is {}, expected {expected}", found.type_name())
}

/// PyTorch writes numbers as ints, floats or tensors of one.
fn is_number(value: &Value) -> bool {
    match value {
        Value::Tensor(tensor) => tensor.numel() == 1,
        value => value.as_float().is_some() || value.as_bool().is_some(),
    }
}

fn same_type(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn name_of(key: &Value) -> String {
    key.as_str().map(str::to_owned).or_else(|| key.as_int().map(|key| key.to_string())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_another_type_is_an_error_and_what_is_missing_is_noted() {
        let checkpoint = Dict::new()
            .with("fulgurite", Dict::new().with("seed", "seven").with("batches", -1).with("stop", ()))
            .with("weights", 3);
        let missing = Missing::of(&checkpoint);
        let saved = missing.reader(&checkpoint);
        let more = saved.dict("fulgurite").unwrap().unwrap();
        assert_eq!(more.int("seed").unwrap_err(), "entry `fulgurite.seed` is str, expected int");
        assert_eq!(more.count("batches").unwrap_err(), "entry `fulgurite.batches` is -1, expected 0 or more");
        assert_eq!(more.optional_text("stop"), Ok(None));
        assert!(saved.dict("weights").is_err_and(|error| error == "entry `weights` is int, expected dict"));
        assert_eq!(missing.warning(true), None);
        assert_eq!((more.float("scale"), more.optional_text("why")), (Ok(None), Ok(None)));
        assert_eq!(
            missing.warning(true).unwrap(),
            "the run does not resume exactly where it was, because the checkpoint lacks `fulgurite.scale`, `fulgurite.why`"
        );
    }

    #[test]
    fn what_is_restored_says_what_was_not_saved() {
        let restored = Dict::new().with("lr", 0.1).with("state", Dict::new().with(0, 1));
        let compare = |saved: Dict| {
            let missing = Missing::of(&Dict::new().with("fulgurite", Dict::new()));
            missing.compare("optimizer", &saved, &restored).map(|()| missing.names.into_inner().join(" "))
        };
        let state = Dict::new().with(0, Value::Float(2.0));
        assert_eq!(compare(Dict::new().with("lr", 1).with("state", state.clone())).unwrap(), "");
        assert_eq!(
            compare(Dict::new().with("lr", ()).with("state", Dict::new())).unwrap(),
            "optimizer.lr optimizer.state.0"
        );
        let error = compare(Dict::new().with("lr", "high").with("state", state)).unwrap_err();
        assert_eq!(error, "entry `optimizer.lr` is str, expected float");
    }
}
