//! Passes a sequence of tensors to the bridge as an array of pointers, without allocating in every call.

use std::cell::Cell;

use torch_sys::C_tensor;

use crate::tch::Tensor;

thread_local! {
    static BUFFER: Cell<Vec<*const C_tensor>> = const { Cell::new(Vec::new()) };
}

/// Calls `use_pointers` with the pointers of `tensors`, in their order; they are valid during the call.
///
/// The array is kept per thread. It is taken out while in use, so a call inside a call works too (and allocates).
pub(crate) fn with_pointers<'a, R>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
    use_pointers: impl FnOnce(&[*const C_tensor]) -> R,
) -> R {
    let mut buffer = BUFFER.take();
    buffer.clear();
    buffer.extend(tensors.into_iter().map(Tensor::as_ptr));
    let result = use_pointers(&buffer);
    BUFFER.set(buffer);
    result
}
