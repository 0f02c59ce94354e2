//! Connectionist temporal classification.

use fulgurite_torch::tch::{Reduction, Tensor};

use super::loss;
use crate::error::Result;
use crate::module::setters;

/// Connectionist temporal classification (Graves et al. 2006): PyTorch's `nn.CTCLoss`.
///
/// `log_probs` is `[time, batch, classes]`; `targets` `[batch, longest]`, or all of them in one dimension; both lengths are
/// `[batch]`.
#[derive(Debug, Clone, Copy)]
pub struct CtcLoss {
    blank: i64,
    reduction: Reduction,
    zero_infinity: bool,
}

/// A [`CtcLoss`].
pub fn ctc_loss() -> CtcLoss {
    CtcLoss { blank: 0, reduction: Reduction::Mean, zero_infinity: false }
}

impl CtcLoss {
    setters! {
        /// The class that is no label; the default is 0.
        blank: i64;
        /// What is made of the values of all items; the default is their mean, each divided by its target's length.
        reduction: Reduction;
        /// Whether infinite losses, of targets longer than their input, count as 0; the default is `false`.
        zero_infinity: bool;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit.
    pub fn try_forward(
        &self,
        log_probs: &Tensor,
        targets: &Tensor,
        input_lengths: &Tensor,
        target_lengths: &Tensor,
    ) -> Result<Tensor> {
        let CtcLoss { blank, reduction, zero_infinity } = *self;
        let loss = Tensor::f_ctc_loss_tensor(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            blank,
            reduction,
            zero_infinity,
        );
        Self::label().forward("ctc_loss", loss)
    }
}

loss!(CtcLoss, ctc_loss, "CTCLoss()", (log_probs, targets, input_lengths, target_lengths));
