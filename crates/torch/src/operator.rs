//! [`Operator`]: any operator of libtorch by its name, such as those that `tch` binds without their arguments.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use smallvec::SmallVec;
use torch_sys::C_tensor;

use crate::error::{TorchError, check};
use crate::tch::Tensor;

#[repr(C)]
struct RawOperator {
    _opaque: [u8; 0],
}

/// As in `operator.cpp`.
#[repr(C)]
struct RawArgument {
    kind: i64,
    tensor: *const C_tensor,
    integer: i64,
    number: f64,
    list: *const c_void,
    len: usize,
}

unsafe extern "C" {
    fn fulgurite_operator_find(
        name: *const c_char,
        overload: *const c_char,
        out: *mut *const RawOperator,
    ) -> *mut c_char;
    fn fulgurite_operator_free(operator: *const RawOperator);
    fn fulgurite_operator_call(
        operator: *const RawOperator,
        arguments: *const RawArgument,
        count: usize,
        out: *mut *mut C_tensor,
        capacity: usize,
        results: *mut usize,
    ) -> *mut c_char;
}

/// An argument of an [`Operator`].
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    /// No value for an optional argument.
    None,
    /// A tensor.
    Tensor(&'a Tensor),
    /// An integer.
    Int(i64),
    /// A number.
    Double(f64),
    /// A truth value.
    Bool(bool),
    /// Integers, such as a shape.
    Ints(&'a [i64]),
    /// A text, such as the name of a mode.
    Text(&'a str),
}

impl Argument<'_> {
    fn raw(&self) -> RawArgument {
        let nothing = std::ptr::null();
        let raw = RawArgument { kind: 0, tensor: std::ptr::null(), integer: 0, number: 0.0, list: nothing, len: 0 };
        match *self {
            Argument::None => raw,
            Argument::Tensor(tensor) => RawArgument { kind: 1, tensor: tensor.as_ptr(), ..raw },
            Argument::Int(integer) => RawArgument { kind: 2, integer, ..raw },
            Argument::Double(number) => RawArgument { kind: 3, number, ..raw },
            Argument::Bool(value) => RawArgument { kind: 4, integer: value.into(), ..raw },
            Argument::Ints(ints) => RawArgument { kind: 5, list: ints.as_ptr().cast(), len: ints.len(), ..raw },
            Argument::Text(text) => RawArgument { kind: 6, list: text.as_ptr().cast(), len: text.len(), ..raw },
        }
    }
}

/// An operator of libtorch, for those that `tch` does not have, or has without all of their arguments.
///
/// ```
/// use fulgurite_torch::tch::Tensor;
/// use fulgurite_torch::{Argument, Operator};
///
/// // tch's `leaky_relu` has no slope.
/// let leaky_relu = Operator::find(c"aten::leaky_relu", c"")?;
/// let y = leaky_relu.call(&[Argument::Tensor(&Tensor::from_slice(&[-1.0, 2.0])), Argument::Double(0.5)])?;
/// assert_eq!(y, Tensor::from_slice(&[-0.5, 2.0]));
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
#[derive(Debug)]
pub struct Operator(*const RawOperator);

// SAFETY: the handle is a pointer into libtorch's table of operators, which locks itself, and nothing changes it.
unsafe impl Send for Operator {}
// SAFETY: as above.
unsafe impl Sync for Operator {}

impl Operator {
    /// Looks an operator up, such as `aten::leaky_relu`, with the name of its overload, which is often empty.
    ///
    /// # Errors
    ///
    /// Fails if libtorch has no such operator.
    pub fn find(name: &CStr, overload: &CStr) -> Result<Operator, TorchError> {
        let mut operator = std::ptr::null();
        // SAFETY: both texts end with NUL, and the pointer is set when there is no error.
        check(unsafe { fulgurite_operator_find(name.as_ptr(), overload.as_ptr(), &raw mut operator) })?;
        Ok(Operator(operator))
    }

    /// Calls it. Arguments that are left out at the end have their defaults.
    ///
    /// # Errors
    ///
    /// Fails if arguments do not fit its schema, if it does not return one tensor, and if it fails itself.
    pub fn call(&self, arguments: &[Argument<'_>]) -> Result<Tensor, TorchError> {
        let [tensor] = self.call_for(arguments)?;
        Ok(tensor)
    }

    /// Calls an operator that returns `N` tensors.
    ///
    /// # Errors
    ///
    /// Fails as [`call`](Operator::call) does.
    pub fn call_for<const N: usize>(&self, arguments: &[Argument<'_>]) -> Result<[Tensor; N], TorchError> {
        let raw: SmallVec<[RawArgument; 8]> = arguments.iter().map(Argument::raw).collect();
        let mut out = [std::ptr::null_mut(); N];
        let mut results = 0;
        // SAFETY: the arguments live for the call; at most `N` results are written, and owned from then on.
        check(unsafe {
            fulgurite_operator_call(self.0, raw.as_ptr(), raw.len(), out.as_mut_ptr(), N, &raw mut results)
        })?;
        // SAFETY: each is null or a tensor that was made for us.
        let mut tensors = out.map(|tensor| (!tensor.is_null()).then(|| unsafe { Tensor::from_ptr(tensor) }));
        if tensors.iter().any(Option::is_none) {
            return Err(TorchError::Bridge(format!("the operator returns {results} tensors, not {N}")));
        }
        Ok(std::array::from_fn(|i| tensors[i].take().unwrap_or_default()))
    }
}

/// An [`Operator`] that is looked up when it is first called, for a `static`.
///
/// ```
/// use fulgurite_torch::tch::Tensor;
/// use fulgurite_torch::{Argument, StaticOperator};
///
/// static LEAKY_RELU: StaticOperator = StaticOperator::new(c"aten::leaky_relu", c"");
/// let y = LEAKY_RELU.call(&[Argument::Tensor(&Tensor::from_slice(&[-1.0, 2.0])), Argument::Double(0.5)])?;
/// assert_eq!(y, Tensor::from_slice(&[-0.5, 2.0]));
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
#[derive(Debug)]
pub struct StaticOperator {
    name: &'static CStr,
    overload: &'static CStr,
    found: OnceLock<Operator>,
}

impl StaticOperator {
    /// The operator with the name and the overload that [`Operator::find`] takes.
    pub const fn new(name: &'static CStr, overload: &'static CStr) -> StaticOperator {
        StaticOperator { name, overload, found: OnceLock::new() }
    }

    /// Calls it.
    ///
    /// # Errors
    ///
    /// Fails as [`Operator::find`] and [`Operator::call`] do.
    pub fn call(&self, arguments: &[Argument<'_>]) -> Result<Tensor, TorchError> {
        if let Some(operator) = self.found.get() {
            return operator.call(arguments);
        }
        let found = Operator::find(self.name, self.overload)?;
        self.found.get_or_init(|| found).call(arguments)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and not used again.
        unsafe { fulgurite_operator_free(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_gets_its_arguments_and_the_defaults_of_the_others() {
        let softplus = Operator::find(c"aten::softplus", c"").unwrap();
        let x = Tensor::from_slice(&[0.0, 30.0]);
        assert_eq!(softplus.call(&[Argument::Tensor(&x)]).unwrap(), x.softplus());
        let steep = softplus.call(&[Argument::Tensor(&x), Argument::Double(2.0), Argument::Int(20)]).unwrap();
        assert_eq!(steep, Tensor::from_slice(&[2f64.ln() / 2.0, 30.0]));
    }

    #[test]
    fn lists_texts_and_several_results() {
        let max = Operator::find(c"aten::max", c"dim").unwrap();
        let x = Tensor::from_slice(&[3, 5, 4]);
        let [value, index] = max.call_for(&[Argument::Tensor(&x), Argument::Int(0)]).unwrap();
        assert_eq!((value.int64_value(&[]), index.int64_value(&[])), (5, 1));
        let pad = Operator::find(c"aten::pad", c"").unwrap();
        let arguments = [Argument::Tensor(&x), Argument::Ints(&[1, 0]), Argument::Text("constant"), Argument::Int(7)];
        assert_eq!(pad.call(&arguments).unwrap(), Tensor::from_slice(&[7, 3, 5, 4]));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let error = Operator::find(c"aten::no_such_operator", c"").unwrap_err().to_string();
        assert!(error.contains("aten::no_such_operator"), "{error}");
        let relu = Operator::find(c"aten::relu", c"").unwrap();
        assert_eq!(relu.call(&[]).unwrap_err().to_string(), "aten::relu needs the argument `self`");
        let error = relu.call(&[Argument::Int(1)]).unwrap_err().to_string();
        assert_eq!(error, "aten::relu takes Tensor as `self`, not int");
        let x = Tensor::from_slice(&[3, 5, 4]);
        let max = Operator::find(c"aten::max", c"dim").unwrap();
        let error = max.call(&[Argument::Tensor(&x), Argument::Int(0)]).unwrap_err().to_string();
        assert_eq!(error, "aten::max returns 2 values, not 1");
    }
}
