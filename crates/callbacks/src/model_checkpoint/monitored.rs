//! Code shared by callbacks that monitor a value.

use fulgurite_engine::{Error, TrainerState};

/// The error for a value monitored by `who` that was never logged.
pub(crate) fn missing_monitor(trainer: &mut TrainerState, who: &str, monitor: &str) -> Error {
    let without_validation = trainer.validated_nothing();
    match trainer.callback_metrics() {
        Ok(metrics) => {
            let available = metrics.keys().cloned().collect();
            Error::MissingMonitor { who: who.to_owned(), monitor: monitor.to_owned(), available, without_validation }
        }
        Err(error) => error,
    }
}

/// `repr` of a Python string, for state keys.
pub(crate) fn python_str(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
