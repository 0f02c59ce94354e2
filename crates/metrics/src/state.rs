//! [`State`]: the tensors that a metric accumulates, and how two of them become one.

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};
use fulgurite_torch::{Dict, Value};

use crate::MetricError;

/// A tensor of a metric's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in the state dict.
    pub name: &'static str,
    /// How the tensors of two batches, or of two ranks, are reduced to one.
    pub reduction: Reduction,
}

impl Field {
    /// A field called `name`.
    pub const fn new(name: &'static str, reduction: Reduction) -> Field {
        Field { name, reduction }
    }
}

/// How two tensors of the same field are reduced to one. Unlike the `ReduceOp` of collective operations, it can concatenate,
/// and its mean is weighted by the number of updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Sum.
    Sum,
    /// Mean, weighted by the number of updates.
    Mean,
    /// Elementwise minimum; NaN propagates.
    Min,
    /// Elementwise maximum; NaN propagates.
    Max,
    /// Concatenation along the first dimension.
    Cat,
}

const UPDATES: &str = "updates";

/// What was accumulated in at least one update.
pub(crate) struct State {
    parts: Vec<Part>,
    updates: i64,
}

enum Part {
    Reduced(Tensor),
    Listed(Vec<Tensor>),
}

impl State {
    pub(crate) fn of_batch(fields: &[Field], batch: Vec<Tensor>) -> State {
        let part = |(field, tensor): (&Field, Tensor)| match field.reduction {
            Reduction::Cat => Part::Listed(vec![tensor]),
            _ => Part::Reduced(tensor),
        };
        State { parts: fields.iter().zip(batch).map(part).collect(), updates: 1 }
    }

    /// Adds `other`. What is held follows to the device of what comes.
    pub(crate) fn merge(&mut self, fields: &[Field], other: State) -> Result<(), TchError> {
        let (held, came) = (self.updates as f64, other.updates as f64);
        for ((field, part), other) in fields.iter().zip(&mut self.parts).zip(other.parts) {
            match (part, other) {
                (Part::Listed(tensors), Part::Listed(others)) => tensors.extend(others),
                (Part::Reduced(a), Part::Reduced(b)) => {
                    // A number of the host adds to a tensor of any device.
                    let here = if b.dim() == 0 && b.device() == Device::Cpu {
                        a.shallow_clone()
                    } else {
                        a.f_to_device(b.device())?
                    };
                    *a = match field.reduction {
                        Reduction::Min => here.f_minimum(&b)?,
                        Reduction::Max => here.f_maximum(&b)?,
                        Reduction::Mean => {
                            // A product could be beyond the range of a narrow kind.
                            let wide = |t: &Tensor| t.f_to_kind(accumulator(t.device()));
                            let sum = wide(&here)?.f_mul_scalar(held)?.f_add(&wide(&b)?.f_mul_scalar(came)?)?;
                            sum.f_div_scalar(held + came)?
                        }
                        Reduction::Sum | Reduction::Cat => here.f_add(&b)?,
                    };
                }
                // Parts are made from the same fields.
                _ => {}
            }
        }
        self.updates += other.updates;
        Ok(())
    }

    /// One tensor per field; what is listed gets concatenated, once.
    pub(crate) fn tensors(&mut self) -> Result<Vec<Tensor>, TchError> {
        let tensor = |part: &mut Part| match part {
            Part::Reduced(tensor) => Ok(tensor.shallow_clone()),
            Part::Listed(tensors) => {
                if tensors.len() > 1 {
                    let device = tensors.last().map_or(Device::Cpu, Tensor::device);
                    let here = tensors.iter().map(|t| t.f_to_device(device)).collect::<Result<Vec<_>, _>>()?;
                    *tensors = vec![Tensor::f_cat(&here, 0)?];
                }
                Ok(tensors[0].shallow_clone())
            }
        };
        self.parts.iter_mut().map(tensor).collect()
    }

    /// The tensors by name, and the number of updates; only that number, 0, of a `None`.
    pub(crate) fn to_dict(state: Option<&State>, fields: &[Field]) -> Dict {
        let mut dict = Dict::new().with(UPDATES, state.map_or(0, |state| state.updates));
        for (field, part) in fields.iter().zip(state.map_or(&[][..], |state| &state.parts)) {
            dict.set(
                field.name,
                match part {
                    Part::Reduced(tensor) => Value::from(tensor),
                    Part::Listed(tensors) => Value::List(tensors.iter().map(Value::from).collect()),
                },
            );
        }
        dict
    }

    /// What [`State::to_dict`] wrote. `like` is the state before the first update: tensors of several elements there
    /// say which shape is expected.
    pub(crate) fn from_dict(
        metric: &'static str,
        fields: &[Field],
        like: Option<&[Tensor]>,
        dict: &Dict,
    ) -> Result<Option<State>, MetricError> {
        let updates = dict.int(UPDATES)?;
        if updates == 0 {
            return Ok(None);
        }
        let mut parts = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            parts.push(match field.reduction {
                Reduction::Cat => {
                    let items = dict.list(field.name)?.iter().filter_map(Value::as_tensor);
                    let tensors: Vec<Tensor> = items.map(Tensor::shallow_clone).collect();
                    if tensors.is_empty() {
                        let message = format!("`{}` holds no tensor after {updates} updates", field.name);
                        return Err(MetricError::State { metric, message });
                    }
                    Part::Listed(tensors)
                }
                _ => {
                    let tensor = dict.tensor(field.name)?;
                    if let Some(like) = like.and_then(|like| like.get(index))
                        && like.dim() > 0
                        && like.size() != tensor.size()
                    {
                        let (saved, expected) = (tensor.size(), like.size());
                        let message = format!(
                            "`{}` has shape {saved:?} and {expected:?} was expected: it was saved by a metric with \
                             other settings",
                            field.name
                        );
                        return Err(MetricError::State { metric, message });
                    }
                    Part::Reduced(tensor.shallow_clone())
                }
            });
        }
        Ok(Some(State { parts, updates }))
    }
}

/// The kind in which sums are accumulated: `f64`, where the device has it.
pub(crate) fn accumulator(device: Device) -> Kind {
    if device == Device::Mps { Kind::Float } else { Kind::Double }
}
