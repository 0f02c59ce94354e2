//! Both loggers on a disk that fills up in the middle of a write.

use std::fs;
use std::process::Command;

use super::{CsvLogger, Logger, LoggerError, RunStatus, TensorBoardLogger};

/// The maximum file size in bytes: a write past it fails after the part that fits.
const LIMIT: u64 = 20 * 512;

/// Runs `body` in a child process with limited file sizes, which runs the test `name` again.
fn with_limited_files(name: &str, body: fn()) {
    const CHILD: &str = "FULGURITE_LIMITED_FILES";
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let blocks = LIMIT / 512;
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" --exact loggers::full_disk::{name} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Logs until a write fails.
fn fill(logger: &mut dyn Logger) -> LoggerError {
    (0_i64..10_000)
        .find_map(|step| {
            let logged = logger.log_metrics(&[("loss", 1.0 / (step as f64 + 3.0))], step);
            logged.and_then(|()| if step % 7 == 0 { logger.save() } else { Ok(()) }).err()
        })
        .unwrap()
}

#[test]
fn csv_rows_stay_complete() {
    with_limited_files("csv_rows_stay_complete", || {
        let folder = tempfile::tempdir().unwrap();
        let mut logger = CsvLogger::new(folder.path());
        let error = fill(&mut logger);
        let path = logger.log_dir().unwrap().join("metrics.csv");
        assert_eq!(
            error.to_string(),
            format!(
                "CsvLogger cannot write {}: File too large (os error 27); check that the folder exists, is writable \
                 and has free space",
                path.display()
            )
        );
        logger.finalize(RunStatus::Failed).unwrap_err();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\r\n") && text.len() as u64 > LIMIT * 9 / 10);
        let steps: Vec<usize> =
            text.lines().skip(1).map(|row| row.rsplit(',').next().unwrap().parse().unwrap()).collect();
        assert_eq!(steps, (0..steps.len()).collect::<Vec<_>>());
    });
}

#[test]
fn events_stay_complete() {
    with_limited_files("events_stay_complete", || {
        let folder = tempfile::tempdir().unwrap();
        let mut logger = TensorBoardLogger::new(folder.path());
        let error = fill(&mut logger);
        let path = logger.event_file().unwrap().to_owned();
        assert!(
            matches!(&error, LoggerError::Write { path: at, source, .. }
                if *at == path && source.kind() == std::io::ErrorKind::FileTooLarge),
            "{error}"
        );
        logger.finalize(RunStatus::Failed).unwrap_err();
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() as u64 > LIMIT * 9 / 10);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            rest = &rest[12 + length + 4..];
        }
    });
}
