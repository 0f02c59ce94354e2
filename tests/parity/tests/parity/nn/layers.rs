//! The layers of a case that make one tensor of another.

use fulgurite_nn::{
    self as nn, BagMode, Build, ConvPadding, NnError, OneOrEach, OutputSize, PadSize, PaddingMode, Size,
};
use fulgurite_torch::Path;

use super::case::{Case, Layer, given, with};

/// A layer of one input.
macro_rules! plain {
    ($path:expr, $options:expr) => {
        $options.at($path).map(|layer| Layer {
            repr: layer.to_string(),
            forward: Box::new(move |x| Ok(vec![layer.try_forward(given(&x[0]))?])),
        })
    };
}

pub(super) fn build(case: &Case, path: &Path<'_>) -> Option<Result<Layer, NnError>> {
    macro_rules! layer {
        ($options:expr $(, $name:ident: $type:ty)* $(,)?) => {
            plain!(path, with!(case, $options $(, $name: $type)*))
        };
    }
    macro_rules! conv {
        ($new:ident, $n:literal) => {
            layer!(
                nn::$new(case.arg(0), case.arg(1), case.arg::<Size<$n>>(2)),
                stride: Size<$n>,
                padding: ConvPadding<$n>,
                dilation: Size<$n>,
                groups: i64,
                bias: bool,
                padding_mode: PaddingMode,
            )
        };
    }
    macro_rules! batch_norm {
        ($new:ident) => {
            layer!(nn::$new(case.arg(0)), eps: f64, momentum: Option<f64>, affine: bool, track_running_stats: bool)
        };
    }
    macro_rules! instance_norm {
        ($new:ident) => {
            layer!(nn::$new(case.arg(0)), eps: f64, momentum: f64, affine: bool, track_running_stats: bool)
        };
    }
    macro_rules! pad {
        ($new:ident, $sides:literal) => {
            layer!(nn::$new(case.arg::<PadSize<$sides>>(0)))
        };
        ($new:ident, $sides:literal, value) => {
            layer!(nn::$new(case.arg::<PadSize<$sides>>(0), case.arg(1)))
        };
    }
    Some(match case.name.as_str() {
        "Conv1d" => conv!(conv1d, 1),
        "Conv2d" => conv!(conv2d, 2),
        "Conv3d" => conv!(conv3d, 3),
        "ConvTranspose1d" | "ConvTranspose2d" | "ConvTranspose3d" => transposed(case, path),
        "Linear" => layer!(nn::linear(case.arg(0), case.arg(1)), bias: bool),
        "Bilinear" => {
            with!(case, nn::bilinear(case.arg(0), case.arg(1), case.arg(2)), bias: bool).at(path).map(|layer| {
                let repr = layer.to_string();
                Layer { repr, forward: Box::new(move |x| Ok(vec![layer.try_forward(given(&x[0]), given(&x[1]))?])) }
            })
        }
        "BatchNorm1d" => batch_norm!(batch_norm1d),
        "BatchNorm2d" => batch_norm!(batch_norm2d),
        "BatchNorm3d" => batch_norm!(batch_norm3d),
        "InstanceNorm1d" => instance_norm!(instance_norm1d),
        "InstanceNorm2d" => instance_norm!(instance_norm2d),
        "InstanceNorm3d" => instance_norm!(instance_norm3d),
        "GroupNorm" => layer!(nn::group_norm(case.arg(0), case.arg(1)), eps: f64, affine: bool),
        "LayerNorm" => {
            layer!(nn::layer_norm(case.arg::<nn::NormalizedShape>(0)), eps: f64, elementwise_affine: bool, bias: bool)
        }
        "RMSNorm" => layer!(nn::rms_norm(case.arg::<nn::NormalizedShape>(0)), eps: f64, elementwise_affine: bool),
        "LocalResponseNorm" => layer!(nn::local_response_norm(case.arg(0)), alpha: f64, beta: f64, k: f64),
        "PReLU" => layer!(nn::prelu(), num_parameters: i64, init: f64),
        "RReLU" => layer!(nn::rrelu(case.given("lower"), case.given("upper"))),
        "Dropout" => layer!(nn::dropout(case.given("p"))),
        "Dropout1d" => layer!(nn::dropout1d(case.given("p"))),
        "Dropout2d" => layer!(nn::dropout2d(case.given("p"))),
        "Dropout3d" => layer!(nn::dropout3d(case.given("p"))),
        "AlphaDropout" => layer!(nn::alpha_dropout(case.given("p"))),
        "FeatureAlphaDropout" => layer!(nn::feature_alpha_dropout(case.given("p"))),
        "Embedding" => layer!(
            nn::embedding(case.arg(0), case.arg(1)),
            padding_idx: i64,
            max_norm: f64,
            norm_type: f64,
            scale_grad_by_freq: bool,
            sparse: bool,
        ),
        "EmbeddingBag" => bag(case, path),
        "AdaptiveLogSoftmaxWithLoss" => {
            let options = nn::adaptive_log_softmax_with_loss(case.arg(0), case.arg(1), &case.arg::<Vec<i64>>(2));
            with!(case, options, div_value: f64, head_bias: bool).at(path).map(|layer| Layer {
                repr: layer.to_string(),
                forward: Box::new(move |x| {
                    layer.try_forward(given(&x[0]), given(&x[1])).map(|(log_probs, loss)| vec![log_probs, loss])
                }),
            })
        }
        "ZeroPad1d" => pad!(zero_pad1d, 2),
        "ZeroPad2d" => pad!(zero_pad2d, 4),
        "ZeroPad3d" => pad!(zero_pad3d, 6),
        "ConstantPad1d" => pad!(constant_pad1d, 2, value),
        "ConstantPad2d" => pad!(constant_pad2d, 4, value),
        "ConstantPad3d" => pad!(constant_pad3d, 6, value),
        "ReflectionPad1d" => pad!(reflection_pad1d, 2),
        "ReflectionPad2d" => pad!(reflection_pad2d, 4),
        "ReflectionPad3d" => pad!(reflection_pad3d, 6),
        "ReplicationPad1d" => pad!(replication_pad1d, 2),
        "ReplicationPad2d" => pad!(replication_pad2d, 4),
        "ReplicationPad3d" => pad!(replication_pad3d, 6),
        "CircularPad1d" => pad!(circular_pad1d, 2),
        "CircularPad2d" => pad!(circular_pad2d, 4),
        "CircularPad3d" => pad!(circular_pad3d, 6),
        "Flatten" => {
            layer!(nn::flatten_dims(case.option("start_dim").unwrap_or(1), case.option("end_dim").unwrap_or(-1)))
        }
        "Unflatten" => layer!(nn::unflatten(case.arg(0), &case.arg::<Vec<i64>>(1))),
        "PixelShuffle" => layer!(nn::pixel_shuffle(case.arg(0))),
        "PixelUnshuffle" => layer!(nn::pixel_unshuffle(case.arg(0))),
        "ChannelShuffle" => layer!(nn::channel_shuffle(case.arg(0))),
        "Unfold" => {
            layer!(nn::unfold(case.arg::<Size<2>>(0)), dilation: Size<2>, padding: Size<2>, stride: Size<2>)
        }
        "Fold" => {
            let options = nn::fold(case.arg::<Size<2>>(0), case.arg::<Size<2>>(1));
            layer!(options, dilation: Size<2>, padding: Size<2>, stride: Size<2>)
        }
        _ => plain!(path, activation(case)?),
    })
}

fn activation(case: &Case) -> Option<nn::Activation> {
    Some(match case.name.as_str() {
        "ReLU" => nn::relu(),
        "ReLU6" => nn::relu6(),
        "Sigmoid" => nn::sigmoid(),
        "LogSigmoid" => nn::log_sigmoid(),
        "Tanh" => nn::tanh(),
        "Tanhshrink" => nn::tanhshrink(),
        "Softsign" => nn::softsign(),
        "GELU" if case.option("approximate") == Some("tanh".to_owned()) => nn::gelu_tanh(),
        "GELU" => nn::gelu(),
        "SiLU" => nn::silu(),
        "Mish" => nn::mish(),
        "SELU" => nn::selu(),
        "Hardsigmoid" => nn::hardsigmoid(),
        "Hardswish" => nn::hardswish(),
        "Identity" => nn::identity(),
        "Softmax2d" => nn::softmax2d(),
        "LeakyReLU" => nn::leaky_relu(case.given("negative_slope")),
        "ELU" => nn::elu(case.given("alpha")),
        "CELU" => nn::celu(case.given("alpha")),
        "Hardtanh" => nn::hardtanh(case.given("min_val"), case.given("max_val")),
        "Hardshrink" => nn::hardshrink(case.given("lambd")),
        "Softshrink" => nn::softshrink(case.given("lambd")),
        "Softplus" => nn::softplus(case.given("beta"), case.given("threshold")),
        "Threshold" => nn::threshold(case.arg(0), case.arg(1)),
        "GLU" => nn::glu(case.given("dim")),
        "Softmax" => nn::softmax(case.given("dim")),
        "Softmin" => nn::softmin(case.given("dim")),
        "LogSoftmax" => nn::log_softmax(case.given("dim")),
        _ => return None,
    })
}

fn transposed(case: &Case, path: &Path<'_>) -> Result<Layer, NnError> {
    macro_rules! transposed {
        ($new:ident, $n:literal) => {{
            let options = nn::$new(case.arg(0), case.arg(1), case.arg::<Size<$n>>(2));
            let options = with!(case, options, stride: Size<$n>, padding: Size<$n>, output_padding: Size<$n>,
                dilation: Size<$n>, groups: i64, bias: bool);
            let layer = options.at(path)?;
            let wanted = case.said::<[i64; $n]>("output_size");
            let repr = layer.to_string();
            let forward = move |x: &[_]| match wanted {
                None => Ok(vec![layer.try_forward(given(&x[0]))?]),
                Some(size) => Ok(vec![layer.try_forward_to_size(given(&x[0]), size)?]),
            };
            Layer { repr, forward: Box::new(forward) }
        }};
    }
    Ok(match case.name.as_str() {
        "ConvTranspose1d" => transposed!(conv_transpose1d, 1),
        "ConvTranspose2d" => transposed!(conv_transpose2d, 2),
        _ => transposed!(conv_transpose3d, 3),
    })
}

fn bag(case: &Case, path: &Path<'_>) -> Result<Layer, NnError> {
    let options = with!(
        case,
        nn::embedding_bag(case.arg(0), case.arg(1)),
        padding_idx: i64,
        max_norm: f64,
        norm_type: f64,
        scale_grad_by_freq: bool,
        mode: BagMode,
        sparse: bool,
        include_last_offset: bool,
    );
    let layer = options.at(path)?;
    let repr = layer.to_string();
    let forward = move |x: &[Option<_>]| Ok(vec![layer.try_forward(given(&x[0]), x[1].as_ref(), x[2].as_ref())?]);
    Ok(Layer { repr, forward: Box::new(forward) })
}

pub(super) fn build_pool(case: &Case, path: &Path<'_>) -> Option<Result<Layer, NnError>> {
    macro_rules! pool {
        ($options:expr $(, $name:ident: $type:ty)* $(,)?) => {{
            let indices = case.said("return_indices").unwrap_or(false);
            with!(case, $options $(, $name: $type)*).at(path).map(|pool| Layer {
                repr: pool.to_string(),
                forward: Box::new(move |x| match indices {
                    false => Ok(vec![pool.try_forward(given(&x[0]))?]),
                    true => pool.try_forward_with_indices(given(&x[0])).map(|(values, indices)| vec![values, indices]),
                }),
            })
        }};
    }
    macro_rules! max_pool {
        ($new:ident, $n:literal) => {
            pool!(
                nn::$new(case.arg::<Size<$n>>(0)),
                stride: Size<$n>,
                padding: Size<$n>,
                dilation: Size<$n>,
                ceil_mode: bool,
            )
        };
    }
    macro_rules! avg_pool {
        ($new:ident, $n:literal) => {
            pool!(
                nn::$new(case.arg::<Size<$n>>(0)),
                stride: Size<$n>,
                padding: Size<$n>,
                ceil_mode: bool,
                count_include_pad: bool,
                divisor_override: i64,
            )
        };
    }
    macro_rules! lp_pool {
        ($new:ident, $n:literal) => {
            pool!(nn::$new(case.arg(0), case.arg::<Size<$n>>(1)), stride: Size<$n>, ceil_mode: bool)
        };
    }
    macro_rules! adaptive {
        ($new:ident, $n:literal) => {
            pool!(nn::$new(case.arg::<OutputSize<$n>>(0)))
        };
    }
    macro_rules! unpool {
        ($new:ident, $n:literal) => {{
            let pool = with!(case, nn::$new(case.arg::<Size<$n>>(0)), stride: Size<$n>, padding: Size<$n>);
            let size = case.said::<[i64; $n]>("output_size");
            let repr = pool.to_string();
            let forward = move |x: &[_]| Ok(vec![pool.try_forward(given(&x[0]), given(&x[1]), size)?]);
            Ok(Layer { repr, forward: Box::new(forward) })
        }};
    }
    Some(match case.name.as_str() {
        "MaxPool1d" => max_pool!(max_pool1d, 1),
        "MaxPool2d" => max_pool!(max_pool2d, 2),
        "MaxPool3d" => max_pool!(max_pool3d, 3),
        "AvgPool1d" => avg_pool!(avg_pool1d, 1),
        "AvgPool2d" => avg_pool!(avg_pool2d, 2),
        "AvgPool3d" => avg_pool!(avg_pool3d, 3),
        "LPPool1d" => lp_pool!(lp_pool1d, 1),
        "LPPool2d" => lp_pool!(lp_pool2d, 2),
        "LPPool3d" => lp_pool!(lp_pool3d, 3),
        "AdaptiveMaxPool1d" => adaptive!(adaptive_max_pool1d, 1),
        "AdaptiveMaxPool2d" => adaptive!(adaptive_max_pool2d, 2),
        "AdaptiveMaxPool3d" => adaptive!(adaptive_max_pool3d, 3),
        "AdaptiveAvgPool1d" => adaptive!(adaptive_avg_pool1d, 1),
        "AdaptiveAvgPool2d" => adaptive!(adaptive_avg_pool2d, 2),
        "AdaptiveAvgPool3d" => adaptive!(adaptive_avg_pool3d, 3),
        "FractionalMaxPool2d" => {
            pool!(nn::fractional_max_pool2d(case.arg::<Size<2>>(0)), output_size: Size<2>, output_ratio: f64)
        }
        "FractionalMaxPool3d" => {
            pool!(nn::fractional_max_pool3d(case.arg::<Size<3>>(0)), output_size: Size<3>, output_ratio: f64)
        }
        "MaxUnpool1d" => unpool!(max_unpool1d, 1),
        "MaxUnpool2d" => unpool!(max_unpool2d, 2),
        "MaxUnpool3d" => unpool!(max_unpool3d, 3),
        "Upsample" => plain!(path, upsample(case)),
        _ => return None,
    })
}

fn upsample(case: &Case) -> nn::Upsample {
    let upsample = match case.option::<OneOrEach<i64>>("size") {
        Some(size) => nn::upsample_to(size),
        None => nn::upsample(case.given::<OneOrEach<f64>>("scale_factor")),
    };
    with!(case, upsample, mode: nn::UpsampleMode, align_corners: bool, recompute_scale_factor: bool)
}
