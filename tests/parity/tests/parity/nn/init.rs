//! `nn::init` against `torch.nn.init`.

use std::fmt;

use fulgurite_nn::NnError;
use fulgurite_nn::init::{self, Fan, Nonlinearity};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, rng};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
pub(super) struct Init {
    function: String,
    shape: Vec<i64>,
    options: Map<String, Value>,
    error: Option<String>,
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?}, {})", self.function, self.shape, Value::from(self.options.clone()))
    }
}

pub(super) fn nonlinearity(name: &str, slope: Option<f64>) -> Nonlinearity {
    match name {
        "linear" => Nonlinearity::Linear,
        "sigmoid" => Nonlinearity::Sigmoid,
        "tanh" => Nonlinearity::Tanh,
        "relu" => Nonlinearity::Relu,
        "selu" => Nonlinearity::Selu,
        "leaky_relu" => Nonlinearity::LeakyRelu(slope.unwrap()),
        other => panic!("{other}"),
    }
}

impl Init {
    /// Values are equal, not only close, but where a function calls others that round.
    pub(super) fn problem(&self, theirs: &Dict) -> Option<String> {
        let tensor = Tensor::full(&self.shape, 7.0, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        rng::manual_seed(super::SEED).unwrap();
        let made = self.apply(&tensor);
        match (&self.error, made) {
            (Some(_), Err(_)) => return None,
            (Some(error), Ok(())) => return Some(format!("PyTorch says {error}")),
            (None, Err(error)) => return Some(error.to_string()),
            (None, Ok(())) => {}
        }
        let values = theirs.tensor("values").unwrap();
        let furthest = match values.numel() {
            0 => 0.0,
            _ => (tensor.detach() - values).abs().max().double_value(&[]),
        };
        if furthest > 0.0 {
            return Some(format!("values are {furthest:e} away"));
        }
        super::draws(theirs)
    }

    fn apply(&self, tensor: &Tensor) -> Result<(), NnError> {
        let number = |name: &str| self.options[name].as_f64().unwrap();
        let fan = || if self.options["mode"] == "fan_in" { Fan::In } else { Fan::Out };
        let function = || nonlinearity(self.options["nonlinearity"].as_str().unwrap(), Some(number("a")));
        match self.function.as_str() {
            "uniform_" => init::uniform_(tensor, number("a"), number("b")),
            "normal_" => init::normal_(tensor, number("mean"), number("std")),
            "trunc_normal_" => init::trunc_normal_(tensor, number("mean"), number("std"), number("a"), number("b")),
            "constant_" => init::constant_(tensor, number("val")),
            "ones_" => init::ones_(tensor),
            "zeros_" => init::zeros_(tensor),
            "eye_" => init::eye_(tensor),
            "dirac_" => init::dirac_(tensor, self.options["groups"].as_i64().unwrap()),
            "xavier_uniform_" => init::xavier_uniform_(tensor, number("gain")),
            "xavier_normal_" => init::xavier_normal_(tensor, number("gain")),
            "kaiming_uniform_" => init::kaiming_uniform_(tensor, fan(), function()),
            "kaiming_normal_" => init::kaiming_normal_(tensor, fan(), function()),
            "orthogonal_" => init::orthogonal_(tensor, number("gain")),
            "sparse_" => init::sparse_(tensor, number("sparsity"), number("std")),
            other => panic!("{other}"),
        }
    }
}
