//! The items that a training program usually needs: `use fulgurite::prelude::*;`
//!
//! `nn` is [`fulgurite::nn`](crate::nn), PyTorch's layers. Those of `tch` are used beside them under their own path:
//!
//! ```
//! use fulgurite::prelude::*;
//!
//! /// A network of one's own has `forward`, as in PyTorch.
//! #[derive(Debug)]
//! struct Net { hidden: nn::Linear, dropout: nn::Dropout, lstm: tch::nn::LSTM, output: tch::nn::Linear }
//!
//! impl nn::Module for Net {
//!     fn forward(&self, x: &Tensor) -> Tensor {
//!         use tch::nn::RNN;
//!         let x = self.dropout.forward(&self.hidden.forward(x).relu());
//!         self.output.forward(&self.lstm.seq(&x).0)
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let vars = nn::VarStore::new(Device::Cpu);
//! let root = vars.root();
//! let net = Net {
//!     hidden: nn::linear(2, 8).at(&root / "hidden")?,
//!     dropout: nn::dropout(0.1).at(&root / "dropout")?,
//!     lstm: tch::nn::lstm(&root / "lstm", 8, 8, Default::default()),
//!     output: tch::nn::linear(&root / "output", 8, 1, Default::default()),
//! };
//! let x = Tensor::zeros([4, 3, 2], (Kind::Float, Device::Cpu));
//! assert_eq!(net.forward(&x).size(), [4, 3, 1]);
//! // `apply` and `apply_t` of tensors are those of `tch`: they take what is a module to `tch`, such as layers without a mode.
//! assert_eq!(x.apply(&net.hidden).apply_t(&net.dropout, false).size(), [4, 3, 8]);
//! # Ok(()) }
//! ```
//!
//! What implements [`tch::nn::Module`] is an [`nn::Module`] too, so its `forward` can be called with this
//! prelude. Do not import `tch`'s trait beside it: `forward` would then be ambiguous. To implement it, name it by its path:
//! `impl tch::nn::Module for Net`.

pub use crate::callbacks::{
    BackboneFinetuning, Callback, EMAWeightAveraging, EarlyStopping, GradientAccumulationScheduler,
    LearningRateMonitor, Mode, ModelCheckpoint, ModelSummary, ProgressBar, SaveLast, StochasticWeightAveraging, Timer,
    WeightAveraging,
};
pub use crate::data::{Batch, DataLoader, Dataset, SharedTensor, TensorDataset};
#[cfg(feature = "trackers")]
pub use crate::loggers::{CometLogger, MLFlowLogger, TrackioLogger, WandbLogger};
pub use crate::loggers::{CsvLogger, Logger, TensorBoardLogger};
pub use crate::logging::Reduce;
pub use crate::metrics::Metric;
pub use crate::nn::{self, Build as _, Module as _};
pub use crate::optim::{Adam, AdamW, Interval, LrSchedulerConfig, Optimizers, SGD};
pub use crate::profilers::{AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler};
pub use crate::tch::{self, Device, Kind, Tensor, nn::ModuleT as _};
pub use crate::torch::{Dict, Value};
pub use crate::{
    Checkpoint, Error, LightningDataModule, LightningModule, LoadFromCheckpoint as _, Loaders, Loss, Maximum,
    NamedTensors, Outcome, Parameters, Result, Stage, Step, Trainer, TrainerFn, TrainerState, seed_everything,
};
