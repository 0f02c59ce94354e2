//! The scalars of TensorBoard's event files, for runs that have no `metrics.csv`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{Result, failed};
use crate::metrics::{Metrics, Point};

/// An event that is longer holds no scalar.
const LONGEST: u64 = 1 << 20;
const MOST_NAMES: usize = 10_000;

/// The event files of a folder, in the order in which they were begun.
pub(crate) fn event_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_events = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("events.out.tfevents.") && path.is_file()
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_events).collect();
    files.sort();
    files
}

/// Reads event files as far as they are whole. An epoch is what was logged as such with the same step.
pub(crate) fn read(files: &[PathBuf]) -> Result<Metrics> {
    let mut series: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for path in files {
        let mut reader = BufReader::new(File::open(path).map_err(failed(path, "read"))?);
        while let Some(event) = next_event(&mut reader) {
            add(&event, &mut series);
        }
    }
    let epochs: BTreeMap<u64, f64> =
        series.get("epoch").into_iter().flatten().map(|point| (point.step as u64, point.value)).collect();
    for point in series.values_mut().flatten() {
        point.epoch = epochs.get(&(point.step as u64)).copied().unwrap_or(f64::NAN);
    }
    let rows = series.values().map(Vec::len).max().unwrap_or(0) as u64;
    Ok(Metrics { series: series.into_iter().collect(), rows })
}

/// The next event; `None` at the end, and where the file is no event file.
fn next_event(reader: &mut impl Read) -> Option<Vec<u8>> {
    // The length and its checksum, the event and its checksum.
    let mut head = [0; 12];
    reader.read_exact(&mut head).ok()?;
    let length = u64::from_le_bytes(head[..8].try_into().ok()?);
    let mut event = Vec::new();
    let kept = reader.take(length.min(LONGEST)).read_to_end(&mut event).ok()? as u64;
    let rest = length.checked_sub(kept)?.checked_add(4)?;
    let skipped = std::io::copy(&mut reader.take(rest), &mut std::io::sink()).ok()?;
    (skipped == rest).then_some(event)
}

fn add(event: &[u8], series: &mut BTreeMap<String, Vec<Point>>) {
    let fields = || Fields(event);
    let step = fields().find_map(|(field, value)| value.number().filter(|_| field == 2)).unwrap_or(0);
    // A run that is resumed takes back what comes after its checkpoint.
    if fields().any(|(field, value)| field == 7 && value.bytes().is_some_and(is_session_start)) {
        series.values_mut().for_each(|points| points.retain(|point| point.step < step as f64));
    }
    let summaries = fields().filter(|(field, _)| *field == 5).filter_map(|(_, value)| value.bytes());
    for value in
        summaries.flat_map(|summary| Fields(summary).filter_map(|(field, value)| value.bytes().filter(|_| field == 1)))
    {
        if let Some((name, value)) = scalar(value)
            && (series.len() < MOST_NAMES || series.contains_key(&name))
        {
            series.entry(name).or_default().push(Point { step: step as f64, epoch: f64::NAN, value });
        }
    }
}

fn is_session_start(session: &[u8]) -> bool {
    Fields(session).any(|(field, value)| field == 1 && value.number() == Some(1))
}

/// The tag and the value of a scalar.
fn scalar(value: &[u8]) -> Option<(String, f64)> {
    let tag = Fields(value).find_map(|(field, value)| value.bytes().filter(|_| field == 1))?;
    let number = Fields(value).find_map(|(field, value)| match value {
        Field::Float(number) if field == 2 => Some(f64::from(number)),
        _ => None,
    })?;
    Some((String::from_utf8_lossy(tag).into_owned(), number))
}

/// The fields of a message of protocol buffers, as far as they are whole.
struct Fields<'b>(&'b [u8]);

#[derive(Clone, Copy)]
enum Field<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    Float(f32),
    Other,
}

impl<'b> Field<'b> {
    fn number(self) -> Option<u64> {
        if let Field::Number(number) = self { Some(number) } else { None }
    }

    fn bytes(self) -> Option<&'b [u8]> {
        if let Field::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

impl<'b> Fields<'b> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = (u64, Field<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Float(f32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(step: u8, name: &str, value: f32) -> Vec<u8> {
        let mut inner = vec![1 << 3 | 2, name.len() as u8];
        inner.extend(name.as_bytes());
        inner.push(2 << 3 | 5);
        inner.extend(value.to_le_bytes());
        let mut event = vec![1 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0, 2 << 3, step, 5 << 3 | 2, inner.len() as u8 + 2];
        event.extend([1 << 3 | 2, inner.len() as u8]);
        event.extend(inner);
        framed(&event)
    }

    fn framed(event: &[u8]) -> Vec<u8> {
        let mut framed = (event.len() as u64).to_le_bytes().to_vec();
        framed.extend([0; 4]);
        framed.extend(event);
        framed.extend([0; 4]);
        framed
    }

    fn read_bytes(bytes: &[u8]) -> Metrics {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("events.out.tfevents.1.host.2.0"), bytes).unwrap();
        read(&event_files(folder.path())).unwrap()
    }

    #[test]
    fn scalars_are_read_and_taken_back() {
        let mut bytes = [event(3, "loss", 0.5), event(3, "epoch", 1.0), event(7, "loss", 0.25)].concat();
        bytes.extend(framed(&[2 << 3, 5, 7 << 3 | 2, 2, 1 << 3, 1]));
        bytes.extend(event(9, "loss", f32::NAN));
        // Half an event.
        bytes.extend(&event(11, "loss", 1.0)[..20]);
        let metrics = read_bytes(&bytes);
        let (name, points) = &metrics.series[1];
        assert_eq!((name.as_str(), metrics.rows, metrics.last()), ("loss", 2, (9.0, Some(1.0))));
        assert_eq!(points[0], Point { step: 3.0, epoch: 1.0, value: 0.5 });
        assert!(points.len() == 2 && points[1].value.is_nan() && points[1].step == 9.0);
    }

    #[test]
    fn what_is_no_event_file_is_empty() {
        assert!(read_bytes(&[0xff; 100]).series.is_empty());
        assert!(read_bytes(&framed(&[0xff; 30])).series.is_empty());
        assert!(read_bytes(b"step,loss\n1,2\n").series.is_empty());
    }
}
