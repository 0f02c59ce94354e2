//! [`AveragedModel`]: an average of a module's weights.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use fulgurite_torch::grad::NoGradGuard;
use fulgurite_torch::params::{NamedTensors, Parameters};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, TensorList, TorchError, foreach, params, tensor_id};

use fulgurite_engine::{Error, Result};

/// An averaging function: computes the new average from the current average, the current value, and the number of
/// averaged values.
pub(super) type AvgFn = Arc<dyn Fn(&Tensor, &Tensor, u64) -> Result<Tensor> + Send + Sync>;

/// How values are averaged.
#[derive(Clone)]
pub(super) enum Averaging {
    /// The equally weighted mean.
    Equal,
    /// `average = decay * average + (1 - decay) * value`.
    Exponential(f64),
    /// A custom averaging function.
    With(AvgFn),
}

/// How buffers are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffers {
    /// Buffers are averaged too.
    Average,
    /// Buffers are copied from the model at each update.
    Follow,
    /// Buffers keep their initial values.
    Leave,
}

pub(super) struct AveragedModel {
    names: Vec<String>,
    live: Vec<Tensor>,
    average: Vec<Tensor>,
    /// Further names of tied tensors, with the indices of these tensors.
    tied: Vec<(String, usize)>,
    /// The number of parameters; buffers follow.
    parameters: usize,
    buffers: Buffers,
    averaging: Averaging,
    /// Floating-point tensors to average, by kind.
    groups: Vec<Group>,
    /// Indices of other tensors to average.
    others: Vec<usize>,
    n_averaged: u64,
}

/// Tensors of one kind, updated in one call.
struct Group {
    kind: Kind,
    live: TensorList,
    average: TensorList,
    /// Buffer for the values on the average's device, if that differs from the model's.
    here: Option<TensorList>,
}

impl AveragedModel {
    /// A copy of the store, on `device` or on its own.
    pub(super) fn new(
        vars: &dyn Parameters,
        device: Option<Device>,
        buffers: Buffers,
        averaging: Averaging,
    ) -> Result<AveragedModel, TorchError> {
        let _no_grad = NoGradGuard::new();
        let parameters = params::named_parameters(vars);
        let count = parameters.len();
        let (names, live): (Vec<_>, Vec<_>) = parameters.into_iter().chain(params::named_buffers(vars)).unzip();
        let place = |tied: &Tensor| live.iter().position(|tensor| tensor_id(tensor) == tensor_id(tied));
        let tied = params::tied_names(vars).into_iter();
        let tied = tied.filter_map(|(name, tensor)| Some((name, place(&tensor)?))).collect();
        let copy = |tensor: &Tensor| {
            let options = (tensor.kind(), device.unwrap_or(tensor.device()));
            let mut copy = tensor.f_zeros_like()?.f_to_device(options.1)?;
            copy.f_copy_(tensor)?;
            Ok(copy)
        };
        let average = live.iter().map(copy).collect::<Result<Vec<Tensor>, TorchError>>()?;
        let mut model = AveragedModel {
            names,
            tied,
            live,
            average,
            parameters: count,
            buffers,
            averaging,
            groups: Vec::new(),
            others: Vec::new(),
            n_averaged: 0,
        };
        model.sort_by_kind()?;
        Ok(model)
    }

    fn sort_by_kind(&mut self) -> Result<(), TorchError> {
        let averaged = if self.buffers == Buffers::Average { self.live.len() } else { self.parameters };
        for place in 0..averaged {
            let (live, average) = (&self.live[place], &self.average[place]);
            if !live.is_floating_point() {
                self.others.push(place);
                continue;
            }
            let kind = live.kind();
            let at = match self.groups.iter().position(|group| group.kind == kind) {
                Some(at) => at,
                None => {
                    let (live_list, average) = (TensorList::empty()?, TensorList::empty()?);
                    self.groups.push(Group { kind, live: live_list, average, here: None });
                    self.groups.len() - 1
                }
            };
            let group = &mut self.groups[at];
            group.live.push(live)?;
            group.average.push(average)?;
            if live.device() != average.device() {
                let here = average.f_zeros_like()?;
                if group.here.is_none() {
                    group.here = Some(TensorList::empty()?);
                }
                if let Some(list) = &mut group.here {
                    list.push(&here)?;
                }
            }
        }
        Ok(())
    }

    /// The number of averaged values.
    pub(super) fn n_averaged(&self) -> u64 {
        self.n_averaged
    }

    pub(super) fn set_n_averaged(&mut self, n: u64) {
        self.n_averaged = n;
    }

    /// Updates the average with the model's values. The first update copies them.
    pub(super) fn update(&mut self) -> Result<()> {
        let _no_grad = NoGradGuard::new();
        let n = self.n_averaged;
        for group in &mut self.groups {
            group.update(&self.averaging, n)?;
        }
        for &place in &self.others {
            let (live, average) = (&self.live[place], &mut self.average[place]);
            average.f_copy_(&averaged_number(&self.averaging, average, live, n)?).map_err(TorchError::from)?;
        }
        if self.buffers == Buffers::Follow {
            for (live, average) in self.live[self.parameters..].iter().zip(&mut self.average[self.parameters..]) {
                average.f_copy_(live).map_err(TorchError::from)?;
            }
        }
        self.n_averaged += 1;
        Ok(())
    }

    /// Copies the average into the model: its parameters alone, or with its buffers.
    pub(super) fn copy_to_model(&mut self, with_buffers: bool) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        let count = if with_buffers { self.live.len() } else { self.parameters };
        for (live, average) in self.live.iter_mut().zip(&self.average).take(count) {
            live.f_copy_(average)?;
        }
        Ok(())
    }

    /// Swaps the values of the average and the model, buffers included.
    pub(super) fn swap(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        for (live, average) in self.live.iter_mut().zip(&mut self.average) {
            let mut kept = average.f_zeros_like()?;
            kept.f_copy_(average)?;
            average.f_copy_(live)?;
            live.f_copy_(&kept)?;
        }
        Ok(())
    }

    /// The averages under the names of the module's state dict. The tensors are not copied.
    pub(super) fn state_dict(&self) -> Dict {
        let tied = self.tied.iter().map(|(name, place)| (name, &self.average[*place]));
        let named = self.names.iter().zip(&self.average).chain(tied);
        named.map(|(name, tensor)| (name.as_str().into(), tensor.into())).collect()
    }

    /// Loads the averages from a state dict of the module. Names that the module does not have are ignored.
    pub(super) fn load_state_dict(&mut self, state: &Dict) -> Result<(), TorchError> {
        let averages = self.names.iter().zip(&self.average);
        let averages = averages.fold(NamedTensors::new(), |all, (name, average)| all.buffer(name, average));
        let known: HashSet<&str> = self.names.iter().map(String::as_str).collect();
        let known = state.iter().filter(|(name, _)| name.as_str().is_some_and(|name| known.contains(name)));
        let known: Dict = known.map(|(name, value)| (name.clone(), value.clone())).collect();
        params::load_state_dict(&averages, &known, true).map(drop)
    }
}

impl Group {
    fn update(&mut self, averaging: &Averaging, n: u64) -> Result<()> {
        if let Some(here) = &mut self.here {
            foreach::copy_(here, &self.live)?;
        }
        let values = self.here.as_ref().unwrap_or(&self.live);
        let average = &mut self.average;
        match averaging {
            _ if n == 0 => foreach::copy_(average, values)?,
            Averaging::Equal => foreach::lerp_(average, values, 1.0 / (n + 1) as f64)?,
            Averaging::Exponential(decay) => foreach::lerp_(average, values, 1.0 - decay)?,
            Averaging::With(avg_fn) => {
                for place in 0..average.len() {
                    let mut average = average.get(place)?;
                    let value = values.get(place)?.f_detach().map_err(TorchError::from)?;
                    let new = avg_fn(&average, &value, n)?;
                    average.f_copy_(&new).map_err(TorchError::from)?;
                }
            }
        }
        Ok(())
    }
}

/// Integers, such as counters: averaged in double precision and truncated.
fn averaged_number(averaging: &Averaging, average: &Tensor, live: &Tensor, n: u64) -> Result<Tensor> {
    let here = live.f_to_device(average.device()).map_err(TorchError::from)?;
    let weight = match averaging {
        _ if n == 0 => return Ok(here),
        Averaging::With(avg_fn) => return avg_fn(average, &here, n),
        Averaging::Equal => 1.0 / (n + 1) as f64,
        Averaging::Exponential(decay) => 1.0 - decay,
    };
    let double = |tensor: &Tensor| tensor.f_to_kind(Kind::Double);
    let mixed = double(average).and_then(|average| average.f_lerp(&double(&here)?, weight));
    Ok(mixed.map_err(TorchError::from)?)
}

/// A device by name: `cpu`, `cuda`, `cuda:1`, `mps`.
pub(super) fn device(owner: &str, name: &str) -> Result<Device, Error> {
    let index = |text: &str| usize::from_str(text).ok();
    let device = match name.split_once(':') {
        None if name == "cpu" => Some(Device::Cpu),
        None if name == "cuda" => Some(Device::Cuda(0)),
        None if name == "mps" => Some(Device::Mps),
        Some(("cuda", text)) => index(text).map(Device::Cuda),
        _ => None,
    };
    device.ok_or_else(|| {
        Error::Config(format!(
            "{owner}: there is no device `{name}`; write `cpu`, `cuda`, `cuda:1` or `mps`, or leave `device` out for the module's own"
        ))
    })
}
