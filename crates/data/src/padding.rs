//! [`PadSequences`]: sequences of different lengths in one batch.

use fulgurite_torch::tch::{Device, Kind, Tensor};

use crate::{Batch, BoxError, Collate, Stack};

/// Pads sequences to the longest of a batch: a collate function for variable-length text, audio and series.
///
/// An item is a tensor `[L, ...]`, whose `L` may differ, or a pair of one and anything that
/// [`DefaultCollate`](crate::DefaultCollate) stacks, such as a label. The batch is a [`Padded`], or a pair with one. Follows
/// `torch.nn.utils.rnn.pad_sequence`, with the batch first by default.
///
/// ```
/// use fulgurite_data::torch::tch::Tensor;
/// use fulgurite_data::{DataLoader, Dataset, InMemory, Loader, PadSequences};
///
/// let texts = InMemory::new([vec![5i64, 6, 7], vec![8]]).map(|tokens, _| (Tensor::from_slice(&tokens), tokens.len() > 1));
/// let loader = DataLoader::new(texts).batch_size(2).collate(PadSequences::new().padding_value(-1.0));
/// let (text, labels) = loader.iter(0, 0)?.next().unwrap()?;
/// assert_eq!(text.values, Tensor::from_slice(&[5i64, 6, 7, 8, -1, -1]).view([2, 3]));
/// assert_eq!(text.lengths, Tensor::from_slice(&[3i64, 1]));
/// assert_eq!(text.attention_mask, Tensor::from_slice(&[true, true, true, true, false, false]).view([2, 3]));
/// assert_eq!(labels, Tensor::from_slice(&[true, false]));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
///
/// Items with several sequences, such as a text and its translation, are padded one by one in a closure:
///
/// ```
/// use fulgurite_data::torch::tch::Tensor;
/// use fulgurite_data::{BoxError, PadSequences, Padded};
///
/// let collate = |items: Vec<(Tensor, Tensor)>| -> Result<(Padded, Padded), BoxError> {
///     let (source, target): (Vec<Tensor>, Vec<Tensor>) = items.into_iter().unzip();
///     let padding = PadSequences::new();
///     Ok((padding.pad(&source)?, padding.pad(&target)?))
/// };
/// # let of = |tokens: &[i64]| Tensor::from_slice(tokens);
/// # assert_eq!(collate(vec![(of(&[1]), of(&[2, 3])), (of(&[4, 5]), of(&[6]))]).unwrap().1.values.size(), [2, 2]);
/// ```
#[derive(Debug, Clone)]
pub struct PadSequences {
    padding_value: f64,
    batch_first: bool,
    left: bool,
    multiple_of: usize,
    max_length: Option<usize>,
    allow_empty: bool,
}

impl Default for PadSequences {
    fn default() -> Self {
        PadSequences {
            padding_value: 0.0,
            batch_first: true,
            left: false,
            multiple_of: 1,
            max_length: None,
            allow_empty: false,
        }
    }
}

impl PadSequences {
    /// Pads with zeros at the end, the batch first.
    pub fn new() -> PadSequences {
        PadSequences::default()
    }

    /// The value of the padding, such as the tokenizer's padding token. Default 0.
    pub fn padding_value(mut self, padding_value: f64) -> Self {
        self.padding_value = padding_value;
        self
    }

    /// Whether values are `[N, L, ...]` and not `[L, N, ...]`. Default `true`.
    pub fn batch_first(mut self, batch_first: bool) -> Self {
        self.batch_first = batch_first;
        self
    }

    /// Pads before the sequences (`padding_side="left"`), as decoders that generate text need it.
    pub fn pad_left(mut self) -> Self {
        self.left = true;
        self
    }

    /// Pads to a length that is a multiple of this, such as 8 for tensor cores. Default 1; 0 is an error.
    pub fn pad_to_multiple_of(mut self, multiple_of: usize) -> Self {
        self.multiple_of = multiple_of;
        self
    }

    /// Cuts off what is beyond this length. Default: nothing.
    pub fn max_length(mut self, max_length: usize) -> Self {
        self.max_length = Some(max_length);
        self
    }

    /// Pads sequences of length 0 like others. By default one is an error: attention over padding alone is NaN, and packed
    /// sequences cannot have length 0.
    pub fn allow_empty(mut self) -> Self {
        self.allow_empty = true;
        self
    }

    /// Pads `sequences`, tensors `[L, ...]` of one kind that differ in `L` alone.
    ///
    /// # Errors
    ///
    /// Fails if there are none, if one has length 0, or if other dimensions or kinds differ. The message names the sequence.
    pub fn pad(&self, sequences: &[Tensor]) -> Result<Padded, BoxError> {
        let lengths = self.check(sequences)?;
        let cut = |(sequence, &length): (&Tensor, &i64)| sequence.f_narrow(0, 0, length);
        let cut: Vec<Tensor> = sequences.iter().zip(&lengths).map(cut).collect::<Result<_, _>>()?;
        let side = if self.left { "left" } else { "right" };
        let mut values = Tensor::f_pad_sequence(&cut, true, self.padding_value, side)?;
        let longest = values.size()[1];
        let multiple = i64::try_from(self.multiple_of)?;
        let missing = (longest + multiple - 1) / multiple * multiple - longest;
        if missing > 0 {
            // Pairs of (before, after), from the last dimension to that of the length.
            let mut pads = vec![0; 2 * (values.dim() - 1)];
            let at = pads.len() - if self.left { 2 } else { 1 };
            pads[at] = missing;
            values = values.f_pad(&pads[..], "constant", self.padding_value)?;
        }
        let attention_mask = self.mask(&lengths, longest + missing)?;
        if !self.batch_first {
            values = values.f_transpose(0, 1)?.f_contiguous()?;
        }
        Ok(Padded { values, lengths: Tensor::f_from_slice(&lengths)?, attention_mask })
    }

    /// The lengths of the sequences in the batch, if they can be one.
    fn check(&self, sequences: &[Tensor]) -> Result<Vec<i64>, BoxError> {
        let first = sequences.first().ok_or("no sequences to pad; a batch has at least one")?;
        if self.multiple_of == 0 {
            return Err("pad_to_multiple_of is 0; it is at least 1".into());
        }
        if self.max_length == Some(0) {
            return Err("max_length is 0; it is at least 1".into());
        }
        let (shape, kind) = (first.size(), first.kind());
        let mut lengths = Vec::with_capacity(sequences.len());
        for (at, sequence) in sequences.iter().enumerate() {
            let (size, number) = (sequence.size(), at + 1);
            let Some((&length, rest)) = size.split_first() else {
                return Err(
                    format!("sequence {number} of the batch is a scalar; a sequence is a tensor [L, ...]").into()
                );
            };
            if rest != &shape[1..] || sequence.kind() != kind {
                return Err(format!(
                    "sequences of a batch may differ in their first dimension alone, but the first is {shape:?} of {kind:?} \
                     and number {number} is {size:?} of {:?}",
                    sequence.kind()
                )
                .into());
            }
            if length == 0 && !self.allow_empty {
                return Err(format!(
                    "sequence {number} of the batch has length 0; leave it out of the dataset, or pad it with \
                     `allow_empty()`"
                )
                .into());
            }
            let most = self.max_length.map_or(i64::MAX, |most| i64::try_from(most).unwrap_or(i64::MAX));
            lengths.push(length.min(most));
        }
        Ok(lengths)
    }

    /// `[N, L]`, true where a sequence is.
    fn mask(&self, lengths: &[i64], longest: i64) -> Result<Tensor, BoxError> {
        let places = Tensor::f_arange(longest, (Kind::Int64, Device::Cpu))?;
        let lengths = Tensor::f_from_slice(lengths)?.f_unsqueeze(1)?;
        Ok(if self.left {
            places.f_ge_tensor(&(lengths.f_neg()?.f_add_scalar(longest)?))?
        } else {
            places.f_lt_tensor(&lengths)?
        })
    }
}

impl Collate<Tensor> for PadSequences {
    type Batch = Padded;

    fn collate(&self, items: Vec<Tensor>) -> Result<Padded, BoxError> {
        self.pad(&items)
    }
}

impl<T: Stack> Collate<(Tensor, T)> for PadSequences {
    type Batch = (Padded, T::Batch);

    fn collate(&self, items: Vec<(Tensor, T)>) -> Result<Self::Batch, BoxError> {
        let (sequences, others): (Vec<Tensor>, Vec<T>) = items.into_iter().unzip();
        Ok((self.pad(&sequences)?, T::stack(others)?))
    }
}

/// A batch of padded sequences; see [`PadSequences`].
#[derive(Debug)]
pub struct Padded {
    /// The sequences, `[N, L, ...]`, or `[L, N, ...]` without `batch_first`.
    pub values: Tensor,
    /// The length of each without padding, `i64` `[N]`.
    pub lengths: Tensor,
    /// `bool` `[N, L]`, true at what is not padding: the attention mask of a Hugging Face tokenizer. PyTorch's
    /// `key_padding_mask` is the opposite: `attention_mask.logical_not()`.
    pub attention_mask: Tensor,
}

impl Batch for Padded {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Padded {
        Padded { values: f(&self.values), lengths: f(&self.lengths), attention_mask: f(&self.attention_mask) }
    }

    /// The number of sequences, with or without `batch_first`.
    fn size(&self) -> Option<i64> {
        Batch::size(&self.lengths)
    }
}
