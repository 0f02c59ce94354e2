//! The parameter groups of an optimizer's state dict, in PyTorch's layout.

use fulgurite_torch::{Dict, Value};
use serde::Serialize;

use crate::param_group::check_settings;
use crate::rule::{Fixed, Rule};
use crate::typed::{self, number};
use crate::{Momentum, OptimError, ParamGroup};

/// The entry of `group`, whose parameters are numbered from `offset`.
pub(crate) fn save_group<R: Rule>(group: &ParamGroup, rule: &R, offset: usize) -> Dict {
    let mut entry = settings(group, rule);
    for (key, value) in group.extra.iter() {
        entry.set(key.clone(), value.clone());
    }
    entry.push("params", (offset..offset + group.params.len()).collect::<Vec<_>>());
    entry
}

/// What a group and its rule know of themselves.
fn settings<R: Rule>(group: &ParamGroup, rule: &R) -> Dict {
    let mut entry = shared_settings(group);
    if rule.group_defaults().weight_decay.is_some() {
        entry.push("weight_decay", group.weight_decay);
    }
    add_options(&mut entry, rule);
    for (key, value) in R::FIXED {
        entry.push(
            *key,
            match value {
                Fixed::None => Value::None,
                Fixed::False => Value::Bool(false),
                Fixed::True => Value::Bool(true),
            },
        );
    }
    entry
}

/// Adds the options that are not there yet: what a group has itself is the group's.
pub(crate) fn add_options(entry: &mut Dict, options: &impl Serialize) {
    for (key, value) in typed::to_dict(options) {
        if entry.get_value(&key).is_none() {
            entry.push(key, value);
        }
    }
}

/// The settings that have the same name in every optimizer.
pub(crate) fn shared_settings(group: &ParamGroup) -> Dict {
    let mut entry = Dict::new().with("lr", group.lr);
    match group.momentum {
        Momentum::None => {}
        Momentum::Momentum(momentum) => entry.push("momentum", momentum),
        Momentum::Betas(beta1, beta2) => entry.push("betas", (beta1, beta2)),
    }
    if let Some(name) = &group.name {
        entry.push("name", name.as_str());
    }
    if let Some(initial_lr) = group.initial_lr {
        entry.push("initial_lr", initial_lr);
    }
    entry
}

/// Takes the settings of `groups` and `rules` from a state dict, and returns the keys of each group's parameters.
pub(crate) fn load_groups<R: Rule>(
    state: &Dict,
    groups: &mut [ParamGroup],
    rules: &mut [R],
) -> Result<Vec<Vec<Value>>, OptimError> {
    let saved = saved_groups(R::NAME, state, groups)?;
    for ((group, rule), entry) in groups.iter_mut().zip(rules).zip(&saved) {
        load_shared_settings(R::NAME, entry, group)?;
        if rule.group_defaults().weight_decay.is_some()
            && let Some(weight_decay) = entry.get("weight_decay").and_then(number)
        {
            group.weight_decay = weight_decay;
        }
        typed::update(rule, entry).map_err(|error| OptimError::state_dict(R::NAME, error))?;
        check_fixed::<R>(entry)?;
        group.extra = Dict::new();
        let mut own = settings(group, rule);
        R::FIXED.iter().for_each(|(key, _)| drop(own.remove(key)));
        for (key, value) in entry.iter() {
            if key.as_str() != Some("params") && own.get_value(key).is_none() {
                group.extra.push(key.clone(), value.clone());
            }
        }
        check_settings(R::NAME, group)?;
        rule.validate(group)?;
    }
    saved.iter().map(|entry| Ok(params_of(R::NAME, entry)?.to_vec())).collect()
}

/// Settings that are fixed here are kept as the file has them, and must be of their type.
fn check_fixed<R: Rule>(entry: &Dict) -> Result<(), OptimError> {
    for (key, fixed) in R::FIXED {
        let Some(saved) = entry.get(key).filter(|_| *fixed != Fixed::None) else { continue };
        if saved.as_bool().is_none() {
            let found = saved.type_name();
            let problem = format!("entry `{key}` of a parameter group is {found}, expected bool");
            return Err(OptimError::state_dict(R::NAME, problem));
        }
    }
    Ok(())
}

/// The entries of `param_groups`, as many and with as many parameters as `groups`.
pub(crate) fn saved_groups<'a>(
    optimizer: &'static str,
    state: &'a Dict,
    groups: &[ParamGroup],
) -> Result<Vec<&'a Dict>, OptimError> {
    let saved = state.list("param_groups").map_err(OptimError::lacks(optimizer))?;
    if saved.len() != groups.len() {
        let (saved, here) = (saved.len(), groups.len());
        return Err(OptimError::state_dict(
            optimizer,
            format!(
                "it has a different number of parameter groups, {saved} instead of {here}; build the optimizer with the \
                 groups it was saved with"
            ),
        ));
    }
    let mut entries = Vec::with_capacity(saved.len());
    for (index, (entry, group)) in saved.iter().zip(groups).enumerate() {
        let entry = entry.as_dict().ok_or_else(|| {
            OptimError::state_dict(
                optimizer,
                format!("parameter group {index} is {}, expected dict", entry.type_name()),
            )
        })?;
        let (saved, here) = (params_of(optimizer, entry)?.len(), group.params.len());
        if saved != here {
            return Err(OptimError::state_dict(
                optimizer,
                format!(
                    "parameter group {index} doesn't match the size of the optimizer's group, {saved} parameters instead \
                     of {here}; is it of another model?"
                ),
            ));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn params_of<'a>(optimizer: &'static str, entry: &'a Dict) -> Result<&'a [Value], OptimError> {
    entry.list("params").map_err(OptimError::lacks(optimizer))
}

/// Reads what [`shared_settings`] wrote.
pub(crate) fn load_shared_settings(
    optimizer: &'static str,
    entry: &Dict,
    group: &mut ParamGroup,
) -> Result<(), OptimError> {
    let lacks = OptimError::lacks(optimizer);
    let wrong =
        |key: &str| OptimError::state_dict(optimizer, format!("entry `{key}` of a parameter group is no number"));
    group.lr = number(entry.require("lr").map_err(&lacks)?).ok_or_else(|| wrong("lr"))?;
    match &mut group.momentum {
        Momentum::None => {}
        Momentum::Momentum(momentum) => {
            *momentum = number(entry.require("momentum").map_err(&lacks)?).ok_or_else(|| wrong("momentum"))?;
        }
        Momentum::Betas(beta1, beta2) => {
            let betas = entry.list("betas").map_err(&lacks)?;
            (*beta1, *beta2) = match betas {
                [a, b] => (number(a).ok_or_else(|| wrong("betas"))?, number(b).ok_or_else(|| wrong("betas"))?),
                _ => return Err(wrong("betas")),
            };
        }
    }
    group.name = entry.get("name").and_then(Value::as_str).map(String::from).or(group.name.take());
    group.initial_lr = match entry.get("initial_lr") {
        // A scheduler that is here has set it.
        None => group.initial_lr,
        Some(Value::None) => None,
        Some(value) => Some(number(value).ok_or_else(|| wrong("initial_lr"))?),
    };
    Ok(())
}
