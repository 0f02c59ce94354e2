//! [`Step`]: the argument of a module's steps.

use fulgurite_metrics::LogValue;
use fulgurite_torch::Value;
use fulgurite_torch::tch::Device;

use crate::engine::Engine;
use crate::logging::{LogEntries, LogEntry, LogValues};
use crate::scope::Scope;
use crate::stage::Stage;
use crate::state::TrainerState;

/// The argument of a module's steps: the position in the run, and `log`.
pub struct Step<'a>(pub(crate) &'a mut Engine);

impl Step<'_> {
    /// Records a value under `name`. Options follow, and it is recorded at the end of the statement:
    /// `step.log("val_acc", accuracy).prog_bar();`
    ///
    /// In training the value of the step is recorded, in evaluation the mean of the epoch; change it with
    /// [`on_step`](LogEntry::on_step), [`on_epoch`](LogEntry::on_epoch), [`step_only`](LogEntry::step_only) and
    /// [`epoch_only`](LogEntry::epoch_only). Tensors stay on the device until they are written.
    pub fn log<'b>(&'b mut self, name: &'b str, value: impl Into<LogValue<'b>>) -> LogEntry<'b> {
        self.0.state.log(name, value)
    }

    /// Records several values with the same options: an iterator of pairs, or a tuple of pairs with numbers, tensors and metrics
    /// mixed.
    ///
    /// ```
    /// # use fulgurite::prelude::*;
    /// # use fulgurite::metrics::MeanMetric;
    /// # fn demo(loss: &Tensor, penalty: f64, accuracy: &MeanMetric, losses: &[Tensor], step: &mut Step) {
    /// step.log_many((("loss", loss), ("penalty", penalty), ("accuracy", accuracy))).on_epoch();
    /// step.log_many(["first", "second"].into_iter().zip(losses)).prog_bar();
    /// # }
    /// ```
    pub fn log_many<'b, K>(&'b mut self, values: impl LogValues<'b, K>) -> LogEntries<'b> {
        self.0.state.log_many(values)
    }

    /// Sets the `outputs` of `on_validation_batch_end` and `on_test_batch_end` of the callbacks and the module: the
    /// return value of the step in Lightning. Training uses its [`Loss`](crate::Loss) for that, and prediction its
    /// predictions.
    ///
    /// ```
    /// # use fulgurite::prelude::*;
    /// # fn demo(step: &mut Step, logits: &Tensor) {
    /// step.set_outputs(Dict::new().with("predicted", logits.argmax(-1, false)));
    /// # }
    /// ```
    pub fn set_outputs(&mut self, outputs: impl Into<Value>) {
        if !self.is_training() {
            self.0.state.evaluation_mut().set_outputs(outputs.into());
        }
    }

    /// The batch of the epoch, 0-based.
    pub fn batch_idx(&self) -> usize {
        self.0.state.batch_idx().unwrap_or(0)
    }

    /// The index of the loader, 0-based.
    pub fn dataloader_idx(&self) -> usize {
        self.0.state.position.dataloader_idx()
    }

    /// The epoch, 0-based.
    pub fn current_epoch(&self) -> u64 {
        self.0.state.current_epoch()
    }

    /// Optimizer steps taken.
    pub fn global_step(&self) -> u64 {
        self.0.state.global_step()
    }

    /// Whether this is training: the `train` argument of `forward_t`.
    pub fn is_training(&self) -> bool {
        self.0.state.stage() == Stage::Train
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        self.0.state.stage()
    }

    /// The device of the batch.
    pub fn device(&self) -> Device {
        self.0.state.device()
    }

    /// Prints a line above the progress bar, on rank zero.
    pub fn print(&mut self, line: &str) {
        self.0.state.print(line);
    }

    /// The trainer's state.
    pub fn trainer(&mut self) -> &mut TrainerState {
        &mut self.0.state
    }

    /// Runs `work` as an action of this name, which the profiler measures. Without a profiler it just runs.
    ///
    /// ```
    /// # use fulgurite::prelude::*;
    /// # fn demo(step: &mut Step, x: &Tensor, encoder: &nn::Sequential) -> Tensor {
    /// step.profile("encode", |step| {
    ///     let z = encoder.forward(x);
    ///     step.log("z_norm", z.norm());
    ///     z
    /// })
    /// # }
    /// ```
    pub fn profile<T>(&mut self, name: &str, work: impl FnOnce(&mut Step) -> T) -> T {
        self.0.profiled(|_| name.to_owned(), |engine| work(&mut Step(engine)))
    }
}
