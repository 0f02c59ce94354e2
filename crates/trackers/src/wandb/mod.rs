//! Weights & Biases: the transaction log of a run, which `wandb sync` and `wandb leet` read.

mod artifact;
mod blocks;
mod file;
mod folder;
mod proto;
mod record;
mod run_name;

pub use file::RunFile;
pub use folder::{MediaFile, put_media};
pub use record::{Artifact, ArtifactFile, Item, Metric, Record, RunInfo, json_number};
pub use run_name::{run_id, wrong_project, wrong_run_id};
