//! Losses that are not finite: noticed without making the host wait for the device.

use std::fmt;

use fulgurite_torch::tch::{TchError, Tensor};
use fulgurite_torch::{Dict, TorchError, Value, host_f64_on_cpu, to_host_f64s};

/// Losses on other devices than the CPU are read together, this many batches at a time, and at the end of an epoch.
const WINDOW: usize = 50;

/// The losses of the backward passes.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// The batch in progress, if it had a backward pass, and its loss where that is not finite.
    current: Option<(Place, Option<f64>)>,
    /// The loss that was noted last, where it may be the one that is reported.
    latest: Option<Tensor>,
    /// Losses on a device that have not been read yet.
    unread: Vec<Tensor>,
    /// The batch of each.
    unread_batches: Vec<Place>,
    found: Option<Found>,
}

/// A batch of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub epoch: u64,
    pub batch_idx: usize,
    pub global_step: u64,
}

/// A loss that was not finite.
#[derive(Debug, Clone)]
pub(crate) struct LostLoss {
    place: Place,
    value: f64,
    /// The name that it is logged under.
    name: Option<String>,
    /// The rank whose loss it was, in a run of several.
    rank: Option<usize>,
}

/// Losses that were not finite.
#[derive(Debug, Clone)]
struct Found {
    first: LostLoss,
    last: Place,
    /// How many batches had one.
    count: u64,
    /// How many batches with a backward pass there were from the first on.
    of: u64,
    is_reported: bool,
    /// A callback ends the run for it, and has said so.
    is_known: bool,
}

impl Losses {
    /// Notes the loss of a backward pass. A number on the CPU is read at once.
    pub(crate) fn note(&mut self, loss: &Tensor, place: Place) -> Result<(), TchError> {
        let (_, current) = self.current.get_or_insert((place, None));
        match host_f64_on_cpu(loss) {
            Some(value) if !value.is_finite() => {
                *current = Some(value);
                self.latest = Some(loss.f_detach()?);
            }
            Some(_) => {}
            None => {
                self.unread.push(loss.f_detach()?);
                self.unread_batches.push(place);
            }
        }
        Ok(())
    }

    /// The batch is over. One whose step was skipped for its loss scale does not count.
    pub(crate) fn end_batch(&mut self, is_skipped: bool) {
        let Some((place, loss)) = self.current.take() else { return };
        if is_skipped {
            let kept = self.unread_batches.iter().take_while(|batch| **batch != place).count();
            self.unread.truncate(kept);
            self.unread_batches.truncate(kept);
        } else if self.unread_batches.last() != Some(&place) {
            self.count(place, loss);
        }
    }

    fn count(&mut self, place: Place, not_finite: Option<f64>) {
        match (&mut self.found, not_finite) {
            (None, None) => {}
            (None, Some(value)) => {
                let first = LostLoss { place, value, name: None, rank: None };
                let (is_reported, is_known) = (false, false);
                self.found = Some(Found { first, last: place, count: 1, of: 1, is_reported, is_known });
            }
            (Some(found), not_finite) => {
                found.of += 1;
                if not_finite.is_some() {
                    found.count += 1;
                    found.last = place;
                }
            }
        }
    }

    /// Reads what is on a device, if enough is there or `now`.
    pub(crate) fn read(&mut self, now: bool) -> Result<(), TorchError> {
        if self.unread.is_empty() || !now && self.unread.len() < WINDOW {
            return Ok(());
        }
        let values = to_host_f64s(&self.unread)?;
        self.latest = self.unread.pop();
        self.unread.clear();
        let batches = std::mem::take(&mut self.unread_batches);
        for (at, place) in batches.iter().enumerate() {
            // A module that optimizes by hand may have had several backward passes in a batch.
            if at + 1 == batches.len() || batches[at + 1] != *place {
                let of_batch = (0..=at).rev().take_while(|i| batches[*i] == *place).map(|i| values[i]);
                self.count(*place, of_batch.filter(|value| !value.is_finite()).last());
            }
        }
        Ok(())
    }

    /// The first loss that was not finite; once. Nothing if that `is_known`.
    pub(crate) fn report(&mut self, is_known: bool, name: impl FnOnce(&Tensor) -> Option<String>) -> Option<LostLoss> {
        let found = self.found.as_mut().filter(|found| !found.is_reported)?;
        (found.is_reported, found.is_known) = (true, is_known);
        if is_known {
            return None;
        }
        found.first.name = self.latest.take().as_ref().and_then(name);
        Some(found.first.clone())
    }

    /// The first loss that was not finite, unless a callback ends the run for it.
    pub(crate) fn first(&self) -> Option<&LostLoss> {
        self.found.as_ref().filter(|found| !found.is_known).map(|found| &found.first)
    }

    /// What to say of them when training is over.
    pub(crate) fn report_at_end(&self) -> Option<String> {
        let Found { first: LostLoss { place: first, name, .. }, last, count, of, .. } =
            self.found.as_ref().filter(|found| !found.is_known)?;
        let since = if *count == 1 && of > &1 {
            format!("at {first}, and finite in the {} batch(es) after it", of - 1)
        } else {
            format!("in {count} of {of} batch(es) from {first} to {last}")
        };
        Some(format!("{} was NaN or infinite {since}; {DISTRUST}", described(name.as_deref())))
    }
}

const DISTRUST: &str = "do not trust what was learned, and begin again from a checkpoint before that";

impl LostLoss {
    /// For the other ranks.
    pub(crate) fn to_dict(&self) -> Dict {
        Dict::new()
            .with("epoch", self.place.epoch)
            .with("batch_idx", self.place.batch_idx)
            .with("global_step", self.place.global_step)
            .with("value", self.value)
            .with("name", self.name.clone())
    }

    /// What a rank says of its own.
    pub(crate) fn of_rank(rank: usize, told: &Dict) -> LostLoss {
        let count = |key: &str| told.int(key).ok().and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
        let batch_idx = usize::try_from(count("batch_idx")).unwrap_or_default();
        LostLoss {
            place: Place { epoch: count("epoch"), batch_idx, global_step: count("global_step") },
            value: told.float("value").unwrap_or(f64::NAN),
            name: told.get("name").and_then(Value::as_str).map(str::to_owned),
            rank: Some(rank),
        }
    }

    /// The first of several is the smallest.
    pub(crate) fn order(&self) -> (u64, usize, Option<usize>) {
        (self.place.epoch, self.place.batch_idx, self.rank)
    }

    /// What to say of it when training with several processes is over.
    pub(crate) fn at_end(&self) -> String {
        let LostLoss { place, name, rank, .. } = self;
        format!("{} was NaN or infinite{}, first at {place}; {DISTRUST}", described(name.as_deref()), OnRank(*rank))
    }
}

/// The rank in a sentence, in a run of several.
struct OnRank(Option<usize>);

impl fmt::Display for OnRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |rank| write!(f, " on rank {rank}"))
    }
}

impl fmt::Display for LostLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.value.is_nan() { "NaN" } else { "infinite" };
        write!(
            f,
            "{} is {what}{} at {}; the weights are likely to be lost with the next step: lower the learning rate, clip gradients with `gradient_clip_val`, or find the operation with `detect_anomaly(true)` (`TerminateOnNaN` ends such a run)",
            described(self.name.as_deref()),
            OnRank(self.rank),
            self.place
        )
    }
}

fn described(name: Option<&str>) -> String {
    name.map_or("the training loss".to_owned(), |name| format!("the training loss `{name}`"))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, batch {} (global step {})", self.epoch, self.batch_idx, self.global_step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes the losses of batches, as those of another device if `later`.
    fn pass(batches: &[&[f64]], later: bool) -> Losses {
        let mut losses = Losses::default();
        for (batch_idx, values) in batches.iter().enumerate() {
            let place = Place { epoch: 0, batch_idx, global_step: batch_idx as u64 };
            for value in *values {
                losses.note(&Tensor::from(*value), place).unwrap();
                if later {
                    losses.current = Some((place, None));
                    losses.unread.push(Tensor::from(*value));
                    losses.unread_batches.push(place);
                }
            }
            losses.end_batch(batch_idx == 1);
        }
        losses.read(true).unwrap();
        losses
    }

    #[test]
    fn the_same_on_every_device() {
        let batches: [&[f64]; 5] = [&[1.0], &[f64::NAN], &[1.0, f64::INFINITY, 2.0], &[], &[f64::NAN]];
        for later in [false, true] {
            let mut losses = pass(&batches, later);
            let found = losses.report(false, |_| Some("loss".into())).unwrap();
            let text = found.to_string();
            assert!(
                text.starts_with("the training loss `loss` is infinite at epoch 0, batch 2 (global step 2); "),
                "{text}"
            );
            assert!(losses.report(false, |_| None).is_none());
            let end = losses.report_at_end().unwrap();
            let from = "the training loss `loss` was NaN or infinite in 2 of 2 batch(es) from epoch 0, batch 2 (global step 2) to epoch 0, batch 4";
            assert!(end.starts_with(from), "{end}");
        }
        assert!(pass(&[&[1.0], &[f64::NAN], &[2.0]], true).report_at_end().is_none());
    }
}
