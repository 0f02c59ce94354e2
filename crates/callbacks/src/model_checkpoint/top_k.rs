//! [`TopK`]: the best checkpoints, and which one is removed next.

use std::path::{Path, PathBuf};

use fulgurite_engine::config::Maximum;

use super::Mode;

/// The best checkpoints so far, in the order they were written.
#[derive(Debug, Clone)]
pub(super) struct TopK {
    pub mode: Mode,
    /// How many to keep.
    pub k: Maximum,
    pub models: Vec<(PathBuf, f64)>,
    /// The next one to be removed, once there are `k`.
    pub kth_path: Option<PathBuf>,
    pub kth_value: f64,
}

impl TopK {
    pub(super) fn new(mode: Mode, k: Maximum) -> TopK {
        TopK { mode, k, models: Vec::new(), kth_path: None, kth_value: mode.worst() }
    }

    /// Whether a checkpoint with this value would be kept: fewer than `k` are at least as good. Any value is better
    /// than NaN.
    pub(super) fn accepts(&self, value: f64) -> bool {
        let as_good = self.models.iter().filter(|(_, held)| !self.mode.is_better(value, *held)).count();
        self.has_room() || !self.k.is_reached_by(as_good as u64)
    }

    /// Whether a checkpoint with a better value than this is kept.
    pub(super) fn has_better(&self, path: &Path, value: f64) -> bool {
        self.models.iter().any(|(model, held)| model == path && self.mode.is_better(*held, value))
    }

    /// Removes the worst until there is room for one more, and returns the removed ones.
    pub(super) fn make_room(&mut self) -> Vec<PathBuf> {
        let mut evicted = Vec::new();
        while !self.has_room()
            && let Some(worst) = self.worst().map(|(path, _)| path.clone())
        {
            self.models.retain(|(path, _)| *path != worst);
            evicted.push(worst);
        }
        evicted
    }

    /// Removes the given checkpoints.
    pub(super) fn forget(&mut self, evicted: &[PathBuf]) {
        self.models.retain(|(path, _)| !evicted.contains(path));
    }

    /// Keeps those for which `is_there` returns `true`.
    pub(super) fn retain(&mut self, is_there: impl Fn(&Path) -> bool) {
        self.models.retain(|(path, _)| is_there(path));
        (self.kth_path, self.kth_value) = (None, self.mode.worst());
        self.note_kth();
    }

    /// Adds a checkpoint and returns the value it is ranked by: NaN ranks as the worst.
    pub(super) fn insert(&mut self, path: &Path, value: f64) -> f64 {
        let value = if value.is_nan() { self.mode.worst() } else { value };
        match self.models.iter_mut().find(|(held, _)| held == path) {
            Some((_, held)) => *held = value,
            None => self.models.push((path.into(), value)),
        }
        self.note_kth();
        value
    }

    fn note_kth(&mut self) {
        if (self.k == Maximum::Unlimited || !self.has_room())
            && let Some((path, value)) = self.worst().cloned()
        {
            (self.kth_path, self.kth_value) = (Some(path), value);
        }
    }

    /// The best; of equals the oldest.
    pub(super) fn best(&self) -> Option<&(PathBuf, f64)> {
        self.models.iter().reduce(|best, model| if self.mode.is_better(model.1, best.1) { model } else { best })
    }

    /// The worst; of equals the oldest.
    fn worst(&self) -> Option<&(PathBuf, f64)> {
        self.models.iter().reduce(|worst, model| if self.mode.is_better(worst.1, model.1) { model } else { worst })
    }

    fn has_room(&self) -> bool {
        !self.k.is_reached_by(self.models.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Maximum, Mode, TopK};

    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;

    /// Offers the values one after the other as `0`, `1`, …; returns which are kept, the best and the one to go next.
    fn offer(mode: Mode, k: Maximum, values: &[f64]) -> (Vec<String>, Option<String>, Option<String>) {
        let mut top = TopK::new(mode, k);
        for (index, value) in values.iter().enumerate() {
            if top.accepts(*value) {
                top.make_room();
                top.insert(Path::new(&index.to_string()), *value);
            }
        }
        let text = |path: &Path| path.display().to_string();
        (
            top.models.iter().map(|(path, value)| format!("{}={value}", text(path))).collect(),
            top.best().map(|(path, _)| text(path)),
            top.kth_path.as_deref().map(text),
        )
    }

    /// Every row is what `ModelCheckpoint` of Lightning 2.6.6 keeps of these values.
    #[test]
    fn the_best_are_kept() {
        let (min, max, all) = (Mode::Min, Mode::Max, Maximum::Unlimited);
        for (mode, k, values, kept, best, kth) in [
            (min, Maximum::Of(1), &[3.0, 2.0, 4.0][..], "1=2", "1", "1"),
            (max, Maximum::Of(1), &[3.0, 2.0, 4.0], "2=4", "2", "2"),
            (min, Maximum::Of(2), &[3.0, 2.0, 4.0], "0=3 1=2", "1", "0"),
            (min, Maximum::Of(2), &[3.0, 2.0, 2.5, 1.0], "1=2 3=1", "3", "1"),
            (min, Maximum::Of(3), &[3.0, 2.0], "0=3 1=2", "1", "-"),
            // Ties: an equal value does not replace, and of equals the oldest is best and first to go.
            (min, Maximum::Of(1), &[2.0, 2.0], "0=2", "0", "0"),
            (min, Maximum::Of(2), &[2.0, 2.0, 1.0], "1=2 2=1", "2", "1"),
            (max, Maximum::Of(3), &[1.0, 1.0, 1.0, 2.0], "1=1 2=1 3=2", "3", "1"),
            // NaN takes a free place as the worst there can be, and beats nothing.
            (min, Maximum::Of(1), &[NAN, 5.0, NAN], "1=5", "1", "1"),
            (min, Maximum::Of(2), &[1.0, NAN, 7.0, NAN], "0=1 2=7", "0", "2"),
            (max, Maximum::Of(2), &[NAN, 0.5], "0=-inf 1=0.5", "1", "0"),
            (min, Maximum::Of(2), &[NAN, NAN, INF], "0=inf 1=inf", "0", "0"),
            // All are kept.
            (min, all, &[3.0, NAN, 2.0], "0=3 1=inf 2=2", "2", "1"),
            (max, all, &[3.0, 3.0], "0=3 1=3", "0", "0"),
            (min, Maximum::Of(0), &[3.0], "", "-", "-"),
        ] {
            let (models, found_best, found_kth) = offer(mode, k, values);
            let or_dash = |path: Option<String>| path.unwrap_or_else(|| "-".into());
            let found = (models.join(" "), or_dash(found_best), or_dash(found_kth));
            assert_eq!(found, (kept.into(), best.into(), kth.into()), "{mode:?} {k:?} {values:?}");
        }
    }

    #[test]
    fn a_smaller_k_than_that_of_the_run_resumed_from_removes_those_too_many() {
        let mut top = TopK::new(Mode::Min, Maximum::Of(1));
        top.models = vec![("a".into(), 1.0), ("b".into(), 3.0), ("c".into(), 2.0)];
        assert_eq!([0.5, 1.0, 1.5].map(|value| top.accepts(value)), [true, false, false]);
        assert_eq!(top.make_room(), [Path::new("b"), Path::new("c"), Path::new("a")]);
        top.insert(Path::new("d"), 0.5);
        assert_eq!((top.models, top.kth_path), (vec![("d".into(), 0.5)], Some("d".into())));
    }
}
