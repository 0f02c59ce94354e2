//! [`Plugin`]: a replacement for a part of the trainer.

use fulgurite_fabric::{CheckpointIo, Precision};

use fulgurite_engine::SlurmRequeue;

/// A replacement for a part of the trainer, passed to [`TrainerBuilder::plugin`](crate::TrainerBuilder::plugin). There
/// can be one of each kind.
///
/// ```
/// use std::path::Path;
///
/// use fulgurite::Plugin;
/// use fulgurite::fabric::{CheckpointIo, FabricError, TorchCheckpointIo};
/// use fulgurite::prelude::*;
///
/// /// Counts what it writes.
/// struct Counting(TorchCheckpointIo, usize);
///
/// impl CheckpointIo for Counting {
///     fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
///         self.1 += 1;
///         self.0.save(checkpoint, path)
///     }
///
///     fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
///         self.0.load(path)
///     }
///
///     fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
///         self.0.remove(path)
///     }
/// }
///
/// let trainer = Trainer::builder().plugin(Plugin::checkpoint_io(Counting(TorchCheckpointIo::new(), 0)));
/// ```
pub struct Plugin(pub(crate) Kind);

pub(crate) enum Kind {
    Precision(Box<dyn Precision>),
    CheckpointIo(Box<dyn CheckpointIo>),
    Slurm(SlurmRequeue),
}

impl Plugin {
    /// A custom precision, instead of the argument `precision`.
    pub fn precision(precision: impl Precision + 'static) -> Plugin {
        Plugin(Kind::Precision(Box::new(precision)))
    }

    /// A custom checkpoint I/O.
    pub fn checkpoint_io(checkpoint_io: impl CheckpointIo + 'static) -> Plugin {
        Plugin(Kind::CheckpointIo(Box::new(checkpoint_io)))
    }

    /// The requeue settings for SLURM jobs.
    pub fn slurm(environment: SlurmRequeue) -> Plugin {
        Plugin(Kind::Slurm(environment))
    }
}
