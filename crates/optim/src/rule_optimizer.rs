//! [`RuleOptimizer`]: runs a [`Rule`] over parameter groups. Every optimizer but LBFGS is one of these.

use fulgurite_torch::tch::{Tensor, no_grad_guard};
use fulgurite_torch::{Dict, foreach};

use crate::groups::resolve_more;
use crate::optimizer::Closure;
use crate::param_group::copy_groups;
use crate::partition::Partition;
use crate::rule::Rule;
use crate::{OptimError, Optimizer, ParamGroup, ParamGroupConfig, state_dict, typed};

/// The optimizer of a [`Rule`].
///
/// ```
/// use fulgurite_optim::{AdamW, AdamWOptions, RuleOptimizer};
/// use fulgurite_torch::tch::{Device, nn};
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let _layer = nn::linear(vs.root(), 4, 1, Default::default());
/// let optimizer = AdamW::new(&vs).eps(1e-6).build()?;
/// let adamw = optimizer.downcast_ref::<RuleOptimizer<AdamWOptions>>().unwrap();
/// assert_eq!(adamw.rules()[0].eps, 1e-6);
/// # Ok::<(), fulgurite_optim::OptimError>(())
/// ```
pub struct RuleOptimizer<R> {
    /// The options of a group added later.
    defaults: R,
    groups: Vec<ParamGroup>,
    rules: Vec<R>,
    partitions: Vec<Partition>,
}

impl<R: Rule> RuleOptimizer<R> {
    /// For `groups` that were resolved with the defaults of `rule`.
    pub(crate) fn new(groups: Vec<ParamGroup>, rule: R) -> Result<RuleOptimizer<R>, OptimError> {
        const { assert!(R::SLOTS.len() <= 8 && R::SCALARS.len() <= 2, "a rule has at most 8 slots and 2 scalars") }
        typed::check(R::NAME, &rule)?;
        for group in &groups {
            rule.validate(group)?;
        }
        let rules = vec![rule.clone(); groups.len()];
        let mut optimizer = RuleOptimizer { defaults: rule, groups, rules, partitions: Vec::new() };
        optimizer.rebuild_partitions()?;
        Ok(optimizer)
    }

    /// The options of each parameter group. Those that a group has itself (learning rate, …) are the group's.
    pub fn rules(&self) -> &[R] {
        &self.rules
    }

    fn rebuild_partitions(&mut self) -> Result<(), OptimError> {
        self.partitions = Partition::all(&self.groups, &self.rules)?;
        Ok(())
    }

    fn check_unchanged(&self) -> Result<(), OptimError> {
        for (group, found) in self.groups.iter().enumerate() {
            let known: usize = self.partitions.iter().filter(|p| p.group == group).map(|p| p.indices.len()).sum();
            if known != found.params.len() {
                return Err(OptimError::ParametersChanged { optimizer: R::NAME, group });
            }
        }
        Ok(())
    }

    /// Finds every gradient. Where parameters were moved to another kind or device since, their state follows.
    fn collect(&mut self) -> Result<(), OptimError> {
        let mut moved = false;
        for partition in &mut self.partitions {
            moved |= !partition.collect(&self.groups[partition.group], &self.rules[partition.group])?;
        }
        if moved {
            let state = self.state_dict()?;
            self.rebuild_partitions()?;
            self.load_state_dict(&state)?;
            for partition in &mut self.partitions {
                partition.collect(&self.groups[partition.group], &self.rules[partition.group])?;
            }
        }
        Ok(())
    }
}

impl<R: Rule> Optimizer for RuleOptimizer<R> {
    fn name(&self) -> &str {
        R::NAME
    }

    fn param_groups(&self) -> &[ParamGroup] {
        &self.groups
    }

    fn param_groups_mut(&mut self) -> &mut [ParamGroup] {
        &mut self.groups
    }

    fn add_param_group(&mut self, group: ParamGroupConfig) -> Result<(), OptimError> {
        let _guard = no_grad_guard();
        self.check_unchanged()?;
        let rule = &self.defaults;
        let group = resolve_more(R::NAME, group, &rule.group_defaults(), &self.groups)?;
        rule.validate(&group)?;
        let mut partitions = Partition::all(std::slice::from_ref(&group), std::slice::from_ref(rule))?;
        partitions.iter_mut().for_each(|partition| partition.group = self.groups.len());
        self.partitions.append(&mut partitions);
        self.rules.push(rule.clone());
        self.groups.push(group);
        Ok(())
    }

    fn step(&mut self) -> Result<(), OptimError> {
        let _guard = no_grad_guard();
        self.check_unchanged()?;
        self.collect()?;
        for partition in &mut self.partitions {
            partition.step(&self.groups[partition.group], &self.rules[partition.group])?;
        }
        Ok(())
    }

    fn step_with(&mut self, closure: Closure<'_>) -> Result<Tensor, OptimError> {
        let loss = closure(self).map_err(OptimError::Closure)?;
        self.step()?;
        Ok(loss)
    }

    fn zero_grad(&mut self) -> Result<(), OptimError> {
        for partition in &mut self.partitions {
            foreach::drop_grads(&mut partition.all.params)?;
        }
        Ok(())
    }

    fn state_dict(&self) -> Result<Dict, OptimError> {
        let mut state = Dict::new();
        let mut param_groups = Vec::with_capacity(self.groups.len());
        let mut offset = 0;
        for (index, (group, rule)) in self.groups.iter().zip(&self.rules).enumerate() {
            let mut entries: Vec<(usize, Dict)> = Vec::with_capacity(group.params.len());
            for partition in self.partitions.iter().filter(|p| p.group == index) {
                entries.extend(partition.save::<R>());
            }
            entries.sort_unstable_by_key(|(index, _)| *index);
            for (index, entry) in entries {
                state.push(offset + index, entry);
            }
            param_groups.push(state_dict::save_group(group, rule, offset));
            offset += group.params.len();
        }
        Ok(Dict::new().with("state", state).with("param_groups", param_groups))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        let _guard = no_grad_guard();
        let mut groups = copy_groups(&self.groups);
        let mut rules = self.rules.clone();
        let params = state_dict::load_groups(state, &mut groups, &mut rules)?;
        let mut partitions = Partition::all(&groups, &rules)?;
        let entries = state.dict("state").map_err(OptimError::lacks(R::NAME))?;
        for partition in &mut partitions {
            partition.load(&groups[partition.group], &rules[partition.group], entries, &params[partition.group])?;
        }
        (self.groups, self.rules, self.partitions) = (groups, rules, partitions);
        Ok(())
    }
}
