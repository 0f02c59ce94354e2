//! Finds the entries of a zip container, whose metadata is untrusted: names, sizes and offsets are checked against the
//! file and against each other before anything is read or memory is allocated.

use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};

use super::failures::{damaged, read_failed};
use super::zip_layout::*;
use crate::error::TorchError;

/// More than a million entries need.
const MAX_DIRECTORY: u64 = 128 << 20;

/// The end record, the last bytes of a file.
const END_SIZE: u64 = 22;

/// Where the end record begins at the earliest in other zip files: it has a comment of at most 16 bits' length.
const MAX_END: u64 = END_SIZE + 0xffff;

const FLAG_ENCRYPTED: u16 = 1;
/// The local header was written before checksum and sizes were known, so it has none; PyTorch writes so.
const FLAG_SIZES_FOLLOW: u16 = 1 << 3;

/// One entry, as the central directory and its local header agree on it.
#[derive(Debug)]
pub(super) struct Record {
    /// With the folder.
    pub(super) name: String,
    pub(super) header_at: u64,
    /// Where its data begins.
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) crc: u32,
}

impl Record {
    /// The name without the folder.
    pub(super) fn short_name(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(_, name)| name)
    }
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Directory {
    /// In the order of the central directory.
    pub(super) records: Vec<Record>,
    /// The central directory and all that comes after it.
    pub(super) tail: Vec<u8>,
}

/// The record of an entry in the central directory.
struct Claim {
    record: Record,
    flags: u16,
}

pub(super) fn read(input: &mut (impl Read + Seek), length: u64) -> Result<Directory, TorchError> {
    let end = read_end(input, length)?;
    if length - end.at > MAX_DIRECTORY {
        return Err(TorchError::UnsupportedCheckpoint {
            reason: format!("its directory has more than {MAX_DIRECTORY} bytes"),
        });
    }
    let tail = read_at(input, end.at, (length - end.at) as usize)?;
    let mut claims = parse_claims(&tail[..(end.until - end.at) as usize], end.count)?;

    // In the order of the file; what one entry covers ends before the next begins, so nothing is read twice.
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|&index| claims[index].record.header_at);
    let mut free = 0;
    for index in order {
        let claim = &mut claims[index];
        if claim.record.header_at < free {
            return Err(damaged(format!("entry `{}` overlaps the one before it", claim.record.short_name())));
        }
        check_local_header(input, claim, end.at)?;
        free = claim.record.start + claim.record.size;
    }
    Ok(Directory { records: claims.into_iter().map(|claim| claim.record).collect(), tail })
}

/// Where the central directory lies, and how many entries it has.
struct End {
    at: u64,
    until: u64,
    count: u64,
}

fn read_end(input: &mut (impl Read + Seek), length: u64) -> Result<End, TorchError> {
    let cut = || {
        damaged(format!(
            "it begins like a checkpoint and has no end, at {length} bytes; it was cut while being written or copied"
        ))
    };
    let known = length.min(MAX_END + 20 + 56);
    let before = length - known;
    let tail = read_at(input, before, known as usize)?;
    let end_at = find_end(&tail, cut)?;
    let mut fields = Fields(&tail[end_at + 4..]);
    let (disks, count_here, count) = (fields.u32(), fields.u16(), fields.u16());
    let (Some(count), Some(size), Some(at)) = (count, fields.u32(), fields.u32()) else { return Err(cut()) };
    if disks != Some(0) || count_here != Some(count) {
        return Err(damaged("it is a zip file of several parts".into()));
    }
    let mut found = End { at: at.into(), until: before + end_at as u64, count: count.into() };
    let mut size = u64::from(size);
    if let Some(locator) = end_at.checked_sub(20).filter(|&at| tail[at..].starts_with(&END_ZIP64_LOCATOR.to_le_bytes()))
    {
        let disagrees = || damaged("the two ends of its directory disagree".into());
        let until = before + locator as u64;
        let (large, large_at) = read_large_end(input, &tail[locator..locator + 20], until)?;
        let agrees = |small: u64, limit: u64, large: u64| small == limit || small == large;
        if !agrees(found.count, u16::MAX.into(), large[0])
            || !agrees(size, u32::MAX.into(), large[1])
            || !agrees(found.at, u32::MAX.into(), large[2])
        {
            return Err(disagrees());
        }
        found = End { at: large[2], until: large_at, count: large[0] };
        size = large[1];
    }
    if found.at.checked_add(size) != Some(found.until) {
        return Err(damaged("its directory is not where its end says".into()));
    }
    Ok(found)
}

/// The end record, which has no comment and nothing after it. PyTorch writes neither, and with them a file can have two
/// end records, of which readers may use different ones.
fn find_end(tail: &[u8], cut: impl Fn() -> TorchError) -> Result<usize, TorchError> {
    let mark = END.to_le_bytes();
    let last = tail.len().checked_sub(END_SIZE as usize).ok_or_else(&cut)?;
    let reaches_the_end = |at: usize| {
        let record = &tail[at..];
        record.starts_with(&mark)
            && record.len() - END_SIZE as usize == usize::from(u16::from_le_bytes([record[20], record[21]]))
    };
    if (0..last).any(reaches_the_end) {
        return Err(ambiguous("it has an end with a comment, in which there may be another end"));
    }
    if reaches_the_end(last) { Ok(last) } else { Err(cut()) }
}

/// The error for files that other readers may interpret differently.
pub(super) fn ambiguous(reason: &str) -> TorchError {
    damaged(format!("{reason}, so that programs could read it in different ways"))
}

/// The 64-bit end record that a locator names: count, size and place of the directory; and where it lies itself.
fn read_large_end(
    input: &mut (impl Read + Seek),
    locator: &[u8],
    locator_at: u64,
) -> Result<([u64; 3], u64), TorchError> {
    let wrong = || damaged("the 64-bit end of its directory does not fit".into());
    let mut fields = Fields(&locator[4..]);
    let (disk, at, disks) = (fields.u32(), fields.u64(), fields.u32());
    let at = at.filter(|at| at.checked_add(56).is_some_and(|end| end <= locator_at)).ok_or_else(wrong)?;
    if disk != Some(0) || disks > Some(1) {
        return Err(wrong());
    }
    let record = read_at(input, at, 56)?;
    let mut fields = Fields(&record);
    let is_marked = fields.u32() == Some(END_ZIP64);
    let reaches = fields.u64().and_then(|size| at.checked_add(12)?.checked_add(size));
    let _versions = fields.u32();
    let (disks, count_here) = (fields.u64(), fields.u64());
    let (Some(count), Some(size), Some(directory_at)) = (fields.u64(), fields.u64(), fields.u64()) else {
        return Err(wrong());
    };
    if !is_marked || reaches != Some(locator_at) || disks != Some(0) || count_here != Some(count) {
        return Err(wrong());
    }
    Ok(([count, size, directory_at], at))
}

fn parse_claims(directory: &[u8], count: u64) -> Result<Vec<Claim>, TorchError> {
    let mut claims = Vec::new();
    let mut names = HashSet::new();
    let mut fields = Fields(directory);
    while !fields.0.is_empty() {
        let claim = parse_claim(&mut fields)?;
        let name = &claim.record.name;
        // PyTorch looks for names without regard to case.
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(damaged(format!("two entries are named `{name}`")));
        }
        claims.push(claim);
    }
    match claims.len() as u64 == count {
        true => Ok(claims),
        false => Err(damaged(format!("its directory has {} entries and should have {count}", claims.len()))),
    }
}

fn parse_claim(fields: &mut Fields<'_>) -> Result<Claim, TorchError> {
    let cut = || damaged("its directory is malformed".into());
    if fields.u32() != Some(CENTRAL_HEADER) {
        return Err(cut());
    }
    let _versions = fields.u32();
    let head = Head::parse(fields).ok_or_else(cut)?;
    let (comment, disk) = (fields.u16().ok_or_else(cut)?, fields.u16());
    let _attributes = (fields.u16(), fields.u32());
    let mut header_at = u64::from(fields.u32().ok_or_else(cut)?);
    let name = fields.take(head.name.into()).ok_or_else(cut)?;
    let name = proper_name(name)?.to_owned();
    let extra = fields.take(head.extra.into()).ok_or_else(cut)?;
    fields.take(comment.into()).ok_or_else(cut)?;
    if head.flags & FLAG_ENCRYPTED != 0 {
        return Err(unsupported(format!("entry `{name}` is encrypted")));
    }
    if head.method != 0 {
        return Err(unsupported(format!("entry `{name}` is compressed; write the file with torch.save")));
    }
    let mut large = large_fields(extra);
    let (mut size, mut stored) = (u64::from(head.size), u64::from(head.stored));
    for number in [&mut size, &mut stored, &mut header_at] {
        if *number == u64::from(u32::MAX) {
            *number = large.u64().ok_or_else(|| damaged(format!("entry `{name}` has no size")))?;
        }
    }
    if size != stored || disk != Some(0) {
        return Err(damaged(format!("entry `{name}` has two sizes, {size} and {stored}")));
    }
    Ok(Claim { record: Record { name, header_at, start: 0, size, crc: head.crc }, flags: head.flags })
}

/// Reads the header before the data, which must say the same as the directory; finds where the data begins.
fn check_local_header(input: &mut (impl Read + Seek), claim: &mut Claim, limit: u64) -> Result<(), TorchError> {
    let record = &mut claim.record;
    let beyond = || damaged(format!("entry `{}` reaches beyond the end of the file", record.short_name()));
    let differs =
        || damaged(format!("entry `{}` is another one in the file than in its directory", record.short_name()));
    if record.header_at.checked_add(30).is_none_or(|end| end > limit) {
        return Err(beyond());
    }
    let fixed = read_at(input, record.header_at, 30)?;
    let mut fields = Fields(&fixed);
    if fields.u32() != Some(LOCAL_HEADER) {
        return Err(differs());
    }
    let _version = fields.u16();
    let head = Head::parse(&mut fields).ok_or_else(differs)?;
    let start = record.header_at + 30 + u64::from(head.name) + u64::from(head.extra);
    if start.checked_add(record.size).is_none_or(|end| end > limit) {
        return Err(beyond());
    }
    let rest = read_at(input, record.header_at + 30, usize::from(head.name) + usize::from(head.extra))?;
    let (name, extra) = rest.split_at(head.name.into());
    let mut large = large_fields(extra);
    let mut full = |number: u32| match number {
        u32::MAX => large.u64().unwrap_or(number.into()),
        _ => number.into(),
    };
    let sizes = [full(head.size), full(head.stored)];
    let follow = claim.flags & FLAG_SIZES_FOLLOW != 0;
    let agrees = |there: u64, here: u64| there == here || follow && there == 0;
    if name != record.name.as_bytes()
        || head.method != 0
        || head.flags != claim.flags
        || !agrees(head.crc.into(), record.crc.into())
        || !sizes.iter().all(|&size| agrees(size, record.size))
    {
        return Err(differs());
    }
    record.start = start;
    Ok(())
}

/// The fields that both headers of an entry have, in the same order.
struct Head {
    flags: u16,
    method: u16,
    crc: u32,
    /// As it lies in the file.
    stored: u32,
    size: u32,
    name: u16,
    extra: u16,
}

impl Head {
    fn parse(fields: &mut Fields<'_>) -> Option<Head> {
        let (flags, method) = (fields.u16()?, fields.u16()?);
        let _time_and_date = fields.u32()?;
        let (crc, stored, size) = (fields.u32()?, fields.u32()?, fields.u32()?);
        Some(Head { flags, method, crc, stored, size, name: fields.u16()?, extra: fields.u16()? })
    }
}

/// The 64-bit numbers among the extra fields, in the order of those that are saturated.
fn large_fields(extra: &[u8]) -> Fields<'_> {
    let mut fields = Fields(extra);
    while let (Some(id), Some(size)) = (fields.u16(), fields.u16()) {
        match fields.take(size.into()) {
            Some(content) if id == EXTRA_ZIP64 => return Fields(content),
            Some(_) => {}
            None => break,
        }
    }
    Fields(&[])
}

/// A relative path in the usual form, which leads to one place only.
fn proper_name(bytes: &[u8]) -> Result<&str, TorchError> {
    let name = std::str::from_utf8(bytes).map_err(|_| damaged("the name of an entry is not UTF-8".into()))?;
    let is_proper = name.strip_suffix('/').unwrap_or(name).split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !name.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'));
    match is_proper {
        true => Ok(name),
        false => Err(damaged(format!("the name of an entry, {name:?}, is not a relative path"))),
    }
}

/// Little-endian numbers, one after the other; none where the bytes end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// `size` bytes from `at` on, which the caller checked to be inside the file.
pub(super) fn read_at(input: &mut (impl Read + Seek), at: u64, size: usize) -> Result<Vec<u8>, TorchError> {
    let mut bytes = vec![0; size];
    input.seek(SeekFrom::Start(at)).map_err(read_failed)?;
    input.read_exact(&mut bytes).map_err(read_failed)?;
    Ok(bytes)
}

fn unsupported(reason: String) -> TorchError {
    TorchError::UnsupportedCheckpoint { reason }
}
