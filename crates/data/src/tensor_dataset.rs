//! [`TensorDataset`]: samples that are already tensors.

use std::marker::PhantomData;
use std::sync::Arc;

use fulgurite_torch::SharedTensor;
use fulgurite_torch::tch::Tensor;

use crate::{BoxError, DataError, Dataset, ItemRng, Stack, Stacked};

/// One or several tensors of one length, indexed along their first dimension.
///
/// An item is a tuple of slices (copies: nothing a step does reaches the dataset). A loader without a `map` in between
/// gathers a whole batch with one operation per tensor. Clones share the tensors.
///
/// ```
/// use fulgurite_data::{Dataset, TensorDataset};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let images = Tensor::zeros([100, 1, 28, 28], (Kind::Float, Device::Cpu));
/// let labels = Tensor::zeros([100], (Kind::Int64, Device::Cpu));
/// let dataset = TensorDataset::new((images, labels))?;
/// assert_eq!(dataset.len(), 100);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug)]
pub struct TensorDataset<T> {
    tensors: Arc<[SharedTensor]>,
    len: usize,
    item: PhantomData<fn() -> T>,
}

impl<T> Clone for TensorDataset<T> {
    fn clone(&self) -> Self {
        TensorDataset { tensors: Arc::clone(&self.tensors), len: self.len, item: PhantomData }
    }
}

/// The tensors of a [`TensorDataset`]: one, or a tuple of up to six.
pub trait Tensors: Stack<Batch = Self> + Send + 'static {
    /// The tensors, in order.
    fn into_vec(self) -> Vec<Tensor>;

    /// The same from as many tensors; `None` when there are fewer.
    fn from_tensors(tensors: impl Iterator<Item = Tensor>) -> Option<Self>;
}

impl<T: Tensors> TensorDataset<T> {
    /// A dataset of the slices of `tensors`, which need first dimensions of one size.
    pub fn new(tensors: T) -> Result<TensorDataset<T>, DataError> {
        let tensors = tensors.into_vec();
        let sizes: Vec<Vec<i64>> = tensors.iter().map(Tensor::size).collect();
        if sizes.iter().any(|size| size.is_empty()) || sizes.iter().any(|size| size[0] != sizes[0][0]) {
            return Err(DataError::Setting(format!(
                "tensors of a TensorDataset need a first dimension of one size, but their shapes are {sizes:?}"
            )));
        }
        let shared = |tensor| {
            SharedTensor::new(tensor).map_err(|source| DataError::Torch { doing: "sharing a tensor".into(), source })
        };
        let tensors = tensors.into_iter().map(shared).collect::<Result<Arc<[_]>, _>>()?;
        Ok(TensorDataset { len: tensors.first().map_or(0, SharedTensor::len), tensors, item: PhantomData })
    }

    /// Copies of its tensors.
    pub fn tensors(&self) -> Result<T, DataError> {
        self.gather(SharedTensor::to_tensor)
            .map_err(|source| DataError::Torch { doing: "copying a dataset".into(), source })
    }

    fn gather(
        &self,
        read: impl Fn(&SharedTensor) -> Result<Tensor, fulgurite_torch::TorchError>,
    ) -> Result<T, fulgurite_torch::TorchError> {
        let tensors = self.tensors.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let available = tensors.len();
        // Never missing: the tensors came from a `T`.
        T::from_tensors(tensors.into_iter()).ok_or(fulgurite_torch::TorchError::OutOfRange {
            start: 0,
            len: available + 1,
            available,
        })
    }
}

impl<T: Tensors> Dataset for TensorDataset<T> {
    type Item = T;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize, _: &mut ItemRng) -> Result<T, BoxError> {
        Ok(self.gather(|tensor| tensor.get(index))?)
    }

    fn get_stacked(&self, indices: &[usize]) -> Option<Result<Stacked, BoxError>> {
        let indices: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
        let batch = self.gather(|tensor| tensor.index_select(&indices));
        Some(batch.map(|batch| Box::new(batch) as Stacked).map_err(Into::into))
    }
}

impl Tensors for Tensor {
    fn into_vec(self) -> Vec<Tensor> {
        vec![self]
    }

    fn from_tensors(mut tensors: impl Iterator<Item = Tensor>) -> Option<Tensor> {
        tensors.next()
    }
}

macro_rules! tensor_tuple {
    ($($name:ident)*) => {
        impl Tensors for ($(tensor_tuple!(@tensor $name),)*) {
            fn into_vec(self) -> Vec<Tensor> {
                #[allow(non_snake_case)]
                let ($($name,)*) = self;
                vec![$($name),*]
            }

            fn from_tensors(mut tensors: impl Iterator<Item = Tensor>) -> Option<Self> {
                Some(($({
                    let $name = tensors.next()?;
                    $name
                },)*))
            }
        }
    };
    (@tensor $name:ident) => { Tensor };
}

tensor_tuple!(a);
tensor_tuple!(a b);
tensor_tuple!(a b c);
tensor_tuple!(a b c d);
tensor_tuple!(a b c d e);
tensor_tuple!(a b c d e f);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Collate, DefaultCollate, seed::ItemRngs};

    #[test]
    fn the_fast_path_equals_stacking_items() {
        let dataset = TensorDataset::new((
            Tensor::arange(12, (fulgurite_torch::tch::Kind::Float, fulgurite_torch::tch::Device::Cpu)).view([6, 2]),
            Tensor::arange(6, (fulgurite_torch::tch::Kind::Int64, fulgurite_torch::tch::Device::Cpu)),
        ))
        .unwrap();
        let mut rng = ItemRngs::new(0, 0).at(0);
        let indices = [5, 0, 3, 3];
        let items = indices.iter().map(|&i| dataset.get(i, &mut rng).unwrap()).collect();
        let (x, y) = DefaultCollate.collate(items).unwrap();
        let stacked = dataset.get_stacked(&indices).unwrap().unwrap().downcast::<(Tensor, Tensor)>().unwrap();
        assert_eq!(stacked.0, x);
        assert_eq!(stacked.1, y);
        assert_eq!(dataset.clone().tensors().unwrap().0.size(), [6, 2]);
    }

    #[test]
    fn lengths_that_differ_are_explained() {
        let error = TensorDataset::new((Tensor::from_slice(&[1, 2]), Tensor::from_slice(&[1]))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensors of a TensorDataset need a first dimension of one size, but their shapes are [[2], [1]]"
        );
        assert!(TensorDataset::new(Tensor::from(1.0)).is_err());
    }
}
