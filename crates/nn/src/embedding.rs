//! [`Embedding`] and [`EmbeddingBag`].

use fulgurite_torch::Path;
use fulgurite_torch::tch::{self, Kind, Tensor};

use crate::error::{NnError, Result};
use crate::init;
use crate::module::{Build, Label, display, module, output, python_float, setters};
use crate::parameter::parameter;

/// A vector for each index: PyTorch's `nn.Embedding`, for integer inputs of any shape `[…]` and outputs
/// `[…, embedding_dim]`.
pub struct Embedding {
    /// `[num_embeddings, embedding_dim]`.
    pub weight: Tensor,
    options: EmbeddingOptions,
    label: Label,
}

/// The options of an [`Embedding`] layer.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingOptions {
    num_embeddings: i64,
    embedding_dim: i64,
    padding_idx: Option<i64>,
    max_norm: Option<f64>,
    norm_type: f64,
    scale_grad_by_freq: bool,
    sparse: bool,
}

/// An [`Embedding`] layer.
pub fn embedding(num_embeddings: i64, embedding_dim: i64) -> EmbeddingOptions {
    EmbeddingOptions {
        num_embeddings,
        embedding_dim,
        padding_idx: None,
        max_norm: None,
        norm_type: 2.0,
        scale_grad_by_freq: false,
        sparse: false,
    }
}

impl EmbeddingOptions {
    setters! {
        /// An index whose vector is 0 and gets no gradient. Negative ones count from the end.
        padding_idx: Option<i64>;
        /// Vectors that are longer are shortened to this when they are looked up.
        max_norm: Option<f64>;
        /// Which norm `max_norm` means; the default is 2.
        norm_type: f64;
        /// Whether gradients are divided by how often an index occurs in the batch; the default is `false`.
        scale_grad_by_freq: bool;
        /// Whether the weight's gradient is sparse, for optimizers that take it; the default is `false`.
        sparse: bool;
    }

    /// As PyTorch prints an embedding: `last` is what comes after the options of looking up.
    fn repr(&self, name: &str, first: &str, last: &str) -> String {
        let mut repr = format!("{name}({}, {}{first}", self.num_embeddings, self.embedding_dim);
        if let Some(norm) = self.max_norm {
            repr += &format!(", max_norm={}", python_float(norm));
        }
        if self.norm_type != 2.0 {
            repr += &format!(", norm_type={}", python_float(self.norm_type));
        }
        if self.scale_grad_by_freq {
            repr += ", scale_grad_by_freq=True";
        }
        repr + last + ")"
    }

    /// `, padding_idx=…`, counted from the beginning where it is an index.
    fn padding(&self) -> String {
        let count = self.num_embeddings;
        let counted = |index: i64| if (-count..0).contains(&index) { index + count } else { index };
        self.padding_idx.map_or_else(String::new, |index| format!(", padding_idx={}", counted(index)))
    }

    /// The weight, and the options with the padding index counted from the beginning.
    fn build(mut self, path: &Path<'_>, repr: String) -> Result<(Tensor, EmbeddingOptions, Label)> {
        let label = Label::new(path, repr);
        let count = self.num_embeddings;
        label.check_positive(&[("num_embeddings", count), ("embedding_dim", self.embedding_dim)])?;
        if let Some(index) = self.padding_idx {
            if !(-count..count).contains(&index) {
                let message = format!("padding_idx is {index}; it must be within num_embeddings ({count})");
                return Err(label.options(message));
            }
            self.padding_idx = Some(index.rem_euclid(count));
        }
        let weight = parameter(path, "weight", &[count, self.embedding_dim])?;
        init::normal_(&weight, 0.0, 1.0)?;
        if let Some(index) = self.padding_idx {
            init::zeros_(&weight.f_detach()?.f_select(0, index)?)?;
        }
        Ok((weight, self, label))
    }

    /// Shortens the vectors that are about to be looked up.
    fn renorm(&self, weight: &Tensor, indices: &Tensor) -> Result<(), tch::TchError> {
        let Some(max_norm) = self.max_norm else { return Ok(()) };
        let indices = indices.f_contiguous()?;
        let renormed = tch::no_grad(|| weight.f_detach()?.f_embedding_renorm_(&indices, max_norm, self.norm_type));
        renormed.map(drop)
    }
}

impl Build for EmbeddingOptions {
    type Layer = Embedding;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Embedding> {
        let sparse = if self.sparse { ", sparse=True" } else { "" };
        let (weight, options, label) = self.build(&path.into(), self.repr("Embedding", &self.padding(), sparse))?;
        Ok(Embedding { weight, options, label })
    }
}

impl Embedding {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if an index is out of range, or the input has not integers.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        let EmbeddingOptions { padding_idx, scale_grad_by_freq, sparse, .. } = self.options;
        self.label.forward("embedding_renorm_", self.options.renorm(&self.weight, input))?;
        let looked_up = Tensor::f_embedding(&self.weight, input, padding_idx.unwrap_or(-1), scale_grad_by_freq, sparse);
        self.label.forward("embedding", looked_up)
    }
}

module!(Embedding);

/// How the vectors of a bag become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BagMode {
    /// Their sum.
    Sum,
    /// Their mean.
    #[default]
    Mean,
    /// The largest of each number.
    Max,
}

/// A vector for each bag of indices: PyTorch's `nn.EmbeddingBag`, which does not make the vectors of the single indices.
pub struct EmbeddingBag {
    /// `[num_embeddings, embedding_dim]`.
    pub weight: Tensor,
    options: EmbeddingBagOptions,
    label: Label,
}

/// The options of an [`EmbeddingBag`] layer.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingBagOptions {
    embedding: EmbeddingOptions,
    mode: BagMode,
    include_last_offset: bool,
}

/// An [`EmbeddingBag`] layer.
pub fn embedding_bag(num_embeddings: i64, embedding_dim: i64) -> EmbeddingBagOptions {
    let embedding = embedding(num_embeddings, embedding_dim);
    EmbeddingBagOptions { embedding, mode: BagMode::Mean, include_last_offset: false }
}

impl EmbeddingBagOptions {
    setters! {
        /// How vectors become one; the default is their mean.
        mode: BagMode;
        /// Whether the offsets have one more entry, the number of all indices; the default is `false`.
        include_last_offset: bool;
    }

    setters! {
        in embedding;
        /// An index that is not counted. Negative ones count from the end.
        padding_idx: Option<i64>;
        /// Vectors that are longer are shortened to this when they are looked up.
        max_norm: Option<f64>;
        /// Which norm `max_norm` means; the default is 2.
        norm_type: f64;
        /// Whether gradients are divided by how often an index occurs in the batch; the default is `false`.
        scale_grad_by_freq: bool;
        /// Whether the weight's gradient is sparse; the default is `false`.
        sparse: bool;
    }
}

impl Build for EmbeddingBagOptions {
    type Layer = EmbeddingBag;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<EmbeddingBag> {
        let mode = format!(", mode='{}'{}", format!("{:?}", self.mode).to_lowercase(), self.embedding.padding());
        let repr = self.embedding.repr("EmbeddingBag", "", &mode);
        let (weight, embedding, label) = self.embedding.build(&path.into(), repr)?;
        if self.mode == BagMode::Max && embedding.sparse {
            return Err(label.options("the gradient of mode Max is not sparse"));
        }
        Ok(EmbeddingBag { weight, options: EmbeddingBagOptions { embedding, ..*self }, label })
    }
}

impl EmbeddingBag {
    /// The vectors of bags: `input` is `[bags, indices]`, or `[indices]` with the first index of each bag in `offsets`.
    /// `per_sample_weights` has the factor of each index, in mode `Sum`.
    ///
    /// # Panics
    ///
    /// Panics if the input does not fit.
    pub fn forward(&self, input: &Tensor, offsets: Option<&Tensor>, per_sample_weights: Option<&Tensor>) -> Tensor {
        output(self.try_forward(input, offsets, per_sample_weights))
    }

    /// [`forward`](EmbeddingBag::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(
        &self,
        input: &Tensor,
        offsets: Option<&Tensor>,
        per_sample_weights: Option<&Tensor>,
    ) -> Result<Tensor> {
        let offsets = self.offsets(input, offsets)?;
        let (input, weights) = (input.flatten(0, -1), per_sample_weights.map(|weights| weights.flatten(0, -1)));
        self.label.forward("embedding_renorm_", self.options.embedding.renorm(&self.weight, &input))?;
        let EmbeddingBagOptions { embedding, mode, include_last_offset } = self.options;
        let bags = Tensor::f_embedding_bag_padding_idx(
            &self.weight,
            &input,
            &offsets,
            embedding.scale_grad_by_freq,
            mode as i64,
            embedding.sparse,
            weights.as_ref(),
            include_last_offset,
            embedding.padding_idx,
        );
        self.label.forward("embedding_bag", bags).map(|(bags, ..)| bags)
    }

    fn offsets(&self, input: &Tensor, offsets: Option<&Tensor>) -> Result<Tensor, NnError> {
        match (input.size().as_slice(), offsets) {
            ([_], Some(offsets)) => Ok(offsets.shallow_clone()),
            ([bags, indices], None) => {
                let kind = (Kind::Int64, input.device());
                // With one more entry when the layer is to have it.
                let bags = if self.options.include_last_offset { bags + 1 } else { *bags };
                Ok(Tensor::f_arange(bags, kind)?.f_mul_scalar(*indices)?)
            }
            ([_], None) => Err(self.label.input("an input of one dimension needs offsets")),
            ([_, _], Some(_)) => Err(self.label.input("an input of two dimensions has no offsets")),
            (size, _) => Err(self.label.input(format!("an input of one or two dimensions is needed, not {size:?}"))),
        }
    }
}

display!(EmbeddingBag);
