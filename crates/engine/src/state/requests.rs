//! [`Requests`]: requests of ranks, and those that all ranks agreed on.

use fulgurite_fabric::FabricError;
use fulgurite_fabric::strategy::Consensus;

use crate::state::shutdown::Shutdown;

/// Requests to stop and to validate. With several processes, the request of one takes effect once all know of it.
#[derive(Default)]
pub(crate) struct Requests {
    /// Set while a run has several processes.
    consensus: Option<Consensus>,
    /// The reason for stopping the run.
    stop: Option<String>,
    time_is_over: bool,
    /// Whether all ranks validate after this batch, because the time interval is over.
    validate: bool,
    local: Local,
    /// Whether all ranks know that the loss of one was not finite: it is reported once.
    loss_is_lost: bool,
}

/// Requests of this rank that the others do not know yet.
#[derive(Default)]
struct Local {
    stop: Option<String>,
    time_is_over: bool,
    /// Whether this rank has requested a validation that is not confirmed yet.
    called_to_validate: bool,
    /// Whether a loss of this rank is not finite.
    loss_is_lost: bool,
}

// The requests as bits, followed by those of the signals.
const STOP: u32 = 1;
const TIME_IS_OVER: u32 = 1 << 1;
const VALIDATE: u32 = 1 << 2;
const LOSS_IS_LOST: u32 = 1 << 3;
const SIGNALS: u32 = 4;

impl Requests {
    /// Start of a run.
    pub(crate) fn begin(&mut self, consensus: Option<Consensus>) {
        *self = Requests { consensus, ..Requests::default() };
    }

    /// Whether requests of this rank wait for an exchange with the others.
    pub(crate) fn needs_consensus(&self) -> bool {
        self.consensus.is_some()
    }

    /// Requests the run to stop: at once, or when all ranks know.
    pub(crate) fn stop(&mut self, reason: String) {
        let slot = if self.needs_consensus() { &mut self.local.stop } else { &mut self.stop };
        slot.get_or_insert(reason);
    }

    /// The reason for stopping the run.
    pub(crate) fn stop_reason(&self) -> Option<&str> {
        self.stop.as_deref()
    }

    /// Takes the stop request; [`put_stop`](Self::put_stop) restores it.
    pub(crate) fn take_stop(&mut self) -> Option<String> {
        self.stop.take()
    }

    pub(crate) fn put_stop(&mut self, stop: Option<String>) {
        self.stop = stop;
    }

    /// The time limit of the run is reached on this rank.
    pub(crate) fn note_time_is_over(&mut self) {
        match self.needs_consensus() {
            true => self.local.time_is_over = true,
            false => self.time_is_over = true,
        }
    }

    pub(crate) fn time_is_over(&self) -> bool {
        self.time_is_over
    }

    /// Whether all ranks validate after this batch, because the time interval is over.
    pub(crate) fn validation_is_called(&self) -> bool {
        self.validate
    }

    /// Whether this rank may still request a validation.
    pub(crate) fn may_call_to_validate(&self) -> bool {
        !self.local.called_to_validate && !self.validate
    }

    /// A validation ended.
    pub(crate) fn validated(&mut self) {
        self.validate = false;
    }

    /// A loss of this rank is not finite: the ranks will find out together where the first was.
    pub(crate) fn note_lost_loss(&mut self) {
        self.local.loss_is_lost = true;
    }

    /// End of a trial: discards the requests that were made in it.
    pub(crate) fn forget(&mut self) {
        self.stop = None;
        self.local.stop = None;
        self.validate = false;
    }

    /// Exchanges the requests of this rank with those of the others. Returns whether they have just learned that the loss of
    /// one was not finite.
    pub(crate) fn sync(
        &mut self,
        shutdown: &mut Shutdown,
        calls_to_validate: bool,
        ask: impl FnOnce(&mut Consensus, u32) -> Result<u32, FabricError>,
    ) -> Result<bool, FabricError> {
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let flags = flag(self.local.stop.is_some(), STOP)
            | flag(self.local.time_is_over, TIME_IS_OVER)
            | flag(calls_to_validate, VALIDATE)
            | flag(self.local.loss_is_lost, LOSS_IS_LOST)
            | shutdown.signals.came_here() << SIGNALS;
        let Some(consensus) = &mut self.consensus else { return Ok(false) };
        let agreed = ask(consensus, flags)?;
        if agreed & STOP != 0 {
            let reason = self.local.stop.take();
            self.stop.get_or_insert_with(|| reason.unwrap_or_else(|| "another process requested it".to_owned()));
        }
        self.time_is_over |= agreed & TIME_IS_OVER != 0;
        self.local.called_to_validate |= calls_to_validate;
        if agreed & VALIDATE != 0 {
            self.local.called_to_validate = false;
            self.validate = true;
        }
        shutdown.signals.agree_on(agreed >> SIGNALS);
        let is_new = agreed & LOSS_IS_LOST != 0 && !self.loss_is_lost;
        self.loss_is_lost |= is_new;
        Ok(is_new)
    }
}
