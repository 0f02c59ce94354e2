//! [`SweepOptions`]: what `sweep` can be told.

use std::path::PathBuf;
use std::time::Duration;

use fulgurite_engine::Error;
use fulgurite_search::{Direction, Pruner, PrunerConfig, Sampler, SamplerConfig, SearchSpace};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What is wanted of the monitored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// The smallest.
    #[default]
    Min,
    /// The largest.
    Max,
}

/// A name, or a name with options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Named {
    Name(String),
    Options(Map<String, Value>),
}

impl From<&str> for Named {
    fn from(name: &str) -> Named {
        Named::Name(name.to_owned())
    }
}

impl Named {
    fn read<C: DeserializeOwned>(&self, option: &str) -> Result<C, Error> {
        let options = match self {
            Named::Name(name) => json!({ name: {} }),
            Named::Options(options) => {
                let given = options.iter().map(|(name, options)| match options {
                    Value::Null => (name.clone(), json!({})),
                    options => (name.clone(), options.clone()),
                });
                Value::Object(given.collect())
            }
        };
        let form = "write its name, or `{NAME: {OPTION: VALUE}}`";
        serde_json::from_value(options).map_err(|error| Error::Config(format!("`sweep.{option}`: {error}; {form}")))
    }
}

/// The options of `sweep`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::cli) struct SweepOptions {
    /// What is tried: for each option `{float: [low, high]}` or `{int: [low, high]}`, with `log: true` or `step` if need be, or
    /// `{choice: [a, b]}`.
    space: Map<String, Value>,
    /// The logged value by which trials are compared.
    pub monitor: String,
    /// Whether the value should be small or large.
    mode: Mode,
    /// How many trials the study shall have, with those of earlier sweeps.
    pub n_trials: usize,
    /// How many trials run at once.
    pub n_jobs: usize,
    /// Seconds after which no further trial begins.
    timeout: Option<f64>,
    /// Seconds that a trial may take; one that takes longer has failed.
    trial_timeout: Option<f64>,
    /// How values are chosen: `tpe`, `random`, `grid`, or one of them with options, as in `{tpe: {seed: 1}}`.
    sampler: Named,
    /// What stops bad trials: `median`, `percentile`, `successive_halving` (or `asha`), `hyperband`, `threshold`, `patient`,
    /// `none`, or one of them with options, as in `{median: {n_warmup_steps: 3}}`. A step is an epoch.
    pruner: Named,
    /// The name of the study; that of the program if null.
    pub study_name: Option<String>,
    /// The journal file of the study; `sweeps/STUDY/journal.log` in `trainer.default_root_dir` if null.
    pub storage: Option<PathBuf>,
    /// How many CUDA devices each of the trials that run at once has for itself, where there are any; as many as `trainer.devices`
    /// says if null, or 1.
    pub devices_per_trial: Option<usize>,
}

impl Default for SweepOptions {
    fn default() -> SweepOptions {
        SweepOptions {
            space: Map::new(),
            monitor: "val_loss".into(),
            mode: Mode::Min,
            n_trials: 20,
            n_jobs: 1,
            timeout: None,
            trial_timeout: None,
            sampler: "tpe".into(),
            pruner: "median".into(),
            study_name: None,
            storage: None,
            devices_per_trial: None,
        }
    }
}

impl SweepOptions {
    /// Whether the options are within their ranges.
    ///
    /// # Errors
    ///
    /// Fails if one is not.
    pub(in crate::cli) fn check(&self) -> Result<(), Error> {
        for (name, value) in [
            ("n_trials", Some(self.n_trials)),
            ("n_jobs", Some(self.n_jobs)),
            ("devices_per_trial", self.devices_per_trial),
        ] {
            if value == Some(0) {
                return Err(Error::Config(format!("`sweep.{name}` is 0; it must be at least 1")));
            }
        }
        for (name, seconds) in [("timeout", self.timeout), ("trial_timeout", self.trial_timeout)] {
            if let Some(seconds) = seconds.filter(|seconds| duration(*seconds).is_none()) {
                return Err(Error::Config(format!("`sweep.{name}` is {seconds}; it must be a number of seconds")));
            }
        }
        let name = self.study_name.as_deref().unwrap_or("name");
        if name.trim().is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(Error::Config(format!("`sweep.study_name` is `{name}`; it must be the name of a folder")));
        }
        let space = self.space()?;
        self.sampler(&space)?;
        self.pruner().map(drop)
    }

    pub(in crate::cli) fn space(&self) -> Result<SearchSpace, Error> {
        if self.space.is_empty() {
            return Err(Error::Config(
                "`sweep.space` is empty; name the options to try, as in \
                 `--sweep.space '{model.lr: {float: [1e-4, 1e-1], log: true}}'`"
                    .into(),
            ));
        }
        SearchSpace::from_value(&Value::Object(self.space.clone())).map_err(refused)
    }

    pub(super) fn sampler(&self, space: &SearchSpace) -> Result<Box<dyn Sampler>, Error> {
        self.sampler.read::<SamplerConfig>("sampler")?.build(space).map_err(refused)
    }

    /// How many trials there can be: a grid has so many.
    pub(super) fn most_trials(&self, space: &SearchSpace) -> Result<usize, Error> {
        let SamplerConfig::Grid {} = self.sampler.read("sampler")? else { return Ok(self.n_trials) };
        let grid = fulgurite_search::GridSampler::new(space).map_err(refused)?;
        Ok(self.n_trials.min(grid.combinations()))
    }

    pub(super) fn pruner(&self) -> Result<Pruner, Error> {
        Pruner::new(&self.pruner.read::<PrunerConfig>("pruner")?).map_err(refused)
    }

    pub(super) fn direction(&self) -> Direction {
        if self.mode == Mode::Min { Direction::Minimize } else { Direction::Maximize }
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout.and_then(duration)
    }

    pub(super) fn trial_timeout(&self) -> Option<Duration> {
        self.trial_timeout.and_then(duration)
    }
}

fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

pub(super) fn refused(error: fulgurite_search::SearchError) -> Error {
    Error::Config(error.to_string())
}
