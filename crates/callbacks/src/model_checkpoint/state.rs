//! The state of a [`ModelCheckpoint`] in checkpoints, as Lightning writes and reads it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fulgurite_engine::BoxError;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value, to_host_f64};

use super::paths::is_named_in;
use super::{Ledger, ModelCheckpoint, python_str};

impl ModelCheckpoint {
    /// The options that identify the callback: monitor, mode and triggers.
    pub(super) fn lightning_state_key(&self) -> String {
        format!(
            "ModelCheckpoint{{'monitor': {}, 'mode': '{}', 'every_n_train_steps': {}, 'every_n_epochs': {}, 'train_time_interval': {}}}",
            self.options.monitor.as_deref().map_or_else(|| "None".into(), python_str),
            self.options.mode.name(),
            self.every_n_train_steps_or_never(),
            self.every_n_epochs_or_never(),
            self.options.train_time_interval.map_or_else(|| "None".into(), timedelta),
        )
    }

    pub(super) fn lightning_state(&self) -> Dict {
        let kept = self.kept();
        let models: Dict =
            kept.top.models.iter().map(|(path, score)| (text(Some(path)), Tensor::from(*score).into())).collect();
        Dict::new()
            .with("monitor", self.options.monitor.clone())
            .with("best_model_score", kept.best_model_score.map(Tensor::from))
            .with("best_model_path", text(kept.best_model_path.as_deref()))
            .with("current_score", kept.current_score.map(Tensor::from))
            .with("dirpath", text(self.dirpath.as_deref()))
            .with("best_k_models", models)
            .with("kth_best_model_path", text(kept.top.kth_path.as_deref()))
            .with("kth_value", Tensor::from(kept.top.kth_value))
            .with("last_model_path", text(kept.last_model_path.as_deref()))
    }

    pub(super) fn load_lightning_state(&mut self, state: &Dict) -> Result<(), BoxError> {
        let mut kept = self.kept().clone();
        let folder = self.dirpath.clone().unwrap_or_default();
        let beside = self.loaded.as_ref().and_then(|loaded| loaded.path.parent().map(Path::to_path_buf));
        // The files of the run in its folder, and the best of a run in another folder if it is beside the checkpoint
        // that names it.
        let path = |value: Option<&Value>| path_of(value).filter(|path| is_named_in(path, &folder));
        let saved_dirpath = path_of(state.get("dirpath"));
        if saved_dirpath.is_some() && saved_dirpath != self.dirpath {
            self.resumed_dirpath = saved_dirpath;
        } else {
            self.resumed_dirpath = None;
            kept.best_model_score = score_of(state.get("best_model_score"))?;
            kept.last_model_path = path(state.get("last_model_path"));
            kept.top.kth_path = path(state.get("kth_best_model_path"));
            kept.top.kth_value = score_of(state.get("kth_value"))?.unwrap_or(kept.top.mode.worst());
            kept.top.models.clear();
            for (model, value) in state.get("best_k_models").and_then(Value::as_dict).into_iter().flat_map(Dict::iter) {
                if let (Some(model), Some(value)) = (path(Some(model)), score_of(Some(value))?) {
                    kept.top.models.push((model, value));
                }
            }
        }
        let is_near = |path: &PathBuf| {
            is_named_in(path, &folder) || beside.as_deref().is_none_or(|beside| is_named_in(path, beside))
        };
        kept.best_model_path = path_of(state.get("best_model_path")).filter(is_near);
        self.ledger = Ledger::from(kept);
        self.is_restored = true;
        Ok(())
    }
}

fn text(path: Option<&Path>) -> Value {
    path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default().into()
}

pub(super) fn path_of(value: Option<&Value>) -> Option<PathBuf> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(PathBuf::from)
}

pub(super) fn score_of(value: Option<&Value>) -> Result<Option<f64>, BoxError> {
    match value {
        Some(Value::Tensor(tensor)) => Ok(Some(to_host_f64(tensor)?)),
        None | Some(Value::None) => Ok(None),
        Some(value) => value.as_float().map(Some).ok_or_else(|| {
            format!("a score in the state of ModelCheckpoint is {}, expected a number", value.type_name()).into()
        }),
    }
}

/// `repr` of Python's `datetime.timedelta`.
fn timedelta(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts =
        [("days", seconds / 86_400), ("seconds", seconds % 86_400), ("microseconds", u64::from(time.subsec_micros()))];
    let parts: Vec<String> = parts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}={n}")).collect();
    let parts = if parts.is_empty() { "0".to_owned() } else { parts.join(", ") };
    format!("datetime.timedelta({parts})")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ModelCheckpoint;
    use crate::Mode;
    use fulgurite_engine::Callback;

    /// Every key here is `ModelCheckpoint(..).state_key` of Lightning 2.6.6.
    #[test]
    fn state_keys_are_those_of_lightning() {
        let (new, monitor) = (ModelCheckpoint::new, ModelCheckpoint::monitor);
        let key = |monitor: &str, mode: &str, steps: u64, epochs: u64, time: &str| {
            format!(
                "ModelCheckpoint{{'monitor': {monitor}, 'mode': '{mode}', 'every_n_train_steps': {steps}, 'every_n_epochs': {epochs}, 'train_time_interval': {time}}}"
            )
        };
        let time = |time| new().train_time_interval(time);
        for (checkpoint, expected) in [
            (new(), key("None", "min", 0, 1, "None")),
            (monitor("val_loss").mode(Mode::Max).save_top_k(2), key("'val_loss'", "max", 0, 1, "None")),
            (monitor("it's").every_n_epochs(2), key("\"it's\"", "min", 0, 2, "None")),
            (new().every_n_train_steps(7), key("None", "min", 7, 0, "None")),
            (new().every_n_epochs(0), key("None", "min", 0, 0, "None")),
            (time(Duration::ZERO), key("None", "min", 0, 0, "datetime.timedelta(0)")),
            (time(Duration::from_secs(5)), key("None", "min", 0, 0, "datetime.timedelta(seconds=5)")),
            (
                time(Duration::from_micros((86_400 + 90) * 1_000_000 + 1500)),
                key("None", "min", 0, 0, "datetime.timedelta(days=1, seconds=90, microseconds=1500)"),
            ),
        ] {
            assert_eq!(checkpoint.state_key(), expected);
        }
    }
}
