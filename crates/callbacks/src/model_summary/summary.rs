//! [`Summary`]: the modules and parameters of a model.

use fulgurite_engine::config::Maximum;

/// The modules and parameters of a model; its `Display` is the table printed by [`ModelSummary`](super::ModelSummary).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The modules down to `max_depth`, parents before children.
    pub layers: Vec<LayerSummary>,
    /// Number of parameters that belong to no module, because their names have no dot.
    pub other_parameters: u64,
    /// Total number of parameters, each counted once.
    pub total_parameters: u64,
    /// Number of trainable parameters.
    pub trainable_parameters: u64,
    /// Size of all parameters in megabytes.
    pub model_size: f64,
    /// Number of modules in training mode.
    pub modules_in_train_mode: u64,
    /// Number of modules in evaluation mode.
    pub modules_in_eval_mode: u64,
    /// Floating-point operations of the example pass, if the module has one.
    pub total_flops: Option<u64>,
    pub(super) max_depth: Maximum,
}

/// One module of a [`Summary`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LayerSummary {
    /// Its dotted name.
    pub name: String,
    /// The type of the PyTorch layer, such as `Conv2d`: what the layer says, or what its operation or the shapes of its
    /// parameters tell.
    pub layer_type: Option<String>,
    /// Number of its parameters, including nested modules.
    pub num_parameters: u64,
    /// Whether it is in training mode: by its own mode, or else those of the layers in it, or else that of what it is in.
    pub is_training: bool,
    /// Whether it has parameters and none of them requires a gradient.
    pub is_frozen: bool,
    /// Floating-point operations of the example pass in it, if the module has one.
    pub flops: Option<u64>,
    /// The shape of the input.
    pub in_size: Option<Vec<i64>>,
    /// The shape of the output.
    pub out_size: Option<Vec<i64>>,
}
