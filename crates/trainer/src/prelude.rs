//! The items that a training program usually needs: `use fulgurite::prelude::*;`

pub use crate::callbacks::{
    BackboneFinetuning, Callback, EMAWeightAveraging, EarlyStopping, GradientAccumulationScheduler,
    LearningRateMonitor, Mode, ModelCheckpoint, ModelSummary, ProgressBar, SaveLast, StochasticWeightAveraging, Timer,
    WeightAveraging,
};
pub use crate::data::{Batch, DataLoader, Dataset, SharedTensor, TensorDataset};
pub use crate::loggers::{CsvLogger, Logger, TensorBoardLogger};
pub use crate::logging::Reduce;
pub use crate::metrics::Metric;
pub use crate::optim::{Adam, AdamW, Interval, LrSchedulerConfig, Optimizers, SGD};
pub use crate::profilers::{AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler};
pub use crate::tch::{self, Device, Kind, Tensor, nn, nn::Module as _, nn::ModuleT as _};
pub use crate::torch::{Dict, Value};
pub use crate::{
    Checkpoint, Error, LightningDataModule, LightningModule, LoadFromCheckpoint as _, Loaders, Loss, Maximum,
    NamedTensors, Outcome, Parameters, Result, Stage, Step, Trainer, TrainerFn, TrainerState, seed_everything,
};
