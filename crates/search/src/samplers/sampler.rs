//! [`Sampler`]: what every one can do, and what it draws from.

use rand_chacha::ChaCha8Rng;

use crate::entropy;
use crate::error::Result;
use crate::space::SearchSpace;
use crate::trial::Trial;
use crate::view::View;

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

/// The generator of a trial: of a seed it is the same whoever asks, so that several processes may share a study.
pub(super) fn generator(seed: Option<u64>, number: usize) -> Rng {
    let mut rng: Rng = match seed {
        Some(seed) => rand::SeedableRng::seed_from_u64(seed),
        None => rand::SeedableRng::from_seed(entropy::bytes()),
    };
    rng.set_stream(number as u64);
    rng
}
