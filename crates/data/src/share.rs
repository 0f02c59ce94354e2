//! [`ShareWithWorkers`]: what worker threads use at the same time.

/// What the worker threads of a loader can use at the same time: everything that is [`Sync`]. There is nothing to implement.
///
/// A [`Tensor`](fulgurite_torch::tch::Tensor) is not `Sync`, because any handle of it can change it in place. A dataset, a
/// closure or a collate function holds it as a [`SharedTensor`](crate::SharedTensor), which can only be read:
///
/// ```
/// use fulgurite_data::torch::tch::Tensor;
/// use fulgurite_data::{Dataset, InMemory, SharedTensor};
///
/// let embeddings = SharedTensor::new(Tensor::from_slice(&[0.5f32, 1.5, 2.5]))?;
/// let items = InMemory::new([2usize, 0]).try_map(move |word, _| Ok(embeddings.get(word)?));
/// # Ok::<(), fulgurite_data::torch::TorchError>(())
/// ```
///
/// With the tensor itself it does not compile:
///
/// ```compile_fail,E0277
/// use fulgurite_data::torch::tch::Tensor;
/// use fulgurite_data::{Dataset, InMemory};
///
/// let embeddings = Tensor::from_slice(&[0.5f32, 1.5, 2.5]);
/// let items = InMemory::new([2i64, 0]).map(move |word, _| embeddings.get(word));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared by the worker threads of a loader",
    label = "this is not `Sync`",
    note = "a `Tensor` is not `Sync`: hold it as a `fulgurite::data::SharedTensor` (`SharedTensor::new(tensor)?`), which can only be read",
    note = "instead of a `Cell` or an `Rc`, hold an atomic, a `Mutex` or an `Arc`"
)]
pub trait ShareWithWorkers: Sync {}

// So that the compiler says the above, and not that a `*mut C_tensor` deep within cannot be shared.
#[diagnostic::do_not_recommend]
impl<T: Sync + ?Sized> ShareWithWorkers for T {}
