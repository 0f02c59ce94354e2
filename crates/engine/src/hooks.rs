//! Calling hooks on callbacks, on the module and on the data module.

use fulgurite_data::Batch;
use fulgurite_fabric::Pass;
use fulgurite_torch::{Dict, catch_panic};

use crate::callback::Callback;
use crate::data_module::{LightningDataModule, Source};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::Hook;
use crate::module::LightningModule;
use crate::module_view::ModuleView;
use crate::scope::Scope;
use crate::stage::Stage;
use crate::state::{Owner, TrainerState};
use crate::step::Step;

/// A call of a hook of a callback. It is behind a pointer so that what is around it is compiled once.
pub(crate) type CallbackHook<'a> =
    dyn FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()> + 'a;

impl Engine {
    /// Calls a hook on one callback.
    pub(crate) fn on_callback(
        &mut self,
        index: usize,
        hook: Hook,
        module: &mut dyn ModuleView,
        call: &mut CallbackHook<'_>,
    ) -> Result<(), Error> {
        let Engine { state, callbacks, .. } = self;
        let Some(callback) = callbacks.get_mut(index) else { return Ok(()) };
        let name = |callback: &dyn Callback| callback.state_key();
        state.call(hook, Owner::Callback(index), callback.as_mut(), name, |state, callback| {
            call(callback, state, module)
        })
    }

    /// Calls a hook on the callbacks that `which` selects, in order.
    pub(crate) fn on_some_callbacks(
        &mut self,
        hook: Hook,
        module: &mut dyn ModuleView,
        which: &dyn Fn(&dyn Callback) -> bool,
        call: &mut CallbackHook<'_>,
    ) -> Result<(), Error> {
        for index in 0..self.callbacks.len() {
            if which(self.callbacks[index].as_ref()) {
                self.on_callback(index, hook, module, call)?;
            }
        }
        Ok(())
    }

    /// Calls a hook on every callback, in order.
    pub(crate) fn on_callbacks(
        &mut self,
        hook: Hook,
        module: &mut dyn ModuleView,
        call: &mut CallbackHook<'_>,
    ) -> Result<(), Error> {
        self.on_some_callbacks(hook, module, &|_| true, call)
    }

    /// Calls a hook on the module.
    pub(crate) fn on_module<M: LightningModule, T>(
        &mut self,
        hook: Hook,
        module: &mut M,
        call: impl FnOnce(&mut M, &mut TrainerState) -> Result<T>,
    ) -> Result<T, Error> {
        self.in_module(hook, module, |engine, module| call(module, &mut engine.state))
    }

    /// Calls a step of the module within the contexts of strategy and precision.
    pub(crate) fn on_step<M: LightningModule, T>(
        &mut self,
        hook: Hook,
        module: &mut M,
        call: impl FnOnce(&mut M, &mut Step) -> Result<T>,
    ) -> Result<T, Error> {
        let pass = if self.state.stage() == Stage::Train { Pass::Training } else { Pass::Evaluation };
        let _context = self.state.fabric.forward_context(pass)?;
        self.in_module(hook, module, |engine, module| call(module, &mut Step(engine)))
    }

    /// Calls a method of the module that needs more than the trainer's state.
    pub(crate) fn in_module<M: LightningModule, T>(
        &mut self,
        hook: Hook,
        module: &mut M,
        call: impl FnOnce(&mut Engine, &mut M) -> Result<T>,
    ) -> Result<T, Error> {
        let (mut call, mut returned) = (Some(call), None);
        self.call_module(hook, module, &mut |engine, module| {
            returned = call.take().map(|call| call(engine, module)).transpose()?;
            Ok(())
        })?;
        returned.ok_or_else(|| Error::Config(format!("{hook} was not called")))
    }

    /// [`in_module`](Engine::in_module), compiled once for each type of modules.
    fn call_module<M: LightningModule>(
        &mut self,
        hook: Hook,
        module: &mut M,
        call: &mut dyn FnMut(&mut Engine, &mut M) -> Result<()>,
    ) -> Result<(), Error> {
        let returned = self.call(hook, Owner::Module, module, |module| LightningModule::name(module).to_owned(), call);
        returned.map_err(|error| error.with_parameter(module.vars()))
    }

    /// Calls a hook on every callback, then on the module.
    pub(crate) fn on_all<M: LightningModule, T>(
        &mut self,
        hook: Hook,
        module: &mut M,
        mut on_callback: impl FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()>,
        on_module: impl FnOnce(&mut M, &mut TrainerState) -> Result<T>,
    ) -> Result<T, Error> {
        self.on_callbacks(hook, module, &mut on_callback)?;
        self.on_module(hook, module, on_module)
    }

    /// Calls a method of the data module as a hook.
    pub(crate) fn on_data_module<'d, B: Batch, T>(
        &mut self,
        hook: Hook,
        data: &mut (dyn LightningDataModule<Batch = B> + 'd),
        call: impl FnOnce(&mut (dyn LightningDataModule<Batch = B> + 'd), &mut TrainerState) -> Result<T>,
    ) -> Result<T, Error> {
        let name = |data: &(dyn LightningDataModule<Batch = B> + 'd)| data.name().to_owned();
        self.call(hook, Owner::DataModule, data, name, |engine, data| call(data, &mut engine.state))
    }

    /// Moves a batch to the device, with the module's hooks around it.
    pub(crate) fn transfer<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: M::Batch,
        dataloader_idx: usize,
    ) -> Result<M::Batch, Error> {
        self.profiled_strategy("batch_to_device", |engine| engine.transfer_hooks(module, batch, dataloader_idx))
    }

    fn transfer_hooks<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: M::Batch,
        dataloader_idx: usize,
    ) -> Result<M::Batch, Error> {
        let device = self.state.device();
        let batch = self.state.fabric.convert_input(batch);
        let batch = self.on_module(Hook::OnBeforeBatchTransfer, module, |m, t| {
            m.on_before_batch_transfer(t, batch, dataloader_idx)
        })?;
        let batch = self.on_module(Hook::TransferBatchToDevice, module, |m, t| {
            m.transfer_batch_to_device(t, batch, device, dataloader_idx)
        })?;
        self.on_module(Hook::OnAfterBatchTransfer, module, |m, t| m.on_after_batch_transfer(t, batch, dataloader_idx))
    }
}

impl TrainerState {
    /// The state of a callback. Lightning's profilers do not measure it.
    pub(crate) fn state_of(&self, index: usize, callback: &dyn Callback) -> Result<Dict, Error> {
        let name = || callback.state_key();
        match catch_panic(|| callback.state_dict()) {
            Ok(state) => state.map_err(|e| self.hook_error(Hook::StateDict, Owner::Callback(index), &name, e)),
            Err(message) => Err(self.panic_error(Hook::StateDict, name(), message)),
        }
    }

    /// The states of the callbacks that have one, by their keys.
    pub(crate) fn states_of(&self, callbacks: &[Box<dyn Callback>]) -> Result<Dict, Error> {
        let mut states = Dict::new();
        for (index, callback) in callbacks.iter().enumerate() {
            let state = self.state_of(index, callback.as_ref())?;
            if !state.is_empty() {
                states.set(callback.state_key(), state);
            }
        }
        Ok(states)
    }

    /// The module's hyper-parameters.
    pub(crate) fn hparams_of(&self, module: &dyn ModuleView) -> Result<Dict, Error> {
        let name = || module.name().to_owned();
        module.hparams().map_err(|error| self.hook_error(Hook::Hparams, Owner::Module, &name, error))
    }

    /// The hyper-parameters of the data module, if there is one.
    pub(crate) fn hparams_of_data<B: Batch>(&self, data: &Source<'_, B>) -> Result<Dict, Error> {
        let Source::DataModule(data) = data else { return Ok(Dict::new()) };
        let name = || data.name().to_owned();
        data.hparams().map_err(|error| self.hook_error(Hook::Hparams, Owner::DataModule, &name, error))
    }
}
