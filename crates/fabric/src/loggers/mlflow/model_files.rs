//! The checkpoints of a run as files of MLflow, where Lightning puts them.

use fulgurite_trackers::Entry;

use crate::loggers::checkpoints::Unsent;
use crate::loggers::yaml::to_yaml;

/// A folder with the file, what is known of it, and its aliases.
pub(super) fn as_files(checkpoint: Unsent) -> Entry {
    let folder = checkpoint.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let aliases = if checkpoint.is_best { "['latest', 'best']" } else { "['latest']" };
    let text = |file: &str, text: String| (format!("{folder}/{file}"), text);
    Entry::File {
        path: format!("{folder}/{}", checkpoint.file_name()),
        remove: checkpoint.linked.is_some(),
        with: vec![
            text("metadata.yaml", to_yaml(&checkpoint.metadata("Checkpoint"))),
            text("aliases.txt", aliases.to_owned()),
        ],
        from: checkpoint.linked.unwrap_or(checkpoint.path),
    }
}
