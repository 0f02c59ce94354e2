//! [`Snapshot`]: a state of the run that can be restored.

use fulgurite_torch::rng::RngState;

use crate::progress::Progress;
use crate::state::optimization_loop::Window;

/// What loops change of a run, apart from the model: counters, the accumulation window, random numbers. The sanity check,
/// a validation that is begun again and the trials of the tuner go back to one.
pub(crate) struct Snapshot {
    pub progress: Progress,
    pub window: Window,
    /// Batches evaluated per loader.
    pub evaluated: Vec<i64>,
    pub rng: RngState,
}
