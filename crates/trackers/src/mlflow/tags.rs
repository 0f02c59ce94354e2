//! What MLflow's own client says of a program.

use std::env;

use crate::git::Checkout;

/// The tag that holds a run's name.
pub const RUN_NAME: &str = "mlflow.runName";

/// The user, the program and its git commit, under the names of MLflow's client.
///
/// ```
/// let tags = fulgurite_trackers::mlflow::context_tags();
/// assert!(tags.contains(&("mlflow.source.type".to_owned(), "LOCAL".to_owned())));
/// ```
pub fn context_tags() -> Vec<(String, String)> {
    let user = ["LOGNAME", "USER", "USERNAME"].iter().find_map(|name| env::var(name).ok());
    let program = env::args_os().next().map(|program| program.to_string_lossy().into_owned());
    let commit = Checkout::around_here().map(|checkout| checkout.commit);
    let tags = [
        ("mlflow.user", user),
        ("mlflow.source.name", program),
        ("mlflow.source.type", Some("LOCAL".to_owned())),
        ("mlflow.source.git.commit", commit),
    ];
    tags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
