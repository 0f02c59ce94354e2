//! The tuner: a learning rate and a batch size found by trying, on the model and the data they are for.

mod batch_size;
mod curve;
mod lr_find;
mod options;
mod plot;
mod request;
mod trial;

pub use curve::LrFind;
pub use options::{BatchSizeFinderOptions, LearningRateFinderOptions, LrFindMode, ScaleMode};
pub use request::{Reply, TuneRequest};
