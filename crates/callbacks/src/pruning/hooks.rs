//! When parameters are pruned, and how they stay so.

use std::any::Any;

use fulgurite_engine::{Callback, Error, Loss, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_optim::Optimizer;

use fulgurite_torch::grad::NoGradGuard;
use fulgurite_torch::tch::{self, Device, Tensor};
use fulgurite_torch::{Dict, Value, params, tensor_id};

use super::method::slice_dim;
use super::parameter::{Mask, Parameter};
use super::resample::resample;
use super::{ModelPruning, ModelPruningOptions, PruningAmount, PruningFn};
use crate::model_checkpoint::python_str;

impl Callback for ModelPruning {
    /// Two instances may prune different parameters.
    fn state_key(&self) -> String {
        let quoted = |names: &[String]| names.iter().map(|name| python_str(name)).collect::<Vec<_>>().join(", ");
        let ModelPruningOptions { parameters_to_prune, parameter_names, .. } = &self.options;
        let (option, names) = match parameters_to_prune.as_slice() {
            [] if *parameter_names == ModelPruningOptions::default().parameter_names => return "ModelPruning".into(),
            [] => ("parameter_names", parameter_names),
            _ => ("parameters_to_prune", parameters_to_prune),
        };
        format!("ModelPruning{{'{option}': [{}]}}", quoted(names))
    }

    fn state_dict(&self) -> Result<Dict> {
        let masks: Dict = self.masks().map(|(name, keep)| (name.into(), keep.into())).collect();
        let originals =
            self.parameters.iter().filter_map(|p| Some((p.name.as_str().into(), p.original.as_ref()?.into())));
        Ok(Dict::new().with("masks", masks).with("original_parameters", originals.collect::<Dict>()))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.restored = Some(state.clone());
        Ok(())
    }

    fn setup(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        self.restored = None;
        self.options.check()?;
        if self.method.is_some() && !self.options.use_global_unstructured {
            return Err(Error::Config(
                "a custom pruning method is given the numbers of all parameters together; leave use_global_unstructured on".into(),
            )
            .into());
        }
        Ok(())
    }

    fn on_fit_start(&mut self, _: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        let chosen = self.choose_parameters(module)?;
        let before = std::mem::replace(&mut self.parameters, chosen);
        for parameter in &mut self.parameters {
            let old = before.iter().find(|old| tensor_id(&old.tensor) == tensor_id(&parameter.tensor));
            if let Some(Mask { keep, .. }) = old.and_then(|old| old.mask.as_ref()) {
                parameter.set_mask(keep.shallow_clone())?;
            }
        }
        let keeps_originals = self.options.use_lottery_ticket_hypothesis || self.lottery_by_epoch.is_some();
        if keeps_originals && !self.options.resample_parameters {
            for parameter in &mut self.parameters {
                parameter.original = Some(parameter.values()?.f_to_device(Device::Cpu)?.copy());
            }
        }
        match self.restored.take() {
            Some(state) => self.restore(&state),
            None => Ok(()),
        }
    }

    fn on_after_backward(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.parameters.iter().try_for_each(Parameter::apply_mask_to_grad)
    }

    fn on_train_batch_end(
        &mut self,
        _: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        self.parameters.iter_mut().try_for_each(Parameter::apply_mask)
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        if self.options.prune_on_train_epoch_end { self.run_pruning(trainer, module) } else { Ok(()) }
    }

    fn on_validation_epoch_end(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        let is_training = trainer.entry_point() == TrainerFn::Fit && !trainer.is_sanity_checking();
        if is_training && !self.options.prune_on_train_epoch_end { self.run_pruning(trainer, module) } else { Ok(()) }
    }

    fn on_train_end(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        for parameter in &mut self.parameters {
            parameter.original = None;
            if self.options.make_pruning_permanent {
                parameter.mask = None;
            }
        }
        Ok(())
    }
}

impl ModelPruning {
    /// The parameters to prune: weights of all layers before biases of all layers, as in Lightning.
    fn choose_parameters(&self, module: &dyn ModuleView) -> Result<Vec<Parameter>, Error> {
        let all = params::named_parameters(module.vars());
        let available = || all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let mut chosen: Vec<&(String, Tensor)> = Vec::new();
        if self.options.parameters_to_prune.is_empty() {
            for last in &self.options.parameter_names {
                chosen.extend(all.iter().filter(|(name, _)| name.rsplit('.').next() == Some(last)));
            }
        }
        for name in &self.options.parameters_to_prune {
            chosen.push(all.iter().find(|(other, _)| other == name).ok_or_else(|| {
                Error::Config(format!(
                    "ModelPruning was given the parameter `{name}`, which {} does not have; write one of {}",
                    module.name(),
                    available()
                ))
            })?);
        }
        chosen.retain(|(name, _)| self.filter.as_ref().is_none_or(|filter| filter(name)));
        if chosen.is_empty() {
            return Err(Error::Config(format!(
                "ModelPruning has nothing to prune: no parameter of {} is selected; name some of {} in parameters_to_prune",
                module.name(),
                available()
            )));
        }
        if self.options.pruning_fn.is_structured() {
            chosen.iter().try_for_each(|(name, tensor)| slice_dim(tensor, &self.options, name).map(drop))?;
        }
        let parameter = |(name, tensor): &(String, Tensor)| Parameter {
            name: name.clone(),
            tensor: tensor.shallow_clone(),
            mask: None,
            original: None,
        };
        Ok(chosen.into_iter().map(parameter).collect())
    }

    /// Takes masks and first values from a checkpoint.
    fn restore(&mut self, state: &Dict) -> Result<()> {
        let (masks, originals) = (state.dict("masks")?, state.dict("original_parameters")?);
        for parameter in &mut self.parameters {
            let of = |saved: &Dict| match saved.get(&parameter.name) {
                Some(Value::Tensor(tensor)) if tensor.size() == parameter.tensor.size() => Some(tensor.shallow_clone()),
                _ => None,
            };
            if let Some(original) = of(originals).filter(|_| parameter.original.is_some()) {
                parameter.original = Some(original);
            }
            if let Some(keep) = of(masks) {
                parameter.set_mask(keep.f_to_device(parameter.tensor.device())?)?;
            }
        }
        Ok(())
    }

    fn run_pruning(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        let epoch = trainer.current_epoch();
        let applies = self.apply_by_epoch.as_mut().map_or(self.options.apply_pruning, |apply| apply(epoch));
        let amount = self.amount_by_epoch.as_mut().map_or(self.options.amount, |amount| amount(epoch));
        if !applies || amount.is_zero() {
            return Ok(());
        }
        let before = self.counts()?;
        self.prune(amount)?;
        self.report(trainer, amount, &before)?;

        let lottery = self.options.use_lottery_ticket_hypothesis;
        if self.lottery_by_epoch.as_mut().map_or(lottery, |lottery| lottery(epoch)) {
            self.apply_lottery_ticket_hypothesis(module)?;
        }
        if trainer.is_distributed() && self.may_draw() {
            self.take_from_rank_zero(trainer)?;
        }
        for optimizer in trainer.optimizers() {
            self.clear_memory(optimizer)?;
        }
        Ok(())
    }

    /// Whether masks or values may depend on random numbers, which are each rank's own.
    fn may_draw(&self) -> bool {
        let by_chance = matches!(self.options.pruning_fn, PruningFn::RandomUnstructured | PruningFn::RandomStructured);
        by_chance || self.method.is_some() || self.options.resample_parameters
    }

    /// Every rank goes on with the masks and the values of rank zero.
    fn take_from_rank_zero(&mut self, trainer: &TrainerState) -> Result<()> {
        let of = |tensor: Option<&Tensor>| tensor.map_or(Value::None, Value::from);
        for parameter in &mut self.parameters {
            let mask = parameter.mask.as_ref().map(|mask| &mask.keep);
            let told = trainer.fabric().broadcast(vec![of(mask), of(Some(&parameter.values()?))], 0)?;
            let [mask, Value::Tensor(values)] = told.as_list().unwrap_or_default() else { continue };
            tch::no_grad(|| parameter.tensor.f_copy_(values))?;
            if let Value::Tensor(keep) = mask {
                parameter.set_mask(keep.f_to_device(parameter.tensor.device())?)?;
            }
        }
        Ok(())
    }

    /// Resets the remaining values to their initial ones, or resamples them; the optimizer state is kept.
    fn apply_lottery_ticket_hypothesis(&mut self, module: &dyn ModuleView) -> Result<()> {
        if self.options.resample_parameters {
            resample(&mut self.parameters, module.vars(), self.resample_with.as_mut())?;
        } else {
            let _no_grad = NoGradGuard::new();
            for Parameter { tensor, original, .. } in &mut self.parameters {
                if let Some(original) = original {
                    tensor.f_copy_(original)?;
                }
            }
        }
        self.parameters.iter_mut().try_for_each(Parameter::apply_mask)
    }

    /// Clears the optimizer state of pruned values. Momentum would change them, and between two steps of manual
    /// optimization no hook can undo that before the next forward pass.
    fn clear_memory(&self, optimizer: &dyn Optimizer) -> Result<()> {
        // A state dict shares its tensors with the optimizer.
        let state = optimizer.state_dict()?;
        let entries = state.dict("state")?;
        let params = optimizer.param_groups().iter().flat_map(|group| &group.params);
        for (index, param) in params.enumerate() {
            let parameter = self.parameters.iter().find(|p| tensor_id(&p.tensor) == tensor_id(param));
            let (Some(mask), Some(Value::Dict(entry))) =
                (parameter.and_then(|p| p.mask.as_ref()), entries.get_value(&Value::Int(index as i64)))
            else {
                continue;
            };
            let _no_grad = NoGradGuard::new();
            for (_, value) in entry.iter() {
                if let Some(tensor) = value.as_tensor().filter(|tensor| tensor.size() == param.size()) {
                    let _same_tensor = tensor.shallow_clone().f_masked_fill_(&mask.pruned, 0)?;
                }
            }
        }
        Ok(())
    }

    fn counts(&self) -> Result<Vec<(i64, i64)>> {
        if self.options.verbose == 0 {
            Ok(Vec::new())
        } else {
            self.parameters.iter().map(Parameter::pruned_count).collect()
        }
    }

    fn report(&self, trainer: &TrainerState, amount: PruningAmount, before: &[(i64, i64)]) -> Result<()> {
        let after = self.counts()?;
        if after.is_empty() {
            return Ok(());
        }
        let name = if self.method.is_some() { "a method of one's own" } else { self.options.pruning_fn.name() };
        let percent = |count: i64, total: i64| 100.0 * count as f64 / total.max(1) as f64;
        let sum = |counts: &[(i64, i64)]| counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let ((old, total), (new, _)) = (sum(before), sum(&after));
        let (old_percent, new_percent) = (percent(old, total), percent(new, total));
        trainer.print(&format!(
            "Applied `{name}`. Pruned: {old}/{total} ({old_percent:.2}%) -> {new}/{total} ({new_percent:.2}%)"
        ));
        if self.options.verbose < 2 {
            return Ok(());
        }
        for ((parameter, (old, total)), (new, _)) in self.parameters.iter().zip(before).zip(&after) {
            let (old_percent, new_percent) = (percent(*old, *total), percent(*new, *total));
            trainer.print(&format!(
                "Applied `{name}` to `{}` with amount={amount}. Pruned: {old} ({old_percent:.2}%) -> {new} ({new_percent:.2}%)",
                parameter.name
            ));
        }
        Ok(())
    }
}
