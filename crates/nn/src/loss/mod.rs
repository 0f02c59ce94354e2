//! PyTorch's losses, with its defaults.
//!
//! A loss is its options, and computes what they say:
//!
//! ```
//! use fulgurite_nn as nn;
//! use fulgurite_torch::tch::{Device, Kind, Tensor};
//!
//! let logits = Tensor::randn([8, 10], (Kind::Float, Device::Cpu));
//! let labels = Tensor::randint(10, [8], (Kind::Int64, Device::Cpu));
//! let loss = nn::cross_entropy_loss().label_smoothing(0.1).forward(&logits, &labels);
//! assert_eq!(loss.size(), [0i64; 0]);
//! ```

mod classification;
mod ctc;
mod pairs;
mod regression;

pub use classification::{
    BceLoss, BceWithLogitsLoss, CrossEntropyLoss, HingeEmbeddingLoss, KlDivLoss, KlReduction, MultiLabelMarginLoss,
    MultiLabelSoftMarginLoss, MultiMarginLoss, NllLoss, SoftMarginLoss, bce_loss, bce_with_logits_loss,
    cross_entropy_loss, hinge_embedding_loss, kl_div_loss, multi_label_margin_loss, multi_label_soft_margin_loss,
    multi_margin_loss, nll_loss, soft_margin_loss,
};
pub use ctc::{CtcLoss, ctc_loss};
pub use pairs::{
    CosineEmbeddingLoss, MarginRankingLoss, TripletMarginLoss, cosine_embedding_loss, margin_ranking_loss,
    triplet_margin_loss,
};
pub use regression::{
    GaussianNllLoss, HuberLoss, L1Loss, MseLoss, PoissonNllLoss, SmoothL1Loss, gaussian_nll_loss, huber_loss, l1_loss,
    mse_loss, poisson_nll_loss, smooth_l1_loss,
};

use fulgurite_torch::tch::{Reduction, TchError, Tensor};

use crate::error::Result;
use crate::module::Label;

/// What a loss makes of its values, one for each item.
fn reduce(values: &Tensor, reduction: Reduction) -> Result<Tensor, TchError> {
    match reduction {
        Reduction::Mean => values.f_mean(values.kind()),
        Reduction::Sum => values.f_sum(values.kind()),
        Reduction::None | Reduction::Other(_) => Ok(values.shallow_clone()),
    }
}

/// Checks that input and target have the same size, which libtorch would stretch.
fn check_same_size(label: &Label, input: &Tensor, target: &Tensor) -> Result<()> {
    let (input, target) = (input.size(), target.size());
    match input == target {
        true => Ok(()),
        false => Err(label.input(format!("the input has the size {input:?}, and the target {target:?}"))),
    }
}

/// Gives a loss `forward` beside its `try_forward`.
macro_rules! loss {
    ($name:ident, $constructor:ident, $repr:literal, ($($argument:ident),+)) => {
        impl $name {
            /// Computes the loss.
            ///
            /// # Panics
            ///
            /// Panics if the arguments do not fit, as operations of `tch` do; the trainer makes an error of it.
            pub fn forward(&self, $($argument: &::fulgurite_torch::tch::Tensor),+) -> ::fulgurite_torch::tch::Tensor {
                $crate::module::output(self.try_forward($($argument),+))
            }

            fn label() -> $crate::module::Label {
                $crate::module::Label::unnamed($repr)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str($repr)
            }
        }
    };
}

use loss;
