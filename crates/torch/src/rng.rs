//! Seeds, and the state of libtorch's random number generators.

use std::ffi::{c_char, c_int};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};

use torch_sys::C_tensor;

use crate::error::{TorchError, check};
use crate::tch::{Cuda, Tensor};
use crate::value::{Dict, Value};

unsafe extern "C" {
    fn fulgurite_manual_seed(seed: u64) -> *mut c_char;
    fn fulgurite_rng_get_state(index: c_int, out: *mut *mut C_tensor) -> *mut c_char;
    fn fulgurite_rng_set_state(index: c_int, state: *const C_tensor) -> *mut c_char;
}

/// The environment variable with which Lightning passes a seed to child processes.
pub const GLOBAL_SEED_VARIABLE: &str = "PL_GLOBAL_SEED";

static GLOBAL_SEED: Mutex<Option<u64>> = Mutex::new(None);

/// Seeds libtorch's generators, of the CPU and of every accelerator, and remembers `seed` as the
/// [`global_seed`], from which data order and worker threads are derived. Returns `seed`.
///
/// Lightning also exports `PL_GLOBAL_SEED`; a Rust program cannot change its environment once threads may run, so a
/// launcher passes [`global_seed`] to its children in [`GLOBAL_SEED_VARIABLE`].
///
/// # Errors
///
/// Fails if the random number generator of a device cannot be seeded.
pub fn seed_everything(seed: u64) -> Result<u64, TorchError> {
    manual_seed(seed)?;
    set_global_seed(seed);
    Ok(seed)
}

/// Seeds libtorch's generators only: the order of data, and the seeds of workers, remain those of [`global_seed`].
///
/// # Errors
///
/// Fails if the random number generator of a device cannot be seeded.
pub fn manual_seed(seed: u64) -> Result<(), TorchError> {
    // SAFETY: takes a number.
    check(unsafe { fulgurite_manual_seed(seed) })
}

/// Sets the [`global_seed`] without seeding any generator: for processes that share their data.
pub fn set_global_seed(seed: u64) {
    *GLOBAL_SEED.lock().unwrap_or_else(PoisonError::into_inner) = Some(seed);
}

/// [`seed_everything`] with the seed of the environment variable `PL_GLOBAL_SEED`, or 0 if it is not set:
/// Lightning's `seed_everything(None)`.
///
/// # Errors
///
/// Fails if the variable is not a seed.
pub fn seed_everything_from_env() -> Result<u64, TorchError> {
    seed_everything(env_seed()?.unwrap_or(0))
}

/// The seed of this process: that of [`seed_everything`], else that of `PL_GLOBAL_SEED`, else one drawn from the
/// operating system at the first call. It stays the same until something is seeded. An invalid variable is ignored; see
/// [`env_seed`].
pub fn global_seed() -> u64 {
    let mut seed = GLOBAL_SEED.lock().unwrap_or_else(PoisonError::into_inner);
    // A `RandomState` is keyed with randomness of the operating system.
    *seed.get_or_insert_with(|| match env_seed() {
        Ok(Some(seed)) => seed,
        _ => RandomState::new().build_hasher().finish(),
    })
}

/// The seed of the environment variable `PL_GLOBAL_SEED`; `None` if it is not set.
///
/// # Errors
///
/// Fails if the variable is not a seed, such as an empty one.
pub fn env_seed() -> Result<Option<u64>, TorchError> {
    match std::env::var_os(GLOBAL_SEED_VARIABLE) {
        None => Ok(None),
        Some(text) => parse_seed(&text.to_string_lossy()).map(Some),
    }
}

fn parse_seed(text: &str) -> Result<u64, TorchError> {
    text.trim().parse().map_err(|_| TorchError::Seed { given: text.into() })
}

/// The state of libtorch's generators, of the CPU and of every CUDA device.
///
/// ```
/// use fulgurite_torch::rng::RngState;
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let state = RngState::capture()?;
/// let first = Tensor::rand([3], (Kind::Float, Device::Cpu));
/// state.restore()?;
/// assert_eq!(first, Tensor::rand([3], (Kind::Float, Device::Cpu)));
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
#[derive(Debug)]
pub struct RngState {
    cpu: Tensor,
    cuda: Vec<Tensor>,
}

const CPU: c_int = -1;

impl RngState {
    /// The current state.
    ///
    /// # Errors
    ///
    /// Fails if the state of a device cannot be read.
    pub fn capture() -> Result<RngState, TorchError> {
        let devices = if Cuda::is_available() { Cuda::device_count() } else { 0 };
        let cuda = (0..devices).map(|index| get(index as c_int)).collect::<Result<_, _>>()?;
        Ok(RngState { cpu: get(CPU)?, cuda })
    }

    /// Restores this state of the generators. States of devices that this machine does not have are ignored.
    ///
    /// # Errors
    ///
    /// Fails if libtorch does not accept the state, such as one of another version.
    pub fn restore(&self) -> Result<(), TorchError> {
        set(CPU, &self.cpu)?;
        let devices = if Cuda::is_available() { Cuda::device_count() } else { 0 };
        for (index, state) in self.cuda.iter().enumerate().take(devices as usize) {
            set(index as c_int, state)?;
        }
        Ok(())
    }

    /// `{"torch": state, "torch.cuda": [states]}`, the names Lightning uses.
    pub fn to_value(&self) -> Value {
        let cuda: Vec<Value> = self.cuda.iter().map(Value::from).collect();
        Value::Dict(Dict::new().with("torch", &self.cpu).with("torch.cuda", cuda))
    }

    /// The state in a value that [`to_value`](RngState::to_value) returned.
    ///
    /// # Errors
    ///
    /// Fails if the value has another form.
    pub fn from_value(value: &Value) -> Result<RngState, TorchError> {
        let malformed = |message: String| TorchError::RngState { message };
        let dict = value.as_dict().ok_or_else(|| malformed(format!("it is {}, expected dict", value.type_name())))?;
        let cpu = dict.tensor("torch").map_err(|error| malformed(error.to_string()))?.shallow_clone();
        let states = dict.list("torch.cuda").map_err(|error| malformed(error.to_string()))?;
        let cuda = states
            .iter()
            .map(|state| state.as_tensor().map(Tensor::shallow_clone))
            .collect::<Option<_>>()
            .ok_or_else(|| malformed("entry `torch.cuda` contains something that is not a tensor".into()))?;
        Ok(RngState { cpu, cuda })
    }
}

fn get(index: c_int) -> Result<Tensor, TorchError> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the bridge checks the index, and writes `out` only when there is no error.
    check(unsafe { fulgurite_rng_get_state(index, &mut out) })?;
    // SAFETY: `out` is a tensor that the bridge created with C++'s `new`, and `tch` deletes it.
    Ok(unsafe { Tensor::from_ptr(out) })
}

fn set(index: c_int, state: &Tensor) -> Result<(), TorchError> {
    // SAFETY: the tensor lives for the call; libtorch checks its kind and size.
    check(unsafe { fulgurite_rng_set_state(index, state.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tch::{Device, Kind};

    /// One test, because the generator and the seed belong to the whole process.
    #[test]
    fn seeds_and_states_make_randomness_repeat() {
        let draw = || Tensor::randn([5], (Kind::Float, Device::Cpu));

        let drawn = global_seed();
        assert_eq!(global_seed(), drawn);

        assert_eq!(seed_everything(42).unwrap(), 42);
        assert_eq!(global_seed(), 42);
        let first = draw();
        let state = RngState::capture().unwrap();
        let second = draw();
        assert_ne!(first, second);

        RngState::from_value(&state.to_value()).unwrap().restore().unwrap();
        assert_eq!(draw(), second);
        seed_everything(42).unwrap();
        assert_eq!(draw(), first);

        seed_everything(u64::MAX).unwrap();
        assert_eq!(global_seed(), u64::MAX);

        let foreign = Value::Dict(
            Dict::new()
                .with("torch", Tensor::zeros([3], (Kind::Uint8, Device::Cpu)))
                .with("torch.cuda", Vec::<Value>::new()),
        );
        assert!(RngState::from_value(&foreign).unwrap().restore().is_err());
    }

    #[test]
    fn a_variable_that_is_no_seed_says_so() {
        assert_eq!(parse_seed(" 7 ").unwrap(), 7);
        assert_eq!(
            parse_seed("lots").unwrap_err().to_string(),
            "PL_GLOBAL_SEED is \"lots\", which is not a seed; set it to an integer from 0 to 18446744073709551615, or \
             unset it"
        );
        assert!(parse_seed("-1").is_err());
    }

    #[test]
    fn a_state_of_another_form_says_so() {
        let error = RngState::from_value(&Value::Int(3)).unwrap_err();
        assert_eq!(error.to_string(), "not a state of random number generators: it is int, expected dict");
        let error = RngState::from_value(&Value::Dict(Dict::new().with("python", 1))).unwrap_err();
        assert_eq!(error.to_string(), "not a state of random number generators: no entry `torch`; there are: python");
    }
}
