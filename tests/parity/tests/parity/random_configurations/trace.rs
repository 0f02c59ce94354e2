//! What happens in a run, written down as `traced_run.py` does.

use std::path::Path;
use std::sync::{Arc, Mutex};

use fulgurite::loggers::{Logger, LoggerError, RunStatus};
use fulgurite::prelude::*;
use serde_json::{Map, Value as Json, json};

/// The events of a run so far.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Json>>>);

impl Events {
    pub fn push(&self, event: Json) {
        self.0.lock().unwrap().push(event);
    }

    pub fn take(&self) -> Vec<Json> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// A call of a hook: who, which, and what tells one call from another.
    pub fn note(&self, owner: &str, name: &str, trainer: &mut TrainerState, mut more: Vec<Json>) {
        let looks = [
            "on_train_batch_end",
            "on_validation_epoch_end",
            "on_validation_end",
            "on_train_epoch_end",
            "on_train_end",
        ];
        // What a sanity check logs is thrown away.
        if owner == "Callback" && looks.contains(&name) && !trainer.is_sanity_checking() {
            more.push(callback_metrics(trainer));
        }
        if name.contains("train") && !name.contains("model") {
            more.push(json!([trainer.current_epoch(), trainer.global_step()]));
        }
        let mut event = vec![json!(format!("{owner}.{name}"))];
        event.extend(more);
        self.push(Json::Array(event));
    }
}

pub fn callback_metrics(trainer: &mut TrainerState) -> Json {
    let metrics = trainer.callback_metrics().unwrap();
    Json::Object(metrics.iter().map(|(name, value)| (name.clone(), number(value.to_f64()))).collect())
}

/// A number of a trace; JSON has no NaN.
pub fn number(x: f64) -> Json {
    if x.is_finite() { json!(x) } else { json!(x.to_string()) }
}

/// A logger whose calls are events.
pub struct Recording(pub Events);

impl Logger for Recording {
    fn name(&self) -> &str {
        "recording"
    }

    fn version(&self) -> &str {
        "version_0"
    }

    fn save_dir(&self) -> Option<&Path> {
        None
    }

    fn log_dir(&self) -> Option<&Path> {
        None
    }

    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        let metrics: Map<_, _> = metrics.iter().map(|(name, value)| ((*name).to_owned(), number(*value))).collect();
        self.0.push(json!(["log", step, metrics]));
        Ok(())
    }

    fn log_hyperparams(&mut self, _: &Dict) -> Result<(), LoggerError> {
        Ok(())
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        Ok(())
    }

    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError> {
        self.0.push(json!(["finalize", if status == RunStatus::Success { "success" } else { "failed" }]));
        Ok(())
    }
}
