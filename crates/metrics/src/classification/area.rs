//! The area under the ROC curve, and under the precision-recall curve.

use fulgurite_torch::tch::{TchError, Tensor};

use super::curve::{Area, Curve};
use super::stat_scores::safe_divide;
use super::{Binary, Multiclass, Multilabel};
use crate::Handle;

/// The area under the receiver operating characteristic, of the inputs of [`Binary`], with scores.
///
/// ```
/// use fulgurite_metrics::BinaryAUROC;
/// use fulgurite_torch::tch::Tensor;
///
/// let auroc = BinaryAUROC::new();
/// auroc.update(&Tensor::from_slice(&[0.0, 0.5, 0.7, 0.8]), &Tensor::from_slice(&[0i64, 1, 1, 0]))?;
/// assert_eq!(auroc.compute()?.double_value(&[]), 0.5);
/// # Ok::<(), fulgurite_metrics::MetricError>(())
/// ```
pub type BinaryAUROC = Handle<Curve<Binary, Auroc>>;

/// The area under the receiver operating characteristic of each class against the rest, of the inputs of
/// [`Multiclass`], with scores (if one of them is outside `[0, 1]`, the softmax is applied to all).
pub type MulticlassAUROC = Handle<Curve<Multiclass, Auroc>>;

/// The area under the receiver operating characteristic of each label, of the inputs of [`Multilabel`], with scores.
pub type MultilabelAUROC = Handle<Curve<Multilabel, Auroc>>;

/// The average precision (the area under the precision-recall curve), of the inputs of [`Binary`], with scores.
pub type BinaryAveragePrecision = Handle<Curve<Binary, PrecisionArea>>;

/// The average precision of each class against the rest, of the inputs of [`Multiclass`], with scores.
///
/// A class that is never the target has none, and does not count in an average; with thresholds its is 0.
pub type MulticlassAveragePrecision = Handle<Curve<Multiclass, PrecisionArea>>;

/// The average precision of each label, of the inputs of [`Multilabel`], with scores.
pub type MultilabelAveragePrecision = Handle<Curve<Multilabel, PrecisionArea>>;

/// The area under the receiver operating characteristic; 0 if all targets are the same, or none counts.
#[derive(Debug, Clone, Default)]
pub struct Auroc;

/// The area under the precision-recall curve, by steps.
#[derive(Debug, Clone, Default)]
pub struct PrecisionArea;

impl Area for Auroc {
    const NAMES: [&'static str; 3] = ["BinaryAUROC", "MulticlassAUROC", "MultilabelAUROC"];

    fn exact(&self, yes: &Tensor, no: &Tensor, _: bool) -> Result<Tensor, TchError> {
        let rate = |counts: &Tensor| {
            let all = counts.f_narrow(0, -1, 1)?;
            safe_divide(&Tensor::f_cat(&[&all.f_zeros_like()?, counts], 0)?, &all, 0.0)
        };
        Tensor::f_trapezoid_x(&rate(yes)?, &rate(no)?, 0)
    }

    fn binned(&self, yes: &Tensor, no: &Tensor, all_yes: &Tensor, all_no: &Tensor) -> Result<Tensor, TchError> {
        let rate = |counts: &Tensor, all: &Tensor| safe_divide(counts, &all.f_expand_as(counts)?, 0.0)?.f_flip([0i64]);
        Tensor::f_trapezoid_x(&rate(yes, all_yes)?, &rate(no, all_no)?, 0)
    }
}

impl Area for PrecisionArea {
    const NAMES: [&'static str; 3] =
        ["BinaryAveragePrecision", "MulticlassAveragePrecision", "MultilabelAveragePrecision"];

    fn exact(&self, yes: &Tensor, no: &Tensor, all_class_zero: bool) -> Result<Tensor, TchError> {
        let precision = yes.f_div(&yes.f_add(no)?)?;
        // torchmetrics takes "all targets are 0" for "no positives", whichever the class, and recall is 1 then.
        let recall = if all_class_zero { yes.f_ones_like()? } else { yes.f_div(&yes.f_narrow(0, -1, 1)?)? };
        let start = recall.f_narrow(0, 0, 1)?.f_zeros_like()?;
        recall.f_diff(1, 0, Some(&start), None)?.f_mul(&precision)?.f_sum(precision.kind())
    }

    fn binned(&self, yes: &Tensor, no: &Tensor, all_yes: &Tensor, _: &Tensor) -> Result<Tensor, TchError> {
        let precision = safe_divide(yes, &yes.f_add(no)?, 0.0)?;
        let recall = safe_divide(yes, &all_yes.f_expand_as(yes)?, 0.0)?;
        let end = recall.f_narrow(0, 0, 1)?.f_zeros_like()?;
        let steps = recall.f_diff(1, 0, None, Some(&end))?.f_neg()?;
        steps.f_mul(&precision)?.f_sum_dim_intlist(0i64, false, precision.kind())
    }
}
