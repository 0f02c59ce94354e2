//! [`Profiling`]: calls the trainer's profiler. Without one it allocates nothing and reads no clock.

use std::path::PathBuf;

use super::{ProfiledRun, Profiler, append_report};
use crate::error::{BoxError, Error};
use crate::stage::Stage;

/// The trainer's profiler, if it has one.
pub(crate) struct Profiling(Option<Box<dyn Profiler>>);

/// A started action, which must be passed to [`Profiling::stop`]. `None` without a profiler.
#[must_use]
pub(crate) struct Action(Option<String>);

impl Profiling {
    pub(crate) fn new(profiler: Option<Box<dyn Profiler>>) -> Profiling {
        Profiling(profiler)
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Starts an action, whose name is only computed if there is a profiler. One with an empty name is not measured.
    pub(crate) fn start(&mut self, name: Option<String>) -> Action {
        let name = name.filter(|name| !name.is_empty());
        if let (Some(profiler), Some(name)) = (self.0.as_deref_mut(), &name) {
            profiler.start(name);
        }
        Action(name)
    }

    /// Stops an action.
    pub(crate) fn stop(&mut self, action: Action) {
        if let (Some(profiler), Some(name)) = (self.0.as_deref_mut(), action.0) {
            profiler.stop(&name);
        }
    }

    /// A batch of `stage` is about to be fetched. `batches`: the number of batches in an epoch, if known.
    pub(crate) fn batch_start(&mut self, stage: Stage, batches: Option<usize>) -> Result<(), Error> {
        let Some(profiler) = self.0.as_deref_mut() else { return Ok(()) };
        profiler.batch_start(stage, batches).map_err(failed("at the start of a batch"))
    }

    /// Called after the batch.
    pub(crate) fn batch_end(&mut self, stage: Stage) -> Result<(), Error> {
        let Some(profiler) = self.0.as_deref_mut() else { return Ok(()) };
        profiler.batch_end(stage).map_err(failed("at the end of a batch"))
    }

    /// Called when an entry point begins.
    pub(crate) fn setup(&mut self, run: &ProfiledRun) -> Result<(), Error> {
        let Some(profiler) = self.0.as_deref_mut() else { return Ok(()) };
        profiler.setup(run).map_err(failed("in set-up"))
    }

    /// End of an entry point, also after an error: the report is written to its file, or returned to be printed.
    pub(crate) fn report(&mut self) -> Result<Option<String>, Error> {
        let Some(profiler) = self.0.as_deref_mut() else { return Ok(None) };
        let report = profiler.summary().map_err(failed("in its summary"))?;
        let path: Option<PathBuf> = profiler.report_path();
        match path {
            _ if report.is_empty() => Ok(None),
            Some(path) => append_report(&path, &report).map(|()| None).map_err(failed("with its report")),
            None => Ok(Some(report)),
        }
    }

    /// Stops measuring.
    pub(crate) fn teardown(&mut self) -> Result<(), Error> {
        self.0.as_deref_mut().map_or(Ok(()), |profiler| profiler.teardown().map_err(failed("in teardown")))
    }

    /// The profiler, if it is of this type.
    pub(crate) fn profiler<P: Profiler>(&self) -> Option<&P> {
        (self.0.as_deref()? as &dyn std::any::Any).downcast_ref()
    }
}

fn failed(doing: &'static str) -> impl FnOnce(BoxError) -> Error {
    move |source| match source.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(source) => Error::Profiler { doing, source: fulgurite_torch::readable_error(source) },
    }
}
