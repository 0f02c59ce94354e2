//! Random number generators that are functions of the seed, the epoch and an index only.
//!
//! ChaCha8 takes a 256-bit key and a 64-bit stream number: seed, epoch and purpose make the key, the index is the
//! stream. So every item has its own generator, independent of the worker that loads it and of what was loaded before.

use rand::{Rng, SeedableRng};

/// The generator a dataset's `get` and a `map` receive: one per item and epoch.
///
/// Use it through the traits of [`rand`] (re-exported as `fulgurite_data::rand`).
pub type ItemRng = rand_chacha::ChaCha8Rng;

/// The purpose of random numbers. Each purpose has its own key, so that no two use the same numbers.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Order = 1,
    Item = 2,
    Split = 3,
    Stream = 4,
    Batch = 5,
}

/// The generator of `purpose` for `seed` and `epoch`, at stream 0.
pub(crate) fn generator(seed: u64, epoch: u64, purpose: Purpose) -> ItemRng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16] = purpose as u8;
    ItemRng::from_seed(key)
}

/// The generators of the items of one epoch.
#[derive(Clone)]
pub(crate) struct ItemRngs(ItemRng);

impl ItemRngs {
    pub(crate) fn new(seed: u64, epoch: u64) -> ItemRngs {
        ItemRngs(generator(seed, epoch, Purpose::Item))
    }

    /// Those of whole batches.
    pub(crate) fn of_batches(seed: u64, epoch: u64) -> ItemRngs {
        ItemRngs(generator(seed, epoch, Purpose::Batch))
    }

    pub(crate) fn at(&self, stream: u64) -> ItemRng {
        let mut rng = self.0.clone();
        rng.set_stream(stream);
        rng
    }
}

// `rand` keeps its generators stable over the years, but not its shuffles; an order that a checkpoint relies on must
// not move with a dependency, hence the two short functions below.

/// A number in `0..n`, each equally likely (Lemire's method). `n` must not be 0.
pub(crate) fn below(rng: &mut impl Rng, n: u64) -> u64 {
    let threshold = n.wrapping_neg() % n;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

/// Puts `items` into a random order (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last as u64 + 1) as usize);
    }
}

/// A number in `(0, 1]`.
pub(crate) fn unit(rng: &mut impl Rng) -> f64 {
    ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_n_comes_up_equally_often() {
        let mut rng = generator(1, 0, Purpose::Order);
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[below(&mut rng, 7) as usize] += 1);
        assert!(counts.iter().all(|&c| (9_600..10_400).contains(&c)), "{counts:?}");
    }

    #[test]
    fn orders_never_change_between_versions() {
        let mut order: Vec<u8> = (0..10).collect();
        shuffle(&mut order, &mut generator(42, 3, Purpose::Order));
        assert_eq!(order, [3, 1, 4, 6, 2, 9, 8, 5, 0, 7]);
    }

    #[test]
    fn seed_epoch_purpose_and_index_all_matter() {
        let first = |seed, epoch, stream| ItemRngs::new(seed, epoch).at(stream).next_u64();
        let base = first(0, 0, 0);
        assert_eq!(base, first(0, 0, 0));
        for other in [first(1, 0, 0), first(0, 1, 0), first(0, 0, 1), generator(0, 0, Purpose::Order).next_u64()] {
            assert_ne!(base, other);
        }
    }
}
