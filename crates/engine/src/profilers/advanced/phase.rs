//! [`Phase`]: the parts of a step.

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    DataWait,
    Transfer,
    Forward,
    Backward,
    Optimizer,
    Callbacks,
    ModuleHooks,
    Logging,
    Checkpoints,
    /// The trainer's own work between the others.
    Loop,
}

impl Phase {
    pub(super) const ALL: [Phase; 10] = [
        Phase::DataWait,
        Phase::Transfer,
        Phase::Forward,
        Phase::Backward,
        Phase::Optimizer,
        Phase::Callbacks,
        Phase::ModuleHooks,
        Phase::Logging,
        Phase::Checkpoints,
        Phase::Loop,
    ];

    /// The phase that an action belongs to; `None` for that of the action around it.
    pub(super) fn of(action: &str) -> Option<Phase> {
        if action.starts_with("[Callback]") {
            return Some(Phase::Callbacks);
        }
        let name = action.rsplit('.').next().unwrap_or(action);
        let is_hook = action.starts_with("[LightningModule]");
        match name {
            "log_metrics" => Some(Phase::Logging),
            "save_checkpoint" => Some(Phase::Checkpoints),
            "optimizer_step" => Some(Phase::Optimizer),
            _ if action.starts_with('[') && name.ends_with("_next") => Some(Phase::DataWait),
            "training_step" | "validation_step" | "test_step" | "predict_step" if action.starts_with("[Strategy]") => {
                Some(Phase::Forward)
            }
            "backward" if action.starts_with("[Strategy]") => Some(Phase::Backward),
            "batch_to_device" if action.starts_with("[Strategy]") => Some(Phase::Transfer),
            "on_before_batch_transfer" | "transfer_batch_to_device" | "on_after_batch_transfer" if is_hook => {
                Some(Phase::Transfer)
            }
            "optimizer_zero_grad" | "configure_gradient_clipping" | "lr_scheduler_step" if is_hook => {
                Some(Phase::Optimizer)
            }
            _ => is_hook.then_some(Phase::ModuleHooks),
        }
    }

    /// Its name in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::DataWait => "data wait",
            Phase::Transfer => "batch transfer",
            Phase::Forward => "forward",
            Phase::Backward => "backward",
            Phase::Optimizer => "optimizer",
            Phase::Callbacks => "callbacks",
            Phase::ModuleHooks => "module hooks",
            Phase::Logging => "logging",
            Phase::Checkpoints => "checkpoints",
            Phase::Loop => "loop",
        }
    }
}
