//! [`Uploader`]: sends a transaction log to the server.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::artifact::md5_text;
use super::file::RunReader;
use super::queries::Query;
use super::record::{Artifact, ArtifactFile, Record, RunInfo};
use super::server::{Problem, Server};
use super::state::{Before, RunState};
use crate::http::Body;
use crate::service::{Failure, Sent, Service};

/// What a run warns of at most; more would say nothing new.
const MOST_WARNINGS: usize = 20;

/// Sends the records of a run's file in their order. What the server has of them already is written over with the same.
#[derive(Debug)]
pub(crate) struct Uploader {
    server: Server,
    /// The file.
    path: PathBuf,
    folder: PathBuf,
    /// The run as the file says it.
    run: RunInfo,
    /// What is sent of it; `None` before the server was asked what it has.
    state: Option<RunState>,
    warned: BTreeSet<String>,
    /// Only files of the folder and checkpoints are uploaded: somebody else may have written the log.
    is_careful: bool,
    /// Files that are uploaded, and of which the server was not told.
    uploaded: Vec<String>,
    /// The server was told of the end.
    has_ended: bool,
}

/// What a failed attempt means for the entry.
type Outcome = Result<(), Failure>;

impl Uploader {
    /// For a file of this process, or with `is_careful` of another one.
    pub(super) fn new(server: Server, path: &Path, run: RunInfo, is_careful: bool) -> Uploader {
        let folder = path.parent().unwrap_or(path).to_owned();
        Uploader {
            server,
            path: path.to_owned(),
            folder,
            run,
            state: None,
            warned: BTreeSet::new(),
            is_careful,
            uploaded: Vec::new(),
            has_ended: false,
        }
    }

    /// Where the run is, for messages.
    pub(super) fn name(&self) -> String {
        format!("{} run {}/{}", self.server.url(), self.run.project, self.run.id)
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    fn warn(&mut self, sent: &mut Sent, subject: &str, why: String) {
        if self.warned.len() < MOST_WARNINGS && self.warned.insert(subject.to_owned()) {
            sent.warnings.push(why);
        }
    }

    /// What is sent already, and what the server had before.
    fn begun(&mut self) -> Result<RunState, Failure> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let before = match Before::noted(&self.folder) {
            Some(before) if before.server != self.server.url() => {
                let why = format!("a part of it is at {}; set WANDB_BASE_URL to that", before.server);
                return Err(Failure::Closed(why));
            }
            Some(before) => before,
            None => {
                let before = self.ask_before()?;
                // If it cannot be noted, a process that goes on asks again.
                let _ = before.note(&self.folder);
                before
            }
        };
        let mut state = RunState::new(self.run.clone(), before);
        let unreadable = |error| Failure::Closed(format!("{} cannot be read: {error}", self.path.display()));
        let reader = RunReader::open(&self.path).map_err(unreadable)?;
        let take = |record: &Record| {
            state.take(record);
            state.lines_are_sent();
        };
        reader.each_sent(take).map_err(unreadable)?;
        self.upsert(&mut state)?;
        self.state = Some(state.clone());
        Ok(state)
    }

    fn ask_before(&self) -> Result<Before, Failure> {
        let run = &self.run;
        let variables = json!({ "project": run.project, "entity": run.entity, "name": run.id });
        let data =
            self.server.query(Query::STATUS, &variables).map_err(|problem| self.closed("the project", problem))?;
        let mut before = Before::of_status(self.server.url(), &run.entity, &data["model"]["bucket"]);
        if before.entity.is_empty() {
            let data =
                self.server.query(Query::VIEWER, &json!({})).map_err(|problem| self.closed("the key", problem))?;
            before.entity = data["viewer"]["entity"].as_str().unwrap_or_default().to_owned();
        }
        Ok(before)
    }

    /// Without this nothing else can be sent.
    fn closed(&self, what: &str, problem: Problem) -> Failure {
        match problem {
            Problem::Failed(failure) => failure,
            Problem::Refused(why) => Failure::Closed(format!("{} refuses {what}: {why}", self.server.url())),
        }
    }

    fn upsert(&self, state: &mut RunState) -> Outcome {
        let answer = self.server.query(Query::UPSERT, &state.upsert());
        answer.map_err(|problem| self.closed("the run", problem))?;
        state.config_is_sent();
        Ok(())
    }

    /// Sends what `next` has gathered, which is then what is sent.
    fn flush(&mut self, next: &mut RunState, sent: &mut Sent) -> Outcome {
        if next.has_new_config() {
            self.upsert(next)?;
        }
        if next.has_lines() {
            self.stream(next.stream(), next, sent)?;
            next.lines_are_sent();
        }
        self.state = Some(next.clone());
        Ok(())
    }

    fn stream(&mut self, mut body: Value, state: &RunState, sent: &mut Sent) -> Outcome {
        if !self.uploaded.is_empty() {
            body["uploaded"] = json!(self.uploaded);
        }
        let run = &state.run;
        let stopped = self.server.stream(&run.entity, &run.project, &run.id, &body);
        sent.stop |= stopped.map_err(|problem| self.closed("values", problem))?;
        self.uploaded.clear();
        Ok(())
    }

    /// Uploads a file below `files/` under its path there.
    fn upload_file(&mut self, path: &str, state: &RunState, sent: &mut Sent) -> Outcome {
        // It may lead out of the folder only if this program wrote it.
        let place = self.folder.join("files").join(path);
        let is_inside = || Some(place.canonicalize().ok()?.starts_with(self.folder.canonicalize().ok()?));
        if self.is_careful && is_inside() != Some(true) {
            let why = format!("{} is not uploaded: it is not in the run's folder", place.display());
            self.warn(sent, path, why);
            return Ok(());
        }
        let opened = File::open(&place).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((size, file)) => self.upload(path, &Body::File(&file, size), state, sent),
            Err(error) => {
                self.warn(sent, path, format!("{} is not uploaded: {error}", place.display()));
                Ok(())
            }
        }
    }

    /// Uploads a file of the run.
    fn upload(&mut self, path: &str, body: &Body, state: &RunState, sent: &mut Sent) -> Outcome {
        let run = &state.run;
        let asked = json!({ "entity": run.entity, "project": run.project, "run": run.id, "files": [path] });
        let put = self.server.query(Query::RUN_FILES, &asked).and_then(|data| {
            let answer = &data["createRunFiles"];
            let url = answer["files"][0]["uploadUrl"].as_str().ok_or_else(no_address)?;
            self.server.upload(url, &answer["uploadHeaders"], body)
        });
        match put {
            Ok(()) => self.uploaded.push(path.to_owned()),
            Err(Problem::Refused(why)) => self.warn(sent, path, format!("W&B refuses the file {path}: {why}")),
            Err(Problem::Failed(failure)) => return Err(failure),
        }
        Ok(())
    }

    /// Uploads an artifact, whose links are removed then.
    fn upload_artifact(&mut self, artifact: &Artifact, state: &RunState, sent: &mut Sent) -> Outcome {
        for file in &artifact.files {
            let place = Path::new(&file.local_path);
            if let Some(why) = self.why_not(place) {
                let why = format!("the artifact {} is not uploaded: {} {why}", artifact.name, place.display());
                self.warn(sent, &artifact.client_id, why);
                return Ok(());
            }
        }
        match self.put_artifact(artifact, &state.run) {
            Ok(()) => {}
            Err(Problem::Refused(why)) => {
                self.warn(sent, &artifact.client_id, format!("W&B refuses the artifact {}: {why}", artifact.name));
            }
            Err(Problem::Failed(failure)) => return Err(failure),
        }
        for file in &artifact.files {
            let place = Path::new(&file.local_path);
            if self.is_in_folder(place) {
                // What stays costs space, and nothing else.
                let _ = fs::remove_file(place);
            }
        }
        Ok(())
    }

    fn is_in_folder(&self, place: &Path) -> bool {
        place
            .canonicalize()
            .ok()
            .zip(self.folder.canonicalize().ok())
            .is_some_and(|(real, folder)| real.starts_with(folder))
    }

    /// Why a file must not be uploaded, or cannot be.
    fn why_not(&self, place: &Path) -> Option<&'static str> {
        let Ok(mut file) = File::open(place) else { return Some("is gone") };
        let mut magic = [0; 4];
        let mut is_checkpoint = || file.read_exact(&mut magic).is_ok() && magic == *b"PK\x03\x04";
        let may = !self.is_careful || self.is_in_folder(place) || is_checkpoint();
        (!may).then_some("is no checkpoint, and not in the run's folder")
    }

    fn put_artifact(&self, artifact: &Artifact, run: &RunInfo) -> Result<(), Problem> {
        let alias = |alias: &String| json!({ "artifactCollectionName": artifact.name, "alias": alias });
        let asked = json!({ "input": {
            "entityName": run.entity, "projectName": run.project, "runName": run.id,
            "artifactTypeName": artifact.kind, "artifactCollectionName": artifact.name, "digest": artifact.digest,
            "digestAlgorithm": "MANIFEST_MD5", "aliases": artifact.aliases.iter().map(alias).collect::<Vec<_>>(),
            "metadata": artifact.metadata, "clientID": artifact.client_id,
            "sequenceClientID": artifact.sequence_client_id, "enableDigestDeduplication": true,
        } });
        let data = self.server.query(Query::ARTIFACT, &asked)?;
        let created = &data["createArtifact"]["artifact"];
        let id = created["id"].as_str().ok_or_else(no_address)?;
        if created["state"] == "COMMITTED" {
            // The server has these bytes.
            return Ok(());
        }
        let manifest = json!({
            "version": 1, "storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": { "storageLayout": "V2" },
            "contents": artifact.files.iter().map(|file| (file.path.clone(), json!({
                "digest": file.digest, "size": file.size, "birthArtifactID": id,
            }))).collect::<serde_json::Map<_, _>>(),
        });
        let manifest = manifest.to_string();
        let describe = |digest: &str, upload: bool| {
            json!({
                "artifactID": id, "name": "wandb_manifest.json", "digest": digest, "entityName": run.entity,
                "projectName": run.project, "runName": run.id, "manifestType": "FULL", "includeUpload": upload,
            })
        };
        let data = self.server.query(Query::MANIFEST, &describe("", false))?;
        let manifest_id = data["createArtifactManifest"]["artifactManifest"]["id"].clone();
        self.put_files(&artifact.files, id, &manifest_id)?;
        let data = self.server.query(Query::MANIFEST, &describe(&md5_text(manifest.as_bytes()), true))?;
        let file = &data["createArtifactManifest"]["artifactManifest"]["file"];
        let url = file["uploadUrl"].as_str().ok_or_else(no_address)?;
        self.server.upload(url, &file["uploadHeaders"], &Body::Bytes(manifest.as_bytes()))?;
        self.server.query(Query::COMMIT, &json!({ "artifactID": id })).map(drop)
    }

    fn put_files(&self, files: &[ArtifactFile], id: &str, manifest: &Value) -> Result<(), Problem> {
        let asked = files.iter().map(
            |file| json!({ "artifactID": id, "name": file.path, "md5": file.digest, "artifactManifestID": manifest }),
        );
        let input = json!({ "input": { "artifactFiles": asked.collect::<Vec<_>>(), "storageLayout": "V2" } });
        let data = self.server.query(Query::ARTIFACT_FILES, &input)?;
        let edges = &data["createArtifactFiles"]["files"]["edges"];
        for (index, file) in files.iter().enumerate() {
            let node = &edges[index]["node"];
            // Without an address, the server has it.
            let Some(url) = node["uploadUrl"].as_str() else { continue };
            let opened = File::open(&file.local_path).map_err(|error| Problem::Refused(error.to_string()))?;
            self.server.upload(url, &node["uploadHeaders"], &Body::File(&opened, file.size))?;
        }
        Ok(())
    }

    /// The last files, and the end.
    fn end(&mut self, code: i32, next: &mut RunState, sent: &mut Sent) -> Outcome {
        for (name, text) in [("wandb-summary.json", next.summary_json()), ("config.yaml", next.config_yaml())] {
            self.upload(name, &Body::Bytes(text.as_bytes()), next, sent)?;
        }
        self.stream(json!({ "complete": true, "exitcode": code }), next, sent)?;
        self.has_ended = true;
        Ok(())
    }

    /// A run whose file does not say how it ended was killed: it has failed.
    pub(super) fn end_as_failed(&mut self, sent: &mut Sent) -> Outcome {
        match self.state.clone().filter(|_| !self.has_ended) {
            Some(mut state) => self.end(1, &mut state, sent),
            None => Ok(()),
        }
    }

    fn send_in_order(&mut self, records: &[Record], sent: &mut Sent) -> Outcome {
        let mut next = self.begun()?;
        for (index, record) in records.iter().enumerate() {
            if !next.take(record) {
                let why = "a row of more than 10 MB is not sent, because W&B takes none; `wandb leet` still shows it";
                self.warn(sent, "row", why.into());
            }
            let is_alone =
                matches!(record, Record::File { .. } | Record::Artifact(_) | Record::Preempting | Record::Exit { .. });
            if !is_alone {
                continue;
            }
            self.flush(&mut next, sent)?;
            sent.done = index;
            match record {
                Record::File { path, .. } => self.upload_file(path, &next, sent)?,
                Record::Artifact(artifact) => self.upload_artifact(artifact, &next, sent)?,
                Record::Preempting => self.stream(json!({ "preempting": true }), &next, sent)?,
                Record::Exit { code, .. } => self.end(*code, &mut next, sent)?,
                _ => {}
            }
            sent.done = index + 1;
        }
        self.flush(&mut next, sent)?;
        sent.done = records.len();
        Ok(())
    }
}

fn no_address() -> Problem {
    Problem::Refused("it answers without what was asked for".into())
}

impl Service<Record> for Uploader {
    fn send(&mut self, records: &[Record]) -> Sent {
        let mut sent = Sent::default();
        let failure = self.send_in_order(records, &mut sent);
        sent.failure = failure.err();
        sent
    }

    fn idle(&mut self) -> Sent {
        let mut sent = Sent::default();
        if let Some(state) = self.state.clone() {
            // A failure shows when there is something to send.
            let _ = self.stream(json!({}), &state, &mut sent);
        }
        sent
    }
}
