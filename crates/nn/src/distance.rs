//! Distances of vectors: [`CosineSimilarity`] and [`PairwiseDistance`]; [`normalize`].

use fulgurite_torch::tch::{TchError, Tensor};

use crate::error::Result;
use crate::module::{Label, output, setters};

/// The cosine of the angle between vectors of two tensors: PyTorch's `nn.CosineSimilarity`.
///
/// ```
/// use fulgurite_nn as nn;
/// use fulgurite_torch::tch::Tensor;
///
/// let (x, y) = (Tensor::from_slice(&[1.0, 0.0]), Tensor::from_slice(&[1.0, 1.0]));
/// let cosine = nn::cosine_similarity().dim(0).forward(&x, &y);
/// assert!((cosine.double_value(&[]) - 0.5f64.sqrt()).abs() < 1e-9);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CosineSimilarity {
    dim: i64,
    eps: f64,
}

/// [`CosineSimilarity`] along dimension 1.
pub fn cosine_similarity() -> CosineSimilarity {
    CosineSimilarity { dim: 1, eps: 1e-8 }
}

impl CosineSimilarity {
    setters! {
        /// The dimension of the vectors; the default is 1.
        dim: i64;
        /// The smallest norm that is divided by; the default is 1e-8.
        eps: f64;
    }

    fn compute(&self, x1: &Tensor, x2: &Tensor) -> Result<Tensor, TchError> {
        Tensor::f_cosine_similarity(x1, x2, self.dim, self.eps)
    }

    fn label() -> Label {
        Label::unnamed("CosineSimilarity()")
    }
}

/// The distance between the vectors of two tensors `[…, features]`: PyTorch's `nn.PairwiseDistance`.
#[derive(Debug, Clone, Copy)]
pub struct PairwiseDistance {
    p: f64,
    eps: f64,
    keepdim: bool,
}

/// The Euclidean [`PairwiseDistance`].
pub fn pairwise_distance() -> PairwiseDistance {
    PairwiseDistance { p: 2.0, eps: 1e-6, keepdim: false }
}

impl PairwiseDistance {
    setters! {
        /// The norm of the difference; the default is 2.
        p: f64;
        /// What is added to differences; the default is 1e-6.
        eps: f64;
        /// Whether the dimension of features stays, with the size 1; the default is `false`.
        keepdim: bool;
    }

    fn compute(&self, x1: &Tensor, x2: &Tensor) -> Result<Tensor, TchError> {
        Tensor::f_pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)
    }

    fn label() -> Label {
        Label::unnamed("PairwiseDistance()")
    }
}

macro_rules! distances {
    ($($distance:ident),+) => { $(
        impl $distance {
            /// Computes it for each pair of vectors.
            ///
            /// # Panics
            ///
            /// Panics if the sizes do not fit, as operations of `tch` do; the trainer makes an error of it.
            pub fn forward(&self, x1: &Tensor, x2: &Tensor) -> Tensor {
                output(self.try_forward(x1, x2))
            }

            /// [`forward`](Self::forward), whose errors are returned.
            ///
            /// # Errors
            ///
            /// Fails if the sizes do not fit.
            pub fn try_forward(&self, x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
                Self::label().forward("distance", self.compute(x1, x2))
            }
        }

        impl std::fmt::Display for $distance {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&Self::label(), f)
            }
        }
    )+ };
}

distances!(CosineSimilarity, PairwiseDistance);

/// Divides the vectors along dimension `dim` by their p-norms: PyTorch's `F.normalize`, whose defaults are `p` 2 and `dim` 1.
/// Norms below 10⁻¹² count as that.
///
/// ```
/// use fulgurite_nn as nn;
/// use fulgurite_torch::tch::Tensor;
///
/// let rows = Tensor::from_slice2(&[[3.0, 4.0], [0.0, 0.0]]);
/// assert_eq!(nn::normalize(&rows, 2.0, 1), Tensor::from_slice2(&[[0.6, 0.8], [0.0, 0.0]]));
/// ```
///
/// # Panics
///
/// Panics if there is no such dimension, or the values are no floating-point numbers.
pub fn normalize(input: &Tensor, p: f64, dim: i64) -> Tensor {
    let normalized = || input.f_divide(&input.f_norm_scalaropt_dim(p, [dim].as_slice(), true)?.f_clamp_min(1e-12)?);
    output(Label::unnamed("normalize").forward("normalize", normalized()))
}
