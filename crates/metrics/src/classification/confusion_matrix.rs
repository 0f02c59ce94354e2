//! Confusion matrices.

use std::marker::PhantomData;

use fulgurite_torch::tch::{Device, Kind, Tensor};

use super::settings::{Binary, Multiclass, Multilabel, Settings, Task, TaskKind, Thresholded, histogram};
use crate::{Definition, Field, Handle, MetricError, Reduction, Supervised};

/// `[[tn, fp], [fn, tp]]`, of the inputs of [`Binary`].
pub type BinaryConfusionMatrix = Handle<ConfusionMatrix<Binary>>;

/// How often each class (row) was predicted as each class (column): `(C, C)`, of the inputs of [`Multiclass`].
///
/// ```
/// use fulgurite_metrics::{MulticlassConfusionMatrix, Normalize};
/// use fulgurite_torch::tch::Tensor;
///
/// let matrix = MulticlassConfusionMatrix::new(2).normalize(Normalize::True);
/// matrix.update(&Tensor::from_slice(&[0i64, 1, 1]), &Tensor::from_slice(&[0i64, 1, 0]))?;
/// assert_eq!(Vec::<f32>::try_from(matrix.compute()?.flatten(0, -1)).unwrap(), [0.5, 0.5, 0.0, 1.0]);
/// # Ok::<(), fulgurite_metrics::MetricError>(())
/// ```
pub type MulticlassConfusionMatrix = Handle<ConfusionMatrix<Multiclass>>;

/// `[[tn, fp], [fn, tp]]` for each label: `(L, 2, 2)`, of the inputs of [`Multilabel`].
pub type MultilabelConfusionMatrix = Handle<ConfusionMatrix<Multilabel>>;

/// Normalization of a confusion matrix; 0 / 0 is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Normalize {
    /// Counts, of kind `Int64`. The default.
    #[default]
    None,
    /// Over the true labels (rows).
    True,
    /// Over the predictions (columns).
    Pred,
    /// Over all samples.
    All,
}

/// The [`Definition`] of confusion matrices.
#[derive(Debug, Clone)]
pub struct ConfusionMatrix<T> {
    settings: Settings,
    normalize: Normalize,
    task: PhantomData<T>,
}

impl<T: Task> ConfusionMatrix<T> {
    fn new(classes: i64) -> Handle<Self> {
        ConfusionMatrix { settings: Settings::new::<T>(classes), normalize: Normalize::None, task: PhantomData }.into()
    }
}

impl BinaryConfusionMatrix {
    /// Counts, threshold 0.5.
    pub fn new() -> Self {
        ConfusionMatrix::new(1)
    }
}

impl MulticlassConfusionMatrix {
    /// Counts of `num_classes` classes.
    pub fn new(num_classes: i64) -> Self {
        ConfusionMatrix::new(num_classes)
    }
}

impl MultilabelConfusionMatrix {
    /// Counts of `num_labels` labels, threshold 0.5.
    pub fn new(num_labels: i64) -> Self {
        ConfusionMatrix::new(num_labels)
    }
}

impl<T: Task> Handle<ConfusionMatrix<T>> {
    /// Normalization of the entries.
    pub fn normalize(self, normalize: Normalize) -> Self {
        self.set(|metric| metric.normalize = normalize)
    }

    /// Targets with this value are ignored.
    pub fn ignore_index(self, index: i64) -> Self {
        self.set(|metric| metric.settings.ignore_index = Some(index))
    }
}

impl<T: Thresholded> Handle<ConfusionMatrix<T>> {
    /// Threshold that turns probabilities into predictions; 0.5 by default.
    pub fn threshold(self, threshold: f64) -> Self {
        self.set(|metric| metric.settings.threshold = threshold)
    }
}

impl<T: Task> Supervised for ConfusionMatrix<T> {}

impl<T: Task> Definition for ConfusionMatrix<T> {
    type Input<'a> = (&'a Tensor, &'a Tensor);

    fn name(&self) -> &'static str {
        match T::KIND {
            TaskKind::Binary => "BinaryConfusionMatrix",
            TaskKind::Multiclass => "MulticlassConfusionMatrix",
            TaskKind::Multilabel => "MultilabelConfusionMatrix",
        }
    }

    fn fields(&self) -> &'static [Field] {
        const { &[Field::new("confmat", Reduction::Sum)] }
    }

    fn batch(&self, (preds, target): (&Tensor, &Tensor)) -> Result<Vec<Tensor>, MetricError> {
        let (metric, classes) = (self.name(), self.settings.classes);
        self.settings.validate(metric)?;
        if T::KIND == TaskKind::Multiclass {
            let batch = self.settings.classes(metric, preds, target)?;
            let mut index = batch.target.f_mul_scalar(classes)?.f_add(&batch.preds)?;
            if let Some(counted) = batch.counted {
                index = index.f_masked_fill(&counted.f_logical_not()?, classes * classes)?;
            }
            return Ok(vec![histogram(&index, classes * classes)?.f_reshape([classes, classes])?]);
        }
        let counts = self.settings.count_decisions(metric, preds, target, T::KIND == TaskKind::Binary)?;
        let row = |no: &Tensor, yes: &Tensor| Tensor::f_stack(&[no, yes], -1);
        let rows = [
            row(&counts.true_negatives, &counts.false_positives)?,
            row(&counts.false_negatives, &counts.true_positives)?,
        ];
        Ok(vec![Tensor::f_stack(&rows, -2)?])
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        let matrix = &state[0];
        let total = |dims: &[i64]| matrix.f_sum_dim_intlist(dims, true, Kind::Int64);
        let total = match self.normalize {
            Normalize::None => return Ok(matrix.f_detach_copy()?),
            Normalize::True => total(&[-1])?,
            Normalize::Pred => total(&[-2])?,
            Normalize::All => total(&[-2, -1])?,
        };
        Ok(super::stat_scores::safe_divide(matrix, &total, 0.0)?)
    }

    fn initial(&self) -> Result<Option<Vec<Tensor>>, MetricError> {
        let classes = self.settings.classes;
        let shape = match T::KIND {
            TaskKind::Binary => vec![2, 2],
            TaskKind::Multiclass => vec![classes, classes],
            TaskKind::Multilabel => vec![classes, 2, 2],
        };
        Ok(Some(vec![Tensor::f_zeros(shape, (Kind::Int64, Device::Cpu))?]))
    }
}
