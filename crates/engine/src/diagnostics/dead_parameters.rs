//! [`DeadParameters`]: detects trainable parameters that never receive a gradient.

use fulgurite_torch::params;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Tensor;

/// The maximum number of names in a warning.
const LISTED: usize = 20;

/// The trainable parameters that have had no gradient yet.
#[derive(Debug, Default)]
pub(super) struct DeadParameters {
    unseen: Vec<(String, Tensor)>,
    /// A backward pass has reached some parameter.
    trained: bool,
}

impl DeadParameters {
    /// All parameters that require a gradient now.
    pub(super) fn of(vars: &dyn Parameters) -> DeadParameters {
        let mut unseen = params::named_parameters(vars);
        unseen.retain(|(_, parameter)| parameter.requires_grad());
        DeadParameters { unseen, trained: false }
    }

    /// Removes the parameters that have a gradient: after a backward pass, or before an optimizer step.
    pub(super) fn look(&mut self) {
        if self.unseen.is_empty() {
            return;
        }
        let before = self.unseen.len();
        self.unseen.retain(|(_, parameter)| !parameter.grad().defined());
        self.trained |= self.unseen.len() < before;
    }

    /// The warning, once: the parameters that never had a gradient and are not frozen.
    pub(super) fn report(&mut self, epoch: u64) -> Option<String> {
        let unseen = std::mem::take(&mut self.unseen);
        let dead: Vec<String> =
            unseen.into_iter().filter(|(_, parameter)| parameter.requires_grad()).map(|(name, _)| name).collect();
        if dead.is_empty() || !self.trained {
            return None;
        }
        let more = match dead.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let shown = dead[..dead.len().min(LISTED)].join(", ");
        let (plural, them) = if dead.len() == 1 { ("", "it") } else { ("s", "them") };
        let number = format!("{} trainable parameter{plural}", dead.len());
        Some(format!(
            "{number} never received a gradient up to the end of epoch {epoch}: {shown}{more}. No loss depends on {them}: use {them} in `training_step`, remove {them}, or freeze {them} with `set_requires_grad(false)`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::tch::{Device, Kind, nn};

    use super::*;

    #[test]
    fn a_long_list_is_cut_and_frozen_ones_are_left_out() {
        let vars = nn::VarStore::new(Device::Cpu);
        let used = vars.root().zeros("used", &[1]);
        for index in 0..30 {
            _ = vars.root().zeros(&format!("p{index:02}"), &[1]);
        }
        let mut dead = DeadParameters::of(&vars);
        used.sum(Kind::Float).backward();
        dead.look();
        _ = dead.unseen[0].1.set_requires_grad(false);
        let warning = dead.report(0).unwrap();
        assert!(warning.starts_with("29 trainable parameters never received"), "{warning}");
        assert!(warning.contains(": p01, p02,") && warning.contains("p20, and 9 more. No loss"), "{warning}");
        assert_eq!(dead.report(1), None, "once");
    }
}
