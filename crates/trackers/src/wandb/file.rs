//! [`RunFile`]: the transaction log of a run in its folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::blocks::{self, HEAD, Next};
use super::folder;
use super::record::{Record, RunInfo};
use crate::lock::lock;
use crate::store::{Line, Store, Unsent};

/// What is kept in memory before it is written.
const BUFFER: usize = 1 << 16;

/// The writing side: records appended to a file, which is this process's until it is dropped.
///
/// The file always ends with a whole record, unless the process was killed while it wrote the last one, which readers pass over.
/// It is never written to again by another process: a run that goes on has another file.
#[derive(Debug)]
pub struct RunFile {
    path: PathBuf,
    file: File,
    len: u64,
    synced: u64,
    buffer: Vec<u8>,
    number: i64,
    /// Where the record of the run's end begins, and its number.
    end: Option<(u64, i64)>,
}

impl RunFile {
    /// A new file for the run `id`, in a folder of its own below `root/wandb`. The link `latest-run` leads there.
    ///
    /// ```
    /// use fulgurite_trackers::wandb::{Record, RunFile};
    ///
    /// # let root = tempfile::tempdir()?;
    /// let mut run = RunFile::create(root.path(), "8sk2a0xz", true)?;
    /// run.append(&Record::Exit { code: 0, seconds: 1 })?;
    /// run.sync()?;
    /// assert!(run.path().ends_with("run-8sk2a0xz.wandb"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn create(root: &Path, id: &str, offline: bool) -> io::Result<RunFile> {
        let folder = folder::create(root, id, offline)?;
        let path = folder.join(format!("run-{id}.wandb"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        lock(&file)?;
        let mut run = RunFile { path, file, len: 0, synced: 0, buffer: HEAD.to_vec(), number: 0, end: None };
        run.append(&Record::Other)?;
        run.flush()?;
        State::default().write(&state_path(&run.path))?;
        Ok(run)
    }

    /// Adds a record. It is written at once if there is much, and else soon.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written. The record is kept, and written with the next one.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        if matches!(record, Record::Exit { .. }) {
            self.flush()?;
            self.end = Some((self.len, self.number));
        }
        self.number += 1;
        let at = self.len + self.buffer.len() as u64;
        blocks::frame(&mut self.buffer, at, &record.encode(self.number));
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Takes the end of the run back: it goes on in this process.
    pub(super) fn go_on(&mut self) -> io::Result<()> {
        let Some((at, number)) = self.end else { return Ok(()) };
        self.flush()?;
        self.file.set_len(at)?;
        self.file.seek(SeekFrom::Start(at))?;
        (self.len, self.synced, self.number, self.end) = (at, 0, number, None);
        Ok(())
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written; it is then as it was before.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Err(error) = self.file.write_all(&self.buffer) {
            // Best effort: the first error is the one to report.
            let _ = self.file.set_len(self.len);
            let _ = self.file.seek(SeekFrom::Start(self.len));
            return Err(error);
        }
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.synced < self.len {
            self.file.sync_data()?;
            self.synced = self.len;
        }
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store for RunFile {
    type Entry = Record;
    type Reader = RunReader;

    fn append(&mut self, record: &Record) -> io::Result<()> {
        RunFile::append(self, record)
    }

    fn flush(&mut self) -> io::Result<()> {
        RunFile::flush(self)
    }

    fn sync(&mut self) -> io::Result<()> {
        RunFile::sync(self)
    }

    fn path(&self) -> &Path {
        RunFile::path(self)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn reader(&self) -> io::Result<RunReader> {
        RunReader::open(&self.path)
    }

    /// The file stays: it is the run's record. What W&B's own client leaves beside it keeps that from sending it again.
    fn settle(&self) -> io::Result<()> {
        mark_as_synced(&self.path)
    }

    fn items(record: &Record) -> usize {
        items(record)
    }
}

/// How many values a record has.
fn items(record: &Record) -> usize {
    match record {
        Record::History { items, .. } | Record::Config(items) | Record::Stats { items, .. } => items.len(),
        _ => 1,
    }
}

/// What is remembered beside the file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// So much of the file is sent.
    sent: u64,
}

impl State {
    fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("tmp");
        fs::write(&beside, serde_json::to_vec(self)?)?;
        fs::rename(beside, path)
    }
}

/// Whose file it is, and how far it is sent.
pub(super) fn state_path(file: &Path) -> PathBuf {
    file.with_file_name(".fulgurite-sync")
}

/// Whether W&B's client, or this one, has sent all of the file.
pub(crate) fn is_synced(file: &Path) -> bool {
    synced_path(file).exists()
}

fn mark_as_synced(file: &Path) -> io::Result<()> {
    File::create(synced_path(file)).map(drop)
}

fn synced_path(file: &Path) -> PathBuf {
    file.with_extension("wandb.synced")
}

/// The reading side: what is not sent yet.
#[derive(Debug)]
pub struct RunReader {
    path: PathBuf,
    state: State,
}

impl RunReader {
    pub(super) fn open(path: &Path) -> io::Result<RunReader> {
        let state: Option<State> = fs::read(state_path(path)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut state = state.unwrap_or_default();
        state.sent = state.sent.clamp(HEAD.len() as u64, fs::metadata(path)?.len().max(HEAD.len() as u64));
        Ok(RunReader { path: path.to_owned(), state })
    }

    /// The records from an offset on, at most so many values and bytes. A record that is not whole, and what follows a damaged
    /// one, are left out.
    fn read(&self, from: u64, until: u64, items_at_most: usize, bytes: u64) -> io::Result<Vec<Line<Record>>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut file = BufReader::new(file.take(until.saturating_sub(from)));
        let (mut at, mut count, mut lines) = (from, 0, Vec::new());
        while count < items_at_most && at - from < bytes {
            let Next::Record(record) = blocks::read(&mut file, &mut at)? else { break };
            let entry = Record::decode(&record);
            count += items(&entry);
            lines.push(Line { entry, end: at });
        }
        Ok(lines)
    }

    /// The run that the file is of; `None` if it does not say.
    pub(super) fn run(&self) -> io::Result<Option<RunInfo>> {
        let lines = self.read(HEAD.len() as u64, u64::MAX, 10, 1 << 20)?;
        Ok(lines.into_iter().find_map(|line| match line.entry {
            Record::Run(run) => Some(*run),
            _ => None,
        }))
    }

    /// The records that are sent already.
    pub(super) fn each_sent(&self, mut take: impl FnMut(&Record)) -> io::Result<()> {
        let mut at = HEAD.len() as u64;
        loop {
            let lines = self.read(at, self.state.sent, 1000, 1 << 20)?;
            let Some(last) = lines.last() else { return Ok(()) };
            at = last.end;
            lines.iter().for_each(|line| take(&line.entry));
        }
    }
}

impl Unsent for RunReader {
    type Entry = Record;

    fn next(&mut self, until: u64, items_at_most: usize) -> io::Result<Vec<Line<Record>>> {
        self.read(self.state.sent, until, items_at_most, 1 << 20)
    }

    fn sent(&self) -> u64 {
        self.state.sent
    }

    fn set_sent(&mut self, sent: u64) -> io::Result<()> {
        self.state.sent = sent;
        self.state.write(&state_path(&self.path))
    }

    fn count(&mut self, until: u64) -> io::Result<(usize, usize)> {
        let (mut at, mut values, mut files) = (self.state.sent, 0, 0);
        loop {
            let lines = self.read(at, until, 10_000, 1 << 24)?;
            let Some(last) = lines.last() else { return Ok((values, files)) };
            at = last.end;
            for line in &lines {
                match line.entry {
                    Record::File { .. } | Record::Artifact(_) => files += 1,
                    Record::History { .. } | Record::Config(_) | Record::Stats { .. } => values += items(&line.entry),
                    _ => {}
                }
            }
        }
    }
}

/// A file that a run has left.
#[derive(Debug)]
pub(crate) struct LeftFile {
    /// Keeps another process from sending it too.
    _lock: File,
    pub path: PathBuf,
    pub len: u64,
}

impl LeftFile {
    /// `None` if a process uses it, or if it is no transaction log of this program.
    pub(crate) fn at(path: &Path) -> io::Result<Option<LeftFile>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        if !lock(&file)? {
            return Ok(None);
        }
        let mut head = [0; HEAD.len()];
        if file.read_exact(&mut head).is_err() || head != HEAD || !state_path(path).exists() {
            return Ok(None);
        }
        let len = file.metadata()?.len();
        Ok(Some(LeftFile { _lock: file, path: path.to_owned(), len }))
    }

    pub(crate) fn settle(&self) -> io::Result<()> {
        mark_as_synced(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: i64, size: usize) -> Record {
        Record::History { step, items: vec![("x".into(), format!("\"{}\"", "y".repeat(size)))] }
    }

    fn rest(path: &Path) -> Vec<Record> {
        let mut reader = RunReader::open(path).unwrap();
        let lines = reader.next(fs::metadata(path).unwrap().len(), usize::MAX).unwrap();
        lines.into_iter().map(|line| line.entry).collect()
    }

    #[test]
    fn records_of_all_sizes_come_back_also_behind_a_torn_one() {
        let root = tempfile::tempdir().unwrap();
        let mut run = RunFile::create(root.path(), "a", true).unwrap();
        let rows: Vec<Record> = (0..400).map(|step| row(step, (step as usize * 977) % 5000)).collect();
        rows.iter().for_each(|row| run.append(row).unwrap());
        run.sync().unwrap();
        let (path, len) = (run.path().to_owned(), run.len);
        let mut reader = RunReader::open(&path).unwrap();
        let mut read = Vec::new();
        loop {
            let lines = reader.next(len, 50).unwrap();
            let Some(last) = lines.last() else { break };
            reader.set_sent(last.end).unwrap();
            read.extend(lines.into_iter().map(|line| line.entry));
        }
        assert_eq!(read[1..], rows);
        assert!(matches!(read[0], Record::Other));
        assert_eq!(reader.count(len).unwrap(), (0, 0));
        let mut again = Vec::new();
        reader.each_sent(|record| again.push(record.clone())).unwrap();
        assert_eq!(again, read);

        // A run that ends and goes on has one end.
        run.append(&Record::Exit { code: 1, seconds: 1 }).unwrap();
        run.sync().unwrap();
        assert_ne!(fs::metadata(&path).unwrap().len(), len);
        run.go_on().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), len);

        // Killed within a record.
        fs::remove_file(state_path(&path)).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 3).unwrap();
        assert_eq!(rest(&path)[1..], rows[..399]);
        assert!(LeftFile::at(&path).unwrap().is_none(), "it is in use");
        drop(run);
        assert!(LeftFile::at(&path).unwrap().is_none(), "it may be of another program");
    }

    #[test]
    fn each_run_has_a_folder_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let first = RunFile::create(root.path(), "a", true).unwrap();
        let second = RunFile::create(root.path(), "a", true).unwrap();
        assert_ne!(first.path(), second.path());
        let latest = root.path().join("wandb/latest-run");
        assert_eq!(latest.canonicalize().unwrap(), second.path().parent().unwrap().canonicalize().unwrap());
        drop(first);
        assert!(LeftFile::at(second.path()).unwrap().is_none());
    }
}
