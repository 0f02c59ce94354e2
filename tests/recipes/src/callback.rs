//! A callback: its options, and the hooks that it wants.

use fulgurite::ModuleView;
use fulgurite::config::Configurable;
use fulgurite::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Prints a line after epochs of training.
pub struct Announce {
    options: AnnounceOptions,
    epochs: u64,
}

/// Options of [`Announce`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AnnounceOptions {
    /// Number of epochs between two lines.
    pub every_n_epochs: u64,
}

impl Default for AnnounceOptions {
    fn default() -> AnnounceOptions {
        AnnounceOptions { every_n_epochs: 1 }
    }
}

impl Configurable for Announce {
    type Options = AnnounceOptions;

    fn from_options(options: AnnounceOptions) -> Result<Announce, Error> {
        if options.every_n_epochs == 0 {
            return Err(Error::Config("Announce: every_n_epochs=0 never comes; write 1 or more".into()));
        }
        Ok(Announce { options, epochs: 0 })
    }
}

impl Callback for Announce {
    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.epochs += 1;
        if self.epochs.is_multiple_of(self.options.every_n_epochs) {
            trainer.print(&format!("{} epochs are done", self.epochs));
        }
        Ok(())
    }

    // What a resumed run needs to know.
    fn state_dict(&self) -> Result<Dict> {
        Ok(Dict::new().with("epochs", self.epochs))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.epochs = state.int("epochs")?.try_into()?;
        Ok(())
    }
}
