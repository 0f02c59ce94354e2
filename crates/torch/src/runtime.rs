//! Process-wide settings: how memory is kept, and how many threads compute.

use std::fmt;
use std::sync::OnceLock;

use crate::tch;
pub use crate::waiting::{WaitPolicy, adapt_waiting};

/// Whether libtorch's memory is kept between steps, or goes back to the kernel. Returned by [`tune_allocator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocatorTuning {
    /// Freed tensors are kept for the next step.
    Kept,
    /// `FULGURITE_NO_MALLOPT=1` disables the tuning.
    OptedOut,
    /// The environment already tunes glibc's allocator (`MALLOC_*_`, `GLIBC_TUNABLES`), which has precedence.
    SetByEnvironment,
    /// glibc refused the settings.
    Refused,
    /// Not Linux with glibc: its allocator has no such settings.
    NotGlibc,
}

/// Makes glibc keep the memory of freed tensors for the next step, once per process; on other systems does nothing.
///
/// By default glibc hands large blocks back to the kernel when they are freed, so that every step pays for fresh
/// pages: about a quarter of a small step. This raises the size from which blocks are mapped on their own to 1 GiB,
/// and never trims. The price is that the process keeps its peak memory. `FULGURITE_NO_MALLOPT=1` opts out.
pub fn tune_allocator() -> AllocatorTuning {
    static TUNED: OnceLock<AllocatorTuning> = OnceLock::new();
    *TUNED.get_or_init(|| choose(|name| std::env::var(name).ok(), set_thresholds))
}

/// Gives freed memory back to the system, for after an allocation that failed.
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: trims the heap, under the allocator's own lock.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn choose(variable: impl Fn(&str) -> Option<String>, set: impl Fn() -> AllocatorTuning) -> AllocatorTuning {
    let tuned_by_user =
        ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"].iter().any(|name| variable(name).is_some())
            || variable("GLIBC_TUNABLES").is_some_and(|tunables| tunables.contains("glibc.malloc"));
    match variable("FULGURITE_NO_MALLOPT").as_deref() {
        Some("1") => AllocatorTuning::OptedOut,
        _ if tuned_by_user => AllocatorTuning::SetByEnvironment,
        _ => set(),
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_thresholds() -> AllocatorTuning {
    // Older versions of glibc refuse a threshold above half the size of a heap, which is 32 MiB.
    let mmap = [1 << 30, 32 << 20]
        .iter()
        // SAFETY: sets a number of the allocator, under its own lock.
        .any(|&threshold| unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, threshold) } == 1);
    // SAFETY: as above.
    let trim = unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) } == 1;
    if mmap && trim { AllocatorTuning::Kept } else { AllocatorTuning::Refused }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_thresholds() -> AllocatorTuning {
    AllocatorTuning::NotGlibc
}

/// The number of threads of an operation on the CPU: `torch.get_num_threads`.
pub fn num_threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Sets the number of threads of an operation on the CPU; 0 counts as 1. Results may differ in their last bits from
/// those with another number of threads.
pub fn set_num_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

/// Makes operations that this thread calls run on this thread alone; other threads keep their number.
///
/// Each thread that calls into libtorch starts a team of OpenMP threads. With many threads, such as the workers of a
/// data loader, these teams would compete with the training step for the processors. Without OpenMP and MKL in
/// libtorch, this does nothing.
pub fn use_one_thread_here() {
    // The first query on a thread makes libtorch set up that thread, which would undo what follows.
    tch::get_num_threads();
    #[cfg(unix)]
    for setter in [c"omp_set_num_threads", c"MKL_Set_Num_Threads_Local"] {
        // SAFETY: only looks a name up among the libraries that are loaded.
        let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, setter.as_ptr()) };
        if !function.is_null() {
            // SAFETY: both take the number as a C `int` and affect the calling thread only; what MKL's returns, the
            // number before, is an `int` in a register that may be ignored.
            let set = unsafe { std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(libc::c_int)>(function) };
            // SAFETY: as above.
            unsafe { set(1) };
        }
    }
}

/// The settings of this process, for the summary of a run.
///
/// ```
/// let report = fulgurite_torch::runtime::RuntimeReport::collect();
/// assert!(report.num_threads >= 1);
/// assert!(report.to_string().starts_with("threads: "));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeReport {
    /// Threads that an operation uses.
    pub num_threads: usize,
    /// Processors that this process may use.
    pub num_processors: usize,
    /// How memory is kept.
    pub allocator: AllocatorTuning,
    /// How threads wait for each other.
    pub waiting: WaitPolicy,
}

impl RuntimeReport {
    /// The current settings. Calls [`tune_allocator`] and [`adapt_waiting`] first.
    pub fn collect() -> RuntimeReport {
        RuntimeReport {
            num_threads: num_threads(),
            num_processors: std::thread::available_parallelism().map_or(1, usize::from),
            allocator: tune_allocator(),
            waiting: adapt_waiting(),
        }
    }
}

impl fmt::Display for RuntimeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allocator = match self.allocator {
            AllocatorTuning::Kept => "freed tensors are kept for the next step (FULGURITE_NO_MALLOPT=1 opts out)",
            AllocatorTuning::OptedOut => "left alone (FULGURITE_NO_MALLOPT=1)",
            AllocatorTuning::SetByEnvironment => "as the environment sets it",
            AllocatorTuning::Refused => "left alone (glibc refused the settings)",
            AllocatorTuning::NotGlibc => "the system's",
        };
        let waiting = match self.waiting {
            WaitPolicy::Adaptive => "sleeping while other processes are busy, else spinning",
            WaitPolicy::SetByEnvironment => "waiting as the environment sets it",
            WaitPolicy::Fixed => "waiting in libtorch's default way",
        };
        write!(f, "threads: {} of {} processors, {waiting}; memory: {allocator}", self.num_threads, self.num_processors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_the_last_word() {
        let with = |name: &'static str, value: &'static str| {
            choose(move |asked| (asked == name).then(|| value.into()), || AllocatorTuning::Kept)
        };
        assert_eq!(with("PATH", "/bin"), AllocatorTuning::Kept);
        assert_eq!(with("FULGURITE_NO_MALLOPT", "1"), AllocatorTuning::OptedOut);
        assert_eq!(with("FULGURITE_NO_MALLOPT", "0"), AllocatorTuning::Kept);
        assert_eq!(with("MALLOC_TRIM_THRESHOLD_", "1000"), AllocatorTuning::SetByEnvironment);
        assert_eq!(with("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1"), AllocatorTuning::SetByEnvironment);
        assert_eq!(with("GLIBC_TUNABLES", "glibc.rtld.nns=4"), AllocatorTuning::Kept);
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn glibc_takes_the_thresholds() {
        assert_eq!(set_thresholds(), AllocatorTuning::Kept);
    }

    #[test]
    fn threads_are_set_and_zero_is_one() {
        let before = num_threads();
        set_num_threads(0);
        assert_eq!(num_threads(), 1);
        set_num_threads(before);
        assert_eq!(num_threads(), before);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn one_thread_here_leaves_the_others_alone() {
        let before = num_threads();
        set_num_threads(3);
        let there = std::thread::spawn(|| {
            use_one_thread_here();
            num_threads()
        });
        assert_eq!(there.join().unwrap(), 1);
        assert_eq!(num_threads(), 3);
        set_num_threads(before);
    }

    #[test]
    fn a_report_reads_as_one_line() {
        let report = RuntimeReport {
            num_threads: 2,
            num_processors: 4,
            allocator: AllocatorTuning::OptedOut,
            waiting: WaitPolicy::SetByEnvironment,
        };
        assert_eq!(
            report.to_string(),
            "threads: 2 of 4 processors, waiting as the environment sets it; memory: left alone (FULGURITE_NO_MALLOPT=1)"
        );
    }
}
