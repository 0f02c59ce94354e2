//! What the subcommand `sweep` needs of the command line: the configuration that trials have in common, and one for each.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use fulgurite_engine::{Error, LightningDataModule, LightningModule, Signal};
use fulgurite_search::Distribution;
use fulgurite_torch::tch;
use serde_json::{Map, Value, json};

use super::args::{Argument, RunRequest};
use super::check::wrong;
use super::layout::{Layout, Subcommand};
use super::resolved::Resolved;
use super::sweep::{Sweep, SweepOptions, argument_value, summary};
use super::tree::Node;
use super::{Cli, FromConfig};
use crate::outside;

/// How long a trial may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(30);

/// Groups of options that are not of `fit`.
const NOT_OF_FIT: [&str; 3] = ["sweep", "tune", "verbose"];

/// A sweep, with what its configurations are made of.
pub(super) struct Planned {
    request: RunRequest,
    sweep: Sweep,
    /// The configuration that all trials have in common.
    base: String,
}

impl<M, D> Cli<M, D>
where
    M: LightningModule + FromConfig,
    D: LightningDataModule<Batch = M::Batch> + FromConfig,
{
    /// Everything that can be known to be wrong is said here, before the first trial.
    pub(super) fn plan_sweep(
        &self,
        layout: &Layout,
        request: RunRequest,
        resolved: &Resolved,
    ) -> Result<Planned, Error> {
        outside::watch_parent()?;
        let options: SweepOptions = resolved.group(layout, "sweep")?;
        options.check()?;
        let space = options.space()?;
        for (name, of) in space.iter() {
            self.check_parameter(layout, &request, name, of)?;
        }
        let root = resolved.root.nearest(["trainer", "default_root_dir"]).as_str().unwrap_or(".").to_owned();
        let study = options.study_name.clone().unwrap_or_else(|| self.name.clone());
        let absolute = |path: &Path| {
            let absolute = std::path::absolute(path);
            absolute.map_err(|error| Error::Config(format!("{} cannot be found: {error}", path.display())))
        };
        let folder = absolute(&Path::new(&root).join("sweeps").join(&study))?;
        let storage = match &options.storage {
            Some(storage) => absolute(storage)?,
            None => folder.join("journal.log"),
        };
        let program = std::env::current_exe();
        let program = program.map_err(|error| Error::Config(format!("this program cannot be found: {error}")))?;
        let devices = match resolved.root.nearest(["trainer", "accelerator"]).as_str() {
            Some("cpu") => Vec::new(),
            _ => cuda_devices(),
        };
        let devices_per_trial = match options.devices_per_trial {
            Some(count) => count,
            None => count_of_devices(&resolved.root.nearest(["trainer", "devices"]).to_json(), !devices.is_empty())?,
        };
        let base = self.configuration(layout, &request, &Map::new())?;
        let path = folder.join("base.yaml");
        Ok(Planned {
            request,
            sweep: Sweep {
                options,
                space,
                study,
                folder,
                storage,
                base: path,
                program,
                devices,
                devices_per_trial,
                grace: GRACE,
            },
            base,
        })
    }

    /// Whether an option exists, and can have the values at its ends.
    fn check_parameter(
        &self,
        layout: &Layout,
        request: &RunRequest,
        name: &str,
        of: &Distribution,
    ) -> Result<(), Error> {
        let group = name.split('.').next().unwrap_or_default();
        if NOT_OF_FIT.contains(&group) || ["trainer.default_root_dir", "config"].contains(&name) {
            return wrong(format!("the search space's `{name}` cannot be tried: it is no option of a trial"));
        }
        let values = match of {
            Distribution::Float { low, high, .. } => vec![json!(low), json!(high)],
            Distribution::Int { low, high, .. } => vec![json!(low), json!(high)],
            Distribution::Categorical { choices } => choices.clone(),
        };
        for value in values {
            let value = Map::from_iter([(name.to_owned(), value)]);
            let checked = self
                .resolve(layout, &with(request, &value))
                .and_then(|resolved| self.settings(layout, Subcommand::Fit, resolved))
                .and_then(|settings| settings.check_objects(layout));
            checked.map_err(|error| {
                let error = error.to_string();
                let problem = error.strip_prefix(&format!("--{name}: ")).unwrap_or(&error);
                Error::Config(format!("the search space's `{name}`: {problem}"))
            })?;
        }
        Ok(())
    }

    /// The configuration of `fit` with these values, without what follows from it by links.
    fn configuration(
        &self,
        layout: &Layout,
        request: &RunRequest,
        values: &Map<String, Value>,
    ) -> Result<String, Error> {
        let mut merged = self.merged(layout, &with(request, values))?;
        if let Some(groups) = merged.root.as_map_mut() {
            groups.retain(|group, _| !NOT_OF_FIT.contains(&group.as_str()));
        }
        self.links.iter().for_each(|(_, target)| remove(&mut merged.root, target));
        Ok(merged.to_yaml(layout, &[]))
    }

    /// Runs the trials. The exit code is 1 if none was complete.
    pub(super) fn sweep(&self, layout: &Layout, planned: &Planned) -> Result<ExitCode, Error> {
        let Planned { request, sweep, base } = planned;
        write(&sweep.base, base)?;
        let end = sweep.run(&self.console)?;
        let monitor = &sweep.options.monitor;
        let mut text = end.curve.map_or(String::new(), |curve| curve + "\n");
        match end.study.best_trial() {
            Some(best) => {
                let summary = summary(&end.study, best, monitor);
                let path = sweep.folder.join("best.yaml");
                let (number, values) = (best.number, end.study.params(best.id));
                let header = format!("# Trial {number} of the study `{}`, the best of {monitor}.\n", sweep.study);
                write(&path, &(header + &self.configuration(layout, request, &values)?))?;
                text += &format!("{summary}\nconfiguration: {}\n", path.display());
                if let Some(checkpoint) = best.user_attrs.get("ckpt").and_then(Value::as_str) {
                    text += &format!("checkpoint: {checkpoint}\n");
                }
            }
            None => self.console.print("error: no trial is complete"),
        }
        if let Some(history) = end.history {
            text += &format!("history: {}\n", history.display());
        }
        text += &format!("journal: {}\n", sweep.storage.display());
        self.console.print_out(&text);
        let of_trials = if end.study.best_trial().is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        Ok(end.signal.map_or(of_trials, Signal::exit_code))
    }
}

/// The request with further options, as if they were written last.
fn with(request: &RunRequest, values: &Map<String, Value>) -> RunRequest {
    let mut arguments = request.arguments.clone();
    arguments.extend(values.iter().map(|(name, value)| Argument::Set {
        name: name.clone(),
        append: false,
        value: Some(argument_value(value)),
    }));
    RunRequest { subcommand: request.subcommand, arguments, print_config: None }
}

/// Removes an option.
fn remove(root: &mut Node, option: &str) {
    let mut parts: Vec<&str> = option.split('.').collect();
    let Some(last) = parts.pop() else { return };
    let place = parts.into_iter().try_fold(root, |node, part| node.as_map_mut()?.get_mut(part));
    if let Some(entries) = place.and_then(Node::as_map_mut) {
        entries.shift_remove(last);
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = made.and_then(|()| std::fs::write(path, text));
    written.map_err(|error| Error::Config(format!("{} cannot be written: {error}", path.display())))
}

/// How many devices `trainer.devices` asks for; 1 if it leaves that open.
fn count_of_devices(devices: &Value, are_cuda: bool) -> Result<usize, Error> {
    let count = match devices {
        Value::Number(number) => number.as_u64().and_then(|count| usize::try_from(count).ok()),
        Value::Array(_) if are_cuda => {
            return wrong(format!(
                "`trainer.devices` is {devices}, but each trial of a sweep sees only its own devices, from 0; write how many a trial \
                 needs, and choose those of the sweep by CUDA_VISIBLE_DEVICES"
            ));
        }
        _ => None,
    };
    Ok(count.unwrap_or(1).max(1))
}

/// The CUDA devices that this process sees.
fn cuda_devices() -> Vec<String> {
    let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    let named = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let named: Vec<String> = named.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if named.is_empty() {
        (0..count).map(|index| index.to_string()).collect()
    } else {
        named.into_iter().take(count).collect()
    }
}
