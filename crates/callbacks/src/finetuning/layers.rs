//! Parts of a module, named by the beginnings of their variables' paths: freezing, unfreezing, and training them later.

use std::collections::HashSet;

use fulgurite_engine::{BatchNormBuffers, Error, TrainerState, batch_norms};
use fulgurite_optim::{Optimizer, ParamGroupConfig};
use fulgurite_torch::grad::NoGradGuard;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{TensorList, TorchError, foreach, params, tensor_id};

/// Whether the variable `name` is in the part of the module that `path` names: `backbone` names `backbone.conv.weight`.
fn is_under(name: &str, path: &str) -> bool {
    path.is_empty() || name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The parameters under `paths`, each with whether it is a batch norm's.
fn parameters(vars: &dyn Parameters, paths: &[&str]) -> Result<Vec<(Tensor, bool)>, Error> {
    let named = params::named_parameters(vars);
    if let Some(path) = paths.iter().find(|path| !named.iter().any(|(name, _)| is_under(name, path))) {
        let mut tops: Vec<&str> = named.iter().filter_map(|(name, _)| name.split('.').next()).collect();
        tops.dedup();
        return Err(Error::Config(format!(
            "no parameter of the module has a path that begins with `{path}`; there are: {}. Make the layers under `vars.root() / \"{path}\"`, before the run is set up",
            tops.join(", ")
        )));
    }
    let norms: HashSet<String> = batch_norms(vars).into_iter().map(|norm| norm.path).collect();
    let is_norm = |name: &str| norms.contains(&name[..name.rfind('.').map_or(0, |dot| dot + 1)]);
    let under = named.into_iter().filter(|(name, _)| paths.iter().any(|path| is_under(name, path)));
    Ok(under.map(|(name, tensor)| (tensor, is_norm(&name))).collect())
}

/// Freezes the parameters under `paths`, such as `"backbone"`: they get no gradient.
///
/// Batch norms continue to be trained if `train_bn`. Otherwise they are frozen too, and while a finetuning callback
/// runs, so are their running statistics.
///
/// # Errors
///
/// Fails if no variable matches one of the paths.
pub fn freeze(vars: &dyn Parameters, paths: &[&str], train_bn: bool) -> Result<(), Error> {
    for (parameter, is_norm) in parameters(vars, paths)? {
        let _ = parameter.f_set_requires_grad(is_norm && train_bn).map_err(TorchError::from)?;
    }
    Ok(())
}

/// Unfreezes the parameters under `paths`, batch norms included.
///
/// # Errors
///
/// Fails if no variable matches one of the paths.
pub fn make_trainable(vars: &dyn Parameters, paths: &[&str]) -> Result<(), Error> {
    for (parameter, _) in parameters(vars, paths)? {
        let _ = parameter.f_set_requires_grad(true).map_err(TorchError::from)?;
    }
    Ok(())
}

/// The parameters under `paths` that are unfrozen, or frozen (`requires_grad` false); without those of batch norms
/// unless `train_bn`.
///
/// # Errors
///
/// Fails if no variable matches one of the paths.
pub fn filter_params(
    vars: &dyn Parameters,
    paths: &[&str],
    train_bn: bool,
    requires_grad: bool,
) -> Result<Vec<Tensor>, Error> {
    let wanted =
        |(parameter, is_norm): &(Tensor, bool)| (train_bn || !is_norm) && parameter.requires_grad() == requires_grad;
    Ok(parameters(vars, paths)?.into_iter().filter(wanted).map(|(parameter, _)| parameter).collect())
}

/// Options of [`unfreeze_and_add_param_group`].
#[derive(Debug, Clone, Copy)]
pub struct Unfreeze {
    /// The learning rate of the new group; without a value, that of the first group divided by `initial_denom_lr`.
    pub lr: Option<f64>,
    /// The divisor of the first group's learning rate.
    pub initial_denom_lr: f64,
    /// Whether the batch norms' parameters join the group.
    pub train_bn: bool,
}

impl Default for Unfreeze {
    fn default() -> Unfreeze {
        Unfreeze { lr: None, initial_denom_lr: 10.0, train_bn: true }
    }
}

/// Unfreezes the parameters under `paths` and adds those that the optimizer does not have to it, as a new group.
///
/// # Errors
///
/// Fails if no variable matches one of the paths, or the optimizer does not accept another parameter group.
pub fn unfreeze_and_add_param_group(
    trainer: &TrainerState,
    vars: &dyn Parameters,
    paths: &[&str],
    optimizer: &mut dyn Optimizer,
    how: Unfreeze,
) -> Result<(), Error> {
    let frozen: HashSet<usize> = filter_params(vars, paths, true, false)?.iter().map(tensor_id).collect();
    make_trainable(vars, paths)?;
    let first = optimizer.param_groups().first().map_or(0.0, |group| group.lr);
    let lr = how.lr.unwrap_or(first / how.initial_denom_lr);
    let parameters = filter_params(vars, paths, how.train_bn, true)?;
    // By identity: Lightning compares values, and leaves out a bias because another one is zero too.
    let there: HashSet<usize> =
        optimizer.param_groups().iter().flat_map(|group| &group.params).map(tensor_id).collect();
    let (old, new): (Vec<&Tensor>, Vec<&Tensor>) =
        parameters.iter().partition(|parameter| there.contains(&tensor_id(parameter)));
    // Batch norms that were trained all along belong there.
    let unexpected = old.iter().filter(|parameter| frozen.contains(&tensor_id(parameter))).count();
    if unexpected > 0 {
        trainer.warn(&format!(
            "{unexpected} parameters to unfreeze are in the optimizer already, and stay in their group; give it `params::trainable_parameters(&self.vars)` in configure_optimizers",
        ));
    }
    if !new.is_empty() {
        optimizer.add_param_group(ParamGroupConfig::new(new).lr(lr))?;
    }
    Ok(())
}

/// The running statistics of batch norms whose weights are frozen. A layer that trains updates them whatever is frozen, so
/// they are put back after each batch: the batch is normalized by its own statistics, as Lightning's layers do it then.
pub(super) struct FrozenStatistics {
    live: TensorList,
    kept: TensorList,
}

impl FrozenStatistics {
    /// `None` when there is nothing frozen.
    pub(super) fn find(vars: &dyn Parameters) -> Result<Option<FrozenStatistics>, TorchError> {
        let _no_grad = NoGradGuard::new();
        let frozen: HashSet<String> = params::named_parameters(vars)
            .into_iter()
            .filter(|(_, tensor)| !tensor.requires_grad())
            .map(|(name, _)| name)
            .collect();
        let mut statistics = FrozenStatistics { live: TensorList::empty()?, kept: TensorList::empty()? };
        let is_frozen = |norm: &BatchNormBuffers| frozen.contains(&format!("{}weight", norm.path));
        for buffer in batch_norms(vars).into_iter().filter(is_frozen).flat_map(BatchNormBuffers::into_tensors) {
            statistics.live.push(&buffer)?;
            statistics.kept.push(&buffer.f_zeros_like()?)?;
        }
        foreach::copy_(&mut statistics.kept, &statistics.live)?;
        Ok((!statistics.live.is_empty()).then_some(statistics))
    }

    pub(super) fn put_back(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        foreach::copy_(&mut self.live, &self.kept)
    }
}
