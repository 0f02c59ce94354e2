//! Options of [`ModelPruning`](super::ModelPruning).

use std::fmt;

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use fulgurite_engine::Error;

/// The pruning method of [`ModelPruning`](super::ModelPruning).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PruningFn {
    /// L1 unstructured: the values closest to zero.
    #[default]
    L1Unstructured,
    /// Random unstructured: random values.
    RandomUnstructured,
    /// The slices along a dimension whose norm is smallest.
    LnStructured,
    /// Random slices along a dimension.
    RandomStructured,
}

impl PruningFn {
    /// Whether it takes whole slices along a dimension.
    pub(super) fn is_structured(self) -> bool {
        matches!(self, PruningFn::LnStructured | PruningFn::RandomStructured)
    }

    /// PyTorch's name of the function.
    pub(super) fn name(self) -> &'static str {
        match self {
            PruningFn::L1Unstructured => "l1_unstructured",
            PruningFn::RandomUnstructured => "random_unstructured",
            PruningFn::LnStructured => "ln_structured",
            PruningFn::RandomStructured => "random_structured",
        }
    }
}

/// How much to prune: a count (`usize`), or a fraction (`f64`) of what is not pruned yet. Structured pruning counts
/// slices, and the fraction is of those that are not completely pruned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PruningAmount {
    /// An absolute count.
    Count(u64),
    /// A fraction, 0.0 to 1.0, rounded to the nearest count.
    Fraction(f64),
}

impl From<usize> for PruningAmount {
    fn from(count: usize) -> PruningAmount {
        PruningAmount::Count(count as u64)
    }
}

impl From<i32> for PruningAmount {
    /// Bare numbers are `i32`. A negative one is refused like a fraction below zero.
    fn from(count: i32) -> PruningAmount {
        u64::try_from(count).map_or(PruningAmount::Fraction(f64::from(count)), PruningAmount::Count)
    }
}

impl From<f64> for PruningAmount {
    fn from(fraction: f64) -> PruningAmount {
        PruningAmount::Fraction(fraction)
    }
}

impl fmt::Display for PruningAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PruningAmount::Count(count) => write!(f, "{count}"),
            PruningAmount::Fraction(fraction) => write!(f, "{fraction:?}"),
        }
    }
}

impl PruningAmount {
    pub(super) fn is_zero(self) -> bool {
        matches!(self, PruningAmount::Count(0)) || self == PruningAmount::Fraction(0.0)
    }

    /// The count out of `size`, rounded as in Python.
    pub(super) fn of(self, size: i64, what: &str) -> Result<i64, Error> {
        self.check()?;
        match self {
            PruningAmount::Count(count) => i64::try_from(count).ok().filter(|count| *count <= size).ok_or_else(|| {
                Error::Config(format!(
                    "ModelPruning::amount({count}) is more than the {size} that are left of {what}; lower it, or write a fraction"
                ))
            }),
            PruningAmount::Fraction(fraction) => Ok((fraction * size as f64).round_ties_even() as i64),
        }
    }

    pub(super) fn check(self) -> Result<(), Error> {
        match self {
            PruningAmount::Fraction(fraction) if !(0.0..=1.0).contains(&fraction) => Err(Error::Config(format!(
                "ModelPruning::amount({fraction:?}) is not a fraction of the parameters; write a fraction from 0.0 to 1.0, or a count"
            ))),
            _ => Ok(()),
        }
    }
}

/// Options of [`ModelPruning`](super::ModelPruning).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "super::ModelPruning", field = "options"))]
#[non_exhaustive]
pub struct ModelPruningOptions {
    /// The pruning method.
    pub pruning_fn: PruningFn,
    /// The parameters to prune, by their names in the `VarStore`; empty for all that `parameter_names` selects.
    #[setters(skip)]
    pub parameters_to_prune: Vec<String>,
    /// The last parts of the names of parameters to prune, when none are named in full.
    #[setters(skip)]
    pub parameter_names: Vec<String>,
    /// Whether all parameters are looked at together, or each by itself. Unstructured pruning only.
    pub use_global_unstructured: bool,
    /// How much to prune each time.
    #[setters(into)]
    pub amount: PruningAmount,
    /// Whether to prune at all.
    pub apply_pruning: bool,
    /// Whether masks are dropped when training ends, so that a later fit may train what was pruned.
    pub make_pruning_permanent: bool,
    /// Whether the remaining parameters are reset to their initial values after each pruning.
    pub use_lottery_ticket_hypothesis: bool,
    /// Whether the remaining parameters are resampled instead.
    pub resample_parameters: bool,
    /// The dimension of structured pruning: 0 for the outputs of a layer. Negative ones count from the last.
    pub pruning_dim: Option<i64>,
    /// The norm of `ln_structured`: 1.0, 2.0, infinity.
    pub pruning_norm: Option<f64>,
    /// What to print at each pruning: 0 nothing, 1 a line, 2 a line for each parameter as well.
    pub verbose: u8,
    /// Whether to prune at the end of the training epoch or of validation.
    pub prune_on_train_epoch_end: bool,
}

impl Default for ModelPruningOptions {
    fn default() -> ModelPruningOptions {
        ModelPruningOptions {
            pruning_fn: PruningFn::L1Unstructured,
            parameters_to_prune: Vec::new(),
            parameter_names: vec!["weight".into(), "bias".into()],
            use_global_unstructured: true,
            amount: PruningAmount::Fraction(0.5),
            apply_pruning: true,
            make_pruning_permanent: true,
            use_lottery_ticket_hypothesis: true,
            resample_parameters: false,
            pruning_dim: None,
            pruning_norm: None,
            verbose: 0,
            prune_on_train_epoch_end: true,
        }
    }
}

impl ModelPruningOptions {
    /// Validates the combination of options.
    pub(super) fn check(&self) -> Result<(), Error> {
        let name = self.pruning_fn.name();
        let wrong = |problem: String| Err(Error::Config(problem));
        if self.pruning_fn.is_structured() {
            if self.use_global_unstructured {
                return wrong(format!(
                    "ModelPruning with {name} takes whole slices, which cannot be compared across parameters; set use_global_unstructured to false"
                ));
            }
            if self.pruning_dim.is_none() {
                return wrong(format!(
                    "ModelPruning with {name} needs pruning_dim, the dimension whose slices are pruned; 0 is a layer's outputs"
                ));
            }
        }
        if self.pruning_fn == PruningFn::LnStructured && self.pruning_norm.is_none() {
            return wrong(format!("ModelPruning with {name} needs pruning_norm, such as 1.0 or 2.0"));
        }
        if self.verbose > 2 {
            return wrong(format!("ModelPruning::verbose({}) is not a level; write 0, 1 or 2", self.verbose));
        }
        self.amount.check()
    }
}
