//! [`Kind`]: the kind of a class.

use fulgurite_fabric::removed::{self, Place};

/// The kind of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Callback,
    Logger,
    Optimizer,
    Scheduler,
    Plugin,
    Profiler,
    Strategy,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] =
        [Kind::Callback, Kind::Logger, Kind::Optimizer, Kind::Scheduler, Kind::Plugin, Kind::Profiler, Kind::Strategy];

    /// Where classes occur in a configuration.
    pub(super) const PLACES: [(&'static [&'static str], Kind); 7] = [
        (&["optimizer"], Kind::Optimizer),
        (&["lr_scheduler"], Kind::Scheduler),
        (&["trainer", "callbacks"], Kind::Callback),
        (&["trainer", "logger"], Kind::Logger),
        (&["trainer", "strategy"], Kind::Strategy),
        (&["trainer", "plugins"], Kind::Plugin),
        (&["trainer", "profiler"], Kind::Profiler),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Callback => "callback",
            Kind::Logger => "logger",
            Kind::Optimizer => "optimizer",
            Kind::Scheduler => "lr_scheduler",
            Kind::Plugin => "plugin",
            Kind::Profiler => "profiler",
            Kind::Strategy => "strategy",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Kind::Callback => "callbacks",
            Kind::Logger => "loggers",
            Kind::Optimizer => "optimizers",
            Kind::Scheduler => "lr_schedulers",
            Kind::Plugin => "plugins",
            Kind::Profiler => "profilers",
            Kind::Strategy => "strategies",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The replacement of a removed Lightning class.
    pub(super) fn removed_hint(self, class_path: &str) -> Option<&'static str> {
        let place = match self {
            Kind::Callback => Place::Callback,
            Kind::Logger => Place::Logger,
            Kind::Plugin => Place::Plugin,
            Kind::Strategy => Place::Strategy,
            Kind::Optimizer | Kind::Scheduler | Kind::Profiler => return None,
        };
        removed::hint(place, class_path)
    }

    /// Classes of Lightning, or of a cargo feature, that this version does not have.
    pub(super) fn elsewhere(self) -> &'static [&'static str] {
        match self {
            Kind::Callback => &["LambdaCallback"],
            Kind::Logger => &["CometLogger", "LitLogger", "MLFlowLogger", "TrackioLogger", "WandbLogger"],
            Kind::Plugin => &[
                "AsyncCheckpointIO",
                "KubeflowEnvironment",
                "LSFEnvironment",
                "LightningEnvironment",
                "MPIEnvironment",
                "MixedPrecision",
                "TorchCheckpointIO",
                "TorchElasticEnvironment",
                "TorchSyncBatchNorm",
            ],
            Kind::Strategy => &[
                "DeepSpeedStrategy",
                "FSDPStrategy",
                "ModelParallelStrategy",
                "SingleDeviceXLAStrategy",
                "XLAStrategy",
            ],
            Kind::Profiler => &["XLAProfiler"],
            Kind::Optimizer | Kind::Scheduler => &[],
        }
    }
}
