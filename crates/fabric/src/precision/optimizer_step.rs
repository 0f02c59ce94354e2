//! [`OptimizerStep`].

/// The outcome of an optimizer's step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimizerStep {
    /// The parameters were updated.
    Taken,
    /// The parameters were not updated: a gradient was infinite or NaN.
    Skipped,
}
