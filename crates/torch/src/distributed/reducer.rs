//! [`Reducer`]: gradients averaged over the ranks while the backward pass is running.

use std::ffi::c_char;
use std::fmt;

use torch_sys::C_tensor;

use super::DistributedError;
use super::process_group::{ProcessGroup, RawGroup};
use super::store::Text;
use crate::error::{TorchError, check};
use crate::grad;
use crate::tch::Tensor;

/// The C++ object behind a [`Reducer`].
#[repr(C)]
struct RawReducer {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawOptions {
    bucket_bytes: i64,
    first_bucket_bytes: i64,
    find_unused_parameters: bool,
    static_graph: bool,
    gradient_as_bucket_view: bool,
    compression: i32,
}

unsafe extern "C" {
    fn fulgurite_reducer_new(
        parameters: *const *const C_tensor,
        names: *const Text,
        count: usize,
        group: *const RawGroup,
        options: *const RawOptions,
        out: *mut *mut RawReducer,
    ) -> *mut c_char;
    fn fulgurite_reducer_free(reducer: *mut RawReducer);
    fn fulgurite_reducer_prepare_for_forward(reducer: *mut RawReducer, sync: bool) -> *mut c_char;
    fn fulgurite_reducer_prepare_for_backward(
        reducer: *const RawReducer,
        outputs: *const *const C_tensor,
        count: usize,
    ) -> *mut c_char;
}

/// The compression of gradients for communication: the hooks of `torch.distributed.algorithms.ddp_comm_hooks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As float16: half the bytes of float32, for gradients that are not too large (`fp16_compress_hook`).
    Fp16 = 1,
    /// As bfloat16: half the bytes of float32, and its range (`bf16_compress_hook`).
    Bf16 = 2,
}

/// Options of a [`Reducer`]: the arguments of `torch.nn.parallel.DistributedDataParallel`.
#[derive(Debug, Clone)]
pub struct ReducerOptions {
    /// The size of a bucket, the unit of communication, in MiB.
    pub bucket_cap_mb: f64,
    /// The size of the first bucket, in MiB; small, so that communication starts early.
    pub first_bucket_mb: f64,
    /// Whether some parameters may get no gradient in a pass. Searches for them in each pass, which costs time.
    pub find_unused_parameters: bool,
    /// Whether the same parameters get gradients in the same way in every pass.
    pub static_graph: bool,
    /// Whether gradients are views of the buckets, which saves memory and copies.
    pub gradient_as_bucket_view: bool,
    /// The compression of gradients; none by default.
    pub compression: Option<Compression>,
    /// The parameters' names, for messages; their indices by default.
    pub names: Vec<String>,
}

impl Default for ReducerOptions {
    fn default() -> Self {
        ReducerOptions {
            bucket_cap_mb: 25.0,
            first_bucket_mb: 1.0,
            find_unused_parameters: false,
            static_graph: false,
            gradient_as_bucket_view: false,
            compression: None,
            names: Vec::new(),
        }
    }
}

/// Averages gradients over the ranks of a group, in buckets, each as soon as its gradients are there, while the backward
/// pass continues. It is the `Reducer` of c10d, on which `DistributedDataParallel` is built.
///
/// A step calls [`prepare_for_forward`](Reducer::prepare_for_forward), computes the loss, and calls
/// [`backward`](Reducer::backward); then the gradients are the same on all ranks. Start with the same parameters on all
/// ranks: [`verify_parameters`](super::verify_parameters), then [`ProcessGroup::broadcast_all`].
///
/// ```
/// # use fulgurite_torch::distributed::{GroupOptions, ProcessGroup, Store, TcpStoreOptions};
/// use fulgurite_torch::distributed::{Reducer, ReducerOptions};
/// # use fulgurite_torch::tch::Tensor;
/// # let store = Store::tcp(TcpStoreOptions { port: 0, is_server: true, ..Default::default() })?;
/// # let group = ProcessGroup::new(&store, 0, 1, &GroupOptions::default())?;
/// let weight = Tensor::from(2f32).set_requires_grad(true);
/// let reducer = Reducer::new(&[weight.shallow_clone()], &group, &ReducerOptions::default())?;
/// reducer.prepare_for_forward()?;
/// let loss = &weight * &weight;
/// reducer.backward(&loss)?;
/// assert_eq!(weight.grad(), Tensor::from(4f32));
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
pub struct Reducer {
    raw: *mut RawReducer,
    group: ProcessGroup,
    /// The names of the parameters that it reduces, in their order.
    names: Vec<String>,
    find_unused_parameters: bool,
    require_sync: bool,
}

// SAFETY: the C++ object is owned by this one alone, and locks what the threads of autograd share.
unsafe impl Send for Reducer {}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: created by the bridge, owned by this object alone, and not used after this.
        unsafe { fulgurite_reducer_free(self.raw) }
    }
}

impl Reducer {
    /// A reducer of the gradients of those `parameters` that require one. All ranks pass the same ones, in the same
    /// order.
    ///
    /// # Errors
    ///
    /// Fails if no parameter requires a gradient, or if there are not as many names as parameters.
    pub fn new(parameters: &[Tensor], group: &ProcessGroup, options: &ReducerOptions) -> Result<Reducer, TorchError> {
        let names = if options.names.is_empty() {
            (0..parameters.len()).map(|index| index.to_string()).collect()
        } else {
            options.names.clone()
        };
        if names.len() != parameters.len() {
            let problem = format!("{} names were given for {} parameters", names.len(), parameters.len());
            return Err(group.argument("making a Reducer", problem));
        }
        let (names, trained): (Vec<String>, Vec<&Tensor>) =
            names.into_iter().zip(parameters).filter(|(_, parameter)| parameter.requires_grad()).unzip();
        if trained.is_empty() {
            let problem = "no parameter requires a gradient, so there is nothing to reduce".to_owned();
            return Err(group.argument("making a Reducer", problem));
        }
        let bytes = |mib: f64| (mib * 1024.0 * 1024.0) as i64;
        let raw_options = RawOptions {
            bucket_bytes: bytes(options.bucket_cap_mb),
            first_bucket_bytes: bytes(options.first_bucket_mb),
            find_unused_parameters: options.find_unused_parameters,
            static_graph: options.static_graph,
            gradient_as_bucket_view: options.gradient_as_bucket_view,
            compression: options.compression.map_or(0, |compression| compression as i32),
        };
        let pointers: Vec<_> = trained.iter().map(|parameter| parameter.as_ptr()).collect();
        let texts: Vec<Text> = names.iter().map(|name| Text::new(name)).collect();
        let mut raw = std::ptr::null_mut();
        // SAFETY: parameters, names and group live for the call; `raw` is written only when there is no error.
        check(unsafe {
            fulgurite_reducer_new(
                pointers.as_ptr(),
                texts.as_ptr(),
                pointers.len(),
                group.inner.raw,
                &raw_options,
                &mut raw,
            )
        })
        .map_err(|error| group.failed("making a Reducer", &error))?;
        let find_unused_parameters = options.find_unused_parameters && !options.static_graph;
        Ok(Reducer { raw, group: group.clone(), names, find_unused_parameters, require_sync: true })
    }

    /// Whether the next passes average the gradients. Without it they stay this rank's own and accumulate, and are
    /// averaged by the first pass with it: `DistributedDataParallel.no_sync`. Set it before the forward pass.
    pub fn set_require_sync(&mut self, require_sync: bool) {
        self.require_sync = require_sync;
    }

    /// Whether the next passes average the gradients.
    pub fn require_sync(&self) -> bool {
        self.require_sync
    }

    /// Call it before every forward pass.
    ///
    /// # Errors
    ///
    /// Returns [`DistributedError::UnusedParameters`] if parameters got no gradient in the last pass. Fails if another
    /// rank has exited.
    pub fn prepare_for_forward(&self) -> Result<(), TorchError> {
        // SAFETY: the reducer lives, and no other thread can use it, as it is not `Sync`.
        check(unsafe { fulgurite_reducer_prepare_for_forward(self.raw, self.require_sync) })
            .map_err(|error| self.failed(&error))
    }

    /// Call it between the forward and the backward pass, with the outputs that the backward pass starts from, such as
    /// the loss. [`backward`](Reducer::backward) does it.
    ///
    /// # Errors
    ///
    /// Fails as [`prepare_for_forward`](Reducer::prepare_for_forward) does.
    pub fn prepare_for_backward(&self, outputs: &[&Tensor]) -> Result<(), TorchError> {
        if !self.require_sync {
            return Ok(());
        }
        let outputs: Vec<_> = outputs.iter().map(|output| output.as_ptr()).collect();
        // SAFETY: the reducer and the outputs live for the call.
        check(unsafe { fulgurite_reducer_prepare_for_backward(self.raw, outputs.as_ptr(), outputs.len()) })
            .map_err(|error| self.failed(&error))
    }

    /// The backward pass of `loss`. When it returns, the gradients are averaged, if this pass is to do so.
    ///
    /// # Errors
    ///
    /// Fails as [`grad::backward`] and [`prepare_for_forward`](Reducer::prepare_for_forward) do.
    pub fn backward(&self, loss: &Tensor) -> Result<(), TorchError> {
        self.prepare_for_backward(&[loss])?;
        grad::backward(loss).map_err(|error| self.explain(error))
    }

    /// Explains an error of a backward pass that was not started by [`backward`](Reducer::backward): adds which rank
    /// failed to average gradients, and why.
    pub fn explain(&self, error: TorchError) -> TorchError {
        match error {
            TorchError::Bridge(_) if self.require_sync => self.failed(&error),
            other => other,
        }
    }

    fn failed(&self, error: &TorchError) -> TorchError {
        match unused(&error.to_string()) {
            Some(indices) => {
                let name = |index: usize| self.names.get(index).cloned();
                DistributedError::UnusedParameters {
                    rank: self.group.global_rank(),
                    names: indices.into_iter().filter_map(name).collect(),
                    finds_unused: self.find_unused_parameters,
                }
                .into()
            }
            // What c10d says where it looks at the memory of a gradient.
            None if error.to_string().contains("SparseTensorImpl") => {
                let why =
                    "a gradient is sparse, and processes average dense ones; build the embedding with sparse: false";
                self.group.failed("averaging gradients", &TorchError::Bridge(why.to_owned()))
            }
            None => self.group.failed("averaging gradients", error),
        }
    }
}

impl fmt::Debug for Reducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reducer")
            .field("group", &self.group)
            .field("parameters", &self.names.len())
            .field("require_sync", &self.require_sync)
            .finish_non_exhaustive()
    }
}

/// The indices of the parameters that c10d reports as without a gradient: `… did not receive grad for rank 0: 1 3`.
fn unused(message: &str) -> Option<Vec<usize>> {
    let (_, rest) = message.split_once("Parameter indices which did not receive grad for rank ")?;
    let (_, numbers) = rest.split_once(':')?;
    Some(numbers.split_whitespace().map_while(|word| word.trim_end_matches('.').parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_unused_parameters_are_found() {
        let message = "Expected … Parameter indices which did not receive grad for rank 1: 0 12 3\n In addition, you";
        assert_eq!(unused(message), Some(vec![0, 12, 3]));
        assert_eq!(unused("Timed out"), None);
    }
}
