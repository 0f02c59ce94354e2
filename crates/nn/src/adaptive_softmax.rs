//! [`AdaptiveLogSoftmaxWithLoss`].

use std::fmt;

use fulgurite_torch::Path;
use fulgurite_torch::tch::{Kind, TchError, Tensor};

use crate::error::Result;
use crate::linear::{Linear, linear};
use crate::module::{Build, Label, debug, module_list, output, setters, tree};

/// A softmax over very many classes whose rare ones stand in clusters (Grave et al. 2017): PyTorch's
/// `nn.AdaptiveLogSoftmaxWithLoss`. Classes are ordered by how often they occur, the most frequent first.
///
/// ```
/// use fulgurite_nn::{self as nn, Build};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let softmax = nn::adaptive_log_softmax_with_loss(32, 1000, &[100, 500]).at(vars.root() / "out")?;
/// let hidden = Tensor::randn([8, 32], (Kind::Float, Device::Cpu));
/// let (log_probs, loss) = softmax.forward(&hidden, &Tensor::from_slice(&[0i64, 7, 99, 100, 499, 500, 998, 999]));
/// assert_eq!((log_probs.size(), loss.dim()), (vec![8], 0));
/// assert_eq!(softmax.log_prob(&hidden).size(), [8, 1000]);
/// # Ok::<(), nn::NnError>(())
/// ```
pub struct AdaptiveLogSoftmaxWithLoss {
    /// Scores of the frequent classes, then of the clusters.
    head: Linear,
    /// For each cluster two matrices, one after the other.
    tail: Vec<[Linear; 2]>,
    /// Where clusters begin and the last ends.
    cutoffs: Vec<i64>,
    label: Label,
}

/// The options of an [`AdaptiveLogSoftmaxWithLoss`].
#[derive(Debug, Clone)]
pub struct AdaptiveLogSoftmaxOptions {
    in_features: i64,
    n_classes: i64,
    cutoffs: Vec<i64>,
    div_value: f64,
    head_bias: bool,
}

/// An [`AdaptiveLogSoftmaxWithLoss`] of `n_classes` classes, whose clusters begin at `cutoffs`.
pub fn adaptive_log_softmax_with_loss(in_features: i64, n_classes: i64, cutoffs: &[i64]) -> AdaptiveLogSoftmaxOptions {
    AdaptiveLogSoftmaxOptions { in_features, n_classes, cutoffs: cutoffs.into(), div_value: 4.0, head_bias: false }
}

impl AdaptiveLogSoftmaxOptions {
    setters! {
        /// How much narrower each cluster's projection is than the one before; the default is 4.
        div_value: f64;
        /// Whether the head has a bias; the default is `false`.
        head_bias: bool;
    }

    fn check(&self, label: &Label) -> Result<()> {
        label.check_positive(&[("in_features", self.in_features), ("n_classes", self.n_classes)])?;
        let cutoffs = &self.cutoffs;
        let ascending = cutoffs.first().is_some_and(|first| *first > 0) && cutoffs.is_sorted_by(|a, b| a < b);
        if !ascending || cutoffs.last().is_some_and(|last| *last >= self.n_classes) {
            let message = format!(
                "cutoffs are {cutoffs:?}; they must be one or more numbers that increase, from 1 to n_classes - 1 ({})",
                self.n_classes - 1
            );
            return Err(label.options(message));
        }
        if self.div_value < 1.0 {
            return Err(label.options(format!("div_value is {}; it must be at least 1", self.div_value)));
        }
        Ok(())
    }
}

impl Build for AdaptiveLogSoftmaxOptions {
    type Layer = AdaptiveLogSoftmaxWithLoss;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<AdaptiveLogSoftmaxWithLoss> {
        let path = path.into();
        let label = Label::new(&path, format!("AdaptiveLogSoftmaxWithLoss({} classes)", self.n_classes));
        self.check(&label)?;
        let cutoffs = [&self.cutoffs[..], &[self.n_classes]].concat();
        let head_size = cutoffs[0] + self.cutoffs.len() as i64;
        let head = linear(self.in_features, head_size).bias(self.head_bias).at(&path / "head")?;
        let mut tail = Vec::new();
        for (cluster, bounds) in cutoffs.windows(2).enumerate() {
            let width = (self.in_features as f64 / self.div_value.powi(cluster as i32 + 1)) as i64;
            let path = &path / "tail" / cluster;
            let narrow = linear(self.in_features, width).bias(false).at(&path / 0)?;
            tail.push([narrow, linear(width, bounds[1] - bounds[0]).bias(false).at(&path / 1)?]);
        }
        Ok(AdaptiveLogSoftmaxWithLoss { head, tail, cutoffs, label })
    }
}

impl AdaptiveLogSoftmaxWithLoss {
    /// For inputs `[batch, in_features]` and their classes `[batch]`, or without the batch, the log-probabilities of these
    /// classes, and the loss: their negative mean.
    ///
    /// # Panics
    ///
    /// Panics if the inputs do not fit.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> (Tensor, Tensor) {
        output(self.try_forward(input, target))
    }

    /// [`forward`](AdaptiveLogSoftmaxWithLoss::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the inputs do not fit, or a target is no class.
    pub fn try_forward(&self, input: &Tensor, target: &Tensor) -> Result<(Tensor, Tensor)> {
        let is_sample = target.dim() == 0;
        let (input, target) = if is_sample {
            (input.unsqueeze(0), target.unsqueeze(0))
        } else {
            (input.shallow_clone(), target.shallow_clone())
        };
        self.check(&input, &target)?;
        let log_probs = self.label.forward("adaptive_log_softmax", self.of_targets(&input, &target))?;
        let loss = log_probs.neg().mean(log_probs.kind());
        Ok((if is_sample { log_probs.squeeze_dim(0) } else { log_probs }, loss))
    }

    /// The log-probabilities `[batch, n_classes]` of all classes.
    ///
    /// # Panics
    ///
    /// Panics if the input does not fit.
    pub fn log_prob(&self, input: &Tensor) -> Tensor {
        output(self.label.forward("adaptive_log_softmax", self.of_all(input)))
    }

    /// The most probable class of each input: `[batch]`.
    ///
    /// # Panics
    ///
    /// Panics if the input does not fit.
    pub fn predict(&self, input: &Tensor) -> Tensor {
        self.log_prob(input).argmax(1, false)
    }

    fn check(&self, input: &Tensor, target: &Tensor) -> Result<()> {
        let (size, targets) = (input.size(), target.size());
        if size.len() != 2 || targets.len() != 1 || size[0] != targets[0] {
            let message =
                format!("expected an input [batch, features] and a target [batch], not {size:?} and {targets:?}");
            return Err(self.label.input(message));
        }
        let classes = self.cutoffs.last().copied().unwrap_or(0);
        if target.numel() > 0 {
            let [least, most] = [target.min(), target.max()].map(|value| value.int64_value(&[]));
            if least < 0 || most >= classes {
                let wrong = if least < 0 { least } else { most };
                return Err(self.label.input(format!("the target {wrong} is no class; they are 0 to {}", classes - 1)));
            }
        }
        Ok(())
    }

    fn of_targets(&self, input: &Tensor, target: &Tensor) -> Result<Tensor, TchError> {
        let frequent = self.cutoffs[0];
        let mut place = target.shallow_clone();
        let mut within = Tensor::f_zeros([input.size()[0]], (input.kind(), input.device()))?;
        for ((cluster, layers), bounds) in (0..).zip(&self.tail).zip(self.cutoffs.windows(2)) {
            let is_here = target.f_ge(bounds[0])?.f_logical_and(&target.f_lt(bounds[1])?)?;
            let rows = is_here.f_nonzero()?.f_squeeze_dim(1)?;
            if rows.numel() == 0 {
                continue;
            }
            let log_probs = log_softmax(&scores(layers, &input.f_index_select(0, &rows)?)?)?;
            let classes = target.f_index_select(0, &rows)?.f_sub_scalar(bounds[0])?.f_unsqueeze(1)?;
            within = within.f_index_copy(0, &rows, &log_probs.f_gather(1, &classes, false)?.f_squeeze_dim(1)?)?;
            place = place.f_masked_fill(&is_here, frequent + cluster)?;
        }
        let head = log_softmax(&input.f_linear(&self.head.weight, self.head.bias.as_ref())?)?;
        within.f_add(&head.f_gather(1, &place.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?)
    }

    fn of_all(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let frequent = self.cutoffs[0];
        let head = log_softmax(&input.f_linear(&self.head.weight, self.head.bias.as_ref())?)?;
        let mut parts = vec![head.f_narrow(1, 0, frequent)?];
        for (cluster, layers) in (0..).zip(&self.tail) {
            parts.push(log_softmax(&scores(layers, input)?)?.f_add(&head.f_narrow(1, frequent + cluster, 1)?)?);
        }
        Tensor::f_cat(&parts, 1)
    }
}

fn scores([narrow, wide]: &[Linear; 2], input: &Tensor) -> Result<Tensor, TchError> {
    input.f_linear(&narrow.weight, None::<&Tensor>)?.f_linear(&wide.weight, None::<&Tensor>)
}

fn log_softmax(scores: &Tensor) -> Result<Tensor, TchError> {
    scores.f_log_softmax(1, None::<Kind>)
}

impl fmt::Display for AdaptiveLogSoftmaxWithLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster =
            |[narrow, wide]: &[Linear; 2]| tree("Sequential", &[("0", narrow.to_string()), ("1", wide.to_string())]);
        let tail: Vec<String> = self.tail.iter().map(cluster).collect();
        let parts = [("head", self.head.to_string()), ("tail", module_list(&tail))];
        f.write_str(&tree("AdaptiveLogSoftmaxWithLoss", &parts))
    }
}

debug!(AdaptiveLogSoftmaxWithLoss);
