//! [`OptimizerStep`].

/// What became of an optimizer's step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimizerStep {
    /// The parameters were updated.
    Taken,
    /// They were not: a gradient was infinite or NaN.
    Skipped,
}
