//! Sequences of different lengths: padding, and batches of similar lengths.

use std::collections::BTreeSet;

use fulgurite_data::torch::tch::{Device, Kind, Tensor};
use fulgurite_data::{
    Batch, BucketBatchSampler, DataLoader, Dataset, DistributedSampler, InMemory, Loader, PadSequences, Sampler, Shard,
};

fn sequence(numbers: &[i64]) -> Tensor {
    Tensor::from_slice(numbers)
}

#[test]
fn sequences_are_padded_on_either_side_to_a_multiple_and_cut() {
    let sequences = [sequence(&[1, 2, 3]), sequence(&[4])];
    let left = PadSequences::new().pad_left().padding_value(9.0).pad_to_multiple_of(4).pad(&sequences).unwrap();
    assert_eq!(left.values, sequence(&[9, 1, 2, 3, 9, 9, 9, 4]).view([2, 4]));
    let mask = Tensor::from_slice(&[false, true, true, true, false, false, false, true]).view([2, 4]);
    assert_eq!(left.attention_mask, mask);
    let cut = PadSequences::new().max_length(2).pad(&sequences).unwrap();
    assert_eq!((cut.values, cut.lengths), (sequence(&[1, 2, 4, 0]).view([2, 2]), sequence(&[2, 1])));
    assert_eq!(cut.attention_mask, Tensor::from_slice(&[true, true, true, false]).view([2, 2]));
}

#[test]
fn a_batch_that_is_not_first_is_still_counted() {
    let frames = |n| Tensor::ones([n, 5], (Kind::Float, Device::Cpu));
    let padded = PadSequences::new().batch_first(false).pad(&[frames(2), frames(7), frames(1)]).unwrap();
    assert_eq!((padded.values.size(), padded.attention_mask.size()), (vec![7, 3, 5], vec![3, 7]));
    assert_eq!(Batch::size(&padded), Some(3));
    assert_eq!(padded.to_float_kind(Kind::Half).values.kind(), Kind::Half);
}

#[test]
fn sequences_that_cannot_be_padded_are_explained() {
    let error = |padding: PadSequences, sequences: &[Tensor]| padding.pad(sequences).unwrap_err().to_string();
    let new = PadSequences::new;
    let empty = [sequence(&[1]), sequence(&[])];
    assert_eq!(
        error(new(), &empty),
        "sequence 2 of the batch has length 0; leave it out of the dataset, or pad it with `allow_empty()`"
    );
    let allowed = new().allow_empty().pad(&empty).unwrap();
    assert_eq!(allowed.attention_mask, Tensor::from_slice(&[true, false]).view([2, 1]));
    let wider = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
    assert_eq!(
        error(new(), &[sequence(&[1]), wider]),
        "sequences of a batch may differ in their first dimension alone, but the first is [1] of Int64 and number 2 is \
         [2, 3] of Float"
    );
    assert_eq!(error(new(), &[]), "no sequences to pad; a batch has at least one");
    assert_eq!(
        error(new(), &[Tensor::from(1i64)]),
        "sequence 1 of the batch is a scalar; a sequence is a tensor [L, ...]"
    );
    assert_eq!(error(new().pad_to_multiple_of(0), &[sequence(&[1])]), "pad_to_multiple_of is 0; it is at least 1");
    let loader = DataLoader::new(InMemory::new([0i64]).map(|_, _| sequence(&[]))).collate(new());
    assert_eq!(
        loader.iter(0, 0).unwrap().next().unwrap().unwrap_err().to_string(),
        "batch 0 of InMemory could not be collated: sequence 1 of the batch has length 0; leave it out of the dataset, or \
         pad it with `allow_empty()`"
    );
}

/// Lengths between 1 and 50, in no order.
fn lengths(items: usize) -> Vec<usize> {
    (0..items).map(|item| item * 7919 % 50 + 1).collect()
}

fn padding(lengths: &[usize], batches: &[Vec<usize>]) -> usize {
    let of = |batch: &Vec<usize>| {
        let longest = batch.iter().map(|&item| lengths[item]).max().unwrap();
        batch.iter().map(|&item| longest - lengths[item]).sum::<usize>()
    };
    batches.iter().map(of).sum()
}

#[test]
fn buckets_hold_every_item_once_with_little_padding_in_another_order_every_epoch() {
    let lengths = lengths(1003);
    let sampler = BucketBatchSampler::new(lengths.clone(), 8).unwrap().shuffle(true).pool(20);
    let epoch = |epoch| sampler.iter(3, epoch).collect::<Vec<_>>();
    let batches = epoch(0);
    assert_eq!((batches.len(), sampler.len(), sampler.len_is_exact()), (126, 126, true));
    assert_eq!(batches.concat().into_iter().collect::<BTreeSet<_>>().len(), 1003);
    let random: Vec<Vec<usize>> = (0..1003).collect::<Vec<_>>().chunks(8).map(<[usize]>::to_vec).collect();
    assert!(padding(&lengths, &batches) * 8 < padding(&lengths, &random));
    assert_ne!(batches, epoch(1));
    // What a resumed run does.
    let rest: Vec<Vec<usize>> = sampler.iter(3, 0).skip(50).collect();
    assert_eq!(rest, batches[50..]);
    let dropped = sampler.clone().drop_last(true);
    assert!(dropped.iter(3, 0).all(|batch| batch.len() == 8));
    assert_eq!((dropped.iter(3, 0).count(), dropped.len()), (125, 125));
}

#[test]
fn without_shuffle_the_longest_come_first() {
    let sampler = BucketBatchSampler::new([3, 9, 1, 9], 2).unwrap();
    assert_eq!(sampler.iter(0, 5).collect::<Vec<_>>(), [[1, 3], [0, 2]]);
    assert!(!sampler.is_shuffled());
}

#[test]
fn processes_share_buckets_without_overlap() {
    let sampler = BucketBatchSampler::new(lengths(96), 8).unwrap().shuffle(true);
    let of = |rank| {
        DistributedSampler::new(sampler.clone(), Shard::new(3, rank).unwrap()).iter(1, 2).collect::<Vec<Vec<usize>>>()
    };
    let mut items = [of(0), of(1), of(2)].concat().concat();
    items.sort();
    assert_eq!(items, (0..96).collect::<Vec<_>>());
}

#[test]
fn a_batch_has_at_most_so_many_tokens() {
    let lengths = lengths(300);
    let sampler = BucketBatchSampler::new(lengths.clone(), 64).unwrap().shuffle(true).max_tokens(200).unwrap();
    let batches: Vec<Vec<usize>> = sampler.iter(0, 0).collect();
    let tokens = |batch: &Vec<usize>| batch.iter().map(|&item| lengths[item]).max().unwrap() * batch.len();
    assert!(batches.iter().all(|batch| (1..=200).contains(&tokens(batch))));
    assert_eq!(batches.concat().len(), 300);
    assert_eq!(sampler.len(), batches.len());
    assert_eq!(
        BucketBatchSampler::new([4, 201], 2).unwrap().max_tokens(200).unwrap_err().to_string(),
        "item 1 has length 201, and a batch at most 200 tokens; cut it, leave it out, or raise max_tokens"
    );
    let error = BucketBatchSampler::new([1], 0).unwrap_err();
    assert_eq!(error.to_string(), "batch_size is 0; a batch has at least one item");
}
