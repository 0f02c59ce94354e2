//! [`Stopwatch`]: the time of a step, and [`Plan`], how many steps are timed.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How many steps are run: some to warm up, then blocks of steps. A block's mean includes what happens only now and then,
/// such as writing to a file; the median of the blocks leaves out what other programs did to single ones.
#[derive(Clone, Copy)]
pub struct Plan {
    pub warmup: usize,
    pub blocks: usize,
    pub steps_per_block: usize,
}

impl Plan {
    pub fn total_steps(&self) -> usize {
        self.warmup + self.blocks * self.steps_per_block
    }

    /// As arguments of a process.
    pub fn to_args(self) -> [String; 3] {
        [self.warmup, self.blocks, self.steps_per_block].map(|number| number.to_string())
    }

    pub fn from_args(args: &[&str]) -> Result<Plan> {
        let [warmup, blocks, steps_per_block] = args else { bail!("a plan is three numbers") };
        Ok(Plan { warmup: warmup.parse()?, blocks: blocks.parse()?, steps_per_block: steps_per_block.parse()? })
    }
}

/// What a process measured, as it writes it to a file.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Measured {
    /// Microseconds of a step.
    pub step_us: f64,
    /// Microseconds from the start of the process to the end of its first step.
    pub startup_us: f64,
}

/// Is told of the end of every step.
pub struct Stopwatch {
    plan: Plan,
    steps: usize,
    startup_us: f64,
    marks: Vec<Instant>,
}

/// When a process is started, in nanoseconds since 1970; set by whoever starts it.
pub const STARTED: &str = "FULGURITE_BENCH_STARTED";

impl Stopwatch {
    pub fn new(plan: Plan) -> Stopwatch {
        Stopwatch { plan, steps: 0, startup_us: 0.0, marks: Vec::with_capacity(plan.blocks + 1) }
    }

    pub fn step_ended(&mut self) {
        self.steps += 1;
        if self.steps == 1 {
            self.startup_us = since_start().unwrap_or(f64::NAN);
        }
        let timed = self.steps.checked_sub(self.plan.warmup);
        if timed.is_some_and(|timed| timed.is_multiple_of(self.plan.steps_per_block)) {
            self.marks.push(Instant::now());
        }
    }

    pub fn measured(&self) -> Result<Measured> {
        if self.marks.len() != self.plan.blocks + 1 {
            bail!("{} steps were run, and {} were planned", self.steps, self.plan.total_steps());
        }
        let per_step = |pair: &[Instant]| (pair[1] - pair[0]).as_secs_f64() * 1e6 / self.plan.steps_per_block as f64;
        let step_us = median(self.marks.windows(2).map(per_step).collect()).context("no block was timed")?;
        Ok(Measured { step_us, startup_us: self.startup_us })
    }
}

fn since_start() -> Option<f64> {
    let started: u128 = std::env::var(STARTED).ok()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos();
    Some(now.checked_sub(started)? as f64 / 1e3)
}

/// The median; of an even number of values, the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len().is_multiple_of(2) { (values[values.len() / 2 - 1] + upper) / 2.0 } else { upper })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn warm_up_is_not_timed_and_every_planned_step_must_have_run() {
        let plan = Plan { warmup: 2, blocks: 3, steps_per_block: 2 };
        let mut stopwatch = Stopwatch::new(plan);
        for _ in 0..plan.total_steps() {
            assert!(stopwatch.measured().is_err());
            stopwatch.step_ended();
        }
        assert_eq!(stopwatch.marks.len(), 4);
        assert!(stopwatch.measured().unwrap().step_us >= 0.0);
    }
}
