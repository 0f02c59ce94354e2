//! [`MemoryLogger`].

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use super::{Logger, LoggerError, RunStatus};

/// One call that a [`MemoryLogger`] received.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Logged {
    /// [`Logger::log_metrics`].
    Metrics {
        /// Names and values, in the order given.
        metrics: Vec<(String, f64)>,
        /// The step.
        step: i64,
    },
    /// [`Logger::log_hyperparams`].
    Hyperparams(Dict),
    /// [`Logger::log_text`].
    Text {
        /// The tag.
        tag: String,
        /// The text.
        text: String,
        /// The step.
        step: i64,
    },
    /// [`Logger::log_image`].
    Image {
        /// The tag.
        tag: String,
        /// A copy of the image.
        image: Tensor,
        /// The step.
        step: i64,
    },
    /// [`Logger::log_histogram`].
    Histogram {
        /// The tag.
        tag: String,
        /// A copy of the values.
        values: Tensor,
        /// The step.
        step: i64,
    },
    /// [`Logger::save`].
    Save,
    /// [`Logger::finalize`].
    Finalize(RunStatus),
}

/// Records every call in memory, for tests and notebooks. Clones share the records: pass one to the run and read
/// the other.
///
/// ```
/// use fulgurite_fabric::loggers::{Logger, MemoryLogger};
///
/// let records = MemoryLogger::new();
/// let mut logger: Box<dyn Logger> = Box::new(records.clone());
/// logger.log_metrics(&[("loss", 0.5)], 0)?;
/// logger.log_metrics(&[("loss", 0.25), ("acc", 1.0)], 1)?;
/// assert_eq!(records.metric("loss"), [(0, 0.5), (1, 0.25)]);
/// # Ok::<(), fulgurite_fabric::loggers::LoggerError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryLogger {
    calls: Arc<Mutex<Vec<Logged>>>,
}

impl MemoryLogger {
    /// A logger without records.
    pub fn new() -> MemoryLogger {
        MemoryLogger::default()
    }

    /// The values of the metric `name` with their steps, in the order logged.
    pub fn metric(&self, name: &str) -> Vec<(i64, f64)> {
        let mut values = Vec::new();
        for call in self.calls().iter() {
            if let Logged::Metrics { metrics, step } = call {
                values.extend(metrics.iter().filter(|(n, _)| n == name).map(|(_, value)| (*step, *value)));
            }
        }
        values
    }

    /// The names of all metrics, in the order of their first value.
    pub fn metric_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for call in self.calls().iter() {
            if let Logged::Metrics { metrics, .. } = call {
                for (name, _) in metrics {
                    if !names.contains(name) {
                        names.push(name.clone());
                    }
                }
            }
        }
        names
    }

    /// Removes and returns all records, oldest first.
    pub fn take(&self) -> Vec<Logged> {
        std::mem::take(&mut *self.calls())
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Logged>> {
        // The records remain readable after a panic in another thread.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, call: Logged) -> Result<(), LoggerError> {
        self.calls().push(call);
        Ok(())
    }
}

impl Logger for MemoryLogger {
    fn name(&self) -> &str {
        "memory"
    }

    fn version(&self) -> &str {
        "version_0"
    }

    fn save_dir(&self) -> Option<&Path> {
        None
    }

    fn log_dir(&self) -> Option<&Path> {
        None
    }

    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        let metrics = metrics.iter().map(|(name, value)| ((*name).into(), *value)).collect();
        self.keep(Logged::Metrics { metrics, step })
    }

    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError> {
        self.keep(Logged::Hyperparams(params.clone()))
    }

    fn log_text(&mut self, tag: &str, text: &str, step: i64) -> Result<(), LoggerError> {
        self.keep(Logged::Text { tag: tag.into(), text: text.into(), step })
    }

    fn log_image(&mut self, tag: &str, image: &Tensor, step: i64) -> Result<(), LoggerError> {
        let image = image.f_detach_copy().map_err(LoggerError::tensor(tag))?;
        self.keep(Logged::Image { tag: tag.into(), image, step })
    }

    fn log_histogram(&mut self, tag: &str, values: &Tensor, step: i64) -> Result<(), LoggerError> {
        let values = values.f_detach_copy().map_err(LoggerError::tensor(tag))?;
        self.keep(Logged::Histogram { tag: tag.into(), values, step })
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        self.keep(Logged::Save)
    }

    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError> {
        self.keep(Logged::Finalize(status))
    }
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::Dict;
    use fulgurite_torch::tch::{Kind, Tensor};

    use super::{Logged, MemoryLogger};
    use crate::loggers::{DummyLogger, Logger, RunStatus};

    #[test]
    fn every_call_is_kept_in_order() {
        let kept = MemoryLogger::new();
        let mut logger = kept.clone();
        let params = Dict::new().with("lr", 0.1);
        let image = Tensor::zeros([1, 2, 2], (Kind::Float, fulgurite_torch::tch::Device::Cpu));
        logger.log_hyperparams(&params).unwrap();
        logger.log_metrics(&[("a", 1.0)], 0).unwrap();
        logger.log_text("t", "hi", 1).unwrap();
        logger.log_image("i", &image, 2).unwrap();
        logger.log_histogram("h", &image, 3).unwrap();
        _ = image.shallow_clone().fill_(1.0);
        logger.save().unwrap();
        logger.finalize(RunStatus::Failed).unwrap();
        let zeros = || image.zeros_like();
        let expected = [
            Logged::Hyperparams(params),
            Logged::Metrics { metrics: vec![("a".into(), 1.0)], step: 0 },
            Logged::Text { tag: "t".into(), text: "hi".into(), step: 1 },
            Logged::Image { tag: "i".into(), image: zeros(), step: 2 },
            Logged::Histogram { tag: "h".into(), values: zeros(), step: 3 },
            Logged::Save,
            Logged::Finalize(RunStatus::Failed),
        ];
        assert_eq!(kept.metric_names(), ["a"]);
        assert_eq!(kept.take(), expected);
        assert_eq!(kept.take(), []);
    }

    #[test]
    fn the_dummy_accepts_everything() {
        let mut dummy = DummyLogger;
        dummy.log_metrics(&[("a", 1.0)], 0).unwrap();
        dummy.log_text("t", "hi", 1).unwrap();
        dummy.log_hyperparams(&Dict::new()).unwrap();
        dummy.finalize(RunStatus::Success).unwrap();
        assert_eq!((dummy.name(), dummy.version(), dummy.log_dir()), ("", "", None));
    }
}
