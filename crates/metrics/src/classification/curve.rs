//! The engine of AUROC and average precision: what is predicted at each threshold.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use super::settings::{
    Average, Averaged, Binary, Multiclass, Multilabel, Settings, Task, TaskKind, histogram, probabilities,
};
use super::stat_scores::safe_divide;
use crate::state::accumulator;
use crate::{Definition, Field, Handle, MetricError, Reduction, Supervised};

/// The thresholds at which a curve is evaluated.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Thresholds {
    /// Every score that occurs: exact, and keeps every prediction. The default.
    #[default]
    Exact,
    /// This many between 0 and 1, evenly spaced, in constant memory.
    Count(i64),
    /// These, ascending.
    List(Vec<f64>),
}

impl From<i64> for Thresholds {
    fn from(count: i64) -> Self {
        Thresholds::Count(count)
    }
}

impl From<i32> for Thresholds {
    fn from(count: i32) -> Self {
        Thresholds::Count(count.into())
    }
}

impl From<Vec<f64>> for Thresholds {
    fn from(thresholds: Vec<f64>) -> Self {
        Thresholds::List(thresholds)
    }
}

/// The area under a curve.
pub trait Area: Clone + Default + Send + 'static {
    /// The metric's names in the binary, multiclass and multilabel problem.
    const NAMES: [&'static str; 3];

    /// The area under the exact curve, a number.
    ///
    /// `yes` and `no` count, for each score that occurs, from high to low, how many of the predictions with this score
    /// or a higher one are right and wrong; the last entries are those of all predictions, of which there is at least
    /// one. `all_class_zero` says that the target of each of them was 0.
    fn exact(&self, yes: &Tensor, no: &Tensor, all_class_zero: bool) -> Result<Tensor, TchError>;

    /// The area under the curve at given thresholds, a number per class.
    ///
    /// `yes` and `no` count, for each threshold, ascending, and class, how many of the predictions with at least this
    /// score are right and wrong: `(thresholds, classes)`. `all_yes` and `all_no` count all: `(classes)`.
    fn binned(&self, yes: &Tensor, no: &Tensor, all_yes: &Tensor, all_no: &Tensor) -> Result<Tensor, TchError>;
}

/// The [`Definition`] of AUROC and average precision.
#[derive(Debug, Clone)]
pub struct Curve<T, A> {
    settings: Settings,
    thresholds: Thresholds,
    /// The thresholds as a tensor where the last batch was: to copy a list there would be to wait.
    on_device: Arc<Mutex<Option<Tensor>>>,
    area: A,
    task: PhantomData<T>,
}

impl<T: Task, A: Area> Curve<T, A> {
    fn new(classes: i64) -> Handle<Self> {
        let settings = Settings::new::<T>(classes);
        let (thresholds, on_device) = Default::default();
        Curve { settings, thresholds, on_device, area: A::default(), task: PhantomData }.into()
    }
}

impl<A: Area> Handle<Curve<Binary, A>> {
    /// The metric, exact.
    pub fn new() -> Self {
        Curve::new(1)
    }
}

impl<A: Area> Handle<Curve<Multiclass, A>> {
    /// The metric for `num_classes` classes, each against the rest; exact, macro average.
    pub fn new(num_classes: i64) -> Self {
        Curve::new(num_classes)
    }
}

impl<A: Area> Handle<Curve<Multilabel, A>> {
    /// The metric for `num_labels` labels; exact, macro average.
    pub fn new(num_labels: i64) -> Self {
        Curve::new(num_labels)
    }
}

impl<T: Task, A: Area> Handle<Curve<T, A>> {
    /// The thresholds: their number, or a list.
    pub fn thresholds(self, thresholds: impl Into<Thresholds>) -> Self {
        self.set(|metric| (metric.thresholds, metric.on_device) = (thresholds.into(), Arc::default()))
    }

    /// Targets with this value are ignored.
    pub fn ignore_index(self, index: i64) -> Self {
        self.set(|metric| metric.settings.ignore_index = Some(index))
    }
}

impl<T: Averaged, A: Area> Handle<Curve<T, A>> {
    /// How the areas of the classes are averaged; [`Average::Macro`] by default. [`Average::Micro`] is for labels only.
    pub fn average(self, average: Average) -> Self {
        self.set(|metric| metric.settings.average = average)
    }
}

impl<T: Task, A: Area> Supervised for Curve<T, A> {}

impl<T: Task, A: Area> Definition for Curve<T, A> {
    type Input<'a> = (&'a Tensor, &'a Tensor);

    fn name(&self) -> &'static str {
        A::NAMES[T::KIND as usize]
    }

    fn fields(&self) -> &'static [Field] {
        match self.thresholds {
            Thresholds::Exact => const { &[Field::new("preds", Reduction::Cat), Field::new("target", Reduction::Cat)] },
            _ => const { &[Field::new("confmat", Reduction::Sum)] },
        }
    }

    fn batch(&self, (preds, target): (&Tensor, &Tensor)) -> Result<Vec<Tensor>, MetricError> {
        self.validate()?;
        let (preds, target) = self.rows(preds, target)?;
        if self.thresholds == Thresholds::Exact {
            // What is kept must not change with the batch.
            return Ok(vec![preds.f_detach_copy()?, target.f_detach_copy()?]);
        }
        Ok(vec![self.count(&preds, &target)?])
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        let (areas, support) = match state {
            [preds, target] => self.exact(preds, target)?,
            _ => self.binned(&state[0])?,
        };
        Ok(self.averaged(areas, support)?.f_to_kind(Kind::Float)?)
    }

    fn initial(&self) -> Result<Option<Vec<Tensor>>, MetricError> {
        let Some(thresholds) = self.thresholds_on(Device::Cpu)? else { return Ok(None) };
        let shape = [thresholds.numel() as i64, self.settings.classes, 2, 2];
        Ok(Some(vec![Tensor::f_zeros(shape, (Kind::Int64, Device::Cpu))?]))
    }
}

impl<T: Task, A: Area> Curve<T, A> {
    fn validate(&self) -> Result<(), MetricError> {
        let metric = self.name();
        self.settings.validate(metric)?;
        if T::KIND == TaskKind::Multiclass && self.settings.average == Average::Micro {
            let message = "average is Micro, which classes do not have here; use Macro, Weighted or None";
            return Err(MetricError::argument(metric, message));
        }
        match &self.thresholds {
            Thresholds::Count(count) if *count < 2 => {
                Err(MetricError::argument(metric, format!("thresholds is {count}; there must be at least 2")))
            }
            Thresholds::List(list)
                if list.is_empty() || !list.iter().all(|t| (0.0..=1.0).contains(t)) || !list.is_sorted() =>
            {
                Err(MetricError::argument(metric, "thresholds must be ascending numbers in [0, 1]"))
            }
            _ => Ok(()),
        }
    }

    /// Probabilities `(samples, classes)`, and the target: `(samples)` of classes, `(samples, labels)` of labels.
    fn rows(&self, preds: &Tensor, target: &Tensor) -> Result<(Tensor, Tensor), MetricError> {
        let (metric, classes) = (self.name(), self.settings.classes);
        MetricError::require_float(metric, "preds", preds)?;
        MetricError::require_labels(metric, "target", target)?;
        let preds = preds.f_to_kind(if preds.kind() == Kind::Double { Kind::Double } else { Kind::Float })?;
        let target = target.f_to_kind(Kind::Int64)?;
        let ignored = |target: &Tensor| self.settings.ignore_index.map(|index| target.f_eq(index)).transpose();
        let by_sample = |t: &Tensor| t.f_movedim_int(1, -1)?.f_reshape([-1, classes]);
        if T::KIND == TaskKind::Multiclass {
            self.settings.check_multiclass(metric, &preds, &target)?;
            let (preds, target) = (by_sample(&preds)?, target.f_reshape([-1i64])?);
            let aside = ignored(&target)?.map(|ignored| ignored.f_unsqueeze(1)).transpose()?;
            return Ok((probabilities(&preds, aside.as_ref(), |t| t.f_softmax(1, None))?, target));
        }
        self.settings.check_binary(metric, &preds, &target)?;
        if T::KIND == TaskKind::Multilabel {
            return Ok((by_sample(&probabilities(&preds, None, Tensor::f_sigmoid)?)?, by_sample(&target)?));
        }
        let (preds, target) = (preds.f_reshape([-1i64, 1])?, target.f_reshape([-1i64, 1])?);
        Ok((probabilities(&preds, ignored(&target)?.as_ref(), Tensor::f_sigmoid)?, target))
    }

    fn thresholds_on(&self, device: Device) -> Result<Option<Tensor>, TchError> {
        let mut held = self.on_device.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_none_or(|held| held.device() != device) {
            *held = match &self.thresholds {
                Thresholds::Exact => None,
                Thresholds::Count(count) => Some(Tensor::f_linspace(0.0, 1.0, *count, (Kind::Float, device))?),
                Thresholds::List(list) => {
                    Some(Tensor::f_from_slice(list)?.f_to_kind(Kind::Float)?.f_to_device(device)?)
                }
            };
        }
        Ok(held.as_ref().map(Tensor::shallow_clone))
    }

    /// `(thresholds, classes, target, predicted)`: how many there are of each.
    fn count(&self, preds: &Tensor, target: &Tensor) -> Result<Tensor, MetricError> {
        let (device, classes) = (preds.device(), self.settings.classes);
        let Some(thresholds) = self.thresholds_on(device)? else {
            return Err(MetricError::NothingAccumulated { metric: self.name() });
        };
        let reached = thresholds.numel() as i64 + 1;
        // The number of thresholds that a score reaches: one histogram of it instead of a comparison with each.
        let bin = preds
            .f_contiguous()?
            .f_bucketize(&thresholds.f_to_kind(preds.kind())?, false, true)?
            .f_masked_fill(&preds.f_isnan()?, 0)?;
        let numbers = Tensor::f_arange(classes, (Kind::Int64, device))?;
        let yes = match T::KIND {
            TaskKind::Multiclass => target.f_unsqueeze(1)?.f_eq_tensor(&numbers)?,
            _ => target.f_eq(1)?,
        };
        let index = numbers.f_mul_scalar(2)?.f_add(&yes.f_to_kind(Kind::Int64)?)?.f_mul_scalar(reached)?.f_add(&bin)?;
        let bins = classes * 2 * reached;
        let index = match self.settings.ignore_index {
            Some(ignored) => index.f_masked_fill(&target.f_reshape([preds.size()[0], -1])?.f_eq(ignored)?, bins)?,
            None => index,
        };
        let counts = histogram(&index.f_reshape([-1i64])?, bins)?.f_reshape([classes, 2, reached])?;
        let below = counts.f_cumsum(2, None)?;
        let all = below.f_narrow(2, reached - 1, 1)?;
        let below = below.f_narrow(2, 0, reached - 1)?;
        Ok(Tensor::f_stack(&[&below, &all.f_sub(&below)?], -1)?.f_permute([2, 0, 1, 3])?)
    }

    /// The area of each class from all predictions, and how often it is the target.
    fn exact(&self, preds: &Tensor, target: &Tensor) -> Result<(Tensor, Tensor), MetricError> {
        let mut columns = Vec::new();
        if self.settings.average == Average::Micro {
            columns.push((preds.f_reshape([-1i64])?, target.f_reshape([-1i64])?, 1));
        } else if T::KIND == TaskKind::Multiclass {
            for class in 0..self.settings.classes {
                columns.push((preds.f_select(1, class)?, target.shallow_clone(), class));
            }
        } else {
            for label in 0..self.settings.classes {
                columns.push((preds.f_select(1, label)?, target.f_select(1, label)?, 1));
            }
        }
        let (mut areas, mut support) = (Vec::new(), Vec::new());
        for (mut preds, mut target, class) in columns {
            if let Some(index) = self.settings.ignore_index {
                let counted = target.f_ne(index)?;
                (preds, target) = (preds.f_masked_select(&counted)?, target.f_masked_select(&counted)?);
            }
            let kind = accumulator(preds.device());
            let yes = target.f_eq(class)?;
            support.push(yes.f_sum(kind)?);
            areas.push(if preds.numel() == 0 {
                Tensor::f_zeros([0i64; 0], (kind, preds.device()))?
            } else {
                let all_class_zero = target.f_any()?.f_int64_value(&[])? == 0;
                let (yes, no) = cumulated(&preds, &yes)?;
                self.area.exact(&yes, &no, all_class_zero)?
            });
        }
        Ok((Tensor::f_stack(&areas, 0)?, Tensor::f_stack(&support, 0)?))
    }

    /// The area of each class from the counts at the thresholds, and how often it is the target.
    fn binned(&self, confmat: &Tensor) -> Result<(Tensor, Tensor), MetricError> {
        let kind = accumulator(confmat.device());
        let counts = match self.settings.average {
            Average::Micro => confmat.f_sum_dim_intlist(1i64, true, kind)?,
            _ => confmat.f_to_kind(kind)?,
        };
        let predicted = |target: i64| counts.f_select(3, 1)?.f_select(2, target);
        let all = |target: i64| counts.f_select(0, 0)?.f_select(1, target)?.f_sum_dim_intlist(-1i64, false, kind);
        let (all_yes, all_no) = (all(1)?, all(0)?);
        Ok((self.area.binned(&predicted(1)?, &predicted(0)?, &all_yes, &all_no)?, all_yes))
    }

    fn averaged(&self, areas: Tensor, support: Tensor) -> Result<Tensor, TchError> {
        let kind = areas.kind();
        let weight = match self.settings.average {
            Average::Micro | Average::None => return Ok(areas),
            Average::Macro => areas.f_ones_like()?,
            Average::Weighted => support,
        };
        // Classes without an area do not count. If there are none, a plain mean is undefined.
        let undefined = areas.f_isnan()?;
        let weight = weight.f_masked_fill(&undefined, 0.0)?;
        let (sum, all) = (areas.f_masked_fill(&undefined, 0.0)?.f_mul(&weight)?.f_sum(kind)?, weight.f_sum(kind)?);
        if self.settings.average == Average::Macro { sum.f_div(&all) } else { safe_divide(&sum, &all, 0.0) }
    }
}

/// For each score that occurs, from high to low, how many with at least this score are positive, and are not.
fn cumulated(scores: &Tensor, positive: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let kind = accumulator(scores.device());
    let (sorted, order) = scores.f_sort(0, true)?;
    let yes = positive.f_index_select(0, &order)?.f_cumsum(0, Kind::Int64)?;
    let count = scores.numel() as i64;
    let last = sorted.f_narrow(0, 1, count - 1)?.f_ne_tensor(&sorted.f_narrow(0, 0, count - 1)?)?;
    let end = Tensor::f_ones(1, (Kind::Bool, scores.device()))?;
    let last = Tensor::f_cat(&[&last, &end], 0)?.f_nonzero()?.f_squeeze_dim(1)?;
    let yes = yes.f_index_select(0, &last)?;
    let no = last.f_add_scalar(1)?.f_sub(&yes)?;
    Ok((yes.f_to_kind(kind)?, no.f_to_kind(kind)?))
}
