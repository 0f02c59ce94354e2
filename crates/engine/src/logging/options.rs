//! [`LogOptions`]: the options of a `log` call.

use fulgurite_torch::{Dict, Value, ValueError};

/// How the values logged under one name during an epoch are reduced. Unlike [`ReduceOp`](fulgurite_fabric::ReduceOp),
/// its mean is weighted by batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduce {
    /// Mean, weighted by batch size.
    #[default]
    Mean,
    /// Sum.
    Sum,
    /// The smallest.
    Min,
    /// The greatest.
    Max,
}

/// Options of a `log` call, as given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LogOptions {
    pub on_step: Option<bool>,
    pub on_epoch: Option<bool>,
    pub prog_bar: bool,
    pub logger: bool,
    pub reduce: Reduce,
    pub sync_dist: Option<bool>,
    pub add_dataloader_idx: bool,
    pub batch_size: Option<f64>,
    pub rank_zero_only: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            on_step: None,
            on_epoch: None,
            prog_bar: false,
            logger: true,
            reduce: Reduce::Mean,
            sync_dist: None,
            add_dataloader_idx: true,
            batch_size: None,
            rank_zero_only: false,
        }
    }
}

impl LogOptions {
    /// Whether one entry can hold values of both options; batch sizes may differ.
    pub(super) fn agree_with(&self, other: &LogOptions) -> bool {
        LogOptions { batch_size: other.batch_size, ..*self } == *other
    }

    /// The state for a checkpoint.
    pub(super) fn to_dict(self) -> Dict {
        Dict::new()
            .with("on_step", self.on_step)
            .with("on_epoch", self.on_epoch)
            .with("prog_bar", self.prog_bar)
            .with("logger", self.logger)
            .with("reduce", self.reduce.name())
            .with("sync_dist", self.sync_dist)
            .with("add_dataloader_idx", self.add_dataloader_idx)
            .with("rank_zero_only", self.rank_zero_only)
    }

    /// Restores the options from [`to_dict`](Self::to_dict).
    pub(super) fn from_dict(saved: &Dict) -> Result<LogOptions, ValueError> {
        let choice = |name: &str| optional(saved, name, "bool", Value::as_bool);
        Ok(LogOptions {
            on_step: choice("on_step")?,
            on_epoch: choice("on_epoch")?,
            prog_bar: saved.bool("prog_bar")?,
            logger: saved.bool("logger")?,
            reduce: Reduce::from_name(saved.str("reduce")?),
            sync_dist: choice("sync_dist")?,
            add_dataloader_idx: saved.bool("add_dataloader_idx")?,
            batch_size: None,
            rank_zero_only: saved.bool("rank_zero_only")?,
        })
    }
}

/// An entry that may be `None`, and must be there.
pub(super) fn optional<'s, T>(
    saved: &'s Dict,
    key: &str,
    expected: &'static str,
    read: impl Fn(&'s Value) -> Option<T>,
) -> Result<Option<T>, ValueError> {
    match saved.require(key)? {
        Value::None => Ok(None),
        value => {
            let wrong = || ValueError::WrongType { key: key.to_owned(), found: value.type_name(), expected };
            read(value).map(Some).ok_or_else(wrong)
        }
    }
}

impl Reduce {
    fn name(self) -> &'static str {
        match self {
            Reduce::Mean => "mean",
            Reduce::Sum => "sum",
            Reduce::Min => "min",
            Reduce::Max => "max",
        }
    }

    fn from_name(name: &str) -> Reduce {
        let all = [Reduce::Mean, Reduce::Sum, Reduce::Min, Reduce::Max];
        all.into_iter().find(|reduce| reduce.name() == name).unwrap_or_default()
    }
}
