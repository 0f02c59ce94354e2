//! Resampling of parameters with the initialization of their layers.

use fulgurite_torch::grad::NoGradGuard;
use fulgurite_torch::params;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Tensor;

use super::parameter::Parameter;
use fulgurite_engine::Result;

/// Fills a parameter, known by its name, with new values.
pub(super) type ResampleFn = Box<dyn FnMut(&str, &mut Tensor) -> Result<()> + Send>;

/// Draws new values for every parameter.
pub(super) fn resample(
    parameters: &mut [Parameter],
    vars: &dyn Parameters,
    with: Option<&mut ResampleFn>,
) -> Result<()> {
    let _no_grad = NoGradGuard::new();
    if let Some(with) = with {
        return parameters.iter_mut().try_for_each(|parameter| with(&parameter.name, &mut parameter.tensor));
    }
    let all = params::named_parameters(vars);
    for Parameter { name, tensor, .. } in parameters {
        let path = name.strip_suffix("bias");
        let beside = path.and_then(|path| all.iter().find(|(other, _)| other.strip_suffix("weight") == Some(path)));
        let fan_in = fan_in(beside.map_or(&*tensor, |(_, weight)| weight));
        let _same_tensor = match fan_in {
            Some(fan_in) => {
                let bound = 1.0 / (fan_in as f64).sqrt();
                tensor.f_uniform_(-bound, bound)?
            }
            None if path.is_some() => tensor.f_zero_()?,
            None => tensor.f_fill_(1.0)?,
        };
    }
    Ok(())
}

/// The inputs of each output of a linear or convolutional layer, from its weight.
fn fan_in(weight: &Tensor) -> Option<i64> {
    match weight.size()[..] {
        [outputs, _, ..] if weight.numel() > 0 => Some(weight.numel() as i64 / outputs),
        _ => None,
    }
}
