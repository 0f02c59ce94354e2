//! What layers begin with, and what they compute.

use fulgurite_nn::{self as nn, Build, Module};
use fulgurite_torch::params;
use fulgurite_torch::rng::seed_everything;
use fulgurite_torch::tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn names(vars: &nn::VarStore) -> Vec<String> {
    params::state_dict(vars).unwrap().keys().map(String::from).collect()
}

#[test]
fn parameters_have_the_names_of_pytorch() {
    let vars = nn::VarStore::new(Device::Cpu);
    let net = nn::sequential()
        .add(nn::conv2d(3, 8, 3).padding(1).bias(false))
        .add(nn::batch_norm2d(8))
        .add(nn::relu())
        .add(nn::flatten())
        .add(nn::linear(8 * 4 * 4, 2))
        .at(vars.root() / "net")
        .unwrap();
    assert_eq!(net.forward(&Tensor::zeros([5, 3, 4, 4], FLOAT)).size(), [5, 2]);
    let expected = [
        "net.0.weight",
        "net.1.weight",
        "net.1.bias",
        "net.1.running_mean",
        "net.1.running_var",
        "net.1.num_batches_tracked",
        "net.4.weight",
        "net.4.bias",
    ];
    assert_eq!(names(&vars), expected);
}

/// The bounds of uniform values, within the precision that so many values have.
fn assert_uniform(tensor: &Tensor, bound: f64) {
    let largest = tensor.abs().max().double_value(&[]);
    assert!(largest <= bound && largest > 0.99 * bound, "{largest} is not just below {bound}");
    let (mean, std) = (tensor.mean(Kind::Double).double_value(&[]), tensor.to_kind(Kind::Double).std(true));
    assert!(mean.abs() < 0.02 * bound, "the mean is {mean}");
    assert!((std.double_value(&[]) / (bound / 3f64.sqrt()) - 1.0).abs() < 0.02);
}

#[test]
fn weights_are_as_wide_as_in_pytorch() {
    seed_everything(0).unwrap();
    let vars = nn::VarStore::new(Device::Cpu);
    let linear = nn::linear(100, 400).at(vars.root() / "linear").unwrap();
    assert_uniform(&linear.weight, 0.1);
    assert_uniform(&nn::linear(4, 10_000).at(vars.root() / "wide").unwrap().bias.unwrap(), 0.5);
    let conv = nn::conv2d(64, 64, 5).groups(4).at(vars.root() / "conv").unwrap();
    assert_uniform(&conv.weight, 1.0 / (16.0 * 25.0f64).sqrt());
    let transposed = nn::conv_transpose2d(64, 32, 5).at(vars.root() / "transposed").unwrap();
    assert_uniform(&transposed.weight, 1.0 / (32.0 * 25.0f64).sqrt());
    let bilinear = nn::bilinear(25, 40, 50).at(vars.root() / "bilinear").unwrap();
    assert_uniform(&bilinear.weight, 0.2);
    let norm = nn::batch_norm2d(8).at(vars.root() / "norm").unwrap();
    assert_eq!(norm.weight.unwrap(), Tensor::ones([8], FLOAT));
    let embedding = nn::embedding(1000, 100).padding_idx(7).at(vars.root() / "embedding").unwrap();
    assert!((embedding.weight.std(true).double_value(&[]) - 1.0).abs() < 0.02);
    assert_eq!(embedding.weight.get(7), Tensor::zeros([100], FLOAT));
}

#[test]
fn one_switch_reaches_every_layer() {
    let vars = nn::VarStore::new(Device::Cpu);
    let net = nn::sequential()
        .add(nn::dropout(0.5))
        .add(nn::sequential().add(nn::batch_norm1d(4)).add(nn::rrelu(0.1, 0.3)))
        .at(&vars)
        .unwrap();
    let x = Tensor::randn([64, 4], FLOAT);
    assert_ne!(net.forward(&x), net.forward(&x));
    vars.eval();
    assert_eq!(net.forward(&x), net.forward(&x));
    vars.train(true);
    (vars.root() / 1).train(false);
    assert_ne!(net.forward(&x), net.forward(&x));
    let batches = params::state_dict(&vars).unwrap().tensor("1.0.num_batches_tracked").unwrap().int64_value(&[]);
    assert_eq!(batches, 2);
}

#[test]
fn the_mode_is_an_argument_where_tch_has_one() {
    let vars = nn::VarStore::new(Device::Cpu);
    let dropout = nn::dropout(0.5).at(&vars).unwrap();
    let x = Tensor::ones([64], FLOAT);
    assert_eq!(x.apply_t(&dropout, false), x);
    vars.eval();
    assert_ne!(x.apply_t(&dropout, true), x);
}

#[test]
fn running_statistics_of_no_momentum_are_the_mean_of_all_batches() {
    let vars = nn::VarStore::new(Device::Cpu);
    let norm = nn::batch_norm1d(1).momentum(None).at(&vars).unwrap();
    for value in [1.0, 3.0, 8.0] {
        let _ = norm.forward(&Tensor::full([2, 1], value, FLOAT));
    }
    assert_eq!(norm.running_mean.unwrap(), Tensor::full([1], 4.0, FLOAT));
}

#[test]
fn activations_of_parameters() {
    let x = Tensor::from_slice(&[-2.0, -0.25, 0.0, 0.25, 2.0]);
    let cases: [(nn::Activation, [f64; 5]); 7] = [
        (nn::leaky_relu(0.1), [-0.2, -0.025, 0.0, 0.25, 2.0]),
        (nn::elu(2.0), [2.0 * (-2f64).exp_m1(), 2.0 * (-0.25f64).exp_m1(), 0.0, 0.25, 2.0]),
        (nn::celu(2.0), [2.0 * (-1f64).exp_m1(), 2.0 * (-0.125f64).exp_m1(), 0.0, 0.25, 2.0]),
        (nn::hardtanh(-0.5, 1.0), [-0.5, -0.25, 0.0, 0.25, 1.0]),
        (nn::hardshrink(0.5), [-2.0, 0.0, 0.0, 0.0, 2.0]),
        (nn::softshrink(0.25), [-1.75, 0.0, 0.0, 0.0, 1.75]),
        (nn::threshold(0.1, 5.0), [5.0, 5.0, 5.0, 0.25, 2.0]),
    ];
    for (activation, expected) in cases {
        let difference = (activation.forward(&x) - Tensor::from_slice(&expected)).abs().max().double_value(&[]);
        assert!(difference < 1e-12, "{activation}: {}", activation.forward(&x));
    }
}

#[test]
fn local_responses_are_divided_by_those_of_neighbours() {
    let x = Tensor::from_slice(&[1.0, 2.0, 3.0]).view([1, 3, 1]);
    let normalized = nn::local_response_norm(2).alpha(2.0).beta(1.0).k(1.0).forward(&x);
    // Each channel with the one before: 1 + 2 · mean of squares.
    let expected = Tensor::from_slice(&[1.0 / 2.0, 2.0 / 6.0, 3.0 / 14.0]).view([1, 3, 1]);
    assert!((normalized - expected).abs().max().double_value(&[]) < 1e-12);
}

#[test]
fn layers_are_printed_as_in_pytorch() {
    let vars = nn::VarStore::new(Device::Cpu);
    let root = vars.root();
    let conv = nn::conv2d(3, 16, [3, 5]).stride(2).padding(1).bias(false).at(&root / "conv").unwrap();
    assert_eq!(conv.to_string(), "Conv2d(3, 16, kernel_size=(3, 5), stride=(2, 2), padding=(1, 1), bias=False)");
    assert_eq!(nn::leaky_relu(0.01).to_string(), "LeakyReLU(negative_slope=0.01)");
    let norm = nn::local_response_norm(2).alpha(5e-5);
    assert_eq!(norm.to_string(), "LocalResponseNorm(2, alpha=5e-05, beta=0.75, k=1.0)");
    assert_eq!(nn::constant_pad2d([1, 0, 2, 0], 3.5).to_string(), "ConstantPad2d(padding=(1, 0, 2, 0), value=3.5)");
}
