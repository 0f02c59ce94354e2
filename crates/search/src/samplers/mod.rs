//! [`Sampler`]: how the parameters of the next trial are chosen.

mod grid;
mod random;
mod tpe;

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::grid::GridSampler;
pub use self::random::RandomSampler;
pub use self::tpe::{TpeOptions, TpeSampler};
use crate::entropy;
use crate::error::Result;
use crate::space::SearchSpace;
use crate::study::View;
use crate::trial::Trial;

/// The generator that samplers draw from.
pub(crate) type Rng = ChaCha8Rng;

/// Internal values by name, in the order of the space.
pub type Draw = Vec<(String, f64)>;

/// Chooses the parameters of a trial.
pub trait Sampler: Send {
    /// The internal values of all parameters of `space` for `trial`, which has been created; `None` if there is nothing left
    /// to try.
    ///
    /// # Errors
    ///
    /// Fails if the sampler cannot choose from such a space.
    fn sample(&mut self, study: &View<'_>, trial: &Trial, space: &SearchSpace) -> Result<Option<Draw>>;

    /// What is to be noted of the trial, for those who go on with the study.
    fn notes(&self) -> Vec<(String, serde_json::Value)> {
        Vec::new()
    }
}

/// A sampler as a configuration names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SamplerConfig {
    /// Each parameter by itself, by chance.
    Random {
        /// The seed; without one, each search is another.
        #[serde(default)]
        seed: Option<u64>,
    },
    /// All combinations, each once. Numbers need a `step`, unless they are whole.
    Grid {},
    /// The tree-structured Parzen estimator (Bergstra et al. 2011), with Optuna's defaults.
    Tpe(TpeOptions),
}

impl Default for SamplerConfig {
    fn default() -> SamplerConfig {
        SamplerConfig::Tpe(TpeOptions::default())
    }
}

impl SamplerConfig {
    /// Makes the sampler for a space.
    ///
    /// # Errors
    ///
    /// Fails if options are out of their range, or the space has no grid.
    pub fn build(&self, space: &SearchSpace) -> Result<Box<dyn Sampler>> {
        Ok(match self {
            SamplerConfig::Random { seed } => Box::new(RandomSampler::new(*seed)),
            SamplerConfig::Grid {} => Box::new(GridSampler::new(space)?),
            SamplerConfig::Tpe(options) => Box::new(TpeSampler::new(options.clone())?),
        })
    }
}

/// The generator of a trial: of a seed it is the same whoever asks, so that several processes may share a study.
fn generator(seed: Option<u64>, number: usize) -> Rng {
    let mut rng: Rng = match seed {
        Some(seed) => rand::SeedableRng::seed_from_u64(seed),
        None => rand::SeedableRng::from_seed(entropy::bytes()),
    };
    rng.set_stream(number as u64);
    rng
}
