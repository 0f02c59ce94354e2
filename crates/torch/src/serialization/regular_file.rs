//! Opens regular files only, since other kinds may block or have no end.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::path::Path;

use crate::error::TorchError;

/// Opens a regular file to read it. Links are followed.
///
/// # Errors
///
/// Fails if the file cannot be opened, and with [`io::ErrorKind::InvalidInput`] if it is a folder, FIFO, socket or
/// device: opening a FIFO would block until another process writes to it, and a device may have no end.
pub fn open_regular(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    // Before it is opened, as opening a device may already do something.
    check(path.metadata()?.file_type())?;
    let mut options = OpenOptions::new();
    options.read(true);
    // It may be another one by now.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Opens a checkpoint with [`open_regular`].
pub(super) fn open_checkpoint(path: &Path) -> Result<File, TorchError> {
    open_regular(path).map_err(|source| {
        // What is no file could be opened, and not be read.
        let doing = if source.kind() == io::ErrorKind::InvalidInput { "read" } else { "open" };
        TorchError::CheckpointIo { doing, source }
    })
}

fn check(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    let message = format!("it is a {}, and only regular files are read", name(kind));
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

#[cfg(unix)]
fn name(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    match kind {
        kind if kind.is_dir() => "folder",
        kind if kind.is_fifo() => "FIFO",
        kind if kind.is_socket() => "socket",
        _ => "device",
    }
}

#[cfg(not(unix))]
fn name(kind: FileType) -> &'static str {
    if kind.is_dir() { "folder" } else { "device" }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::{load, load_mmap, safetensors, verify};
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let fifo = std::ffi::CString::new(at("fifo").into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: a system call that reads a text that ends in NUL.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        let _socket = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("fifo", at("link.ckpt")).unwrap();
        for (path, kind) in [
            (at("fifo"), "FIFO"),
            (at("link.ckpt"), "FIFO"),
            (at("socket"), "socket"),
            (at("."), "folder"),
            ("/dev/zero".into(), "device"),
        ] {
            let expected = format!("cannot read the checkpoint: it is a {kind}, and only regular files are read");
            let outcomes = [
                load(&path).map(drop),
                load_mmap(&path).map(drop),
                verify(&path),
                safetensors::load(&path).map(drop),
                safetensors::load_mmap(&path).map(drop),
            ];
            for outcome in outcomes {
                assert_eq!(outcome.unwrap_err().to_string(), expected);
            }
        }
        assert_eq!(open_regular(at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        assert_eq!(io::read_to_string(open_regular(at("link")).unwrap()).unwrap(), "x");
    }
}
