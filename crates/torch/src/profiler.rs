//! libtorch's profiler, on which Python's `torch.profiler` is built.
//!
//! [`start`] records every operation of this thread and of the backward passes it starts; [`stop`] returns the
//! [`Trace`], which can be saved for Perfetto, and summed up by [`key_averages`](Trace::key_averages). Work of the
//! program's own appears in it under the names given to [`range`].
//!
//! ```
//! use fulgurite_torch::profiler::{self, Options};
//! use fulgurite_torch::tch::Tensor;
//!
//! profiler::start(&Options::default())?;
//! {
//!     let _range = profiler::range("square");
//!     let _ = Tensor::from_slice(&[1.0, 2.0]).square();
//! }
//! let trace = profiler::stop()?;
//! assert!(trace.key_averages(false).iter().any(|row| row.name == "square" && row.calls == 1));
//! # Ok::<(), fulgurite_torch::TorchError>(())
//! ```

mod averages;
mod event;

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub use averages::KeyAverage;
pub use event::Event;

use crate::error::{TorchError, check};

#[repr(C)]
struct RawTrace {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawEvent {
    name: *const c_char,
    shapes: *const c_char,
    start_ns: u64,
    end_ns: u64,
    start_thread: u64,
    end_thread: u64,
    correlation_id: u64,
    linked_correlation_id: u64,
    flops: u64,
    bytes: i64,
    device: i32,
    device_index: i32,
    scope: u8,
    is_async: bool,
    is_hidden: bool,
}

unsafe extern "C" {
    fn fulgurite_profiler_prepare(options: *const Options) -> *mut c_char;
    fn fulgurite_profiler_enable(options: *const Options) -> *mut c_char;
    fn fulgurite_profiler_disable(out: *mut *mut RawTrace) -> *mut c_char;
    fn fulgurite_trace_free(trace: *mut RawTrace);
    fn fulgurite_trace_save(trace: *mut RawTrace, path: *const c_char) -> *mut c_char;
    fn fulgurite_trace_len(trace: *const RawTrace) -> usize;
    fn fulgurite_trace_event(trace: *mut RawTrace, index: usize, out: *mut RawEvent) -> *mut c_char;
    fn fulgurite_range_push(name: *const c_char, length: usize) -> *mut c_char;
    fn fulgurite_range_pop() -> bool;
}

/// What to record besides names and times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Options {
    /// The shapes of operators' inputs.
    pub record_shapes: bool,
    /// Allocations and frees of tensors' memory.
    pub profile_memory: bool,
    /// Floating-point operations of matrix products and convolutions, by their formulas.
    pub with_flops: bool,
    /// Kernels and copies on CUDA devices.
    pub cuda: bool,
}

/// Kineto records for one thread of a process at a time.
static TAKEN: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy, PartialEq)]
enum Status {
    Idle,
    Prepared,
    Recording,
}

thread_local! {
    static STATUS: Cell<Status> = const { Cell::new(Status::Idle) };
}

/// Whether this thread is being recorded.
pub fn is_recording() -> bool {
    STATUS.get() == Status::Recording
}

/// Sets the status of this thread; other threads can be recorded when it is idle.
fn set(status: Status) {
    STATUS.set(status);
    if status == Status::Idle {
        TAKEN.store(false, Ordering::Release);
    }
}

fn error(message: &str) -> TorchError {
    TorchError::Bridge(message.to_owned())
}

/// Warms up: loads what recording needs, so that the first recorded operations are not slower.
///
/// # Errors
///
/// Fails if this thread or another thread of the process is being recorded already, or if libtorch cannot load its
/// profiler.
pub fn prepare(options: &Options) -> Result<(), TorchError> {
    if STATUS.get() != Status::Idle {
        return Err(error("this thread is being recorded already; call `profiler::stop` first"));
    }
    if TAKEN.swap(true, Ordering::Acquire) {
        return Err(error("another thread of this process is being recorded; one at a time can be"));
    }
    // SAFETY: the options live for the call.
    let prepared = check(unsafe { fulgurite_profiler_prepare(options) });
    set(if prepared.is_ok() { Status::Prepared } else { Status::Idle });
    prepared
}

/// Starts recording this thread, and the backward passes it starts.
///
/// # Errors
///
/// Fails if this thread or another thread of the process is being recorded already, or if libtorch cannot start its
/// profiler.
pub fn start(options: &Options) -> Result<(), TorchError> {
    if STATUS.get() != Status::Prepared {
        prepare(options)?;
    }
    // SAFETY: the options live for the call.
    let started = check(unsafe { fulgurite_profiler_enable(options) });
    set(if started.is_ok() { Status::Recording } else { Status::Idle });
    started
}

/// Stops the recording, and returns it. Ranges that are still open are closed.
///
/// # Errors
///
/// Fails if this thread is not being recorded, or if libtorch cannot stop its profiler.
pub fn stop() -> Result<Trace, TorchError> {
    if !is_recording() {
        return Err(error("this thread is not being recorded; call `profiler::start` on it before `profiler::stop`"));
    }
    let mut raw = std::ptr::null_mut();
    // SAFETY: `raw` is written only when there is no error.
    let stopped = check(unsafe { fulgurite_profiler_disable(&mut raw) });
    set(Status::Idle);
    stopped.map(|()| Trace { raw })
}

/// Cancels what [`prepare`] or [`start`] began on this thread, if anything, and discards the recording.
///
/// # Errors
///
/// Fails if libtorch cannot stop its profiler.
pub fn cancel(options: &Options) -> Result<(), TorchError> {
    if STATUS.get() == Status::Prepared {
        // Only a recording ends a preparation.
        start(options)?;
    }
    if is_recording() { stop().map(drop) } else { Ok(()) }
}

/// A part of the program that a recording shows under a name, until it is dropped.
#[derive(Debug)]
#[must_use = "the range ends when it is dropped"]
pub struct Range {
    open: bool,
    _thread: PhantomData<*const ()>,
}

/// Opens a range on this thread: `torch.profiler.record_function`. Ranges of a thread must be dropped in the reverse
/// order of their creation, as scopes do.
pub fn range(name: &str) -> Range {
    Range { open: push_range(name).is_ok(), _thread: PhantomData }
}

impl Drop for Range {
    fn drop(&mut self) {
        if self.open {
            pop_range();
        }
    }
}

/// Opens a range that [`pop_range`] closes, for callers that cannot keep a [`Range`]. The two must be called on the
/// same thread, and a range that is open when a recording begins is not part of it.
///
/// # Errors
///
/// Fails if an observer of libtorch fails.
pub fn push_range(name: &str) -> Result<(), TorchError> {
    // SAFETY: the text lives for the call, and is copied.
    check(unsafe { fulgurite_range_push(name.as_ptr().cast(), name.len()) })
}

/// Closes the range of this thread that was opened last; `false` when there is none.
///
/// Close the ranges of a recording before it stops: libtorch writes the end of a range into the recording.
pub fn pop_range() -> bool {
    // SAFETY: changes a thread-local list of ours.
    unsafe { fulgurite_range_pop() }
}

/// A recording.
#[derive(Debug)]
pub struct Trace {
    raw: *mut RawTrace,
}

// SAFETY: a finished recording refers to no thread; every access goes through `&self` or `&mut self` of one owner, and
// it is not `Sync`.
unsafe impl Send for Trace {}

impl Drop for Trace {
    fn drop(&mut self) {
        // SAFETY: created by `fulgurite_profiler_disable`, and not used after this.
        unsafe { fulgurite_trace_free(self.raw) }
    }
}

/// `at::RecordScope::USER_SCOPE`.
const USER_SCOPE: u8 = 7;

impl Trace {
    /// Writes it as a Chrome trace (JSON), which <https://ui.perfetto.dev> and `chrome://tracing` open. A trace can be
    /// written once.
    ///
    /// # Errors
    ///
    /// Fails if the path contains a NUL byte or is not UTF-8, or if the file cannot be written.
    pub fn save(&mut self, path: &Path) -> Result<(), TorchError> {
        let wrong =
            |problem: String| TorchError::Bridge(format!("cannot write the trace {}: {problem}", path.display()));
        let text = path.to_str().ok_or_else(|| wrong("the path is not UTF-8".into()))?;
        let text = CString::new(text).map_err(|error| wrong(error.to_string()))?;
        // libtorch only logs that it cannot write, so this is checked first.
        std::fs::File::create(path).map_err(|error| wrong(error.to_string()))?;
        // SAFETY: the trace is ours, the text lives for the call.
        check(unsafe { fulgurite_trace_save(self.raw, text.as_ptr()) })
    }

    /// What was recorded, by start, without what libtorch hides.
    pub fn events(&self) -> Vec<Event> {
        // SAFETY: the trace is ours.
        let count = unsafe { fulgurite_trace_len(self.raw) };
        let mut events: Vec<Event> = (0..count).filter_map(|index| self.event(index)).collect();
        events.sort_by_key(|event| (event.start_ns, std::cmp::Reverse(event.end_ns)));
        events
    }

    /// The events summed up by name, and by input shapes too if `group_by_input_shapes`: what
    /// `torch.profiler.profile.key_averages` returns, in the order first seen.
    pub fn key_averages(&self, group_by_input_shapes: bool) -> Vec<KeyAverage> {
        averages::key_averages(self.events(), group_by_input_shapes)
    }

    fn event(&self, index: usize) -> Option<Event> {
        let mut raw = std::mem::MaybeUninit::<RawEvent>::uninit();
        // SAFETY: the trace is ours and of one thread, and `raw` is written whole when there is no error.
        check(unsafe { fulgurite_trace_event(self.raw, index, raw.as_mut_ptr()) }).ok()?;
        // SAFETY: written above.
        let raw = unsafe { raw.assume_init() };
        if raw.is_hidden {
            return None;
        }
        // SAFETY: NUL-terminated, and valid until the next call for this trace.
        let text = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        Some(Event {
            name: text(raw.name),
            shapes: text(raw.shapes),
            start_ns: raw.start_ns,
            end_ns: raw.end_ns,
            thread: raw.start_thread,
            correlation_id: raw.correlation_id,
            linked_correlation_id: raw.linked_correlation_id,
            flops: raw.flops,
            bytes: raw.bytes,
            on_cpu: raw.device == 0,
            is_range: raw.scope == USER_SCOPE,
            is_async: raw.is_async || raw.start_thread != raw.end_thread,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tch::{Device, Kind, Tensor};

    fn work() {
        let w = Tensor::randn([3, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let x = Tensor::randn([4, 3], (Kind::Float, Device::Cpu));
        let loss = {
            let _range = range("forward");
            x.matmul(&w).sum(Kind::Float)
        };
        let _range = range("backward");
        crate::grad::backward(&loss).unwrap();
    }

    #[test]
    fn a_recording_holds_operators_ranges_shapes_memory_and_flops() {
        let options = Options { record_shapes: true, profile_memory: true, with_flops: true, cuda: false };
        start(&options).unwrap();
        assert!(is_recording());
        work();
        let mut trace = stop().unwrap();
        assert!(!is_recording());

        let events = trace.events();
        let forward = events.iter().find(|event| event.name == "forward").unwrap();
        assert!(forward.is_range && forward.duration_ns() > 0);
        let mm = events.iter().find(|event| event.name == "aten::mm").unwrap();
        assert!(forward.start_ns <= mm.start_ns && mm.end_ns <= forward.end_ns);
        assert_eq!((mm.shapes.as_str(), mm.flops, mm.is_range), ("[[4, 3], [3, 2]]", 48, false));

        let rows = trace.key_averages(false);
        let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("aten::randn").calls, 2);
        assert!(row("MmBackward0").calls == 1 && row("forward").cpu_memory_usage > 0);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pt.trace.json");
        trace.save(&path).unwrap();
        let json = std::fs::read_to_string(&path).unwrap();
        assert!(json.contains("\"traceEvents\"") && json.contains("aten::mm") && json.contains("user_annotation"));
        let error = trace.save(&folder.path().join("no/such/folder.json")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write the trace"), "{error}");
    }

    #[test]
    fn starting_twice_and_stopping_without_a_start_are_errors() {
        assert!(stop().unwrap_err().to_string().contains("not being recorded"));
        start(&Options::default()).unwrap();
        assert!(start(&Options::default()).unwrap_err().to_string().contains("recorded already"));
        let elsewhere = std::thread::spawn(|| start(&Options::default()).unwrap_err().to_string());
        assert!(elsewhere.join().unwrap().contains("another thread"));
        stop().unwrap();
        assert!(!pop_range());
    }

    #[test]
    fn a_range_opened_before_the_recording_is_not_in_it() {
        push_range("before").unwrap();
        start(&Options::default()).unwrap();
        drop(range("within"));
        let trace = stop().unwrap();
        assert!(pop_range());
        let names: Vec<String> = trace.events().into_iter().filter(|e| e.is_range).map(|e| e.name).collect();
        assert_eq!(names, ["within"]);
    }

    #[test]
    fn a_preparation_can_be_given_up() {
        let options = Options::default();
        cancel(&options).unwrap();
        prepare(&options).unwrap();
        assert!(prepare(&options).is_err() && !is_recording());
        cancel(&options).unwrap();
        start(&options).unwrap();
        cancel(&options).unwrap();
        assert!(!is_recording());
    }
}
