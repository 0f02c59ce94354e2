//! [`Batch`]: the type that a loader yields and a step receives.

use std::collections::BTreeMap;

use fulgurite_torch::foreach;
use fulgurite_torch::tch::{Device, Kind, Tensor};

/// A batch: tensors, or nested tuples, arrays, vectors, options, maps and plain values with tensors.
///
/// The trainer moves it to the device, converts its floating-point tensors to the precision's kind, and weighs
/// logged means by its [`size`](Batch::size). Derive it for your own structs and enums with
/// `#[derive(Batch)]`.
///
/// ```
/// use fulgurite_data::Batch;
/// use fulgurite_torch::tch::{Kind, Tensor};
///
/// let batch = (Tensor::from_slice(&[1.0f32, 2.0]), vec!["a".to_string(), "b".to_string()]);
/// assert_eq!(batch.size(), Some(2));
/// assert_eq!(batch.to_float_kind(Kind::Double).0.kind(), Kind::Double);
///
/// #[derive(Batch)]
/// #[batch(crate = "fulgurite_data")] // not needed where the crate `fulgurite` is
/// struct Translation {
///     source: Tensor,
///     target: Tensor,
///     languages: Vec<String>,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a batch",
    note = "a batch is a `Tensor`, a tuple, array, `Vec`, `Option` or `BTreeMap<String, _>` of batches, a number, a string, or a struct or enum with `#[derive(Batch)]`"
)]
pub trait Batch: Send + Sized + 'static {
    /// The same batch with `f` applied to every tensor, in field order.
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self;

    /// The number of samples: the first dimension of the first tensor found (1 for a 0-d tensor), `None` when
    /// there is no tensor.
    fn size(&self) -> Option<i64>;

    /// The same batch on `device`; the copy does not wait for the device when the source is pinned.
    fn to_device(&self, device: Device) -> Self {
        self.map_tensors(&mut |t| {
            if t.device() == device { t.shallow_clone() } else { t.to_device_(device, t.kind(), true, false) }
        })
    }

    /// The same batch with floating-point tensors of `kind`; others are unchanged.
    fn to_float_kind(&self, kind: Kind) -> Self {
        self.map_tensors(&mut |t| if t.is_floating_point() { t.to_kind(kind) } else { t.shallow_clone() })
    }

    /// The same batch: new handles to the same tensors, no data copied.
    fn shallow_clone(&self) -> Self {
        self.map_tensors(&mut |t| t.shallow_clone())
    }
}

impl Batch for Tensor {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        f(self)
    }

    fn size(&self) -> Option<i64> {
        // `Tensor::size` would allocate, and this runs every step.
        if self.dim() == 0 { Some(1) } else { foreach::size(self, 0).ok() }
    }
}

impl<B: Batch> Batch for Vec<B> {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.iter().map(|item| item.map_tensors(f)).collect()
    }

    fn size(&self) -> Option<i64> {
        self.iter().find_map(Batch::size)
    }
}

impl<B: Batch, const N: usize> Batch for [B; N] {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.each_ref().map(|item| item.map_tensors(f))
    }

    fn size(&self) -> Option<i64> {
        self.iter().find_map(Batch::size)
    }
}

impl<B: Batch> Batch for Option<B> {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.as_ref().map(|item| item.map_tensors(f))
    }

    fn size(&self) -> Option<i64> {
        self.as_ref().and_then(Batch::size)
    }
}

impl<B: Batch> Batch for Box<B> {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Box::new(self.as_ref().map_tensors(f))
    }

    fn size(&self) -> Option<i64> {
        self.as_ref().size()
    }
}

/// Walked in the order of the keys.
impl<B: Batch> Batch for BTreeMap<String, B> {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.iter().map(|(key, item)| (key.clone(), item.map_tensors(f))).collect()
    }

    fn size(&self) -> Option<i64> {
        self.values().find_map(Batch::size)
    }
}

macro_rules! plain_batch {
    ($($plain:ty),* $(,)?) => {
        $(impl Batch for $plain {
            fn map_tensors(&self, _: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
                self.clone()
            }

            fn size(&self) -> Option<i64> {
                None
            }
        })*
    };
}

plain_batch!((), bool, char, u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64, String, &'static str);

macro_rules! tuple_batch {
    ($($name:ident $at:tt),*) => {
        impl<$($name: Batch),*> Batch for ($($name,)*) {
            fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
                ($(self.$at.map_tensors(f),)*)
            }

            fn size(&self) -> Option<i64> {
                None$(.or_else(|| self.$at.size()))*
            }
        }
    };
}

tuple_batch!(A 0);
tuple_batch!(A 0, B 1);
tuple_batch!(A 0, B 1, C 2);
tuple_batch!(A 0, B 1, C 2, D 3);
tuple_batch!(A 0, B 1, C 2, D 3, E 4);
tuple_batch!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple_batch!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple_batch!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_the_first_dimension_of_the_first_tensor() {
        assert_eq!(Tensor::zeros([3, 2], (Kind::Float, Device::Cpu)).size(), [3, 2]);
        assert_eq!(Batch::size(&Tensor::zeros([3, 2], (Kind::Float, Device::Cpu))), Some(3));
        assert_eq!(Batch::size(&Tensor::from(1.0)), Some(1));
        assert_eq!((1i64, None::<Tensor>, vec![Tensor::from_slice(&[1, 2])]).size(), Some(2));
        assert_eq!((1i64, "name", String::new()).size(), None);
    }

    #[test]
    fn tensors_are_mapped_in_order_and_plain_values_kept() {
        let batch = (
            Tensor::from(1.0),
            7i64,
            BTreeMap::from([("b".to_string(), Tensor::from(3.0)), ("a".to_string(), Tensor::from(2.0))]),
            [Some(Tensor::from(4.0)), None],
        );
        let mut seen = vec![];
        let doubled = batch.map_tensors(&mut |t| {
            seen.push(t.double_value(&[]));
            t * 2
        });
        assert_eq!(seen, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(doubled.1, 7);
        assert_eq!(doubled.2["a"].double_value(&[]), 4.0);
        assert!(doubled.3[1].is_none());
    }

    #[test]
    fn kinds_change_for_floats_only() {
        let (x, y) = (Tensor::from_slice(&[1.0f32]), Tensor::from_slice(&[1i64])).to_float_kind(Kind::BFloat16);
        assert_eq!((x.kind(), y.kind()), (Kind::BFloat16, Kind::Int64));
        let shared = (x.shallow_clone(),).to_device(Device::Cpu);
        assert_eq!(shared.0.data_ptr(), x.data_ptr());
    }
}
