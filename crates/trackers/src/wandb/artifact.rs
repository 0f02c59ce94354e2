//! Making an [`Artifact`] of a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::record::{Artifact, ArtifactFile, RunInfo};
use super::run_name::random_text;

impl Artifact {
    /// A new version of the artifact `name`, with one file, which is read here.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read.
    pub fn of_file(run: &RunInfo, kind: &str, name: &str, path: &str, file: &Path) -> io::Result<Artifact> {
        let (md5, size) = md5_of(&mut File::open(file)?)?;
        let file = ArtifactFile {
            path: path.to_owned(),
            digest: STANDARD.encode(md5),
            size,
            local_path: std::path::absolute(file)?.display().to_string(),
        };
        Ok(Artifact {
            run_id: run.id.clone(),
            project: run.project.clone(),
            entity: run.entity.clone(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            digest: manifest_digest(std::slice::from_ref(&file)),
            files: vec![file],
            client_id: random_text(128),
            sequence_client_id: random_text(128),
            ..Artifact::default()
        })
    }
}

/// The digest of an artifact's files, as W&B computes it.
fn manifest_digest(files: &[ArtifactFile]) -> String {
    let mut hasher = Md5::new();
    hasher.update(b"wandb-artifact-manifest-v1\n");
    let mut files: Vec<&ArtifactFile> = files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.iter().for_each(|file| hasher.update(format!("{}:{}\n", file.path, file.digest).as_bytes()));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn md5_of(file: &mut impl Read) -> io::Result<([u8; 16], u64)> {
    let (mut hasher, mut buffer, mut size) = (Md5::new(), vec![0; 1 << 16], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.finalize().into(), size)),
            read => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

/// The MD5 of a short text, in base64.
pub(super) fn md5_text(bytes: &[u8]) -> String {
    STANDARD.encode(Md5::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_client() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ckpt");
        std::fs::write(&path, b"hello").unwrap();
        let run = RunInfo { id: "r".into(), ..RunInfo::default() };
        let artifact = Artifact::of_file(&run, "model", "model-r", "model.ckpt", &path).unwrap();
        assert_eq!((artifact.files[0].digest.as_str(), artifact.files[0].size), ("XUFAKrxLKna5cZ2REBfFkg==", 5));
        // Of `wandb.Artifact("m", "model")` with this file.
        assert_eq!(artifact.digest, "7d98214e38bf7c7ae2e99e89bdbefe0c");
        assert_eq!((artifact.client_id.len(), artifact.sequence_client_id.len()), (128, 128));
    }
}
