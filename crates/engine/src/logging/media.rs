//! Logging of texts, images and histograms, directly to the loggers.

use fulgurite_fabric::loggers::{Logger, LoggerError};
use fulgurite_torch::tch::Tensor;

use crate::error::Result;
use crate::state::TrainerState;
use crate::step::Step;

impl TrainerState {
    /// Records a text with every logger that can show one (TensorBoard reads it as Markdown), at the current optimizer
    /// step. Nothing is recorded during the sanity check.
    ///
    /// # Errors
    ///
    /// Fails if a logger cannot write.
    pub fn log_text(&mut self, tag: &str, text: &str) -> Result<()> {
        self.each_logger(|logger, step| logger.log_text(tag, text, step))
    }

    /// Records an image, `[C, H, W]` (C of 1, 3 or 4), float in 0..=1 or `u8` in 0..=255, as
    /// [`log_text`](Self::log_text) does a text. [`make_grid`](fulgurite_fabric::loggers::make_grid) puts many into
    /// one.
    ///
    /// # Errors
    ///
    /// Fails if the tensor is not an image, or a logger cannot write.
    pub fn log_image(&mut self, tag: &str, image: &Tensor) -> Result<()> {
        self.each_logger(|logger, step| logger.log_image(tag, image, step))
    }

    /// Records the distribution of all elements of `values`, as [`log_text`](Self::log_text) does a text.
    ///
    /// # Errors
    ///
    /// Fails if the tensor is empty, or a logger cannot write.
    pub fn log_histogram(&mut self, tag: &str, values: &Tensor) -> Result<()> {
        self.each_logger(|logger, step| logger.log_histogram(tag, values, step))
    }

    fn each_logger(&mut self, log: impl Fn(&mut dyn Logger, i64) -> Result<(), LoggerError>) -> Result<()> {
        if self.is_sanity_checking() || !self.is_global_zero() {
            return Ok(());
        }
        let step = self.global_step() as i64;
        for logger in self.loggers() {
            log(logger.as_mut(), step)?;
        }
        Ok(())
    }
}

impl Step<'_> {
    /// Records a text with every logger that can show one: [`TrainerState::log_text`].
    ///
    /// # Errors
    ///
    /// Fails if a logger cannot write.
    pub fn log_text(&mut self, tag: &str, text: &str) -> Result<()> {
        self.trainer().log_text(tag, text)
    }

    /// Records an image with every logger that can show one: [`TrainerState::log_image`].
    ///
    /// # Errors
    ///
    /// Fails if the tensor is not an image, or a logger cannot write.
    pub fn log_image(&mut self, tag: &str, image: &Tensor) -> Result<()> {
        self.trainer().log_image(tag, image)
    }

    /// Records a distribution with every logger that can show one: [`TrainerState::log_histogram`].
    ///
    /// # Errors
    ///
    /// Fails if the tensor is empty, or a logger cannot write.
    pub fn log_histogram(&mut self, tag: &str, values: &Tensor) -> Result<()> {
        self.trainer().log_histogram(tag, values)
    }
}
