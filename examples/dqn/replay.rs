//! What an agent remembers, and the batches that are drawn from it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulgurite::data::rand::RngExt;
use fulgurite::data::{BoxError, ItemRng, IterableDataset, RecordIter};
use fulgurite::prelude::*;

use crate::cart_pole::State;

/// One step of a game.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transition {
    pub(crate) state: State,
    pub(crate) action: i64,
    pub(crate) reward: f32,
    pub(crate) failed: bool,
    pub(crate) next_state: State,
}

/// The latest steps. A clone is the same memory.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    transitions: Arc<Mutex<VecDeque<Transition>>>,
    capacity: usize,
}

impl Memory {
    pub(crate) fn new(capacity: usize) -> Memory {
        Memory { transitions: Arc::default(), capacity }
    }

    pub(crate) fn push(&self, transition: Transition) {
        let mut transitions = self.lock();
        if transitions.len() >= self.capacity {
            transitions.pop_front();
        }
        transitions.push_back(transition);
    }

    fn draw(&self, rng: &mut ItemRng) -> Transition {
        let transitions = self.lock();
        transitions[rng.random_range(0..transitions.len())]
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Transition>> {
        self.transitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Steps drawn from a memory, which grows while they are: `count` in each epoch.
pub(crate) struct Replay {
    pub(crate) memory: Memory,
    pub(crate) count: usize,
}

impl IterableDataset for Replay {
    type Record = Transition;
    type Item = (Tensor, i64, f32, bool, Tensor);

    fn records(&self, _epoch: u64, mut rng: ItemRng) -> Result<RecordIter<Transition>, BoxError> {
        let memory = self.memory.clone();
        Ok(Box::new((0..self.count).map(move |_| Ok(memory.draw(&mut rng)))))
    }

    fn load(&self, t: Transition, _: &mut ItemRng) -> Result<Self::Item, BoxError> {
        Ok((Tensor::from_slice(&t.state), t.action, t.reward, t.failed, Tensor::from_slice(&t.next_state)))
    }

    fn len(&self) -> Option<usize> {
        Some(self.count)
    }

    fn is_repeatable(&self) -> bool {
        false
    }
}
