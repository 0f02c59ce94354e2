//! Recurrent layers, attention and transformers: what masks, lengths and modes mean.

use fulgurite_nn::{self as nn, AttentionMask, Build};
use fulgurite_torch::rng::seed_everything;
use fulgurite_torch::tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

#[track_caller]
fn assert_close(left: &Tensor, right: &Tensor) {
    assert_eq!(left.size(), right.size());
    let difference = (left - right).abs().max().double_value(&[]);
    assert!(difference < 1e-6, "they differ by {difference}");
}

/// In a batch of padded sequences each gives what it gives alone.
#[test]
fn packed_sequences_end_after_their_own_last_step() {
    seed_everything(0).unwrap();
    let vars = nn::VarStore::new(Device::Cpu);
    let lstm = nn::lstm(3, 4).num_layers(2).bidirectional(true).proj_size(2).at(vars.root() / "lstm").unwrap();
    let gru = nn::gru(3, 4).bidirectional(true).at(vars.root() / "gru").unwrap();
    let lengths = [2, 5, 3];
    let padded = Tensor::randn([5, 3, 3], FLOAT);
    let packed = nn::pack_padded_sequence(&padded, &lengths, false).unwrap();

    let (outputs, state) = lstm.forward_packed(&packed, None).unwrap();
    let (outputs, same_lengths) = nn::pad_packed_sequence(&outputs, false, -1.0, Some(6)).unwrap();
    assert_eq!(same_lengths, lengths);
    let (_, gru_state) = gru.forward_packed(&packed, None).unwrap();
    for (at, length) in (0..).zip(lengths) {
        let alone = padded.select(1, at).narrow(0, 0, length);
        let (output, alone_state) = lstm.forward(&alone, None);
        assert_close(&outputs.select(1, at).narrow(0, 0, length), &output);
        assert_eq!(outputs.select(1, at).narrow(0, length, 6 - length).min().double_value(&[]), -1.0);
        assert_close(&state.h.select(1, at), &alone_state.h);
        assert_close(&state.c.select(1, at), &alone_state.c);
        assert_close(&gru_state.select(1, at), &gru.forward(&alone, None).1);
    }
}

#[test]
fn a_state_goes_on_where_the_sequence_was_cut() {
    let vars = nn::VarStore::new(Device::Cpu);
    let lstm = nn::lstm(3, 4).batch_first(true).at(vars.root() / "lstm").unwrap();
    let x = Tensor::randn([2, 6, 3], FLOAT);
    let (whole, _) = lstm.forward(&x, None);
    let (_, state) = lstm.forward(&x.narrow(1, 0, 4), None);
    let (rest, _) = lstm.forward(&x.narrow(1, 4, 2), Some(&state.detach()));
    assert_close(&whole.narrow(1, 4, 2), &rest);
}

#[test]
fn dropout_between_layers_is_for_training() {
    let vars = nn::VarStore::new(Device::Cpu);
    let lstm = nn::lstm(3, 8).num_layers(2).dropout(0.5).at(vars.root() / "lstm").unwrap();
    let layer = nn::transformer_encoder_layer(8, 2).dropout(0.5);
    let encoder = nn::transformer_encoder(layer, 2).at(vars.root() / "encoder").unwrap();
    let (x, y) = (Tensor::randn([5, 2, 3], FLOAT), Tensor::randn([5, 2, 8], FLOAT));
    let both = || (lstm.forward(&x, None).0, encoder.forward(&y, AttentionMask::none()));
    assert!(both().0 != both().0 && both().1 != both().1);
    vars.eval();
    assert_eq!(both(), both());
}

#[test]
fn a_mask_excludes_keys() {
    seed_everything(0).unwrap();
    for batch_first in [false, true] {
        let vars = nn::VarStore::new(Device::Cpu);
        let attention = nn::multihead_attention(8, 2).batch_first(batch_first).at(vars.root()).unwrap();
        let x = Tensor::randn(if batch_first { [3, 5, 8] } else { [5, 3, 8] }, FLOAT);
        let time = i64::from(batch_first);
        let attend = |mask| attention.forward(&x, &x, &x, mask);

        let later = nn::causal_mask(5, Device::Cpu);
        let is_later = later.isinf();
        assert_close(&attend(AttentionMask::causal()), &attend(AttentionMask::none().attn_mask(&later)));
        assert_close(&attend(AttentionMask::causal()), &attend(AttentionMask::none().attn_mask(&is_later)));

        let padding = Tensor::from_slice(&[false, false, false, true, true]).expand([3, 5], false);
        let of_three = x.narrow(time, 0, 3);
        let padded = attend(AttentionMask::none().key_padding_mask(&padding));
        assert_close(&padded, &attention.forward(&x, &of_three, &of_three, AttentionMask::none()));

        let both = AttentionMask::causal().key_padding_mask(&padding);
        let (attended, weights) = attention.forward_with_weights(&x, &x, &x, both);
        assert_close(&attended, &attend(both));
        assert_close(&weights.sum_dim_intlist(-1, false, Kind::Float), &Tensor::ones([3, 5], FLOAT));
        assert_eq!(weights.narrow(2, 3, 2).max().double_value(&[]), 0.0);
    }
}

/// Numbers are drawn for one layer, which PyTorch copies.
#[test]
fn all_layers_of_an_encoder_begin_alike() {
    seed_everything(0).unwrap();
    let vars = nn::VarStore::new(Device::Cpu);
    let layer = nn::transformer_encoder_layer(8, 2).dim_feedforward(16);
    nn::transformer_encoder(layer.clone(), 3).at(vars.root() / "encoder").unwrap();
    let drawn = Tensor::randn([1], FLOAT);
    let variables = vars.variables();
    let of_layer = |layer: u8| &variables[&format!("encoder.layers.{layer}.linear1.weight")];
    assert_eq!(of_layer(0), of_layer(2));
    seed_everything(0).unwrap();
    layer.at(nn::VarStore::new(Device::Cpu).root()).unwrap();
    assert_eq!(Tensor::randn([1], FLOAT), drawn);
}
