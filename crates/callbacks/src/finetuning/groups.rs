//! [`GroupRecords`]: the parameter groups that a finetuning run has made, so that a resumed one can make them again.

use std::collections::{BTreeMap, HashMap};

use fulgurite_engine::{Error, Result, TrainerState};
use fulgurite_optim::{OptimError, Optimizer, ParamGroupConfig};
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, TorchError, Value, params, tensor_id};

/// By optimizer, the entries of its `param_groups` with the names of the parameters, as Lightning's checkpoints have
/// them; and which parameters are frozen, which those have not.
#[derive(Default)]
pub(super) struct GroupRecords {
    groups: BTreeMap<usize, Vec<Dict>>,
    frozen: Vec<String>,
    /// They are a checkpoint's, and `frozen` too if that was there.
    restored: Option<Restored>,
}

#[derive(Clone, Copy, PartialEq)]
enum Restored {
    Groups,
    GroupsAndFrozen,
}

impl GroupRecords {
    pub(super) fn state_dict(&self) -> Dict {
        let groups: Dict = self.groups.iter().map(|(&index, groups)| (index.into(), groups.clone().into())).collect();
        Dict::new().with("internal_optimizer_metadata", groups).with("frozen_parameters", self.frozen.clone())
    }

    pub(super) fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.groups.clear();
        for (index, groups) in state.dict("internal_optimizer_metadata")?.iter() {
            let index = index.as_int().and_then(|index| usize::try_from(index).ok());
            let groups = groups.as_list().unwrap_or_default().iter().filter_map(Value::as_dict);
            if let Some(index) = index {
                self.groups.insert(index, groups.cloned().collect());
            }
        }
        self.restored = Some(Restored::Groups);
        if let Ok(frozen) = state.list("frozen_parameters") {
            self.frozen = frozen.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            self.restored = Some(Restored::GroupsAndFrozen);
        }
        Ok(())
    }

    /// Records new groups, and which parameters are frozen. There were `before` groups.
    pub(super) fn store(
        &mut self,
        vars: &dyn Parameters,
        index: usize,
        before: usize,
        optimizer: &dyn Optimizer,
    ) -> Result<()> {
        let named = params::named_parameters(vars);
        self.frozen =
            named.iter().filter(|(_, tensor)| !tensor.requires_grad()).map(|(name, _)| name.clone()).collect();
        let known = self.groups.contains_key(&index);
        if known && before == optimizer.param_groups().len() {
            return Ok(());
        }
        let names: HashMap<usize, &str> =
            named.iter().map(|(name, tensor)| (tensor_id(tensor), name.as_str())).collect();
        let name = |tensor: &Tensor| names.get(&tensor_id(tensor)).copied().map_or(Value::None, Value::from);
        let state = optimizer.state_dict()?;
        let entries = state.list("param_groups")?.iter().filter_map(Value::as_dict).zip(optimizer.param_groups());
        let records = self.groups.entry(index).or_default();
        for (entry, group) in entries.skip(if known { before } else { 0 }) {
            let mut record = entry.clone();
            record.set("params", group.params.iter().map(name).collect::<Vec<_>>());
            records.push(record);
        }
        Ok(())
    }

    /// Recreates a checkpoint's groups before the optimizer states are loaded. Lightning leaves their parameters
    /// frozen.
    pub(super) fn restore(&mut self, trainer: &mut TrainerState, vars: &dyn Parameters) -> Result<(), Error> {
        let Some(restored) = self.restored.take() else { return Ok(()) };
        let named: HashMap<String, Tensor> = params::named_parameters(vars).into_iter().collect();
        let train = |tensor: &Tensor, on: bool| tensor.f_set_requires_grad(on).map(drop).map_err(TorchError::from);
        if restored == Restored::GroupsAndFrozen {
            for (name, tensor) in &named {
                train(tensor, !self.frozen.contains(name))?;
            }
        }
        for (&index, groups) in &self.groups {
            if index >= trainer.num_optimizers() {
                continue;
            }
            let done = trainer.with_optimizer(index, |_, optimizer| -> Result<(), Error> {
                let there = optimizer.param_groups().len();
                for group in groups.iter().skip(there) {
                    let missing = |name: &str| {
                        let reason = format!("its parameter `{name}` is not the module's; is it of another model?");
                        Error::Optim(OptimError::StateDict { owner: "a finetuning callback", reason })
                    };
                    let mut parameters = Vec::new();
                    for name in group.list("params").unwrap_or_default() {
                        let name = name.as_str().unwrap_or_default();
                        parameters.push(named.get(name).ok_or_else(|| missing(name))?);
                    }
                    if restored == Restored::Groups {
                        parameters.iter().try_for_each(|tensor| train(tensor, true))?;
                    }
                    // Its settings come with the optimizer's state.
                    optimizer.add_param_group(ParamGroupConfig::new(parameters))?;
                }
                Ok(())
            });
            done??;
        }
        Ok(())
    }
}
