//! [`Batch`]: what a loader yields and a step receives.

use std::collections::BTreeMap;

use fulgurite_torch::tch::{Device, Kind, Tensor};

/// One batch: tensors, or any nest of tuples, vectors, options, maps and plain values around them.
///
/// The trainer moves it to the device, converts its floating-point tensors to the precision's kind, and weighs
/// logged means by its [`size`](Batch::size). Derive it for your own structs with `#[derive(Batch)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a batch",
    note = "a batch is a `Tensor`, a tuple, `Vec`, `Option` or `BTreeMap<String, _>` of batches, or a struct with `#[derive(Batch)]`"
)]
pub trait Batch: Send + Sized + 'static {
    /// The same batch with `f` applied to every tensor, in field order.
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self;

    /// How many samples it holds: the first dimension of the first tensor found (1 for a 0-d tensor), `None` when
    /// there is no tensor.
    fn size(&self) -> Option<i64>;

    /// The same batch on `device`; the copy does not wait for the device when the source is pinned.
    fn to_device(&self, device: Device) -> Self {
        self.map_tensors(&mut |t| if t.device() == device { t.shallow_clone() } else { t.to_device_(device, t.kind(), true, false) })
    }

    /// The same batch with floating-point tensors of `kind`; others stay as they are.
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
        Some(if self.dim() == 0 { 1 } else { self.size1_of_first_dim() })
    }
}
