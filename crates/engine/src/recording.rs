//! When the record of a run is written. What cannot be written ends no run.

use std::io;
use std::path::{Path, PathBuf};

use fulgurite_fabric::loggers::CheckpointNews;
use fulgurite_torch::device::cuda_device_name;
use fulgurite_torch::runtime;
use fulgurite_torch::tch::Device;

use crate::error::Error;
use crate::outcome::status_of;
use crate::record::{About, Activity, FILE, Machine, Position, RunRecord};
use crate::stage::Stage;
use crate::state::TrainerState;

impl TrainerState {
    /// Time is spent on this from now on. Returns what it was spent on before.
    pub(crate) fn spend_on(&mut self, activity: Activity) -> Activity {
        // A trial of the tuner is part of the set-up.
        if self.is_trial { self.record.activity() } else { self.record.enter(activity) }
    }

    /// Loggers have begun to write: their folder is there, and the record is begun in it.
    pub(crate) fn open_record(&mut self) {
        if !self.record.is_waiting() || self.is_trial {
            return;
        }
        let Some(folder) = self.folder_of_record().filter(|_| self.is_global_zero()) else {
            return self.record.turn_off();
        };
        let (about, run_id) = (self.about(), self.saves.run_id().map(str::to_owned));
        let entry = self.entry_point().name();
        self.write_record(|record| record.open(&folder, entry, run_id.as_deref(), &about));
        self.record_warnings();
    }

    /// The folder that has a record already, or else the first that there is: one of a tracker may come later.
    fn folder_of_record(&self) -> Option<PathBuf> {
        let folders = self.fabric.loggers.iter().filter_map(|logger| logger.log_dir()).filter(|folder| folder.is_dir());
        folders.min_by_key(|folder| !folder.join(FILE).exists()).map(Path::to_path_buf)
    }

    fn about(&self) -> About {
        let (fabric, device) = (&self.fabric, self.device());
        let gpu = match device {
            Device::Cuda(index) => cuda_device_name(index),
            _ => None,
        };
        About {
            device: fabric.accelerator().to_string(),
            gpu,
            precision: fabric.precision().name().to_string(),
            strategy: fabric.strategy().name().to_owned(),
            ranks: fabric.ranks().world_size,
            threads: runtime::num_threads(),
            machine: Machine::here(),
        }
    }

    /// Training begins, or goes on from a checkpoint.
    pub(crate) fn record_training(&mut self) {
        if self.is_trial {
            return;
        }
        let (at, resumed_from) = (self.recorded_position(), self.resumed_from().map(Path::to_path_buf));
        self.write_record(|record| record.training_begins(resumed_from.as_deref(), at));
    }

    /// A batch begins, of so many samples if that is known.
    pub(crate) fn count_samples(&mut self, size: Option<i64>) {
        if self.stage() == Stage::Train && !self.is_trial {
            let samples = size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
            self.record.count_batch(samples.saturating_mul(self.fabric.ranks().world_size as u64));
        }
    }

    /// After a batch: notes now and then how far the run is.
    pub(crate) fn record_progress(&mut self) {
        if self.console.num_warnings() > self.record.warnings() {
            self.record_warnings();
        }
        if self.record.is_due() && !self.is_trial {
            let at = self.recorded_position();
            self.write_record(|record| record.progress(at));
        }
    }

    /// A checkpoint is on the disk.
    pub(crate) fn record_checkpoint(&mut self, news: &CheckpointNews) {
        let at = self.recorded_position();
        self.write_record(|record| record.checkpoint(news, at));
    }

    /// Prints the summary of the model, which becomes part of the run's record.
    pub fn print_model_summary(&mut self, text: &str) {
        self.print(text);
        self.write_record(|record| record.summary(text));
    }

    /// The entry point has ended.
    pub(crate) fn end_record<T>(&mut self, outcome: &Result<T, Error>) {
        self.record_warnings();
        let at = self.recorded_position();
        let error = outcome.as_ref().err().map(Error::to_string);
        self.write_record(|record| record.end(status_of(outcome), error.as_deref(), at));
    }

    fn recorded_position(&self) -> Position {
        Position { step: self.global_step(), epoch: self.current_epoch(), of_steps: self.stepping_batches() }
    }

    fn record_warnings(&mut self) {
        let warnings = self.console.warnings_after(self.record.warnings());
        self.write_record(|record| record.warn(&warnings));
    }

    fn write_record(&mut self, write: impl FnOnce(&mut RunRecord) -> io::Result<()>) {
        if let Err(error) = write(&mut self.record) {
            self.record.turn_off();
            self.warn(&format!("the record of the run, {}, is not written any more: {error}", FILE));
        }
    }
}
