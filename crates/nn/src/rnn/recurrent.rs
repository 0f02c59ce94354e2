//! [`Lstm`], [`Gru`] and [`Rnn`].

use fulgurite_torch::tch::{TchError, Tensor};
use fulgurite_torch::{Mode, Path};

use super::packed::PackedSequence;
use crate::error::Result;
use crate::init;
use crate::module::{Build, Label, debug, output, python_float, setters};
use crate::parameter::parameter;

/// The function of an [`Rnn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nonlinearity {
    /// The hyperbolic tangent.
    #[default]
    Tanh,
    /// `max(0, x)`.
    Relu,
}

/// The hidden and the cell state of an [`Lstm`].
#[derive(Debug)]
pub struct LstmState {
    /// `[layers · directions, batch, hidden_size]`, or `proj_size` in place of `hidden_size`.
    pub h: Tensor,
    /// `[layers · directions, batch, hidden_size]`.
    pub c: Tensor,
}

impl LstmState {
    /// The same values outside the graph, with which the next part of a long sequence begins (truncated backpropagation
    /// through time).
    #[must_use]
    pub fn detach(&self) -> LstmState {
        LstmState { h: self.h.detach(), c: self.c.detach() }
    }
}

/// What the three layers share.
#[derive(Debug, Clone, Copy)]
struct Shape {
    input_size: i64,
    hidden_size: i64,
    proj_size: i64,
    num_layers: i64,
    bias: bool,
    batch_first: bool,
    dropout: f64,
    bidirectional: bool,
    /// Rows of a weight for each unit: one for each gate.
    gates: i64,
}

/// The parameters of a recurrent layer and its mode.
struct Recurrent {
    weights: Vec<Tensor>,
    shape: Shape,
    mode: Mode,
    label: Label,
}

impl Shape {
    fn new(input_size: i64, hidden_size: i64, gates: i64) -> Shape {
        Shape {
            input_size,
            hidden_size,
            proj_size: 0,
            num_layers: 1,
            bias: true,
            batch_first: false,
            dropout: 0.0,
            bidirectional: false,
            gates,
        }
    }

    fn directions(&self) -> i64 {
        if self.bidirectional { 2 } else { 1 }
    }

    /// Numbers of one step of the output in one direction.
    fn output_size(&self) -> i64 {
        if self.proj_size > 0 { self.proj_size } else { self.hidden_size }
    }

    fn repr(&self, name: &str) -> String {
        let mut repr = format!("{name}({}, {}", self.input_size, self.hidden_size);
        if self.proj_size != 0 {
            repr += &format!(", proj_size={}", self.proj_size);
        }
        if self.num_layers != 1 {
            repr += &format!(", num_layers={}", self.num_layers);
        }
        if !self.bias {
            repr += ", bias=False";
        }
        if self.batch_first {
            repr += ", batch_first=True";
        }
        if self.dropout != 0.0 {
            repr += &format!(", dropout={}", python_float(self.dropout));
        }
        if self.bidirectional {
            repr += ", bidirectional=True";
        }
        repr + ")"
    }

    fn check(&self, label: &Label) -> Result<()> {
        label.check_positive(&[
            ("input_size", self.input_size),
            ("hidden_size", self.hidden_size),
            ("num_layers", self.num_layers),
        ])?;
        if !(0.0..=1.0).contains(&self.dropout) {
            return Err(
                label.options(format!("the probability of dropout is {}; it must be from 0 to 1", self.dropout))
            );
        }
        if !(0..self.hidden_size).contains(&self.proj_size) {
            let message = format!(
                "proj_size is {}; it must be 0, or positive and below hidden_size ({})",
                self.proj_size, self.hidden_size
            );
            return Err(label.options(message));
        }
        Ok(())
    }

    fn build(&self, path: &Path<'_>, name: &str) -> Result<Recurrent> {
        let label = Label::new(path, self.repr(name));
        self.check(&label)?;
        let rows = self.gates * self.hidden_size;
        let mut weights = Vec::new();
        for layer in 0..self.num_layers {
            let inputs = if layer == 0 { self.input_size } else { self.output_size() * self.directions() };
            for suffix in ["", "_reverse"].iter().take(self.directions() as usize) {
                let mut add = |name: &str, size: &[i64]| -> Result<()> {
                    weights.push(parameter(path, &format!("{name}_l{layer}{suffix}"), size)?);
                    Ok(())
                };
                add("weight_ih", &[rows, inputs])?;
                add("weight_hh", &[rows, self.output_size()])?;
                if self.bias {
                    add("bias_ih", &[rows])?;
                    add("bias_hh", &[rows])?;
                }
                if self.proj_size > 0 {
                    add("weight_hr", &[self.proj_size, self.hidden_size])?;
                }
            }
        }
        let bound = 1.0 / (self.hidden_size as f64).sqrt();
        weights.iter().try_for_each(|weight| init::uniform_(weight, -bound, bound))?;
        Ok(Recurrent { weights, shape: *self, mode: path.mode(), label })
    }
}

/// A batch of sequences, and how to give results for it.
struct Batch {
    input: Tensor,
    /// There was no batch dimension.
    is_sample: bool,
    batch: i64,
}

impl Recurrent {
    fn batch(&self, input: &Tensor) -> Result<Batch> {
        let is_sample = input.dim() == 2;
        if !is_sample && input.dim() != 3 {
            let message = format!("expected an input of 2 or 3 dimensions, not {:?}", input.size());
            return Err(self.label.input(message));
        }
        let batch_dim = i64::from(!self.shape.batch_first);
        let input = if is_sample { input.unsqueeze(batch_dim) } else { input.shallow_clone() };
        let size = input.size();
        if size[2] != self.shape.input_size {
            let message = format!("the input has {} features, and input_size is {}", size[2], self.shape.input_size);
            return Err(self.label.input(message));
        }
        if size[usize::from(self.shape.batch_first)] == 0 {
            return Err(self.label.input("the sequences have no steps; leave them out"));
        }
        let batch = size[batch_dim as usize];
        Ok(Batch { input, is_sample, batch })
    }

    /// A state as libtorch takes it: zeros if there is none.
    fn state(&self, state: Option<&Tensor>, input: &Tensor, batch: i64, is_sample: bool, size: i64) -> Result<Tensor> {
        let expected = [self.shape.num_layers * self.shape.directions(), batch, size];
        let Some(state) = state else {
            return self.label.forward("zeros", Tensor::f_zeros(expected, (input.kind(), input.device())));
        };
        let state = if is_sample { state.unsqueeze(1) } else { state.shallow_clone() };
        match state.size() == expected {
            true => Ok(state),
            false => Err(self.label.input(format!("expected a state of {expected:?}, not {:?}", state.size()))),
        }
    }

    fn run<S>(&self, operation: &str, result: Result<S, TchError>) -> Result<S> {
        self.label.forward(operation, result)
    }
}

impl Batch {
    fn unbatched(&self, output: Tensor, batch_first: bool) -> Tensor {
        if self.is_sample { output.squeeze_dim(i64::from(!batch_first)) } else { output }
    }

    fn unbatched_state(&self, state: Tensor) -> Tensor {
        if self.is_sample { state.squeeze_dim(1) } else { state }
    }
}

macro_rules! shape_setters {
    () => {
        setters! {
            in shape;
            /// How many layers there are, each over the output of the one before; the default is 1.
            num_layers: i64;
            /// Whether there are biases; the default is `true`.
            bias: bool;
            /// Whether inputs are `[batch, time, features]` and not `[time, batch, features]`; the default is `false`, as in
            /// PyTorch. States are not affected.
            batch_first: bool;
            /// The probability of dropout in training after each layer but the last, so that one layer alone has none; the
            /// default is 0.
            dropout: f64;
            /// Whether there is a second layer beside each, from the end to the beginning; the default is `false`.
            bidirectional: bool;
        }
    };
}

macro_rules! recurrent_methods {
    ($layer:ident) => {
        impl $layer {
            /// Its parameters in PyTorch's order: for each layer and direction the weights of input and state, their
            /// biases, and the projection.
            pub fn weights(&self) -> &[Tensor] {
                &self.0.weights
            }

            /// Switches this layer to training, or to evaluation.
            pub fn train(&self, mode: bool) {
                self.0.mode.train(mode);
            }

            /// Whether it trains.
            pub fn is_training(&self) -> bool {
                self.0.mode.is_training()
            }
        }

        impl std::fmt::Display for $layer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.label.fmt(f)
            }
        }

        debug!($layer);
    };
}

/// Long short-term memory (Hochreiter and Schmidhuber 1997): PyTorch's `nn.LSTM`.
///
/// ```
/// use fulgurite_nn::{self as nn, Build};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let lstm = nn::lstm(10, 20).num_layers(2).batch_first(true).dropout(0.1).at(vars.root() / "lstm")?;
/// let x = Tensor::randn([3, 5, 10], (Kind::Float, Device::Cpu));
/// let (output, state) = lstm.forward(&x, None);
/// assert_eq!((output.size(), state.h.size()), (vec![3, 5, 20], vec![2, 3, 20]));
/// assert!(vars.variables().contains_key("lstm.weight_ih_l1"));
/// # Ok::<(), nn::NnError>(())
/// ```
pub struct Lstm(Recurrent);

/// The options of an [`Lstm`].
#[derive(Debug, Clone, Copy)]
pub struct LstmOptions {
    shape: Shape,
}

/// An [`Lstm`] layer.
pub fn lstm(input_size: i64, hidden_size: i64) -> LstmOptions {
    LstmOptions { shape: Shape::new(input_size, hidden_size, 4) }
}

impl LstmOptions {
    shape_setters!();

    setters! {
        in shape;
        /// The size to which the output of each step is projected; the default is 0, no projection.
        proj_size: i64;
    }
}

impl Build for LstmOptions {
    type Layer = Lstm;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Lstm> {
        Ok(Lstm(self.shape.build(&path.into(), "LSTM")?))
    }
}

impl Lstm {
    /// The outputs of all steps, and the state after the last. Without a state it begins at 0.
    ///
    /// # Panics
    ///
    /// Panics if the input or the state does not fit.
    pub fn forward(&self, input: &Tensor, state: Option<&LstmState>) -> (Tensor, LstmState) {
        output(self.try_forward(input, state))
    }

    /// [`forward`](Lstm::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input or the state does not fit.
    pub fn try_forward(&self, input: &Tensor, state: Option<&LstmState>) -> Result<(Tensor, LstmState)> {
        let batch = self.0.batch(input)?;
        let state = self.states(state, &batch.input, batch.batch, batch.is_sample)?;
        let Shape { bias, num_layers, dropout, bidirectional, batch_first, .. } = self.0.shape;
        let train = self.is_training();
        let run =
            batch.input.f_lstm(&state, &self.0.weights, bias, num_layers, dropout, train, bidirectional, batch_first);
        let (output, h, c) = self.0.run("lstm", run)?;
        let state = LstmState { h: batch.unbatched_state(h), c: batch.unbatched_state(c) };
        Ok((batch.unbatched(output, batch_first), state))
    }

    /// [`forward`](Lstm::forward) of sequences of several lengths; each ends after its own last step.
    ///
    /// # Errors
    ///
    /// Fails if the input or the state does not fit.
    pub fn forward_packed(
        &self,
        input: &PackedSequence,
        state: Option<&LstmState>,
    ) -> Result<(PackedSequence, LstmState)> {
        let [h, c] = self.states(state, &input.data, input.batch(), false)?;
        let state = [self.0.run("index_select", input.sort(&h))?, self.0.run("index_select", input.sort(&c))?];
        let Shape { bias, num_layers, dropout, bidirectional, .. } = self.0.shape;
        let (data, sizes, train) = (&input.data, &input.batch_sizes, self.is_training());
        let run =
            Tensor::f_lstm_data(data, sizes, &state, &self.0.weights, bias, num_layers, dropout, train, bidirectional);
        let (output, h, c) = self.0.run("lstm", run)?;
        let (h, c) = (self.0.run("index_select", input.unsort(&h))?, self.0.run("index_select", input.unsort(&c))?);
        Ok((input.with_data(output), LstmState { h, c }))
    }

    fn states(&self, state: Option<&LstmState>, input: &Tensor, batch: i64, is_sample: bool) -> Result<[Tensor; 2]> {
        let (h, c) = state.map(|state| (&state.h, &state.c)).unzip();
        let shape = self.0.shape;
        let h = self.0.state(h, input, batch, is_sample, shape.output_size())?;
        Ok([h, self.0.state(c, input, batch, is_sample, shape.hidden_size)?])
    }
}

recurrent_methods!(Lstm);

/// Gated recurrent units (Cho et al. 2014): PyTorch's `nn.GRU`.
pub struct Gru(Recurrent);

/// The options of a [`Gru`].
#[derive(Debug, Clone, Copy)]
pub struct GruOptions {
    shape: Shape,
}

/// A [`Gru`] layer.
pub fn gru(input_size: i64, hidden_size: i64) -> GruOptions {
    GruOptions { shape: Shape::new(input_size, hidden_size, 3) }
}

impl GruOptions {
    shape_setters!();
}

impl Build for GruOptions {
    type Layer = Gru;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Gru> {
        Ok(Gru(self.shape.build(&path.into(), "GRU")?))
    }
}

recurrent_methods!(Gru);

/// A recurrent network of one function (Elman 1990): PyTorch's `nn.RNN`.
pub struct Rnn(Recurrent, Nonlinearity);

/// The options of an [`Rnn`].
#[derive(Debug, Clone, Copy)]
pub struct RnnOptions {
    shape: Shape,
    nonlinearity: Nonlinearity,
}

/// An [`Rnn`] layer.
pub fn rnn(input_size: i64, hidden_size: i64) -> RnnOptions {
    RnnOptions { shape: Shape::new(input_size, hidden_size, 1), nonlinearity: Nonlinearity::Tanh }
}

impl RnnOptions {
    shape_setters!();

    setters! {
        /// The function; the default is `Tanh`.
        nonlinearity: Nonlinearity;
    }
}

impl Build for RnnOptions {
    type Layer = Rnn;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Rnn> {
        Ok(Rnn(self.shape.build(&path.into(), "RNN")?, self.nonlinearity))
    }
}

recurrent_methods!(Rnn);

macro_rules! one_state {
    ($layer:ident, $operation:literal, $run:expr, $run_packed:expr) => {
        impl $layer {
            /// The outputs of all steps, and the state `[layers · directions, batch, hidden_size]` after the last. Without a
            /// state it begins at 0.
            ///
            /// # Panics
            ///
            /// Panics if the input or the state does not fit.
            pub fn forward(&self, input: &Tensor, state: Option<&Tensor>) -> (Tensor, Tensor) {
                output(self.try_forward(input, state))
            }

            /// [`forward`](Self::forward), whose errors are returned.
            ///
            /// # Errors
            ///
            /// Fails if the input or the state does not fit.
            pub fn try_forward(&self, input: &Tensor, state: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
                let batch = self.0.batch(input)?;
                let size = self.0.shape.hidden_size;
                let state = self.0.state(state, &batch.input, batch.batch, batch.is_sample, size)?;
                let (output, state) = self.0.run($operation, $run(self, &batch.input, &state))?;
                let batch_first = self.0.shape.batch_first;
                Ok((batch.unbatched(output, batch_first), batch.unbatched_state(state)))
            }

            /// [`forward`](Self::forward) of sequences of several lengths; each ends after its own last step.
            ///
            /// # Errors
            ///
            /// Fails if the input or the state does not fit.
            pub fn forward_packed(
                &self,
                input: &PackedSequence,
                state: Option<&Tensor>,
            ) -> Result<(PackedSequence, Tensor)> {
                let size = self.0.shape.hidden_size;
                let state = self.0.state(state, &input.data, input.batch(), false, size)?;
                let state = self.0.run("index_select", input.sort(&state))?;
                let (output, state) = self.0.run($operation, $run_packed(self, input, &state))?;
                Ok((input.with_data(output), self.0.run("index_select", input.unsort(&state))?))
            }
        }
    };
}

one_state!(
    Gru,
    "gru",
    |gru: &Gru, input: &Tensor, state: &Tensor| {
        let Shape { bias, num_layers, dropout, bidirectional, batch_first, .. } = gru.0.shape;
        let train = gru.is_training();
        input.f_gru(state, &gru.0.weights, bias, num_layers, dropout, train, bidirectional, batch_first)
    },
    |gru: &Gru, PackedSequence { data, batch_sizes, .. }: &PackedSequence, state: &Tensor| {
        let Shape { bias, num_layers, dropout, bidirectional, .. } = gru.0.shape;
        let (weights, train) = (&gru.0.weights, gru.is_training());
        Tensor::f_gru_data(data, batch_sizes, state, weights, bias, num_layers, dropout, train, bidirectional)
    }
);

one_state!(
    Rnn,
    "rnn",
    |rnn: &Rnn, input: &Tensor, state: &Tensor| {
        let Shape { bias, num_layers, dropout, bidirectional, batch_first, .. } = rnn.0.shape;
        let (weights, train) = (&rnn.0.weights, rnn.is_training());
        match rnn.1 {
            Nonlinearity::Tanh => {
                input.f_rnn_tanh(state, weights, bias, num_layers, dropout, train, bidirectional, batch_first)
            }
            Nonlinearity::Relu => {
                input.f_rnn_relu(state, weights, bias, num_layers, dropout, train, bidirectional, batch_first)
            }
        }
    },
    |rnn: &Rnn, PackedSequence { data, batch_sizes, .. }: &PackedSequence, state: &Tensor| {
        let Shape { bias, num_layers, dropout, bidirectional, .. } = rnn.0.shape;
        let (weights, train) = (&rnn.0.weights, rnn.is_training());
        let sizes = batch_sizes;
        match rnn.1 {
            Nonlinearity::Tanh => {
                Tensor::f_rnn_tanh_data(data, sizes, state, weights, bias, num_layers, dropout, train, bidirectional)
            }
            Nonlinearity::Relu => {
                Tensor::f_rnn_relu_data(data, sizes, state, weights, bias, num_layers, dropout, train, bidirectional)
            }
        }
    }
);
