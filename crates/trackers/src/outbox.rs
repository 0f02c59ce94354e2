//! [`Outbox`]: the file that what is logged goes into first.
//!
//! Its lines are JSON: a head that says where they go, then an [`Entry`] each. Beside it lies a file with the extension `sent`,
//! which says how far the server has them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entry::Entry;
use crate::lock::lock;
use crate::store::{Line, Store, Unsent};

/// What is kept in memory before it is written.
const BUFFER: usize = 1 << 16;

/// An outbox that is empty and longer than this is begun again.
const LONG: u64 = 16 << 20;

/// No line is longer; a file that claims so is damaged.
const LONGEST_LINE: u64 = 256 << 20;

/// So many outboxes of one run may be in use by other processes.
const MOST: usize = 100;

#[derive(Serialize, Deserialize)]
struct Head {
    outbox: u32,
    service: String,
    target: Value,
}

/// The writing side: lines appended to a file. The file is this process's until it is dropped.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    file: File,
    service: String,
    target: Value,
    head: u64,
    len: u64,
    synced: u64,
    buffer: Vec<u8>,
}

impl Outbox {
    /// Opens the outbox of `service` in `folder`, or creates it. What is in it already has the same target, and is sent too;
    /// one that another process uses, or that leads elsewhere, is left alone for another name.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn open(folder: &Path, service: &str, target: &Value) -> io::Result<Outbox> {
        Outbox::open_where(folder, service, target, |held| held == target)
    }

    /// Goes on with the outbox of `service` in `folder`, wherever it leads, or creates one for `target`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn go_on(folder: &Path, service: &str, target: &Value) -> io::Result<Outbox> {
        Outbox::open_where(folder, service, target, |_| true)
    }

    fn open_where(folder: &Path, service: &str, target: &Value, wanted: impl Fn(&Value) -> bool) -> io::Result<Outbox> {
        fs::create_dir_all(folder)?;
        for number in 1..=MOST {
            let number = if number == 1 { String::new() } else { format!("-{number}") };
            let path = folder.join(format!("{service}-outbox{number}.jsonl"));
            let file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
            if !lock(&file)? {
                continue;
            }
            match Outbox::of(path, file)? {
                Found::Outbox(outbox) if outbox.service == service && wanted(&outbox.target) => return Ok(outbox),
                Found::Empty(path, file) => return Outbox::begin(path, file, service, target.clone()),
                _ => {}
            }
        }
        Err(io::Error::other("a hundred other outboxes of this run are in use"))
    }

    /// An outbox that a run has left. `None` if a process uses it, or if the file is none.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or written.
    pub fn left_at(path: &Path) -> io::Result<Option<Outbox>> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        if !lock(&file)? {
            return Ok(None);
        }
        Ok(match Outbox::of(path.to_owned(), file)? {
            Found::Outbox(outbox) => Some(outbox),
            _ => None,
        })
    }

    fn begin(path: PathBuf, file: File, service: &str, target: Value) -> io::Result<Outbox> {
        let head = Head { outbox: 1, service: service.to_owned(), target };
        let mut line = serde_json::to_vec(&head)?;
        line.push(b'\n');
        let target = head.target;
        let mut outbox =
            Outbox { path, file, service: head.service, target, head: 0, len: 0, synced: 0, buffer: Vec::new() };
        remove_if_there(&outbox.sent_path())?;
        outbox.buffer = line;
        outbox.flush()?;
        outbox.head = outbox.len;
        Ok(outbox)
    }

    /// The outbox in a file, without a last line that a killed process did not complete.
    fn of(path: PathBuf, mut file: File) -> io::Result<Found> {
        let mut line = Vec::new();
        let mut reader = BufReader::new(&file);
        reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        let whole = whole_lines(&mut file)?;
        if whole == 0 {
            file.set_len(0)?;
            return Ok(Found::Empty(path, file));
        }
        file.set_len(whole)?;
        let Ok(Head { outbox: 1, service, target }) = serde_json::from_slice(&line) else { return Ok(Found::Other) };
        let head = line.len() as u64;
        let outbox = Outbox { path, file, service, target, head, len: whole, synced: 0, buffer: Vec::new() };
        Ok(Found::Outbox(outbox))
    }

    /// Adds an entry. It is written at once if there is much, and else soon.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written. The entry is kept, and written with the next one.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        serde_json::to_writer(&mut self.buffer, entry)?;
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
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

    /// The name of the service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Where entries go, as it was said when the outbox was created.
    pub fn target(&self) -> &Value {
        &self.target
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much of the file is there to be read.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Removes the files.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        remove_if_there(&self.sent_path())
    }

    fn sent_path(&self) -> PathBuf {
        self.path.with_extension("sent")
    }

    /// The reading side.
    pub(crate) fn reader(&self) -> io::Result<Reader> {
        let state_path = self.sent_path();
        let state: State =
            fs::read(&state_path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let is_inside = (self.head..=self.len).contains(&state.sent);
        let sent = if is_inside { state.sent } else { self.head };
        Ok(Reader { file: File::open(&self.path)?, state_path, sent, run: state.run })
    }
}

impl Outbox {
    /// Calls for each entry that is not sent yet, which leaves it so. Damaged lines are passed over.
    pub(crate) fn each_unsent(&self, mut call: impl FnMut(Entry) -> io::Result<()>) -> io::Result<()> {
        let mut reader = self.reader()?;
        reader.file.seek(SeekFrom::Start(reader.sent))?;
        let mut lines = BufReader::new((&reader.file).take(self.len.saturating_sub(reader.sent)));
        let mut text = Vec::new();
        while lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text)? > 0 {
            if let Ok(entry) = serde_json::from_slice::<Entry>(&text) {
                call(entry)?;
            }
            text.clear();
        }
        Ok(())
    }
}

impl Store for Outbox {
    type Entry = Entry;
    type Reader = Reader;

    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        Outbox::append(self, entry)
    }

    fn flush(&mut self) -> io::Result<()> {
        Outbox::flush(self)
    }

    fn sync(&mut self) -> io::Result<()> {
        Outbox::sync(self)
    }

    fn path(&self) -> &Path {
        Outbox::path(self)
    }

    fn len(&self) -> u64 {
        Outbox::len(self)
    }

    fn reader(&self) -> io::Result<Reader> {
        Outbox::reader(self)
    }

    fn shorten(&mut self, reader: &mut Reader) -> io::Result<()> {
        if reader.sent == self.len && self.buffer.is_empty() && self.len > LONG {
            // In this order: what is sent twice does no harm.
            reader.set_sent(self.head)?;
            self.file.set_len(self.head)?;
            (self.len, self.synced) = (self.head, self.head);
        }
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        self.remove()
    }

    fn items(entry: &Entry) -> usize {
        entry.items()
    }
}

enum Found {
    Outbox(Outbox),
    Empty(PathBuf, File),
    Other,
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The length of the file up to its last line break.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    const BLOCK: u64 = 1 << 16;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        (&*file).take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    sent: u64,
    #[serde(default)]
    run: Option<Value>,
}

/// The reading side of an outbox: what is not sent yet.
#[derive(Debug)]
pub struct Reader {
    file: File,
    state_path: PathBuf,
    sent: u64,
    /// The run that was created for an outbox which was written without a server.
    run: Option<Value>,
}

impl Reader {
    pub(crate) fn run(&self) -> Option<&Value> {
        self.run.as_ref()
    }

    pub(crate) fn set_run(&mut self, run: Value) -> io::Result<()> {
        self.run = Some(run);
        self.write_state()
    }

    fn write_state(&self) -> io::Result<()> {
        let beside = self.state_path.with_extension("sent.tmp");
        fs::write(&beside, serde_json::to_vec(&State { sent: self.sent, run: self.run.clone() })?)?;
        fs::rename(beside, &self.state_path)
    }
}

impl Unsent for Reader {
    type Entry = Entry;

    fn next(&mut self, until: u64, items: usize) -> io::Result<Vec<Line<Entry>>> {
        const BYTES: u64 = 900_000;
        let mut at = self.sent;
        self.file.seek(SeekFrom::Start(at))?;
        let mut reader = BufReader::new((&self.file).take(until.saturating_sub(at)));
        let (mut lines, mut count, mut text) = (Vec::new(), 0, Vec::new());
        while count < items && at - self.sent < BYTES {
            text.clear();
            let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text)?;
            if read == 0 {
                break;
            }
            at += read as u64;
            if let Ok(entry) = serde_json::from_slice::<Entry>(&text) {
                count += entry.items();
                lines.push(Line { entry, end: at });
            }
        }
        if lines.is_empty() && at > self.sent {
            self.set_sent(at)?;
        }
        Ok(lines)
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn set_sent(&mut self, sent: u64) -> io::Result<()> {
        self.sent = sent;
        self.write_state()
    }

    fn count(&mut self, until: u64) -> io::Result<(usize, usize)> {
        self.file.seek(SeekFrom::Start(self.sent))?;
        let (mut values, mut files) = (0, 0);
        for line in BufReader::new((&self.file).take(until.saturating_sub(self.sent))).split(b'\n') {
            match serde_json::from_slice::<Entry>(&line?) {
                Ok(Entry::File { .. } | Entry::Content { .. }) => files += 1,
                Ok(entry) => values += entry.items(),
                Err(_) => {}
            }
        }
        Ok((values, files))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(x: f64) -> Entry {
        Entry::Metrics { step: 0, ms: 0, values: vec![("x".into(), crate::Number(x))] }
    }

    fn rest(outbox: &Outbox, reader: &mut Reader) -> Vec<Entry> {
        let lines = reader.next(outbox.len(), usize::MAX).unwrap();
        lines.into_iter().map(|line| line.entry).collect()
    }

    #[test]
    fn what_was_not_sent_is_there_for_the_next_process_without_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let target = json!({"run": "r"});
        let mut outbox = Outbox::open(folder.path(), "s", &target).unwrap();
        for i in 0..5 {
            outbox.append(&value(f64::from(i))).unwrap();
        }
        outbox.sync().unwrap();
        let mut reader = outbox.reader().unwrap();
        let lines = reader.next(outbox.len(), 2).unwrap();
        assert_eq!(lines.len(), 2);
        reader.set_sent(lines[1].end).unwrap();
        // Killed within a line.
        outbox.file.write_all(b"{\"metrics\":{\"st").unwrap();
        let path = outbox.path.clone();
        drop(outbox);

        let mut outbox = Outbox::open(folder.path(), "s", &target).unwrap();
        assert_eq!(outbox.path, path);
        outbox.append(&value(9.0)).unwrap();
        outbox.flush().unwrap();
        let mut reader = outbox.reader().unwrap();
        assert_eq!(reader.count(outbox.len()).unwrap(), (4, 0));
        assert_eq!(rest(&outbox, &mut reader), [2.0, 3.0, 4.0, 9.0].map(value));
        reader.set_sent(outbox.len()).unwrap();
        assert_eq!(rest(&outbox, &mut reader), []);
    }

    #[test]
    fn an_outbox_in_use_or_of_another_run_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Outbox::open(folder.path(), "s", &json!(1)).unwrap();
        let second = Outbox::open(folder.path(), "s", &json!(1)).unwrap();
        assert!(second.path.ends_with("s-outbox-2.jsonl"));
        assert!(Outbox::left_at(&first.path).unwrap().is_none());
        drop((first, second));
        assert!(Outbox::open(folder.path(), "s", &json!(2)).unwrap().path.ends_with("s-outbox-3.jsonl"));
        fs::write(folder.path().join("s-outbox.jsonl"), "garbage\n{}\n").unwrap();
        assert!(Outbox::left_at(&folder.path().join("s-outbox.jsonl")).unwrap().is_none());
    }

    #[test]
    fn damaged_lines_and_states_lose_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::open(folder.path(), "s", &json!(1)).unwrap();
        outbox.append(&value(1.0)).unwrap();
        outbox.buffer.extend_from_slice(b"{}\n\xff\xfe\n\n");
        outbox.append(&value(2.0)).unwrap();
        outbox.flush().unwrap();
        for state in ["", "{\"sent\": 1e99}", "{\"sent\": 999999}", "{\"sent\": 1}"] {
            fs::write(outbox.sent_path(), state).unwrap();
            let mut reader = outbox.reader().unwrap();
            assert_eq!(rest(&outbox, &mut reader), [value(1.0), value(2.0)], "{state}");
        }
    }

    #[test]
    fn a_long_outbox_that_is_sent_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::open(folder.path(), "s", &json!(1)).unwrap();
        let mut reader = outbox.reader().unwrap();
        let big = Entry::Params(vec![("p".into(), "x".repeat(LONG as usize))]);
        outbox.append(&big).unwrap();
        outbox.flush().unwrap();
        outbox.shorten(&mut reader).unwrap();
        assert!(outbox.len() > LONG);
        reader.set_sent(outbox.len()).unwrap();
        outbox.shorten(&mut reader).unwrap();
        outbox.append(&value(3.0)).unwrap();
        outbox.flush().unwrap();
        assert!(outbox.len() < 1000);
        assert_eq!(rest(&outbox, &mut reader), [value(3.0)]);
    }
}
