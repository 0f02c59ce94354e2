//! Deprecated and removed names of Lightning, each with a hint what to write instead.

/// What a name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// An accelerator.
    Accelerator,
    /// A strategy, or its class.
    Strategy,
    /// An argument of the trainer.
    Argument,
    /// The class of a callback.
    Callback,
    /// The class of a logger.
    Logger,
    /// The class of a plugin.
    Plugin,
}

/// Why Lightning renamed or removed a name, and what to write instead. `None` for all other names.
///
/// ```
/// use fulgurite_fabric::removed::{self, Place};
///
/// assert_eq!(removed::hint(Place::Strategy, "horovod"), Some("Lightning 2.0 removed Horovod; write `ddp`"));
/// assert_eq!(removed::hint(Place::Strategy, "ddp"), None);
/// ```
pub fn hint(place: Place, name: &str) -> Option<&'static str> {
    let name = name.rsplit('.').next().unwrap_or(name);
    // `ddp_sharded_find_unused_parameters_false`.
    let name = name.split("_find_unused").next().unwrap_or(name);
    let tables: &[&[Names]] = match place {
        Place::Accelerator => &[ACCELERATORS],
        // Strategies used to be plugins.
        Place::Strategy | Place::Plugin => &[STRATEGIES, PLUGINS],
        Place::Argument => &[ARGUMENTS],
        Place::Callback => &[CALLBACKS],
        Place::Logger => &[LOGGERS],
    };
    let is_meant = |(names, _): &&Names| names.iter().any(|held| held.eq_ignore_ascii_case(name));
    tables.iter().copied().flatten().find(is_meant).map(|(_, hint)| *hint)
}

/// Names with the same hint.
type Names = (&'static [&'static str], &'static str);

const ACCELERATORS: &[Names] = &[
    (&["ipu"], "IPUs left Lightning for the package lightning-graphcore; write `cpu`, `cuda` or `mps`"),
    (&["hpu"], "Lightning 2.5 removed HPUs with the package lightning-habana; write `cpu`, `cuda` or `mps`"),
    (
        &[
            "ddp",
            "ddp_spawn",
            "ddp2",
            "ddp_cpu",
            "dp",
            "horovod",
            "ddp_sharded",
            "ddp_sharded_spawn",
            "tpu_spawn",
            "fsdp",
        ],
        "since Lightning 1.7 the accelerator is a kind of device only; write the name as `strategy`, and `cpu` or `gpu` here",
    ),
];

const STRATEGIES: &[Names] = &[
    (&["horovod", "HorovodStrategy", "HorovodPlugin"], "Lightning 2.0 removed Horovod; write `ddp`"),
    (&["bagua", "BaguaStrategy"], "Lightning 2.3 removed Bagua; write `ddp`"),
    (
        &["colossalai", "ColossalAIStrategy"],
        "Lightning 2.0 moved ColossalAI to the package lightning-colossalai; write `ddp` for a model that fits on a device",
    ),
    (
        &["hivemind", "collaborative", "HivemindStrategy", "CollaborativeStrategy"],
        "Lightning 2.0 moved Hivemind to the package lightning-hivemind; write `ddp` for machines that stay for the whole run",
    ),
    (
        &["dp", "DataParallelStrategy", "DataParallelPlugin"],
        "Lightning 2.0 removed DataParallel, which had one process for all devices; write `ddp`, which has one for each",
    ),
    (&["ddp2", "DDP2Strategy", "DDP2Plugin"], "Lightning 1.8 removed it; write `ddp`"),
    (&["ddp_cpu"], "it is `ddp` with the accelerator `cpu`; write those"),
    (
        &[
            "ddp_sharded",
            "ddp_sharded_spawn",
            "fairscale",
            "DDPShardedStrategy",
            "DDPSpawnShardedStrategy",
            "DDPShardedPlugin",
            "DDPSpawnShardedPlugin",
        ],
        "Lightning 2.0 removed FairScale for `fsdp`, which this version does not have yet; write `ddp` for a model that fits \
         on a device",
    ),
    (
        &[
            "ddp_fully_sharded",
            "fsdp_native",
            "fsdp_native_full_shard_offload",
            "DDPFullyShardedStrategy",
            "DDPFullyShardedNativeStrategy",
            "DDPFullyShardedPlugin",
        ],
        "it is `fsdp` since Lightning 2.0, which this version does not have yet; write `ddp` for a model that fits on a \
         device",
    ),
    (
        &["tpu_spawn", "tpu_spawn_debug", "TPUSpawnStrategy", "TPUSpawnPlugin"],
        "it is `xla` since Lightning 2.0, which this version does not have yet; write `ddp` for other devices",
    ),
    (
        &["single_tpu", "SingleTPUStrategy", "SingleTPUPlugin"],
        "it is `single_xla` since Lightning 2.1, which this version does not have yet; write `single_device` for other \
         devices",
    ),
    (
        &["ipu_strategy", "IPUStrategy", "IPUPlugin"],
        "IPUs left Lightning for the package lightning-graphcore; write `ddp` or `single_device`",
    ),
    (
        &["hpu_parallel", "hpu_single", "HPUParallelStrategy", "SingleHPUStrategy", "HPUParallelPlugin"],
        "Lightning 2.5 removed HPUs with the package lightning-habana; write `ddp` or `single_device`",
    ),
    (
        &["DDPSpawnStrategy", "DDPSpawnPlugin"],
        "Lightning 2.0 made it an option of `DDPStrategy`, and a compiled program starts itself; write `ddp`",
    ),
    (&["DDPPlugin"], "it is `DDPStrategy` since Lightning 1.6; write `ddp` as strategy"),
    (&["SingleDevicePlugin"], "it is `SingleDeviceStrategy` since Lightning 1.6; write `single_device` as strategy"),
    (
        &["DeepSpeedPlugin"],
        "it is `DeepSpeedStrategy` since Lightning 1.6, which this version does not have yet; write `ddp` for a model that \
         fits on a device",
    ),
];

const MIXED: &str = "Lightning 2.0 replaced it by the argument `precision`; write `16-mixed` or `bf16-mixed` there";

const PLUGINS: &[Names] = &[
    (
        &[
            "NativeMixedPrecisionPlugin",
            "MixedPrecisionPlugin",
            "ApexMixedPrecisionPlugin",
            "ShardedNativeMixedPrecisionPlugin",
            "FullyShardedNativeMixedPrecisionPlugin",
            "ColossalAIPrecisionPlugin",
        ],
        MIXED,
    ),
    (&["DoublePrecisionPlugin"], "write `64-true` as `precision`"),
    (&["HalfPrecisionPlugin"], "write `16-true` or `bf16-true` as `precision`"),
    (&["PrecisionPlugin"], "write `32-true` as `precision`"),
    (
        &["TPUPrecisionPlugin", "TPUBf16PrecisionPlugin", "XLAPrecisionPlugin", "XLABf16PrecisionPlugin"],
        "it is `XLAPrecision` since Lightning 2.2, which this version does not have yet; write `precision`",
    ),
    (&["IPUPrecisionPlugin"], "IPUs left Lightning for the package lightning-graphcore; write `precision`"),
    (
        &["HPUPrecisionPlugin", "HPUCheckpointIO"],
        "Lightning 2.5 removed HPUs with the package lightning-habana; leave it out",
    ),
];

const CALLBACKS: &[Names] = &[
    (&["GPUStatsMonitor", "XLAStatsMonitor"], "Lightning 1.7 removed it; write `DeviceStatsMonitor`"),
    (&["QuantizationAwareTraining"], "Lightning 2.0 removed it; leave it out, and quantize the trained model"),
    (&["ProgressBarBase"], "it is `ProgressBar` since Lightning 2.0; write that"),
];

const LOGGERS: &[Names] = &[
    (&["TestTubeLogger"], "Lightning 1.7 removed it; write `TensorBoardLogger` or `CSVLogger`"),
    (
        &["NeptuneLogger"],
        "its service ended on 2026-03-05, and Lightning removed the logger; write `WandbLogger`, `MLFlowLogger`, `CometLogger` or `TrackioLogger`",
    ),
];

const ARGUMENTS: &[Names] = &[
    (&["gpus"], "Lightning 2.0 removed it; write `accelerator: gpu` and how many as `devices`"),
    (&["num_processes"], "Lightning 2.0 removed it; write `accelerator: cpu` and how many as `devices`"),
    (
        &["tpu_cores", "ipus", "hpus"],
        "Lightning 2.0 removed it; write a kind as `accelerator` and how many as `devices`",
    ),
    (&["auto_select_gpus"], "Lightning 2.0 removed it; write the devices' numbers as `devices`"),
    (&["resume_from_checkpoint"], "Lightning 2.0 removed it; write the file as `ckpt_path` of fit"),
    (&["amp_backend", "amp_level"], "Lightning 2.0 removed Apex; write `16-mixed` or `bf16-mixed` as `precision`"),
    (&["auto_lr_find"], "Lightning 2.0 removed it; add the callback `LearningRateFinder`, or run `tune`"),
    (&["auto_scale_batch_size"], "Lightning 2.0 removed it; add the callback `BatchSizeFinder`, or run `tune`"),
    (&["track_grad_norm"], "Lightning 2.0 removed it; add the callback `GradientNorm`"),
    (&["move_metrics_to_cpu"], "Lightning 2.0 removed it; leave it out: a metric keeps its sums, not its values"),
    (&["multiple_trainloader_mode"], "Lightning 2.0 removed it; give fit a `CombinedLoader` of that mode"),
    (&["replace_sampler_ddp"], "it is `use_distributed_sampler` since Lightning 2.0; write that"),
    (
        &["weights_summary"],
        "Lightning 1.7 removed it; write `enable_model_summary`, or add the callback `ModelSummary`",
    ),
    (&["checkpoint_callback"], "it is `enable_checkpointing` since Lightning 1.7; write that"),
    (
        &["progress_bar_refresh_rate", "process_position"],
        "Lightning 1.7 removed it; write `enable_progress_bar`, or add the callback `ProgressBar`",
    ),
    (&["flush_logs_every_n_steps"], "Lightning 1.7 removed it; write it as an option of the logger"),
    (&["stochastic_weight_avg"], "Lightning 1.7 removed it; add the callback `StochasticWeightAveraging`"),
    (&["terminate_on_nan"], "Lightning 1.7 removed it; write `detect_anomaly`, or add the callback `TerminateOnNaN`"),
    (&["prepare_data_per_node"], "Lightning 1.7 removed it; set it on the data module"),
    (&["reload_dataloaders_every_epoch"], "it is `reload_dataloaders_every_n_epochs` since Lightning 1.6; write that"),
    (&["log_gpu_memory"], "Lightning 1.7 removed it; add the callback `DeviceStatsMonitor`"),
    (&["truncated_bptt_steps"], "Lightning 2.0 removed it; cut sequences in the module, with manual optimization"),
    (&["weights_save_path"], "Lightning 1.8 removed it; write it as `dirpath` of the callback `ModelCheckpoint`"),
    (&["distributed_backend"], "Lightning 1.5 removed it; write it as `strategy`"),
    (&["row_log_interval"], "it is `log_every_n_steps` since Lightning 0.10; write that"),
    (&["log_save_interval"], "Lightning 1.7 removed it; write it as an option of the logger"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::Strategies;

    const ALL: [(Place, &[Names]); 6] = [
        (Place::Accelerator, ACCELERATORS),
        (Place::Strategy, STRATEGIES),
        (Place::Plugin, PLUGINS),
        (Place::Callback, CALLBACKS),
        (Place::Logger, LOGGERS),
        (Place::Argument, ARGUMENTS),
    ];

    #[test]
    fn every_name_says_what_to_do() {
        for (place, table) in ALL {
            for (names, hint) in table {
                let says = ["write", "leave it out", "add the", "give fit", "cut ", "data module"];
                assert!(says.iter().any(|words| hint.contains(words)), "{names:?}: {hint}");
                for name in *names {
                    assert_eq!(super::hint(place, name), Some(*hint), "{name} is there twice");
                }
            }
        }
    }

    #[test]
    fn names_that_are_there_have_no_hint() {
        for name in Strategies::names() {
            assert_eq!(hint(Place::Strategy, &name), None);
        }
        for name in ["auto", "cpu", "cuda", "gpu", "mps", "tpu"] {
            assert_eq!(hint(Place::Accelerator, name), None);
        }
    }

    #[test]
    fn spellings_of_one_name() {
        let removed = Some("Lightning 2.0 removed Horovod; write `ddp`");
        for name in ["horovod", "Horovod", "HorovodStrategy", "pytorch_lightning.strategies.HorovodStrategy"] {
            assert_eq!(hint(Place::Strategy, name), removed);
        }
        let sharded = hint(Place::Strategy, "ddp_sharded_spawn_find_unused_parameters_false");
        assert!(sharded.is_some_and(|hint| hint.starts_with("Lightning 2.0 removed FairScale")));
    }
}
