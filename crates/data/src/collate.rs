//! From items to a batch: [`Collate`], and [`DefaultCollate`] with the [`Stack`] trait behind it.

use std::any::Any;
use std::collections::BTreeMap;

use fulgurite_torch::tch::Tensor;

use crate::{Batch, BoxError, ItemRng, ShareWithWorkers};

/// A batch that a dataset collated itself, equal to the result of [`DefaultCollate`].
pub type Stacked = Box<dyn Any + Send>;

/// Takes the batch out of a [`Stacked`], if it is of this type.
pub type AcceptStacked<B> = fn(Stacked) -> Option<B>;

/// Collates items into a batch. Implemented by [`DefaultCollate`] and by closures
/// `Fn(Vec<T>) -> Result<B, BoxError>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot put items of type `{T}` into a batch",
    note = "the default collate stacks tensors, numbers, strings, tuples, arrays, `Vec`, `Option` and `BTreeMap<String, _>` of those, and structs with `#[derive(Stack)]`; for anything else give the loader a `.collate(|items: Vec<{T}>| ...)`",
    note = "a closure that holds a `Tensor` holds it as a `fulgurite::data::SharedTensor`"
)]
pub trait Collate<T>:
    Send
    + ShareWithWorkers // A `Tensor` is not `Sync`: hold it as a `fulgurite::data::SharedTensor`.
    + 'static
{
    /// The type of a batch.
    type Batch: Batch;

    /// The batch of `items`, of which there is at least one.
    fn collate(&self, items: Vec<T>) -> Result<Self::Batch, BoxError>;

    /// [`collate`](Collate::collate) with a generator of random numbers that belongs to this batch of this epoch. This is
    /// what a [`DataLoader`](crate::DataLoader) calls; by default, the generator is not used.
    fn collate_seeded(&self, items: Vec<T>, rng: &mut ItemRng) -> Result<Self::Batch, BoxError> {
        let _ = rng;
        self.collate(items)
    }

    /// For a collate function equivalent to [`Dataset::get_stacked`](crate::Dataset::get_stacked): how to use that
    /// instead. Any other leaves this `None`, and its items are loaded one by one.
    fn accept_stacked(&self) -> Option<AcceptStacked<Self::Batch>> {
        None
    }
}

impl<T, B, F> Collate<T> for F
where
    B: Batch,
    F: Fn(Vec<T>) -> Result<B, BoxError> + Send + Sync + 'static,
{
    type Batch = B;

    fn collate(&self, items: Vec<T>) -> Result<B, BoxError> {
        self(items)
    }
}

/// Stacks tensors along a new first dimension, turns numbers into tensors, and does so inside tuples, arrays, vectors,
/// options, maps and structs with `#[derive(Stack)]`. Follows `torch.utils.data.default_collate`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultCollate;

impl<T: Stack> Collate<T> for DefaultCollate {
    type Batch = T::Batch;

    fn collate(&self, items: Vec<T>) -> Result<T::Batch, BoxError> {
        T::stack(items)
    }

    fn accept_stacked(&self) -> Option<AcceptStacked<T::Batch>> {
        Some(|stacked| stacked.downcast().ok().map(|batch| *batch))
    }
}

/// An item that [`DefaultCollate`] can collate. `#[derive(Stack)]` implements it for structs of tensors.
pub trait Stack: Sized {
    /// The type of a batch of them.
    type Batch: Batch;

    /// The batch of `items`, of which there is at least one.
    fn stack(items: Vec<Self>) -> Result<Self::Batch, BoxError>;
}

/// `[...]` each become `[N, ...]`; shapes that differ are an error.
impl Stack for Tensor {
    type Batch = Tensor;

    fn stack(items: Vec<Tensor>) -> Result<Tensor, BoxError> {
        Tensor::f_stack(&items, 0).map_err(|error| {
            let first = items.first().map(Tensor::size).unwrap_or_default();
            match items.iter().map(Tensor::size).enumerate().find(|(_, size)| *size != first) {
                Some((at, size)) => format!(
                    "tensors of a batch need one shape, but the first is {first:?} and number {} is {size:?}; \
                     resize or pad them, or give the loader a `.collate(...)`",
                    at + 1
                )
                .into(),
                None => error.into(),
            }
        })
    }
}

macro_rules! stack_numbers {
    ($($number:ty),*) => {
        $(
            /// A tensor `[N]` of the same kind of number.
            impl Stack for $number {
                type Batch = Tensor;

                fn stack(items: Vec<$number>) -> Result<Tensor, BoxError> {
                    Ok(Tensor::f_from_slice(&items)?)
                }
            }
        )*
    };
}

stack_numbers!(bool, u8, i8, i16, i32, i64, f32, f64);

macro_rules! stack_counts {
    ($($number:ty),*) => {
        $(
            /// A tensor `[N]` of `i64`, libtorch's integer for counts and labels.
            impl Stack for $number {
                type Batch = Tensor;

                fn stack(items: Vec<$number>) -> Result<Tensor, BoxError> {
                    let items = items.into_iter().map(i64::try_from).collect::<Result<Vec<i64>, _>>()?;
                    Ok(Tensor::f_from_slice(&items)?)
                }
            }
        )*
    };
}

stack_counts!(u16, u32, u64, usize);

macro_rules! keep_text {
    ($($text:ty),*) => {
        $(
            /// Text stays as it is, in a vector.
            impl Stack for $text {
                type Batch = Vec<$text>;

                fn stack(items: Vec<$text>) -> Result<Vec<$text>, BoxError> {
                    Ok(items)
                }
            }
        )*
    };
}

keep_text!(String, &'static str);

/// Transposed: a vector with the first elements stacked, the second elements stacked, and so on.
impl<T: Stack> Stack for Vec<T> {
    type Batch = Vec<T::Batch>;

    fn stack(items: Vec<Vec<T>>) -> Result<Vec<T::Batch>, BoxError> {
        let (count, len) = (items.len(), items.first().map_or(0, Vec::len));
        let mut columns: Vec<Vec<T>> = (0..len).map(|_| Vec::with_capacity(count)).collect();
        for (at, item) in items.into_iter().enumerate() {
            if item.len() != len {
                let found = item.len();
                return Err(format!(
                    "vectors of a batch need one length, but the first has {len} elements and number {} has {found}",
                    at + 1
                )
                .into());
            }
            columns.iter_mut().zip(item).for_each(|(column, element)| column.push(element));
        }
        columns.into_iter().map(T::stack).collect()
    }
}

/// As a vector of the same length.
impl<T: Stack, const N: usize> Stack for [T; N] {
    type Batch = Vec<T::Batch>;

    fn stack(items: Vec<[T; N]>) -> Result<Vec<T::Batch>, BoxError> {
        Stack::stack(items.into_iter().map(Vec::from).collect::<Vec<Vec<T>>>())
    }
}

/// All or none of the items must have a value.
impl<T: Stack> Stack for Option<T> {
    type Batch = Option<T::Batch>;

    fn stack(items: Vec<Option<T>>) -> Result<Option<T::Batch>, BoxError> {
        let count = items.len();
        let present: Vec<T> = items.into_iter().flatten().collect();
        match present.len() {
            0 => Ok(None),
            n if n == count => T::stack(present).map(Some),
            n => Err(format!(
                "{n} of the {count} items have a value that the others lack; give all of them one, or none"
            )
            .into()),
        }
    }
}

/// Key by key; all items must have the same keys.
impl<T: Stack> Stack for BTreeMap<String, T> {
    type Batch = BTreeMap<String, T::Batch>;

    fn stack(items: Vec<Self>) -> Result<Self::Batch, BoxError> {
        let mut columns: BTreeMap<String, Vec<T>> = BTreeMap::new();
        let count = items.len();
        for (key, value) in items.into_iter().flatten() {
            columns.entry(key).or_default().push(value);
        }
        if let Some((key, column)) = columns.iter().find(|(_, column)| column.len() != count) {
            return Err(format!(
                "only {} of the {count} items have the key `{key}`; all need the same keys",
                column.len()
            )
            .into());
        }
        columns.into_iter().map(|(key, column)| Ok((key, T::stack(column)?))).collect()
    }
}

macro_rules! stack_tuple {
    ($($name:ident $at:tt),*) => {
        impl<$($name: Stack),*> Stack for ($($name,)*) {
            type Batch = ($($name::Batch,)*);

            fn stack(items: Vec<Self>) -> Result<Self::Batch, BoxError> {
                let mut columns = ($(Vec::<$name>::with_capacity(items.len()),)*);
                for item in items {
                    $(columns.$at.push(item.$at);)*
                }
                Ok(($($name::stack(columns.$at)?,)*))
            }
        }
    };
}

stack_tuple!(A 0);
stack_tuple!(A 0, B 1);
stack_tuple!(A 0, B 1, C 2);
stack_tuple!(A 0, B 1, C 2, D 3);
stack_tuple!(A 0, B 1, C 2, D 3, E 4);
stack_tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
stack_tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
stack_tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

#[cfg(test)]
mod tests {
    use fulgurite_torch::tch::{Device, Kind};

    use super::*;

    fn error<T: Stack>(items: Vec<T>) -> String {
        T::stack(items).err().unwrap().to_string()
    }

    #[test]
    fn tensors_and_numbers_become_tensors_of_torch_s_kinds() {
        let item =
            |n: i64| (Tensor::from_slice(&[n, n]), n, n as f64, n as usize, true, format!("{n}"), [n as f32, 0.5]);
        let (x, int, float, count, flag, name, pair) = Stack::stack(vec![item(1), item(2), item(3)]).unwrap();
        assert_eq!(x, Tensor::from_slice(&[1i64, 1, 2, 2, 3, 3]).view([3, 2]));
        assert_eq!(int, Tensor::from_slice(&[1i64, 2, 3]));
        assert_eq!(float, Tensor::from_slice(&[1f64, 2., 3.]));
        assert_eq!((count.kind(), flag.kind()), (Kind::Int64, Kind::Bool));
        assert_eq!(name, ["1", "2", "3"]);
        assert_eq!(pair[0], Tensor::from_slice(&[1f32, 2., 3.]));
        assert_eq!(pair[1].size(), [3]);
    }

    #[test]
    fn shapes_lengths_and_keys_that_differ_are_explained() {
        let shape = |s: &[i64]| Tensor::zeros(s, (Kind::Float, Device::Cpu));
        assert_eq!(
            error(vec![shape(&[2, 3]), shape(&[2, 3]), shape(&[2, 4])]),
            "tensors of a batch need one shape, but the first is [2, 3] and number 3 is [2, 4]; \
             resize or pad them, or give the loader a `.collate(...)`"
        );
        assert_eq!(
            error(vec![vec![1i64], vec![1, 2]]),
            "vectors of a batch need one length, but the first has 1 elements and number 2 has 2"
        );
        assert_eq!(
            error(vec![Some(1i64), None, None]),
            "1 of the 3 items have a value that the others lack; give all of them one, or none"
        );
        let map = |key: &str| BTreeMap::from([(key.to_string(), 1i64)]);
        assert_eq!(error(vec![map("a"), map("b")]), "only 1 of the 2 items have the key `a`; all need the same keys");
    }
}
