//! Writes the zip container of a checkpoint: entries stored as they are, their data on 64-byte boundaries.

use std::io::{self, Write};

/// Where the data of an entry begins, so that a file can be mapped into memory and used in place.
pub(super) const ALIGNMENT: u64 = 64;

const LOCAL_HEADER: u32 = 0x0403_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_ZIP64: u32 = 0x0606_4b50;
const END_ZIP64_LOCATOR: u32 = 0x0706_4b50;
/// Version 4.5 of the format has 64-bit sizes.
const VERSION_ZIP64: u16 = 45;
const VERSION: u16 = 20;
const FLAG_UTF8: u16 = 1 << 11;
const EXTRA_ZIP64: u16 = 1;
/// PyTorch's own mark for padding.
const EXTRA_PADDING: [u8; 2] = *b"FB";

/// A zip file in the making. Everything is written in one pass, forwards.
pub(super) struct ArchiveWriter<W> {
    out: W,
    at: u64,
    entries: Vec<Entry>,
    /// The one folder that everything lies in.
    folder: &'static str,
}

struct Entry {
    name: String,
    header_at: u64,
    size: u64,
    crc: u32,
}

impl<W: Write> ArchiveWriter<W> {
    pub(super) fn new(out: W, folder: &'static str) -> ArchiveWriter<W> {
        ArchiveWriter { out, at: 0, entries: Vec::new(), folder }
    }

    /// Writes an entry, and returns its CRC-32.
    pub(super) fn entry(&mut self, name: &str, data: &[u8]) -> io::Result<u32> {
        let entry = Entry {
            name: format!("{}/{name}", self.folder),
            header_at: self.at,
            size: data.len() as u64,
            crc: crc32fast::hash(data),
        };
        let mut extra = Vec::new();
        if entry.size >= u64::from(u32::MAX) {
            extra.extend(EXTRA_ZIP64.to_le_bytes());
            extra.extend(16u16.to_le_bytes());
            extra.extend(entry.size.to_le_bytes());
            extra.extend(entry.size.to_le_bytes());
        }
        let fixed = self.at + 30 + entry.name.len() as u64 + extra.len() as u64 + 4;
        let padding = fixed.next_multiple_of(ALIGNMENT) - fixed;
        extra.extend(EXTRA_PADDING);
        extra.extend((padding as u16).to_le_bytes());
        extra.resize(extra.len() + padding as usize, b'Z');

        let mut header = Vec::with_capacity(30);
        header.extend(LOCAL_HEADER.to_le_bytes());
        entry.describe(&mut header, &extra);
        header.extend(entry.name.as_bytes());
        header.extend(&extra);
        self.write(&header)?;
        self.write(data)?;
        let crc = entry.crc;
        self.entries.push(entry);
        Ok(crc)
    }

    /// Writes the central directory, and gives the output back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let directory_at = self.at;
        let mut directory = Vec::new();
        for entry in &self.entries {
            entry.list(&mut directory);
        }
        let (count, size) = (self.entries.len() as u64, directory.len() as u64);
        let end_at = directory_at + size;
        if directory_at >= u64::from(u32::MAX) || count >= u64::from(u16::MAX) {
            directory.extend(END_ZIP64.to_le_bytes());
            directory.extend(44u64.to_le_bytes());
            directory.extend(VERSION_ZIP64.to_le_bytes());
            directory.extend(VERSION_ZIP64.to_le_bytes());
            directory.extend([0; 8]);
            for number in [count, count, size, directory_at] {
                directory.extend(number.to_le_bytes());
            }
            directory.extend(END_ZIP64_LOCATOR.to_le_bytes());
            directory.extend(0u32.to_le_bytes());
            directory.extend(end_at.to_le_bytes());
            directory.extend(1u32.to_le_bytes());
        }
        directory.extend(END.to_le_bytes());
        directory.extend([0; 4]);
        directory.extend(saturated_u16(count).to_le_bytes());
        directory.extend(saturated_u16(count).to_le_bytes());
        directory.extend(saturated_u32(size).to_le_bytes());
        directory.extend(saturated_u32(directory_at).to_le_bytes());
        directory.extend([0; 2]);
        self.write(&directory)?;
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

impl Entry {
    /// The fields that both headers of an entry share.
    fn describe(&self, header: &mut Vec<u8>, extra: &[u8]) {
        let large = self.size >= u64::from(u32::MAX);
        header.extend((if large { VERSION_ZIP64 } else { VERSION }).to_le_bytes());
        header.extend(FLAG_UTF8.to_le_bytes());
        // Stored; no time and no date, so that the same state gives the same file.
        header.extend([0; 6]);
        header.extend(self.crc.to_le_bytes());
        header.extend(saturated_u32(self.size).to_le_bytes());
        header.extend(saturated_u32(self.size).to_le_bytes());
        header.extend((self.name.len() as u16).to_le_bytes());
        header.extend((extra.len() as u16).to_le_bytes());
    }

    /// The entry's line of the central directory.
    fn list(&self, directory: &mut Vec<u8>) {
        let limit = u64::from(u32::MAX);
        let mut large = Vec::new();
        if self.size >= limit {
            large.extend(self.size.to_le_bytes());
            large.extend(self.size.to_le_bytes());
        }
        if self.header_at >= limit {
            large.extend(self.header_at.to_le_bytes());
        }
        let mut extra = Vec::new();
        if !large.is_empty() {
            extra.extend(EXTRA_ZIP64.to_le_bytes());
            extra.extend((large.len() as u16).to_le_bytes());
            extra.extend(large);
        }
        directory.extend(CENTRAL_HEADER.to_le_bytes());
        directory.extend(VERSION_ZIP64.to_le_bytes());
        self.describe(directory, &extra);
        // No comment, first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(saturated_u32(self.header_at).to_le_bytes());
        directory.extend(self.name.as_bytes());
        directory.extend(extra);
    }
}

fn saturated_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn saturated_u16(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
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
