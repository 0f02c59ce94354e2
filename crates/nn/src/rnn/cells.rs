//! One step of a recurrent layer.

use fulgurite_torch::Path;
use fulgurite_torch::tch::Tensor;

use super::recurrent::{LstmState, Nonlinearity};
use crate::error::Result;
use crate::init;
use crate::module::{Build, Label, debug, output, setters};
use crate::parameter::parameter;

/// The parameters of a cell: PyTorch's `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`.
struct Cell {
    weight_ih: Tensor,
    weight_hh: Tensor,
    biases: Option<[Tensor; 2]>,
    hidden_size: i64,
    label: Label,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    input_size: i64,
    hidden_size: i64,
    bias: bool,
}

impl Shape {
    fn build(&self, path: &Path<'_>, name: &str, gates: i64, last: &str) -> Result<Cell> {
        let Shape { input_size, hidden_size, bias } = *self;
        let bias_text = if bias { "" } else { ", bias=False" };
        let label = Label::new(path, format!("{name}({input_size}, {hidden_size}{bias_text}{last})"));
        label.check_positive(&[("input_size", input_size), ("hidden_size", hidden_size)])?;
        let rows = gates * hidden_size;
        let weight_ih = parameter(path, "weight_ih", &[rows, input_size])?;
        let weight_hh = parameter(path, "weight_hh", &[rows, hidden_size])?;
        let biases = match bias {
            true => Some([parameter(path, "bias_ih", &[rows])?, parameter(path, "bias_hh", &[rows])?]),
            false => None,
        };
        let bound = 1.0 / (hidden_size as f64).sqrt();
        let all = [&weight_ih, &weight_hh].into_iter().chain(biases.iter().flatten());
        all.into_iter().try_for_each(|weight| init::uniform_(weight, -bound, bound))?;
        Ok(Cell { weight_ih, weight_hh, biases, hidden_size, label })
    }
}

impl Cell {
    fn biases(&self) -> [Option<&Tensor>; 2] {
        self.biases.as_ref().map_or([None, None], |[ih, hh]| [Some(ih), Some(hh)])
    }

    /// The input as a batch, and whether it was none.
    fn batch(&self, input: &Tensor) -> Result<(Tensor, bool)> {
        match input.dim() {
            1 => Ok((input.unsqueeze(0), true)),
            2 => Ok((input.shallow_clone(), false)),
            _ => Err(self.label.input(format!("expected an input of 1 or 2 dimensions, not {:?}", input.size()))),
        }
    }

    fn state(&self, state: Option<&Tensor>, input: &Tensor, is_sample: bool) -> Result<Tensor> {
        let expected = [input.size()[0], self.hidden_size];
        let Some(state) = state else {
            return self.label.forward("zeros", Tensor::f_zeros(expected, (input.kind(), input.device())));
        };
        let state = if is_sample { state.unsqueeze(0) } else { state.shallow_clone() };
        match state.size() == expected {
            true => Ok(state),
            false => Err(self.label.input(format!("expected a state of {expected:?}, not {:?}", state.size()))),
        }
    }
}

macro_rules! display {
    ($($layer:ident),+) => { $(
        impl std::fmt::Display for $layer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0.label, f)
            }
        }

        debug!($layer);
    )+ };
}

fn unbatched(output: Tensor, is_sample: bool) -> Tensor {
    if is_sample { output.squeeze_dim(0) } else { output }
}

macro_rules! cells {
    ($($(#[$doc:meta])* $layer:ident, $constructor:ident, $options:ident, $name:literal, $gates:literal;)+) => { $(
        $(#[$doc])*
        pub struct $layer(Cell);

        #[doc = concat!("The options of [`", stringify!($layer), "`].")]
        #[derive(Debug, Clone, Copy)]
        pub struct $options {
            shape: Shape,
        }

        #[doc = concat!("A [`", stringify!($layer), "`].")]
        pub fn $constructor(input_size: i64, hidden_size: i64) -> $options {
            $options { shape: Shape { input_size, hidden_size, bias: true } }
        }

        impl $options {
            setters! {
                in shape;
                /// Whether there are biases; the default is `true`.
                bias: bool;
            }
        }

        impl Build for $options {
            type Layer = $layer;

            fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<$layer> {
                Ok($layer(self.shape.build(&path.into(), $name, $gates, "")?))
            }
        }
    )+ };
}

cells! {
    /// One step of long short-term memory: PyTorch's `nn.LSTMCell`.
    LstmCell, lstm_cell, LstmCellOptions, "LSTMCell", 4;
    /// One step of gated recurrent units: PyTorch's `nn.GRUCell`.
    GruCell, gru_cell, GruCellOptions, "GRUCell", 3;
}

impl LstmCell {
    /// The state after an input `[batch, input_size]`; both parts are `[batch, hidden_size]`. Without a state it begins at 0.
    ///
    /// # Panics
    ///
    /// Panics if the input or the state does not fit.
    pub fn forward(&self, input: &Tensor, state: Option<&LstmState>) -> LstmState {
        output(self.try_forward(input, state))
    }

    /// [`forward`](LstmCell::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input or the state does not fit.
    pub fn try_forward(&self, input: &Tensor, state: Option<&LstmState>) -> Result<LstmState> {
        let (input, is_sample) = self.0.batch(input)?;
        let (h, c) = state.map(|state| (&state.h, &state.c)).unzip();
        let state = [self.0.state(h, &input, is_sample)?, self.0.state(c, &input, is_sample)?];
        let [bias_ih, bias_hh] = self.0.biases();
        let state: Vec<&Tensor> = state.iter().collect();
        let next = input.f_lstm_cell(&state, &self.0.weight_ih, &self.0.weight_hh, bias_ih, bias_hh);
        let (h, c) = self.0.label.forward("lstm_cell", next)?;
        Ok(LstmState { h: unbatched(h, is_sample), c: unbatched(c, is_sample) })
    }
}

impl GruCell {
    /// The state `[batch, hidden_size]` after an input `[batch, input_size]`. Without a state it begins at 0.
    ///
    /// # Panics
    ///
    /// Panics if the input or the state does not fit.
    pub fn forward(&self, input: &Tensor, state: Option<&Tensor>) -> Tensor {
        output(self.try_forward(input, state))
    }

    /// [`forward`](GruCell::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input or the state does not fit.
    pub fn try_forward(&self, input: &Tensor, state: Option<&Tensor>) -> Result<Tensor> {
        let (input, is_sample) = self.0.batch(input)?;
        let state = self.0.state(state, &input, is_sample)?;
        let [bias_ih, bias_hh] = self.0.biases();
        let next = input.f_gru_cell(&state, &self.0.weight_ih, &self.0.weight_hh, bias_ih, bias_hh);
        Ok(unbatched(self.0.label.forward("gru_cell", next)?, is_sample))
    }
}

/// One step of a recurrent network of one function: PyTorch's `nn.RNNCell`.
pub struct RnnCell(Cell, Nonlinearity);

/// The options of an [`RnnCell`].
#[derive(Debug, Clone, Copy)]
pub struct RnnCellOptions {
    shape: Shape,
    nonlinearity: Nonlinearity,
}

/// An [`RnnCell`].
pub fn rnn_cell(input_size: i64, hidden_size: i64) -> RnnCellOptions {
    RnnCellOptions { shape: Shape { input_size, hidden_size, bias: true }, nonlinearity: Nonlinearity::Tanh }
}

impl RnnCellOptions {
    setters! {
        /// The function; the default is `Tanh`.
        nonlinearity: Nonlinearity;
    }

    setters! {
        in shape;
        /// Whether there are biases; the default is `true`.
        bias: bool;
    }
}

impl Build for RnnCellOptions {
    type Layer = RnnCell;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<RnnCell> {
        let function = match self.nonlinearity {
            Nonlinearity::Tanh => "",
            Nonlinearity::Relu => ", nonlinearity=relu",
        };
        Ok(RnnCell(self.shape.build(&path.into(), "RNNCell", 1, function)?, self.nonlinearity))
    }
}

impl RnnCell {
    /// The state `[batch, hidden_size]` after an input `[batch, input_size]`. Without a state it begins at 0.
    ///
    /// # Panics
    ///
    /// Panics if the input or the state does not fit.
    pub fn forward(&self, input: &Tensor, state: Option<&Tensor>) -> Tensor {
        output(self.try_forward(input, state))
    }

    /// [`forward`](RnnCell::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input or the state does not fit.
    pub fn try_forward(&self, input: &Tensor, state: Option<&Tensor>) -> Result<Tensor> {
        let (input, is_sample) = self.0.batch(input)?;
        let state = self.0.state(state, &input, is_sample)?;
        let ([bias_ih, bias_hh], weight_ih, weight_hh) = (self.0.biases(), &self.0.weight_ih, &self.0.weight_hh);
        let next = match self.1 {
            Nonlinearity::Tanh => input.f_rnn_tanh_cell(&state, weight_ih, weight_hh, bias_ih, bias_hh),
            Nonlinearity::Relu => input.f_rnn_relu_cell(&state, weight_ih, weight_hh, bias_ih, bias_hh),
        };
        Ok(unbatched(self.0.label.forward("rnn_cell", next)?, is_sample))
    }
}

display!(LstmCell, GruCell, RnnCell);
