//! Writes the zip container of a checkpoint: uncompressed entries, their data on 64-byte boundaries.

use std::io::{self, Write};

use super::manifest;
use super::zip_layout::{Entry, directory};

/// A zip file in the making. Everything is written in one pass, forwards.
pub(super) struct ArchiveWriter<W> {
    out: W,
    at: u64,
    entries: Vec<Entry>,
    /// The one folder that everything lies in.
    folder: &'static str,
}

impl<W: Write> ArchiveWriter<W> {
    pub(super) fn new(out: W, folder: &'static str) -> ArchiveWriter<W> {
        ArchiveWriter { out, at: 0, entries: Vec::new(), folder }
    }

    /// Writes an entry.
    pub(super) fn entry(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        self.summed_entry(name, data, crc32fast::hash(data))
    }

    /// Writes an entry whose CRC-32 is known.
    pub(super) fn summed_entry(&mut self, name: &str, data: &[u8], crc: u32) -> io::Result<()> {
        let name = format!("{}/{name}", self.folder);
        let entry = Entry { name, header_at: self.at, size: data.len() as u64, crc };
        self.write(&entry.local_header())?;
        self.write(data)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Writes the list of the entries so far, which determines the complete file. No entry follows it.
    pub(super) fn manifest(&mut self) -> io::Result<()> {
        let text = manifest::write(&self.entries, self.folder);
        self.entry(manifest::NAME, text.as_bytes())
    }

    /// Writes the central directory, and gives the output back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write(&directory(&self.entries, self.at))?;
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::zip_layout::ALIGNMENT;
    use super::*;
    use std::io::{Cursor, Read};

    #[test]
    fn entries_are_stored_aligned_and_found_by_an_independent_reader() {
        let mut writer = ArchiveWriter::new(Vec::new(), "archive");
        let large = vec![7; 1000];
        writer.entry("data.pkl", b"abc").unwrap();
        writer.entry("data/0", &large).unwrap();
        writer.entry("data/1", b"").unwrap();
        let file = writer.finish().unwrap();

        let mut archive = zip::ZipArchive::new(Cursor::new(&file)).unwrap();
        assert_eq!(archive.len(), 3);
        for (name, data) in [("data.pkl", &b"abc"[..]), ("data/0", &large), ("data/1", b"")] {
            let mut entry = archive.by_name(&format!("archive/{name}")).unwrap();
            assert_eq!(entry.compression(), zip::CompressionMethod::Stored);
            assert_eq!(entry.data_start() % ALIGNMENT, 0);
            let mut read = Vec::new();
            entry.read_to_end(&mut read).unwrap();
            assert_eq!(read, data);
        }
    }

    #[test]
    fn more_entries_than_16_bits_count() {
        let mut writer = ArchiveWriter::new(Vec::new(), "a");
        for i in 0..70_000 {
            writer.entry(&i.to_string(), b"").unwrap();
        }
        let file = writer.finish().unwrap();
        assert_eq!(zip::ZipArchive::new(Cursor::new(&file)).unwrap().len(), 70_000);
    }
}
