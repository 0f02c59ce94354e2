//! Names without a group, as the agent of a Weights & Biases sweep writes them: `--lr=0.1` for the parameter `lr`.

use fulgurite_engine::Error;

use super::check::wrong;
use super::kind::Kind;
use super::layout::{Layout, Subcommand};
use super::tree::Node;

/// Names the sweep that a program runs in.
const VARIABLE: &str = "WANDB_SWEEP_ID";

/// Whether arguments may come from such an agent. Otherwise a name that is short today could become ambiguous tomorrow.
pub(super) fn are_taken(env: &[(String, String)]) -> bool {
    env.iter().any(|(name, value)| name == VARIABLE && !value.is_empty())
}

/// The option that a short name means, if it is one.
///
/// # Errors
///
/// Fails if there are several.
pub(super) fn long(layout: &Layout, root: &Node, subcommand: Subcommand, name: &str) -> Result<Option<String>, Error> {
    if name.contains('.') || layout.schema().field(name).is_some() {
        return Ok(None);
    }
    let groups = layout.groups().filter(|(group, _)| subcommand.takes(group));
    let in_groups = groups.filter(|(_, schema)| schema.field(name).is_some()).map(|(group, _)| group);
    let of_class = |(place, kind): &(&str, Kind)| {
        let class = root.nearest([*place, "class_path"]).as_str().unwrap_or_default();
        layout.registry.find(*kind, class).is_some_and(|class| class.schema().field(name).is_some())
    };
    let classes = [("optimizer", Kind::Optimizer), ("lr_scheduler", Kind::Scheduler)].into_iter().filter(of_class);
    let found: Vec<String> =
        in_groups.chain(classes.map(|(place, _)| place)).map(|group| format!("{group}.{name}")).collect();
    match &found[..] {
        [] => Ok(None),
        [long] => Ok(Some(long.clone())),
        _ => wrong(format!(
            "--{name}: `{name}` could be {}; write the full name in the parameters of the W&B sweep",
            found.iter().map(|long| format!("`{long}`")).collect::<Vec<_>>().join(" or ")
        )),
    }
}
