//! The operations that libtorch's dispatcher executes, with the shapes of their inputs and outputs.
//!
//! [`flops`](crate::flops) counts their cost, a model summary determines the types of layers from them, and
//! [`anomaly`](crate::anomaly) finds the one that produced a NaN.

use std::ffi::c_char;
use std::marker::PhantomData;

use torch_sys::C_tensor;

use crate::error::{TorchError, check};
use crate::tch::Kind;

#[repr(C)]
pub(crate) struct RawRecorder {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawOp {
    name: *const u8,
    name_len: usize,
    parent: i64,
    sequence: i64,
    composite: bool,
    inputs: *const i64,
    inputs_len: usize,
    outputs: *const i64,
    outputs_len: usize,
}

/// The origin of values that are not finite; the bridge's `Finding`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RawFinding {
    pub(crate) op: i64,
    pub(crate) input: i64,
    pub(crate) cause: i64,
    pub(crate) nan: bool,
}

unsafe extern "C" {
    fn fulgurite_recorder_start(watch: bool, out: *mut *mut RawRecorder) -> *mut c_char;
    fn fulgurite_recorder_stop(recorder: *mut RawRecorder);
    fn fulgurite_recorder_free(recorder: *mut RawRecorder);
    fn fulgurite_recorder_len(recorder: *const RawRecorder) -> usize;
    fn fulgurite_recorder_op(recorder: *const RawRecorder, index: usize, out: *mut RawOp);
    fn fulgurite_recorder_origin(recorder: *const RawRecorder, tensor: *const C_tensor) -> i64;
    fn fulgurite_recorder_finding(recorder: *const RawRecorder, index: i64, out: *mut RawFinding) -> bool;
    fn fulgurite_recorder_last_node(recorder: *const RawRecorder) -> i64;
}

/// A recorded operation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OpRecord {
    /// Its name, such as `aten::addmm`, without the overload.
    pub name: String,
    /// The index of the operation that called it; `None` for one that the program called.
    pub parent: Option<usize>,
    /// Whether it only calls others, such as `aten::linear`. What the others call within their kernels is not recorded.
    pub is_composite: bool,
    /// Its arguments, in the order of libtorch's schema.
    pub inputs: Vec<Argument>,
    /// The results; empty when it failed.
    pub outputs: Vec<Argument>,
    /// Autograd's sequence number when it started: that of the node it created, if any.
    pub(crate) sequence: i64,
}

impl OpRecord {
    /// The tensors among its arguments, those of lists too.
    pub fn input_tensors(&self) -> Vec<&TensorRecord> {
        tensors(&self.inputs)
    }

    /// The tensors it returned, those of lists too.
    pub fn output_tensors(&self) -> Vec<&TensorRecord> {
        tensors(&self.outputs)
    }

    /// The shape of the tensor that is its n-th argument, if that is one.
    pub fn input_shape(&self, index: usize) -> Option<&[i64]> {
        Some(&self.inputs.get(index)?.as_tensor()?.shape)
    }

    /// The shape of the tensor that is its n-th result, if that is one.
    pub fn output_shape(&self, index: usize) -> Option<&[i64]> {
        Some(&self.outputs.get(index)?.as_tensor()?.shape)
    }
}

fn tensors(arguments: &[Argument]) -> Vec<&TensorRecord> {
    let mut found = Vec::new();
    for argument in arguments {
        match argument {
            Argument::Tensor(tensor) => found.push(tensor),
            Argument::List(items) => found.extend(tensors(items)),
            _ => {}
        }
    }
    found
}

/// The metadata of a tensor of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorRecord {
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its kind; `None` for kinds that `tch` has no name for.
    pub kind: Option<Kind>,
    /// The identity of the tensor while it lives; see [`tensor_id`](crate::tensor_id).
    pub tensor_id: usize,
    /// The identity of its storage, see [`storage_id`](crate::storage_id); 0 without memory.
    pub storage_id: usize,
}

/// An argument or result of an operation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Argument {
    /// Nothing, or an undefined tensor.
    None,
    /// A tensor.
    Tensor(TensorRecord),
    /// A list, such as the parameters of an LSTM.
    List(Vec<Argument>),
    /// A flag.
    Bool(bool),
    /// Flags, such as which gradients are wanted.
    Bools(Vec<bool>),
    /// A number.
    Int(i64),
    /// Numbers, such as a stride.
    Ints(Vec<i64>),
    /// A number.
    Float(f64),
    /// Anything else.
    Other,
}

impl Argument {
    /// The tensor, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorRecord> {
        match self {
            Argument::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

/// Records the operations of this thread, and of autograd's threads on its behalf, until it is dropped. Recorders nest:
/// the records of an inner one are passed to the outer one.
#[derive(Debug)]
pub(crate) struct Recorder {
    raw: *mut RawRecorder,
    _thread: PhantomData<*const ()>,
}

impl Recorder {
    /// Starts recording. A `watch` also follows values that are not finite, and looks for NaN in backward passes.
    pub(crate) fn start(watch: bool) -> Result<Recorder, TorchError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is written only when there is no error. The pointer keeps the recorder on this thread.
        check(unsafe { fulgurite_recorder_start(watch, &mut raw) })?;
        Ok(Recorder { raw, _thread: PhantomData })
    }

    /// Ends the recording; what was recorded stays.
    fn stop(&mut self) {
        // SAFETY: the recorder lives, and was started on this thread.
        unsafe { fulgurite_recorder_stop(self.raw) }
    }

    /// The operations in the order in which they began.
    pub(crate) fn ops(&self) -> Vec<OpRecord> {
        // SAFETY: the recorder lives.
        let len = unsafe { fulgurite_recorder_len(self.raw) };
        (0..len).map(|index| self.op(index)).collect()
    }

    fn op(&self, index: usize) -> OpRecord {
        let mut raw = RawOp {
            name: std::ptr::null(),
            name_len: 0,
            parent: -1,
            sequence: -1,
            composite: false,
            inputs: std::ptr::null(),
            inputs_len: 0,
            outputs: std::ptr::null(),
            outputs_len: 0,
        };
        // SAFETY: the recorder lives, the index is below its length, and `raw` has the bridge's layout.
        unsafe { fulgurite_recorder_op(self.raw, index, &mut raw) };
        // SAFETY: the pointers are of arrays that live until the recorder records more, which this thread does not do
        // before it has copied them.
        let (name, inputs, outputs) = unsafe {
            (slice(raw.name, raw.name_len), slice(raw.inputs, raw.inputs_len), slice(raw.outputs, raw.outputs_len))
        };
        OpRecord {
            name: String::from_utf8_lossy(name).into_owned(),
            parent: usize::try_from(raw.parent).ok(),
            is_composite: raw.composite,
            inputs: decode(inputs),
            outputs: decode(outputs),
            sequence: raw.sequence,
        }
    }

    /// Where the values of a tensor that is not finite came from, if this recorder watches.
    pub(crate) fn origin(&self, tensor: &crate::tch::Tensor) -> Option<RawFinding> {
        // SAFETY: both live for the call.
        self.finding(unsafe { fulgurite_recorder_origin(self.raw, tensor.as_ptr()) })
    }

    pub(crate) fn finding(&self, index: i64) -> Option<RawFinding> {
        let mut finding = RawFinding::default();
        // SAFETY: the recorder lives; the bridge checks the index.
        unsafe { fulgurite_recorder_finding(self.raw, index, &mut finding) }.then_some(finding)
    }

    /// The sequence number of the node that a backward pass evaluated last; -1 before the first.
    pub(crate) fn last_node(&self) -> i64 {
        // SAFETY: the recorder lives.
        unsafe { fulgurite_recorder_last_node(self.raw) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
        // SAFETY: created by `fulgurite_recorder_start`, owned by this recorder alone, and not used after this.
        unsafe { fulgurite_recorder_free(self.raw) }
    }
}

/// # Safety
///
/// `data` points to `len` elements that outlive the slice, or `len` is 0.
unsafe fn slice<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: what the caller promises.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// Calls `run`, and returns its result with the operations that it executed, including those of a backward pass.
///
/// ```
/// use fulgurite_torch::record::record_ops;
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let x = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
/// let (_, ops) = record_ops(|| x.matmul(&x.tr()))?;
/// let product = ops.iter().find(|op| op.name == "aten::mm").ok_or("no product")?;
/// assert_eq!(product.input_shape(0), Some(&[2, 3][..]));
/// assert_eq!(product.output_shape(0), Some(&[2, 2][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Fails if libtorch cannot register an observer.
pub fn record_ops<R>(run: impl FnOnce() -> R) -> Result<(R, Vec<OpRecord>), TorchError> {
    let recorder = Recorder::start(false)?;
    let returned = run();
    Ok((returned, recorder.ops()))
}

/// Reads the rows that the bridge writes; its `Tag` lists the forms.
fn decode(row: &[i64]) -> Vec<Argument> {
    let mut numbers = row.iter().copied();
    let mut arguments = Vec::new();
    while let Some(tag) = numbers.next() {
        arguments.push(decode_one(tag, &mut numbers));
    }
    arguments
}

fn decode_one(tag: i64, numbers: &mut impl Iterator<Item = i64>) -> Argument {
    let mut next = || numbers.next().unwrap_or_default();
    match tag {
        0 => Argument::None,
        1 => {
            let (tensor_id, storage_id, kind, dim) = (next(), next(), next(), next());
            let shape = (0..dim).map(|_| next()).collect();
            let (tensor_id, storage_id) = (tensor_id as usize, storage_id as usize);
            Argument::Tensor(TensorRecord { shape, kind: kind_of(kind), tensor_id, storage_id })
        }
        2 => {
            let count = next();
            let mut items = Vec::new();
            for _ in 0..count {
                let tag = numbers.next().unwrap_or_default();
                items.push(decode_list_item(tag, numbers));
            }
            Argument::List(items)
        }
        3 => Argument::Bool(next() != 0),
        4 => {
            let count = next();
            Argument::Bools((0..count).map(|_| next() != 0).collect())
        }
        5 => Argument::Int(next()),
        6 => {
            let count = next();
            Argument::Ints((0..count).map(|_| next()).collect())
        }
        7 => Argument::Float(f64::from_bits(next() as u64)),
        _ => Argument::Other,
    }
}

/// Lists of lists do not occur; a separate function keeps the iterator's type from nesting.
fn decode_list_item(tag: i64, numbers: &mut dyn Iterator<Item = i64>) -> Argument {
    decode_one(tag, &mut &mut *numbers)
}

/// libtorch's number of a kind.
fn kind_of(number: i64) -> Option<Kind> {
    const KINDS: [Kind; 16] = [
        Kind::Uint8,
        Kind::Int8,
        Kind::Int16,
        Kind::Int,
        Kind::Int64,
        Kind::Half,
        Kind::Float,
        Kind::Double,
        Kind::ComplexHalf,
        Kind::ComplexFloat,
        Kind::ComplexDouble,
        Kind::Bool,
        Kind::QInt8,
        Kind::QUInt8,
        Kind::QInt32,
        Kind::BFloat16,
    ];
    usize::try_from(number).ok().and_then(|number| KINDS.get(number).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad::backward;
    use crate::tch::{Device, Tensor};
    use crate::{storage_id, tensor_id};

    fn ones(shape: &[i64]) -> Tensor {
        Tensor::ones(shape, (Kind::Float, Device::Cpu))
    }

    fn names(ops: &[OpRecord]) -> Vec<&str> {
        ops.iter().map(|op| op.name.as_str()).collect()
    }

    #[test]
    fn composite_operations_have_children_and_kernels_have_none() {
        let (x, w, b) = (ones(&[2, 3]), ones(&[4, 3]), ones(&[4]));
        let (y, ops) = record_ops(|| x.linear(&w, Some(&b))).unwrap();
        assert_eq!(names(&ops), ["aten::linear", "aten::t", "aten::addmm"]);
        assert_eq!((ops[0].parent, ops[1].parent, ops[2].parent), (None, Some(0), Some(0)));
        assert!(ops[0].is_composite && !ops[2].is_composite);
        let inputs = ops[0].input_tensors();
        assert_eq!(inputs[1].tensor_id, tensor_id(&w));
        assert_eq!(inputs[1].kind, Some(Kind::Float));
        assert_eq!(ops[2].input_tensors()[2].storage_id, storage_id(&w).unwrap(), "a view has its base's memory");
        assert_eq!(ops[2].output_tensors()[0].tensor_id, tensor_id(&y));
        assert_eq!(ops[2].output_shape(0), Some(&[2, 4][..]));
    }

    #[test]
    fn arguments_keep_their_form() {
        let (x, w) = (ones(&[1, 2, 5, 5]).set_requires_grad(true), ones(&[3, 2, 3, 3]).set_requires_grad(true));
        let (_, ops) = record_ops(|| {
            let y = x.conv2d(&w, None::<&Tensor>, [2, 1], [0, 1], [1, 1], 1);
            backward(&y.sum(Kind::Float)).unwrap();
            Tensor::cat(&[&x, &x], 1).clamp_min(0.5)
        })
        .unwrap();
        let find = |name: &str| ops.iter().find(|op| op.name == name).unwrap();
        let convolution = find("aten::convolution");
        assert_eq!(convolution.inputs[2], Argument::None);
        assert_eq!(convolution.inputs[3..5], [Argument::Ints(vec![2, 1]), Argument::Ints(vec![0, 1])]);
        assert_eq!(convolution.inputs[6], Argument::Bool(false));
        assert_eq!(convolution.inputs[8], Argument::Int(1));
        assert_eq!(find("aten::convolution_backward").inputs[10], Argument::Bools(vec![true, true, false]));
        assert_eq!(find("aten::cat").input_tensors().len(), 2);
        assert_eq!(find("aten::clamp_min").inputs[1], Argument::Float(0.5));
    }

    #[test]
    fn recordings_nest_and_end() {
        let x = ones(&[2]);
        let ((_, inner), outer) = record_ops(|| {
            let _ = x.exp();
            record_ops(|| x.sin()).unwrap()
        })
        .unwrap();
        let _ = x.cos();
        assert_eq!((names(&inner), names(&outer)), (vec!["aten::sin"], vec!["aten::exp", "aten::sin"]));
        assert_eq!(names(&record_ops(|| x.log()).unwrap().1), ["aten::log"]);
    }

    #[test]
    fn a_panic_ends_the_recording() {
        let x = ones(&[2]);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| record_ops(|| panic!("in the middle"))));
        assert!(caught.is_err());
        assert_eq!(names(&record_ops(|| x.log()).unwrap().1), ["aten::log"]);
    }

    #[test]
    fn other_threads_are_not_recorded() {
        let (_, ops) = record_ops(|| std::thread::spawn(|| ones(&[2]).exp()).join().is_ok()).unwrap();
        assert_eq!(names(&ops), Vec::<&str>::new());
    }
}
