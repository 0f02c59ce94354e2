//! [`Log`]: what a run wrote to its `metrics.csv` files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A logged value: step, name, and the value as it is written.
type Cell = (String, String, String);

/// Every value that a run logged, in all the processes it took.
#[derive(Debug, Default, PartialEq)]
pub struct Log(BTreeSet<Cell>);

impl Log {
    /// Reads the logs in a run's folder. The last line of a process that was killed may be cut off; it is left out.
    pub fn read(folder: &Path) -> Result<Log> {
        let mut log = Log::default();
        let versions = folder.join("lightning_logs");
        let Ok(entries) = fs::read_dir(&versions) else { return Ok(log) };
        for entry in entries {
            let path = entry?.path().join("metrics.csv");
            match fs::read_to_string(&path) {
                Ok(text) => log.add(&text).with_context(|| format!("in {}", path.display()))?,
                // Killed before its first row.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
            }
        }
        Ok(log)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let whole = text.rfind("\r\n").map_or("", |end| &text[..end]);
        let mut lines = whole.split("\r\n");
        let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        let Some(step) = header.iter().position(|name| *name == "step") else { bail!("there is no column `step`") };
        for line in lines {
            let cells: Vec<&str> = line.split(',').collect();
            if cells.len() != header.len() {
                bail!("a row has {} cells, and the header {}: {line}", cells.len(), header.len());
            }
            for (name, cell) in header.iter().zip(&cells) {
                if !cell.is_empty() && *name != "step" {
                    self.0.insert((cells[step].into(), (*name).into(), (*cell).into()));
                }
            }
        }
        Ok(())
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was logged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value that the undisturbed run did not log.
    pub fn wrong<'a>(&'a self, undisturbed: &'a Log) -> Option<&'a Cell> {
        self.0.difference(&undisturbed.0).next()
    }

    /// The first value that the undisturbed run logged and this one did not.
    pub fn lost<'a>(&'a self, undisturbed: &'a Log) -> Option<&'a Cell> {
        undisturbed.0.difference(&self.0).next()
    }
}
