//! [`Engine`]: the trainer's state and callbacks, and how hooks are called on them and on the module.

use fulgurite_data::Batch;
use fulgurite_fabric::Pass;

use crate::callbacks::Callback;
use crate::error::{BoxError, Error, Result};
use crate::hook::Hook;
use crate::module::{LightningModule, ModuleView};
use crate::state::{Owner, Stage, TrainerState};
use crate::step::Step;

/// The trainer's state and callbacks.
pub(crate) struct Engine {
    pub state: TrainerState,
    pub callbacks: Vec<Box<dyn Callback>>,
}

impl Engine {
    /// Calls a hook on the callbacks that `which` selects, in order.
    pub(crate) fn on_some_callbacks(
        &mut self,
        hook: Hook,
        module: &mut dyn ModuleView,
        which: impl Fn(&dyn Callback) -> bool,
        mut call: impl FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()>,
    ) -> Result<(), Error> {
        for index in 0..self.callbacks.len() {
            if which(self.callbacks[index].as_ref()) {
                self.on_callback(index, hook, module, &mut call)?;
            }
        }
        Ok(())
    }

    /// Calls a hook on one callback.
    pub(crate) fn on_callback(
        &mut self,
        index: usize,
        hook: Hook,
        module: &mut dyn ModuleView,
        call: impl FnOnce(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()>,
    ) -> Result<(), Error> {
        let Engine { state, callbacks } = self;
        let callback = callbacks[index].as_mut();
        let action = state.begin_action(|| format!("[Callback]{}.{hook}", callback.state_key()));
        state.enter(hook, Owner::Callback(index));
        let returned = call(callback, state, module);
        let returned = state.leave(returned).map_err(|error| hook_error(state, hook, callback.state_key(), error));
        state.end_action(action);
        returned
    }

    /// Calls a hook on every callback, in order.
    pub(crate) fn on_callbacks(
        &mut self,
        hook: Hook,
        module: &mut dyn ModuleView,
        call: impl FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()>,
    ) -> Result<(), Error> {
        self.on_some_callbacks(hook, module, |_| true, call)
    }

    /// Calls a hook on the module.
    pub(crate) fn on_module<M: LightningModule, T>(
        &mut self,
        hook: Hook,
        module: &mut M,
        call: impl FnOnce(&mut M, &mut TrainerState) -> Result<T>,
    ) -> Result<T, Error> {
        self.in_module(hook, module, |module, engine| call(module, &mut engine.state))
    }

    /// Calls a step of the module, in what the precision surrounds it with.
    pub(crate) fn on_step<M: LightningModule, T>(
        &mut self,
        hook: Hook,
        module: &mut M,
        call: impl FnOnce(&mut M, &mut Step) -> Result<T>,
    ) -> Result<T, Error> {
        let pass = if self.state.stage == Stage::Train { Pass::Training } else { Pass::Evaluation };
        let _context = self.state.fabric.forward_context(pass)?;
        self.in_module(hook, module, |module, engine| call(module, &mut Step(engine)))
    }

    fn in_module<M: LightningModule, T>(
        &mut self,
        hook: Hook,
        module: &mut M,
        call: impl FnOnce(&mut M, &mut Engine) -> Result<T>,
    ) -> Result<T, Error> {
        let action = self.state.begin_module_hook(hook, module.name());
        self.state.enter(hook, Owner::Module);
        let returned = call(module, self);
        let state = &mut self.state;
        let returned = state.leave(returned).map_err(|error| hook_error(state, hook, module.name().to_owned(), error));
        state.end_action(action);
        returned
    }

    /// Calls a hook on every callback, then on the module.
    pub(crate) fn on_all<M: LightningModule, T>(
        &mut self,
        hook: Hook,
        module: &mut M,
        on_callback: impl FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()>,
        on_module: impl FnOnce(&mut M, &mut TrainerState) -> Result<T>,
    ) -> Result<T, Error> {
        self.on_callbacks(hook, module, on_callback)?;
        self.on_module(hook, module, on_module)
    }

    /// The batch in the precision's kind, on the device, through the transfer hooks.
    pub(crate) fn transfer<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: M::Batch,
        dataloader_idx: usize,
    ) -> Result<M::Batch, Error> {
        let action = self.state.begin_strategy_action("batch_to_device");
        let batch = self.transfer_hooks(module, batch, dataloader_idx);
        self.state.end_action(action);
        batch
    }

    fn transfer_hooks<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: M::Batch,
        dataloader_idx: usize,
    ) -> Result<M::Batch, Error> {
        let device = self.state.device();
        let batch = self.state.fabric.convert_input(batch);
        let batch = self
            .on_module(Hook::OnBeforeBatchTransfer, module, |m, _| m.on_before_batch_transfer(batch, dataloader_idx))?;
        let batch = self.on_module(Hook::TransferBatchToDevice, module, |m, _| {
            m.transfer_batch_to_device(batch, device, dataloader_idx)
        })?;
        self.on_module(Hook::OnAfterBatchTransfer, module, |m, _| m.on_after_batch_transfer(batch, dataloader_idx))
    }

    /// What a panic in a hook becomes: the hook and its owner are those entered last.
    pub(crate) fn panic_error(&self, module: &str, payload: &(dyn std::any::Any + Send)) -> Error {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let message = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned();
        let owner = match self.state.owner {
            Owner::Callback(index) => self.callbacks.get(index).map(|callback| callback.state_key()),
            Owner::Module => Some(module.to_owned()),
            Owner::DataModule => Some("LightningDataModule".to_owned()),
            Owner::Trainer => Some("Trainer".to_owned()),
        };
        let epoch = self.state.epoch_for_errors();
        let batch_idx = self.state.batch_idx;
        Error::Panic { owner: owner.unwrap_or_default(), hook: self.state.hook, epoch, batch_idx, message }
    }

    /// A batch begins: what is logged now belongs to it.
    pub(crate) fn start_batch<B: Batch>(&mut self, batch: &B, batch_idx: usize, dataloader_idx: Option<usize>) {
        let state = &mut self.state;
        state.batch_idx = Some(batch_idx);
        state.dataloader_idx = dataloader_idx.unwrap_or(0);
        state.metrics.in_batch = true;
        let store = if state.metrics.evaluating { &mut state.metrics.eval } else { &mut state.metrics.train };
        store.start_batch();
        store.batch_size = batch.size();
        store.dataloader_idx = dataloader_idx;
    }
}

impl TrainerState {
    /// Notes which hook runs, and whose: what is logged, and what fails, is attributed to it.
    pub(crate) fn enter(&mut self, hook: Hook, owner: Owner) {
        self.hook = hook;
        self.owner = owner;
    }

    /// What a hook returned, or else what was wrong with a `log` call in it.
    pub(crate) fn leave<T>(&mut self, returned: Result<T>) -> Result<T> {
        self.owner = Owner::Trainer;
        let returned = returned?;
        self.metrics.take_error()?;
        Ok(returned)
    }

    /// The error of a module's hook.
    pub(crate) fn module_error(&self, hook: Hook, module: &str, error: BoxError) -> Error {
        hook_error(self, hook, module.to_owned(), error)
    }

    pub(crate) fn epoch_for_errors(&self) -> Option<u64> {
        (self.entry == crate::TrainerFn::Fit).then(|| self.current_epoch())
    }
}

/// The error of a hook. What is already one of ours, such as a missing monitor, says enough by itself.
fn hook_error(state: &TrainerState, hook: Hook, owner: String, error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(source) => Error::Hook { owner, hook, epoch: state.epoch_for_errors(), batch_idx: state.batch_idx, source },
    }
}
