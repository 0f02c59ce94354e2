//! What disks do to files that were whole.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::draw::Draw;

/// One kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// One bit is another.
    Bit,
    /// The end is missing.
    Cut,
    /// A stretch of zeros.
    Zeros,
    /// Nothing is left of it but its name.
    Emptied,
}

/// The checkpoints in a folder, links left out.
pub fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension().is_some_and(|ext| ext == "ckpt") && fs::symlink_metadata(&path)?.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Damages a file in place.
pub fn damage(path: &Path, draw: &mut Draw) -> Result<Damage> {
    let mut bytes = fs::read(path)?;
    let len = bytes.len() as u64;
    let damage =
        *draw.choose(&[Damage::Bit, Damage::Bit, Damage::Cut, Damage::Zeros, Damage::Emptied]).unwrap_or(&Damage::Bit);
    match damage {
        Damage::Bit => {
            if let Some(byte) = bytes.get_mut(draw.below(len) as usize) {
                *byte ^= 1 << draw.below(8);
            }
        }
        Damage::Cut => bytes.truncate(draw.below(len) as usize),
        Damage::Zeros => {
            let begin = draw.below(len) as usize;
            let end = bytes.len().min(begin + 1 + draw.below(4096) as usize);
            bytes[begin..end].fill(0);
        }
        Damage::Emptied => bytes.clear(),
    }
    // In place: what shares the file's contents shares the damage.
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    std::io::Write::write_all(&mut file, &bytes)?;
    Ok(damage)
}
