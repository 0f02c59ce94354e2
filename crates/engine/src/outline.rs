//! [`Outline`]: the contents of a checkpoint apart from its tensors.

use std::path::Path;

use fulgurite_torch::{Dict, Value};

/// The parts of a checkpoint that are needed to choose among several. The contents of files are untrusted, and
/// validated.
#[derive(Clone, Copy)]
pub struct Outline<'c>(pub &'c Dict);

/// The progress of the run that wrote a checkpoint; greater is further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// Optimizer steps and batches over the whole run.
    pub position: (i64, i64),
    /// Whether it resumes within an epoch or after a complete one, not after one that was cut short.
    goes_on: bool,
    epoch: i64,
}

impl<'c> Outline<'c> {
    /// Whether it is a checkpoint, possibly of weights only.
    pub fn is_checkpoint(self) -> bool {
        self.0.dict("state_dict").is_ok()
    }

    /// Whether it contains more than weights.
    pub(crate) fn can_be_resumed(self) -> bool {
        self.0.get("optimizer_states").is_some()
    }

    /// The progress of the run.
    pub fn reach(self) -> Reach {
        const NOTHING: &Dict = &Dict::new();
        let dict = |of: &'c Dict, key: &str| of.dict(key).unwrap_or(NOTHING);
        let fit = dict(dict(self.0, "loops"), "fit_loop");
        let batches = dict(fit, "epoch_loop.batch_progress");
        let epochs = dict(dict(fit, "epoch_progress"), "current");
        let count = |of: &Dict, key: &str| of.int(key).unwrap_or(0);
        let is_over = count(epochs, "processed") >= count(epochs, "started");
        let was_cut = is_over && batches.bool("is_last_batch").is_ok_and(|is_last| !is_last);
        Reach {
            position: (count(self.0, "global_step"), count(dict(batches, "total"), "ready")),
            goes_on: !was_cut,
            epoch: count(self.0, "epoch"),
        }
    }

    /// The identifier shared by the files of a run and of the runs resumed from it.
    pub fn run_id(self) -> Option<&'c str> {
        self.0.dict("fulgurite").ok()?.str("run_id").ok()
    }

    /// The state of a callback.
    pub fn callback(self, state_key: &str) -> Option<&'c Dict> {
        self.0.dict("callbacks").ok()?.dict(state_key).ok()
    }

    /// The class and the run of each logger, as far as these are plain names.
    pub(crate) fn log_versions(self) -> Vec<(Option<&'c str>, Option<&'c str>)> {
        let list = |key| self.0.dict("fulgurite").and_then(|more| more.list(key)).unwrap_or_default();
        let (classes, versions) = (list("log_classes"), list("log_versions"));
        let class = |at: usize| classes.get(at).and_then(Value::as_str);
        let plain = |version: &'c Value| version.as_str().filter(|name| is_plain_name(name));
        versions.iter().enumerate().map(|(at, version)| (class(at), plain(version))).collect()
    }
}

/// Whether a text is a plain file name, which cannot lead out of a folder.
pub(crate) fn is_plain_name(text: &str) -> bool {
    /// The maximum length of a file name.
    const LONGEST: usize = 255;
    let of_path = Path::new(text).file_name().and_then(|name| name.to_str());
    of_path == Some(text) && text.len() <= LONGEST && !text.contains(['\\', ':']) && !text.contains(char::is_control)
}

/// The values of a list or dict for a message: as JSON, shortened, with control characters escaped.
pub(crate) fn in_a_sentence(value: &Value) -> String {
    /// Characters.
    const MOST: usize = 60;
    let text = value.to_json().map_or_else(|| value.type_name().to_owned(), |json| json.to_string());
    let text: String =
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::{Dict, Value};

    use super::{Outline, in_a_sentence, is_plain_name};

    #[test]
    fn names_that_lead_elsewhere_are_no_plain_names() {
        for name in ["version_0", "1.10", "best run", "..a", "é"] {
            assert!(is_plain_name(name), "{name}");
        }
        let long = "x".repeat(256);
        for name in ["", ".", "..", "/etc", "a/b", "../b", "a/", "./a", "a\0b", "a\nb", "C:x", "a\\b", "\x1b[2J", &long]
        {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }

    #[test]
    fn values_are_short_and_obeyed_by_no_terminal() {
        assert_eq!(in_a_sentence(&Value::Float(0.1)), "0.1");
        assert_eq!(in_a_sentence(&Value::from("a\x1b[31m\u{9b}b")), "\"a\\u001b[31m\\u{9b}b\"");
        assert_eq!(in_a_sentence(&Value::from("x".repeat(99).as_str())).chars().count(), 61);
    }

    fn reach(step: i64, batches: i64, epochs: (i64, i64), is_last: bool) -> super::Reach {
        let total = Dict::new().with("ready", batches);
        let batch = Dict::new().with("total", total).with("is_last_batch", is_last);
        let epoch = Dict::new().with("started", epochs.0).with("processed", epochs.1);
        let fit = Dict::new()
            .with("epoch_loop.batch_progress", batch)
            .with("epoch_progress", Dict::new().with("current", epoch));
        let loops = Dict::new().with("fit_loop", fit);
        Outline(&Dict::new().with("global_step", step).with("epoch", epochs.1).with("loops", loops)).reach()
    }

    #[test]
    fn further_is_what_has_more_steps_then_more_batches_then_what_goes_on() {
        let order = [
            Outline(&Dict::new()).reach(),
            reach(1, 2, (1, 0), false),
            reach(1, 3, (1, 0), false),
            // Of an epoch of 5 batches that was cut after 4: what was written at its end, and what continues within it.
            reach(2, 4, (1, 1), false),
            reach(2, 4, (1, 0), false),
            reach(2, 5, (1, 0), true),
            reach(2, 5, (1, 1), true),
            reach(3, 1, (1, 0), false),
        ];
        assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
    }
}
