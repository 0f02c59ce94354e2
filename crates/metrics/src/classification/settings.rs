//! What every classification metric is set to, and how its inputs are read.

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use crate::MetricError;
use crate::error::is_float;

/// How the scores of several classes or labels are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Average {
    /// Over all predictions, whatever their class.
    Micro,
    /// The mean of the classes' scores. The default. Classes that occur nowhere do not count.
    #[default]
    Macro,
    /// The mean of the classes' scores, weighted by how often the class is the target.
    Weighted,
    /// One score per class.
    None,
}

/// Which classification problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Yes or no.
    Binary,
    /// One of several classes.
    Multiclass,
    /// Any number of several labels.
    Multilabel,
}

/// A classification problem, as a type.
pub trait Task: Clone + Send + 'static {
    /// Which.
    const KIND: TaskKind;
}

/// A [`Task`] with several classes or labels, whose scores can be averaged.
pub trait Averaged: Task {}

/// A [`Task`] in which a score above a threshold means yes.
pub trait Thresholded: Task {}

/// Yes or no.
///
/// `preds` and `target` have the same shape, `(N, ...)`. `preds` are probabilities, or logits (if one of them is outside
/// `[0, 1]`, the sigmoid is applied to all), or labels 0 and 1 of an integer kind; `target` is 0 or 1.
#[derive(Debug, Clone)]
pub struct Binary;

/// One of several classes.
///
/// `target` has shape `(N, ...)`; `preds` has the same and an integer kind (classes), or is `(N, C, ...)` and of a
/// floating point kind (a score for each class).
#[derive(Debug, Clone)]
pub struct Multiclass;

/// Any number of several labels.
///
/// `preds` and `target` have the same shape, `(N, L, ...)`, and each label is a [`Binary`] problem.
#[derive(Debug, Clone)]
pub struct Multilabel;

impl Task for Binary {
    const KIND: TaskKind = TaskKind::Binary;
}

impl Task for Multiclass {
    const KIND: TaskKind = TaskKind::Multiclass;
}

impl Task for Multilabel {
    const KIND: TaskKind = TaskKind::Multilabel;
}

impl Averaged for Multiclass {}
impl Averaged for Multilabel {}
impl Thresholded for Binary {}
impl Thresholded for Multilabel {}

/// What a classification metric is set to.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) kind: TaskKind,
    /// How many classes or labels; 1 in a binary problem.
    pub(crate) classes: i64,
    pub(crate) threshold: f64,
    pub(crate) top_k: i64,
    pub(crate) average: Average,
    pub(crate) ignore_index: Option<i64>,
}

/// Classes read from a batch, flattened to one dimension.
pub(crate) struct Classes {
    pub(crate) preds: Tensor,
    pub(crate) target: Tensor,
    /// Whether it counts; all do if there is none.
    pub(crate) counted: Option<Tensor>,
}

/// Decisions read from a batch, in its shape: what is predicted, and whether it should have been, or should not.
pub(crate) struct Decisions {
    pub(crate) preds: Tensor,
    pub(crate) yes: Tensor,
    pub(crate) no: Tensor,
}

impl Settings {
    pub(crate) fn new<T: Task>(classes: i64) -> Settings {
        let average = if T::KIND == TaskKind::Binary { Average::Micro } else { Average::Macro };
        Settings { kind: T::KIND, classes, threshold: 0.5, top_k: 1, average, ignore_index: None }
    }

    pub(crate) fn validate(&self, metric: &'static str) -> Result<(), MetricError> {
        let Settings { kind, classes, threshold, top_k, .. } = *self;
        if kind != TaskKind::Binary && classes < 2 {
            let what = if kind == TaskKind::Multiclass { "num_classes" } else { "num_labels" };
            return Err(MetricError::argument(metric, format!("{what} is {classes}; it must be at least 2")));
        }
        if !(0.0..=1.0).contains(&threshold) {
            return Err(MetricError::argument(metric, format!("threshold is {threshold}; it must be in [0, 1]")));
        }
        if kind == TaskKind::Multiclass && !(1..=classes).contains(&top_k) {
            let message = format!("top_k is {top_k}; it must be at least 1 and at most num_classes, {classes}");
            return Err(MetricError::argument(metric, message));
        }
        Ok(())
    }

    /// The classes of a multiclass batch. With `top_k`, the target counts as predicted if it is among the k highest.
    pub(crate) fn classes(
        &self,
        metric: &'static str,
        preds: &Tensor,
        target: &Tensor,
    ) -> Result<Classes, MetricError> {
        let scores = self.check_multiclass(metric, preds, target)?;
        if self.top_k > 1 && !scores {
            let message = format!("top_k is {}, which needs a score for each class, not labels", self.top_k);
            return Err(MetricError::argument(metric, message));
        }
        let target = target.f_to_kind(Kind::Int64)?;
        let preds = if self.top_k > 1 {
            let (_, highest) = preds.f_topk(self.top_k, 1, true, true)?;
            let hit = highest.f_eq_tensor(&target.f_unsqueeze(1)?)?.f_any_dim(1, false)?;
            target.f_where_self(&hit, &highest.f_select(1, 0)?)?
        } else if scores {
            preds.f_argmax(1, false)?
        } else {
            preds.f_to_kind(Kind::Int64)?
        };
        let target = target.f_reshape([-1i64])?;
        let counted = self.ignore_index.map(|index| target.f_ne(index)).transpose()?;
        Ok(Classes { preds: preds.f_reshape([-1i64])?, target, counted })
    }

    /// The decisions of a binary or multilabel batch. Ignored ones have neither a yes nor a no; they have a say in
    /// whether scores are logits unless `set_aside`.
    pub(crate) fn decisions(
        &self,
        metric: &'static str,
        preds: &Tensor,
        target: &Tensor,
        set_aside: bool,
    ) -> Result<Decisions, MetricError> {
        self.check_binary(metric, preds, target)?;
        let ignored = self.ignore_index.map(|index| target.f_eq(index)).transpose()?;
        let preds = if is_float(preds) {
            let aside = ignored.as_ref().filter(|_| set_aside);
            probabilities(preds, aside, Tensor::f_sigmoid)?.f_gt(self.threshold)?
        } else {
            preds.f_to_kind(Kind::Bool)?
        };
        let (mut yes, mut no) = (target.f_eq(1)?, target.f_eq(0)?);
        if let Some(ignored) = &ignored {
            yes = yes.f_masked_fill(ignored, 0)?;
            no = no.f_masked_fill(ignored, 0)?;
        }
        Ok(Decisions { preds, yes, no })
    }

    /// Whether the predictions are scores rather than labels.
    pub(crate) fn check_multiclass(
        &self,
        metric: &'static str,
        preds: &Tensor,
        target: &Tensor,
    ) -> Result<bool, MetricError> {
        MetricError::require_labels(metric, "target", target)?;
        let (size, of_target, classes) = (preds.size(), target.size(), self.classes);
        if size == of_target {
            MetricError::require_labels(metric, "preds", preds)?;
            return Ok(false);
        }
        let fits = size.len() == of_target.len() + 1
            && size.len() > 1
            && size[1] == classes
            && size[0] == of_target[0]
            && size[2..] == of_target[1..];
        if !fits {
            let expected =
                format!("(N, {classes}, ...) for {classes} classes and (N, ...), or labels of the same shape");
            return Err(MetricError::shape(metric, preds, target, expected));
        }
        MetricError::require_float(metric, "preds", preds)?;
        Ok(true)
    }

    pub(crate) fn check_binary(
        &self,
        metric: &'static str,
        preds: &Tensor,
        target: &Tensor,
    ) -> Result<(), MetricError> {
        let size = preds.size();
        if self.kind == TaskKind::Multilabel && (size != target.size() || size.get(1) != Some(&self.classes)) {
            let expected = format!("the same shape, (N, {}, ...)", self.classes);
            return Err(MetricError::shape(metric, preds, target, expected));
        }
        if size != target.size() {
            return Err(MetricError::shape(metric, preds, target, "the same shape"));
        }
        Ok(())
    }
}

/// `scores`, normalised if one of them is outside `[0, 1]`; those at `aside` have no say in it.
pub(crate) fn probabilities(
    scores: &Tensor,
    aside: Option<&Tensor>,
    normalise: impl Fn(&Tensor) -> Result<Tensor, TchError>,
) -> Result<Tensor, TchError> {
    let mut within = scores.f_ge(0)?.f_logical_and(&scores.f_le(1)?)?;
    if let Some(aside) = aside {
        within = within.f_logical_or(aside)?;
    }
    let within = within.f_all()?;
    if scores.device() == Device::Cpu {
        return if within.f_int64_value(&[])? != 0 { Ok(scores.shallow_clone()) } else { normalise(scores) };
    }
    // Elsewhere to look would be to wait.
    scores.f_where_self(&within, &normalise(scores)?)
}

/// How often each of `0..bins` is in `index`, a vector of `0..=bins`. Unlike bincount it never waits for the device.
pub(crate) fn histogram(index: &Tensor, bins: i64) -> Result<Tensor, TchError> {
    let mut counts = Tensor::f_zeros(bins + 1, (Kind::Int64, index.device()))?;
    counts.f_scatter_add_(0, index, &index.f_ones_like()?)?.f_narrow(0, 0, bins)
}
