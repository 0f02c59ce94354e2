//! [`Loaded`]: information about the checkpoint a run was resumed from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fulgurite_engine::{Outline, Reach};
use fulgurite_torch::Dict;

/// The checkpoint that the state was restored from.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub path: PathBuf,
    pub run_id: Option<String>,
    pub reach: Reach,
}

impl Loaded {
    pub(super) fn new(path: &Path, checkpoint: &Dict) -> Loaded {
        let outline = Outline(checkpoint);
        Loaded { path: path.into(), run_id: outline.run_id().map(str::to_owned), reach: outline.reach() }
    }
}

/// Files that the run wrote after the checkpoint it was resumed from, and at which step.
pub(super) type WrittenLater = HashMap<PathBuf, i64>;
