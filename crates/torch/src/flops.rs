//! Floating-point operations, counted from shapes: the figures of `torch.utils.flop_counter.FlopCounterMode`.
//!
//! Matrix products, convolutions and attention are counted, forward and backward, a multiplication and an addition
//! as two. All other operations are not counted.

use crate::error::TorchError;
use crate::record::{Argument, OpRecord, record_ops};

/// The floating-point operations of the calls in `run`, including those of a backward pass: Lightning's
/// `measure_flops`.
///
/// ```
/// use fulgurite_torch::flops::measure_flops;
/// use fulgurite_torch::grad::backward;
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let x = Tensor::ones([8, 32], (Kind::Float, Device::Cpu));
/// let w = Tensor::ones([32, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
/// assert_eq!(measure_flops(|| x.matmul(&w))?, 2 * 8 * 32 * 16);
/// assert_eq!(measure_flops(|| backward(&x.matmul(&w).sum(None)))?, 2 * (2 * 8 * 32 * 16));
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
///
/// # Errors
///
/// Fails if libtorch cannot register an observer.
pub fn measure_flops<R>(run: impl FnOnce() -> R) -> Result<u64, TorchError> {
    let (_, ops) = record_ops(run)?;
    Ok(ops.iter().map(op_flops).sum())
}

/// The floating-point operations of one operation, without those it called.
pub fn op_flops(op: &OpRecord) -> u64 {
    count(op).unwrap_or(0)
}

fn count(op: &OpRecord) -> Option<u64> {
    let shape = |index| op.input_shape(index);
    match op.name.strip_prefix("aten::")? {
        "mm" | "_scaled_mm" => matrix_product(shape(0)?, shape(1)?),
        "addmm" => matrix_product(shape(1)?, shape(2)?),
        "bmm" => matrix_product(shape(0)?, shape(1)?),
        "baddbmm" => matrix_product(shape(1)?, shape(2)?),
        "convolution" | "_convolution" | "cudnn_convolution" | "_slow_conv2d_forward" | "convolution_overrideable" => {
            let transposed = flag(op, 6);
            Some(convolution(shape(0)?, shape(1)?, op.output_shape(0)?, transposed))
        }
        "convolution_backward" => convolution_backward(op),
        "_scaled_dot_product_efficient_attention"
        | "_scaled_dot_product_flash_attention"
        | "_scaled_dot_product_flash_attention_for_cpu"
        | "_scaled_dot_product_cudnn_attention" => attention(shape(0)?, shape(1)?, shape(2)?),
        "_scaled_dot_product_efficient_attention_backward"
        | "_scaled_dot_product_flash_attention_backward"
        | "_scaled_dot_product_flash_attention_for_cpu_backward"
        | "_scaled_dot_product_cudnn_attention_backward" => attention_backward(shape(1)?, shape(2)?, shape(3)?),
        _ => None,
    }
}

fn flag(op: &OpRecord, index: usize) -> bool {
    matches!(op.inputs.get(index), Some(Argument::Bool(true)))
}

fn product(sizes: &[i64]) -> u64 {
    sizes.iter().map(|size| size.unsigned_abs()).product()
}

/// `[.., m, k]` times `[.., k, n]`.
fn matrix_product(a: &[i64], b: &[i64]) -> Option<u64> {
    Some(2 * product(a) * b.last()?.unsigned_abs())
}

fn convolution(input: &[i64], weight: &[i64], output: &[i64], transposed: bool) -> u64 {
    let places = if transposed { input } else { output };
    2 * product(input.get(..1).unwrap_or_default()) * product(places.get(2..).unwrap_or_default()) * product(weight)
}

/// The gradient of the input is a transposed convolution with the weight; that of the weight is a convolution of the
/// input with the gradient, batch and channels exchanged (of the gradient with the input, if it was transposed).
fn convolution_backward(op: &OpRecord) -> Option<u64> {
    let (grad, input, weight) = (op.input_shape(0)?, op.input_shape(1)?, op.input_shape(2)?);
    let transposed = flag(op, 7);
    let Some(Argument::Bools(wanted)) = op.inputs.get(10) else { return None };
    let mut flops = 0;
    if wanted.first() == Some(&true) {
        flops += convolution(grad, weight, op.output_shape(0)?, !transposed);
    }
    if wanted.get(1) == Some(&true) {
        let (image, kernel) = if transposed { (grad, input) } else { (input, grad) };
        flops += convolution(&swapped(image), &swapped(kernel), &swapped(op.output_shape(1)?), false);
    }
    Some(flops)
}

fn swapped(shape: &[i64]) -> Vec<i64> {
    let mut shape = shape.to_vec();
    if shape.len() > 1 {
        shape.swap(0, 1);
    }
    shape
}

/// `query` is `[batch, heads, queries, width]`; keys and values may have fewer heads, which are shared.
fn attention(query: &[i64], key: &[i64], value: &[i64]) -> Option<u64> {
    let scores = product(query) * key.get(2)?.unsigned_abs();
    let mixed = product(query.get(..3)?) * key.get(2)?.unsigned_abs() * value.get(3)?.unsigned_abs();
    Some(2 * (scores + mixed))
}

/// The scores once more, and two products for each of the two of the forward pass.
fn attention_backward(query: &[i64], key: &[i64], value: &[i64]) -> Option<u64> {
    let scores = product(query) * key.get(2)?.unsigned_abs();
    let mixed = product(query.get(..3)?) * key.get(2)?.unsigned_abs() * value.get(3)?.unsigned_abs();
    Some(2 * (3 * scores + 2 * mixed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad::backward;
    use crate::tch::{Device, Kind, Tensor};

    fn ones(shape: &[i64]) -> Tensor {
        Tensor::ones(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true)
    }

    #[test]
    fn what_is_no_product_counts_nothing() {
        assert_eq!(measure_flops(|| ones(&[100]).exp().sum(Kind::Float)).unwrap(), 0);
    }

    #[test]
    fn a_grouped_convolution_has_a_smaller_weight() {
        let (x, w) = (ones(&[2, 4, 8, 8]), ones(&[6, 2, 3, 3]));
        let forward = 2 * 2 * 6 * 2 * 9 * 36;
        assert_eq!(
            measure_flops(|| x.conv2d(&w, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 2)).unwrap(),
            forward,
            "2 images, 6 x 6 places, 6 filters of 2 x 3 x 3"
        );
    }

    #[test]
    fn the_first_layer_needs_no_gradient_of_its_input() {
        let (x, w) = (ones(&[4, 8]).detach(), ones(&[8, 2]));
        assert_eq!(measure_flops(|| backward(&x.matmul(&w).sum(Kind::Float))).unwrap(), 2 * (2 * 4 * 8 * 2));
    }
}
