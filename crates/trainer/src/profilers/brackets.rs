//! How the trainer tells its profiler what happens. Without a profiler this allocates nothing and reads no clock.

use fulgurite_data::Batch;

use super::{ProfiledRun, Profiler, append_report};
use crate::error::{BoxError, Error};
use crate::hook::Hook;
use crate::loops::{Batches, Numbered};
use crate::state::TrainerState;
use crate::step::Step;

/// An action that has begun, and must be handed to [`TrainerState::end_action`]. `None`: nobody measures.
#[must_use]
pub(crate) struct Action(Option<String>);

impl TrainerState {
    /// Runs `work` as an action of this name, which the profiler measures. Without a profiler it just runs.
    ///
    /// ```
    /// # use fulgurite::prelude::*;
    /// # fn demo(trainer: &mut TrainerState) -> Result<()> {
    /// let lines = trainer.profile("read labels", |_| std::fs::read_to_string("labels.txt"))?;
    /// # Ok(()) }
    /// ```
    pub fn profile<T>(&mut self, name: &str, work: impl FnOnce(&mut TrainerState) -> T) -> T {
        let action = self.begin_action(|| name.to_owned());
        let returned = work(self);
        self.end_action(action);
        returned
    }

    /// An action begins, if anybody measures.
    pub(crate) fn begin_action(&mut self, name: impl FnOnce() -> String) -> Action {
        let Some(profiler) = self.profiler.as_deref_mut() else { return Action(None) };
        let name = name();
        profiler.start(&name);
        Action(Some(name))
    }

    /// The action ends.
    pub(crate) fn end_action(&mut self, action: Action) {
        if let (Some(profiler), Some(name)) = (self.profiler.as_deref_mut(), action.0) {
            profiler.stop(&name);
        }
    }

    /// A hook of the module begins. Lightning calls the steps through its strategy, and they are named after it.
    pub(crate) fn begin_module_hook(&mut self, hook: Hook, module: &str) -> Action {
        match hook {
            Hook::TrainingStep | Hook::ValidationStep | Hook::TestStep | Hook::PredictStep => {
                self.begin_strategy_action(hook.name())
            }
            // A part of the strategy's action of this name.
            Hook::Backward => Action(None),
            _ => self.begin_action(|| format!("[LightningModule]{module}.{hook}")),
        }
    }

    /// An action of the strategy begins.
    pub(crate) fn begin_strategy_action(&mut self, name: &str) -> Action {
        if self.profiler.is_none() {
            return Action(None);
        }
        let strategy = strategy_class(self.fabric.strategy().name());
        self.begin_action(|| format!("[Strategy]{strategy}.{name}"))
    }

    /// The next batch of the stage in hand.
    pub(crate) fn fetch<B: Batch>(
        &mut self,
        batches: &mut Batches<B>,
        action: &'static str,
    ) -> Result<Option<Numbered<B>>, Error> {
        if batches.is_done() {
            return Ok(None);
        }
        if let Some(profiler) = self.profiler.as_deref_mut() {
            let length = if self.stage == crate::Stage::Train { self.num_training_batches } else { batches.limit() };
            profiler.batch_start(self.stage, length).map_err(failed("at the start of a batch"))?;
        }
        let action = self.begin_action(|| action.to_owned());
        let next = batches.next();
        self.end_action(action);
        let stage = self.stage.describe();
        if let Some(surprise) = batches.surprise() {
            self.warn_of_length(surprise);
        }
        next.map_err(|source| Error::Data { stage, batch_idx: batches.next_idx(), source })
    }

    /// The batch in hand is done.
    pub(crate) fn profile_batch_end(&mut self) -> Result<(), Error> {
        let Some(profiler) = self.profiler.as_deref_mut() else { return Ok(()) };
        profiler.batch_end(self.stage).map_err(failed("at the end of a batch"))
    }

    /// An entry point begins.
    pub(crate) fn start_profiler(&mut self) -> Result<(), Error> {
        if self.profiler.is_none() {
            return Ok(());
        }
        let ranks = self.fabric.ranks();
        let rank = (ranks.world_size > 1).then_some(ranks.local);
        let run = ProfiledRun { entry_point: self.entry, log_dir: self.log_dir(), rank, device: self.device() };
        match self.profiler.as_deref_mut() {
            Some(profiler) => profiler.setup(&run).map_err(failed("in set-up")),
            None => Ok(()),
        }
    }

    /// The entry point ended, somehow: the report goes to its file, or to the console.
    pub(crate) fn report_profile(&mut self) -> Result<(), Error> {
        let Some(profiler) = self.profiler.as_deref_mut() else { return Ok(()) };
        let report = profiler.summary().map_err(failed("in its summary"))?;
        let path = profiler.report_path();
        match path {
            _ if report.is_empty() => {}
            Some(path) => append_report(&path, &report).map_err(failed("with its report"))?,
            None => self.print(&report),
        }
        Ok(())
    }

    /// Nothing is measured any more.
    pub(crate) fn stop_profiler(&mut self) -> Result<(), Error> {
        self.profiler.as_deref_mut().map_or(Ok(()), |profiler| profiler.teardown().map_err(failed("in teardown")))
    }

    /// The profiler, if it is of this type.
    pub fn profiler<P: Profiler>(&self) -> Option<&P> {
        (self.profiler.as_deref()? as &dyn std::any::Any).downcast_ref()
    }
}

impl Step<'_> {
    /// Runs `work` as an action of this name, which the profiler measures. Without a profiler it just runs.
    ///
    /// ```
    /// # use fulgurite::prelude::*;
    /// # fn demo(step: &mut Step, x: &Tensor, encoder: &nn::Sequential) -> Tensor {
    /// step.profile("encode", |step| {
    ///     let z = x.apply(encoder);
    ///     step.log("z_norm", z.norm());
    ///     z
    /// })
    /// # }
    /// ```
    pub fn profile<T>(&mut self, name: &str, work: impl FnOnce(&mut Step) -> T) -> T {
        let action = self.0.state.begin_action(|| name.to_owned());
        let returned = work(&mut Step(&mut *self.0));
        self.0.state.end_action(action);
        returned
    }
}

fn failed(doing: &'static str) -> impl FnOnce(BoxError) -> Error {
    move |source| match source.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(source) => Error::Profiler { doing, source },
    }
}

/// Lightning's class of a strategy: `SingleDeviceStrategy` of `single_device`, `DDPStrategy` of `ddp`.
fn strategy_class(name: &str) -> String {
    let word = |word: &str| match word {
        "ddp" | "fsdp" | "xla" => word.to_uppercase(),
        word => word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect(),
    };
    name.split('_').map(word).chain(["Strategy".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn strategies_have_lightnings_classes() {
        let classes = ["single_device", "ddp", "fsdp"].map(super::strategy_class);
        assert_eq!(classes, ["SingleDeviceStrategy", "DDPStrategy", "FSDPStrategy"]);
    }
}
