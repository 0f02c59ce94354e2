//! What is said of options and inputs that cannot be.

use fulgurite_nn::{self as nn, Build, Module};
use fulgurite_torch::tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn refusal<B: Build>(options: B) -> String {
    let vars = nn::VarStore::new(Device::Cpu);
    let message = options.at(vars.root() / "fc").map(drop).unwrap_err().to_string();
    assert!(vars.is_empty(), "a refused layer leaves parameters behind");
    message
}

#[test]
fn options_that_cannot_be() {
    let cases = [
        (
            refusal(nn::linear(0, 3)),
            "`fc` (Linear(in_features=0, out_features=3, bias=True)): in_features is 0; it must be at least 1",
        ),
        (
            refusal(nn::conv2d(3, 4, 3).groups(2)),
            "`fc` (Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), groups=2)): in_channels (3) must be divisible by \
             groups (2)",
        ),
        (
            refusal(nn::dropout(1.5)),
            "`fc` (Dropout(p=1.5, inplace=False)): the probability of dropout is 1.5; it must be from 0 to 1",
        ),
        (
            refusal(nn::embedding(5, 2).padding_idx(5)),
            "`fc` (Embedding(5, 2, padding_idx=5)): padding_idx is 5; it must be within num_embeddings (5)",
        ),
        (
            refusal(nn::group_norm(3, 4)),
            "`fc` (GroupNorm(3, 4, eps=1e-05, affine=True)): num_channels (4) must be divisible by num_groups (3)",
        ),
        (refusal(nn::lstm(3, 0)), "`fc` (LSTM(3, 0)): hidden_size is 0; it must be at least 1"),
        (
            refusal(nn::lstm(3, 4).proj_size(4)),
            "`fc` (LSTM(3, 4, proj_size=4)): proj_size is 4; it must be 0, or positive and below hidden_size (4)",
        ),
        (
            refusal(nn::multihead_attention(6, 4)),
            "`fc` (MultiheadAttention(embed_dim=6, num_heads=4)): embed_dim (6) must be divisible by num_heads (4)",
        ),
    ];
    for (message, expected) in cases {
        assert_eq!(message, expected);
    }
}

#[test]
fn two_layers_at_one_path_are_one_too_many() {
    let vars = nn::VarStore::new(Device::Cpu);
    let _first = nn::linear(2, 2).at(vars.root() / "fc").unwrap();
    let message = nn::linear(3, 3).at(vars.root() / "fc").unwrap_err().to_string();
    let expected = "a layer at `fc`: another one there has a `weight` already; give each layer a path of its own, such as \
                    `vars.root() / \"layers\" / i`";
    assert_eq!(message, expected);
    assert_eq!(vars.variables().len(), 2);
}

#[test]
fn an_input_that_does_not_fit_names_the_layer_and_the_operation() {
    let vars = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(4, 3).at(vars.root() / "net" / "fc").unwrap();
    let message = layer.try_forward(&Tensor::zeros([2, 5], FLOAT)).unwrap_err().to_string();
    let expected = "`net.fc` (Linear(in_features=4, out_features=3, bias=True)): ";
    assert!(message.starts_with(expected), "{message}");
    assert!(message.contains("mat1 and mat2 shapes cannot be multiplied (2x5 and 4x3)"), "{message}");
    assert!(!message.contains('\n'), "{message}");
}

#[test]
#[should_panic(expected = "`norm` (BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)): \
                           expected an input of 4 dimensions, not [2, 3]")]
fn a_forward_pass_panics_with_the_same_sentence() {
    let vars = nn::VarStore::new(Device::Cpu);
    let _ = nn::batch_norm2d(3).at(vars.root() / "norm").unwrap().forward(&Tensor::zeros([2, 3], FLOAT));
}

#[test]
fn what_does_not_fit_sequences_and_losses_is_said() {
    let vars = nn::VarStore::new(Device::Cpu);
    let zeros = |size: &[i64]| Tensor::zeros(size, FLOAT);
    let lstm = nn::lstm(3, 4).at(vars.root() / "lstm").unwrap();
    let attention = nn::multihead_attention(4, 2).at(vars.root() / "attention").unwrap();
    let state = nn::LstmState { h: zeros(&[1, 3, 4]), c: zeros(&[1, 3, 4]) };
    let key = zeros(&[2, 2, 3]);
    let of_attention = attention.try_forward(&zeros(&[2, 2, 4]), &key, &key, nn::AttentionMask::none());
    let cases = [
        (
            lstm.try_forward(&zeros(&[0, 2, 3]), None).unwrap_err(),
            "`lstm` (LSTM(3, 4)): the sequences have no steps; leave them out",
        ),
        (
            lstm.try_forward(&zeros(&[5, 2, 4]), None).unwrap_err(),
            "`lstm` (LSTM(3, 4)): the input has 4 features, and input_size is 3",
        ),
        (
            lstm.try_forward(&zeros(&[5, 2, 3]), Some(&state)).unwrap_err(),
            "`lstm` (LSTM(3, 4)): expected a state of [1, 2, 4], not [1, 3, 4]",
        ),
        (
            nn::pack_padded_sequence(&zeros(&[5, 2, 3]), &[5, 0], false).unwrap_err(),
            "a packed sequence: sequence 1 has the length 0; it must be from 1 to 5, so leave empty sequences out",
        ),
        (
            of_attention.unwrap_err(),
            "`attention` (MultiheadAttention(embed_dim=4, num_heads=2)): the key has 3 features, expected 4",
        ),
        (
            nn::mse_loss().try_forward(&zeros(&[4, 1]), &zeros(&[4])).unwrap_err(),
            "MSELoss(): the input has the size [4, 1], and the target [4]",
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(error.to_string(), expected);
    }
    let outside = nn::cross_entropy_loss().try_forward(&zeros(&[2, 3]), &Tensor::from_slice(&[0i64, 3])).unwrap_err();
    assert!(outside.to_string().contains("Target 3 is out of bounds"), "{outside}");
}
