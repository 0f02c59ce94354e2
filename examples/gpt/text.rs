//! Text to learn from: a file, or the files of a folder one after the other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The workspace this example was built in; the current folder where that is gone.
pub(crate) fn workspace() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    workspace.canonicalize().unwrap_or_else(|_| ".".into())
}

/// The bytes of a file, or of the files in a folder that end in `extension`, sorted by path.
pub(crate) fn read(path: &Path, extension: &str) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    if path.is_dir() {
        collect(path, extension, &mut files)?;
        files.sort();
        ensure!(
            !files.is_empty(),
            "there is no .{extension} file in {}; choose others with --extension",
            path.display()
        );
    } else {
        files.push(path.into());
    }
    let mut text = Vec::new();
    for file in files {
        text.extend(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(text)
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let (entry, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let hidden = entry.to_string_lossy().starts_with('.');
        if path.is_dir() && !hidden && entry != "target" {
            collect(&path, extension, files)?;
        } else if path.is_file() && path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    Ok(())
}

/// Bytes as text for a terminal: what is no UTF-8 becomes `�`, control characters `·`.
pub(crate) fn readable(bytes: &[u8]) -> String {
    let printable = |c: char| if c.is_control() && c != '\n' { '·' } else { c };
    String::from_utf8_lossy(bytes).replace('\t', "    ").chars().map(printable).collect()
}
