//! [`JournalFile`]: the lines of a journal.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::json;
use super::lock::Lock;
use crate::error::{Result, SearchError};

/// A file of one JSON object a line, to which several processes append.
pub(super) struct JournalFile {
    path: PathBuf,
    /// What has been read.
    position: u64,
    lines: usize,
}

impl JournalFile {
    /// Opens a journal, or begins one.
    pub(super) fn open(path: &Path) -> Result<JournalFile> {
        // Of the lock too, which leads to it from wherever it is seen.
        let path = std::path::absolute(path).map_err(failed(path, "find"))?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed(folder, "create"))?;
        }
        OpenOptions::new().create(true).append(true).open(&path).map_err(failed(&path, "open"))?;
        Ok(JournalFile { path, position: 0, lines: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The lines that were appended since the last call. A last line without an end is being written, or will never be.
    pub(super) fn read(&mut self) -> Result<Vec<Value>> {
        let failed = failed(&self.path, "read");
        let text = (|| {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.position))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(text)
        })()
        .map_err(failed)?;
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut read = Vec::new();
        for line in text[..end].split_inclusive(|byte| *byte == b'\n') {
            self.position += line.len() as u64;
            self.lines += 1;
            let parsed = std::str::from_utf8(line).map_err(|error| error.to_string());
            let parsed = parsed.and_then(|line| json::read(line.trim_end()).map_err(|error| error.to_string()));
            read.push(parsed.map_err(|problem| SearchError::Journal {
                path: self.path.clone(),
                line: self.lines,
                problem: format!("no JSON: {problem}; remove the line, or begin another journal"),
            })?);
        }
        Ok(read)
    }

    /// Appends lines as a whole; with `wait`, they and all before are on the disk afterwards. Without, they survive the end of this
    /// process, but not of the machine.
    pub(super) fn append(&self, entries: &[Value], wait: bool) -> Result<()> {
        let lines: String = entries.iter().map(|entry| json::write(entry) + "\n").collect();
        let written = Lock::acquire(&self.path).and_then(|_lock| {
            let mut file = OpenOptions::new().read(true).append(true).open(&self.path)?;
            cut_torn_line(&mut file)?;
            file.write_all(lines.as_bytes())?;
            if wait { file.sync_data() } else { Ok(()) }
        });
        written.map_err(failed(&self.path, "append to"))
    }
}

/// Removes what a process that was killed has left of a line. Optuna does not, and its next line would be glued to it, which makes
/// the journal unreadable for ever.
fn cut_torn_line(file: &mut File) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut end = length;
    let mut block = [0; 4096];
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            end = begin + at as u64 + 1;
            break;
        }
        end = begin;
    }
    if end < length { file.set_len(end) } else { Ok(()) }
}

pub(super) fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> SearchError {
    let path = path.to_owned();
    move |source| SearchError::Io { path, doing, source }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_torn_line_is_cut_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("journal.log");
        let mut journal = JournalFile::open(&path).unwrap();
        journal.append(&[json!({"n": 1})], true).unwrap();
        let torn = format!("{{\"n\":{}", "2".repeat(10_000));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(torn.as_bytes()).unwrap();
        assert_eq!(journal.read().unwrap(), [json!({"n": 1})]);
        journal.append(&[json!({"n": 3}), json!({"n": 4})], false).unwrap();
        assert_eq!(journal.read().unwrap(), [json!({"n": 3}), json!({"n": 4})]);
        assert!(journal.read().unwrap().is_empty());
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.log");
        std::fs::write(&path, "{\"n\":1}\nnonsense\n").unwrap();
        let error = JournalFile::open(&path).unwrap().read().unwrap_err().to_string();
        assert!(error.contains("journal.log, line 2: no JSON"), "{error}");
    }
}
