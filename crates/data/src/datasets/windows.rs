//! [`SlidingWindows`]: windows over series, to predict what follows.

use std::sync::Arc;

use fulgurite_torch::SharedTensor;
use fulgurite_torch::tch::{Kind, Tensor};

use crate::{BoxError, DataError, Dataset, ItemRng};

/// Windows over one or several series: an item is `window` steps and the `horizon` steps after them, `[window, ...]` and
/// `[horizon, ...]`. No window reaches from one series into the next.
///
/// Split a series by time before: windows over a common series share steps.
///
/// ```
/// use fulgurite_data::Dataset;
/// use fulgurite_data::datasets::SlidingWindows;
/// use fulgurite_data::torch::tch::{Device, Kind, Tensor};
///
/// let power = Tensor::arange(1000, (Kind::Float, Device::Cpu)).view([1000, 1]); // [steps, features]
/// let (train, val) = (power.narrow(0, 0, 800), power.narrow(0, 800, 200));
/// let train = SlidingWindows::new([train], 24, 6)?;
/// let val = SlidingWindows::new([val], 24, 6)?.stride(6)?;
/// assert_eq!((train.len(), val.len()), (771, 29));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SlidingWindows {
    series: Arc<[SharedTensor]>,
    window: usize,
    horizon: usize,
    stride: usize,
    /// Where the windows of each series end.
    ends: Vec<usize>,
}

impl SlidingWindows {
    /// Windows of `window` steps over `series`, tensors `[steps, ...]` that differ in their number of steps alone.
    ///
    /// # Errors
    ///
    /// Fails if `window` or `horizon` is 0, if a series is shorter than both together, or if other dimensions or kinds of
    /// series differ. The message names the series.
    pub fn new(
        series: impl IntoIterator<Item = Tensor>,
        window: usize,
        horizon: usize,
    ) -> Result<SlidingWindows, DataError> {
        if window == 0 || horizon == 0 {
            return Err(DataError::Setting(format!(
                "a window of {window} steps with a horizon of {horizon}: both are at least 1"
            )));
        }
        let series: Vec<Tensor> = series.into_iter().collect();
        check(&series, window.saturating_add(horizon))?;
        let share = |tensor| {
            SharedTensor::new(tensor).map_err(|source| DataError::Torch { doing: "sharing a series".into(), source })
        };
        let series = series.into_iter().map(share).collect::<Result<Arc<[_]>, _>>()?;
        let windows = SlidingWindows { series, window, horizon, stride: 1, ends: Vec::new() };
        windows.stride(1)
    }

    /// The steps from the beginning of a window to that of the next. Default 1.
    ///
    /// # Errors
    ///
    /// Fails if it is 0.
    pub fn stride(mut self, stride: usize) -> Result<SlidingWindows, DataError> {
        if stride == 0 {
            return Err(DataError::Setting("the stride of windows is 0; it is at least 1".into()));
        }
        let whole = self.window + self.horizon;
        let counts = self.series.iter().map(|series| (series.len() - whole) / stride + 1);
        self.ends = counts
            .scan(0, |end, count| {
                *end += count;
                Some(*end)
            })
            .collect();
        self.stride = stride;
        Ok(self)
    }

    /// The series and the step in it at which an item begins.
    pub fn place(&self, index: usize) -> (usize, usize) {
        let series = self.ends.partition_point(|&end| end <= index);
        let before = if series == 0 { 0 } else { self.ends[series - 1] };
        (series, (index - before) * self.stride)
    }
}

fn check(series: &[Tensor], needed: usize) -> Result<(), DataError> {
    let mut like: Option<(Vec<i64>, Kind)> = None;
    for (at, series) in series.iter().enumerate() {
        let size = series.size();
        let Some((&steps, rest)) = size.split_first() else {
            return Err(DataError::Setting(format!("series {at} is a scalar; a series is a tensor [steps, ...]")));
        };
        if usize::try_from(steps).unwrap_or(0) < needed {
            return Err(DataError::Setting(format!(
                "series {at} has {steps} steps, but a window and its horizon are {needed}; leave it out, or choose a shorter \
                 window"
            )));
        }
        let (shape, kind) = like.get_or_insert_with(|| (rest.to_vec(), series.kind()));
        if rest != shape.as_slice() || series.kind() != *kind {
            return Err(DataError::Setting(format!(
                "series may differ in their number of steps alone, but a step of series 0 is {shape:?} of {kind:?}, and of \
                 series {at} {rest:?} of {:?}",
                series.kind()
            )));
        }
    }
    match like {
        Some(_) => Ok(()),
        None => Err(DataError::Setting("windows need at least one series".into())),
    }
}

impl Dataset for SlidingWindows {
    type Item = (Tensor, Tensor);

    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn get(&self, index: usize, _: &mut ItemRng) -> Result<(Tensor, Tensor), BoxError> {
        let (series, start) = self.place(index);
        let series = &self.series[series];
        Ok((series.narrow(start, self.window)?, series.narrow(start + self.window, self.horizon)?))
    }

    fn locate(&self, index: usize) -> (String, usize) {
        let (series, start) = self.place(index);
        (format!("series {series} of {}, from step", self.name()), start)
    }
}
