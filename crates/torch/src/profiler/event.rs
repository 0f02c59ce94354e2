//! [`Event`]: one thing that was recorded.

/// A recorded operator, kernel, range or allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The operator, kernel or range; `[memory]` for an allocation.
    pub name: String,
    /// The shapes of its inputs, such as `[[4, 2], [2]]`; `[]` for none, or if they were not recorded.
    pub shapes: String,
    /// The start time in nanoseconds.
    pub start_ns: u64,
    /// The end time in nanoseconds.
    pub end_ns: u64,
    /// The thread on which it began.
    pub thread: u64,
    /// Its correlation id, by which device work that it started refers to it.
    pub correlation_id: u64,
    /// The correlation id of the operator that started this on a device; 0 if there is none.
    pub linked_correlation_id: u64,
    /// Floating-point operations, if they were requested and are known.
    pub flops: u64,
    /// Bytes allocated (positive) or freed (negative), for `[memory]`.
    pub bytes: i64,
    /// Whether it ran on the CPU.
    pub on_cpu: bool,
    /// Whether a range of the program's own, as opposed to an operator.
    pub is_range: bool,
    /// Whether it ended on another thread than it began.
    pub is_async: bool,
}

impl Event {
    /// The duration in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}
