//! The loops: fit, one training epoch, one optimization step, evaluation and prediction.

mod batches;
mod evaluation;
mod fit;
mod leave;
mod manual;
mod optimization;
mod prediction;
mod run;
mod training_epoch;

pub use evaluation::EvalResults;
pub use optimization::OptimizerClosure;

pub(crate) use batches::{Batches, Numbered, Surprise};
pub(crate) use leave::{Leaving, SafePoint};
pub(crate) use run::{Length, Run};
