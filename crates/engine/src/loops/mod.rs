//! The loops: fit, one training epoch, one optimization step, evaluation and prediction.

mod batch_norm;
mod batches;
mod evaluation;
mod fit;
mod loader_state;
mod loaders;
mod manual;
mod optimization;
mod prediction;
mod run;
mod shutdown;
mod training_epoch;

pub use evaluation::EvalResults;

pub(crate) use batches::{Numbered, of_loader};
pub(crate) use run::Run;
pub(crate) use shutdown::SafePoint;
