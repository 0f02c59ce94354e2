//! [`TrainerConfig`]: every argument of the trainer, as data.

mod loggers;
mod maximum;
pub mod spelling;

use std::path::PathBuf;
use std::time::Duration;

use derive_setters::Setters;
use fulgurite_fabric::Devices;
use fulgurite_fabric::strategy::StrategyChoice;
use fulgurite_macros::ExportSetters;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;

pub use maximum::Maximum;
pub use spelling::parse_time;

/// A type that is built from serializable options: every callback, logger and profiler that a file or a command line
/// can name.
///
/// The options' fields are documented and have defaults once, in the struct; setters, YAML and help texts follow.
pub trait Configurable: Sized {
    /// Aliases of the class name in files, such as Lightning's if it is spelled differently.
    const ALIASES: &'static [&'static str] = &[];

    /// The class name in files and on the command line. Defaults to the type's name, without its parameters: a generic type that
    /// is registered with several of them needs a name for each.
    ///
    /// ```
    /// use fulgurite::config::Configurable;
    /// use fulgurite::prelude::*;
    ///
    /// /// Collects values of a type.
    /// struct Collect<T>(Vec<T>);
    ///
    /// trait Named { const COLLECT: &'static str; }
    /// impl Named for i64 { const COLLECT: &'static str = "CollectIntegers"; }
    /// impl Named for String { const COLLECT: &'static str = "CollectTexts"; }
    ///
    /// impl<T: Named> Configurable for Collect<T> {
    ///     type Options = std::collections::BTreeMap<String, i64>;
    ///
    ///     fn class_name() -> &'static str { T::COLLECT }
    ///
    ///     fn from_options(_: Self::Options) -> Result<Collect<T>, Error> { Ok(Collect(Vec::new())) }
    /// }
    /// ```
    fn class_name() -> &'static str {
        fulgurite_torch::short_type_name::<Self>()
    }

    /// The options of the class, all with defaults.
    type Options: Serialize + DeserializeOwned + JsonSchema + Default;

    /// Creates it from its options.
    ///
    /// # Errors
    ///
    /// Fails if an option or a combination of options is invalid; the message says what to write instead.
    fn from_options(options: Self::Options) -> Result<Self, Error>;
}

/// How many batches of a loader to use: a count, or a fraction of them.
///
/// `Limit::from(1)` is one batch, `Limit::from(1.0)` is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Limit {
    /// At most this many batches.
    Batches(u64),
    /// This fraction of the batches, 0.0 to 1.0, rounded down.
    Fraction(f64),
}

/// When validation runs within a training epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ValCheckInterval {
    /// Every this many training batches.
    Batches(u64),
    /// Every this fraction of an epoch, 0.0 to 1.0.
    Fraction(f64),
    /// When this much time has passed since the last validation.
    Time(
        #[serde(with = "spelling::time")]
        #[schemars(with = "String")]
        Duration,
    ),
}

/// The gradient clipping algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GradientClipAlgorithm {
    /// Clip by global L2 norm.
    #[default]
    Norm,
    /// Clip each element to a symmetric range.
    Value,
}

/// Whether operations without a deterministic implementation are allowed.
/// In files: `false`, `warn` or `true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deterministic {
    /// Nondeterministic operations are allowed.
    #[default]
    False,
    /// Nondeterministic operations are allowed, with a warning.
    Warn,
    /// Nondeterministic operations are errors.
    True,
}

/// Every argument of the trainer, as data: filled in by the builder, and stored in YAML files and checkpoints.
///
/// Names, defaults and meaning are Lightning's; where they differ, the field says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters, ExportSetters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option)]
#[non_exhaustive]
pub struct TrainerConfig {
    /// The maximum number of epochs; -1 for no limit. 1000 if the run has no other limit.
    ///
    /// In Rust, no limit is [`Maximum::Unlimited`].
    #[setters(into)]
    pub max_epochs: Option<Maximum>,
    /// The minimum number of epochs before a stop request is honoured.
    pub min_epochs: Option<u64>,
    /// The maximum number of optimizer steps; -1 for no limit.
    ///
    /// In Rust, no limit is [`Maximum::Unlimited`].
    #[setters(into)]
    pub max_steps: Maximum,
    /// The minimum number of optimizer steps before a stop request is honoured.
    pub min_steps: Option<u64>,
    /// The maximum training time, checked after every batch; `DD:HH:MM:SS` in text.
    #[serde(with = "spelling::optional_time")]
    #[schemars(with = "Option<String>")]
    pub max_time: Option<Duration>,
    /// Time for checkpoint and teardown after SIGTERM, after which the process is killed; without limit by default.
    #[serde(with = "spelling::optional_time")]
    #[schemars(with = "Option<String>")]
    pub termination_grace_period: Option<Duration>,
    /// Training batches per epoch: a count, or a fraction.
    #[setters(into)]
    pub limit_train_batches: Limit,
    /// Validation batches per loader.
    #[setters(into)]
    pub limit_val_batches: Limit,
    /// Test batches per loader.
    #[setters(into)]
    pub limit_test_batches: Limit,
    /// Prediction batches per loader.
    #[setters(into)]
    pub limit_predict_batches: Limit,
    /// Run this many batches of each stage once, without logger or checkpoint, to find bugs; 0 is off.
    #[serde(with = "spelling::count_or_bool")]
    #[schemars(with = "spelling::CountOrBool")]
    pub fast_dev_run: u64,
    /// Train and validate on this number of batches, unshuffled, to check that the model can overfit; 0 is off.
    #[setters(into)]
    pub overfit_batches: Limit,
    /// When validation runs within an epoch: every fraction of it, every number of batches, or after a time.
    #[setters(into)]
    pub val_check_interval: ValCheckInterval,
    /// Validate only after every n-th epoch. `None`: `val_check_interval` counts batches across epochs.
    #[setters(strip_option = false, into)]
    pub check_val_every_n_epoch: Option<u64>,
    /// Validation batches per loader to run before training; -1 for all.
    ///
    /// In Rust, all are [`Maximum::Unlimited`].
    #[setters(into)]
    pub num_sanity_val_steps: Maximum,
    /// Reload the training and validation loaders every n epochs; 0 to load them once. Loaders passed directly are
    /// kept.
    pub reload_dataloaders_every_n_epochs: u64,
    /// Write step metrics every n optimizer steps; 0 for never.
    pub log_every_n_steps: u64,
    /// Batches per optimizer step. A short last window of an epoch is averaged over the batches it has (Lightning
    /// divides it by the full number).
    pub accumulate_grad_batches: u64,
    /// The gradient clipping value; gradients are not clipped if it is `None` or not positive.
    pub gradient_clip_val: Option<f64>,
    /// The gradient clipping algorithm.
    pub gradient_clip_algorithm: GradientClipAlgorithm,
    /// Whether operations without a deterministic implementation are allowed.
    pub deterministic: Deterministic,
    /// Whether cuDNN benchmarks its convolution algorithms. `None` leaves the setting unchanged, or disables it if
    /// `deterministic` is on.
    pub benchmark: Option<bool>,
    /// Find the operation that produced the first NaN in the forward or backward pass, or an infinite loss; slow.
    pub detect_anomaly: bool,
    /// Show a progress bar; on by default.
    pub enable_progress_bar: Option<bool>,
    /// Show a summary of the model; on by default.
    pub enable_model_summary: Option<bool>,
    /// Write checkpoints even when no `ModelCheckpoint` is among the callbacks; on by default.
    pub enable_checkpointing: Option<bool>,
    /// Send the hyper-parameters of module and data module to the loggers when a run begins.
    pub enable_autolog_hparams: bool,
    /// The default folder of logs and checkpoints; the current folder if not set.
    #[setters(into)]
    pub default_root_dir: Option<PathBuf>,
    /// `cpu`, `cuda`, `mps`, `gpu` or `auto`.
    #[setters(into)]
    pub accelerator: String,
    /// The devices of each machine, with one process per device: a number, a list, -1 for all, or `auto`.
    ///
    /// In Rust, all are [`Devices::All`].
    #[setters(into)]
    pub devices: Devices,
    /// The strategy: `auto`, `single_device`, `ddp` or `ddp_find_unused_parameters_true`, or `DdpOptions`.
    #[setters(into)]
    #[schemars(with = "String")]
    pub strategy: StrategyChoice,
    /// The number of machines in the run.
    pub num_nodes: u64,
    /// Synchronize batch norm statistics across all processes. Has no effect with one process.
    pub sync_batchnorm: bool,
    /// The precision: `32-true`, `bf16-mixed`, `16-mixed`, `bf16-true`, `16-true` or `64-true`.
    #[setters(into)]
    pub precision: String,
    /// Give every process its own shard of the data. If off, loaders must do so themselves.
    pub use_distributed_sampler: bool,
    /// Evaluate under libtorch's inference mode (outside fit), not only without gradients.
    pub inference_mode: bool,
    /// The profiler: `simple`, `advanced` or `pytorch`.
    #[setters(skip)]
    pub profiler: Option<String>,
    /// Run only the bare loop, to measure its overhead.
    pub barebones: bool,
}

impl Default for TrainerConfig {
    fn default() -> TrainerConfig {
        let all = Limit::Fraction(1.0);
        TrainerConfig {
            max_epochs: None,
            min_epochs: None,
            max_steps: Maximum::Unlimited,
            min_steps: None,
            max_time: None,
            termination_grace_period: None,
            limit_train_batches: all,
            limit_val_batches: all,
            limit_test_batches: all,
            limit_predict_batches: all,
            fast_dev_run: 0,
            overfit_batches: Limit::Batches(0),
            val_check_interval: ValCheckInterval::Fraction(1.0),
            check_val_every_n_epoch: Some(1),
            num_sanity_val_steps: Maximum::Of(2),
            reload_dataloaders_every_n_epochs: 0,
            log_every_n_steps: 50,
            accumulate_grad_batches: 1,
            gradient_clip_val: None,
            gradient_clip_algorithm: GradientClipAlgorithm::Norm,
            deterministic: Deterministic::False,
            benchmark: None,
            detect_anomaly: false,
            enable_progress_bar: None,
            enable_model_summary: None,
            enable_checkpointing: None,
            enable_autolog_hparams: true,
            default_root_dir: None,
            accelerator: "auto".into(),
            devices: Devices::Auto,
            strategy: "auto".into(),
            num_nodes: 1,
            sync_batchnorm: false,
            precision: "32-true".into(),
            use_distributed_sampler: true,
            inference_mode: true,
            profiler: None,
            barebones: false,
        }
    }
}

impl TrainerConfig {
    /// Validates every argument, alone and in combination.
    ///
    /// # Errors
    ///
    /// Fails for the first invalid argument or combination of arguments; the message says what to write instead.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Config(message));
        if let (Some(min), Some(Maximum::Of(max))) = (self.min_epochs, self.max_epochs)
            && min > max
        {
            return wrong(format!("min_epochs={min} is above max_epochs={max}; lower min_epochs or raise max_epochs"));
        }
        if let (Some(min), Maximum::Of(max)) = (self.min_steps, self.max_steps)
            && min > max
        {
            return wrong(format!("min_steps={min} is above max_steps={max}; lower min_steps or raise max_steps"));
        }
        for (name, limit) in [
            ("limit_train_batches", self.limit_train_batches),
            ("limit_val_batches", self.limit_val_batches),
            ("limit_test_batches", self.limit_test_batches),
            ("limit_predict_batches", self.limit_predict_batches),
            ("overfit_batches", self.overfit_batches),
        ] {
            if let Limit::Fraction(fraction) = limit
                && !(0.0..=1.0).contains(&fraction)
            {
                return wrong(format!(
                    "{name}={fraction} is not between 0.0 and 1.0; write a fraction in that range, or a whole number of batches"
                ));
            }
        }
        match self.val_check_interval {
            ValCheckInterval::Fraction(fraction) if !(0.0..=1.0).contains(&fraction) || fraction == 0.0 => {
                return wrong(format!(
                    "val_check_interval={fraction} is not above 0.0 and up to 1.0; write a fraction of an epoch in that range, a whole number of batches, or a time"
                ));
            }
            ValCheckInterval::Fraction(fraction) if self.check_val_every_n_epoch.is_none() => {
                return wrong(format!(
                    "val_check_interval={fraction} is a fraction of an epoch, and check_val_every_n_epoch=None counts batches across epochs; give val_check_interval a whole number of batches or a time"
                ));
            }
            ValCheckInterval::Batches(0) => {
                return wrong(
                    "val_check_interval=0 never validates; to turn validation off set limit_val_batches to 0".into(),
                );
            }
            ValCheckInterval::Time(interval) if interval.is_zero() => {
                return wrong("val_check_interval is a time of zero; write a time above zero".into());
            }
            _ => {}
        }
        if self.check_val_every_n_epoch == Some(0) {
            return wrong(
                "check_val_every_n_epoch=0 never validates; to turn validation off set limit_val_batches to 0".into(),
            );
        }
        if self.default_root_dir.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            return wrong("default_root_dir is empty; write a folder, such as `.`, or leave it out".into());
        }
        if self.num_nodes == 0 {
            return wrong("num_nodes=0 means no machine; write 1".into());
        }
        if self.accumulate_grad_batches == 0 {
            return wrong("accumulate_grad_batches=0 would never step; write 1 or more".into());
        }
        if let Some(value) = self.gradient_clip_val.filter(|v| !v.is_finite()) {
            return wrong(format!(
                "gradient_clip_val={value} is not a number; write a positive number, or leave it out"
            ));
        }
        if self.barebones {
            let contradictions = [
                ("enable_checkpointing", self.enable_checkpointing == Some(true)),
                ("enable_progress_bar", self.enable_progress_bar == Some(true)),
                ("enable_model_summary", self.enable_model_summary == Some(true)),
                ("fast_dev_run", self.fast_dev_run > 0),
                ("detect_anomaly", self.detect_anomaly),
                ("profiler", self.profiler.is_some()),
            ];
            if let Some((name, _)) = contradictions.iter().find(|(_, on)| *on) {
                return wrong(format!(
                    "barebones=true measures the bare loop, but {name} is on; leave one of them out"
                ));
            }
        }
        Ok(())
    }

    /// The effective configuration of a run, with `fast_dev_run`, `overfit_batches` and `barebones` resolved.
    pub fn resolved(mut self) -> TrainerConfig {
        if let overfit @ (Limit::Batches(1..) | Limit::Fraction(_)) = self.overfit_batches
            && overfit != Limit::Fraction(0.0)
        {
            self.limit_train_batches = overfit;
            self.limit_val_batches = overfit;
        } else if self.fast_dev_run > 0 {
            self.limit_train_batches = Limit::Batches(self.fast_dev_run);
            self.limit_val_batches = Limit::Batches(self.fast_dev_run);
        }
        if self.fast_dev_run > 0 {
            self.limit_test_batches = Limit::Batches(self.fast_dev_run);
            self.limit_predict_batches = Limit::Batches(self.fast_dev_run);
            self.max_steps = Maximum::Of(self.fast_dev_run);
            self.max_epochs = Some(Maximum::Of(1));
            self.num_sanity_val_steps = Maximum::Of(0);
            self.val_check_interval = ValCheckInterval::Fraction(1.0);
            self.check_val_every_n_epoch = Some(1);
        }
        if self.barebones {
            self.enable_checkpointing = Some(false);
            self.enable_progress_bar = Some(false);
            self.enable_model_summary = Some(false);
            self.num_sanity_val_steps = Maximum::Of(0);
            self.log_every_n_steps = 0;
        }
        self
    }

    /// Whether `overfit_batches` is on.
    pub fn is_overfitting(&self) -> bool {
        !matches!(self.overfit_batches, Limit::Batches(0)) && self.overfit_batches != Limit::Fraction(0.0)
    }
}

impl Limit {
    /// How many of `len` batches (`None`: unknown) this allows; `None` for no limit.
    ///
    /// # Errors
    ///
    /// Fails if it is a fraction and the length is unknown, or a positive fraction that rounds down to no batches.
    pub(crate) fn apply(self, name: &str, len: Option<usize>) -> Result<Option<usize>, Error> {
        match (self, len) {
            (Limit::Batches(n), len) => {
                let n = usize::try_from(n).unwrap_or(usize::MAX);
                Ok(Some(len.map_or(n, |len| len.min(n))))
            }
            (Limit::Fraction(0.0), _) => Ok(Some(0)),
            (Limit::Fraction(1.0), len) => Ok(len),
            (Limit::Fraction(fraction), None) => Err(Error::Config(format!(
                "{name}={fraction} is a fraction, and the data loader does not know its length; write a whole number of batches, 0.0 or 1.0"
            ))),
            (Limit::Fraction(fraction), Some(len)) => {
                let limit = (len as f64 * fraction) as usize;
                if limit == 0 && len > 0 {
                    return Err(Error::Config(format!(
                        "{name}={fraction} of {len} batches is not one batch; write at least {}, or a whole number",
                        1.0 / len as f64
                    )));
                }
                Ok(Some(limit))
            }
        }
    }

    /// The limit for a loader whose length may differ from the announced one, for which it was `expected`.
    pub(crate) fn of_any_length(self, expected: Option<usize>) -> Option<usize> {
        match self {
            Limit::Batches(n) => Some(usize::try_from(n).unwrap_or(usize::MAX)),
            Limit::Fraction(1.0) => None,
            Limit::Fraction(_) => expected,
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        matches!(self, Limit::Batches(0)) || self == Limit::Fraction(0.0)
    }
}

macro_rules! limit_from {
    ($($int:ty),*) => {
        $(
            /// A number of batches; a negative number becomes 0.
            impl From<$int> for Limit {
                fn from(batches: $int) -> Limit {
                    Limit::Batches(u64::try_from(batches).unwrap_or(0))
                }
            }

            /// A number of batches; a negative number becomes 0, which validation rejects.
            impl From<$int> for ValCheckInterval {
                fn from(batches: $int) -> ValCheckInterval {
                    ValCheckInterval::Batches(u64::try_from(batches).unwrap_or(0))
                }
            }
        )*
    };
}
limit_from!(i32, i64, u32, u64, usize);

impl From<f64> for Limit {
    fn from(fraction: f64) -> Limit {
        Limit::Fraction(fraction)
    }
}

impl From<f64> for ValCheckInterval {
    fn from(fraction: f64) -> ValCheckInterval {
        ValCheckInterval::Fraction(fraction)
    }
}

impl From<Duration> for ValCheckInterval {
    fn from(interval: Duration) -> ValCheckInterval {
        ValCheckInterval::Time(interval)
    }
}
