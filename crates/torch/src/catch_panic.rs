//! [`catch_panic`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::modes::GradModeRestorer;
use crate::without_backtrace;

/// Runs `work`, and returns the message of a panic in it, without libtorch's backtrace. Whether this thread records gradients is
/// restored: `tch::no_grad` leaves them off if its closure panics.
///
/// ```
/// use fulgurite_torch::catch_panic;
/// use fulgurite_torch::tch::{Tensor, no_grad};
///
/// assert_eq!(catch_panic(|| 1 + 1), Ok(2));
/// assert_eq!(catch_panic(|| no_grad(|| panic!("out of {}", "tape"))), Err::<(), _>("out of tape".to_owned()));
/// let weight = Tensor::from(1.0).set_requires_grad(true);
/// assert!((&weight * 2.0).requires_grad());
/// ```
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let _restorer = GradModeRestorer::new();
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("a value that is not text");
        without_backtrace(text).to_owned()
    })
}
