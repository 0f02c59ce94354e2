//! [`BeforeLoading`]: what a callback had before a run loaded its state from a checkpoint.

use fulgurite_engine::TrainerFn;

/// What an evaluation loads, or a fit that fails before it starts, is not what a later fit continues: that goes on with
/// what the callback had before. State that is loaded outside of a run is kept.
#[derive(Debug, Clone)]
pub(crate) struct BeforeLoading<T> {
    is_in_run: bool,
    before: Option<T>,
}

impl<T> Default for BeforeLoading<T> {
    fn default() -> BeforeLoading<T> {
        BeforeLoading { is_in_run: false, before: None }
    }
}

impl<T> BeforeLoading<T> {
    /// In `setup`: what a fit puts back.
    pub(crate) fn setup(&mut self, stage: TrainerFn) -> Option<T> {
        self.is_in_run = true;
        if stage == TrainerFn::Fit { self.before.take() } else { None }
    }

    /// In `load_state_dict`, before the state is loaded.
    pub(crate) fn load(&mut self, now: impl FnOnce() -> T) {
        if self.is_in_run && self.before.is_none() {
            self.before = Some(now());
        }
    }

    /// In `on_fit_start`: the loaded state is that of this fit.
    pub(crate) fn fit_starts(&mut self) {
        self.before = None;
    }

    /// In `teardown`.
    pub(crate) fn teardown(&mut self) {
        self.is_in_run = false;
    }
}
