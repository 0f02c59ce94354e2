//! [`Study`]: trials with a common aim, in a journal.

use std::path::Path;

use serde_json::{Map, Value};

use crate::distribution::Distribution;
use crate::error::{Result, SearchError};
use crate::journal::{self, Attr, Journal};
use crate::pruners::Pruner;
use crate::samplers::{Draw, Sampler};
use crate::space::SearchSpace;
use crate::trial::{Direction, Trial, TrialState};
use crate::view::View;

/// Trials with a common aim, kept in a journal file that Optuna, its dashboard and others may read and append to meanwhile.
///
/// ```
/// use fulgurite_search::{Direction, Pruner, RandomSampler, SearchSpace, Study, TrialState};
/// use serde_json::json;
///
/// let folder = tempfile::tempdir().unwrap();
/// let mut study = Study::open(folder.path().join("journal.log"), "parabola", Direction::Minimize)?;
/// let space = SearchSpace::from_value(&json!({ "x": { "float": [-10, 10] } }))?;
/// let mut sampler = RandomSampler::new(Some(0));
/// for _ in 0..50 {
///     let Some(id) = study.ask(&mut sampler, &space)? else { break };
///     let x = study.params(id)["x"].as_f64().unwrap();
///     study.tell(id, TrialState::Complete, Some((x - 2.0).powi(2)))?;
/// }
/// assert!(study.best_trial().unwrap().value < Some(1.0));
/// # Ok::<(), fulgurite_search::SearchError>(())
/// ```
pub struct Study {
    journal: Journal,
    id: usize,
    name: String,
    direction: Direction,
}

impl Study {
    /// Opens a study of a journal file, or begins it.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or written, or is no journal, or if the study has several objectives or another
    /// direction.
    pub fn open(path: impl AsRef<Path>, name: &str, direction: Direction) -> Result<Study> {
        let mut journal = Journal::open(path.as_ref())?;
        if journal.study_id(name).is_none() {
            journal.create_study(name, direction)?;
        }
        let wrong = |problem: String| SearchError::Study { study: name.to_owned(), problem };
        let found = journal.study_id(name).and_then(|id| Some((id, journal.study(id)?)));
        let Some((id, study)) = found else { return Err(wrong("it was deleted meanwhile".into())) };
        match study.directions[..] {
            [found] if found == direction => {}
            [found] => {
                let (found, asked) = (direction_name(found), direction_name(direction));
                return Err(wrong(format!("it is to {found}, not to {asked}; choose another name for a new study")));
            }
            ref all => return Err(wrong(format!("it has {} objectives, and one is supported", all.len()))),
        }
        Ok(Study { journal, id, name: name.to_owned(), direction })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wanted.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The journal.
    pub fn path(&self) -> &Path {
        self.journal.path()
    }

    /// Reads what other processes have appended.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be read.
    pub fn sync(&mut self) -> Result<()> {
        self.journal.sync()
    }

    /// What samplers and pruners see.
    pub fn view(&self) -> View<'_> {
        View { name: &self.name, direction: self.direction, trials: self.journal.trials(self.id).collect() }
    }

    /// All trials, by number.
    pub fn trials(&self) -> impl Iterator<Item = &Trial> {
        self.journal.trials(self.id)
    }

    /// A trial by its [`id`](Trial::id).
    pub fn trial(&self, id: usize) -> Option<&Trial> {
        self.journal.trial(id)
    }

    /// The parameters of a trial.
    pub fn params(&self, id: usize) -> Map<String, Value> {
        let params = self.trial(id).map(|trial| trial.params.as_slice()).unwrap_or_default();
        params.iter().map(|(name, param)| (name.clone(), param.value())).collect()
    }

    /// The complete trial with the best value, the earliest of equal ones.
    pub fn best_trial(&self) -> Option<&Trial> {
        let complete = self.trials().filter(|trial| trial.state == TrialState::Complete);
        let value = |trial: &Trial| trial.value.unwrap_or(f64::NAN);
        complete.fold(None, |best: Option<&Trial>, trial| match best {
            Some(best) if !self.direction.is_better(value(trial), value(best)) => Some(best),
            _ => Some(trial),
        })
    }

    /// Begins a trial and chooses its parameters; returns its [`id`](Trial::id), or `None` if the sampler has nothing left to try.
    /// A trial that somebody has enqueued comes first, with the parameters that they gave; one whose parameters are none of the space
    /// has failed.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be written, the sampler cannot choose from the space, or earlier trials had other choices or
    /// another scale of a parameter.
    pub fn ask(&mut self, sampler: &mut dyn Sampler, space: &SearchSpace) -> Result<Option<usize>> {
        self.sync()?;
        self.check_space(space)?;
        loop {
            let (id, fixed) = match self.claim_waiting()? {
                Some(claimed) => claimed,
                None => (self.create_trial()?, Map::new()),
            };
            let Some(trial) = self.trial(id) else { return Ok(None) };
            let (drawn, notes) = if space.names().all(|name| fixed.contains_key(name)) {
                Default::default()
            } else {
                let Some(drawn) = sampler.sample(&self.view(), trial, space)? else {
                    self.tell(id, TrialState::Fail, None)?;
                    return Ok(None);
                };
                (drawn, sampler.notes())
            };
            match with_fixed(&drawn, &fixed, space) {
                Ok(params) => {
                    self.journal.set_params(id, &params, notes)?;
                    return Ok(Some(id));
                }
                // Somebody's slip is no reason to end the search of others.
                Err(problem) => {
                    self.set_user_attr(id, "fail_reason", problem)?;
                    self.tell(id, TrialState::Fail, None)?;
                }
            }
        }
    }

    /// Notes a value on the way.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be written.
    pub fn report(&mut self, id: usize, step: i64, value: f64) -> Result<()> {
        self.journal.set_intermediate_value(id, step, value)
    }

    /// Whether a trial should be stopped, by what it and others have reported so far.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be read or written.
    pub fn should_prune(&mut self, id: usize, pruner: &mut Pruner) -> Result<bool> {
        self.sync()?;
        let Some(trial) = self.trial(id) else { return Ok(false) };
        let verdict = pruner.judge(&self.view(), trial);
        let notes = verdict.notes.into_iter().map(|(key, value)| (key, journal::number(value))).collect();
        self.journal.set_trial_attrs(id, Attr::System, notes)?;
        Ok(verdict.prune)
    }

    /// Ends a trial. NaN is no value: such a trial has failed, as in Optuna.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be written.
    pub fn tell(&mut self, id: usize, state: TrialState, value: Option<f64>) -> Result<()> {
        match value {
            Some(value) if value.is_nan() => self.journal.set_state(id, TrialState::Fail, None),
            value => self.journal.set_state(id, state, value),
        }
    }

    /// Enqueues a trial with the parameters of one that failed for a reason that lies not in these.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be written.
    pub fn retry(&mut self, id: usize) -> Result<()> {
        let Some(trial) = self.trial(id) else { return Ok(()) };
        // Optuna's names, by which it finds the first attempt.
        let (number, mut notes) = (Value::from(trial.number), Map::new());
        let first = trial.system_attrs.get("failed_trial").unwrap_or(&number);
        let before = trial.system_attrs.get("retry_history").and_then(Value::as_array);
        let history: Vec<Value> = before.into_iter().flatten().chain([&number]).cloned().collect();
        notes.insert("failed_trial".into(), first.clone());
        notes.insert("retry_history".into(), history.into());
        notes.insert("fixed_params".into(), self.params(id).into());
        self.journal.enqueue(self.id, notes)
    }

    /// Notes something about a trial, for people and programs.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be written.
    pub fn set_user_attr(&mut self, id: usize, key: &str, value: impl Into<Value>) -> Result<()> {
        self.set_user_attrs(id, vec![(key.to_owned(), value.into())])
    }

    /// Notes several things about a trial at once.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be written.
    pub fn set_user_attrs(&mut self, id: usize, notes: Vec<(String, Value)>) -> Result<()> {
        self.journal.set_trial_attrs(id, Attr::User, notes)
    }

    /// Notes something about the study.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be written.
    pub fn set_study_user_attr(&mut self, key: &str, value: impl Into<Value>) -> Result<()> {
        self.journal.set_study_attr(self.id, Attr::User, key, value.into())
    }

    /// What was noted about the study.
    pub fn user_attrs(&self) -> Map<String, Value> {
        self.journal.study(self.id).map(|study| study.user_attrs.clone()).unwrap_or_default()
    }

    /// Names what the value of trials is, which dashboards show.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be written.
    pub fn set_metric_name(&mut self, name: &str) -> Result<()> {
        const KEY: &str = "study:metric_names";
        let names = Value::from(vec![name]);
        if self.journal.study(self.id).and_then(|study| study.system_attrs.get(KEY)) == Some(&names) {
            return Ok(());
        }
        self.journal.set_study_attr(self.id, Attr::System, KEY, names)
    }

    /// A parameter that is of another kind than earlier ones of the study is ignored by all who read the journal.
    fn check_space(&self, space: &SearchSpace) -> Result<()> {
        for (name, of) in space.iter() {
            let before = self.trials().find_map(|trial| trial.param(name));
            if before.is_some_and(|before| !before.distribution.is_compatible(of)) {
                return Err(SearchError::Study {
                    study: self.name.clone(),
                    problem: format!(
                        "earlier trials have drawn `{name}` in another way: other choices, or with or without `log`; choose another name \
                         for a new study"
                    ),
                });
            }
        }
        Ok(())
    }

    fn create_trial(&mut self) -> Result<usize> {
        let gone = || SearchError::Study { study: self.name.clone(), problem: "it was deleted meanwhile".into() };
        self.journal.create_trial(self.id)?.ok_or_else(gone)
    }

    /// Takes a trial that waits, unless another process is quicker, and its fixed parameters.
    fn claim_waiting(&mut self) -> Result<Option<(usize, Map<String, Value>)>> {
        let waiting: Vec<usize> =
            self.trials().filter(|trial| trial.state == TrialState::Waiting).map(|trial| trial.id).collect();
        for id in waiting {
            if self.journal.claim(id)? {
                let attrs = self.trial(id).map(|trial| &trial.system_attrs);
                let fixed = attrs.and_then(|attrs| attrs.get("fixed_params")?.as_object().cloned());
                return Ok(Some((id, fixed.unwrap_or_default())));
            }
        }
        Ok(None)
    }
}

/// Internal values by name, with the distribution of each.
type Params<'a> = Vec<(&'a str, f64, &'a Distribution)>;

/// The given values, and what was drawn for the others; says which of the given is none of the space.
fn with_fixed<'a>(drawn: &Draw, fixed: &Map<String, Value>, space: &'a SearchSpace) -> Result<Params<'a>, String> {
    let param =
        |(name, of): (&'a str, &'a Distribution)| match fixed.get(name) {
            None => drawn.iter().find(|(other, _)| other == name).map(|(_, drawn)| Ok((name, *drawn, of))),
            Some(value) => Some(of.internal(value).map(|internal| (name, internal, of)).ok_or_else(|| {
                format!("it was enqueued with {value} for `{name}`, which is none of the search space")
            })),
        };
    space.iter().filter_map(param).collect()
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Minimize => "minimize",
        Direction::Maximize => "maximize",
    }
}
