//! Worker threads that load batches ahead of time and deliver them in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use fulgurite_torch::catch_panic;

use crate::{Batch, BatchIter, DataError};

/// One epoch of a loader: `plan` yields the items of each batch and is iterated by one thread at a time; `load` loads
/// it, on many threads.
pub(crate) struct Epoch<P, L> {
    pub(crate) plan: P,
    pub(crate) load: L,
    /// The number of the first batch: how many were skipped.
    pub(crate) first: usize,
    /// The dataset, for messages.
    pub(crate) name: String,
}

/// How many threads, and how many batches each may be ahead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workers {
    pub(crate) count: usize,
    pub(crate) prefetch_factor: usize,
}

/// An upper bound of the number of threads.
const MAX_WORKERS: usize = 4096;
/// An upper bound of the number of batches ahead.
const MAX_AHEAD: usize = 1 << 20;

impl Workers {
    pub(crate) fn check(self) -> Result<(), DataError> {
        if self.count > MAX_WORKERS {
            return Err(DataError::Setting(format!(
                "num_workers is {}; a loader can have {MAX_WORKERS} threads, and more than processors are rarely faster",
                self.count
            )));
        }
        if self.prefetch_factor == 0 {
            return Err(DataError::Setting("prefetch_factor is 0; a worker loads at least one batch ahead".into()));
        }
        if self.ahead() > MAX_AHEAD {
            return Err(DataError::Setting(format!(
                "prefetch_factor is {}; the workers of a loader can be {MAX_AHEAD} batches ahead together, and 2 each are \
                 mostly enough",
                self.prefetch_factor
            )));
        }
        Ok(())
    }

    /// Batches that are loaded before the first is taken.
    fn ahead(self) -> usize {
        self.count.saturating_mul(self.prefetch_factor)
    }
}

/// The cancellation flag, checked between items: true once the batch is no longer needed.
pub(crate) type Cancelled = Arc<AtomicBool>;

impl<P, L, J, B> Epoch<P, L>
where
    P: Iterator<Item = Result<J, DataError>> + Send + 'static,
    L: Fn(usize, J, &AtomicBool) -> Result<B, DataError> + Send + Sync + 'static,
    J: Send + 'static,
    B: Batch,
{
    /// The batches in order. Without workers, they are loaded on demand.
    pub(crate) fn run(self, workers: Workers) -> Result<BatchIter<B>, DataError> {
        if workers.count == 0 {
            return Ok(Box::new(Inline { number: self.first, epoch: Some(self), running: AtomicBool::new(false) }));
        }
        let (permits, permit) = channel();
        let (finished, results) = channel();
        let cancelled = Cancelled::default();
        let shared = Arc::new(Shared {
            plan: Mutex::new(Plan { permit, next: self.first, jobs: Some(self.plan) }),
            load: self.load,
            name: self.name,
            cancelled: cancelled.clone(),
        });
        let mut pool = Pool {
            permits: Some(permits),
            results,
            early: BTreeMap::new(),
            next: self.first,
            cancelled,
            threads: Vec::with_capacity(workers.count),
        };
        for number in 0..workers.count {
            let (shared, finished) = (shared.clone(), finished.clone());
            let thread = std::thread::Builder::new()
                .name(format!("data-worker-{number}"))
                .spawn(move || shared.work(&finished))
                .map_err(|source| DataError::Threads { count: workers.count, source })?;
            pool.threads.push(thread);
        }
        (0..workers.ahead()).for_each(|_| pool.permit_one());
        Ok(Box::new(pool))
    }
}

/// The next job; panics of the user's sampler or stream become errors.
fn next_job<J>(
    jobs: &mut impl Iterator<Item = Result<J, DataError>>,
    name: &str,
    batch: usize,
) -> Option<Result<J, DataError>> {
    catch_panic(|| jobs.next())
        .unwrap_or_else(|message| Some(Err(DataError::OrderPanicked { batch, dataset: name.to_string(), message })))
}

struct Inline<P, L> {
    /// Gone after the end and after an error.
    epoch: Option<Epoch<P, L>>,
    number: usize,
    running: AtomicBool,
}

impl<P, L, J, B> Iterator for Inline<P, L>
where
    P: Iterator<Item = Result<J, DataError>>,
    L: Fn(usize, J, &AtomicBool) -> Result<B, DataError>,
{
    type Item = Result<B, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let epoch = self.epoch.as_mut()?;
        let job = next_job(&mut epoch.plan, &epoch.name, self.number);
        let batch = job.map(|job| (epoch.load)(self.number, job?, &self.running));
        self.number += 1;
        if !matches!(batch, Some(Ok(_))) {
            self.epoch = None;
        }
        batch
    }
}

struct Shared<P, L> {
    plan: Mutex<Plan<P>>,
    load: L,
    name: String,
    cancelled: Cancelled,
}

struct Plan<P> {
    /// One message for every batch that may be begun.
    permit: Receiver<()>,
    next: usize,
    jobs: Option<P>,
}

/// A batch's number and what became of it; `None` after the last.
type Finished<B> = (usize, Option<Result<B, DataError>>);

impl<P, L, J, B> Shared<P, L>
where
    P: Iterator<Item = Result<J, DataError>>,
    L: Fn(usize, J, &AtomicBool) -> Result<B, DataError>,
{
    fn work(&self, finished: &Sender<Finished<B>>) {
        fulgurite_torch::runtime::use_one_thread_here();
        while let Some((number, job)) = self.take() {
            let batch = job.map(|job| job.and_then(|job| (self.load)(number, job, &self.cancelled)));
            if finished.send((number, batch)).is_err() {
                return;
            }
        }
    }

    /// Waits for a permit and takes the next job. `None` when the iterator is gone or the epoch over.
    fn take(&self) -> Option<(usize, Option<Result<J, DataError>>)> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.jobs.as_ref()?;
        plan.permit.recv().ok()?;
        let number = plan.next;
        plan.next += 1;
        let job = plan.jobs.as_mut().and_then(|jobs| next_job(jobs, &self.name, number));
        if !matches!(job, Some(Ok(_))) {
            plan.jobs = None;
        }
        Some((number, job))
    }
}

struct Pool<B> {
    /// Gone after the end and after an error.
    permits: Option<Sender<()>>,
    results: Receiver<Finished<B>>,
    /// Batches that were ready before an earlier one.
    early: BTreeMap<usize, Option<Result<B, DataError>>>,
    next: usize,
    cancelled: Cancelled,
    threads: Vec<JoinHandle<()>>,
}

impl<B> Pool<B> {
    fn permit_one(&self) {
        if let Some(permits) = &self.permits {
            // The receiver is gone after the last batch was started: no permits are needed.
            let _ = permits.send(());
        }
    }

    fn stop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.permits = None;
        for thread in self.threads.drain(..) {
            // A worker catches the panics of user code, and closes its results channel when it exits.
            let _ = thread.join();
        }
    }
}

impl<B: Send> Iterator for Pool<B> {
    type Item = Result<B, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.permits.as_ref()?;
        let batch = loop {
            if let Some(batch) = self.early.remove(&self.next) {
                break batch;
            }
            match self.results.recv() {
                Ok((number, batch)) => self.early.insert(number, batch),
                Err(_) => break Some(Err(DataError::Stopped { batch: self.next })),
            };
        };
        self.next += 1;
        match batch {
            Some(Ok(_)) => self.permit_one(),
            _ => self.stop(),
        }
        batch
    }
}

impl<B> Drop for Pool<B> {
    fn drop(&mut self) {
        self.stop();
    }
}
