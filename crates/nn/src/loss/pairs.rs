//! Losses of pairs and triplets.

use fulgurite_torch::tch::{Reduction, Tensor};

use super::{loss, reduce};
use crate::error::Result;
use crate::module::setters;

/// `1 − cos(x₁, x₂)` for a target of 1, and the cosine above the margin for −1: PyTorch's `nn.CosineEmbeddingLoss`.
#[derive(Debug, Clone, Copy)]
pub struct CosineEmbeddingLoss {
    margin: f64,
    reduction: Reduction,
}

/// A [`CosineEmbeddingLoss`].
pub fn cosine_embedding_loss() -> CosineEmbeddingLoss {
    CosineEmbeddingLoss { margin: 0.0, reduction: Reduction::Mean }
}

impl CosineEmbeddingLoss {
    setters! {
        /// The margin; the default is 0.
        margin: f64;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit.
    pub fn try_forward(&self, input1: &Tensor, input2: &Tensor, target: &Tensor) -> Result<Tensor> {
        let loss = Tensor::f_cosine_embedding_loss(input1, input2, target, self.margin, self.reduction);
        Self::label().forward("cosine_embedding_loss", loss)
    }
}

loss!(CosineEmbeddingLoss, cosine_embedding_loss, "CosineEmbeddingLoss()", (input1, input2, target));

/// `max(0, −target · (x₁ − x₂) + margin)`, for targets that say which is to be larger: PyTorch's `nn.MarginRankingLoss`.
#[derive(Debug, Clone, Copy)]
pub struct MarginRankingLoss {
    margin: f64,
    reduction: Reduction,
}

/// A [`MarginRankingLoss`].
pub fn margin_ranking_loss() -> MarginRankingLoss {
    MarginRankingLoss { margin: 0.0, reduction: Reduction::Mean }
}

impl MarginRankingLoss {
    setters! {
        /// The margin; the default is 0.
        margin: f64;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit.
    pub fn try_forward(&self, input1: &Tensor, input2: &Tensor, target: &Tensor) -> Result<Tensor> {
        let label = Self::label();
        if input1.dim() != input2.dim() || input1.dim() != target.dim() {
            let message = format!(
                "the inputs and the target have {}, {} and {} dimensions",
                input1.dim(),
                input2.dim(),
                target.dim()
            );
            return Err(label.input(message));
        }
        let loss = Tensor::f_margin_ranking_loss(input1, input2, target, self.margin, self.reduction);
        label.forward("margin_ranking_loss", loss)
    }
}

loss!(MarginRankingLoss, margin_ranking_loss, "MarginRankingLoss()", (input1, input2, target));

/// How much nearer the positive is to the anchor than the negative (Balntas et al. 2016): PyTorch's `nn.TripletMarginLoss`.
#[derive(Debug, Clone, Copy)]
pub struct TripletMarginLoss {
    margin: f64,
    p: f64,
    eps: f64,
    swap: bool,
    reduction: Reduction,
}

/// A [`TripletMarginLoss`].
pub fn triplet_margin_loss() -> TripletMarginLoss {
    TripletMarginLoss { margin: 1.0, p: 2.0, eps: 1e-6, swap: false, reduction: Reduction::Mean }
}

impl TripletMarginLoss {
    setters! {
        /// The margin; the default is 1.
        margin: f64;
        /// The norm of distances; the default is 2.
        p: f64;
        /// What is added to distances; the default is 1e-6.
        eps: f64;
        /// Whether the negative's distance from the positive counts if it is smaller; the default is `false`.
        swap: bool;
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
    }

    /// The loss of other distances than norms: PyTorch's `nn.TripletMarginWithDistanceLoss`. `distance` gives that of each
    /// pair.
    ///
    /// ```
    /// use fulgurite_nn as nn;
    /// use fulgurite_torch::tch::{Device, Kind, Tensor};
    ///
    /// let [anchor, positive, negative] = [(); 3].map(|()| Tensor::randn([8, 4], (Kind::Float, Device::Cpu)));
    /// let similarity = nn::cosine_similarity();
    /// let distance = |x: &Tensor, y: &Tensor| similarity.try_forward(x, y).map(|cosine| 1.0 - cosine);
    /// let loss = nn::triplet_margin_loss().try_forward_with(distance, &anchor, &positive, &negative)?;
    /// assert_eq!(loss.dim(), 0);
    /// # Ok::<(), nn::NnError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit, or with the error of `distance`.
    pub fn try_forward_with(
        &self,
        distance: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
        anchor: &Tensor,
        positive: &Tensor,
        negative: &Tensor,
    ) -> Result<Tensor> {
        let to_positive = distance(anchor, positive)?;
        let mut to_negative = distance(anchor, negative)?;
        let label = Self::label();
        if self.swap {
            let others = distance(positive, negative)?;
            to_negative = label.forward("minimum", to_negative.f_minimum(&others))?;
        }
        let difference = label.forward("sub", to_positive.f_sub(&to_negative))?;
        let hinge = difference.f_add_scalar(self.margin).and_then(|sum| sum.f_clamp_min(0.0));
        label.forward("triplet_margin_loss", hinge.and_then(|values| reduce(&values, self.reduction)))
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit, or the margin is not positive.
    pub fn try_forward(&self, anchor: &Tensor, positive: &Tensor, negative: &Tensor) -> Result<Tensor> {
        let TripletMarginLoss { margin, p, eps, swap, reduction } = *self;
        if margin <= 0.0 {
            return Err(Self::label().options(format!("the margin is {margin}; it must be above 0")));
        }
        let loss = Tensor::f_triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction);
        Self::label().forward("triplet_margin_loss", loss)
    }
}

loss!(TripletMarginLoss, triplet_margin_loss, "TripletMarginLoss()", (anchor, positive, negative));
