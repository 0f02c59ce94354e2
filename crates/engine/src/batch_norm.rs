//! [`BatchNormRefresh`]: the statistics of batch norms computed anew, over an epoch in which nothing is trained.

use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::{Kind, Tensor};
use fulgurite_torch::{TorchError, grad::NoGradGuard, params, to_host_f64};

/// The running mean and variance of every batch norm, as the plain average of what batches have: what PyTorch computes
/// with `momentum=None`.
///
/// The momentum of `tch`'s layers cannot be changed from outside, nor read. A layer sets
/// `running = (1 - momentum) * running + momentum * batch`, so from zero it leaves `momentum * batch`. The momentum is
/// found by passing the first batch once more, from a `running` so large that the batch drowns in it: what is left is
/// `1 - momentum`.
pub(crate) struct BatchNormRefresh {
    layers: Vec<Layer>,
    /// Batches in the averages.
    batches: u64,
    rehearsed: bool,
}

struct Layer {
    /// Running mean and running variance.
    running: [Tensor; 2],
    /// What they were; from the first batch on, their averages.
    average: [Tensor; 2],
    /// `None` for a layer that the training step leaves alone.
    momentum: Option<f64>,
}

/// The batch norms of a store: the path of each with the dot at its end, its running mean and its running variance.
pub fn batch_norms(vars: &dyn Parameters) -> Vec<(String, [Tensor; 2])> {
    let buffers = params::named_buffers(vars);
    let find =
        |name: String| buffers.iter().find(|(other, _)| *other == name).map(|(_, tensor)| tensor.shallow_clone());
    let with_var = |(name, mean): &(String, Tensor)| {
        let path = name.strip_suffix("running_mean").filter(|path| path.is_empty() || path.ends_with('.'))?;
        Some((path.to_owned(), [mean.shallow_clone(), find(format!("{path}running_var"))?]))
    };
    buffers.iter().filter_map(with_var).collect()
}

impl BatchNormRefresh {
    /// Whether the momenta are known.
    pub(crate) fn is_rehearsed(&self) -> bool {
        self.rehearsed
    }

    /// For the batch norms of a store, whose statistics are averages over `batches` batches already.
    pub(crate) fn new(vars: &dyn Parameters, batches: u64) -> Result<BatchNormRefresh, TorchError> {
        let layer = |(_, [mean, var]): (String, [Tensor; 2])| {
            let average = [copy(&mean)?, copy(&var)?];
            Ok(Layer { running: [mean, var], average, momentum: None })
        };
        let layers = batch_norms(vars).into_iter().map(layer).collect::<Result<_, TorchError>>()?;
        Ok(BatchNormRefresh { layers, batches, rehearsed: false })
    }

    /// Before a batch passes to find out the momenta.
    pub(crate) fn before_rehearsal(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        for Layer { running: [_, var], .. } in &mut self.layers {
            let _ = var.f_fill_(large(var.kind()))?;
        }
        Ok(())
    }

    /// Takes the momenta from what is left.
    pub(crate) fn after_rehearsal(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        for layer in &mut self.layers {
            let var = &layer.running[1];
            let left = to_host_f64(&var.f_reshape([-1])?.f_select(0, 0)?)? / large(var.kind());
            // Momenta are short numbers, and this one was rounded.
            let digits = digits(var.kind());
            let momentum = ((1.0 - left) * digits).round() / digits;
            layer.momentum = (momentum > 0.0).then_some(momentum);
            layer.put_back()?;
        }
        self.rehearsed = true;
        Ok(())
    }

    /// Before a batch passes that counts.
    pub(crate) fn before_batch(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        for running in self.layers.iter_mut().filter(|layer| layer.momentum.is_some()).flat_map(|l| &mut l.running) {
            let _ = running.f_zero_()?;
        }
        Ok(())
    }

    /// After the batch. If it failed, the averages stay what they were.
    pub(crate) fn after_batch(&mut self, passed: bool) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        self.batches += u64::from(passed);
        for layer in &mut self.layers {
            if let Some(momentum) = layer.momentum.filter(|_| passed) {
                for (running, average) in layer.running.iter().zip(&mut layer.average) {
                    let change = running.f_div_scalar(momentum)?.f_sub(average)?;
                    let _ = average.f_add_(&change.f_div_scalar(self.batches as f64)?)?;
                }
            }
            layer.put_back()?;
        }
        Ok(())
    }
}

impl Layer {
    fn put_back(&mut self) -> Result<(), TorchError> {
        for (running, average) in self.running.iter_mut().zip(&self.average) {
            running.f_copy_(average)?;
        }
        Ok(())
    }
}

fn copy(tensor: &Tensor) -> Result<Tensor, TorchError> {
    let mut copy = tensor.f_zeros_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}

/// A power of two next to which the variance of a batch is nothing.
fn large(kind: Kind) -> f64 {
    if kind == Kind::Half { 2f64.powi(14) } else { 2f64.powi(100) }
}

/// One over the last digit of a momentum that is sure.
fn digits(kind: Kind) -> f64 {
    match kind {
        Kind::Double => 1e12,
        Kind::Float => 1e6,
        Kind::Half => 1e3,
        _ => 1e2,
    }
}
