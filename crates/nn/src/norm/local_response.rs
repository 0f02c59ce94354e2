//! [`LocalResponseNorm`].

use std::fmt;

use fulgurite_torch::tch::{self, TchError, Tensor};
use fulgurite_torch::{Path, TorchError};

use crate::error::Result;
use crate::module::{Build, Label, debug, output, python_float, setters};

/// Local response normalization over neighbouring channels (Krizhevsky et al. 2012), of inputs `[batch, channels, …]`:
/// PyTorch's `nn.LocalResponseNorm`.
#[derive(Clone, Copy)]
pub struct LocalResponseNorm {
    size: i64,
    alpha: f64,
    beta: f64,
    k: f64,
}

/// A [`LocalResponseNorm`] over `size` channels.
pub fn local_response_norm(size: i64) -> LocalResponseNorm {
    LocalResponseNorm { size, alpha: 1e-4, beta: 0.75, k: 1.0 }
}

impl fmt::Display for LocalResponseNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [alpha, beta, k] = [self.alpha, self.beta, self.k].map(python_float);
        write!(f, "LocalResponseNorm({}, alpha={alpha}, beta={beta}, k={k})", self.size)
    }
}

debug!(LocalResponseNorm);

impl Build for LocalResponseNorm {
    type Layer = LocalResponseNorm;

    fn at<'a>(&self, _: impl Into<Path<'a>>) -> Result<LocalResponseNorm> {
        Ok(*self)
    }
}

impl tch::nn::Module for LocalResponseNorm {
    fn forward(&self, input: &Tensor) -> Tensor {
        output(self.try_forward(input))
    }
}

impl LocalResponseNorm {
    setters! {
        /// The factor of the mean square; the default is 1e-4.
        alpha: f64;
        /// The exponent; the default is 0.75.
        beta: f64;
        /// What is added; the default is 1.
        k: f64;
    }

    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input has less than three dimensions, or the size is not positive.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        if self.size < 1 {
            return Err(self.label().options(format!("size is {}; it must be at least 1", self.size)));
        }
        if input.dim() < 3 {
            let message = format!("expected an input of 3 or more dimensions, not {:?}", input.size());
            return Err(self.label().input(message));
        }
        self.normalize(input).map_err(|error| self.label().input(TorchError::from(error).to_string()))
    }

    /// For messages alone, as its options can be changed until it is used.
    fn label(&self) -> Label {
        Label::unnamed(self.to_string())
    }

    fn normalize(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let size = input.size();
        let (before, after) = (self.size / 2, (self.size - 1) / 2);
        // Channels are pooled over as a dimension of space.
        let squares = input.f_square()?.f_unsqueeze(1)?.f_flatten(3, -1)?;
        let mean = squares.f_pad([0, 0, before, after], "constant", 0.0)?.f_avg_pool2d(
            [self.size, 1],
            [1, 1],
            [0, 0],
            false,
            true,
            None,
        )?;
        let scale = mean.f_squeeze_dim(1)?.f_reshape(&size)?.f_mul_scalar(self.alpha)?.f_add_scalar(self.k)?;
        input.f_div(&scale.f_pow_tensor_scalar(self.beta)?)
    }
}
