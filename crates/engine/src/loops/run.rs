//! [`Run`]: an entry point in progress, with engine, module and data.

use fulgurite_data::BoxLoader;

use crate::callback::Callback;
use crate::data_module::{LightningDataModule, Source};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::Hook;
use crate::hooks::CallbackHook;
use crate::module::LightningModule;
use crate::module_view::ModuleView;
use crate::scope::Scope;
use crate::state::{Snapshot, TrainerState};

/// One entry point in progress.
pub(crate) struct Run<'a, 'd, M: LightningModule> {
    pub engine: &'a mut Engine,
    pub module: &'a mut M,
    pub data: Source<'d, M::Batch>,
    pub train_loader: Option<BoxLoader<M::Batch>>,
    pub eval: Option<EvalLoaders<M::Batch>>,
}

/// The loaders of an evaluation, and the limit of each.
pub(crate) struct EvalLoaders<B> {
    pub loaders: Vec<BoxLoader<B>>,
    pub limits: Vec<Option<usize>>,
    /// The number of batches of each that every process is sure to have.
    pub in_common: Vec<usize>,
    /// The epoch in which they were requested.
    pub epoch: u64,
}

impl<M: LightningModule> Scope for Run<'_, '_, M> {
    fn state(&mut self) -> &mut TrainerState {
        &mut self.engine.state
    }
}

impl<'a, 'd, M: LightningModule> Run<'a, 'd, M> {
    pub(crate) fn new(engine: &'a mut Engine, module: &'a mut M, data: Source<'d, M::Batch>) -> Run<'a, 'd, M> {
        Run { engine, module, data, train_loader: None, eval: None }
    }

    /// Calls a hook on every callback, writes the checkpoints they requested, then calls it on the module.
    pub(crate) fn hook<T>(
        &mut self,
        hook: Hook,
        on_callback: impl FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()>,
        on_module: impl FnOnce(&mut M, &mut TrainerState) -> Result<T>,
    ) -> Result<T, Error> {
        self.callback_hook(hook, on_callback)?;
        let returned = self.module_hook(hook, on_module)?;
        self.serve_save_requests()?;
        Ok(returned)
    }

    /// Calls a hook on every callback, and writes the checkpoints they requested.
    pub(crate) fn callback_hook(
        &mut self,
        hook: Hook,
        mut on_callback: impl FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()>,
    ) -> Result<(), Error> {
        self.call_callbacks(hook, &mut on_callback)
    }

    fn call_callbacks(&mut self, hook: Hook, on_callback: &mut CallbackHook<'_>) -> Result<(), Error> {
        let called = self.engine.on_callbacks(hook, self.module, on_callback);
        // Also after an error: a checkpoint requested before it is one of this moment, not of the end of the run.
        let served = self.serve_save_requests();
        called.and(served)
    }

    /// Calls a hook on the module.
    pub(crate) fn module_hook<T>(
        &mut self,
        hook: Hook,
        on_module: impl FnOnce(&mut M, &mut TrainerState) -> Result<T>,
    ) -> Result<T, Error> {
        self.engine.on_module(hook, self.module, on_module)
    }

    /// Calls a hook on the data module, if there is one.
    pub(crate) fn data_hook(
        &mut self,
        hook: Hook,
        call: impl FnOnce(&mut (dyn LightningDataModule<Batch = M::Batch> + 'd), &mut TrainerState) -> Result<()>,
    ) -> Result<(), Error> {
        let Source::DataModule(data) = &mut self.data else { return Ok(()) };
        self.engine.on_data_module(hook, *data, call)
    }
}

impl TrainerState {
    /// Takes a snapshot of the run, apart from the model.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(Snapshot {
            progress: self.fit.progress(),
            window: self.fit.epoch.optimization.window(),
            evaluated: self.evaluation().evaluated().to_vec(),
            rng: fulgurite_torch::rng::RngState::capture()?,
        })
    }

    /// Restores the run to a snapshot, apart from the model.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        self.fit.set_progress(&snapshot.progress);
        self.fit.epoch.optimization.set_window(snapshot.window);
        self.evaluation_mut().set_evaluated(snapshot.evaluated.clone());
        Ok(snapshot.rng.restore()?)
    }
}
