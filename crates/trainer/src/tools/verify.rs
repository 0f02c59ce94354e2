//! `fulgurite-ckpt verify`: checks that checkpoints are intact.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::findings::Findings;
use super::text::{count, size};
use crate::load::source;
use fulgurite_engine::Error;

/// Reads checkpoints completely and reports which are intact; exits with 1 if one is not.
#[derive(clap::Args)]
pub(super) struct Verify {
    /// Checkpoints, and folders whose checkpoints are all read.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// The file extensions of checkpoints.
const EXTENSIONS: [&str; 5] = ["ckpt", "pt", "pth", "bin", "safetensors"];

impl Verify {
    pub(super) fn run(&self) -> Result<Findings, Error> {
        let mut paths = BTreeSet::new();
        for path in &self.files {
            if !path.is_dir() {
                paths.insert(path.clone());
                continue;
            }
            let before = paths.len();
            walk(path, &mut paths)?;
            if paths.len() == before {
                let endings = EXTENSIONS.map(|ending| format!(".{ending}")).join(", ");
                let problem = format!("is a folder without a checkpoint in it; their names end in {endings}");
                return Err(Error::Checkpoint { path: path.clone(), problem });
            }
        }
        let mut text = String::new();
        let mut intact = 0;
        for path in &paths {
            match source::verify(path) {
                Ok(bytes) => {
                    intact += 1;
                    text += &format!("intact   {:>9}  {}\n", size(bytes), path.display());
                }
                Err(error) => {
                    let told = error.to_string();
                    let prefix = format!("checkpoint {}: ", path.display());
                    let reason = told.strip_prefix(&prefix).unwrap_or(&told);
                    text += &format!("NOT INTACT         {}: {reason}\n", path.display());
                }
            }
        }
        if paths.len() > 1 {
            text += &format!("{intact} of {} intact\n", count(paths.len(), "checkpoint"));
        }
        Ok(Findings { text, good: intact == paths.len() })
    }
}

/// Adds the checkpoints below a folder. Links to folders are not followed, so this ends.
fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
    let cannot = |error: std::io::Error| {
        let problem = format!("the folder cannot be read: {error}");
        Error::Checkpoint { path: folder.into(), problem }
    };
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let path = entry.path();
        if entry.file_type().map_err(cannot)?.is_dir() {
            walk(&path, found)?;
        } else if path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| EXTENSIONS.contains(&ending))
        {
            found.insert(path);
        }
    }
    Ok(())
}
