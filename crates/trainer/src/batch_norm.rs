//! [`BatchNormRefresh`]: the statistics of batch norms computed anew, over an epoch in which nothing is trained.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fulgurite_torch::params::Parameters;
use fulgurite_torch::rng::RngState;
use fulgurite_torch::tch::{Kind, Tensor};
use fulgurite_torch::{TorchError, grad::NoGradGuard, params, to_host_f64};

use crate::engine::Engine;
use crate::error::Error;
use crate::loss::Loss;
use crate::module::LightningModule;

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
pub(crate) fn layers(vars: &dyn Parameters) -> Vec<(String, [Tensor; 2])> {
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
    /// For the batch norms of a store, whose statistics are averages over `batches` batches already.
    pub(crate) fn new(vars: &dyn Parameters, batches: u64) -> Result<BatchNormRefresh, TorchError> {
        let layer = |(_, [mean, var]): (String, [Tensor; 2])| {
            let average = [copy(&mean)?, copy(&var)?];
            Ok(Layer { running: [mean, var], average, momentum: None })
        };
        let layers = layers(vars).into_iter().map(layer).collect::<Result<_, TorchError>>()?;
        Ok(BatchNormRefresh { layers, batches, rehearsed: false })
    }

    /// Before a batch passes to find out the momenta.
    fn before_rehearsal(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        for Layer { running: [_, var], .. } in &mut self.layers {
            let _ = var.f_fill_(large(var.kind()))?;
        }
        Ok(())
    }

    fn after_rehearsal(&mut self) -> Result<(), TorchError> {
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
    fn before_batch(&mut self) -> Result<(), TorchError> {
        let _no_grad = NoGradGuard::new();
        for running in self.layers.iter_mut().filter(|layer| layer.momentum.is_some()).flat_map(|l| &mut l.running) {
            let _ = running.f_zero_()?;
        }
        Ok(())
    }

    /// After it. If it failed, the averages stay what they were.
    fn after_batch(&mut self, passed: bool) -> Result<(), TorchError> {
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

impl Engine {
    /// Passes a batch through `training_step` for the statistics of batch norms. There is no backward pass and no update,
    /// but the last batch of the epoch counts as a step, so that loggers and checkpoints see that something is new.
    pub(crate) fn refresh_batch_norm<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: &M::Batch,
    ) -> Result<Loss, Error> {
        let Some(mut refresh) = self.state.run.batch_norm.take() else { return Ok(Loss::skip()) };
        // The averages are put back even if the step panics, and `is_accumulating` needs to know of them.
        let logs_nothing = self.state.metrics.disabled;
        let passed = catch_unwind(AssertUnwindSafe(|| self.pass(module, batch, &mut refresh)));
        let put_back = if passed.is_err() { refresh.after_batch(false) } else { Ok(()) };
        self.state.run.batch_norm = Some(refresh);
        self.state.metrics.disabled = logs_nothing;
        let mut outputs = passed.unwrap_or_else(|panic| resume_unwind(panic))?;
        put_back?;
        if !self.state.is_accumulating() {
            self.state.run.progress.optimizer_step.ready();
            self.state.run.progress.optimizer_step.completed();
        }
        outputs.loss = outputs.loss.map(|loss| loss.f_detach().map_err(TorchError::from)).transpose()?;
        Ok(outputs)
    }

    fn pass<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: &M::Batch,
        refresh: &mut BatchNormRefresh,
    ) -> Result<Loss, Error> {
        if !refresh.rehearsed {
            // Nothing of it is kept: random numbers and logged values are those of a batch that passes once.
            let rng = RngState::capture()?;
            let logs_nothing = std::mem::replace(&mut self.state.metrics.disabled, true);
            refresh.before_rehearsal()?;
            let rehearsed = self.training_step(module, batch);
            self.state.metrics.disabled = logs_nothing;
            refresh.after_rehearsal()?;
            drop(rehearsed?);
            rng.restore()?;
        }
        refresh.before_batch()?;
        let outputs = self.training_step(module, batch);
        refresh.after_batch(outputs.is_ok())?;
        outputs
    }
}
