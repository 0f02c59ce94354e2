//! [`Configuration`]: whether a checkpoint belongs to a run with the same configuration.

use fulgurite_torch::{Dict, Value};

use crate::outline::in_a_sentence;

/// Hyper-parameters that affect how data is loaded but not which data; they may differ between machines.
const OF_THE_MACHINE: [&str; 4] = ["num_workers", "pin_memory", "persistent_workers", "prefetch_factor"];

/// The maximum number of differences in a message.
const MOST_TOLD: usize = 5;

/// The identity of a run: the hyper-parameters of its module and data module when it began. The trainer's arguments,
/// such as `max_epochs` and `devices`, may change between restarts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Configuration {
    module: Dict,
    data: Dict,
}

impl Configuration {
    /// Creates it from the hyper-parameters of a module and a data module.
    pub(super) fn new(module: Dict, data: Dict) -> Configuration {
        let plain = |hparams: Dict| match Value::Dict(hparams).without_tensors() {
            Value::Dict(hparams) => hparams,
            _ => Dict::new(),
        };
        Configuration { module: plain(module), data: plain(data) }
    }

    /// The state for a checkpoint.
    pub(crate) fn to_value(&self) -> Value {
        Value::Dict(Dict::new().with("module", self.module.clone()).with("data", self.data.clone()))
    }

    /// How the run of a checkpoint differs, as a sentence; `None` if it does not. Hyper-parameters that only one of the
    /// two has are not compared if all of that group are missing.
    pub(crate) fn difference(&self, checkpoint: &Dict) -> Option<String> {
        let began = checkpoint.dict("fulgurite").and_then(|more| more.dict("configuration"));
        let (module, data) = match began {
            Ok(began) => (began.dict("module"), began.dict("data")),
            Err(_) => (checkpoint.dict("hyper_parameters"), checkpoint.dict("datamodule_hyper_parameters")),
        };
        let mut all = Vec::new();
        for (here, there) in [(&self.module, module), (&self.data, data)] {
            if let Ok(there) = there {
                differences(here, there, &mut all);
            }
        }
        let more = all.len().saturating_sub(MOST_TOLD);
        all.truncate(MOST_TOLD);
        let told = all.join(", ");
        match (told.is_empty(), more) {
            (true, _) => None,
            (false, 0) => Some(told),
            (false, more) => Some(format!("{told} and {more} more")),
        }
    }
}

fn differences(here: &Dict, there: &Dict, all: &mut Vec<String>) {
    if here.is_empty() || there.is_empty() {
        return;
    }
    // Lightning's command line notes under such a name which class it made.
    let is_private = |key: &str| key.starts_with('_');
    let counts = |key: &Value| key.as_str().is_none_or(|key| !OF_THE_MACHINE.contains(&key) && !is_private(key));
    let name = |key: &Value| key.as_str().map_or_else(|| in_a_sentence(key), |key| key.escape_debug().to_string());
    for (key, theirs) in there.iter().filter(|(key, _)| counts(key)) {
        match here.get_value(key) {
            Some(ours) if same(ours, theirs) => {}
            Some(ours) => {
                all.push(format!("{}={} instead of {}", name(key), in_a_sentence(theirs), in_a_sentence(ours)));
            }
            None => all.push(format!("{}={}, which this run does not have", name(key), in_a_sentence(theirs))),
        }
    }
    let new = here.iter().filter(|(key, _)| counts(key) && there.get_value(key).is_none());
    all.extend(new.map(|(key, ours)| format!("no {}, which is {} here", name(key), in_a_sentence(ours))));
}

/// Equality in which 1 equals 1.0, a tuple equals a list and NaN equals NaN: YAML, Python and this program differ in
/// these.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a) | Value::Tuple(a), Value::List(b) | Value::Tuple(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Dict(a), Value::Dict(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get_value(key).is_some_and(|b| same(a, b)))
        }
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => match (a.as_float(), b.as_float()) {
            (Some(x), Some(y)) => x == y || x.is_nan() && y.is_nan(),
            _ => a == b,
        },
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::{Dict, Value};

    use super::Configuration;

    fn difference(module: Dict, data: Dict, checkpoint: Dict) -> String {
        Configuration { module, data }.difference(&checkpoint).unwrap_or_default()
    }

    #[test]
    fn what_differs_is_named() {
        let hparams = |lr: f64| Dict::new().with("lr", lr).with("sizes", vec![1, 2]);
        let saved = |lr: f64| Dict::new().with("hyper_parameters", hparams(lr));
        assert_eq!(difference(hparams(0.1), Dict::new(), saved(0.1)), "");
        assert_eq!(difference(hparams(0.1), Dict::new(), saved(0.2)), "lr=0.2 instead of 0.1");
        let wider = hparams(0.1).with("width", 8);
        assert_eq!(difference(wider.clone(), Dict::new(), saved(0.1)), "no width, which is 8 here");
        let wider = Dict::new().with("hyper_parameters", wider);
        assert_eq!(difference(hparams(0.1), Dict::new(), wider), "width=8, which this run does not have");
        // What began with other values than those it was saved with, which a tuner had changed.
        let began = Dict::new().with("module", hparams(0.1));
        let tuned = saved(0.03).with("fulgurite", Dict::new().with("configuration", began));
        assert_eq!(difference(hparams(0.1), Dict::new(), tuned), "");
    }

    #[test]
    fn what_says_nothing_and_what_machines_differ_in_is_no_difference() {
        let lr = || Dict::new().with("lr", 0.1);
        assert_eq!(difference(lr(), Dict::new(), Dict::new()), "");
        assert_eq!(difference(Dict::new(), Dict::new(), Dict::new().with("hyper_parameters", lr())), "");
        let data = |workers: i64, folds: i64| Dict::new().with("num_workers", workers).with("folds", folds);
        let saved = |data: Dict| Dict::new().with("datamodule_hyper_parameters", data);
        assert_eq!(difference(lr(), data(0, 5), saved(data(8, 5))), "");
        assert_eq!(difference(lr(), data(0, 5), saved(data(8, 4))), "folds=4 instead of 5");
        // As Python or YAML writes the same.
        let odd = Dict::new()
            .with("_instantiator", "lightning.pytorch.cli.instantiate_module")
            .with("a", 1)
            .with("b", Value::Tuple(vec![1.into()]))
            .with("c", f64::NAN);
        let even = Dict::new().with("a", 1.0).with("b", vec![1]).with("c", f64::NAN);
        assert_eq!(difference(even, Dict::new(), Dict::new().with("hyper_parameters", odd)), "");
        let many: Dict = (0..7).map(|i| (Value::from(format!("p{i}").as_str()), 1.into())).collect();
        let told = difference(lr(), Dict::new(), Dict::new().with("hyper_parameters", many));
        assert!(told.ends_with("p4=1, which this run does not have and 3 more"), "{told}");
    }
}
