//! [`Parameter`]: a parameter to prune, and its mask.

use fulgurite_engine::Result;
use fulgurite_torch::grad::NoGradGuard;
use fulgurite_torch::tch::{Kind, Tensor};

/// A parameter to prune.
pub(super) struct Parameter {
    pub name: String,
    /// The module's tensor.
    pub tensor: Tensor,
    pub mask: Option<Mask>,
    /// Its initial values, on the CPU, if it may be reset to them.
    pub original: Option<Tensor>,
}

/// The mask of a parameter.
pub(super) struct Mask {
    /// True where the parameter is kept.
    pub keep: Tensor,
    /// True where it is zero.
    pub pruned: Tensor,
}

impl Parameter {
    pub(super) fn values(&self) -> Result<Tensor> {
        Ok(self.tensor.f_detach()?)
    }

    pub(super) fn mask_or_ones(&self) -> Result<Tensor> {
        match &self.mask {
            Some(mask) => Ok(mask.keep.shallow_clone()),
            None => Ok(self.values()?.f_ones_like()?.f_to_kind(Kind::Bool)?),
        }
    }

    /// Takes a mask, and applies it.
    pub(super) fn set_mask(&mut self, keep: Tensor) -> Result<()> {
        let pruned = keep.f_logical_not()?;
        self.mask = Some(Mask { keep, pruned });
        self.apply_mask()
    }

    /// Zeroes the pruned values, including NaN.
    pub(super) fn apply_mask(&mut self) -> Result<()> {
        let Some(mask) = &self.mask else { return Ok(()) };
        let _no_grad = NoGradGuard::new();
        let _same_tensor = self.tensor.f_masked_fill_(&mask.pruned, 0)?;
        Ok(())
    }

    /// Zeroes the gradient of the pruned values.
    pub(super) fn apply_mask_to_grad(&self) -> Result<()> {
        let Some(mask) = &self.mask else { return Ok(()) };
        let mut grad = self.tensor.f_grad()?;
        if grad.defined() {
            let _no_grad = NoGradGuard::new();
            let _same_tensor = grad.f_masked_fill_(&mask.pruned, 0)?;
        }
        Ok(())
    }

    /// The number of pruned values, and of all values.
    pub(super) fn pruned_count(&self) -> Result<(i64, i64)> {
        let Some(mask) = &self.mask else { return Ok((0, self.tensor.numel() as i64)) };
        Ok((mask.pruned.f_count_nonzero(None)?.f_int64_value(&[])?, self.tensor.numel() as i64))
    }
}
