//! [`Store`]: a file that keeps what is to be sent, and [`Unsent`]: its reading side.

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// The writing side of a file whose entries a [`Courier`](crate::Courier) sends.
pub trait Store: Debug + Send + 'static {
    /// What was logged.
    type Entry;
    /// The reading side.
    type Reader: Unsent<Entry = Self::Entry> + Send;

    /// Adds an entry, which is written at once or soon.
    fn append(&mut self, entry: &Self::Entry) -> io::Result<()>;

    /// Hands everything to the system.
    fn flush(&mut self) -> io::Result<()>;

    /// Waits until everything is on the disk.
    fn sync(&mut self) -> io::Result<()>;

    /// The file.
    fn path(&self) -> &Path;

    /// How much of the file is there to be read.
    fn len(&self) -> u64;

    /// The reading side.
    fn reader(&self) -> io::Result<Self::Reader>;

    /// Begins the file anew, if all of it is sent and it is long.
    fn shorten(&mut self, reader: &mut Self::Reader) -> io::Result<()> {
        let _ = reader;
        Ok(())
    }

    /// All of it is sent, and nothing follows.
    fn settle(&self) -> io::Result<()>;

    /// How many values an entry has.
    fn items(entry: &Self::Entry) -> usize;
}

/// An entry, and where it ends in the file.
#[derive(Debug)]
pub struct Line<E> {
    pub entry: E,
    pub end: u64,
}

/// What of a file is not sent yet.
pub trait Unsent {
    /// What was logged.
    type Entry;

    /// The next entries up to the offset `until`, so many values or a megabyte at most; at least one if there is any. Damaged
    /// ones are passed over.
    fn next(&mut self, until: u64, items: usize) -> io::Result<Vec<Line<Self::Entry>>>;

    /// Where what is not sent begins.
    fn sent(&self) -> u64;

    /// Remembers where what is not sent begins.
    fn set_sent(&mut self, sent: u64) -> io::Result<()>;

    /// How many values and files are left up to the offset `until`.
    fn count(&mut self, until: u64) -> io::Result<(usize, usize)>;
}
