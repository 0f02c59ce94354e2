//! [`HostCopy`]: a copy of a state in host memory, independent of the tensors that training continues to change.

use std::collections::{HashMap, VecDeque};

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};
use fulgurite_torch::{Value, is_exclusive, storage_id, tensor_id};

/// A state whose tensors are views of separate buffers on the CPU. Tensors that shared memory share it in the copy too.
pub(super) struct HostCopy {
    pub(super) value: Value,
    buffers: Vec<Buffer>,
}

/// A flat piece of host memory.
pub(super) struct Buffer {
    tensor: Tensor,
    wanted: Wanted,
}

/// The requirements of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    kind: Kind,
    len: i64,
    /// The source device. Memory for copies from CUDA is pinned, which makes the copy a single transfer.
    source: Device,
}

impl HostCopy {
    /// Copies the tensors of `value`, into the buffers of an earlier copy where they fit. The other buffers are freed before
    /// new ones are allocated, so that there is never more than one copy.
    pub(super) fn of(value: &Value, old: Vec<Buffer>) -> Result<HostCopy, TchError> {
        let mut old = VecDeque::from(old);
        let mut regions = Regions::default();
        regions.collect(value)?;
        let mut buffers: Vec<Option<Buffer>> = Vec::with_capacity(regions.list.len());
        for region in &regions.list {
            let wanted = region.wanted();
            let fits = old.iter().position(|buffer| buffer.wanted == wanted && is_exclusive(&buffer.tensor));
            buffers.push(fits.and_then(|at| old.remove(at)));
        }
        drop(old);
        let mut filled = Vec::with_capacity(buffers.len());
        for (region, buffer) in regions.list.iter().zip(buffers) {
            let mut buffer = buffer.map_or_else(|| Buffer::new(region.wanted()), Ok)?;
            region.copy_to(&mut buffer.tensor)?;
            filled.push(buffer);
        }
        let mut failed = None;
        let copy = value.map_tensors(&mut |tensor| {
            regions.view(tensor, &filled).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                Tensor::new()
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(HostCopy { value: copy, buffers: filled }),
        }
    }

    /// Releases the buffers for the next copy.
    pub(super) fn into_buffers(self) -> Vec<Buffer> {
        self.buffers
    }
}

impl Buffer {
    fn new(wanted: Wanted) -> Result<Buffer, TchError> {
        let tensor = Tensor::f_empty([wanted.len], (wanted.kind, Device::Cpu))?;
        let tensor = match wanted.source {
            Device::Cuda(_) => tensor.f_pin_memory(wanted.source)?,
            _ => tensor,
        };
        Ok(Buffer { tensor, wanted })
    }
}

/// A range of a storage that is copied as a whole.
struct Region {
    kind: Kind,
    /// The addresses of its first element and past its last.
    start: usize,
    end: usize,
    /// The tensor that begins at `start`.
    first: Tensor,
    /// Several tensors are views of it.
    shared: bool,
}

impl Region {
    fn wanted(&self) -> Wanted {
        let len = match self.is_flat() {
            true => self.extent(),
            false => self.first.numel() as i64,
        };
        Wanted { kind: self.kind, len, source: self.first.device() }
    }

    /// The length in elements.
    fn extent(&self) -> i64 {
        ((self.end - self.start) / self.kind.elt_size_in_bytes()) as i64
    }

    /// Whether its memory is copied contiguously: always if it is shared; for a single tensor if it has no gaps.
    fn is_flat(&self) -> bool {
        self.shared || is_plain(&self.first) && self.extent() <= self.first.numel() as i64
    }

    fn copy_to(&self, buffer: &mut Tensor) -> Result<(), TchError> {
        let source = self.first.f_detach()?;
        match self.is_flat() {
            true => buffer.f_copy_(&source.f_as_strided([self.extent()], [1], None)?)?,
            false => buffer.f_view(source.size().as_slice())?.f_copy_(&source)?,
        };
        Ok(())
    }
}

/// The regions of all tensors of a state.
#[derive(Default)]
struct Regions {
    list: Vec<Region>,
    /// By storage and kind: a checkpoint file does not preserve sharing between kinds either.
    by_storage: HashMap<(usize, Kind), usize>,
    /// By tensor.
    of_tensor: HashMap<usize, usize>,
}

impl Regions {
    fn collect(&mut self, value: &Value) -> Result<(), TchError> {
        match value {
            Value::Tensor(tensor) => self.add(tensor),
            Value::List(items) | Value::Tuple(items) => items.iter().try_for_each(|item| self.collect(item)),
            Value::Dict(dict) => dict.iter().try_for_each(|(_, item)| self.collect(item)),
            _ => Ok(()),
        }
    }

    /// Tensors without memory (undefined, sparse, empty) have no region.
    fn add(&mut self, tensor: &Tensor) -> Result<(), TchError> {
        let id = tensor_id(tensor);
        let (Ok(storage), Ok(kind)) = (storage_id(tensor), tensor.f_kind()) else { return Ok(()) };
        if tensor.numel() == 0 || self.of_tensor.contains_key(&id) {
            return Ok(());
        }
        let start = tensor.data_ptr() as usize;
        let last: i64 = tensor.size().iter().zip(tensor.stride()).map(|(size, stride)| (size - 1) * stride).sum();
        let end = start + (last as usize + 1) * kind.elt_size_in_bytes();
        let region = match self.by_storage.get(&(storage, kind)).filter(|_| is_plain(tensor)) {
            Some(&at) => {
                let region = &mut self.list[at];
                if start < region.start {
                    (region.start, region.first) = (start, tensor.shallow_clone());
                }
                region.end = region.end.max(end);
                region.shared = true;
                at
            }
            None => {
                self.list.push(Region { kind, start, end, first: tensor.shallow_clone(), shared: false });
                if is_plain(tensor) {
                    self.by_storage.insert((storage, kind), self.list.len() - 1);
                }
                self.list.len() - 1
            }
        };
        self.of_tensor.insert(id, region);
        Ok(())
    }

    /// The copy of `tensor`: the same view into the buffer of its region.
    fn view(&self, tensor: &Tensor, buffers: &[Buffer]) -> Result<Tensor, TchError> {
        let Some(&at) = self.of_tensor.get(&tensor_id(tensor)) else {
            // Undefined and sparse tensors are rejected when the file is written.
            return if storage_id(tensor).is_ok() { tensor.f_empty_like() } else { Ok(tensor.shallow_clone()) };
        };
        let (region, buffer) = (&self.list[at], &buffers[at].tensor);
        let view = match region.is_flat() {
            true => {
                let offset = (tensor.data_ptr() as usize - region.start) / region.kind.elt_size_in_bytes();
                buffer.f_as_strided(tensor.size().as_slice(), tensor.stride().as_slice(), offset as i64)?
            }
            false => buffer.f_view(tensor.size().as_slice())?,
        };
        match tensor.requires_grad() {
            true => view.f_detach()?.f_set_requires_grad(true),
            false => Ok(view),
        }
    }
}

/// Whether the memory holds the actual values: conjugation and negation may be pending.
fn is_plain(tensor: &Tensor) -> bool {
    matches!((tensor.f_is_conj(), tensor.f_is_neg()), (Ok(false), Ok(false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulgurite_torch::Dict;

    const FLOATS: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn state(tensors: &[&Tensor]) -> Value {
        Value::List(tensors.iter().map(|tensor| Value::Tensor(tensor.shallow_clone())).collect())
    }

    fn tensors(copy: &HostCopy) -> Vec<Tensor> {
        copy.value.as_list().unwrap().iter().map(|value| value.as_tensor().unwrap().shallow_clone()).collect()
    }

    #[test]
    fn the_copy_keeps_values_layout_and_gradient_flag_and_nothing_of_the_original() {
        let mut weight = Tensor::arange(12, FLOATS).view([3, 4]);
        let others = [
            weight.transpose(0, 1).copy().transpose(0, 1),
            Tensor::from(7i64),
            Tensor::zeros([0, 3], FLOATS),
            Tensor::from_slice(&[true, false]),
            Tensor::from(1.5f32).expand([1000, 1000], false),
            Tensor::arange(1000, FLOATS).view([10, 100]).select(1, 3),
            Tensor::complex(&Tensor::from_slice(&[1.0f32]), &Tensor::from_slice(&[2.0f32])).conj(),
            Tensor::ones([2], FLOATS).set_requires_grad(true),
        ];
        let before: Vec<Tensor> = others.iter().map(Tensor::copy).collect();
        let all: Vec<&Tensor> = std::iter::once(&weight).chain(&others).collect();
        let copy = HostCopy::of(&state(&all), Vec::new()).unwrap();
        let total: i64 = copy.buffers.iter().map(|buffer| buffer.wanted.len).sum();
        assert_eq!(
            total,
            12 + 12 + 1 + 2 + 1 + 10 + 1 + 2,
            "expanded and sliced tensors take only the memory of their elements"
        );
        let _ = weight.fill_(-1.0);
        let copied = tensors(&copy);
        assert_eq!(copied[0], Tensor::arange(12, FLOATS).view([3, 4]));
        for ((copied, original), before) in copied[1..].iter().zip(&others).zip(&before) {
            assert_eq!((copied.kind(), copied.size()), (original.kind(), original.size()));
            assert!(copied.equal(before), "{copied:?}");
            assert_eq!(copied.requires_grad(), original.requires_grad());
        }
        assert_eq!(copied[1].stride(), others[0].stride());
        assert_eq!(copied[5].stride(), [0, 0]);
    }

    #[test]
    fn tied_tensors_stay_tied() {
        let base = Tensor::arange(10, FLOATS);
        let (front, back) = (base.narrow(0, 1, 4), base.narrow(0, 3, 5));
        let tied = state(&[&back, &front, &front.shallow_clone(), &back.view([5, 1])]);
        let copy = HostCopy::of(&tied, Vec::new()).unwrap();
        assert_eq!(copy.buffers.len(), 1);
        assert_eq!(copy.buffers[0].wanted.len, 7, "elements 1 to 7");
        assert_eq!(copy.value, tied);
        let copied = tensors(&copy);
        let _ = copied[1].shallow_clone().fill_(0.5);
        assert_eq!(copied[0].double_value(&[0]), 0.5);
        assert_eq!(base.double_value(&[3]), 3.0);
    }

    #[test]
    fn buffers_are_reused_unless_the_copy_is_alive() {
        let state = |scale: f64| {
            let weight = Tensor::arange(6, FLOATS) * scale;
            Value::Dict(Dict::new().with("weight", weight).with("step", Tensor::from(scale as i64)))
        };
        let address = |copy: &HostCopy| copy.value.as_dict().unwrap().tensor("weight").unwrap().data_ptr() as usize;
        let first = HostCopy::of(&state(1.0), Vec::new()).unwrap();
        let (memory, kept) = (address(&first), first.value.clone());
        drop(kept);
        let HostCopy { value, buffers } = first;
        drop(value);
        let second = HostCopy::of(&state(2.0), buffers).unwrap();
        assert_eq!(address(&second), memory);
        assert_eq!(second.value, state(2.0));

        let kept = second.value.clone();
        let HostCopy { value, buffers } = second;
        drop(value);
        let third = HostCopy::of(&state(3.0), buffers).unwrap();
        assert_ne!(address(&third), memory);
        assert_eq!((kept, third.value), (state(2.0), state(3.0)));
    }
}
