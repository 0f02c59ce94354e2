//! [`ConfigSaver`]: writes the configuration of a run beside its logs.

use fulgurite_engine::{Error, ModuleView, Result, TrainerFn, TrainerState};

use super::SaveConfig;
use crate::callbacks::Callback;

/// Writes `config.yaml` once, when a run begins. A run that continues with an earlier one keeps the other's
/// configuration under another name where it differs.
pub(super) struct ConfigSaver {
    pub text: String,
    pub mode: SaveConfig,
    pub done: bool,
}

impl Callback for ConfigSaver {
    fn setup(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        let has_folder = trainer.loggers().iter().any(|logger| logger.log_dir().is_some());
        let is_off = self.mode == SaveConfig::Off || trainer.config().fast_dev_run > 0;
        if self.done || is_off || !has_folder || !trainer.is_global_zero() {
            return Ok(());
        }
        self.done = true;
        let folder = trainer.log_dir();
        let path = folder.join("config.yaml");
        let shown = path.display();
        let joins = trainer.joins_earlier_run();
        if joins && std::fs::read_to_string(&path).is_ok_and(|text| text == self.text) {
            return Ok(());
        }
        if joins && path.exists() {
            let free = (0_u64..).map(|n| folder.join(format!("config.old.{n}.yaml"))).find(|old| !old.exists());
            if let Some(old) = free {
                std::fs::rename(&path, &old)
                    .map_err(|error| Error::Config(format!("{shown} cannot be renamed: {error}")))?;
            }
        }
        if self.mode == SaveConfig::New && path.exists() {
            return Err(Error::Config(format!(
                "{shown} exists already, from another run; give the logger another version, or let the program \
                 overwrite it with `Cli::save_config(SaveConfig::Overwrite)`"
            ))
            .into());
        }
        let write = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, &self.text));
        write.map_err(|error| Error::Config(format!("{shown} cannot be written: {error}")).into())
    }
}
