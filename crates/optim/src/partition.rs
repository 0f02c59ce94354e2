//! [`Partition`]: the parameters of one group that are of one kind and on one device, with their state.

use fulgurite_torch::foreach::{self, Collected, Grads};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, TensorList, Value};

use crate::rule::{Bucket, ParamStep, Rule};
use crate::typed::number;
use crate::{OptimError, ParamGroup};

pub(crate) struct Partition {
    /// Index of the group.
    pub(crate) group: usize,
    /// Places of the parameters in the group.
    pub(crate) indices: Vec<usize>,
    /// All parameters, updated together when each has a gradient.
    pub(crate) all: Bucket,
    /// Those of the parameters that have a gradient, when not all have.
    some: Bucket,
    params: Vec<Tensor>,
    /// An empty tensor of the kind and on the device of the parameters.
    anchor: Tensor,
    found: Grads,
    /// Which gradients are sparse; empty if none is.
    is_sparse: Vec<bool>,
    /// State tensors, by slot and parameter.
    slots: Vec<Vec<Option<Tensor>>>,
    /// Which slots were made, one bit each; 0 for a parameter without state.
    made: Vec<u8>,
    progress: Vec<ParamStep>,
    /// The step counters of all parameters in one tensor, of which `all.steps` are views: one addition advances them.
    steps: Option<Tensor>,
    /// The parameters to update, kept for its memory.
    order: Vec<usize>,
}

impl Partition {
    /// Sorts the parameters of all groups by kind and device.
    pub(crate) fn all<R: Rule>(groups: &[ParamGroup], rules: &[R]) -> Result<Vec<Partition>, OptimError> {
        let mut partitions: Vec<Partition> = Vec::new();
        for (index, (group, rule)) in groups.iter().zip(rules).enumerate() {
            let first = partitions.len();
            let mut places: Vec<usize> = (0..group.params.len()).collect();
            // Small ones first: the fused kernels want it so on a CPU.
            places.sort_by_key(|&place| group.params[place].numel());
            for place in places {
                let param = &group.params[place];
                let (kind, device) = (param.f_kind()?, param.device());
                let fits = |p: &Partition| p.anchor.kind() == kind && p.anchor.device() == device;
                let at = match partitions[first..].iter().position(fits) {
                    Some(at) => first + at,
                    None => {
                        partitions.push(Partition::new::<R>(index, kind, device)?);
                        partitions.len() - 1
                    }
                };
                partitions[at].indices.push(place);
                partitions[at].params.push(param.shallow_clone());
            }
            for partition in &mut partitions[first..] {
                partition.fill(group, rule)?;
            }
        }
        Ok(partitions)
    }

    fn new<R: Rule>(group: usize, kind: Kind, device: Device) -> Result<Partition, OptimError> {
        Ok(Partition {
            group,
            indices: Vec::new(),
            all: Bucket::new(R::SLOTS.len())?,
            some: Bucket::new(R::SLOTS.len())?,
            params: Vec::new(),
            anchor: Tensor::f_empty([0], (kind, device))?,
            found: Grads::All,
            is_sparse: Vec::new(),
            slots: Vec::new(),
            made: Vec::new(),
            progress: Vec::new(),
            steps: None,
            order: Vec::new(),
        })
    }

    /// Makes room for the state of the parameters, and the state itself where it is wanted at once.
    fn fill<R: Rule>(&mut self, group: &ParamGroup, rule: &R) -> Result<(), OptimError> {
        let len = self.params.len();
        for param in &self.params {
            self.all.params.push(param)?;
        }
        self.slots = R::SLOTS.iter().map(|_| (0..len).map(|_| None).collect()).collect();
        self.made = vec![0; len];
        self.progress = vec![ParamStep { step: 0, scalars: rule.initial_scalars(group) }; len];
        self.order = Vec::with_capacity(len);
        if R::STEP_TENSORS {
            let steps = Tensor::f_zeros([len as i64], (Kind::Float, self.anchor.device()))?;
            for i in 0..len as i64 {
                self.all.steps.push(&steps.f_select(0, i)?)?;
            }
            self.steps = Some(steps);
        }
        if R::EAGER {
            for i in 0..len {
                self.make_state(i, group, rule)?;
            }
        }
        self.list_state()
    }

    /// Finds the gradients. False when the parameters are no longer of the kind or on the device of this partition.
    pub(crate) fn collect<R: Rule>(&mut self, group: &ParamGroup, rule: &R) -> Result<bool, OptimError> {
        let Collected { grads, sparse } = foreach::collect_grads(&self.all.params, &self.anchor, &mut self.all.grads)?;
        self.found = grads;
        self.is_sparse.clear();
        let missing = match grads {
            Grads::All => 0,
            Grads::Missing(missing) => missing,
            Grads::Moved => return Ok(false),
        };
        rule.check_gradients(group, sparse, self.params.len() - missing - sparse)?;
        if sparse > 0 {
            for i in 0..self.params.len() {
                let grad = self.all.grads.get(i)?;
                self.is_sparse.push(grad.defined() && grad.is_sparse());
            }
        }
        Ok(true)
    }

    fn is_sparse(&self, i: usize) -> bool {
        self.is_sparse.get(i).copied().unwrap_or_default()
    }

    /// Updates the parameters whose gradients [`collect`](Partition::collect) found.
    pub(crate) fn step<R: Rule>(&mut self, group: &ParamGroup, rule: &R) -> Result<(), OptimError> {
        let done = self.advance(group, rule).and_then(|()| self.update(group, rule));
        self.all.release();
        self.some.release();
        done
    }

    /// Makes missing state and counts the step, for each parameter with a gradient.
    fn advance<R: Rule>(&mut self, group: &ParamGroup, rule: &R) -> Result<(), OptimError> {
        let wanted = wanted_slots(group, rule);
        let mut new_state = false;
        self.order.clear();
        for i in 0..self.params.len() {
            if self.found != Grads::All && !self.all.grads.get(i)?.defined() {
                continue;
            }
            if self.made[i] != wanted {
                self.make_state(i, group, rule)?;
                new_state = true;
            }
            self.progress[i].step += 1;
            self.order.push(i);
        }
        if new_state { self.list_state() } else { Ok(()) }
    }

    fn update<R: Rule>(&mut self, group: &ParamGroup, rule: &R) -> Result<(), OptimError> {
        let mut order = std::mem::take(&mut self.order);
        let updated = self.update_in(&mut order, group, rule);
        self.order = order;
        updated
    }

    /// Updates the parameters of `order`: all of them at once, or those that have as much in common as their rule wants.
    fn update_in<R: Rule>(&mut self, order: &mut [usize], group: &ParamGroup, rule: &R) -> Result<(), OptimError> {
        let key = |this: &Partition, i: usize| {
            let ParamStep { step, scalars } = this.progress[i];
            (this.is_sparse(i), R::bucket_key(step), scalars.map(f32::to_bits))
        };
        let Some(&first) = order.first() else { return Ok(()) };
        let together = order.iter().all(|&i| key(self, i) == key(self, first));
        if together && self.found == Grads::All {
            if let Some(steps) = &mut self.steps {
                let _ = steps.f_add_scalar_(1.0)?;
            }
            self.all.progress = self.progress[first];
            update(rule, self.is_sparse(first), group, &mut self.all)?;
            self.progress.iter_mut().for_each(|p| p.scalars = self.all.progress.scalars);
            return Ok(());
        }
        order.sort_unstable_by_key(|&i| (key(self, i), i));
        let mut rest = &order[..];
        while let Some(&head) = rest.first() {
            let same = rest.iter().take_while(|&&i| key(self, i) == key(self, head)).count();
            let (chunk, later) = rest.split_at(same);
            select(&self.all, &mut self.some, chunk)?;
            foreach::add_scalar_(&mut self.some.steps, 1.0)?;
            self.some.progress = self.progress[head];
            update(rule, self.is_sparse(head), group, &mut self.some)?;
            chunk.iter().for_each(|&i| self.progress[i].scalars = self.some.progress.scalars);
            self.some.release();
            rest = later;
        }
        Ok(())
    }

    fn make_state<R: Rule>(&mut self, i: usize, group: &ParamGroup, rule: &R) -> Result<(), OptimError> {
        if self.made[i] == 0 {
            self.progress[i] = ParamStep { step: 0, scalars: rule.initial_scalars(group) };
        }
        for slot in 0..R::SLOTS.len() {
            if self.slots[slot][i].is_none() && rule.uses(slot, group) {
                self.slots[slot][i] = rule.init(slot, group, &self.params[i])?;
            }
        }
        self.made[i] = wanted_slots(group, rule);
        Ok(())
    }

    /// Puts the state tensors into the lists of [`all`](Partition::all).
    fn list_state(&mut self) -> Result<(), OptimError> {
        let none = Tensor::new();
        for (list, tensors) in self.all.slots.iter_mut().zip(&self.slots) {
            list.clear();
            for tensor in tensors {
                list.push(tensor.as_ref().unwrap_or(&none))?;
            }
        }
        Ok(())
    }

    /// The state of each parameter that has any, by its place in the group.
    pub(crate) fn save<R: Rule>(&self) -> impl Iterator<Item = (usize, Dict)> {
        (0..self.params.len()).filter(|&i| self.made[i] != 0).map(|i| {
            let mut entry = Dict::new();
            if R::COUNTS_STEPS {
                let step = self.progress[i].step;
                match R::STEP_IS_INT {
                    true => entry.push("step", step as i64),
                    false => entry.push("step", Tensor::from(step as f32)),
                }
            }
            for (name, value) in R::SCALARS.iter().zip(self.progress[i].scalars) {
                entry.push(*name, Tensor::from(value));
            }
            for (name, tensors) in R::SLOTS.iter().zip(&self.slots) {
                if let Some(tensor) = &tensors[i] {
                    entry.push(*name, tensor);
                }
            }
            (self.indices[i], entry)
        })
    }

    /// Takes its parameters' state from `entries`, in which `keys` are the names of the group's parameters.
    pub(crate) fn load<R: Rule>(
        &mut self,
        group: &ParamGroup,
        rule: &R,
        entries: &Dict,
        keys: &[Value],
    ) -> Result<(), OptimError> {
        for i in 0..self.params.len() {
            let key = &keys[self.indices[i]];
            let wrong = |reason: String| {
                let param = key.as_int().unwrap_or_default();
                OptimError::state_dict(R::NAME, format!("state of parameter {param}: {reason}"))
            };
            let entry = match entries.get_value(key).map(|entry| (entry.as_dict(), entry)) {
                None => continue,
                Some((Some(entry), _)) => entry,
                Some((None, found)) => return Err(wrong(format!("it is {}, expected dict", found.type_name()))),
            };
            // PyTorch notes an SGD momentum that was never used as None.
            if !entry.iter().any(|(_, value)| !matches!(value, Value::None)) {
                continue;
            }
            self.make_state(i, group, rule)?;
            let scalar = |name: &str| {
                let value = entry.require(name).map_err(|e| wrong(e.to_string()))?;
                number(value)
                    .ok_or_else(|| wrong(format!("entry `{name}` is {}, expected a number", value.type_name())))
            };
            // A rule that does not count steps only needs to know whether this is the first one.
            self.progress[i].step = if R::COUNTS_STEPS { scalar("step")? as u64 } else { 1 };
            for (at, name) in R::SCALARS.iter().enumerate() {
                self.progress[i].scalars[at] = scalar(name)? as f32;
            }
            if let Some(steps) = &self.steps {
                let _ = steps.f_select(0, i as i64)?.f_fill_(self.progress[i].step as f64)?;
            }
            for (name, tensors) in R::SLOTS.iter().zip(&mut self.slots) {
                let Some(tensor) = &mut tensors[i] else { continue };
                let saved = entry.tensor(name).map_err(|e| wrong(e.to_string()))?;
                if saved.size() != tensor.size() {
                    let (saved, expected) = (saved.size(), tensor.size());
                    return Err(wrong(format!(
                        "`{name}` has shape {saved:?}, expected {expected:?}; is it of another model?"
                    )));
                }
                tensor.f_copy_(saved)?;
            }
        }
        self.list_state()
    }
}

fn update<R: Rule>(rule: &R, is_sparse: bool, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
    if is_sparse { rule.update_sparse(group, bucket) } else { rule.update(group, bucket) }
}

/// The slots that parameters of `group` need, one bit each.
fn wanted_slots<R: Rule>(group: &ParamGroup, rule: &R) -> u8 {
    (0..R::SLOTS.len()).filter(|&slot| rule.uses(slot, group)).fold(0, |bits, slot| bits | 1 << slot)
}

/// Makes `some` the part of `all` at `indices`.
fn select(all: &Bucket, some: &mut Bucket, indices: &[usize]) -> Result<(), OptimError> {
    foreach::select(&all.params, indices, &mut some.params)?;
    foreach::select(&all.grads, indices, &mut some.grads)?;
    for (all, some) in all.slots.iter().zip(&mut some.slots) {
        foreach::select(all, indices, some)?;
    }
    if !TensorList::is_empty(&all.steps) {
        foreach::select(&all.steps, indices, &mut some.steps)?;
    }
    Ok(())
}
