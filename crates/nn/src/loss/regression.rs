//! Losses of numbers.

use std::f64::consts::PI;

use fulgurite_torch::tch::{Reduction, TchError, Tensor};

use super::{check_same_size, loss, reduce};
use crate::error::Result;
use crate::module::setters;

macro_rules! plain_losses {
    ($($(#[$doc:meta])* $name:ident, $constructor:ident, $repr:literal, $method:ident;)+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name {
            reduction: Reduction,
        }

        $(#[$doc])*
        pub fn $constructor() -> $name {
            $name { reduction: Reduction::Mean }
        }

        impl $name {
            setters! {
                /// What is made of the values of all items; the default is their mean.
                reduction: Reduction;
            }

            /// [`forward`](Self::forward), whose errors are returned.
            ///
            /// # Errors
            ///
            /// Fails if input and target have different sizes.
            pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
                check_same_size(&Self::label(), input, target)?;
                Self::label().forward(stringify!($method), input.$method(target, self.reduction))
            }
        }

        loss!($name, $constructor, $repr, (input, target));
    )+ };
}

plain_losses! {
    /// The absolute difference: PyTorch's `nn.L1Loss`.
    L1Loss, l1_loss, "L1Loss()", f_l1_loss;
    /// The squared difference: PyTorch's `nn.MSELoss`.
    MseLoss, mse_loss, "MSELoss()", f_mse_loss;
}

/// Squared below a difference of `beta`, and linear above: PyTorch's `nn.SmoothL1Loss`.
#[derive(Debug, Clone, Copy)]
pub struct SmoothL1Loss {
    reduction: Reduction,
    beta: f64,
}

/// A [`SmoothL1Loss`].
pub fn smooth_l1_loss() -> SmoothL1Loss {
    SmoothL1Loss { reduction: Reduction::Mean, beta: 1.0 }
}

impl SmoothL1Loss {
    setters! {
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
        /// Where it becomes linear; the default is 1, and 0 is the absolute difference.
        beta: f64;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if input and target have different sizes.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_same_size(&Self::label(), input, target)?;
        let loss = match self.beta {
            0.0 => input.f_l1_loss(target, self.reduction),
            beta => input.f_smooth_l1_loss(target, self.reduction, beta),
        };
        Self::label().forward("smooth_l1_loss", loss)
    }
}

loss!(SmoothL1Loss, smooth_l1_loss, "SmoothL1Loss()", (input, target));

/// Squared below a difference of `delta`, and linear above (Huber 1964): PyTorch's `nn.HuberLoss`.
#[derive(Debug, Clone, Copy)]
pub struct HuberLoss {
    reduction: Reduction,
    delta: f64,
}

/// A [`HuberLoss`].
pub fn huber_loss() -> HuberLoss {
    HuberLoss { reduction: Reduction::Mean, delta: 1.0 }
}

impl HuberLoss {
    setters! {
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
        /// Where it becomes linear; the default is 1.
        delta: f64;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if input and target have different sizes.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_same_size(&Self::label(), input, target)?;
        Self::label().forward("huber_loss", input.f_huber_loss(target, self.reduction, self.delta))
    }
}

loss!(HuberLoss, huber_loss, "HuberLoss()", (input, target));

/// The negative log-likelihood of counts of a Poisson distribution: PyTorch's `nn.PoissonNLLLoss`.
#[derive(Debug, Clone, Copy)]
pub struct PoissonNllLoss {
    reduction: Reduction,
    log_input: bool,
    full: bool,
    eps: f64,
}

/// A [`PoissonNllLoss`] whose input is the logarithm of the rate.
pub fn poisson_nll_loss() -> PoissonNllLoss {
    PoissonNllLoss { reduction: Reduction::Mean, log_input: true, full: false, eps: 1e-8 }
}

impl PoissonNllLoss {
    setters! {
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
        /// Whether the input is the logarithm of the rate; the default is `true`.
        log_input: bool;
        /// Whether Stirling's approximation of the constant term is added; the default is `false`.
        full: bool;
        /// What is added to a rate before its logarithm; the default is 1e-8.
        eps: f64;
    }

    /// [`forward`](Self::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if input and target have different sizes.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_same_size(&Self::label(), input, target)?;
        let PoissonNllLoss { reduction, log_input, full, eps } = *self;
        let loss = Tensor::f_poisson_nll_loss(input, target, log_input, full, eps, reduction);
        Self::label().forward("poisson_nll_loss", loss)
    }
}

loss!(PoissonNllLoss, poisson_nll_loss, "PoissonNLLLoss()", (input, target));

/// The negative log-likelihood of normal distributions whose variances are predicted too: PyTorch's `nn.GaussianNLLLoss`.
#[derive(Debug, Clone, Copy)]
pub struct GaussianNllLoss {
    reduction: Reduction,
    full: bool,
    eps: f64,
}

/// A [`GaussianNllLoss`].
pub fn gaussian_nll_loss() -> GaussianNllLoss {
    GaussianNllLoss { reduction: Reduction::Mean, full: false, eps: 1e-6 }
}

impl GaussianNllLoss {
    setters! {
        /// What is made of the values of all items; the default is their mean.
        reduction: Reduction;
        /// Whether the constant term is added; the default is `false`.
        full: bool;
        /// The smallest variance; the default is 1e-6.
        eps: f64;
    }

    /// [`forward`](Self::forward), whose errors are returned. `var` has the size of the input, or 1 as its last dimension, or
    /// lacks that.
    ///
    /// # Errors
    ///
    /// Fails if the sizes do not fit, or a variance is negative.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor, var: &Tensor) -> Result<Tensor> {
        let label = Self::label();
        let (size, mut var) = (input.size(), var.shallow_clone());
        if var.size() != size && !size.is_empty() {
            if var.size() == size[..size.len() - 1] {
                var = var.unsqueeze(-1);
            } else if var.dim() != size.len() || var.size()[size.len() - 1] != 1 {
                return Err(label.input(format!("the variance has the size {:?}, and the input {size:?}", var.size())));
            }
        }
        let least = if var.numel() == 0 { 0.0 } else { var.detach().min().double_value(&[]) };
        if least < 0.0 {
            return Err(label.input(format!("a variance is {least}; it must not be negative")));
        }
        label.forward("gaussian_nll_loss", self.loss(input, target, &var))
    }

    fn loss(&self, input: &Tensor, target: &Tensor, var: &Tensor) -> Result<Tensor, TchError> {
        // The bound has no gradient.
        let below = var.f_detach()?.f_clamp_min(self.eps)?.f_sub(&var.f_detach()?)?;
        let var = var.f_add(&below)?;
        let mut loss = input.f_sub(target)?.f_square()?.f_div(&var)?.f_add(&var.f_log()?)?.f_mul_scalar(0.5)?;
        if self.full {
            loss = loss.f_add_scalar(0.5 * (2.0 * PI).ln())?;
        }
        reduce(&loss, self.reduction)
    }
}

loss!(GaussianNllLoss, gaussian_nll_loss, "GaussianNLLLoss()", (input, target, var));
