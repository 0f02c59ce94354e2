//! Validation of the optimizers that `configure_optimizers` returned.

use std::collections::HashSet;

use fulgurite_optim::{Interval, Optimizer, Optimizers};
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tensor_id;

use crate::engine::OptimizerFactory;
use crate::error::Error;
use crate::hook::Hook;
use crate::loops::Run;
use crate::module::LightningModule;
use crate::scope::Scope;
use crate::state::Configured;

impl<M: LightningModule> Run<'_, '_, M> {
    /// Requests optimizers from the factory, or the module; a second time if they needed the length of the run first.
    pub(crate) fn configure_optimizers(&mut self) -> Result<(), Error> {
        let configured = match self.engine.optimizer_factory.take() {
            Some(factory) => {
                self.lend(factory, |run, factory| run.engine.optimizer_factory = Some(factory), Self::configure_by)?
            }
            None => self.configure_by_module()?,
        };
        self.take_optimizers(configured)
    }

    fn configure_by_module(&mut self) -> Result<Optimizers, Error> {
        let mut configured = self.module_hook(Hook::ConfigureOptimizers, |m, t| m.configure_optimizers(t));
        if self.state().training_data.take_wanted() {
            self.setup_train_data()?;
            configured = self.module_hook(Hook::ConfigureOptimizers, |m, t| m.configure_optimizers(t));
        }
        configured.map_err(|error| match error.not_implemented() {
            Some(method) => Error::MissingMethod { entry: "fit", method, module: self.module.name().to_owned() },
            None => error,
        })
    }

    /// The module's method is called too, to warn if it returns optimizers, which are not used.
    fn configure_by(&mut self, factory: &mut OptimizerFactory) -> Result<Optimizers, Error> {
        let own = self.module_hook(Hook::ConfigureOptimizers, |m, t| m.configure_optimizers(t));
        self.state().training_data.take_wanted();
        if own.as_ref().err().and_then(Error::not_implemented).is_none() {
            self.engine.state.warn(&format!(
                "{}::configure_optimizers is overridden by the optimizer that the trainer was given",
                self.module.name()
            ));
        }
        let configured = factory(self.module.vars(), &self.engine.state);
        if !self.state().training_data.take_wanted() {
            return configured;
        }
        self.setup_train_data()?;
        factory(self.module.vars(), &self.engine.state)
    }

    fn take_optimizers(&mut self, configured: Optimizers) -> Result<(), Error> {
        let frequencies = configured.frequencies().to_vec();
        let (optimizers, schedulers) = configured.build()?;
        check_parameters(&optimizers, self.module.vars(), self.module.name())?;
        let state = &mut self.engine.state;
        for optimizer in &optimizers {
            state.fabric.precision().check_optimizer(optimizer.as_ref())?;
            state.fabric.strategy().check_optimizer(optimizer.as_ref())?;
        }
        let is_manual = !LightningModule::automatic_optimization(self.module);
        let frequencies = if is_manual {
            check_manual(&state.config)?;
            Vec::new()
        } else {
            turns(&frequencies)?
        };
        if optimizers.is_empty() {
            state.warn("configure_optimizers returned no optimizer: training_step runs and nothing is updated");
        }
        if schedulers.iter().any(|s| s.scheduler.name() == "OneCycleLR" && s.interval == Interval::Epoch) {
            state.warn("a OneCycleLR is stepped once per epoch, and its length is counted in optimizer steps; set its interval to `Interval::Step`");
        }
        state.fit.epoch.optimization.install(Configured { optimizers, schedulers, frequencies, is_manual });
        Ok(())
    }
}

/// Every parameter of an optimizer must be one of the module's, or its weights would be in no checkpoint and on no device.
fn check_parameters(optimizers: &[Box<dyn Optimizer>], vars: &dyn Parameters, module: &str) -> Result<(), Error> {
    let own: HashSet<usize> = vars.named_tensors().iter().map(|named| tensor_id(&named.tensor)).collect();
    for optimizer in optimizers {
        for (index, group) in optimizer.param_groups().iter().enumerate() {
            if let Some(foreign) = group.params.iter().find(|p| !own.contains(&tensor_id(p))) {
                return Err(Error::Config(format!(
                    "{} was given a parameter of shape {:?} (group {index}) that is not among the parameters that `{module}::vars` returns, so it would be in no checkpoint; create its layer from that `VarStore`, or list it there",
                    optimizer.name(),
                    foreign.size()
                )));
            }
        }
    }
    Ok(())
}

/// The number of consecutive steps of each of several optimizers.
fn turns(frequencies: &[Option<u64>]) -> Result<Vec<u64>, Error> {
    match frequencies {
        [] | [_] => Ok(Vec::new()),
        several if several.contains(&Some(0)) => Err(Error::Config(
            "an optimizer with a frequency of 0 would never step; write 1 or more, or leave the optimizer out"
                .into(),
        )),
        several => several.iter().copied().collect::<Option<Vec<u64>>>().ok_or_else(|| {
            Error::Config(format!(
                "configure_optimizers returned {} optimizers, and one step updates one; let them take turns with `Optimizers::frequency`, step them yourself with `automatic_optimization` false, or put the parameters into groups of one optimizer",
                several.len()
            ))
        }),
    }
}

/// Arguments that do not apply to manual optimization.
fn check_manual(config: &crate::TrainerConfig) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::Config(message));
    if let Some(value) = config.gradient_clip_val.filter(|value| *value > 0.0) {
        return wrong(format!(
            "gradient_clip_val={value}, and the module steps its optimizers itself; call `step.clip_gradients` in training_step instead"
        ));
    }
    if config.accumulate_grad_batches != 1 {
        return wrong(format!(
            "accumulate_grad_batches={}, and the module steps its optimizers itself; call `step.optimizer_step` in training_step every so many batches instead",
            config.accumulate_grad_batches
        ));
    }
    Ok(())
}
