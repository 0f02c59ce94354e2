//! [`RecordFile`]: lines that are appended to a file, over every start of a program.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// A file of this size is not written to any more.
const FULL: u64 = 64 << 20;

/// The file. Each line is written as a whole, so that a killed program leaves at most half a line at the end.
#[derive(Debug)]
pub(super) struct RecordFile {
    file: File,
}

impl RecordFile {
    /// Creates it, or goes on with it.
    pub(super) fn append_to(path: &Path) -> io::Result<RecordFile> {
        // A pipe would wait for a reader.
        if path.exists() && !path.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let length = file.metadata()?.len();
        if length > FULL {
            return Err(io::Error::other("it is full"));
        }
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(RecordFile { file })
    }

    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_ends_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        for line in ["one\ntw", "three\n", "four\n"] {
            RecordFile::append_to(&path).unwrap().append(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntw\nthree\nfour\n");
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(RecordFile::append_to(&folder.path().join("folder")).is_err());
    }
}
