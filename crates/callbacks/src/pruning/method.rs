//! Pruning methods, as in `torch.nn.utils.prune`.
//!
//! A mask is `bool`, true where a number is kept. Random choices draw from libtorch's generator exactly as PyTorch's
//! do.

use fulgurite_torch::tch::{Kind, Tensor};

use super::options::{ModelPruningOptions, PruningAmount, PruningFn};
use fulgurite_engine::{Error, Result};

/// A function custom from the numbers that are left, in a row, to the mask of those to keep.
pub(super) type CustomFn = Box<dyn FnMut(&Tensor, PruningAmount) -> Result<Tensor> + Send>;

/// An unstructured pruning method.
pub(super) enum Unstructured<'a> {
    Smallest,
    Random,
    Custom(&'a mut CustomFn),
}

impl Unstructured<'_> {
    /// `mask`, without those among the kept numbers of `values` that are chosen.
    pub(super) fn prune(self, values: &Tensor, mask: &Tensor, amount: PruningAmount, what: &str) -> Result<Tensor> {
        let left = values.f_masked_select(mask)?;
        let count = amount.of(left.numel() as i64, what)?;
        let keep = match self {
            Unstructured::Custom(choose) => {
                let keep = choose(&left, amount)?;
                if keep.size() != left.size() {
                    return Err(Error::Config(format!(
                        "the pruning method of ModelPruning returned a mask of shape {:?} for {:?} numbers; return one value for each, 0 for those to prune",
                        keep.size(),
                        left.size()
                    ))
                    .into());
                }
                keep.f_to_kind(Kind::Bool)?.f_to_device(mask.device())?
            }
            _ if count == 0 => return Ok(mask.shallow_clone()),
            Unstructured::Smallest => without(&left, &left.f_abs()?.f_topk(count, 0, false, true)?.1)?,
            Unstructured::Random => without(&left, &left.f_rand_like()?.f_topk(count, 0, true, true)?.1)?,
        };
        Ok(mask.f_masked_scatter(mask, &keep)?)
    }
}

/// The mask of everything but `indices`.
fn without(values: &Tensor, indices: &Tensor) -> Result<Tensor> {
    Ok(values.f_ones_like()?.f_to_kind(Kind::Bool)?.f_index_fill(0, indices, 0)?)
}

/// `mask`, without the slices along a dimension that are chosen among those not pruned whole.
pub(super) fn prune_slices(
    values: &Tensor,
    mask: &Tensor,
    options: &ModelPruningOptions,
    amount: PruningAmount,
    what: &str,
) -> Result<Tensor> {
    let dim = slice_dim(values, options, what)?;
    let others: Vec<i64> = (0..values.dim() as i64).filter(|other| *other != dim).collect();
    let is_kept = mask.f_sum_dim_intlist(others.as_slice(), false, Kind::Int64)?.f_ne(0)?;
    let slices = is_kept.f_nonzero()?.f_view([-1])?;
    let left = values.f_index_select(dim, &slices)?;
    let size = left.size()[dim as usize];
    let count = amount.of(size, what)?;
    if count == 0 {
        return Ok(mask.shallow_clone());
    }
    let chosen = match options.pruning_fn {
        PruningFn::LnStructured => {
            let norm = left.f_norm_scalaropt_dim(options.pruning_norm.unwrap_or(2.0), others.as_slice(), false)?;
            let keep = norm.f_topk(size - count, 0, true, true)?.1;
            norm.f_ones_like()?.f_to_kind(Kind::Bool)?.f_index_fill(0, &keep, 0)?
        }
        _ => {
            let draws = Tensor::f_rand([size], (Kind::Float, fulgurite_torch::tch::Device::Cpu))?;
            let threshold = draws.f_kthvalue(count, 0, false)?.0;
            draws.f_le_tensor(&threshold)?.f_to_device(mask.device())?
        }
    };
    Ok(mask.f_index_fill(dim, &slices.f_masked_select(&chosen)?, 0)?)
}

/// The dimension of structured pruning, from the front.
pub(super) fn slice_dim(values: &Tensor, options: &ModelPruningOptions, what: &str) -> Result<i64, Error> {
    let (dims, shape) = (values.dim() as i64, values.size());
    if dims < 2 {
        return Err(Error::Config(format!(
            "ModelPruning with {} takes slices of at least two dimensions, and {what} has shape {shape:?}; leave it out, for example with `parameter_names([\"weight\"])`",
            options.pruning_fn.name()
        )));
    }
    let dim = options.pruning_dim.unwrap_or(0);
    let from_front = if dim < 0 { dim + dims } else { dim };
    if (0..dims).contains(&from_front) {
        return Ok(from_front);
    }
    Err(Error::Config(format!(
        "ModelPruning::pruning_dim({dim}) is not a dimension of {what}, which has shape {shape:?}; write one from {} to {}",
        -dims,
        dims - 1
    )))
}
