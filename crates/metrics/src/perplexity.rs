//! Perplexity of a language model.

use fulgurite_torch::tch::{Kind, Tensor};

use crate::state::accumulator;
use crate::{Definition, Field, Handle, MetricError, Reduction, Supervised};

/// The perplexity of a language model: `exp` of the mean cross-entropy per token.
///
/// `preds` are logits of shape `(batch, sequence, vocabulary)`, `target` are tokens of shape `(batch, sequence)`.
///
/// ```
/// use fulgurite_metrics::Perplexity;
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let perplexity = Perplexity::new().ignore_index(-100);
/// let (logits, tokens) = (Tensor::zeros([2, 3, 7], (Kind::Float, Device::Cpu)), Tensor::from_slice2(&[[0, 1, 2], [3, 4, -100]]));
/// perplexity.update(&logits, &tokens)?;
/// assert!((perplexity.compute()?.double_value(&[]) - 7.0).abs() < 1e-5);
/// # Ok::<(), fulgurite_metrics::MetricError>(())
/// ```
///
/// It is computed from log-probabilities, so where torchmetrics' probability of a token underflows and its value is
/// infinite, this one is not.
pub type Perplexity = Handle<LogLikelihood>;

/// The [`Definition`] of [`Perplexity`].
#[derive(Debug, Clone, Default)]
pub struct LogLikelihood {
    ignore_index: Option<i64>,
}

impl Perplexity {
    /// The perplexity over all tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens with this value are ignored.
    pub fn ignore_index(self, index: i64) -> Self {
        self.set(|metric| metric.ignore_index = Some(index))
    }
}

impl Supervised for LogLikelihood {}

impl Definition for LogLikelihood {
    type Input<'a> = (&'a Tensor, &'a Tensor);

    fn name(&self) -> &'static str {
        "Perplexity"
    }

    fn fields(&self) -> &'static [Field] {
        const { &[Field::new("total_log_probs", Reduction::Sum), Field::new("count", Reduction::Sum)] }
    }

    fn batch(&self, (preds, target): (&Tensor, &Tensor)) -> Result<Vec<Tensor>, MetricError> {
        let size = preds.size();
        if size.len() != 3 || target.size() != size[..2] {
            let expected = "(batch, sequence, vocabulary) and (batch, sequence)";
            return Err(MetricError::shape("Perplexity", preds, target, expected));
        }
        MetricError::require_float("Perplexity", "preds", preds)?;
        MetricError::require_labels("Perplexity", "target", target)?;
        let target = target.f_to_kind(Kind::Int64)?;
        let counted = match self.ignore_index {
            Some(index) => target.f_ne(index)?,
            None => target.f_ones_like()?.f_to_kind(Kind::Bool)?,
        };
        let token = target.f_masked_fill(&counted.f_logical_not()?, 0)?.f_unsqueeze(-1)?;
        let log_probs = preds.f_log_softmax(-1, Kind::Float)?.f_gather(-1, &token, false)?.f_squeeze_dim(-1)?;
        let total = log_probs.f_masked_fill(&counted.f_logical_not()?, 0.0)?.f_sum(accumulator(preds.device()))?;
        Ok(vec![total.f_neg()?, counted.f_sum(Kind::Int64)?])
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        Ok(state[0].f_div(&state[1])?.f_exp()?.f_to_kind(Kind::Float)?)
    }

    fn initial(&self) -> Result<Option<Vec<Tensor>>, MetricError> {
        Ok(Some(vec![Tensor::from(0.0), Tensor::from(0i64)]))
    }
}
