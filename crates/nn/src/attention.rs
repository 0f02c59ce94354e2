//! [`MultiheadAttention`].

use std::fmt;

use fulgurite_torch::tch::{Kind, TchError, Tensor};
use fulgurite_torch::{Mode, Path};

use crate::error::Result;
use crate::init;
use crate::linear::{Linear, linear};
use crate::module::{Build, Label, debug, output, setters, tree};
use crate::parameter::parameter;

/// Attention of several heads (Vaswani et al. 2017), over `scaled_dot_product_attention`: PyTorch's `nn.MultiheadAttention`.
///
/// ```
/// use fulgurite_nn::{self as nn, AttentionMask, Build};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let attention = nn::multihead_attention(64, 4).batch_first(true).at(vars.root() / "self_attn")?;
/// let x = Tensor::randn([2, 10, 64], (Kind::Float, Device::Cpu));
/// assert_eq!(attention.forward(&x, &x, &x, AttentionMask::causal()).size(), [2, 10, 64]);
/// # Ok::<(), nn::NnError>(())
/// ```
pub struct MultiheadAttention {
    /// The projections of query, key and value, below each other.
    projections: Projections,
    in_proj_bias: Option<Tensor>,
    bias_kv: Option<[Tensor; 2]>,
    /// The projection of the output.
    pub out_proj: Linear,
    options: MultiheadAttentionOptions,
    mode: Mode,
    label: Label,
}

#[derive(Debug)]
enum Projections {
    /// `in_proj_weight`, `[3 · embed_dim, embed_dim]`.
    Packed(Tensor),
    /// `q_proj_weight`, `k_proj_weight`, `v_proj_weight`.
    Apart([Tensor; 3]),
}

/// The options of a [`MultiheadAttention`] layer.
#[derive(Debug, Clone, Copy)]
pub struct MultiheadAttentionOptions {
    embed_dim: i64,
    num_heads: i64,
    dropout: f64,
    bias: bool,
    add_bias_kv: bool,
    add_zero_attn: bool,
    kdim: Option<i64>,
    vdim: Option<i64>,
    batch_first: bool,
}

/// A [`MultiheadAttention`] layer.
pub fn multihead_attention(embed_dim: i64, num_heads: i64) -> MultiheadAttentionOptions {
    MultiheadAttentionOptions {
        embed_dim,
        num_heads,
        dropout: 0.0,
        bias: true,
        add_bias_kv: false,
        add_zero_attn: false,
        kdim: None,
        vdim: None,
        batch_first: false,
    }
}

impl MultiheadAttentionOptions {
    setters! {
        /// The probability of dropout of attention weights in training; the default is 0.
        dropout: f64;
        /// Whether projections have a bias; the default is `true`.
        bias: bool;
        /// Whether a learned key and value are added to all sequences; the default is `false`.
        add_bias_kv: bool;
        /// Whether a key and value of 0 are added to all sequences; the default is `false`.
        add_zero_attn: bool;
        /// The features of keys; by default `embed_dim`.
        kdim: Option<i64>;
        /// The features of values; by default `embed_dim`.
        vdim: Option<i64>;
        /// Whether inputs are `[batch, time, features]` and not `[time, batch, features]`; the default is `false`, as in
        /// PyTorch.
        batch_first: bool;
    }

    fn check(&self, label: &Label) -> Result<()> {
        let MultiheadAttentionOptions { embed_dim, num_heads, kdim, vdim, dropout, .. } = *self;
        label.check_positive(&[
            ("embed_dim", embed_dim),
            ("num_heads", num_heads),
            ("kdim", kdim.unwrap_or(embed_dim)),
            ("vdim", vdim.unwrap_or(embed_dim)),
        ])?;
        if embed_dim % num_heads != 0 {
            let message = format!("embed_dim ({embed_dim}) must be divisible by num_heads ({num_heads})");
            return Err(label.options(message));
        }
        if !(0.0..=1.0).contains(&dropout) {
            return Err(label.options(format!("the probability of dropout is {dropout}; it must be from 0 to 1")));
        }
        Ok(())
    }
}

impl Build for MultiheadAttentionOptions {
    type Layer = MultiheadAttention;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<MultiheadAttention> {
        let path = path.into();
        let MultiheadAttentionOptions { embed_dim, num_heads, bias, add_bias_kv, kdim, vdim, .. } = *self;
        let label = Label::new(&path, format!("MultiheadAttention(embed_dim={embed_dim}, num_heads={num_heads})"));
        self.check(&label)?;
        let (kdim, vdim) = (kdim.unwrap_or(embed_dim), vdim.unwrap_or(embed_dim));
        let projections = match kdim == embed_dim && vdim == embed_dim {
            true => Projections::Packed(parameter(&path, "in_proj_weight", &[3 * embed_dim, embed_dim])?),
            false => Projections::Apart([
                parameter(&path, "q_proj_weight", &[embed_dim, embed_dim])?,
                parameter(&path, "k_proj_weight", &[embed_dim, kdim])?,
                parameter(&path, "v_proj_weight", &[embed_dim, vdim])?,
            ]),
        };
        // Those of biases are 0, as they are created.
        let in_proj_bias = bias.then(|| parameter(&path, "in_proj_bias", &[3 * embed_dim])).transpose()?;
        let bias_kv = match add_bias_kv {
            true => {
                let size = [1, 1, embed_dim];
                Some([parameter(&path, "bias_k", &size)?, parameter(&path, "bias_v", &size)?])
            }
            false => None,
        };
        let out_proj = linear(embed_dim, embed_dim).bias(bias).at(&path / "out_proj")?;
        projections.weights().iter().try_for_each(|weight| init::xavier_uniform_(weight, 1.0))?;
        out_proj.bias.as_ref().map_or(Ok(()), init::zeros_)?;
        bias_kv.iter().flatten().try_for_each(|bias| init::xavier_normal_(bias, 1.0))?;
        Ok(MultiheadAttention {
            projections,
            in_proj_bias,
            bias_kv,
            out_proj,
            options: *self,
            mode: path.mode(),
            label,
        })
    }
}

impl Projections {
    fn weights(&self) -> &[Tensor] {
        match self {
            Projections::Packed(weight) => std::slice::from_ref(weight),
            Projections::Apart(weights) => weights,
        }
    }
}

/// Which keys a query attends to.
///
/// Masks are boolean, where `true` excludes, or numbers that are added to the scores, as in PyTorch.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionMask<'a> {
    attn_mask: Option<&'a Tensor>,
    key_padding_mask: Option<&'a Tensor>,
    is_causal: bool,
}

impl<'a> AttentionMask<'a> {
    /// All keys.
    pub fn none() -> Self {
        AttentionMask::default()
    }

    /// The keys up to the query's own place.
    pub fn causal() -> Self {
        AttentionMask { is_causal: true, ..AttentionMask::default() }
    }

    /// Excludes keys for each query: `[queries, keys]`, or `[batch · heads, queries, keys]`.
    #[must_use]
    pub fn attn_mask(self, mask: impl Into<Option<&'a Tensor>>) -> Self {
        AttentionMask { attn_mask: mask.into(), ..self }
    }

    /// Excludes keys of each sequence, such as padding: `[batch, keys]`.
    #[must_use]
    pub fn key_padding_mask(self, mask: impl Into<Option<&'a Tensor>>) -> Self {
        AttentionMask { key_padding_mask: mask.into(), ..self }
    }
}

/// Inputs of three dimensions, as the layer's options order them.
struct Inputs {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    /// Query, key and value are one tensor.
    is_self: bool,
    is_sample: bool,
}

impl MultiheadAttention {
    /// What queries `[time, batch, embed_dim]` get of the values: a tensor of their size. Inputs may lack the batch.
    ///
    /// # Panics
    ///
    /// Panics if the inputs do not fit.
    pub fn forward(&self, query: &Tensor, key: &Tensor, value: &Tensor, mask: AttentionMask<'_>) -> Tensor {
        output(self.try_forward(query, key, value, mask))
    }

    /// [`forward`](MultiheadAttention::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the inputs do not fit.
    pub fn try_forward(&self, query: &Tensor, key: &Tensor, value: &Tensor, mask: AttentionMask<'_>) -> Result<Tensor> {
        let inputs = self.inputs(query, key, value)?;
        let attended = self.label.forward("scaled_dot_product_attention", self.attend(&inputs, mask))?;
        self.project(&attended, &inputs)
    }

    /// [`forward`](MultiheadAttention::forward), and how much each query attends to each key: `[batch, queries, keys]`, the
    /// mean over heads. Slower than without.
    ///
    /// # Panics
    ///
    /// Panics if the inputs do not fit.
    pub fn forward_with_weights(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: AttentionMask<'_>,
    ) -> (Tensor, Tensor) {
        output(self.try_forward_with_weights(query, key, value, mask))
    }

    /// [`forward_with_weights`](MultiheadAttention::forward_with_weights), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the inputs do not fit.
    pub fn try_forward_with_weights(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: AttentionMask<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let (attended, weights) = self.try_forward_with_weights_of_heads(query, key, value, mask)?;
        let mean = self.label.forward("mean", weights.f_mean_dim(-3i64, false, weights.kind()))?;
        Ok((attended, mean))
    }

    /// [`forward`](MultiheadAttention::forward), and how much each query attends to each key in each head:
    /// `[batch, heads, queries, keys]`, PyTorch's `average_attn_weights=False`.
    ///
    /// # Errors
    ///
    /// Fails if the inputs do not fit.
    pub fn try_forward_with_weights_of_heads(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: AttentionMask<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let inputs = self.inputs(query, key, value)?;
        let (attended, weights) = self.label.forward("attention", self.attend_by_weights(&inputs, mask))?;
        let weights = if inputs.is_sample { weights.squeeze_dim(0) } else { weights };
        Ok((self.project(&attended, &inputs)?, weights))
    }

    /// Switches this layer to training, or to evaluation.
    pub fn train(&self, mode: bool) {
        self.mode.train(mode);
    }

    /// Its parameters in PyTorch's order.
    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        let own = self.projections.weights().iter().chain(&self.in_proj_bias).chain(self.bias_kv.iter().flatten());
        own.chain([&self.out_proj.weight]).chain(&self.out_proj.bias).collect()
    }

    fn inputs(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Inputs> {
        let is_self = std::ptr::eq(query, key) && std::ptr::eq(key, value);
        let is_sample = query.dim() == 2;
        let dims = if is_sample { 2 } else { 3 };
        if [query, key, value].iter().any(|input| input.dim() != dims) || !(2..=3).contains(&query.dim()) {
            let sizes = [query, key, value].map(Tensor::size);
            let message = format!("query, key and value must have 2 or 3 dimensions, all alike, not {sizes:?}");
            return Err(self.label.input(message));
        }
        let last = |input: &Tensor| input.size()[dims - 1];
        let MultiheadAttentionOptions { embed_dim, kdim, vdim, batch_first, .. } = self.options;
        for (name, input, features) in [
            ("query", query, embed_dim),
            ("key", key, kdim.unwrap_or(embed_dim)),
            ("value", value, vdim.unwrap_or(embed_dim)),
        ] {
            if last(input) != features {
                return Err(self.label.input(format!("the {name} has {} features, expected {features}", last(input))));
            }
        }
        let batched = |input: &Tensor| match is_sample {
            true => input.unsqueeze(i64::from(!batch_first)),
            false => input.shallow_clone(),
        };
        Ok(Inputs { query: batched(query), key: batched(key), value: batched(value), is_self, is_sample })
    }

    /// Queries, keys and values of each head, `[batch, heads, time, features]`.
    fn heads(&self, inputs: &Inputs) -> Result<[Tensor; 3], TchError> {
        let embed_dim = self.options.embed_dim;
        let [q, mut k, mut v] = match &self.projections {
            Projections::Packed(weight) if inputs.is_self => {
                let all = inputs.query.f_linear(weight, self.in_proj_bias.as_ref())?;
                let [q, k, v] = [0, 1, 2].map(|part| all.f_narrow(-1, part * embed_dim, embed_dim));
                [q?, k?, v?]
            }
            Projections::Packed(weight) => {
                let part = |part: i64| weight.f_narrow(0, part * embed_dim, embed_dim);
                self.project_apart(inputs, [&part(0)?, &part(1)?, &part(2)?])?
            }
            Projections::Apart([q, k, v]) => self.project_apart(inputs, [q, k, v])?,
        };
        // No layout is changed by copying: heads are views of what the projections give.
        let (heads, batch_first) = (self.options.num_heads, self.options.batch_first);
        let time = i64::from(batch_first);
        if let Some([bias_k, bias_v]) = &self.bias_kv {
            let batch = q.size()[usize::from(!batch_first)];
            let size = if batch_first { [batch, 1, embed_dim] } else { [1, batch, embed_dim] };
            k = Tensor::f_cat(&[k, bias_k.f_expand(size, false)?], time)?;
            v = Tensor::f_cat(&[v, bias_v.f_expand(size, false)?], time)?;
        }
        let order = if batch_first { [0, 2, 1, 3] } else { [1, 2, 0, 3] };
        let split = |x: &Tensor| {
            let size = x.size();
            x.f_reshape([size[0], size[1], heads, embed_dim / heads])?.f_permute(order)
        };
        let (q, mut k, mut v) = (split(&q)?, split(&k)?, split(&v)?);
        if self.options.add_zero_attn {
            let zeros = Tensor::f_zeros([q.size()[0], heads, 1, embed_dim / heads], (k.kind(), k.device()))?;
            k = Tensor::f_cat(&[&k, &zeros], 2)?;
            v = Tensor::f_cat(&[&v, &zeros], 2)?;
        }
        Ok([q, k, v])
    }

    fn project_apart(&self, inputs: &Inputs, weights: [&Tensor; 3]) -> Result<[Tensor; 3], TchError> {
        let embed_dim = self.options.embed_dim;
        let project = |input: &Tensor, part: usize| {
            let bias = self.in_proj_bias.as_ref().map(|bias| bias.f_narrow(0, part as i64 * embed_dim, embed_dim));
            input.f_linear(weights[part], bias.transpose()?.as_ref())
        };
        Ok([project(&inputs.query, 0)?, project(&inputs.key, 1)?, project(&inputs.value, 2)?])
    }

    fn attend(&self, inputs: &Inputs, mask: AttentionMask<'_>) -> Result<Tensor, TchError> {
        let [q, k, v] = self.heads(inputs)?;
        let is_causal =
            mask.is_causal && mask.key_padding_mask.is_none() && mask.attn_mask.is_none() && !self.adds_keys();
        let scores = if is_causal { None } else { self.scores(inputs, mask, &q, &k)? };
        Tensor::f_scaled_dot_product_attention(&q, &k, &v, scores.as_ref(), self.dropout(), is_causal, None, false)
    }

    fn attend_by_weights(&self, inputs: &Inputs, mask: AttentionMask<'_>) -> Result<(Tensor, Tensor), TchError> {
        let [q, k, v] = self.heads(inputs)?;
        let scale = (1.0 / q.size()[3] as f64).sqrt();
        let mut scores = q.f_mul_scalar(scale)?.f_matmul(&k.f_transpose(-2, -1)?)?;
        if let Some(mask) = self.scores(inputs, mask, &q, &k)? {
            scores = scores.f_add(&mask)?;
        }
        let weights = scores.f_softmax(-1, scores.kind())?;
        let weights = match self.dropout() {
            0.0 => weights,
            p => weights.f_dropout(p, true)?,
        };
        Ok((weights.f_matmul(&v)?, weights))
    }

    fn dropout(&self) -> f64 {
        if self.mode.is_training() { self.options.dropout } else { 0.0 }
    }

    fn adds_keys(&self) -> bool {
        self.bias_kv.is_some() || self.options.add_zero_attn
    }

    /// What masks add to the scores `[batch, heads, queries, keys]`.
    fn scores(
        &self,
        inputs: &Inputs,
        mask: AttentionMask<'_>,
        q: &Tensor,
        k: &Tensor,
    ) -> Result<Option<Tensor>, TchError> {
        let given = inputs.key.size()[usize::from(self.options.batch_first)];
        let (batch, queries, keys) = (q.size()[0], q.size()[2], k.size()[2]);
        // Keys that were added are never excluded.
        let widen = |mask: Tensor| mask.f_pad([0, keys - given], "constant", 0.0);
        let mut scores: Option<Tensor> = None;
        let mut add = |mask: Tensor| -> Result<(), TchError> {
            scores = Some(match scores.take() {
                None => mask,
                Some(others) => others.f_add(&mask)?,
            });
            Ok(())
        };
        if let Some(mask) = mask.attn_mask {
            let mask = widen(as_scores(mask, q.kind())?)?;
            let heads = if mask.dim() == 3 { [batch, self.options.num_heads] } else { [1, 1] };
            add(mask.f_reshape([heads[0], heads[1], queries, keys])?)?;
        }
        if let Some(mask) = mask.key_padding_mask {
            add(widen(as_scores(mask, q.kind())?)?.f_reshape([batch, 1, 1, keys])?)?;
        }
        if mask.is_causal && mask.attn_mask.is_none() {
            let later = Tensor::f_ones([queries, given], (Kind::Bool, q.device()))?.f_triu(1)?;
            add(widen(as_scores(&later, q.kind())?)?.f_reshape([1, 1, queries, keys])?)?;
        }
        Ok(scores)
    }

    /// Of `[batch, heads, queries, features]` the output, in the layout of the query.
    fn project(&self, attended: &Tensor, inputs: &Inputs) -> Result<Tensor> {
        let (size, embed_dim, batch_first) = (attended.size(), self.options.embed_dim, self.options.batch_first);
        let (order, joined_size) = match batch_first {
            true => ([0, 2, 1, 3], [size[0], size[2], embed_dim]),
            false => ([2, 0, 1, 3], [size[2], size[0], embed_dim]),
        };
        let joined = attended.permute(order).reshape(joined_size);
        let output = self.out_proj.try_forward(&joined)?;
        Ok(if inputs.is_sample { output.squeeze_dim(i64::from(!batch_first)) } else { output })
    }
}

impl fmt::Display for MultiheadAttention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The name that PyTorch has for the same layer here.
        f.write_str(&tree("MultiheadAttention", &[("out_proj", format!("NonDynamicallyQuantizable{}", self.out_proj))]))
    }
}

debug!(MultiheadAttention);

/// A mask as numbers that are added to scores: −∞ where a boolean one excludes.
fn as_scores(mask: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    match mask.kind() {
        Kind::Bool => {
            let zeros = Tensor::f_zeros(mask.size(), (kind, mask.device()))?;
            zeros.f_masked_fill(mask, f64::NEG_INFINITY)
        }
        _ => mask.f_to_kind(kind),
    }
}
