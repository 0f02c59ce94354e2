//! Downloading published files, with their checksums.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use super::files::Source;
use crate::DataError;

/// Downloads the file `name` of `source` into its folder below `root`, unless it is there with the right checksum.
pub(crate) fn fetch(source: &Source, root: &Path, name: &str, md5: &str) -> Result<PathBuf, DataError> {
    let folder = root.join(source.folder);
    let (path, url) = (folder.join(name), format!("{}{name}", source.url));
    if path.is_file() && checksum(&path)? == md5 {
        return Ok(path);
    }
    let cannot_write = |source| DataError::Io { path: path.clone(), source };
    fs::create_dir_all(&folder).map_err(cannot_write)?;
    let failed = |cause: String| {
        DataError::Download(format!(
            "{url} could not be downloaded: {cause}; without a network, get it on another machine and put it into {}",
            folder.display()
        ))
    };
    let mut body = ureq::get(&url).call().map_err(|error| failed(error.to_string()))?.into_body().into_reader();
    // Under another name until it is complete and verified.
    let part = folder.join(format!("{name}.part"));
    let mut file = File::create(&part).map_err(cannot_write)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match body.read(&mut buffer).map_err(|error| failed(error.to_string()))? {
            0 => break,
            n => file.write_all(&buffer[..n]).map_err(cannot_write)?,
        }
    }
    file.sync_all().map_err(cannot_write)?;
    let found = checksum(&part)?;
    if found != md5 {
        let _ = fs::remove_file(&part);
        return Err(failed(format!("its MD5 checksum is {found}, not {md5}")));
    }
    fs::rename(&part, &path).map_err(cannot_write)?;
    Ok(path)
}

fn checksum(path: &Path) -> Result<String, DataError> {
    let failed = |source| DataError::Io { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(failed)?;
    let (mut md5, mut buffer) = (Md5::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            n => md5.update(&buffer[..n]),
        }
    }
    Ok(md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Serves `body` once; the address ends with a slash.
    fn serve(body: &'static str) -> &'static str {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        });
        url.leak()
    }

    const HELLO_MD5: &str = "5d41402abc4b2a76b9719d911017c592";

    #[test]
    fn a_file_is_downloaded_once_and_verified() {
        let root = tempfile::tempdir().unwrap();
        let source = Source { name: "greetings", folder: "raw", url: serve("hello") };
        for _ in 0..2 {
            let path = fetch(&source, root.path(), "hello.txt", HELLO_MD5).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), "hello");
        }
    }

    #[test]
    fn a_wrong_checksum_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let source = Source { name: "greetings", folder: "raw", url: serve("hullo") };
        let error = fetch(&source, root.path(), "hello.txt", HELLO_MD5).unwrap_err().to_string();
        assert!(
            error.contains(&format!(": its MD5 checksum is 54bf43965e2bbaa20c22c22ca7b4e9c7, not {HELLO_MD5};")),
            "{error}"
        );
        assert_eq!(fs::read_dir(root.path().join("raw")).unwrap().count(), 0);
    }

    #[test]
    fn without_a_network_the_error_says_where_the_file_belongs() {
        let root = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let source = Source { name: "greetings", folder: "raw", url: format!("http://{address}/").leak() };
        let error = fetch(&source, root.path(), "hello.txt", HELLO_MD5).unwrap_err().to_string();
        assert!(error.starts_with(&format!("http://{address}/hello.txt could not be downloaded: ")), "{error}");
        let place = root.path().join("raw").display().to_string();
        assert!(
            error.ends_with(&format!("; without a network, get it on another machine and put it into {place}")),
            "{error}"
        );
    }
}
