//! Reporting the cause of a failure to the launcher of the process.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

/// Writes why this process failed to the file that `torchrun` specifies (`TORCHELASTIC_ERROR_FILE`), so that it can report
/// the first failure of all processes. Does nothing if the variable is not set.
///
/// # Errors
///
/// Fails if the file cannot be written.
///
/// ```no_run
/// # fn train() -> Result<(), Box<dyn std::error::Error>> { Ok(()) }
/// if let Err(error) = train() {
///     let _ = fulgurite_fabric::environments::record_failure(&error.to_string());
///     std::process::exit(1);
/// }
/// ```
pub fn record_failure(message: &str) -> io::Result<()> {
    match std::env::var_os("TORCHELASTIC_ERROR_FILE").filter(|path| !path.is_empty()) {
        Some(path) => write(Path::new(&path), message, SystemTime::now()),
        None => Ok(()),
    }
}

fn write(path: &Path, message: &str, now: SystemTime) -> io::Result<()> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let report = serde_json::json!({
        "message": {
            "message": message,
            "extraInfo": { "py_callstack": message, "timestamp": seconds.to_string() },
        }
    });
    fs::write(path, report.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_file_has_the_format_of_torchrun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("error.json");
        write(&path, "no \"more\"", UNIX_EPOCH + Duration::from_millis(12_345)).unwrap();
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            r#"{"message":{"message":"no \"more\"","extraInfo":{"py_callstack":"no \"more\"","timestamp":"12"}}}"#
        );
    }
}
