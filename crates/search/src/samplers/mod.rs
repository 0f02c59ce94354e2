//! [`Sampler`]: how the parameters of the next trial are chosen.

mod grid;
mod random;
mod sampler;
mod tpe;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::grid::GridSampler;
pub use self::random::RandomSampler;
pub use self::sampler::{Draw, Sampler};
pub use self::tpe::{TpeOptions, TpeSampler};
use crate::error::Result;
use crate::space::SearchSpace;

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
