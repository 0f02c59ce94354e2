//! Accuracy, precision, recall, F1 and F-beta.

use fulgurite_torch::tch::{TchError, Tensor};

use super::stat_scores::{Counts, Score, StatScores, ZeroDivision};
use super::{Binary, Multiclass, Multilabel, TaskKind};
use crate::{Handle, MetricError};

/// Accuracy: the fraction of correct predictions. Inputs are those of [`Binary`].
pub type BinaryAccuracy = Handle<StatScores<Binary, Accuracy>>;

/// Accuracy: the fraction of samples whose class is predicted, averaged over the classes by default, over the samples
/// with [`Average::Micro`](super::Average::Micro). Inputs are those of [`Multiclass`].
///
/// ```
/// use fulgurite_metrics::{Average, MulticlassAccuracy};
/// use fulgurite_torch::tch::Tensor;
///
/// let acc = MulticlassAccuracy::new(3).average(Average::Micro);
/// acc.update(&Tensor::from_slice2(&[[0.1, 0.7, 0.2], [0.9, 0.0, 0.1]]), &Tensor::from_slice(&[1i64, 2]))?;
/// assert_eq!(acc.compute()?.double_value(&[]), 0.5);
/// # Ok::<(), fulgurite_metrics::MetricError>(())
/// ```
pub type MulticlassAccuracy = Handle<StatScores<Multiclass, Accuracy>>;

/// Accuracy: the fraction of correct predictions, averaged over the labels. Inputs are those of [`Multilabel`].
pub type MultilabelAccuracy = Handle<StatScores<Multilabel, Accuracy>>;

/// Precision: `tp / (tp + fp)`. Inputs are those of [`Binary`].
pub type BinaryPrecision = Handle<StatScores<Binary, Precision>>;

/// Precision: `tp / (tp + fp)`. Inputs are those of [`Multiclass`].
pub type MulticlassPrecision = Handle<StatScores<Multiclass, Precision>>;

/// Precision: `tp / (tp + fp)`. Inputs are those of [`Multilabel`].
pub type MultilabelPrecision = Handle<StatScores<Multilabel, Precision>>;

/// Recall: `tp / (tp + fn)`. Inputs are those of [`Binary`].
pub type BinaryRecall = Handle<StatScores<Binary, Recall>>;

/// Recall: `tp / (tp + fn)`. Inputs are those of [`Multiclass`].
pub type MulticlassRecall = Handle<StatScores<Multiclass, Recall>>;

/// Recall: `tp / (tp + fn)`. Inputs are those of [`Multilabel`].
pub type MultilabelRecall = Handle<StatScores<Multilabel, Recall>>;

/// F1: the harmonic mean of precision and recall. Inputs are those of [`Binary`].
pub type BinaryF1Score = Handle<StatScores<Binary, F1>>;

/// F1: the harmonic mean of precision and recall. Inputs are those of [`Multiclass`].
pub type MulticlassF1Score = Handle<StatScores<Multiclass, F1>>;

/// F1: the harmonic mean of precision and recall. Inputs are those of [`Multilabel`].
pub type MultilabelF1Score = Handle<StatScores<Multilabel, F1>>;

/// F-beta: the harmonic mean of precision and recall, recall weighted `beta` times as much. Inputs are those
/// of [`Binary`].
pub type BinaryFBetaScore = Handle<StatScores<Binary, FBeta>>;

/// F-beta: the harmonic mean of precision and recall, recall weighted `beta` times as much. Inputs are those of
/// [`Multiclass`].
pub type MulticlassFBetaScore = Handle<StatScores<Multiclass, FBeta>>;

/// F-beta: the harmonic mean of precision and recall, recall weighted `beta` times as much. Inputs are those of
/// [`Multilabel`].
pub type MultilabelFBetaScore = Handle<StatScores<Multilabel, FBeta>>;

/// The [`Score`] of the accuracy.
#[derive(Debug, Clone, Default)]
pub struct Accuracy;

/// The [`Score`] of the precision.
#[derive(Debug, Clone, Default)]
pub struct Precision;

/// The [`Score`] of the recall.
#[derive(Debug, Clone, Default)]
pub struct Recall;

/// The [`Score`] of F1.
#[derive(Debug, Clone, Default)]
pub struct F1;

/// The [`Score`] of F-beta.
#[derive(Debug, Clone)]
pub struct FBeta {
    beta: f64,
}

impl<S: Score + Default> Handle<StatScores<Binary, S>> {
    /// The metric, threshold 0.5.
    pub fn new() -> Self {
        StatScores::new(1, S::default()).into()
    }
}

impl<S: Score + Default> Handle<StatScores<Multiclass, S>> {
    /// The metric for `num_classes` classes, top 1, macro average.
    pub fn new(num_classes: i64) -> Self {
        StatScores::new(num_classes, S::default()).into()
    }
}

impl<S: Score + Default> Handle<StatScores<Multilabel, S>> {
    /// The metric for `num_labels` labels, threshold 0.5, macro average.
    pub fn new(num_labels: i64) -> Self {
        StatScores::new(num_labels, S::default()).into()
    }
}

impl BinaryFBetaScore {
    /// F-beta, threshold 0.5.
    pub fn new(beta: f64) -> Self {
        StatScores::new(1, FBeta { beta }).into()
    }
}

impl MulticlassFBetaScore {
    /// F-beta for `num_classes` classes, top 1, macro average.
    pub fn new(beta: f64, num_classes: i64) -> Self {
        StatScores::new(num_classes, FBeta { beta }).into()
    }
}

impl MultilabelFBetaScore {
    /// F-beta for `num_labels` labels, threshold 0.5, macro average.
    pub fn new(beta: f64, num_labels: i64) -> Self {
        StatScores::new(num_labels, FBeta { beta }).into()
    }
}

impl Score for Accuracy {
    const NAMES: [&'static str; 3] = ["BinaryAccuracy", "MulticlassAccuracy", "MultilabelAccuracy"];

    fn of(&self, counts: &Counts, task: TaskKind) -> Result<(Tensor, Tensor), TchError> {
        if task == TaskKind::Multiclass {
            return Recall.of(counts, task);
        }
        let right = counts.true_positives.f_add(&counts.true_negatives)?;
        let all = right.f_add(&counts.false_positives)?.f_add(&counts.false_negatives)?;
        Ok((right, all))
    }
}

impl Score for Precision {
    const NAMES: [&'static str; 3] = ["BinaryPrecision", "MulticlassPrecision", "MultilabelPrecision"];

    fn of(&self, counts: &Counts, _: TaskKind) -> Result<(Tensor, Tensor), TchError> {
        let predicted = counts.true_positives.f_add(&counts.false_positives)?;
        Ok((counts.true_positives.shallow_clone(), predicted))
    }
}

impl Score for Recall {
    const NAMES: [&'static str; 3] = ["BinaryRecall", "MulticlassRecall", "MultilabelRecall"];

    fn of(&self, counts: &Counts, _: TaskKind) -> Result<(Tensor, Tensor), TchError> {
        let support = counts.true_positives.f_add(&counts.false_negatives)?;
        Ok((counts.true_positives.shallow_clone(), support))
    }
}

impl Score for F1 {
    const NAMES: [&'static str; 3] = ["BinaryF1Score", "MulticlassF1Score", "MultilabelF1Score"];
    const TOP_K_NEEDS_SUPPORT: bool = false;

    fn of(&self, counts: &Counts, task: TaskKind) -> Result<(Tensor, Tensor), TchError> {
        FBeta { beta: 1.0 }.of(counts, task)
    }
}

impl Score for FBeta {
    const NAMES: [&'static str; 3] = ["BinaryFBetaScore", "MulticlassFBetaScore", "MultilabelFBetaScore"];
    const TOP_K_NEEDS_SUPPORT: bool = false;

    fn of(&self, counts: &Counts, _: TaskKind) -> Result<(Tensor, Tensor), TchError> {
        let squared = self.beta * self.beta;
        let hits = counts.true_positives.f_mul_scalar(1.0 + squared)?;
        let missed = counts.false_negatives.f_mul_scalar(squared)?;
        let all = hits.f_add(&missed)?.f_add(&counts.false_positives)?;
        Ok((hits, all))
    }

    fn validate(&self, metric: &'static str) -> Result<(), MetricError> {
        if self.beta > 0.0 {
            return Ok(());
        }
        Err(MetricError::argument(metric, format!("beta is {}; it must be above 0", self.beta)))
    }
}

impl ZeroDivision for Precision {}
impl ZeroDivision for Recall {}
impl ZeroDivision for F1 {}
impl ZeroDivision for FBeta {}
