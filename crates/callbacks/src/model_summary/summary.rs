//! [`Summary`]: what a model consists of.

/// What a model consists of; its `Display` is the table that [`ModelSummary`](super::ModelSummary) prints.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The modules down to `max_depth`, each before what it consists of.
    pub layers: Vec<LayerSummary>,
    /// Elements of parameters that belong to no module, because their names have no dot.
    pub other_parameters: u64,
    /// Elements of all parameters, each counted once.
    pub total_parameters: u64,
    /// Elements of parameters that require a gradient.
    pub trainable_parameters: u64,
    /// Memory of all parameters, in millions of bytes.
    pub model_size: f64,
    /// Modules at any depth that are in training mode: all, as a summary is made of a module that is about to train.
    pub modules_in_train_mode: u64,
    /// Modules at any depth that are in evaluation mode.
    pub modules_in_eval_mode: u64,
    /// Floating-point operations of the example pass, if the module has one.
    pub total_flops: Option<u64>,
    pub(super) max_depth: i64,
}

/// One module of a [`Summary`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LayerSummary {
    /// Its dotted name.
    pub name: String,
    /// Its type in PyTorch's words, such as `Conv2d`, where it can be told.
    pub layer_type: Option<String>,
    /// Elements of its parameters, with those of the modules in it.
    pub num_parameters: u64,
    /// Whether it has parameters, and none of them requires a gradient.
    pub is_frozen: bool,
    /// Floating-point operations of the example pass in it, if the module has one.
    pub flops: Option<u64>,
    /// The shape of what went in.
    pub in_size: Option<Vec<i64>>,
    /// The shape of what came out.
    pub out_size: Option<Vec<i64>>,
}
