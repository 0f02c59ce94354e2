//! The pages of the guide, whose programs are compiled and run as tests.

macro_rules! pages {
    ($($(#[$only:meta])* $page:ident = $path:literal;)*) => {
        $($(#[$only])* #[doc = include_str!(concat!("../../../docs/src/", $path))] struct $page;)*
    };
}

pages! {
    GettingStarted = "getting-started.md";
    FromATchLoop = "from-a-tch-loop.md";
    FromLightning = "from-lightning.md";
    Module = "module.md";
    Layers = "nn.md";
    Data = "data.md";
    Datasets = "datasets.md";
    Images = "images.md";
    Text = "text.md";
    Tabular = "tabular.md";
    Logging = "logging.md";
    #[cfg(feature = "trackers")]
    Comet = "comet.md";
    #[cfg(feature = "trackers")]
    Mlflow = "mlflow.md";
    #[cfg(feature = "trackers")]
    Trackio = "trackio.md";
    #[cfg(feature = "trackers")]
    Wandb = "wandb.md";
    Metrics = "metrics.md";
    Optimization = "optimization.md";
    Precision = "precision.md";
    Callbacks = "callbacks.md";
    Checkpoints = "checkpoints.md";
    Resuming = "resuming.md";
    SeveralProcesses = "several-processes.md";
    Clusters = "clusters.md";
    ObjectStores = "object-stores.md";
    CheckpointFiles = "checkpoint-files.md";
    CommandLine = "command-line.md";
    Tuning = "tuning.md";
    Search = "search.md";
    Profiling = "profiling.md";
    Debugging = "debugging.md";
    Reproducibility = "reproducibility.md";
}
