//! Losses of classes and of yes and no.

use fulgurite_torch::tch::{Reduction, TchError, Tensor};
use fulgurite_torch::{Argument, StaticOperator};

use super::{check_same_size, loss, reduce};
use crate::error::Result;
use crate::module::setters;

/// A copy of a weight, so that options can be cloned.
macro_rules! clone_with_weights {
    ($name:ident { $($weight:ident),+ ; $($field:ident),* }) => {
        impl Clone for $name {
            fn clone(&self) -> $name {
                $name {
                    $($weight: self.$weight.as_ref().map(Tensor::shallow_clone),)+
                    $($field: self.$field.clone(),)*
                }
            }
        }
    };
}

/// The cross entropy of logits: PyTorch's `nn.CrossEntropyLoss`.
///
/// The input is `[batch, classes, …]`, or `[classes]`; the target has class indices `[batch, …]`, or probabilities of the
/// input's size.
#[derive(Debug)]
pub struct CrossEntropyLoss {
    weight: Option<Tensor>,
    reduction: Reduction,
    ignore_index: i64,
    label_smoothing: f64,
}

clone_with_weights!(CrossEntropyLoss { weight; reduction, ignore_index, label_smoothing });

/// A [`CrossEntropyLoss`].
pub fn cross_entropy_loss() -> CrossEntropyLoss {
    CrossEntropyLoss { weight: None, reduction: Reduction::Mean, ignore_index: -100, label_smoothing: 0.0 }
}

impl CrossEntropyLoss {
    setters! {
        /// The weight of each class.
        weight: Option<Tensor>;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
        /// A target that does not count; the default is −100.
        ignore_index: i64;
        /// How much of the target is spread over all classes; the default is 0.
        label_smoothing: f64;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit, or a target is no class.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let CrossEntropyLoss { weight, reduction, ignore_index, label_smoothing } = self;
        let loss = input.f_cross_entropy_loss(target, weight.as_ref(), *reduction, *ignore_index, *label_smoothing);
        Self::label().forward("cross_entropy_loss", loss)
    }
}

loss!(CrossEntropyLoss, cross_entropy_loss, "CrossEntropyLoss()", (input, target));

/// The negative log-likelihood of log-probabilities: PyTorch's `nn.NLLLoss`.
#[derive(Debug)]
pub struct NllLoss {
    weight: Option<Tensor>,
    reduction: Reduction,
    ignore_index: i64,
}

clone_with_weights!(NllLoss { weight; reduction, ignore_index });

/// An [`NllLoss`].
pub fn nll_loss() -> NllLoss {
    NllLoss { weight: None, reduction: Reduction::Mean, ignore_index: -100 }
}

impl NllLoss {
    setters! {
        /// The weight of each class.
        weight: Option<Tensor>;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
        /// A target that does not count; the default is −100.
        ignore_index: i64;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit, or a target is no class.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let loss = input.f_nll_loss_nd(target, self.weight.as_ref(), self.reduction, self.ignore_index);
        Self::label().forward("nll_loss", loss)
    }
}

loss!(NllLoss, nll_loss, "NLLLoss()", (input, target));

/// The cross entropy of probabilities of yes and no: PyTorch's `nn.BCELoss`.
#[derive(Debug)]
pub struct BceLoss {
    weight: Option<Tensor>,
    reduction: Reduction,
}

clone_with_weights!(BceLoss { weight; reduction });

/// A [`BceLoss`].
pub fn bce_loss() -> BceLoss {
    BceLoss { weight: None, reduction: Reduction::Mean }
}

impl BceLoss {
    setters! {
        /// The weight of each item of a batch.
        weight: Option<Tensor>;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit, or a number is outside 0..=1.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_same_size(&Self::label(), input, target)?;
        let loss = input.f_binary_cross_entropy(target, self.weight.as_ref(), self.reduction);
        Self::label().forward("binary_cross_entropy", loss)
    }
}

loss!(BceLoss, bce_loss, "BCELoss()", (input, target));

/// The cross entropy of logits of yes and no: PyTorch's `nn.BCEWithLogitsLoss`.
#[derive(Debug)]
pub struct BceWithLogitsLoss {
    weight: Option<Tensor>,
    pos_weight: Option<Tensor>,
    reduction: Reduction,
}

clone_with_weights!(BceWithLogitsLoss { weight, pos_weight; reduction });

/// A [`BceWithLogitsLoss`].
pub fn bce_with_logits_loss() -> BceWithLogitsLoss {
    BceWithLogitsLoss { weight: None, pos_weight: None, reduction: Reduction::Mean }
}

impl BceWithLogitsLoss {
    setters! {
        /// The weight of each item of a batch.
        weight: Option<Tensor>;
        /// The weight of yes, for each class.
        pos_weight: Option<Tensor>;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_same_size(&Self::label(), input, target)?;
        let (weight, pos_weight) = (self.weight.as_ref(), self.pos_weight.as_ref());
        let loss = input.f_binary_cross_entropy_with_logits(target, weight, pos_weight, self.reduction);
        Self::label().forward("binary_cross_entropy_with_logits", loss)
    }
}

loss!(BceWithLogitsLoss, bce_with_logits_loss, "BCEWithLogitsLoss()", (input, target));

/// How a [`KlDivLoss`] makes one number of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlReduction {
    /// None: one value for each input.
    None,
    /// The mean of all values, which is not the divergence.
    Mean,
    /// Their sum.
    Sum,
    /// Their sum, divided by the size of the batch: the divergence.
    BatchMean,
}

/// The Kullback-Leibler divergence of log-probabilities from target probabilities: PyTorch's `nn.KLDivLoss`.
#[derive(Debug, Clone, Copy)]
pub struct KlDivLoss {
    reduction: KlReduction,
    log_target: bool,
}

/// A [`KlDivLoss`]. Its default reduction is PyTorch's, the mean over all values; `BatchMean` is the divergence.
pub fn kl_div_loss() -> KlDivLoss {
    KlDivLoss { reduction: KlReduction::Mean, log_target: false }
}

impl KlDivLoss {
    setters! {
        /// What is made of the values.
        reduction: KlReduction;
        /// Whether the target has log-probabilities too; the default is `false`.
        log_target: bool;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let reduction = match self.reduction {
            KlReduction::None => Reduction::None,
            KlReduction::Mean => Reduction::Mean,
            KlReduction::Sum | KlReduction::BatchMean => Reduction::Sum,
        };
        let loss = Self::label().forward("kl_div", input.f_kl_div(target, reduction, self.log_target))?;
        let batch = input.size().first().copied().unwrap_or(1);
        match self.reduction {
            KlReduction::BatchMean => Self::label().forward("div", loss.f_div_scalar(batch)),
            _ => Ok(loss),
        }
    }
}

loss!(KlDivLoss, kl_div_loss, "KLDivLoss()", (input, target));

/// `log(1 + exp(−target · input))` for targets of −1 and 1: PyTorch's `nn.SoftMarginLoss`.
#[derive(Debug, Clone, Copy)]
pub struct SoftMarginLoss {
    reduction: Reduction,
}

/// A [`SoftMarginLoss`].
pub fn soft_margin_loss() -> SoftMarginLoss {
    SoftMarginLoss { reduction: Reduction::Mean }
}

impl SoftMarginLoss {
    setters! {
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_same_size(&Self::label(), input, target)?;
        Self::label().forward("soft_margin_loss", input.f_soft_margin_loss(target, self.reduction))
    }
}

loss!(SoftMarginLoss, soft_margin_loss, "SoftMarginLoss()", (input, target));

/// The mean over classes of the cross entropy of logits of yes and no: PyTorch's `nn.MultiLabelSoftMarginLoss`.
#[derive(Debug)]
pub struct MultiLabelSoftMarginLoss {
    weight: Option<Tensor>,
    reduction: Reduction,
}

clone_with_weights!(MultiLabelSoftMarginLoss { weight; reduction });

/// A [`MultiLabelSoftMarginLoss`].
pub fn multi_label_soft_margin_loss() -> MultiLabelSoftMarginLoss {
    MultiLabelSoftMarginLoss { weight: None, reduction: Reduction::Mean }
}

impl MultiLabelSoftMarginLoss {
    setters! {
        /// The weight of each class.
        weight: Option<Tensor>;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_same_size(&Self::label(), input, target)?;
        Self::label().forward("multilabel_soft_margin_loss", self.loss(input, target))
    }

    fn loss(&self, input: &Tensor, target: &Tensor) -> Result<Tensor, TchError> {
        let yes = input.f_log_sigmoid()?.f_mul(target)?;
        let no = input.f_neg()?.f_log_sigmoid()?.f_mul(&target.f_neg()?.f_add_scalar(1.0)?)?;
        let mut loss = yes.f_add(&no)?.f_neg()?;
        if let Some(weight) = &self.weight {
            loss = loss.f_mul(weight)?;
        }
        reduce(&loss.f_mean_dim(-1, false, loss.kind())?, self.reduction)
    }
}

loss!(MultiLabelSoftMarginLoss, multi_label_soft_margin_loss, "MultiLabelSoftMarginLoss()", (input, target));

/// A margin between the classes of an item and the others: PyTorch's `nn.MultiLabelMarginLoss`. The targets of an item are
/// its classes, followed by −1.
#[derive(Debug, Clone, Copy)]
pub struct MultiLabelMarginLoss {
    reduction: Reduction,
}

/// A [`MultiLabelMarginLoss`].
pub fn multi_label_margin_loss() -> MultiLabelMarginLoss {
    MultiLabelMarginLoss { reduction: Reduction::Mean }
}

impl MultiLabelMarginLoss {
    setters! {
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        Self::label().forward("multilabel_margin_loss", input.f_multilabel_margin_loss(target, self.reduction))
    }
}

loss!(MultiLabelMarginLoss, multi_label_margin_loss, "MultiLabelMarginLoss()", (input, target));

/// A margin between the class of an item and the others: PyTorch's `nn.MultiMarginLoss`.
#[derive(Debug)]
pub struct MultiMarginLoss {
    weight: Option<Tensor>,
    p: i64,
    margin: f64,
    reduction: Reduction,
}

clone_with_weights!(MultiMarginLoss { weight; p, margin, reduction });

/// A [`MultiMarginLoss`].
pub fn multi_margin_loss() -> MultiMarginLoss {
    MultiMarginLoss { weight: None, p: 1, margin: 1.0, reduction: Reduction::Mean }
}

impl MultiMarginLoss {
    setters! {
        /// The weight of each class.
        weight: Option<Tensor>;
        /// The power of a violation, 1 or 2; the default is 1.
        p: i64;
        /// The margin; the default is 1.
        margin: f64;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit, or the power is neither 1 nor 2.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let label = Self::label();
        let weight = self.weight.as_ref().map_or(Argument::None, Argument::Tensor);
        let arguments = [
            Argument::Tensor(input),
            Argument::Tensor(target),
            Argument::Int(self.p),
            Argument::Double(self.margin),
            weight,
            Argument::Int(self.reduction.to_int()),
        ];
        static OPERATOR: StaticOperator = StaticOperator::new(c"aten::multi_margin_loss", c"");
        label.forward("multi_margin_loss", OPERATOR.call(&arguments))
    }
}

loss!(MultiMarginLoss, multi_margin_loss, "MultiMarginLoss()", (input, target));

/// The input for a target of 1, and what it lacks to the margin for −1: PyTorch's `nn.HingeEmbeddingLoss`.
#[derive(Debug, Clone, Copy)]
pub struct HingeEmbeddingLoss {
    margin: f64,
    reduction: Reduction,
}

/// A [`HingeEmbeddingLoss`].
pub fn hinge_embedding_loss() -> HingeEmbeddingLoss {
    HingeEmbeddingLoss { margin: 1.0, reduction: Reduction::Mean }
}

impl HingeEmbeddingLoss {
    setters! {
        /// The margin; the default is 1.
        margin: f64;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let loss = input.f_hinge_embedding_loss(target, self.margin, self.reduction);
        Self::label().forward("hinge_embedding_loss", loss)
    }
}

loss!(HingeEmbeddingLoss, hinge_embedding_loss, "HingeEmbeddingLoss()", (input, target));
