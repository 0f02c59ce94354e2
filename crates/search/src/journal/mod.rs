//! Optuna's journal: a file of one change a line, which `optuna`, `optuna-dashboard` and `rustuna` read and append to.

mod file;
mod json;
mod lock;
mod replay;

use std::path::Path;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::macros::format_description;

use self::file::JournalFile;
use self::replay::{Operation, Replay, StudyRecord};
use crate::distribution::Distribution;
use crate::entropy::uuid;
use crate::error::Result;
use crate::trial::{Direction, Trial, TrialState};

/// A journal, and all that was read of it.
pub(crate) struct Journal {
    file: JournalFile,
    replay: Replay,
    /// Names this process in what it appends.
    worker_id: String,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> Result<Journal> {
        let mut journal = Journal {
            file: JournalFile::open(path)?,
            replay: Replay::default(),
            worker_id: format!("{}-{}", uuid(), std::process::id()),
        };
        journal.sync()?;
        Ok(journal)
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Reads what others have appended.
    pub(crate) fn sync(&mut self) -> Result<()> {
        for entry in self.file.read()? {
            self.replay.apply(&entry);
        }
        Ok(())
    }

    pub(crate) fn study_id(&self, name: &str) -> Option<usize> {
        self.replay.studies.iter().find(|(_, study)| study.name == name).map(|(id, _)| *id)
    }

    pub(crate) fn study(&self, id: usize) -> Option<&StudyRecord> {
        self.replay.studies.get(&id)
    }

    pub(crate) fn trials(&self, study_id: usize) -> impl Iterator<Item = &Trial> {
        let ids = self.study(study_id).map(|study| study.trials.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| self.replay.trials.get(*id))
    }

    pub(crate) fn trial(&self, id: usize) -> Option<&Trial> {
        self.replay.trials.get(id)
    }

    pub(crate) fn create_study(&mut self, name: &str, direction: Direction) -> Result<()> {
        let direction = if direction == Direction::Minimize { 1 } else { 2 };
        let fields = [("study_name", name.into()), ("directions", Value::from(vec![direction]))];
        self.append(&[self.line(Operation::CreateStudy, fields)], true)
    }

    pub(crate) fn set_study_attr(&mut self, study_id: usize, attr: Attr, key: &str, value: Value) -> Result<()> {
        let operation = match attr {
            Attr::User => Operation::SetStudyUserAttr,
            Attr::System => Operation::SetStudySystemAttr,
        };
        let line = self.line(operation, [("study_id", study_id.into()), (attr.field(), entry(key, value))]);
        self.append(&[line], false)
    }

    /// Begins a trial, and returns its id.
    pub(crate) fn create_trial(&mut self, study_id: usize) -> Result<Option<usize>> {
        self.replay.begun_by(&self.worker_id);
        let fields = [("study_id", study_id.into()), ("datetime_start", now().into())];
        self.append(&[self.line(Operation::CreateTrial, fields)], false)?;
        Ok(self.replay.begun_by(&self.worker_id))
    }

    /// Adds a trial that waits.
    pub(crate) fn enqueue(&mut self, study_id: usize, system_attrs: Map<String, Value>) -> Result<()> {
        let nothing = || Value::Object(Map::new());
        let fields = [
            ("study_id", study_id.into()),
            ("datetime_start", Value::Null),
            ("state", 4.into()),
            ("value", Value::Null),
            ("values", Value::Null),
            ("distributions", nothing()),
            ("params", nothing()),
            ("user_attrs", nothing()),
            ("system_attrs", system_attrs.into()),
            ("intermediate_values", nothing()),
        ];
        self.append(&[self.line(Operation::CreateTrial, fields)], true)
    }

    /// Begins a trial that waits; `false` if another process was quicker.
    pub(crate) fn claim(&mut self, id: usize) -> Result<bool> {
        self.replay.begun_by(&self.worker_id);
        self.set_state(id, TrialState::Running, None)?;
        Ok(self.replay.begun_by(&self.worker_id) == Some(id))
    }

    /// Sets parameters of a trial, and notes about it, at once.
    pub(crate) fn set_params(&mut self, id: usize, params: &[(&str, f64, &Distribution)], notes: Notes) -> Result<()> {
        let params = params.iter().map(|(name, internal, of)| {
            let fields = [
                ("trial_id", id.into()),
                ("param_name", (*name).into()),
                ("param_value_internal", json::number(*internal)),
                ("distribution", of.to_json().into()),
            ];
            self.line(Operation::SetTrialParam, fields)
        });
        let notes = notes.into_iter().map(|(key, value)| self.note(id, Attr::System, &key, value));
        let lines: Vec<Value> = notes.chain(params).collect();
        self.append(&lines, false)
    }

    pub(crate) fn set_state(&mut self, id: usize, state: TrialState, value: Option<f64>) -> Result<()> {
        let number = TrialState::ALL.iter().position(|other| *other == state).unwrap_or_default();
        let time = if state.is_finished() { "datetime_complete" } else { "datetime_start" };
        let values = value.map_or(Value::Null, |value| Value::Array(vec![json::number(value)]));
        let fields =
            [("trial_id", id.into()), ("state", number.into()), ("values", values), (time, Value::from(now()))];
        self.append(&[self.line(Operation::SetTrialStateValues, fields)], state.is_finished())
    }

    pub(crate) fn set_intermediate_value(&mut self, id: usize, step: i64, value: f64) -> Result<()> {
        let fields = [("trial_id", id.into()), ("step", step.into()), ("intermediate_value", json::number(value))];
        self.append(&[self.line(Operation::SetTrialIntermediateValue, fields)], false)
    }

    pub(crate) fn set_trial_attrs(&mut self, id: usize, attr: Attr, notes: Notes) -> Result<()> {
        let lines: Vec<Value> = notes.into_iter().map(|(key, value)| self.note(id, attr, &key, value)).collect();
        self.append(&lines, false)
    }

    fn note(&self, id: usize, attr: Attr, key: &str, value: Value) -> Value {
        let operation = match attr {
            Attr::User => Operation::SetTrialUserAttr,
            Attr::System => Operation::SetTrialSystemAttr,
        };
        self.line(operation, [("trial_id", id.into()), (attr.field(), entry(key, value))])
    }

    fn line<const N: usize>(&self, operation: Operation, fields: [(&str, Value); N]) -> Value {
        let mut line = Map::new();
        line.insert("op_code".into(), (operation as u8).into());
        line.insert("worker_id".into(), self.worker_id.clone().into());
        line.extend(fields.map(|(key, value)| (key.to_owned(), value)));
        Value::Object(line)
    }

    /// Optuna waits for the disk after each line. Here only what has become of a trial is waited for: without the rest there would
    /// be nothing to go on with either.
    fn append(&mut self, lines: &[Value], wait: bool) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.file.append(lines, wait)?;
        self.sync()
    }
}

/// Notes by name.
pub(crate) type Notes = Vec<(String, Value)>;

/// Whose notes these are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attr {
    User,
    System,
}

impl Attr {
    fn field(self) -> &'static str {
        match self {
            Attr::User => "user_attr",
            Attr::System => "system_attr",
        }
    }
}

/// A number as a journal has it.
pub(crate) fn number(value: f64) -> Value {
    json::number(value)
}

/// The number of a journal.
pub(crate) fn as_number(value: &Value) -> Option<f64> {
    json::as_number(value)
}

fn entry(key: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), value)]))
}

fn now() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+00:00");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}
