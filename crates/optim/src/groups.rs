//! The parameters of an optimizer: [`IntoParamGroups`] and [`ParamGroupConfig`].

use fulgurite_torch::params::{self, Parameters};
use fulgurite_torch::tch::{Tensor, nn};
use fulgurite_torch::tensor_id;

use crate::param_group::{check_settings, copy_groups};
use crate::{Momentum, OptimError, ParamGroup};

/// Parameters, and options of the optimizer that are different for them.
///
/// ```
/// use fulgurite_optim::{AdamW, ParamGroupConfig};
/// use fulgurite_torch::tch::{Device, nn};
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let layer = nn::linear(vs.root(), 4, 2, Default::default());
/// let groups = vec![
///     ParamGroupConfig::new([&layer.ws]),
///     ParamGroupConfig::new(layer.bs.iter()).weight_decay(0.0).name("no_decay"),
/// ];
/// let optimizer = AdamW::new(groups).lr(3e-4).weight_decay(0.1).build()?;
/// assert_eq!(optimizer.param_groups()[1].weight_decay, 0.0);
/// # Ok::<(), fulgurite_optim::OptimError>(())
/// ```
#[derive(Debug)]
pub struct ParamGroupConfig {
    params: Vec<Tensor>,
    name: Option<String>,
    lr: Option<f64>,
    weight_decay: Option<f64>,
    momentum: Option<Momentum>,
}

impl ParamGroupConfig {
    /// A group of `params`; the tensors are shared, not copied.
    pub fn new<'a>(params: impl IntoIterator<Item = &'a Tensor>) -> ParamGroupConfig {
        ParamGroupConfig {
            params: params.into_iter().map(Tensor::shallow_clone).collect(),
            name: None,
            lr: None,
            weight_decay: None,
            momentum: None,
        }
    }

    /// Its name, for the learning-rate monitor.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Learning rate of the group.
    #[must_use]
    pub fn lr(mut self, lr: f64) -> Self {
        self.lr = Some(lr);
        self
    }

    /// Weight decay of the group.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = Some(weight_decay);
        self
    }

    /// Momentum of the group, for optimizers that have `momentum`.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = Some(Momentum::Momentum(momentum));
        self
    }

    /// Betas of the group, for optimizers that have `betas`.
    #[must_use]
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        self.momentum = Some(Momentum::Betas(beta1, beta2));
        self
    }
}

/// The parameters that an optimizer can be created for: a `VarStore` or other [`Parameters`] (in the order of
/// [`params::named_parameters`]), tensors, or groups with their own settings.
pub trait IntoParamGroups {
    /// The groups, in the order of the state dict.
    fn into_param_groups(self) -> Vec<ParamGroupConfig>;
}

impl IntoParamGroups for &nn::VarStore {
    fn into_param_groups(self) -> Vec<ParamGroupConfig> {
        (self as &dyn Parameters).into_param_groups()
    }
}

impl IntoParamGroups for &fulgurite_torch::VarStore {
    fn into_param_groups(self) -> Vec<ParamGroupConfig> {
        (self as &dyn Parameters).into_param_groups()
    }
}

impl IntoParamGroups for &params::NamedTensors {
    fn into_param_groups(self) -> Vec<ParamGroupConfig> {
        (self as &dyn Parameters).into_param_groups()
    }
}

impl IntoParamGroups for &dyn Parameters {
    fn into_param_groups(self) -> Vec<ParamGroupConfig> {
        let params: Vec<Tensor> = params::named_parameters(self).into_iter().map(|(_, param)| param).collect();
        vec![ParamGroupConfig::new(&params)]
    }
}

impl IntoParamGroups for Vec<Tensor> {
    fn into_param_groups(self) -> Vec<ParamGroupConfig> {
        vec![ParamGroupConfig::new(&self)]
    }
}

impl IntoParamGroups for &[Tensor] {
    fn into_param_groups(self) -> Vec<ParamGroupConfig> {
        vec![ParamGroupConfig::new(self)]
    }
}

impl IntoParamGroups for Vec<ParamGroupConfig> {
    fn into_param_groups(self) -> Vec<ParamGroupConfig> {
        self
    }
}

/// The default settings of a parameter group.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct GroupDefaults {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay; `None` for optimizers without.
    pub weight_decay: Option<f64>,
    /// Momentum or betas; [`Momentum::None`] for optimizers without.
    pub momentum: Momentum,
}

impl GroupDefaults {
    /// A learning rate, and neither weight decay nor momentum.
    pub fn new(lr: f64) -> GroupDefaults {
        GroupDefaults { lr, weight_decay: None, momentum: Momentum::None }
    }

    /// Weight decay, for optimizers with an option `weight_decay`.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = Some(weight_decay);
        self
    }

    /// Momentum, for optimizers with an option `momentum`.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = Momentum::Momentum(momentum);
        self
    }

    /// Betas, for optimizers with an option `betas`.
    #[must_use]
    pub fn betas(mut self, (beta1, beta2): (f64, f64)) -> Self {
        self.momentum = Momentum::Betas(beta1, beta2);
        self
    }
}

/// Applies the defaults to `configs`, and checks them.
pub(crate) fn resolve(
    optimizer: &'static str,
    configs: Vec<ParamGroupConfig>,
    defaults: &GroupDefaults,
) -> Result<Vec<ParamGroup>, OptimError> {
    if configs.iter().all(|config| config.params.is_empty()) {
        return Err(OptimError::EmptyParameterList { optimizer });
    }
    let mut groups = Vec::with_capacity(configs.len());
    for (group, config) in configs.into_iter().enumerate() {
        groups.push(fill_in(optimizer, group, config, defaults)?);
    }
    check_parameters(optimizer, &groups, 0)?;
    for group in &groups {
        check_settings(optimizer, group)?;
    }
    Ok(groups)
}

/// The same for a group that joins `groups`.
pub(crate) fn resolve_more(
    optimizer: &'static str,
    config: ParamGroupConfig,
    defaults: &GroupDefaults,
    groups: &[ParamGroup],
) -> Result<ParamGroup, OptimError> {
    if config.params.is_empty() {
        return Err(OptimError::EmptyParameterList { optimizer });
    }
    let mut all = copy_groups(groups);
    all.push(fill_in(optimizer, groups.len(), config, defaults)?);
    check_parameters(optimizer, &all, groups.len())?;
    let Some(group) = all.pop() else { return Err(OptimError::EmptyParameterList { optimizer }) };
    check_settings(optimizer, &group)?;
    Ok(group)
}

/// Fills in what `config` leaves open.
fn fill_in(
    optimizer: &'static str,
    group: usize,
    config: ParamGroupConfig,
    defaults: &GroupDefaults,
) -> Result<ParamGroup, OptimError> {
    if config.weight_decay.is_some() && defaults.weight_decay.is_none() {
        return Err(OptimError::UnknownGroupOption { optimizer, group, option: "weight_decay" });
    }
    let momentum = config.momentum.unwrap_or(defaults.momentum);
    if std::mem::discriminant(&momentum) != std::mem::discriminant(&defaults.momentum) {
        let option = if matches!(momentum, Momentum::Betas(..)) { "betas" } else { "momentum" };
        return Err(OptimError::UnknownGroupOption { optimizer, group, option });
    }
    Ok(ParamGroup {
        name: config.name,
        weight_decay: config.weight_decay.or(defaults.weight_decay).unwrap_or(0.0),
        momentum,
        ..ParamGroup::new(config.params, config.lr.unwrap_or(defaults.lr))
    })
}

/// Checks the parameters of the groups from `first` on, and that no parameter is in `groups` twice.
fn check_parameters(optimizer: &'static str, groups: &[ParamGroup], first: usize) -> Result<(), OptimError> {
    let mut seen = std::collections::HashMap::new();
    for (group, params) in groups.iter().map(|group| &group.params).enumerate() {
        for (index, param) in params.iter().enumerate() {
            if let Some((first_group, first_index)) = seen.insert(tensor_id(param), (group, index)) {
                return Err(OptimError::DuplicateParameter { optimizer, group, index, first_group, first_index });
            }
            if group < first {
                continue;
            }
            let bad = |reason: &str| OptimError::BadParameter { optimizer, group, index, reason: reason.into() };
            if !param.defined() {
                return Err(bad("it is an undefined tensor; create it before the optimizer"));
            }
            if !param.f_is_leaf()? {
                return Err(bad(
                    "it is computed from other tensors (can't optimize a non-leaf Tensor); give the optimizer the \
                     tensors it is computed from, or a detached copy that requires a gradient",
                ));
            }
            if !param.f_is_floating_point()? {
                return Err(bad(&format!(
                    "it is of kind {:?}, and only real floating-point tensors have gradients that can be followed",
                    param.f_kind()?
                )));
            }
            if !is_dense(param) {
                return Err(bad("it is a view with gaps or overlaps in memory; use a .contiguous() copy"));
            }
        }
    }
    Ok(())
}

/// Whether the elements fill one stretch of memory, in whatever order of dimensions.
fn is_dense(param: &Tensor) -> bool {
    let mut dims: Vec<(i64, i64)> =
        param.stride().into_iter().zip(param.size()).filter(|&(_, size)| size != 1).collect();
    dims.sort_unstable();
    let mut expected = 1;
    param.numel() == 0
        || dims.into_iter().all(|(stride, size)| {
            let dense = stride == expected;
            expected *= size;
            dense
        })
}
