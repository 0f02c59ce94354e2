//! [`archive`]: the messages of an outbox as an archive of Comet's client.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zip::write::{FileOptions, ZipWriter};
use zip::{CompressionMethod, result::ZipError};

use super::experiment::{Experiment, Target};
use super::message::{self, Source};
use crate::entry::{Entry, RunEnd, now_ms};
use crate::error::TrackerError;
use crate::outbox::Outbox;
use crate::own_files::OwnFiles;

/// So many archives of one experiment are there at most.
const MOST: usize = 1000;

/// An archive that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Archive {
    /// The file.
    pub path: PathBuf,
    /// How many values it has: metrics, parameters, and others.
    pub values: usize,
    /// How many files it has.
    pub files: usize,
}

/// Puts what an outbox has, and what was not sent of it, into an archive in a folder, and removes the outbox. `None` if a run is
/// still using it, or there is nothing in it.
///
/// # Errors
///
/// Fails if it is no outbox for Comet, or a file cannot be read or written. The outbox is kept then.
pub fn archive(outbox: &Path, folder: &Path) -> Result<Option<Archive>, TrackerError> {
    let Some(held) = Outbox::left_at(outbox).map_err(TrackerError::outbox(outbox))? else { return Ok(None) };
    let Some(Target { experiment, .. }) = serde_json::from_value(held.target().clone()).ok() else {
        return Err(TrackerError::Refused(format!("{} is for no experiment of Comet", outbox.display())));
    };
    if !Experiment::is_key(&experiment.key) {
        return Err(TrackerError::Refused(format!("{} is for no experiment that can be", outbox.display())));
    }
    let (path, file) = next_file(folder, &experiment.key).map_err(TrackerError::outbox(folder))?;
    // Whoever sees a file under its last name sees all of it.
    let beside = path.with_extension("tmp");
    let written = write(&held, &experiment, &beside).and_then(|written| {
        drop(file);
        if written.is_some() {
            fs::rename(&beside, &path)?
        } else {
            fs::remove_file(&path)?
        }
        Ok(written)
    });
    let written = written.inspect_err(|_| {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&beside).and(fs::remove_file(&path));
    });
    let written = written.map_err(TrackerError::outbox(&path))?;
    held.remove().map_err(TrackerError::outbox(outbox))?;
    let Some(Written { values, files, to_remove }) = written else { return Ok(None) };
    for file in to_remove {
        // What stays costs space, and nothing else.
        let _ = fs::remove_file(file);
    }
    Ok(Some(Archive { path, values, files }))
}

/// The first name that is free, with a file that keeps others from it.
fn next_file(folder: &Path, key: &str) -> io::Result<(PathBuf, File)> {
    fs::create_dir_all(folder)?;
    for number in 1..=MOST {
        let number = if number == 1 { String::new() } else { format!("-{number}") };
        let path = folder.join(format!("{key}{number}.zip"));
        match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => return Ok((path, file)),
        }
    }
    Err(io::Error::other("a thousand archives of this experiment are there; move some away"))
}

struct Written {
    values: usize,
    files: usize,
    to_remove: Vec<PathBuf>,
}

/// Writes the archive, unless there is nothing to put into it.
fn write(outbox: &Outbox, experiment: &Experiment, path: &Path) -> io::Result<Option<Written>> {
    let own = OwnFiles::of(outbox.path().parent().unwrap_or(outbox.path()));
    let mut zip = ZipWriter::new(BufWriter::new(File::create(path)?));
    let mut written = Written { values: 0, files: 0, to_remove: Vec::new() };
    let mut error = None;
    begin_entry(&mut zip, "messages.json", true)?;
    let mut number = 0;
    let mut add = |zip: &mut ZipWriter<BufWriter<File>>, message: &Value| -> io::Result<()> {
        number += 1;
        let mut message = message.clone();
        message["payload"]["message_id"] = number.into();
        serde_json::to_writer(&mut *zip, &message)?;
        zip.write_all(b"\n")
    };
    let offline = json!({ "type": "log_other", "payload": { "key": "offline_experiment", "value": true } });
    add(&mut zip, &offline)?;
    outbox.each_unsent(|entry| {
        match &entry {
            Entry::Record(record) => match message::file(record) {
                Some(file) if is_there(&file.source, &own) => {
                    written.files += 1;
                    add(&mut zip, file.message)?;
                }
                Some(_) => {}
                None => {
                    for message in message::messages(record) {
                        written.values += 1;
                        add(&mut zip, message)?;
                    }
                }
            },
            Entry::Status { status: RunEnd::Failed, .. } => error = Some("the run failed"),
            _ => {}
        }
        Ok(())
    })?;
    if written.values + written.files == 0 {
        drop(zip);
        fs::remove_file(path)?;
        return Ok(None);
    }
    add_files(outbox, &own, &mut zip, &mut written)?;
    begin_entry(&mut zip, "experiment.json", false)?;
    let about = json!({
        "offline_id": experiment.key,
        "project_name": experiment.project,
        "workspace": experiment.workspace,
        "start_time": experiment.start_ms,
        "stop_time": now_ms(),
        "tags": experiment.tags,
        "resume_strategy": experiment.mode,
        "customer_error_reported": error.is_some(),
        "customer_error_message": error,
        "user_provided_experiment_key": true,
        "comet_start_sourced": false,
    });
    serde_json::to_writer(&mut zip, &about)?;
    let file = zip.finish().map_err(as_io)?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_data()?;
    Ok(Some(written))
}

/// The contents of files, under the names that their messages have.
fn add_files(
    outbox: &Outbox,
    own: &OwnFiles,
    zip: &mut ZipWriter<BufWriter<File>>,
    written: &mut Written,
) -> io::Result<()> {
    outbox.each_unsent(|entry| {
        let Entry::Record(record) = &entry else { return Ok(()) };
        let Some(file) = message::file(record).filter(|file| is_there(&file.source, own)) else { return Ok(()) };
        let name = file.message["payload"]["file_path"].as_str().unwrap_or_default();
        match file.source {
            Source::Content(content) => {
                begin_entry(zip, name, false)?;
                zip.write_all(&content)
            }
            Source::Path { from, remove } => {
                let mut file = File::open(&from)?;
                begin_entry(zip, name, file.metadata()?.len() >= u64::from(u32::MAX))?;
                io::copy(&mut file, zip)?;
                if remove && own.holds(&from) {
                    written.to_remove.push(from);
                }
                Ok(())
            }
        }
    })
}

/// A file that is gone was replaced by a better checkpoint.
fn is_there(source: &Source, own: &OwnFiles) -> bool {
    match source {
        Source::Content(_) => true,
        Source::Path { from, .. } => from.is_file() && own.may_send(from),
    }
}

fn begin_entry(zip: &mut ZipWriter<BufWriter<File>>, name: &str, is_large: bool) -> io::Result<()> {
    let options = FileOptions::default().compression_method(CompressionMethod::Stored).large_file(is_large);
    zip.start_file(name, options).map_err(as_io)
}

fn as_io(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        other => io::Error::other(other),
    }
}
