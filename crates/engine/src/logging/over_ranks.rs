//! Reduces the values of an epoch over all ranks: one exchange for all names, weighted by what each rank accumulated.

use std::collections::BTreeSet;

use fulgurite_fabric::Strategy;
use fulgurite_metrics::Metric;
use fulgurite_torch::tch::{Device, Tensor};
use fulgurite_torch::{Dict, TorchError, Value};

use super::results::{Accumulated, Entry, Sums, widened};
use super::{LogOptions, LoggedValue, Metrics, Reduce, ResultStore};
use crate::error::Error;
use crate::hook::Hook;

impl Metrics {
    /// Reduces the values of this epoch over all ranks. Every rank must call this.
    pub(crate) fn reduce_over_ranks(&mut self, strategy: &dyn Strategy) -> Result<(), Error> {
        let Some(store) = self.recording_store().filter(|_| strategy.ranks().world_size > 1) else { return Ok(()) };
        let of_ranks = strategy.all_gather_values(Value::List(store.of_this_rank()?))?;
        let keys: Vec<BTreeSet<&str>> = of_ranks.iter().map(keys).collect();
        store.take_over(&of_ranks)?;
        if keys.windows(2).any(|pair| pair[0] != pair[1]) {
            let of_ranks = strategy.all_gather_values(Value::List(store.over_ranks()))?;
            store.add_missing(&of_ranks);
        }
        Ok(())
    }

    /// Reduces the values of this step that were logged with `sync_dist`.
    pub(crate) fn reduce_step_over_ranks(&mut self, strategy: &dyn Strategy) -> Result<(), Error> {
        if !self.records_training() || strategy.ranks().world_size == 1 {
            return Ok(());
        }
        self.train.reduce_step(strategy)
    }
}

/// The identity of an accumulated value.
fn keys(of_rank: &Value) -> BTreeSet<&str> {
    let contributions = of_rank.as_list().unwrap_or_default().iter().filter_map(Value::as_dict);
    contributions.filter_map(|contribution| contribution.str("key").ok()).collect()
}

impl ResultStore {
    /// The values accumulated on this rank.
    fn of_this_rank(&self) -> Result<Vec<Value>, Error> {
        self.entries.iter().filter(|entry| entry.is_reduced_over_ranks()).map(|entry| entry.contribution()).collect()
    }

    fn take_over(&mut self, of_ranks: &[Value]) -> Result<(), Error> {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_reduced_over_ranks()) {
            let key = entry.key();
            let is_of_entry = |saved: &&Dict| saved.str("key").is_ok_and(|of| of == key);
            let lists = of_ranks.iter().filter_map(Value::as_list);
            let contributions: Vec<&Dict> =
                lists.filter_map(|list| list.iter().filter_map(Value::as_dict).find(is_of_entry)).collect();
            entry.over_ranks = entry.reduced(&contributions)?;
        }
        Ok(())
    }

    /// The values of the epoch, for ranks that logged nothing under their names.
    fn over_ranks(&self) -> Vec<Value> {
        self.entries.iter().filter_map(Entry::outcome).collect()
    }

    /// A rank that had no batch logged nothing, and callbacks that watch a value watch it there too.
    fn add_missing(&mut self, of_ranks: &[Value]) {
        for outcome in of_ranks.iter().filter_map(Value::as_list).flatten().filter_map(Value::as_dict) {
            let Some(entry) = Entry::from_outcome(outcome) else { continue };
            let key = entry.key();
            if !self.entries.iter().any(|there| there.key() == key && !there.is_reset) {
                self.entries.retain(|there| there.key() != key);
                self.entries.push(entry);
            }
        }
    }

    /// Gives each metric among what the ranks save the value over all of them: a run that resumes from the end of an
    /// epoch has no metric to merge their states with.
    pub(crate) fn reduce_saved(&self, of_ranks: &mut [Value]) -> Result<(), Error> {
        for entry in self.entries.iter().filter(|entry| !entry.is_reset && entry.on_epoch && !entry.stays_on_its_rank())
        {
            let Accumulated::Metric(metric) = &entry.accumulated else { continue };
            let mut saved: Vec<&mut Dict> =
                of_ranks.iter_mut().filter_map(|of_rank| entry.saved_among(of_rank)).collect();
            let states: Vec<Dict> = saved.iter().filter_map(|saved| saved.dict("metric").ok().cloned()).collect();
            // A metric without updates has no value.
            let Ok(value) = over_ranks(metric.as_ref(), &states.iter().collect::<Vec<_>>()) else { continue };
            saved.iter_mut().for_each(|saved| saved.set("value", &value));
        }
        Ok(())
    }

    /// Takes what all ranks of a run saved, for a run of another number of ranks at the end of the same epoch.
    pub(crate) fn restore_of_all(&mut self, of_ranks: &[&[Value]]) -> Result<(), String> {
        for saved in of_ranks.iter().copied().flatten() {
            let saved = saved.as_dict().ok_or_else(|| format!("one is {}, expected dict", saved.type_name()))?;
            let Some(entry) = Entry::from_state_dict(saved)? else { continue };
            match self.entries.iter_mut().find(|there| there.key() == entry.key()) {
                Some(there) => there.add_another_ranks(&entry),
                None => self.entries.push(entry),
            }
        }
        Ok(())
    }

    fn reduce_step(&mut self, strategy: &dyn Strategy) -> Result<(), Error> {
        let wants = |entry: &Entry| {
            !entry.is_reset && entry.on_step && !entry.latest_is_reduced && entry.options.sync_dist == Some(true)
        };
        for entry in self.entries.iter_mut().filter(|entry| wants(entry)) {
            let Some(latest) = &entry.latest else { continue };
            let local = match latest {
                LoggedValue::Number(x) => Tensor::from(*x),
                LoggedValue::Tensor(tensor) => widened(tensor).map_err(TorchError::from)?,
            };
            let reduced = over_ranks_of_step(strategy, &local, entry.options.reduce)?;
            entry.latest = Some(LoggedValue::Tensor(reduced));
            entry.latest_is_reduced = true;
        }
        Ok(())
    }
}

impl Entry {
    /// Of the epoch, not reduced since something was recorded, and not kept to its rank.
    fn is_reduced_over_ranks(&self) -> bool {
        self.on_epoch && !self.is_reset && !self.stays_on_its_rank() && self.over_ranks.is_none()
    }

    fn stays_on_its_rank(&self) -> bool {
        self.options.sync_dist == Some(false) || self.options.rank_zero_only
    }

    /// The same entry among what a rank saves.
    fn saved_among<'s>(&self, of_rank: &'s mut Value) -> Option<&'s mut Dict> {
        let Value::Dict(of_rank) = of_rank else { return None };
        let Value::List(entries) = of_rank.get_mut("metrics")? else { return None };
        entries.iter_mut().find_map(|entry| match entry {
            Value::Dict(saved) => {
                let is_same = saved.str("hook").is_ok_and(|hook| hook == self.hook.name())
                    && saved.str("name").is_ok_and(|name| name == self.logged_as);
                is_same.then_some(saved)
            }
            _ => None,
        })
    }

    /// Adds the values accumulated on another rank. Metric values are already reduced over all ranks.
    fn add_another_ranks(&mut self, other: &Entry) {
        let stays = self.stays_on_its_rank();
        if let (Accumulated::Values(sums), Accumulated::Values(more)) = (&mut self.accumulated, &other.accumulated)
            && !stays
            && let Some(total) = more.total(self.options.reduce)
        {
            sums.add_total(self.options.reduce, total.to_f64(), more.weight);
        }
    }

    /// Identical on every rank.
    fn key(&self) -> String {
        format!("{} {}", self.hook.name(), self.names[0])
    }

    fn contribution(&self) -> Result<Value, Error> {
        let contribution = Dict::new().with("key", self.key());
        Ok(Value::Dict(match &self.accumulated {
            Accumulated::Values(sums) => {
                let total = sums.total(self.options.reduce).map(|total| total.to_f64());
                contribution.with("total", total).with("weight", sums.weight)
            }
            Accumulated::Metric(metric) => contribution.with("metric", metric.state_dict()?),
            Accumulated::Restored { state, .. } => contribution.with("metric", state.clone()),
        }))
    }

    fn outcome(&self) -> Option<Value> {
        let value = self.over_ranks.as_ref().filter(|_| !self.is_reset)?;
        let outcome = Dict::new()
            .with("hook", self.hook.name())
            .with("name", self.logged_as.as_str())
            .with("dataloader_idx", self.dataloader_idx.map(|index| index as i64))
            .with("options", self.options.to_dict())
            .with("value", value.to_f64());
        Some(Value::Dict(outcome))
    }

    /// An entry until the next reset, by which time this rank may log under the name itself.
    fn from_outcome(outcome: &Dict) -> Option<Entry> {
        let dataloader_idx = outcome.int("dataloader_idx").ok().and_then(|index| usize::try_from(index).ok());
        let options = LogOptions::from_dict(outcome.dict("options").ok()?).ok()?;
        let hook = Hook::from_name(outcome.str("hook").ok()?)?;
        let value = outcome.float("value").ok()?;
        let mut entry = Entry::new(hook, outcome.str("name").ok()?, dataloader_idx, &options).ok()?;
        entry.accumulated = Accumulated::Restored { value: Tensor::from(value), state: Dict::new() };
        entry.over_ranks = Some(LoggedValue::Number(value));
        entry.is_reset = false;
        Some(entry)
    }

    fn reduced(&self, of_ranks: &[&Dict]) -> Result<Option<LoggedValue>, Error> {
        match &self.accumulated {
            Accumulated::Values(_) => {
                let mut sums = Sums::default();
                for of_rank in of_ranks {
                    let (Ok(total), Ok(weight)) = (of_rank.float("total"), of_rank.float("weight")) else { continue };
                    sums.add_total(self.options.reduce, total, weight);
                }
                Ok(sums.compute(self.options.reduce))
            }
            Accumulated::Metric(metric) => {
                let states: Vec<&Dict> = of_ranks.iter().filter_map(|of_rank| of_rank.dict("metric").ok()).collect();
                let value = over_ranks(metric.as_ref(), &states)?;
                Ok(Some(LoggedValue::Tensor(self.one_number(value)?)))
            }
            // Its handle is not here yet; the checkpoint has the value over all ranks.
            Accumulated::Restored { value, .. } => Ok(Some(LoggedValue::Tensor(value.shallow_clone()))),
        }
    }
}

/// Reduces the values of all ranks to one. NaN propagates; Gloo's own minimum and maximum depend on the order of ranks.
fn over_ranks_of_step(strategy: &dyn Strategy, local: &Tensor, reduce: Reduce) -> Result<Tensor, Error> {
    let of_ranks = || -> Result<Tensor, Error> {
        let flat = local.f_reshape([1]).map_err(TorchError::from)?;
        Ok(Tensor::f_cat(&strategy.all_gather(&flat)?, 0).map_err(TorchError::from)?)
    };
    Ok(match reduce {
        Reduce::Mean => strategy.reduce(local, fulgurite_fabric::ReduceOp::Mean)?,
        Reduce::Sum => strategy.reduce(local, fulgurite_fabric::ReduceOp::Sum)?,
        Reduce::Min => of_ranks()?.f_min().map_err(TorchError::from)?,
        Reduce::Max => of_ranks()?.f_max().map_err(TorchError::from)?,
    })
}

/// The value of a metric over what several ranks accumulated; its own state stays as it is.
fn over_ranks(metric: &dyn Metric, states: &[&Dict]) -> Result<Tensor, Error> {
    let own = metric.state_dict()?;
    let device = own.iter().find_map(|(_, value)| value.as_tensor().map(Tensor::device)).unwrap_or(Device::Cpu);
    let merged = states.iter().enumerate().try_for_each(|(rank, state)| {
        let state = state.map_tensors(&mut |tensor| tensor.to_device(device));
        if rank == 0 { metric.load_state_dict(&state) } else { metric.merge_state(&state) }
    });
    let value = merged.and_then(|()| metric.compute());
    metric.load_state_dict(&own)?;
    Ok(value?)
}
