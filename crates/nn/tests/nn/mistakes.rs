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
    ];
    for (message, expected) in cases {
        assert_eq!(message, expected);
    }
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
