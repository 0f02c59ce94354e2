//! [`Trial`]: what a study knows of one attempt.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::distribution::Distribution;

/// What became of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialState {
    /// It runs.
    Running,
    /// It ended with a value.
    Complete,
    /// It was stopped, because others were better.
    Pruned,
    /// It failed, or its process is gone.
    Fail,
    /// It is to be run with given parameters.
    Waiting,
}

impl TrialState {
    pub(crate) const ALL: [TrialState; 5] =
        [TrialState::Running, TrialState::Complete, TrialState::Pruned, TrialState::Fail, TrialState::Waiting];

    /// Whether it has ended.
    pub fn is_finished(self) -> bool {
        !matches!(self, TrialState::Running | TrialState::Waiting)
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            TrialState::Running => "running",
            TrialState::Complete => "complete",
            TrialState::Pruned => "pruned",
            TrialState::Fail => "failed",
            TrialState::Waiting => "waiting",
        }
    }
}

/// A parameter of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// What it was drawn from.
    pub distribution: Distribution,
    /// Its internal value, of which [`Distribution::value`] makes the value.
    pub internal: f64,
}

impl Param {
    /// The value.
    pub fn value(&self) -> Value {
        self.distribution.value(self.internal)
    }
}

/// One attempt of a study: parameters, and what came of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Its number within the study, from 0.
    pub number: usize,
    /// Its number within the journal, which may hold several studies.
    pub id: usize,
    /// What became of it.
    pub state: TrialState,
    /// The parameters, in the order in which they were set.
    pub params: Vec<(String, Param)>,
    /// The value at the end. A pruned trial may have one too.
    pub value: Option<f64>,
    /// The values reported on the way, by step.
    pub intermediate_values: BTreeMap<i64, f64>,
    /// What programs have noted.
    pub user_attrs: Map<String, Value>,
    /// What samplers and pruners have noted.
    pub system_attrs: Map<String, Value>,
    /// When it began and ended, as the journal says it.
    pub started: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
}

impl Trial {
    /// A parameter.
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|(other, _)| other == name).map(|(_, param)| param)
    }

    /// The last step that was reported, and its value.
    pub fn last(&self) -> Option<(i64, f64)> {
        self.intermediate_values.last_key_value().map(|(step, value)| (*step, *value))
    }
}

/// What is wanted of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// The smallest.
    #[default]
    Minimize,
    /// The largest.
    Maximize,
}

impl Direction {
    /// Whether `a` is better than `b`. NaN is worse than any number.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        match self {
            _ if a.is_nan() => false,
            _ if b.is_nan() => true,
            Direction::Minimize => a < b,
            Direction::Maximize => a > b,
        }
    }

    /// The value as something to be minimized.
    pub(crate) fn minimized(self, value: f64) -> f64 {
        if self == Direction::Minimize { value } else { -value }
    }
}
