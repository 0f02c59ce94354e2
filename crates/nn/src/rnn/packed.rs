//! Sequences of several lengths in one tensor: PyTorch's `nn.utils.rnn`.

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use crate::error::{NnError, Result};

/// Sequences of several lengths, without padding: PyTorch's `PackedSequence`. Recurrent layers take it by `forward_packed`.
#[derive(Debug)]
pub struct PackedSequence {
    /// `[sum of lengths, …]`: the first steps of all sequences, then the second ones, and so on.
    pub data: Tensor,
    /// How many sequences have each step, on the CPU.
    pub batch_sizes: Tensor,
    /// The order of the sequences, the longest first; `None` if that is their own.
    pub sorted_indices: Option<Tensor>,
    /// Where each sequence is in that order.
    pub unsorted_indices: Option<Tensor>,
}

fn unfit(message: String) -> NnError {
    NnError::Options { layer: "a packed sequence".into(), message }
}

/// Packs padded sequences `[time, batch, …]`, or `[batch, time, …]` with `batch_first`, of the given lengths, in any order:
/// PyTorch's `pack_padded_sequence` with `enforce_sorted=False`.
///
/// # Errors
///
/// Fails if there is not one length for each sequence, or if one is not from 1 to the number of steps.
pub fn pack_padded_sequence(input: &Tensor, lengths: &[i64], batch_first: bool) -> Result<PackedSequence> {
    let size = input.size();
    let [first, second, ..] = size[..] else {
        return Err(unfit(format!("an input of 2 or more dimensions is needed, not {size:?}")));
    };
    let (steps, batch) = if batch_first { (second, first) } else { (first, second) };
    if lengths.len() as i64 != batch {
        return Err(unfit(format!("there are {} lengths for {batch} sequences", lengths.len())));
    }
    if let Some((at, length)) = lengths.iter().enumerate().find(|(_, length)| !(1..=steps).contains(*length)) {
        return Err(unfit(format!(
            "sequence {at} has the length {length}; it must be from 1 to {steps}, so leave empty sequences out"
        )));
    }
    let mut order: Vec<i64> = (0..batch).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(lengths[at as usize]));
    let sorted: Vec<i64> = order.iter().map(|&at| lengths[at as usize]).collect();
    let (input, indices) = if order.is_sorted() {
        (input.shallow_clone(), None)
    } else {
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &at)| places[at as usize] = place as i64);
        let [order, places] = [order, places].map(|indices| Tensor::from_slice(&indices).to_device(input.device()));
        (input.f_index_select(i64::from(!batch_first), &order)?, Some((order, places)))
    };
    let (data, batch_sizes) = input.f_internal_pack_padded_sequence(&Tensor::from_slice(&sorted), batch_first)?;
    let (sorted_indices, unsorted_indices) = indices.unzip();
    Ok(PackedSequence { data, batch_sizes, sorted_indices, unsorted_indices })
}

/// Packs sequences `[time, …]` of several lengths, in any order.
///
/// # Errors
///
/// Fails if one is empty, or if they differ in another dimension than the first.
pub fn pack_sequence(sequences: &[Tensor]) -> Result<PackedSequence> {
    let lengths: Vec<i64> = sequences.iter().map(|sequence| sequence.size().first().copied().unwrap_or(0)).collect();
    pack_padded_sequence(&Tensor::f_pad_sequence(sequences, true, 0.0, "right")?, &lengths, true)
}

/// Sequences `[time, batch, …]`, or `[batch, time, …]` with `batch_first`, padded by a value, in the order in which they were
/// packed, and their lengths: PyTorch's `pad_packed_sequence`. There are as many steps as the longest has, or `total_length`.
///
/// # Errors
///
/// Fails if `total_length` is below the longest.
pub fn pad_packed_sequence(
    sequence: &PackedSequence,
    batch_first: bool,
    padding_value: f64,
    total_length: Option<i64>,
) -> Result<(Tensor, Vec<i64>)> {
    let longest = sequence.batch_sizes.numel() as i64;
    let total = total_length.unwrap_or(longest);
    if total < longest {
        return Err(unfit(format!("total_length is {total}, but a sequence has {longest} steps")));
    }
    let (data, sizes) = (&sequence.data, &sequence.batch_sizes);
    let (mut padded, mut lengths) =
        Tensor::f_internal_pad_packed_sequence(data, sizes, batch_first, padding_value, total)?;
    if let Some(places) = &sequence.unsorted_indices {
        padded = padded.f_index_select(i64::from(!batch_first), places)?;
        lengths = lengths.f_index_select(0, &places.to_device(Device::Cpu))?;
    }
    let lengths = lengths.to_kind(Kind::Int64);
    Ok((padded, (0..lengths.size()[0]).map(|at| lengths.int64_value(&[at])).collect()))
}

impl PackedSequence {
    /// How many sequences there are.
    pub(crate) fn batch(&self) -> i64 {
        if self.batch_sizes.numel() == 0 { 0 } else { self.batch_sizes.reshape([-1]).int64_value(&[0]) }
    }

    /// The same sequences with other values.
    pub(crate) fn with_data(&self, data: Tensor) -> PackedSequence {
        let copy = |indices: &Option<Tensor>| indices.as_ref().map(Tensor::shallow_clone);
        PackedSequence {
            data,
            batch_sizes: self.batch_sizes.shallow_clone(),
            sorted_indices: copy(&self.sorted_indices),
            unsorted_indices: copy(&self.unsorted_indices),
        }
    }

    /// A state `[layers, batch, …]` in the order of the sequences as packed.
    pub(crate) fn sort(&self, state: &Tensor) -> Result<Tensor, TchError> {
        permuted(state, self.sorted_indices.as_ref())
    }

    /// A state `[layers, batch, …]` in the order of the sequences as given.
    pub(crate) fn unsort(&self, state: &Tensor) -> Result<Tensor, TchError> {
        permuted(state, self.unsorted_indices.as_ref())
    }
}

fn permuted(state: &Tensor, order: Option<&Tensor>) -> Result<Tensor, TchError> {
    order.map_or_else(|| Ok(state.shallow_clone()), |order| state.f_index_select(1, order))
}
