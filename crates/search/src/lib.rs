//! Hyper-parameter search as in [Optuna](https://optuna.org), and in its files.
//!
//! A [`Study`] keeps its trials in a journal that Optuna, optuna-dashboard and rustuna read, and that Python workers may append to
//! at the same time. [`Sampler`]s choose the parameters of a trial from a [`SearchSpace`], a [`Pruner`] stops those that are not
//! worth going on with; both have Optuna's names, options and defaults, and decide as it does.
//!
//! It needs no libtorch. `fulgurite`'s command line searches by it: `program sweep`.

mod distribution;
mod entropy;
mod error;
mod journal;
mod pruners;
mod samplers;
mod space;
mod study;
mod trial;
mod view;

pub use distribution::Distribution;
pub use error::{Result, SearchError};
pub use pruners::{HalvingOptions, HyperbandOptions, MedianOptions, PercentileOptions, Pruner, PrunerConfig};
pub use samplers::{Draw, GridSampler, RandomSampler, Sampler, SamplerConfig, TpeOptions, TpeSampler};
pub use space::SearchSpace;
pub use study::Study;
pub use trial::{Direction, Param, Trial, TrialState};
pub use view::View;
