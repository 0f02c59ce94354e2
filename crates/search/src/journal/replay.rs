//! [`Replay`]: what all changes of a journal amount to.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::json::as_number;
use crate::distribution::Distribution;
use crate::trial::{Direction, Param, Trial, TrialState};

/// A study of a journal.
#[derive(Debug, Clone)]
pub(crate) struct StudyRecord {
    pub(crate) name: String,
    pub(crate) directions: Vec<Direction>,
    pub(crate) user_attrs: Map<String, Value>,
    pub(crate) system_attrs: Map<String, Value>,
    pub(crate) trials: Vec<usize>,
}

/// The changes, by Optuna's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    CreateStudy = 0,
    DeleteStudy = 1,
    SetStudyUserAttr = 2,
    SetStudySystemAttr = 3,
    CreateTrial = 4,
    SetTrialParam = 5,
    SetTrialStateValues = 6,
    SetTrialIntermediateValue = 7,
    SetTrialUserAttr = 8,
    SetTrialSystemAttr = 9,
}

impl Operation {
    const ALL: [Operation; 10] = [
        Operation::CreateStudy,
        Operation::DeleteStudy,
        Operation::SetStudyUserAttr,
        Operation::SetStudySystemAttr,
        Operation::CreateTrial,
        Operation::SetTrialParam,
        Operation::SetTrialStateValues,
        Operation::SetTrialIntermediateValue,
        Operation::SetTrialUserAttr,
        Operation::SetTrialSystemAttr,
    ];
}

/// The studies and trials. Identifiers are positions: every process that reads the same lines gives the same ones. So a line that
/// Optuna ignores is ignored here too, such as a change of a trial that has ended.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) studies: BTreeMap<usize, StudyRecord>,
    pub(super) trials: Vec<Trial>,
    next_study: usize,
    /// The study of each trial.
    study_of: Vec<usize>,
    /// The last trial that each worker has begun, until it was asked for.
    begun: BTreeMap<String, usize>,
}

impl Replay {
    /// The trial that a worker has begun since this was last called.
    pub(super) fn begun_by(&mut self, worker: &str) -> Option<usize> {
        self.begun.remove(worker)
    }

    /// Applies a line. One that is none of Optuna's changes changes nothing.
    pub(super) fn apply(&mut self, entry: &Value) {
        let code = entry.get("op_code").and_then(Value::as_u64);
        let operation = Operation::ALL.into_iter().find(|operation| Some(*operation as u64) == code);
        let Some(operation) = operation else { return };
        let _ignored = self.apply_known(operation, entry);
    }

    /// `None` if the line lacks something, or is about what is not there.
    fn apply_known(&mut self, operation: Operation, entry: &Value) -> Option<()> {
        match operation {
            Operation::CreateStudy => self.create_study(entry)?,
            Operation::DeleteStudy => _ = self.studies.remove(&index(entry, "study_id")?)?,
            Operation::SetStudyUserAttr => {
                extend(&mut self.studies.get_mut(&index(entry, "study_id")?)?.user_attrs, entry.get("user_attr")?)?;
            }
            Operation::SetStudySystemAttr => {
                extend(&mut self.studies.get_mut(&index(entry, "study_id")?)?.system_attrs, entry.get("system_attr")?)?;
            }
            Operation::CreateTrial => self.create_trial(entry)?,
            Operation::SetTrialParam => self.set_param(entry)?,
            Operation::SetTrialStateValues => self.set_state(entry)?,
            Operation::SetTrialIntermediateValue => {
                let (step, value) = (entry.get("step")?.as_i64()?, as_number(entry.get("intermediate_value")?)?);
                self.unfinished(entry)?.intermediate_values.insert(step, value);
            }
            Operation::SetTrialUserAttr => extend(&mut self.unfinished(entry)?.user_attrs, entry.get("user_attr")?)?,
            Operation::SetTrialSystemAttr => {
                extend(&mut self.unfinished(entry)?.system_attrs, entry.get("system_attr")?)?;
            }
        }
        Some(())
    }

    fn create_study(&mut self, entry: &Value) -> Option<()> {
        let name = entry.get("study_name")?.as_str()?;
        let directions = entry.get("directions")?.as_array()?.iter();
        let directions =
            directions.map(|n| if n.as_u64() == Some(2) { Direction::Maximize } else { Direction::Minimize });
        if self.studies.values().any(|study| study.name == name) {
            return None;
        }
        let study = StudyRecord {
            name: name.to_owned(),
            directions: directions.collect(),
            user_attrs: Map::new(),
            system_attrs: Map::new(),
            trials: Vec::new(),
        };
        self.studies.insert(self.next_study, study);
        self.next_study += 1;
        Some(())
    }

    fn create_trial(&mut self, entry: &Value) -> Option<()> {
        let study_id = index(entry, "study_id")?;
        let study = self.studies.get_mut(&study_id)?;
        let id = self.trials.len();
        let map = |key: &str| entry.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let distributions = map("distributions");
        let param = |(name, internal): (String, Value)| {
            let distribution = Distribution::from_json(distributions.get(&name)?.as_str()?)?;
            Some((name, Param { distribution, internal: as_number(&internal)? }))
        };
        let steps = map("intermediate_values");
        let steps = steps.iter().filter_map(|(step, value)| Some((step.parse().ok()?, as_number(value)?)));
        let state = entry.get("state").and_then(Value::as_u64).unwrap_or(0);
        self.trials.push(Trial {
            number: study.trials.len(),
            id,
            state: *TrialState::ALL.get(state as usize)?,
            params: map("params").into_iter().filter_map(param).collect(),
            value: entry.get("value").and_then(as_number).or_else(|| first(entry.get("values"))),
            intermediate_values: steps.collect(),
            user_attrs: map("user_attrs"),
            system_attrs: map("system_attrs"),
            started: text("datetime_start"),
            ended: text("datetime_complete"),
        });
        study.trials.push(id);
        self.study_of.push(study_id);
        self.note_begun(entry, id);
        Some(())
    }

    fn note_begun(&mut self, entry: &Value, id: usize) {
        if let Some(worker) = entry.get("worker_id").and_then(Value::as_str) {
            self.begun.insert(worker.to_owned(), id);
        }
    }

    fn set_param(&mut self, entry: &Value) -> Option<()> {
        let name = entry.get("param_name")?.as_str()?;
        let distribution = Distribution::from_json(entry.get("distribution")?.as_str()?)?;
        let internal = as_number(entry.get("param_value_internal")?)?;
        let id = index(entry, "trial_id")?;
        let others = &self.studies.get(self.study_of.get(id)?)?.trials;
        let before = others.iter().find_map(|other| self.trials.get(*other)?.param(name));
        if before.is_some_and(|before| !before.distribution.is_compatible(&distribution)) {
            return None;
        }
        let trial = self.unfinished(entry)?;
        trial.params.retain(|(other, _)| other != name);
        trial.params.push((name.to_owned(), Param { distribution, internal }));
        Some(())
    }

    fn set_state(&mut self, entry: &Value) -> Option<()> {
        let state = *TrialState::ALL.get(entry.get("state")?.as_u64()? as usize)?;
        let time = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let trial = self.unfinished(entry)?;
        if state == TrialState::Running && trial.state == state {
            return None;
        }
        trial.state = state;
        trial.started = time("datetime_start").or(trial.started.take());
        trial.ended = time("datetime_complete");
        trial.value = first(entry.get("values")).or(trial.value);
        let id = trial.id;
        if state == TrialState::Running {
            self.note_begun(entry, id);
        }
        Some(())
    }

    /// The trial of a line, unless it has ended.
    fn unfinished(&mut self, entry: &Value) -> Option<&mut Trial> {
        self.trials.get_mut(index(entry, "trial_id")?).filter(|trial| !trial.state.is_finished())
    }
}

fn index(entry: &Value, key: &str) -> Option<usize> {
    entry.get(key)?.as_u64().map(|index| index as usize)
}

/// The only value of a study with one objective.
fn first(values: Option<&Value>) -> Option<f64> {
    as_number(values?.as_array()?.first()?)
}

fn extend(attrs: &mut Map<String, Value>, more: &Value) -> Option<()> {
    attrs.extend(more.as_object()?.clone());
    Some(())
}
