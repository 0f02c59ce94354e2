//! `fulgurite-ckpt consolidate`: merges shards into one file.

use std::path::PathBuf;

use super::convert::Change;
use crate::load::source::{self, Checksums, Format};
use fulgurite_engine::Error;

/// Merges a folder of shards into one file.
///
/// The folder has an index, such as Hugging Face's model.safetensors.index.json or pytorch_model.bin.index.json, and
/// beside it the shards. The extension of the new name determines the format, as for `convert`.
#[derive(clap::Args)]
pub(super) struct Consolidate {
    /// The folder, or the index in it.
    folder: PathBuf,
    /// The new file.
    output: PathBuf,
    #[command(flatten)]
    change: Change,
}

impl Consolidate {
    pub(super) fn run(&self) -> Result<String, Error> {
        let source = source::read(&self.folder, Checksums::Compared)?;
        if source.format != Format::Shards {
            let problem = "is one file already; `convert` writes it in another format".into();
            return Err(Error::Checkpoint { path: self.folder.clone(), problem });
        }
        self.change.write(&self.folder, source.value, &self.output, true)
    }
}
