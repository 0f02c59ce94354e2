//! Event files: protobuf `Event`s in TensorFlow's record format.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::proto;
use crate::loggers::files::AppendFile;

/// Events are buffered in memory until they reach this many bytes,
const FLUSH_BYTES: usize = 64 << 10;

/// or until the first event this many seconds after the last flush.
const FLUSH_SECONDS: f64 = 10.0;

/// Distinguishes event files that one process creates in the same second.
static CREATED: AtomicU64 = AtomicU64::new(0);

/// One `events.out.tfevents.*` file.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: AppendFile,
    pending: Vec<u8>,
    flushed_at: f64,
}

impl EventFile {
    /// Creates a file in `folder`, which must exist, with the event that contains the version of the format.
    pub(super) fn create(folder: &Path) -> io::Result<EventFile> {
        let now = unix_time();
        let name = format!(
            "events.out.tfevents.{:010}.{}.{}.{}",
            now as u64,
            gethostname::gethostname().display(),
            std::process::id(),
            CREATED.fetch_add(1, Ordering::Relaxed),
        );
        let path = folder.join(name);
        let file = AppendFile::create_new(&path)?;
        let mut events = EventFile { path, file, pending: Vec::new(), flushed_at: now };
        push_record(&mut events.pending, |out| {
            proto::double(out, 1, now);
            proto::bytes(out, 3, b"brain.Event:2");
            proto::message(out, 10, |out| proto::bytes(out, 1, b"fulgurite"));
        });
        events.flush()?;
        Ok(events)
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an event with the summary that `encode` writes.
    pub(super) fn add_summary(&mut self, step: i64, encode: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let now = unix_time();
        push_record(&mut self.pending, |out| {
            proto::double(out, 1, now);
            proto::integer(out, 2, step);
            proto::message(out, 5, encode);
        });
        // The clock may be set back.
        let due = !(0.0..FLUSH_SECONDS).contains(&(now - self.flushed_at));
        if due || self.pending.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Adds an event that makes readers discard earlier events of `step` and later steps.
    pub(super) fn add_session_start(&mut self, step: i64) -> io::Result<()> {
        push_record(&mut self.pending, |out| {
            proto::double(out, 1, unix_time());
            proto::integer(out, 2, step);
            // `SessionLog.START`.
            proto::message(out, 7, |out| proto::integer(out, 1, 1));
        });
        self.flush()
    }

    /// Writes the pending events, and waits until they are on disk.
    pub(super) fn save(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()
    }

    /// Writes the pending events. On failure, the file ends with the last complete event, and the pending events are kept for
    /// the next attempt.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.append(&self.pending)?;
            self.pending.clear();
        }
        self.flushed_at = unix_time();
        Ok(())
    }
}

/// Seconds since the Unix epoch.
pub(super) fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Length, its checksum, the message, its checksum.
fn push_record(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 12]);
    encode(out);
    let length = ((out.len() - start - 12) as u64).to_le_bytes();
    out[start..start + 8].copy_from_slice(&length);
    out[start + 8..start + 12].copy_from_slice(&masked_checksum(&length).to_le_bytes());
    let checksum = masked_checksum(&out[start + 12..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// CRC-32C, masked so that checksums of data that contains checksums remain effective.
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::{masked_checksum, push_record};

    #[test]
    fn records_are_framed_as_in_tensorflow() {
        // `RecordWriter.write(b"abc")` of the tensorboard package.
        let expected = [
            0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xb0, 0x99, 0x49, 0x0e, 0x61, 0x62, 0x63, 0x6e, 0x57, 0xf1,
            0x21,
        ];
        let mut out = vec![9];
        push_record(&mut out, |out| out.extend_from_slice(b"abc"));
        assert_eq!(out[1..], expected);
        assert_eq!(masked_checksum(b"abc").to_le_bytes(), expected[15..]);
    }
}
