//! [`Scope`]: runs a hook or other work, and restores the trainer's state afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fulgurite_fabric::strategy::Strategy;
use fulgurite_optim::Optimizer;
use fulgurite_torch::{catch_panic, readable_error};

use crate::error::{BoxError, Error, Result};
use crate::hook::Hook;
use crate::profilers::Action;
use crate::record::Activity;
use crate::stage::Stage;
use crate::state::{Caller, Owner, TrainerState};

/// Types that hold the trainer's state. Each method runs `work`, and restores what it changed, also after an error or
/// panic.
pub(crate) trait Scope: Sized {
    /// The trainer's state.
    fn state(&mut self) -> &mut TrainerState;

    /// Calls a hook of `subject`: it is profiled, logged values are attributed to it, errors name it, and a panic
    /// becomes an error. What does not depend on types is compiled once, not for each hook of each module.
    fn call<S: ?Sized, T>(
        &mut self,
        hook: Hook,
        owner: Owner,
        subject: &mut S,
        name: impl Fn(&S) -> String,
        work: impl FnOnce(&mut Self, &mut S) -> Result<T>,
    ) -> Result<T, Error> {
        let call = self.state().begin_call(hook, owner, &|| name(subject));
        let returned = catch_panic(|| work(self, subject));
        let (state, name) = (self.state(), || name(subject));
        match returned {
            Ok(Ok(returned)) => state.end_call(call).map(|()| returned),
            Ok(Err(error)) => Err(state.fail_call(call, &name, Failure::Error(error))),
            Err(message) => Err(state.fail_call(call, &name, Failure::Panic(message))),
        }
    }

    /// Runs `work` as an action that the profiler measures.
    fn profiled<T>(&mut self, name: impl FnOnce(&TrainerState) -> String, work: impl FnOnce(&mut Self) -> T) -> T {
        let state = self.state();
        let action = if state.profiling.is_on() { Some(name(state)) } else { None };
        let action = state.profiling.start(action);
        let returned = catch_unwind(AssertUnwindSafe(|| work(self)));
        self.state().profiling.stop(action);
        returned.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs `work` as an action of the strategy.
    fn profiled_strategy<T>(&mut self, action: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        self.profiled(|state| strategy_action(state.fabric.strategy(), action), work)
    }

    /// Runs `work`, on which time is spent as the record of the run says. A panic ends the entry point.
    fn spending<T>(&mut self, activity: Activity, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.state().spend_on(activity);
        let returned = work(self);
        self.state().spend_on(before);
        returned
    }

    /// Runs `work` in another stage.
    fn in_stage<T>(&mut self, stage: Stage, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.state().position.enter_stage(stage);
        self.lend(before, |this, before| _ = this.state().position.enter_stage(before), |this, _| work(this))
    }

    /// Runs `work` with a part that was taken out of the trainer, and puts it back even after a panic: a checkpoint may still
    /// be written on the way out.
    fn lend<P, T>(
        &mut self,
        mut part: P,
        put_back: impl FnOnce(&mut Self, P),
        work: impl FnOnce(&mut Self, &mut P) -> T,
    ) -> T {
        let returned = catch_unwind(AssertUnwindSafe(|| work(self, &mut part)));
        put_back(self, part);
        returned.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs `work` with an optimizer, which is taken out meanwhile.
    fn lend_optimizer<T>(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut Self, &mut dyn Optimizer) -> T,
    ) -> Result<T, Error> {
        let optimizer = self.state().fit.epoch.optimization.take_optimizer(index)?;
        let put_back = |this: &mut Self, optimizer| this.state().fit.epoch.optimization.put_optimizer(index, optimizer);
        Ok(self.lend(optimizer, put_back, |this, optimizer| work(this, optimizer.as_mut())))
    }
}

impl Scope for TrainerState {
    fn state(&mut self) -> &mut TrainerState {
        self
    }
}

/// A hook that is being called.
struct Call {
    hook: Hook,
    owner: Owner,
    action: Action,
    /// What called it.
    outer: Caller,
}

/// How a hook ended that returned no value.
enum Failure {
    Error(BoxError),
    Panic(String),
}

impl TrainerState {
    fn begin_call(&mut self, hook: Hook, owner: Owner, name: &dyn Fn() -> String) -> Call {
        let strategy = self.fabric.strategy();
        let action = self.profiling.is_on().then(|| action_of(hook, owner, &name(), strategy));
        let action = self.profiling.start(action);
        Call { hook, owner, action, outer: self.caller.enter(hook, owner) }
    }

    /// Ends a call, whose error is that of a value which it logged.
    fn end_call(&mut self, call: Call) -> Result<(), Error> {
        let logged = self.metrics.take_error();
        self.caller.leave(call.outer);
        self.profiling.stop(call.action);
        logged
    }

    fn fail_call(&mut self, call: Call, name: &dyn Fn() -> String, failure: Failure) -> Error {
        let error = match failure {
            Failure::Error(error) => self.hook_error(call.hook, call.owner, name, error),
            Failure::Panic(message) => self.panic_error(call.hook, name(), message),
        };
        // The hook's own error comes first.
        let _of_a_logged_value = self.end_call(call);
        error
    }

    /// Wraps the error of a hook. Errors of this crate, such as a missing monitor, are returned unchanged.
    pub(crate) fn hook_error(&self, hook: Hook, owner: Owner, name: &dyn Fn() -> String, error: BoxError) -> Error {
        let source = match error.downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(source) => readable_error(source),
        };
        let is_of_data = owner == Owner::DataModule;
        let epoch = self.epoch_for_errors().filter(|_| !is_of_data);
        let batch_idx = self.batch_idx().filter(|_| !is_of_data);
        Error::Hook { owner: name(), hook, epoch, batch_idx, source }
    }

    /// The error for a panic in a hook.
    pub(crate) fn panic_error(&self, hook: Hook, owner: String, message: String) -> Error {
        Error::Panic { owner, hook, epoch: self.epoch_for_errors(), batch_idx: self.batch_idx(), message }
    }

    fn epoch_for_errors(&self) -> Option<u64> {
        self.position.is_fit().then(|| self.current_epoch())
    }
}

/// Lightning's name of a hook in a profile. It calls the steps through its strategy, and they are named after it; the empty
/// name is of a part of another action.
fn action_of(hook: Hook, owner: Owner, name: &str, strategy: &dyn Strategy) -> String {
    match (owner, hook) {
        (Owner::Module, Hook::TrainingStep | Hook::ValidationStep | Hook::TestStep | Hook::PredictStep) => {
            strategy_action(strategy, hook.name())
        }
        (Owner::Module, Hook::Backward) => String::new(),
        (Owner::Module, _) => format!("[LightningModule]{name}.{hook}"),
        (Owner::DataModule, _) => format!("[LightningDataModule]{name}.{hook}"),
        (Owner::Callback(_), _) => format!("[Callback]{name}.{hook}"),
        (Owner::Trainer, _) => hook.name().to_owned(),
    }
}

/// An action of a strategy.
fn strategy_action(strategy: &dyn Strategy, action: &str) -> String {
    format!("[Strategy]{}.{action}", strategy.class_name())
}
