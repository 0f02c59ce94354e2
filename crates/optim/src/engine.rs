//! [`Engine`]: runs a [`Rule`] over parameter groups. Every optimizer but LBFGS is one of these.

use fulgurite_torch::tch::{Tensor, no_grad_guard};
use fulgurite_torch::{Dict, foreach};

use crate::bucket::Bucket;
use crate::groups::{Defaults, resolve_more};
use crate::optimizer::Closure;
use crate::rule::Rule;
use crate::{OptimError, Optimizer, ParamGroup, ParamGroupConfig, state_dict};

pub(crate) struct Engine<R> {
    /// The settings of a group added later.
    defaults: (Defaults, R),
    groups: Vec<ParamGroup>,
    rules: Vec<R>,
    buckets: Vec<Bucket>,
}

impl<R: Rule> Engine<R> {
    /// For `groups` that were resolved with these settings.
    pub(crate) fn new(groups: Vec<ParamGroup>, defaults: Defaults, rule: R) -> Result<Engine<R>, OptimError> {
        for group in &groups {
            rule.validate(group)?;
        }
        let rules = vec![rule.clone(); groups.len()];
        let mut engine = Engine { defaults: (defaults, rule), groups, rules, buckets: Vec::new() };
        engine.rebuild_buckets()?;
        Ok(engine)
    }

    fn rebuild_buckets(&mut self) -> Result<(), OptimError> {
        self.buckets = Bucket::all(&self.groups, &self.rules)?;
        Ok(())
    }

    fn check_unchanged(&self) -> Result<(), OptimError> {
        for (group, found) in self.groups.iter().enumerate() {
            let known: usize = self.buckets.iter().filter(|b| b.group == group).map(|b| b.indices.len()).sum();
            if known != found.params.len() {
                return Err(OptimError::ParametersChanged { optimizer: R::NAME, group });
            }
        }
        Ok(())
    }

    /// Finds every gradient. Where parameters were moved to another kind or device since, their state follows.
    fn collect(&mut self) -> Result<(), OptimError> {
        let mut moved = false;
        for bucket in &mut self.buckets {
            moved |= !bucket.collect()?;
        }
        if moved {
            let state = self.state_dict();
            self.rebuild_buckets()?;
            self.load_state_dict(&state)?;
            for bucket in &mut self.buckets {
                bucket.collect()?;
            }
        }
        Ok(())
    }
}

impl<R: Rule> Optimizer for Engine<R> {
    fn name(&self) -> &'static str {
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
        let (defaults, rule) = &self.defaults;
        let group = resolve_more(R::NAME, group, defaults, &self.groups)?;
        rule.validate(&group)?;
        let mut buckets = Bucket::all(std::slice::from_ref(&group), std::slice::from_ref(rule))?;
        buckets.iter_mut().for_each(|bucket| bucket.group = self.groups.len());
        self.buckets.append(&mut buckets);
        self.rules.push(rule.clone());
        self.groups.push(group);
        Ok(())
    }

    fn step(&mut self) -> Result<(), OptimError> {
        let _guard = no_grad_guard();
        self.check_unchanged()?;
        self.collect()?;
        for bucket in &mut self.buckets {
            bucket.step(&self.groups[bucket.group], &self.rules[bucket.group])?;
        }
        Ok(())
    }

    fn step_with(&mut self, closure: Closure<'_>) -> Result<Tensor, OptimError> {
        let loss = closure(self).map_err(OptimError::Closure)?;
        self.step()?;
        Ok(loss)
    }

    fn zero_grad(&mut self) {
        for bucket in &mut self.buckets {
            // It fails for undefined tensors only, and those are no parameters.
            let _ = foreach::drop_grads(&mut bucket.all.params);
        }
    }

    fn state_dict(&self) -> Dict {
        let mut state = Dict::new();
        let mut param_groups = Vec::with_capacity(self.groups.len());
        let mut offset = 0;
        for (index, (group, rule)) in self.groups.iter().zip(&self.rules).enumerate() {
            let mut entries: Vec<(usize, Dict)> = Vec::with_capacity(group.params.len());
            for bucket in self.buckets.iter().filter(|b| b.group == index) {
                entries.extend(bucket.save::<R>());
            }
            entries.sort_unstable_by_key(|(index, _)| *index);
            for (index, entry) in entries {
                state.push(offset + index, entry);
            }
            param_groups.push(state_dict::save_group(group, rule, offset));
            offset += group.params.len();
        }
        Dict::new().with("state", state).with("param_groups", param_groups)
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        let _guard = no_grad_guard();
        let mut groups = state_dict::copy_groups(&self.groups);
        let mut rules = self.rules.clone();
        let params = state_dict::load_groups(state, &mut groups, &mut rules)?;
        let mut buckets = Bucket::all(&groups, &rules)?;
        let entries = state.dict("state").map_err(OptimError::lacks(R::NAME))?;
        for bucket in &mut buckets {
            bucket.load(&groups[bucket.group], &rules[bucket.group], entries, &params[bucket.group])?;
        }
        (self.groups, self.rules, self.buckets) = (groups, rules, buckets);
        Ok(())
    }
}
