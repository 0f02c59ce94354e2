//! The blocks of a transaction log: LevelDB's log format, after seven bytes of its own.

use std::io::{self, Read};

/// What a file begins with: a name, a magic number and a version.
pub(super) const HEAD: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

const BLOCK: u64 = 32768;

/// Checksum, length and type of a chunk.
const CHUNK_HEAD: u64 = 7;

/// No record is longer; a file that claims so is damaged.
const LONGEST_RECORD: usize = 256 << 20;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Appends a record to `out`, whose end is at the offset `at` of the file.
pub(super) fn frame(out: &mut Vec<u8>, mut at: u64, record: &[u8]) {
    let (mut rest, mut is_first) = (record, true);
    loop {
        let left = BLOCK - at % BLOCK;
        if left < CHUNK_HEAD {
            out.resize(out.len() + left as usize, 0);
            at += left;
            continue;
        }
        let (chunk, more) = rest.split_at(rest.len().min((left - CHUNK_HEAD) as usize));
        let kind = match (is_first, more.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        out.extend_from_slice(&checksum(kind, chunk).to_le_bytes());
        out.extend_from_slice(&(chunk.len() as u16).to_le_bytes());
        out.push(kind);
        out.extend_from_slice(chunk);
        if more.is_empty() {
            return;
        }
        at += CHUNK_HEAD + chunk.len() as u64;
        (rest, is_first) = (more, false);
    }
}

fn checksum(kind: u8, chunk: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(chunk);
    hasher.finalize()
}

/// What follows in a file.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// A record.
    Record(Vec<u8>),
    /// Nothing, or a part of a record.
    End,
    /// Bytes that are no record.
    Damage,
}

/// Reads the record at the offset `at` of a file, and sets `at` to its end. An incomplete record changes nothing.
pub(super) fn read(file: &mut impl Read, at: &mut u64) -> io::Result<Next> {
    let (mut place, mut record, mut is_first) = (*at, Vec::new(), true);
    loop {
        let left = BLOCK - place % BLOCK;
        if left < CHUNK_HEAD {
            if !fill(file, &mut vec![0; left as usize])? {
                return Ok(Next::End);
            }
            place += left;
            continue;
        }
        let mut head = [0; CHUNK_HEAD as usize];
        if !fill(file, &mut head)? {
            return Ok(Next::End);
        }
        let [a, b, c, d, low, high, kind] = head;
        let mut chunk = vec![0; usize::from(u16::from_le_bytes([low, high]))];
        let fits = chunk.len() as u64 + CHUNK_HEAD <= left;
        let follows = matches!((is_first, kind), (true, FULL | FIRST) | (false, MIDDLE | LAST));
        if !fits || !follows || record.len() > LONGEST_RECORD {
            return Ok(Next::Damage);
        }
        if !fill(file, &mut chunk)? {
            return Ok(Next::End);
        }
        if checksum(kind, &chunk) != u32::from_le_bytes([a, b, c, d]) {
            return Ok(Next::Damage);
        }
        place += CHUNK_HEAD + chunk.len() as u64;
        record.append(&mut chunk);
        is_first = false;
        if matches!(kind, FULL | LAST) {
            *at = place;
            return Ok(Next::Record(record));
        }
    }
}

/// Whether there was enough.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(records: &[Vec<u8>]) -> Vec<u8> {
        let mut file = HEAD.to_vec();
        for record in records {
            let at = file.len() as u64;
            frame(&mut file, at, record);
        }
        file
    }

    fn records(file: &[u8]) -> (Vec<Vec<u8>>, Next) {
        let (mut rest, mut at, mut found) = (&file[HEAD.len()..], HEAD.len() as u64, Vec::new());
        loop {
            match read(&mut rest, &mut at).unwrap() {
                Next::Record(record) => found.push(record),
                end => return (found, end),
            }
        }
    }

    #[test]
    fn a_short_record_has_these_bytes() {
        let file = framed(&[b"abc".to_vec()]);
        let crc = crc32fast::hash(b"\x01abc").to_le_bytes();
        assert_eq!(file, [&HEAD[..], &crc, &[3, 0, 1], b"abc"].concat());
    }

    #[test]
    fn records_that_end_anywhere_near_a_block_come_back() {
        for end in 0..20 {
            let first = BLOCK as usize - HEAD.len() - CHUNK_HEAD as usize - end;
            let all = vec![vec![1; first], vec![2; 3], vec![3; 100_000], vec![4; 1]];
            let file = framed(&all);
            let left = BLOCK as usize - (HEAD.len() + CHUNK_HEAD as usize + first);
            assert_eq!(left, end);
            if end < CHUNK_HEAD as usize {
                assert!(file[BLOCK as usize - end..BLOCK as usize].iter().all(|byte| *byte == 0));
            }
            assert_eq!(records(&file), (all, Next::End), "{end}");
        }
    }

    #[test]
    fn a_torn_tail_is_an_end_and_a_changed_byte_is_damage() {
        let all = vec![vec![1; 10], vec![2; 40_000], vec![3; 10]];
        let file = framed(&all);
        let ends: Vec<usize> = (1..=3).map(|count| framed(&all[..count]).len()).collect();
        for length in (HEAD.len()..file.len()).step_by(13) {
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(records(&file[..length]), (all[..whole].to_vec(), Next::End), "{length}");
        }
        for place in [ends[0] + 3, ends[0] + 5, ends[0] + 6, ends[0] + 500, ends[1] - 1] {
            let mut changed = file.clone();
            changed[place] ^= 1;
            assert_eq!(records(&changed), (all[..1].to_vec(), Next::Damage), "{place}");
        }
    }
}
