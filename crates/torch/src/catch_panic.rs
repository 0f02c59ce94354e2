//! [`catch_panic`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::modes::{records_gradients, set_records_gradients};
use crate::panic_hook::while_catching;
use crate::readable_message;

/// Runs `work`, and returns the message of a panic in it: of an error of libtorch, what it says and the line of the program, as
/// far as they are known ([`shorten_panics`](crate::shorten_panics)). After a panic this thread records
/// gradients if it did before: `tch::no_grad` leaves them off if its closure panics. What `work` sets without a panic stays.
///
/// ```
/// use fulgurite_torch::catch_panic;
/// use fulgurite_torch::grad::NoGradGuard;
/// use fulgurite_torch::tch::{Tensor, no_grad};
///
/// assert_eq!(catch_panic(|| 1 + 1), Ok(2));
/// assert_eq!(catch_panic(|| no_grad(|| panic!("out of {}", "tape"))), Err::<(), _>("out of tape".to_owned()));
/// let weight = Tensor::from(1.0).set_requires_grad(true);
/// assert!((&weight * 2.0).requires_grad());
///
/// let guard = catch_panic(NoGradGuard::new);
/// assert!(!(&weight * 2.0).requires_grad());
/// # drop(guard);
/// ```
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let (mut work, mut returned) = (Some(work), Err(String::new()));
    let caught = catch(&mut || returned = work.take().map(|work| work()).ok_or_else(String::new));
    caught.and(returned)
}

/// [`catch_panic`], which is compiled once and not for each of the thousand hooks that a program calls.
fn catch(work: &mut dyn FnMut()) -> Result<(), String> {
    let before = records_gradients();
    let (returned, place) = while_catching(|| catch_unwind(AssertUnwindSafe(work)));
    returned.map_err(|payload| {
        set_records_gradients(before);
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("a value that is not text");
        let place = place.map_or(String::new(), |place| format!(" (at {place})"));
        readable_message(text) + &place
    })
}
