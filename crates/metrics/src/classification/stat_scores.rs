//! The engine of accuracy, precision, recall and F-beta: true and false positives and negatives.

use std::marker::PhantomData;

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use super::settings::{Average, Averaged, Settings, Task, TaskKind, Thresholded, histogram};
use crate::state::accumulator;
use crate::{Definition, Field, Handle, MetricError, Reduction, Supervised};

/// True and false positives and negatives: a number each, or one per class.
#[derive(Debug)]
pub struct Counts {
    /// True positives.
    pub true_positives: Tensor,
    /// False positives.
    pub false_positives: Tensor,
    /// True negatives.
    pub true_negatives: Tensor,
    /// False negatives.
    pub false_negatives: Tensor,
}

/// A score that [`Counts`] determine.
pub trait Score: Clone + Send + 'static {
    /// The metric's names in the binary, multiclass and multilabel problem.
    const NAMES: [&'static str; 3];

    /// Whether with `top_k` a class that is predicted but never the target is left out of the macro average.
    const TOP_K_NEEDS_SUPPORT: bool = true;

    /// The score of each class, as numerator and denominator.
    fn of(&self, counts: &Counts, task: TaskKind) -> Result<(Tensor, Tensor), TchError>;

    /// Fails if the score is set to something it cannot be.
    fn validate(&self, _metric: &'static str) -> Result<(), MetricError> {
        Ok(())
    }
}

/// A [`Score`] for which one can choose what 0 / 0 is.
pub trait ZeroDivision: Score {}

/// The [`Definition`] of accuracy, precision, recall and F-beta.
#[derive(Debug, Clone)]
pub struct StatScores<T, S> {
    settings: Settings,
    score: S,
    zero_division: f64,
    task: PhantomData<T>,
}

impl<T: Task, S: Score> StatScores<T, S> {
    pub(crate) fn new(classes: i64, score: S) -> Self {
        StatScores { settings: Settings::new::<T>(classes), score, zero_division: 0.0, task: PhantomData }
    }
}

impl<T: Task, S: Score> Handle<StatScores<T, S>> {
    /// Where the target is this, the prediction does not count.
    pub fn ignore_index(self, index: i64) -> Self {
        self.set(|metric| metric.settings.ignore_index = Some(index))
    }
}

impl<T: Averaged, S: Score> Handle<StatScores<T, S>> {
    /// How the scores of the classes become one; [`Average::Macro`] by default.
    pub fn average(self, average: Average) -> Self {
        self.set(|metric| metric.settings.average = average)
    }
}

impl<T: Thresholded, S: Score> Handle<StatScores<T, S>> {
    /// The probability above which the prediction is a yes; 0.5 by default.
    pub fn threshold(self, threshold: f64) -> Self {
        self.set(|metric| metric.settings.threshold = threshold)
    }
}

impl<S: Score> Handle<StatScores<super::Multiclass, S>> {
    /// The target counts as predicted if it is among the `k` classes of highest score; 1 by default.
    pub fn top_k(self, k: i64) -> Self {
        self.set(|metric| metric.settings.top_k = k)
    }
}

impl<T: Task, S: ZeroDivision> Handle<StatScores<T, S>> {
    /// What 0 / 0 is, 0 or 1; 0 by default.
    pub fn zero_division(self, value: f64) -> Self {
        self.set(|metric| metric.zero_division = value)
    }
}

impl<T: Task, S: Score> Supervised for StatScores<T, S> {}

impl<T: Task, S: Score> Definition for StatScores<T, S> {
    type Input<'a> = (&'a Tensor, &'a Tensor);

    fn name(&self) -> &'static str {
        S::NAMES[T::KIND as usize]
    }

    fn fields(&self) -> &'static [Field] {
        const {
            &[
                Field::new("tp", Reduction::Sum),
                Field::new("fp", Reduction::Sum),
                Field::new("tn", Reduction::Sum),
                Field::new("fn", Reduction::Sum),
            ]
        }
    }

    fn batch(&self, (preds, target): (&Tensor, &Tensor)) -> Result<Vec<Tensor>, MetricError> {
        let metric = self.name();
        self.settings.validate(metric)?;
        self.score.validate(metric)?;
        if ![0.0, 1.0].contains(&self.zero_division) {
            let message = format!("zero_division is {}; it must be 0 or 1", self.zero_division);
            return Err(MetricError::argument(metric, message));
        }
        let counts = match T::KIND {
            TaskKind::Multiclass => self.count_classes(preds, target)?,
            _ => self.settings.count_decisions(metric, preds, target, false)?,
        };
        Ok(vec![counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives])
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        let kind = accumulator(state[0].device());
        let total = self.settings.average == Average::Micro;
        let count = |index: usize| if total { state[index].f_sum(kind) } else { state[index].f_to_kind(kind) };
        let counts = Counts {
            true_positives: count(0)?,
            false_positives: count(1)?,
            true_negatives: count(2)?,
            false_negatives: count(3)?,
        };
        let (numerator, denominator) = self.score.of(&counts, T::KIND)?;
        let score = safe_divide(&numerator, &denominator, self.zero_division)?;
        Ok(self.averaged(score, &counts)?.f_to_kind(Kind::Float)?)
    }

    fn initial(&self) -> Result<Option<Vec<Tensor>>, MetricError> {
        let zeros = || match T::KIND {
            TaskKind::Binary => Ok(Tensor::from(0i64)),
            _ if self.counts_together() => Ok(Tensor::from(0i64)),
            _ => Tensor::f_zeros(self.settings.classes, (Kind::Int64, Device::Cpu)),
        };
        Ok(Some(vec![zeros()?, zeros()?, zeros()?, zeros()?]))
    }
}

impl<T: Task, S: Score> StatScores<T, S> {
    /// Whether no count per class is needed.
    fn counts_together(&self) -> bool {
        T::KIND == TaskKind::Multiclass && self.settings.average == Average::Micro
    }

    fn count_classes(&self, preds: &Tensor, target: &Tensor) -> Result<Counts, MetricError> {
        let classes = self.settings.classes;
        let batch = self.settings.classes(self.name(), preds, target)?;
        let mut hit = batch.preds.f_eq_tensor(&batch.target)?;
        if self.counts_together() {
            let total = match &batch.counted {
                Some(counted) => {
                    hit = hit.f_logical_and(counted)?;
                    counted.f_sum(Kind::Int64)?
                }
                None => Tensor::from(batch.target.numel() as i64),
            };
            let true_positives = hit.f_sum(Kind::Int64)?;
            let missed = total.f_sub(&true_positives)?;
            return Ok(Counts {
                true_negatives: total.f_mul_scalar(classes)?.f_sub(&total)?.f_sub(&missed)?,
                false_positives: missed.shallow_clone(),
                false_negatives: missed,
                true_positives,
            });
        }
        // What does not count goes to a bin of its own.
        let count = |classes_of: &Tensor, hits_only: bool| {
            let mut index = classes_of.shallow_clone();
            if let Some(counted) = &batch.counted {
                index = index.f_masked_fill(&counted.f_logical_not()?, classes)?;
            }
            if hits_only {
                index = index.f_masked_fill(&hit.f_logical_not()?, classes)?;
            }
            histogram(&index, classes)
        };
        let (support, predicted) = (count(&batch.target, false)?, count(&batch.preds, false)?);
        let true_positives = count(&batch.target, true)?;
        let false_positives = predicted.f_sub(&true_positives)?;
        Ok(Counts {
            true_negatives: support.f_sum(Kind::Int64)?.f_sub(&support)?.f_sub(&false_positives)?,
            false_negatives: support.f_sub(&true_positives)?,
            false_positives,
            true_positives,
        })
    }

    fn averaged(&self, score: Tensor, counts: &Counts) -> Result<Tensor, TchError> {
        let support = counts.true_positives.f_add(&counts.false_negatives)?;
        let weight = match self.settings.average {
            Average::Micro | Average::None => return Ok(score),
            Average::Weighted => support,
            Average::Macro => {
                let present = if T::KIND == TaskKind::Multilabel {
                    score.f_ones_like()?
                } else if S::TOP_K_NEEDS_SUPPORT && self.settings.top_k > 1 {
                    support.f_ne(0)?
                } else {
                    support.f_add(&counts.false_positives)?.f_ne(0)?
                };
                present.f_to_kind(score.kind())?
            }
        };
        safe_divide(&weight.f_mul(&score)?, &weight.f_sum(score.kind())?, 0.0)?.f_sum(score.kind())
    }
}

impl Settings {
    /// The counts of a binary or multilabel batch; see [`Settings::decisions`].
    pub(crate) fn count_decisions(
        &self,
        metric: &'static str,
        preds: &Tensor,
        target: &Tensor,
        set_aside: bool,
    ) -> Result<Counts, MetricError> {
        let batch = self.decisions(metric, preds, target, set_aside)?;
        let not = batch.preds.f_logical_not()?;
        let count = |a: &Tensor, b: &Tensor| {
            let both = a.f_logical_and(b)?;
            match self.kind {
                TaskKind::Multilabel => {
                    both.f_transpose(0, 1)?.f_reshape([self.classes, -1])?.f_sum_dim_intlist(1i64, false, Kind::Int64)
                }
                _ => both.f_sum(Kind::Int64),
            }
        };
        Ok(Counts {
            true_positives: count(&batch.preds, &batch.yes)?,
            false_positives: count(&batch.preds, &batch.no)?,
            true_negatives: count(&not, &batch.no)?,
            false_negatives: count(&not, &batch.yes)?,
        })
    }
}

/// `numerator / denominator`, and `otherwise` where the denominator is 0.
pub(crate) fn safe_divide(numerator: &Tensor, denominator: &Tensor, otherwise: f64) -> Result<Tensor, TchError> {
    numerator.f_div(denominator)?.f_masked_fill(&denominator.f_eq(0)?, otherwise)
}
