//! The manifest: the list of a file's entries within the file, which determines every byte of the file.
//!
//! The list holds the size, place and checksum of every entry, and the rest of the container follows from it, as there is
//! one way only to lay it out. So every damage of a file with a list is detected: a changed bit, a missing, added or
//! exchanged entry, and a truncated end. PyTorch and Lightning ignore the list.

use super::failures::damaged;
use super::zip_directory::Record;
use super::zip_layout::{Entry, directory};
use crate::error::TorchError;

/// The name of the list's entry.
pub(super) const NAME: &str = ".fulgurite/entries";

const TITLE: &str = "fulgurite entries 1";

/// One line for each entry, `CRC SIZE START NAME`, and the checksum of these lines.
pub(super) fn write(entries: &[Entry], folder: &str) -> String {
    let mut text = format!("{TITLE}\n");
    for entry in entries {
        let name = entry.name.strip_prefix(folder).and_then(|name| name.strip_prefix('/')).unwrap_or(&entry.name);
        let start = entry.header_at + entry.local_header().len() as u64;
        text.push_str(&format!("{:08x} {} {start} {name}\n", entry.crc, entry.size));
    }
    text.push_str(&format!("{:08x}\n", crc32fast::hash(text.as_bytes())));
    text
}

/// The record of one entry in the list.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    crc: u32,
    size: u64,
    start: u64,
    name: &'a str,
}

/// Checks the entries that were found in a file (the list itself is the last of them) and the bytes of the container
/// against the list. `local_header` reads that of an entry, `tail` is all that comes after the data.
pub(super) fn check(
    text: &[u8],
    records: &[Record],
    folder: &str,
    tail: &[u8],
    mut local_header: impl FnMut(&Record) -> Result<Vec<u8>, TorchError>,
) -> Result<(), TorchError> {
    let lines = parse(text)?;
    let Some((list, listed)) = records.split_last().filter(|(list, _)| name_within(list, folder) == Some(NAME)) else {
        return Err(damaged("its list of entries is not its last entry".into()));
    };
    for (record, line) in listed.iter().zip(&lines) {
        let found = name_within(record, folder).map(|name| Line {
            crc: record.crc,
            size: record.size,
            start: record.start,
            name,
        });
        if found.as_ref() != Some(line) {
            return Err(damaged(format!(
                "entry `{}` is not what the file's own list says: {} bytes at {} with checksum {:08x}",
                line.name, line.size, line.start, line.crc
            )));
        }
    }
    if listed.len() != lines.len() {
        return Err(damaged(format!(
            "it has {} entries, and its own list {}; it was changed after it was written",
            listed.len(),
            lines.len()
        )));
    }
    let mut at = 0;
    let mut entries = Vec::with_capacity(records.len());
    for record in listed.iter().chain([list]) {
        let entry = Entry { name: record.name.clone(), header_at: at, size: record.size, crc: record.crc };
        let header = entry.local_header();
        at += header.len() as u64;
        if record.header_at != entry.header_at || record.start != at || local_header(record)? != header {
            return Err(damaged(format!(
                "the header of entry `{}` was changed after it was written",
                record.short_name()
            )));
        }
        at += record.size;
        entries.push(entry);
    }
    match directory(&entries, at) == tail {
        true => Ok(()),
        false => Err(damaged("its directory was changed after it was written".into())),
    }
}

fn name_within<'a>(record: &'a Record, folder: &str) -> Option<&'a str> {
    record.name.strip_prefix(folder)?.strip_prefix('/')
}

fn parse(text: &[u8]) -> Result<Vec<Line<'_>>, TorchError> {
    let wrong = || damaged("its list of entries is not one that can be read".into());
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (lines, sum) = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')).ok_or_else(wrong)?;
    let lines = &text[..lines.len() + 1];
    if sum != format!("{:08x}", crc32fast::hash(lines.as_bytes())) {
        return Err(damaged("the checksum of its list of entries is wrong".into()));
    }
    let mut lines = lines.lines();
    if lines.next() != Some(TITLE) {
        return Err(TorchError::UnsupportedCheckpoint {
            reason: "its list of entries is of a later version of Fulgurite; read it with that version".into(),
        });
    }
    lines.map(|line| parse_line(line).ok_or_else(wrong)).collect()
}

fn parse_line(line: &str) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, ' ');
    Some(Line {
        crc: u32::from_str_radix(parts.next()?, 16).ok()?,
        size: parts.next()?.parse().ok()?,
        start: parts.next()?.parse().ok()?,
        name: parts.next()?,
    })
}
