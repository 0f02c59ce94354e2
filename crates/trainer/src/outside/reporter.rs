//! [`Reporter`]: the callback that writes [`ReportLines`].

use fulgurite_engine::{Callback, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_fabric::loggers::CheckpointNews;

use super::lines::ReportLines;

/// Tells the program that started this one what is measured.
pub(crate) struct Reporter {
    lines: ReportLines,
    /// Whether it is a fit that runs, and not an evaluation.
    fits: bool,
}

impl Reporter {
    pub(crate) fn new(lines: ReportLines) -> Reporter {
        Reporter { lines, fits: false }
    }

    fn update(&self, trainer: &mut TrainerState) -> Result<()> {
        let values = trainer.callback_metrics()?;
        self.lines.update(values.iter().map(|(name, value)| (name.as_str(), value.to_f64())));
        Ok(())
    }
}

/// A reader that is gone does not end the run.
fn warn(trainer: &TrainerState, written: std::io::Result<()>) {
    if let Err(error) = written {
        trainer.warn(&format!("nothing more is reported to {}: {error}", super::lines::VARIABLE));
    }
}

impl Callback for Reporter {
    fn setup(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        self.fits = stage == TrainerFn::Fit;
        if self.fits {
            let written = self.lines.start(trainer.run_id(), &trainer.log_dir());
            warn(trainer, written);
        }
        Ok(())
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.fits && !trainer.is_sanity_checking() {
            self.update(trainer)?;
            let written = self.lines.metrics(trainer.global_step(), trainer.current_epoch());
            warn(trainer, written);
        }
        Ok(())
    }

    fn on_checkpoint_written(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        news: &CheckpointNews,
    ) -> Result<()> {
        let written = self.lines.checkpoint(news);
        warn(trainer, written);
        Ok(())
    }

    fn on_train_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.update(trainer)
    }
}
