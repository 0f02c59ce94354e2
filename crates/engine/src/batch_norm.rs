//! [`BatchNormRefresh`]: recomputes batch norm statistics over an epoch without updates.

use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::{Kind, Tensor};
use fulgurite_torch::{TorchError, grad::NoGradGuard, params, to_host_f64};

/// The running mean and variance of every batch norm, as the plain average over batches: what PyTorch computes with
/// `momentum=None`.
///
/// The momentum of `tch`'s layers cannot be changed from outside, nor read. A layer sets
/// `running = (1 - momentum) * running + momentum * batch`, so from zero it leaves `momentum * batch`. The momentum is
/// found by passing the first batch once more, from a `running` so large that the batch drowns in it: what is left is
/// `1 - momentum`. A layer whose momentum is `None` takes that from the batches it has counted: the count is 0 before each
/// batch here, so that its momentum is 1.
pub(crate) struct BatchNormRefresh {
    layers: Vec<Layer>,
    /// The number of batches in the averages.
    batches: u64,
    rehearsed: bool,
}

struct Layer {
    /// The running mean and running variance.
    running: [Tensor; 2],
    count: Option<Count>,
    /// The previous values; from the first batch on, the averages.
    average: [Tensor; 2],
    /// `None` for a layer that the training step leaves alone.
    momentum: Option<f64>,
}

/// The number of batches that a layer has counted, now and before.
struct Count {
    now: Tensor,
    before: Tensor,
}

/// The buffers of a batch norm.
#[derive(Debug)]
pub struct BatchNormBuffers {
    /// The layer's path with the dot at its end, if it has one.
    pub path: String,
    /// The running mean.
    pub running_mean: Tensor,
    /// The running variance.
    pub running_var: Tensor,
    /// How many batches are in them; layers of `tch` do not count.
    pub num_batches_tracked: Option<Tensor>,
}

impl BatchNormBuffers {
    /// All of them.
    pub fn into_tensors(self) -> impl Iterator<Item = Tensor> {
        [self.running_mean, self.running_var].into_iter().chain(self.num_batches_tracked)
    }
}

/// The batch norms of a store.
pub fn batch_norms(vars: &dyn Parameters) -> Vec<BatchNormBuffers> {
    let buffers = params::named_buffers(vars);
    let find =
        |name: String| buffers.iter().find(|(other, _)| *other == name).map(|(_, tensor)| tensor.shallow_clone());
    let with_var = |(name, mean): &(String, Tensor)| {
        let path = name.strip_suffix("running_mean").filter(|path| path.is_empty() || path.ends_with('.'))?;
        Some(BatchNormBuffers {
            running_mean: mean.shallow_clone(),
            running_var: find(format!("{path}running_var"))?,
            num_batches_tracked: find(format!("{path}num_batches_tracked")),
            path: path.to_owned(),
        })
    };
    buffers.iter().filter_map(with_var).collect()
}

impl BatchNormRefresh {
    /// Whether the momentum of each layer is known.
    pub(crate) fn is_rehearsed(&self) -> bool {
        self.rehearsed
    }

    /// Creates a refresh for the batch norms of a store, whose statistics already average `batches` batches.
    pub(crate) fn new(vars: &dyn Parameters, batches: u64) -> Result<BatchNormRefresh, TorchError> {
        let layer = |norm: BatchNormBuffers| {
            let average = [copy(&norm.running_mean)?, copy(&norm.running_var)?];
            let running = [norm.running_mean, norm.running_var];
            let count = norm.num_batches_tracked.map(|now| Ok::<_, TorchError>(Count { before: copy(&now)?, now }));
            Ok(Layer { running, count: count.transpose()?, average, momentum: None })
        };
        let layers = batch_norms(vars).into_iter().map(layer).collect::<Result<_, TorchError>>()?;
        Ok(BatchNormRefresh { layers, batches, rehearsed: false })
    }

    /// Called before the batch that determines the momenta.
    pub(crate) fn before_rehearsal(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        for layer in &mut self.layers {
            layer.forget_count()?;
            let var = &mut layer.running[1];
            let _ = var.f_fill_(large(var.kind()))?;
        }
        Ok(())
    }

    /// Computes the momenta from the remaining values.
    pub(crate) fn after_rehearsal(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        for layer in &mut self.layers {
            let var = &layer.running[1];
            let left = to_host_f64(&var.f_reshape([-1])?.f_select(0, 0)?)? / large(var.kind());
            // Momenta have few digits, and this one was rounded.
            let digits = digits(var.kind());
            let momentum = ((1.0 - left) * digits).round() / digits;
            layer.momentum = (momentum > 0.0).then_some(momentum);
            layer.put_back()?;
            layer.count(self.batches)?;
        }
        self.rehearsed = true;
        Ok(())
    }

    /// Called before a batch that counts.
    pub(crate) fn before_batch(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        for layer in self.layers.iter_mut().filter(|layer| layer.momentum.is_some()) {
            layer.forget_count()?;
            for running in &mut layer.running {
                let _ = running.f_zero_()?;
            }
        }
        Ok(())
    }

    /// Called after the batch. If it failed, the averages are unchanged.
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
            layer.count(self.batches)?;
        }
        Ok(())
    }
}

impl Layer {
    fn forget_count(&mut self) -> Result<(), TorchError> {
        if let Some(count) = &mut self.count {
            let _ = count.now.f_zero_()?;
        }
        Ok(())
    }

    /// Sets the count to the number of batches in the averages; that of a layer which is left alone is put back.
    fn count(&mut self, batches: u64) -> Result<(), TorchError> {
        match &mut self.count {
            Some(count) if self.momentum.is_some() => drop(count.now.f_fill_(batches as i64)?),
            Some(count) => count.now.f_copy_(&count.before)?,
            None => {}
        }
        Ok(())
    }

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

/// A power of two much larger than the variance of any batch.
fn large(kind: Kind) -> f64 {
    if kind == Kind::Half { 2f64.powi(14) } else { 2f64.powi(100) }
}

/// The inverse of the smallest digit of a momentum that is reliable.
fn digits(kind: Kind) -> f64 {
    match kind {
        Kind::Double => 1e12,
        Kind::Float => 1e6,
        Kind::Half => 1e3,
        _ => 1e2,
    }
}
