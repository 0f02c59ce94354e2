//! Recurrent layers, attention and transformers of a case.

use fulgurite_nn::{self as nn, AttentionMask, Build, LstmState, NnError, PackedSequence};
use fulgurite_torch::Path;
use fulgurite_torch::tch::Tensor;

use super::case::{Case, Layer, given, with};

pub(super) fn build(case: &Case, path: &Path<'_>) -> Option<Result<Layer, NnError>> {
    let (a, b) = (|| case.arg::<i64>(0), || case.arg::<i64>(1));
    macro_rules! recurrent {
        ($new:ident $(, $name:ident: $type:ty)*) => {
            with!(case, nn::$new(a(), b()), num_layers: i64, bias: bool, batch_first: bool, dropout: f64,
                bidirectional: bool $(, $name: $type)*).at(path)
        };
    }
    macro_rules! one_state {
        ($layer:expr) => {
            $layer.map(|layer| {
                let (repr, run) = (layer.to_string(), Run::of(case));
                let forward = move |x: &[Option<Tensor>]| {
                    run.forward(
                        x,
                        |x, states| layer.try_forward(x, states.first()).map(|(output, h)| (output, vec![h])),
                        |x, states| layer.forward_packed(x, states.first()).map(|(output, h)| (output, vec![h])),
                    )
                };
                Layer { repr, forward: Box::new(forward) }
            })
        };
    }
    macro_rules! cell {
        ($new:ident $(, $name:ident: $type:ty)*) => {
            with!(case, nn::$new(a(), b()), bias: bool $(, $name: $type)*).at(path)
        };
    }
    macro_rules! one_state_cell {
        ($cell:expr) => {
            $cell.map(|cell| {
                let repr = cell.to_string();
                let forward = move |x: &[Option<Tensor>]| {
                    let state = x.get(1).and_then(Option::as_ref);
                    Ok(vec![cell.try_forward(given(&x[0]), state)?])
                };
                Layer { repr, forward: Box::new(forward) }
            })
        };
    }
    Some(match case.name.as_str() {
        "LSTM" => recurrent!(lstm, proj_size: i64).map(|layer| {
            let (repr, run) = (layer.to_string(), Run::of(case));
            let forward = move |x: &[Option<Tensor>]| {
                run.forward(
                    x,
                    |x, states| {
                        let (output, LstmState { h, c }) = layer.try_forward(x, lstm_state(states).as_ref())?;
                        Ok((output, vec![h, c]))
                    },
                    |x, states| {
                        let (output, LstmState { h, c }) = layer.forward_packed(x, lstm_state(states).as_ref())?;
                        Ok((output, vec![h, c]))
                    },
                )
            };
            Layer { repr, forward: Box::new(forward) }
        }),
        "GRU" => one_state!(recurrent!(gru)),
        "RNN" => one_state!(recurrent!(rnn, nonlinearity: nn::Nonlinearity)),
        "LSTMCell" => cell!(lstm_cell).map(|cell| {
            let repr = cell.to_string();
            let forward = move |x: &[Option<Tensor>]| {
                let states: Vec<Tensor> = x[1..].iter().flatten().map(Tensor::shallow_clone).collect();
                let LstmState { h, c } = cell.try_forward(given(&x[0]), lstm_state(&states).as_ref())?;
                Ok(vec![h, c])
            };
            Layer { repr, forward: Box::new(forward) }
        }),
        "GRUCell" => one_state_cell!(cell!(gru_cell)),
        "RNNCell" => one_state_cell!(cell!(rnn_cell, nonlinearity: nn::Nonlinearity)),
        "MultiheadAttention" => attention(case, path),
        name if name.starts_with("Transformer") => transformer(case, path),
        _ => return None,
    })
}

fn lstm_state(states: &[Tensor]) -> Option<LstmState> {
    match states {
        [] => None,
        [h, c] => Some(LstmState { h: h.shallow_clone(), c: c.shallow_clone() }),
        other => panic!("{} states", other.len()),
    }
}

/// How a recurrent layer is run.
struct Run {
    lengths: Option<Vec<i64>>,
    of_sequences: bool,
    batch_first: bool,
}

impl Run {
    fn of(case: &Case) -> Run {
        Run {
            lengths: case.said("lengths"),
            of_sequences: case.said("sequences").unwrap_or(false),
            batch_first: case.option("batch_first").unwrap_or(false),
        }
    }

    fn forward(
        &self,
        x: &[Option<Tensor>],
        forward: impl Fn(&Tensor, &[Tensor]) -> Result<(Tensor, Vec<Tensor>), NnError>,
        packed: impl Fn(&PackedSequence, &[Tensor]) -> Result<(PackedSequence, Vec<Tensor>), NnError>,
    ) -> Result<Vec<Tensor>, NnError> {
        let x: Vec<Tensor> = x.iter().flatten().map(Tensor::shallow_clone).collect();
        if self.of_sequences {
            let (output, states) = packed(&nn::pack_sequence(&x)?, &[])?;
            return Ok([vec![output.data, output.batch_sizes], states].concat_tensors());
        }
        let (input, states) = (&x[0], &x[1..]);
        let Some(lengths) = &self.lengths else {
            let (output, states) = forward(input, states)?;
            return Ok([vec![output], states].concat_tensors());
        };
        let input = nn::pack_padded_sequence(input, lengths, self.batch_first)?;
        let (output, states) = packed(&input, states)?;
        let (padded, sizes) = nn::pad_packed_sequence(&output, self.batch_first, -3.0, Some(6))?;
        let PackedSequence { data, batch_sizes, sorted_indices, unsorted_indices } = output;
        let indices = [sorted_indices, unsorted_indices].into_iter().flatten().collect();
        let of_padded = vec![padded, Tensor::from_slice(&sizes)];
        Ok([vec![data, batch_sizes], indices, states, of_padded].concat_tensors())
    }
}

trait ConcatTensors {
    fn concat_tensors(self) -> Vec<Tensor>;
}

impl<const N: usize> ConcatTensors for [Vec<Tensor>; N] {
    fn concat_tensors(self) -> Vec<Tensor> {
        self.into_iter().flatten().collect()
    }
}

fn attention(case: &Case, path: &Path<'_>) -> Result<Layer, NnError> {
    let options = with!(
        case,
        nn::multihead_attention(case.arg(0), case.arg(1)),
        dropout: f64,
        bias: bool,
        add_bias_kv: bool,
        add_zero_attn: bool,
        kdim: i64,
        vdim: i64,
        batch_first: bool,
    );
    let layer = options.at(path)?;
    let [itself, causal] = ["itself", "is_causal"].map(|name| case.said(name).unwrap_or(false));
    let weights: Option<String> = case.said("weights");
    let repr = layer.to_string();
    let forward = move |x: &[Option<Tensor>]| -> Result<Vec<Tensor>, NnError> {
        if itself {
            let x = given(&x[0]);
            return Ok(vec![layer.try_forward(x, x, x, AttentionMask::none())?]);
        }
        let [q, k, v] = [0, 1, 2].map(|at| given(&x[at]));
        let mask = mask(x, 3, 4, causal);
        match weights.as_deref() {
            Some("heads") => {
                let (output, weights) = layer.try_forward_with_weights_of_heads(q, k, v, mask)?;
                Ok(vec![output, weights])
            }
            Some("mean") => {
                let (output, weights) = layer.try_forward_with_weights(q, k, v, mask)?;
                Ok(vec![output, weights])
            }
            _ => Ok(vec![layer.try_forward(q, k, v, mask)?]),
        }
    };
    Ok(Layer { repr, forward: Box::new(forward) })
}

/// The masks at two places of the inputs, which may be left out.
fn mask(x: &[Option<Tensor>], attn_mask: usize, key_padding_mask: usize, causal: bool) -> AttentionMask<'_> {
    let at = |at: usize| x.get(at).and_then(Option::as_ref);
    let mask = if causal { AttentionMask::causal() } else { AttentionMask::none() };
    mask.attn_mask(at(attn_mask)).key_padding_mask(at(key_padding_mask))
}

fn transformer(case: &Case, path: &Path<'_>) -> Result<Layer, NnError> {
    macro_rules! options {
        ($options:expr $(, $name:ident: $type:ty)*) => {
            with!(case, $options, dim_feedforward: i64, dropout: f64, activation: nn::Activation, layer_norm_eps: f64,
                batch_first: bool, norm_first: bool, bias: bool $(, $name: $type)*)
        };
    }
    macro_rules! layer {
        ($options:expr, $forward:expr) => {
            $options.at(path).map(|layer| Layer {
                repr: layer.to_string(),
                forward: Box::new(move |x| Ok(vec![$forward(&layer, x)?])),
            })
        };
    }
    let (d_model, nhead) = (case.arg::<i64>(0), case.arg::<i64>(1));
    let norm = case.said("norm").unwrap_or(false).then(|| nn::layer_norm(d_model));
    let encoder = options!(nn::transformer_encoder_layer(d_model, nhead));
    let decoder = options!(nn::transformer_decoder_layer(d_model, nhead));
    type X<'a> = &'a [Option<Tensor>];
    match case.name.as_str() {
        "TransformerEncoderLayer" => {
            layer!(encoder, |layer: &nn::TransformerEncoderLayer, x: X<'_>| layer
                .try_forward(given(&x[0]), mask(x, 1, 2, false)))
        }
        "TransformerEncoder" => {
            layer!(
                nn::transformer_encoder(encoder, case.arg(2)).norm(norm),
                |layer: &nn::TransformerEncoder, x: X<'_>| layer.try_forward(given(&x[0]), mask(x, 1, 2, false))
            )
        }
        "TransformerDecoderLayer" => {
            layer!(decoder, |layer: &nn::TransformerDecoderLayer, x: X<'_>| layer.try_forward(
                given(&x[0]),
                given(&x[1]),
                mask(x, 2, 4, false),
                mask(x, 3, 5, false)
            ))
        }
        "TransformerDecoder" => {
            layer!(
                nn::transformer_decoder(decoder, case.arg(2)).norm(norm),
                |layer: &nn::TransformerDecoder, x: X<'_>| layer.try_forward(
                    given(&x[0]),
                    given(&x[1]),
                    mask(x, 2, 4, false),
                    mask(x, 3, 5, false)
                )
            )
        }
        _ => {
            let options = options!(
                nn::transformer(d_model, nhead),
                num_encoder_layers: usize,
                num_decoder_layers: usize
            );
            layer!(options, |layer: &nn::Transformer, x: X<'_>| layer.try_forward(
                given(&x[0]),
                given(&x[1]),
                [mask(x, 2, 5, false), mask(x, 3, 9, false), mask(x, 4, 5, false)]
            ))
        }
    }
}
