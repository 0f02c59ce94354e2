//! Weights & Biases: the transaction log of a run, which `wandb sync` and `wandb leet` read too, and a thread that sends it.

mod artifact;
mod blocks;
mod credentials;
mod file;
mod folder;
mod left;
mod log;
mod proto;
mod queries;
mod record;
mod run_name;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod uploader;

pub use file::RunFile;
pub use folder::{MediaFile, put_media};
pub(crate) use left::{begun, is_left, send};
pub use log::{GLOBAL_STEP, RunLog};
pub use record::{Artifact, ArtifactFile, Item, Metric, Record, RunInfo, json_number};
pub use run_name::{run_id, wrong_project, wrong_run_id};
pub use server::{Resume, Server};
