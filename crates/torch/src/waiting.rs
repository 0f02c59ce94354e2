//! How libtorch's OpenMP threads wait for each other: spinning while the machine is idle otherwise, sleeping when not.
//!
//! libgomp's threads spin for milliseconds at the end of each parallel region. On an idle machine that is the fastest
//! way to wait; beside a busy process they spin away the time the other thread of the same region needs, and a step
//! slows down tenfold. libgomp shortens the wait by itself when it manages more threads than there are processors (its
//! manual, `GOMP_SPINCOUNT`), so while neighbours are busy a team of surplus threads is kept asleep.

use std::sync::OnceLock;

/// Whether this process adapts to other processes. Returned by [`adapt_waiting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitPolicy {
    /// Threads spin while the processors are free, and sleep while other processes use them.
    Adaptive,
    /// `OMP_WAIT_POLICY` or `GOMP_SPINCOUNT` is set, and respected; or `FULGURITE_NO_WAIT_TUNING=1` opted out.
    SetByEnvironment,
    /// There is one thread, or no libgomp, or no `/proc`: libtorch's default.
    Fixed,
}

/// Starts to monitor whether other processes use the processors, and makes OpenMP threads sleep instead of spin while
/// they do. Once per process; `OMP_WAIT_POLICY`, `GOMP_SPINCOUNT` or `FULGURITE_NO_WAIT_TUNING=1` opt out.
pub fn adapt_waiting() -> WaitPolicy {
    static POLICY: OnceLock<WaitPolicy> = OnceLock::new();
    *POLICY.get_or_init(|| {
        let chosen = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "FULGURITE_NO_WAIT_TUNING"];
        if chosen.iter().any(|name| std::env::var_os(name).is_some()) {
            return WaitPolicy::SetByEnvironment;
        }
        if linux::watch() { WaitPolicy::Adaptive } else { WaitPolicy::Fixed }
    })
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod linux {
    use std::ffi::c_void;
    use std::sync::mpsc::{Sender, channel};
    use std::time::{Duration, Instant};

    /// How often the neighbours are looked at.
    const PERIOD: Duration = Duration::from_millis(250);
    /// Neighbours count as busy from this share of one processor, and as gone below half of it.
    const BUSY: f64 = 0.25;

    type Parallel = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, u32, u32);

    /// Starts the watching thread; `false` when there is nothing to adapt.
    pub(super) fn watch() -> bool {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (Some(parallel), Some(start), true) = (gomp_parallel(), sample(), processors > 1) else { return false };
        let watch = move || {
            let mut last = start;
            let mut surplus: Option<Surplus> = None;
            loop {
                std::thread::sleep(PERIOD);
                let Some(now) = sample() else { return };
                let others = now.others_since(&last);
                last = now;
                match surplus {
                    None if others > BUSY => surplus = Surplus::start(parallel, processors),
                    Some(_) if others < BUSY / 2.0 => surplus = None,
                    _ => {}
                }
            }
        };
        std::thread::Builder::new().name("neighbours".into()).spawn(watch).is_ok()
    }

    /// A sleeping team of one thread more than there are processors. It ends when this is dropped.
    struct Surplus(#[expect(dead_code, reason = "dropping it wakes the team's master")] Sender<()>);

    impl Surplus {
        fn start(parallel: Parallel, processors: usize) -> Option<Surplus> {
            let (alive, dropped) = channel::<()>();
            let team = u32::try_from(processors + 1).ok()?;
            let master = move || {
                // SAFETY: libgomp's own entry point, called as the code of `#pragma omp parallel` calls it; the body
                // touches nothing.
                unsafe { parallel(nothing, std::ptr::null_mut(), team, 0) };
                // The team belongs to this thread and sleeps until it ends: until the sender is dropped.
                let _ = dropped.recv();
            };
            std::thread::Builder::new().name("surplus".into()).spawn(master).ok()?;
            Some(Surplus(alive))
        }
    }

    unsafe extern "C" fn nothing(_: *mut c_void) {}

    /// The entry point of libgomp's parallel regions, if libtorch has brought libgomp along.
    fn gomp_parallel() -> Option<Parallel> {
        // SAFETY: only looks a name up among the libraries that are loaded.
        let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr()) };
        // SAFETY: the function of that name has had this signature since GCC 4.9; LLVM's OpenMP offers the same one.
        (!function.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Parallel>(function) })
    }

    /// Processor time used until a moment, in seconds.
    struct Sample {
        at: Instant,
        ours: f64,
        everyones: f64,
    }

    impl Sample {
        /// Processors' worth of time that others have used since.
        fn others_since(&self, earlier: &Sample) -> f64 {
            let wall = self.at.duration_since(earlier.at).as_secs_f64();
            let others = (self.everyones - earlier.everyones) - (self.ours - earlier.ours);
            others.max(0.0) / wall.max(f64::MIN_POSITIVE)
        }
    }

    fn sample() -> Option<Sample> {
        let mut ours = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: fills in the struct it is given.
        if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut ours) } != 0 {
            return None;
        }
        // SAFETY: reads a constant of the system.
        let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let everyones = busy_ticks(&stat, &allowed_processors()?)? / ticks_per_second;
        Some(Sample { at: Instant::now(), ours: ours.tv_sec as f64 + ours.tv_nsec as f64 * 1e-9, everyones })
    }

    /// Ticks that the processors in `allowed` were not idle, from the text of `/proc/stat`.
    fn busy_ticks(stat: &str, allowed: &libc::cpu_set_t) -> Option<f64> {
        let mut busy = 0.0;
        for line in stat.lines().take_while(|line| line.starts_with("cpu")) {
            let mut fields = line["cpu".len()..].split(' ');
            // The first line is the sum of all, and has no number.
            let Ok(processor) = fields.next()?.parse::<usize>() else { continue };
            // SAFETY: reads a bit of a set that is as large as the kernel's.
            if processor < libc::CPU_SETSIZE as usize && unsafe { libc::CPU_ISSET(processor, allowed) } {
                let ticks: Vec<f64> = fields.map_while(|field| field.parse().ok()).collect();
                // user, nice, system, idle, iowait, irq, softirq, steal
                busy += [0, 1, 2, 5, 6, 7].iter().filter_map(|&field| ticks.get(field)).sum::<f64>();
            }
        }
        Some(busy)
    }

    fn allowed_processors() -> Option<libc::cpu_set_t> {
        // SAFETY: a set of bits, for which all zero is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: fills in the set it is given, of the given size.
        let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
        (failed == 0).then_some(set)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn busy_time_is_that_of_the_allowed_processors() {
            let stat =
                "cpu  30 0 30 900 0 0 0 0 0 0\ncpu0 10 1 5 400 7 2 3 4 0 0\ncpu1 100 0 0 500 0 0 0 0 0 0\nintr 9\n";
            // SAFETY: as in `allowed_processors`.
            let mut only_first: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: sets a bit of it.
            unsafe { libc::CPU_SET(0, &mut only_first) };
            assert_eq!(busy_ticks(stat, &only_first), Some(25.0));
        }

        #[test]
        fn a_surplus_team_starts_and_ends() {
            crate::tch::get_num_threads();
            if let Some(parallel) = gomp_parallel() {
                let threads = || std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count());
                let before = threads();
                let surplus = Surplus::start(parallel, 2).unwrap();
                let wait_for = |reached: &dyn Fn() -> bool| {
                    let start = Instant::now();
                    while !reached() && start.elapsed() < Duration::from_secs(10) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    reached()
                };
                assert!(wait_for(&|| threads() >= before + 3), "the team of three did not start");
                drop(surplus);
                assert!(wait_for(&|| threads() < before + 3), "the team of three did not end");
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod linux {
    pub(super) fn watch() -> bool {
        false
    }
}
