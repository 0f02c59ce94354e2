//! [`Record`]: what a transaction log holds, as the messages of W&B's client.

use super::proto::{Field, fields, integer, message, text, text_in_list};
use crate::entry::now_ms;

/// The client whose format this is.
pub(super) const VERSION: &str = "0.31.0";

/// The oldest client that reads it.
const OLDEST_READER: &str = "0.70.0";

/// A key, and its value as JSON, in which `NaN` and `Infinity` may stand as they are.
pub type Item = (String, String);

/// One record of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Record {
    /// The run: before anything else of it.
    Run(Box<RunInfo>),
    /// How a metric is shown.
    Metric(Metric),
    /// Values that belong together; their `_step` counts rows.
    History {
        /// The number of the row.
        step: i64,
        /// The values.
        items: Vec<Item>,
    },
    /// Last values.
    Summary(Vec<Item>),
    /// Hyper-parameters.
    Config(Vec<Item>),
    /// Statistics of the machine.
    Stats {
        /// Milliseconds since 1970.
        ms: i64,
        /// The values.
        items: Vec<Item>,
    },
    /// A file below `files/`, which is complete.
    File {
        /// Its path there.
        path: String,
        /// It belongs to a row.
        is_media: bool,
    },
    /// Files with a version, such as a checkpoint.
    Artifact(Box<Artifact>),
    /// The scheduler ends the run, which goes on later.
    Preempting,
    /// The end of the run.
    Exit {
        /// 0 if it ended as it should.
        code: i32,
        /// How long it took, in seconds.
        seconds: i64,
    },
    /// A record that nothing here needs, such as the head of the file.
    Other,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RunInfo {
    /// Its identifier.
    pub id: String,
    /// The user or team; the key says it if it is empty.
    pub entity: String,
    /// The project.
    pub project: String,
    /// The group it is shown in.
    pub group: String,
    /// What it does, such as `train`.
    pub job_type: String,
    /// Its name; the server invents one if it is empty.
    pub display_name: String,
    /// A text about it.
    pub notes: String,
    /// Labels.
    pub tags: Vec<String>,
    /// The sweep that it is a trial of.
    pub sweep_id: String,
    /// The machine.
    pub host: String,
    /// When it began, in milliseconds since 1970.
    pub start_ms: i64,
    /// Address and commit of the git repository.
    pub git: Option<(String, String)>,
}

/// How a metric is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Its name; with a `*`, all that match.
    pub name: String,
    /// The metric on its x-axis; empty for the number of the row.
    pub step_metric: String,
}

impl Metric {
    pub(super) fn is_glob(&self) -> bool {
        self.name.contains('*')
    }
}

/// Files with a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Artifact {
    /// The run that made it.
    pub run_id: String,
    /// Its project.
    pub project: String,
    /// Its user or team.
    pub entity: String,
    /// What it is, such as `model`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// What is known of it, as JSON.
    pub metadata: String,
    /// Names of this version.
    pub aliases: Vec<String>,
    /// Its files.
    pub files: Vec<ArtifactFile>,
    /// A random identifier of this version.
    pub client_id: String,
    /// A random identifier of all its versions.
    pub sequence_client_id: String,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ArtifactFile {
    /// Its path in the artifact.
    pub path: String,
    /// Its MD5 in base64.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Where it lies.
    pub local_path: String,
}

impl Record {
    /// As it stands in the file, with its number there.
    pub(super) fn encode(&self, number: i64) -> Vec<u8> {
        let mut out = Vec::new();
        integer(&mut out, 1, number);
        match self {
            Record::Run(run) => message(&mut out, 17, |out| run.encode(out)),
            Record::Metric(metric) => message(&mut out, 12, |out| metric.encode(out)),
            Record::History { step, items } => message(&mut out, 2, |out| {
                encode_items(out, items, 1);
                message(out, 2, |out| integer(out, 1, *step));
            }),
            Record::Summary(items) => message(&mut out, 3, |out| encode_items(out, items, 1)),
            Record::Config(items) => message(&mut out, 5, |out| encode_items(out, items, 1)),
            Record::Stats { ms, items } => message(&mut out, 7, |out| {
                message(out, 2, |out| encode_time(out, *ms));
                encode_items(out, items, 3);
            }),
            Record::File { path, is_media } => message(&mut out, 6, |out| {
                message(out, 1, |out| {
                    text(out, 1, path);
                    integer(out, 3, if *is_media { 2 } else { 0 });
                });
            }),
            Record::Artifact(artifact) => message(&mut out, 8, |out| artifact.encode(out)),
            Record::Preempting => message(&mut out, 23, |_| {}),
            Record::Exit { code, seconds } => message(&mut out, 18, |out| {
                integer(out, 1, i64::from(*code));
                integer(out, 2, *seconds);
            }),
            Record::Other => message(&mut out, 21, |out| {
                message(out, 1, |out| {
                    text(out, 1, VERSION);
                    text(out, 2, OLDEST_READER);
                });
            }),
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Record {
        let known = fields(bytes).find(|(number, _)| matches!(number, 2 | 3 | 5 | 6 | 7 | 8 | 12 | 17 | 18 | 23));
        let Some((number, field)) = known else { return Record::Other };
        let inner = field.bytes();
        match number {
            2 => Record::History { step: number_in(inner, 2), items: decode_items(inner, 1) },
            3 => Record::Summary(decode_items(inner, 1)),
            5 => Record::Config(decode_items(inner, 1)),
            6 => match first(inner, 1).map(Field::bytes) {
                Some(file) => Record::File { path: text_of(file, 1), is_media: integer_of(file, 3) == 2 },
                None => Record::Other,
            },
            7 => Record::Stats { ms: time_in(inner, 2), items: decode_items(inner, 3) },
            8 => Record::Artifact(Box::new(Artifact::decode(inner))),
            12 => Record::Metric(Metric::decode(inner)),
            17 => Record::Run(Box::new(RunInfo::decode(inner))),
            18 => Record::Exit { code: integer_of(inner, 1) as i32, seconds: integer_of(inner, 2) },
            23 => Record::Preempting,
            _ => Record::Other,
        }
    }
}

impl RunInfo {
    /// A run that begins now.
    pub fn new(id: impl Into<String>, project: impl Into<String>) -> RunInfo {
        RunInfo { id: id.into(), project: project.into(), start_ms: now_ms(), ..RunInfo::default() }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        text(out, 1, &self.id);
        text(out, 2, &self.entity);
        text(out, 3, &self.project);
        text(out, 6, &self.group);
        text(out, 7, &self.job_type);
        text(out, 8, &self.display_name);
        text(out, 9, &self.notes);
        self.tags.iter().for_each(|tag| text_in_list(out, 10, tag));
        text(out, 12, &self.sweep_id);
        text(out, 13, &self.host);
        message(out, 17, |out| encode_time(out, self.start_ms));
        if let Some((remote, commit)) = &self.git {
            message(out, 21, |out| {
                text(out, 1, remote);
                text(out, 2, commit);
            });
        }
        // What the run has on the server already is continued, and not written over.
        integer(out, 24, 1);
    }

    fn decode(bytes: &[u8]) -> RunInfo {
        let mut run = RunInfo::default();
        for (number, field) in fields(bytes) {
            match number {
                1 => run.id = field.text(),
                2 => run.entity = field.text(),
                3 => run.project = field.text(),
                6 => run.group = field.text(),
                7 => run.job_type = field.text(),
                8 => run.display_name = field.text(),
                9 => run.notes = field.text(),
                10 => run.tags.push(field.text()),
                12 => run.sweep_id = field.text(),
                13 => run.host = field.text(),
                17 => run.start_ms = decode_time(field.bytes()),
                21 => run.git = Some((text_of(field.bytes(), 1), text_of(field.bytes(), 2))),
                _ => {}
            }
        }
        run
    }
}

impl Metric {
    fn encode(&self, out: &mut Vec<u8>) {
        text(out, if self.is_glob() { 2 } else { 1 }, &self.name);
        text(out, 4, &self.step_metric);
        message(out, 6, |out| {
            integer(out, 1, i64::from(!self.step_metric.is_empty()));
            integer(out, 3, 1);
        });
    }

    fn decode(bytes: &[u8]) -> Metric {
        let name = first(bytes, 1).or(first(bytes, 2)).map(Field::text).unwrap_or_default();
        Metric { name, step_metric: text_of(bytes, 4) }
    }
}

impl Artifact {
    fn encode(&self, out: &mut Vec<u8>) {
        text(out, 1, &self.run_id);
        text(out, 2, &self.project);
        text(out, 3, &self.entity);
        text(out, 4, &self.kind);
        text(out, 5, &self.name);
        text(out, 6, &self.digest);
        text(out, 8, &self.metadata);
        integer(out, 9, 1);
        self.aliases.iter().for_each(|alias| text_in_list(out, 11, alias));
        message(out, 12, |out| {
            integer(out, 1, 1);
            text(out, 2, "wandb-storage-policy-v1");
            message(out, 3, |out| {
                text(out, 1, "storageLayout");
                text(out, 2, "\"V2\"");
            });
            for file in &self.files {
                message(out, 4, |out| {
                    text(out, 1, &file.path);
                    text(out, 2, &file.digest);
                    integer(out, 4, i64::try_from(file.size).unwrap_or(i64::MAX));
                    text(out, 6, &file.local_path);
                });
            }
        });
        integer(out, 14, 1);
        text(out, 15, &self.client_id);
        text(out, 16, &self.sequence_client_id);
        text(out, 20, "MANIFEST_MD5");
    }

    fn decode(bytes: &[u8]) -> Artifact {
        let mut artifact = Artifact::default();
        for (number, field) in fields(bytes) {
            match number {
                1 => artifact.run_id = field.text(),
                2 => artifact.project = field.text(),
                3 => artifact.entity = field.text(),
                4 => artifact.kind = field.text(),
                5 => artifact.name = field.text(),
                6 => artifact.digest = field.text(),
                8 => artifact.metadata = field.text(),
                11 => artifact.aliases.push(field.text()),
                12 => artifact.files = fields(field.bytes()).filter(|(number, _)| *number == 4).map(file).collect(),
                15 => artifact.client_id = field.text(),
                16 => artifact.sequence_client_id = field.text(),
                _ => {}
            }
        }
        artifact
    }
}

fn file((_, field): (u64, Field)) -> ArtifactFile {
    let bytes = field.bytes();
    ArtifactFile {
        path: text_of(bytes, 1),
        digest: text_of(bytes, 2),
        size: integer_of(bytes, 4).try_into().unwrap_or_default(),
        local_path: text_of(bytes, 6),
    }
}

fn encode_items(out: &mut Vec<u8>, items: &[Item], field: u64) {
    for (key, json) in items {
        message(out, field, |out| {
            text(out, 1, key);
            text(out, 16, json);
        });
    }
}

fn decode_items(bytes: &[u8], field: u64) -> Vec<Item> {
    let items = fields(bytes).filter(|(number, _)| *number == field);
    items.map(|(_, item)| (text_of(item.bytes(), 1), text_of(item.bytes(), 16))).collect()
}

fn encode_time(out: &mut Vec<u8>, ms: i64) {
    integer(out, 1, ms.div_euclid(1000));
    integer(out, 2, ms.rem_euclid(1000) * 1_000_000);
}

fn decode_time(bytes: &[u8]) -> i64 {
    integer_of(bytes, 1).saturating_mul(1000).saturating_add(integer_of(bytes, 2) / 1_000_000)
}

fn first(bytes: &[u8], field: u64) -> Option<Field<'_>> {
    fields(bytes).find(|(number, _)| *number == field).map(|(_, field)| field)
}

fn text_of(bytes: &[u8], field: u64) -> String {
    first(bytes, field).map(Field::text).unwrap_or_default()
}

fn integer_of(bytes: &[u8], field: u64) -> i64 {
    first(bytes, field).map(Field::integer).unwrap_or_default()
}

fn number_in(bytes: &[u8], field: u64) -> i64 {
    first(bytes, field).map(|inner| integer_of(inner.bytes(), 1)).unwrap_or_default()
}

fn time_in(bytes: &[u8], field: u64) -> i64 {
    first(bytes, field).map(|inner| decode_time(inner.bytes())).unwrap_or_default()
}

/// A number as W&B's client writes it.
///
/// ```
/// use fulgurite_trackers::wandb::json_number;
///
/// assert_eq!([0.1, 2.0, f64::NAN, f64::NEG_INFINITY].map(json_number), ["0.1", "2.0", "NaN", "-Infinity"]);
/// ```
pub fn json_number(value: f64) -> String {
    match value {
        value if value.is_finite() => format!("{value:?}"),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => "NaN".into(),
    }
}

/// A text as JSON.
pub(super) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let items = vec![("a/b".to_owned(), "NaN".to_owned()), (String::new(), "{\"x\":[1]}".to_owned())];
        let run = RunInfo {
            id: "abc".into(),
            tags: vec!["x".into(), String::new()],
            start_ms: 1_700_000_000_123,
            git: Some(("r".into(), "c".into())),
            ..RunInfo::default()
        };
        let file = ArtifactFile { path: "m.ckpt".into(), digest: "d==".into(), size: 1 << 40, local_path: "/x".into() };
        let artifact =
            Artifact { name: "model".into(), aliases: vec!["latest".into()], files: vec![file], ..Artifact::default() };
        let all = [
            Record::Other,
            Record::Run(Box::new(run)),
            Record::Metric(Metric { name: "*".into(), step_metric: "s".into() }),
            Record::Metric(Metric { name: "s".into(), step_metric: String::new() }),
            Record::History { step: 3, items: items.clone() },
            Record::Summary(items.clone()),
            Record::Config(Vec::new()),
            Record::Stats { ms: 5001, items },
            Record::File { path: "media/a.png".into(), is_media: true },
            Record::Artifact(Box::new(artifact)),
            Record::Preempting,
            Record::Exit { code: -1, seconds: 7 },
        ];
        for (number, record) in all.into_iter().enumerate() {
            let bytes = record.encode(number as i64);
            assert_eq!(Record::decode(&bytes), record);
            // What is cut off is read as far as it goes.
            (0..bytes.len()).for_each(|length| drop(Record::decode(&bytes[..length])));
        }
    }
}
