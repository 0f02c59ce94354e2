//! [`SearchSpace`]: the parameters of a search.

use serde_json::{Map, Value};

use crate::distribution::Distribution;
use crate::error::{Result, SearchError};

/// The parameters of a search, with the values that each may have, in their order.
///
/// ```
/// use fulgurite_search::SearchSpace;
/// use serde_json::json;
///
/// let space = SearchSpace::from_value(&json!({
///     "model.lr": { "float": [1e-5, 1e-1], "log": true },
///     "model.layers": { "int": [1, 8] },
///     "model.activation": { "choice": ["relu", "gelu"] },
/// }))?;
/// assert_eq!(space.names().collect::<Vec<_>>(), ["model.lr", "model.layers", "model.activation"]);
///
/// let wrong = SearchSpace::from_value(&json!({ "lr": { "float": [0.1] } })).unwrap_err();
/// assert!(wrong.to_string().contains("`float` needs two bounds"));
/// # Ok::<(), fulgurite_search::SearchError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchSpace(Vec<(String, Distribution)>);

impl SearchSpace {
    /// No parameters.
    pub fn new() -> SearchSpace {
        SearchSpace::default()
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, distribution: Distribution) -> SearchSpace {
        self.0.push((name.into(), distribution));
        self
    }

    /// Reads what a configuration file says: for each name `{float: [low, high]}`, `{int: [low, high]}`, both with `log` and
    /// `step` if need be, or `{choice: [...]}`.
    ///
    /// # Errors
    ///
    /// Fails if a parameter is none of these, or its bounds are invalid; the error names it.
    pub fn from_value(space: &Value) -> Result<SearchSpace> {
        let wrong = |name: &str, problem: String| SearchError::Space { name: name.to_owned(), problem };
        let Some(parameters) = space.as_object() else {
            return Err(SearchError::Options("the search space must be a mapping of names to distributions".into()));
        };
        if parameters.is_empty() {
            return Err(SearchError::Options("the search space has no parameter".into()));
        }
        let read = |(name, given): (&String, &Value)| match distribution(given) {
            Ok(distribution) => Ok((name.clone(), distribution)),
            Err(problem) => Err(wrong(name, problem)),
        };
        Ok(SearchSpace(parameters.iter().map(read).collect::<Result<_>>()?))
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// The parameters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Distribution)> {
        self.0.iter().map(|(name, distribution)| (name.as_str(), distribution))
    }

    /// The values of a parameter.
    pub fn get(&self, name: &str) -> Option<&Distribution> {
        self.iter().find(|(other, _)| *other == name).map(|(_, distribution)| distribution)
    }

    /// Whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many parameters there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

const FORMS: &str = "write `{float: [low, high]}`, `{int: [low, high]}` or `{choice: [a, b, …]}`";

fn distribution(given: &Value) -> Result<Distribution, String> {
    let Some(given) = given.as_object() else { return Err(format!("{given} is no distribution; {FORMS}")) };
    let kinds: Vec<&str> = ["float", "int", "choice"].into_iter().filter(|kind| given.contains_key(*kind)).collect();
    let [kind] = kinds[..] else { return Err(format!("one of `float`, `int` and `choice` is needed; {FORMS}")) };
    let allowed: &[&str] = if kind == "choice" { &["choice"] } else { &[kind, "log", "step"] };
    if let Some(unknown) = given.keys().find(|key| !allowed.contains(&key.as_str())) {
        return Err(format!("`{unknown}` is no option of `{kind}`, which has {}", allowed[1..].join(", ")));
    }
    let log = match given.get("log") {
        None => false,
        Some(log) => log.as_bool().ok_or_else(|| format!("`log` is {log}; it must be true or false"))?,
    };
    match kind {
        "float" => {
            let [low, high] = bounds(given, kind, number)?;
            let step = given.get("step").map(|step| number(step).ok_or(format!("`step` is {step}, no number")));
            Distribution::float(low, high, log, step.transpose()?)
        }
        "int" => {
            let [low, high] = bounds(given, kind, Value::as_i64)?;
            let step = given.get("step").map(|step| step.as_i64().ok_or(format!("`step` is {step}, no whole number")));
            Distribution::int(low, high, log, step.transpose()?.unwrap_or(1))
        }
        _ => {
            let choices = given["choice"].as_array().ok_or_else(|| format!("`choice` needs a list; {FORMS}"))?;
            Distribution::categorical(choices.clone())
        }
    }
}

/// A number; YAML 1.2 reads `1e-5` as one, but people also write it as a text.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn bounds<T: Copy>(given: &Map<String, Value>, kind: &str, read: fn(&Value) -> Option<T>) -> Result<[T; 2], String> {
    let values = given[kind].as_array().map(Vec::as_slice).unwrap_or_default();
    let [low, high] = values else { return Err(format!("`{kind}` needs two bounds, as in `{kind}: [low, high]`")) };
    let read = |value: &Value| {
        let what = if kind == "int" { "whole number" } else { "number" };
        read(value).ok_or_else(|| format!("the bound {value} of `{kind}` is no {what}"))
    };
    Ok([read(low)?, read(high)?])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_the_name() {
        let said = |given: Value| SearchSpace::from_value(&json!({ "lr": given })).unwrap_err().to_string();
        assert!(said(json!(0.1)).starts_with("the search space's `lr`: 0.1 is no distribution; write"));
        assert!(said(json!({ "float": [0.1, "x"] })).contains("the bound \"x\" of `float` is no number"));
        assert!(said(json!({ "int": [1, 2.5] })).contains("the bound 2.5 of `int` is no whole number"));
        assert!(said(json!({ "int": [1, 2], "float": [1, 2] })).contains("one of `float`, `int` and `choice`"));
        assert!(
            said(json!({ "int": [1, 2], "base": 2 })).contains("`base` is no option of `int`, which has log, step")
        );
        assert!(said(json!({ "choice": "a" })).contains("needs a list"));
        assert!(said(json!({ "float": [1, 2], "log": "yes" })).contains("true or false"));
        assert!(SearchSpace::from_value(&json!([])).is_err());
        assert!(SearchSpace::from_value(&json!({})).is_err());
    }
}
