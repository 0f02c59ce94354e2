//! Ctrl-C: the first asks the run to stop after the batch in hand, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::SigId;
use signal_hook::consts::SIGINT;
use signal_hook::flag;

/// The exit code of a process that Ctrl-C ended: 128 + SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// While this lives, Ctrl-C sets a flag, and ends the process if it is set already.
pub(crate) struct InterruptGuard(Vec<SigId>);

impl InterruptGuard {
    /// Installs the handlers. Where the system refuses, Ctrl-C keeps its usual meaning.
    pub(crate) fn install(interrupt: &Arc<AtomicBool>) -> InterruptGuard {
        // The order matters: the second handler must see the flag as the signal found it.
        let ends = flag::register_conditional_shutdown(SIGINT, EXIT_INTERRUPTED, Arc::clone(interrupt));
        let asks = flag::register(SIGINT, Arc::clone(interrupt));
        InterruptGuard([ends, asks].into_iter().flatten().collect())
    }
}

impl Drop for InterruptGuard {
    fn drop(&mut self) {
        for id in self.0.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
