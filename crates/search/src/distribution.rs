//! [`Distribution`]: the values that a parameter may have.

use serde_json::{Map, Value, json};

/// The values that a parameter may have: Optuna's `FloatDistribution`, `IntDistribution` and `CategoricalDistribution`.
///
/// A study stores a value as a number, its *internal* value: that of a choice is its index.
#[derive(Debug, Clone, PartialEq)]
pub enum Distribution {
    /// A number between two.
    Float {
        /// The smallest value.
        low: f64,
        /// The largest value.
        high: f64,
        /// Whether the logarithm is uniform, and not the value.
        log: bool,
        /// The distance of values, if not all between are allowed.
        step: Option<f64>,
    },
    /// A whole number between two.
    Int {
        /// The smallest value.
        low: i64,
        /// The largest value.
        high: i64,
        /// Whether the logarithm is uniform, and not the value.
        log: bool,
        /// The distance of values.
        step: i64,
    },
    /// One of several: null, truth values, numbers or texts.
    Categorical {
        /// The choices.
        choices: Vec<Value>,
    },
}

impl Distribution {
    /// A number from `low` to `high`; with a `step`, only `low`, `low + step` and so on.
    ///
    /// # Errors
    ///
    /// Says what is wrong: the bounds are in the wrong order, not finite, or not positive with `log`; `step` is not positive or
    /// given together with `log`.
    pub fn float(low: f64, high: f64, log: bool, step: Option<f64>) -> Result<Distribution, String> {
        check_order(low, high)?;
        if !low.is_finite() || !high.is_finite() {
            return Err(format!("the bounds are {low} and {high}; they must be finite"));
        }
        if log && step.is_some() {
            return Err("`step` and `log: true` exclude each other".into());
        }
        if log && low <= 0.0 {
            return Err(format!("`log: true` needs a positive lower bound, not {low}"));
        }
        let Some(step) = step else { return Ok(Distribution::Float { low, high, log, step }) };
        if !(step > 0.0 && step.is_finite()) {
            return Err(format!("`step` is {step}; it must be positive"));
        }
        // Beyond rounding errors of a decimal step, such as 0.1.
        let steps = ((high - low) / step + 1e-9).floor();
        Ok(Distribution::Float { low, high: (low + steps * step).min(high), log, step: Some(step) })
    }

    /// A whole number from `low` to `high`, at distances of `step`.
    ///
    /// # Errors
    ///
    /// Says what is wrong: the bounds are in the wrong order, or not positive with `log`; `step` is not positive, or not 1 with
    /// `log`.
    pub fn int(low: i64, high: i64, log: bool, step: i64) -> Result<Distribution, String> {
        check_order(low, high)?;
        if low.checked_neg().is_none() || high.checked_sub(low).is_none() {
            return Err(format!("{low} to {high} is too wide"));
        }
        match (log, step) {
            (_, i64::MIN..=0) => Err(format!("`step` is {step}; it must be at least 1")),
            (true, 2..) => Err("`step` and `log: true` exclude each other".into()),
            (true, _) if low < 1 => Err(format!("`log: true` needs a lower bound of at least 1, not {low}")),
            _ => Ok(Distribution::Int { low, high: low + (high - low) / step * step, log, step }),
        }
    }

    /// One of `choices`.
    ///
    /// # Errors
    ///
    /// Says what is wrong: there are none, or one is a list or an object.
    pub fn categorical(choices: Vec<Value>) -> Result<Distribution, String> {
        match choices.iter().find(|choice| choice.is_array() || choice.is_object()) {
            Some(choice) => Err(format!("the choice {choice} is no number, text, truth value or null")),
            None if choices.is_empty() => Err("there are no choices".into()),
            None => Ok(Distribution::Categorical { choices }),
        }
    }

    /// Whether there is one value only.
    pub fn is_single(&self) -> bool {
        match self {
            Distribution::Float { low, high, .. } => low == high,
            Distribution::Int { low, high, .. } => low == high,
            Distribution::Categorical { choices } => choices.len() == 1,
        }
    }

    /// The value with this internal value.
    pub fn value(&self, internal: f64) -> Value {
        match self {
            Distribution::Float { .. } => json!(internal),
            Distribution::Int { .. } => json!(internal as i64),
            Distribution::Categorical { choices } => choices.get(internal as usize).cloned().unwrap_or(Value::Null),
        }
    }

    /// The internal value of a value, if it is one of this distribution.
    pub fn internal(&self, value: &Value) -> Option<f64> {
        let internal = match self {
            Distribution::Categorical { choices } => choices.iter().position(|choice| choice == value)? as f64,
            _ => value.as_f64()?,
        };
        self.contains(internal).then_some(internal)
    }

    /// Whether an internal value is one of this distribution.
    pub fn contains(&self, internal: f64) -> bool {
        let on_grid = |low: f64, step: f64| {
            let steps = (internal - low) / step;
            (steps - steps.round()).abs() < 1e-8
        };
        match self {
            Distribution::Float { low, high, step, .. } => {
                (*low..=*high).contains(&internal) && step.is_none_or(|step| on_grid(*low, step))
            }
            Distribution::Int { low, high, step, .. } => {
                (*low as f64..=*high as f64).contains(&internal) && on_grid(*low as f64, *step as f64)
            }
            Distribution::Categorical { choices } => internal >= 0.0 && (internal as usize) < choices.len(),
        }
    }

    /// Whether both can be distributions of one parameter of a study, as Optuna requires: of the same kind, both or none of the
    /// logarithm, with the same choices.
    pub fn is_compatible(&self, other: &Distribution) -> bool {
        match (self, other) {
            (Distribution::Float { log: a, .. }, Distribution::Float { log: b, .. })
            | (Distribution::Int { log: a, .. }, Distribution::Int { log: b, .. }) => a == b,
            (Distribution::Categorical { .. }, Distribution::Categorical { .. }) => self == other,
            _ => false,
        }
    }

    /// How a journal writes it.
    pub(crate) fn to_json(&self) -> String {
        let (name, attributes) = match self {
            Distribution::Float { low, high, log, step } => {
                ("FloatDistribution", json!({ "step": step, "low": low, "high": high, "log": log }))
            }
            Distribution::Int { low, high, log, step } => {
                ("IntDistribution", json!({ "log": log, "step": step, "low": low, "high": high }))
            }
            Distribution::Categorical { choices } => ("CategoricalDistribution", json!({ "choices": choices })),
        };
        json!({ "name": name, "attributes": attributes }).to_string()
    }

    /// What a journal says, also in the names of Optuna before version 3.
    pub(crate) fn from_json(text: &str) -> Option<Distribution> {
        let value: Value = serde_json::from_str(text).ok()?;
        let (name, of) = (value.get("name")?.as_str()?, value.get("attributes")?.as_object()?);
        let number = |key: &str| of.get(key).and_then(Value::as_f64);
        let whole = |key: &str| of.get(key).and_then(|value| value.as_i64().or(value.as_f64().map(|f| f as i64)));
        let log = |of: &Map<String, Value>| of.get("log").and_then(Value::as_bool).unwrap_or(false);
        match name {
            "FloatDistribution" | "UniformDistribution" => {
                Distribution::float(number("low")?, number("high")?, log(of), number("step")).ok()
            }
            "LogUniformDistribution" => Distribution::float(number("low")?, number("high")?, true, None).ok(),
            "DiscreteUniformDistribution" => {
                Distribution::float(number("low")?, number("high")?, false, Some(number("q")?)).ok()
            }
            "IntDistribution" | "IntUniformDistribution" => {
                Distribution::int(whole("low")?, whole("high")?, log(of), whole("step").unwrap_or(1)).ok()
            }
            "IntLogUniformDistribution" => Distribution::int(whole("low")?, whole("high")?, true, 1).ok(),
            "CategoricalDistribution" => Distribution::categorical(of.get("choices")?.as_array()?.clone()).ok(),
            _ => None,
        }
    }
}

fn check_order<T: PartialOrd + std::fmt::Display>(low: T, high: T) -> Result<(), String> {
    if low <= high { Ok(()) } else { Err(format!("the lower bound {low} is not below the upper bound {high}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_steps_do_not_reach_are_lowered() {
        let high = |made: Result<Distribution, String>| match made.unwrap() {
            Distribution::Float { high, .. } => high,
            Distribution::Int { high, .. } => high as f64,
            Distribution::Categorical { .. } => f64::NAN,
        };
        assert_eq!(high(Distribution::float(0.0, 1.0, false, Some(0.3))), 0.3 * 3.0);
        assert_eq!(high(Distribution::float(0.0, 0.7, false, Some(0.1))), 0.7);
        assert_eq!(high(Distribution::int(1, 10, false, 4)), 9.0);
    }

    #[test]
    fn what_is_no_distribution_is_said() {
        let float = |low, high, log, step| Distribution::float(low, high, log, step).unwrap_err();
        assert_eq!(float(2.0, 1.0, false, None), "the lower bound 2 is not below the upper bound 1");
        assert_eq!(float(0.0, 1.0, true, None), "`log: true` needs a positive lower bound, not 0");
        assert_eq!(float(0.0, 1.0, false, Some(0.0)), "`step` is 0; it must be positive");
        assert!(float(f64::NAN, 1.0, false, None).contains("NaN"));
        assert!(Distribution::float(0.0, f64::INFINITY, false, None).unwrap_err().contains("finite"));
        assert!(Distribution::int(0, 3, true, 1).unwrap_err().contains("at least 1"));
        assert!(Distribution::int(i64::MIN, i64::MAX, false, 1).unwrap_err().contains("too wide"));
        assert_eq!(Distribution::categorical(vec![]).unwrap_err(), "there are no choices");
        assert!(Distribution::categorical(vec![json!([1])]).is_err());
    }

    #[test]
    fn what_a_journal_says_is_read_and_written() {
        let all = [
            Distribution::float(1e-5, 0.1, true, None).unwrap(),
            Distribution::float(0.0, 1.0, false, Some(0.25)).unwrap(),
            Distribution::int(1, 64, true, 1).unwrap(),
            Distribution::categorical(vec![json!("relu"), Value::Null, json!(2), json!(true)]).unwrap(),
        ];
        for distribution in all {
            assert_eq!(Distribution::from_json(&distribution.to_json()), Some(distribution));
        }
        let old = r#"{"name": "LogUniformDistribution", "attributes": {"low": 0.1, "high": 1.0}}"#;
        assert_eq!(Distribution::from_json(old), Distribution::float(0.1, 1.0, true, None).ok());
        assert_eq!(Distribution::from_json("{}"), None);
    }

    #[test]
    fn values_and_internal_values() {
        let choices = Distribution::categorical(vec![json!("a"), Value::Null]).unwrap();
        assert_eq!((choices.value(1.0), choices.internal(&Value::Null)), (Value::Null, Some(1.0)));
        assert_eq!(choices.internal(&json!("b")), None);
        let layers = Distribution::int(2, 8, false, 2).unwrap();
        assert_eq!(
            (layers.value(4.0), layers.internal(&json!(4)), layers.internal(&json!(3))),
            (json!(4), Some(4.0), None)
        );
    }
}
