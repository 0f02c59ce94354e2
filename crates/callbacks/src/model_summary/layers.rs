//! Modules by what layers say of themselves and by parameter names, and the operations of an example pass.

use std::collections::{BTreeMap, HashMap, HashSet};

use fulgurite_engine::config::Maximum;
use fulgurite_torch::flops::op_flops;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::params::{named_buffers, named_parameters, tied_names};
use fulgurite_torch::record::{Argument, OpRecord, TensorRecord};
use fulgurite_torch::storage_id;
use fulgurite_torch::tch::Tensor;

use super::summary::{LayerSummary, Summary};

/// A parameter or buffer, and one of its names.
struct Variable {
    name: String,
    tensor: Tensor,
    is_parameter: bool,
}

impl Variable {
    /// The name of its module; empty for none.
    fn module(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(module, _)| module)
    }

    fn is_in(&self, module: &str) -> bool {
        contains(module, self.module())
    }

    fn numel(&self) -> u64 {
        self.tensor.numel() as u64
    }
}

/// Whether a module is another one or nested in it. Everything is in the root, whose name is empty.
fn contains(outer: &str, inner: &str) -> bool {
    match inner.strip_prefix(outer) {
        Some(rest) => outer.is_empty() || rest.is_empty() || rest.starts_with('.'),
        None => false,
    }
}

/// The parameters in their order, then the buffers, then further names of parameters.
fn variables(vars: &dyn Parameters) -> Vec<Variable> {
    let of = |is_parameter| move |(name, tensor)| Variable { name, tensor, is_parameter };
    let mut all: Vec<_> = named_parameters(vars).into_iter().map(of(true)).collect();
    all.extend(named_buffers(vars).into_iter().map(of(false)));
    all.extend(tied_names(vars).into_iter().map(of(true)));
    all
}

pub(super) fn summarize(vars: &dyn Parameters, ops: Option<&[OpRecord]>, max_depth: Maximum) -> Summary {
    let variables = variables(vars);
    let named = vars.named_tensors();
    let said = Said {
        modes: named.modes().map(|(name, mode)| (name, mode.is_training())).collect(),
        types: named.layer_types().map(|(name, layer_type)| (name, layer_type.as_str())).collect(),
    };
    let modules = modules(&variables, &said.types);
    let pass = ops.map(|ops| Pass::new(ops, &variables));
    let in_eval_mode = modules.iter().filter(|module| !is_training(module, &said.modes)).count() as u64;
    let is_shown = |module: &&String| max_depth.allows(module.split('.').count() as u64);
    let make = |module: &String| layer(module, &modules, &said, &variables, pass.as_ref());
    let layers = modules.iter().filter(is_shown).map(make);
    let (total, trainable, bytes) = totals(&variables);
    Summary {
        layers: layers.collect(),
        other_parameters: count(variables.iter().filter(|variable| variable.module().is_empty())),
        total_parameters: total,
        trainable_parameters: trainable,
        model_size: bytes as f64 * 1e-6,
        modules_in_train_mode: modules.len() as u64 - in_eval_mode,
        modules_in_eval_mode: in_eval_mode,
        total_flops: pass.map(|pass| pass.flops_in("")),
        max_depth,
    }
}

/// What layers say of themselves, by their names.
struct Said<'a> {
    /// Whether it trains.
    modes: Vec<(&'a str, bool)>,
    types: Vec<(&'a str, &'a str)>,
}

/// Whether a module trains, by the modes that layers have. Most layers have none.
fn is_training(module: &str, modes: &[(&str, bool)]) -> bool {
    let own = || modes.iter().find(|(name, _)| *name == module).map(|(_, trains)| *trains);
    let inside =
        || modes.iter().filter(|(name, _)| contains(module, name)).map(|(_, trains)| *trains).reduce(|a, b| a || b);
    let around = modes.iter().filter(|(name, _)| contains(name, module)).max_by_key(|(name, _)| name.len());
    own().or_else(inside).or(around.map(|(_, trains)| *trains)).unwrap_or(true)
}

/// Every module at every depth, before what it consists of, siblings in the order they were made.
fn modules(variables: &[Variable], types: &[(&str, &str)]) -> Vec<String> {
    let mut modules = Vec::new();
    collect_modules("", &places(variables, types), &mut modules);
    modules
}

/// The modules of all variables, and the layers that say what they are, in the order they were made: both are, so the layers
/// between two that have variables come between them.
fn places<'a>(variables: &'a [Variable], types: &[(&'a str, &str)]) -> Vec<&'a str> {
    let mut layers = types.iter().map(|(name, _)| *name);
    let mut places = Vec::new();
    for module in variables.iter().map(Variable::module) {
        if !places.contains(&module) && layers.clone().any(|layer| layer == module) {
            places.extend(layers.by_ref().take_while(|layer| *layer != module));
        }
        places.push(module);
    }
    places.extend(layers);
    places
}

fn collect_modules(parent: &str, places: &[&str], modules: &mut Vec<String>) {
    let begun = modules.len();
    for place in places {
        let Some(rest) = place.strip_prefix(parent).filter(|rest| !rest.is_empty()) else { continue };
        let child = rest.split_once('.').map_or(rest, |(child, _)| child);
        let module = format!("{parent}{child}");
        if !modules[begun..].contains(&module) {
            modules.push(module.clone());
            collect_modules(&format!("{module}."), places, modules);
        }
    }
}

fn layer(
    module: &str,
    modules: &[String],
    said: &Said<'_>,
    variables: &[Variable],
    pass: Option<&Pass>,
) -> LayerSummary {
    let own = || variables.iter().filter(|variable| variable.is_in(module));
    let is_leaf = !modules.iter().any(|other| other != module && contains(module, other));
    let mut parameters = own().filter(|variable| variable.is_parameter).peekable();
    let has_parameters = parameters.peek().is_some();
    let is_frozen = has_parameters && !parameters.any(|variable| variable.tensor.requires_grad());
    let first = pass.and_then(|pass| pass.uses_in(module).next());
    let last = pass.and_then(|pass| if is_leaf { first } else { pass.uses_in(module).last() });
    let layer_type =
        said.types.iter().rev().find(|(name, _)| *name == module).map(|(_, layer_type)| (*layer_type).to_owned());
    let guessed = || match first {
        _ if !is_leaf => None,
        Some(used) => used.layer_type.clone(),
        None => type_of_shapes(module, variables),
    };
    LayerSummary {
        name: module.to_owned(),
        layer_type: layer_type.or_else(guessed),
        num_parameters: count(own()),
        is_training: is_training(module, &said.modes),
        is_frozen,
        flops: pass.map(|pass| pass.flops_in(module)),
        in_size: first.and_then(|used| used.in_size.clone()),
        out_size: last.and_then(|used| used.out_size.clone()),
    }
}

/// Identifies parameters that may be views of one another: tied ones start at the same address.
fn memory(tensor: &Tensor) -> (usize, usize) {
    (tensor.data_ptr() as usize, tensor.numel())
}

/// The elements of the parameters among `variables`, tied ones once.
fn count<'a>(variables: impl Iterator<Item = &'a Variable>) -> u64 {
    let mut seen = HashSet::new();
    let parameters = variables.filter(|variable| variable.is_parameter);
    parameters.filter(|variable| seen.insert(memory(&variable.tensor))).map(Variable::numel).sum()
}

/// Elements of all parameters, elements of those that require a gradient, and bytes of all.
fn totals(variables: &[Variable]) -> (u64, u64, u64) {
    let mut seen = HashSet::new();
    let (mut total, mut trainable, mut bytes) = (0, 0, 0);
    for variable in variables.iter().filter(|variable| variable.is_parameter) {
        if seen.insert(memory(&variable.tensor)) {
            total += variable.numel();
            trainable += if variable.tensor.requires_grad() { variable.numel() } else { 0 };
            bytes += variable.numel() * variable.tensor.kind().elt_size_in_bytes() as u64;
        }
    }
    (total, trainable, bytes)
}

/// A use of a layer.
struct Use {
    module: String,
    layer_type: Option<String>,
    in_size: Option<Vec<i64>>,
    out_size: Option<Vec<i64>>,
}

/// The operations of an example pass, per module.
struct Pass {
    uses: Vec<Use>,
    /// By the innermost module they belong to.
    flops: BTreeMap<String, u64>,
}

impl Pass {
    fn new(ops: &[OpRecord], variables: &[Variable]) -> Pass {
        let owners = Owners::new(variables);
        let mut uses = Vec::new();
        let mut flops = BTreeMap::new();
        // Operations without parameters are assigned once the next layer is known.
        let mut waiting = 0;
        let mut before: Option<String> = None;
        let mut times_used = HashMap::new();
        for (op, cost) in outermost(ops) {
            let Some(module) = owners.module(op, &mut times_used) else {
                waiting += cost;
                continue;
            };
            let between = before.as_deref().map_or("", |before| common(before, &module));
            *flops.entry(between.to_owned()).or_insert(0) += std::mem::take(&mut waiting);
            *flops.entry(module.clone()).or_insert(0) += cost;
            before = Some(module.clone());
            uses.push(Use {
                layer_type: type_of_op(op),
                in_size: owners.first_input(op),
                out_size: op.output_shape(0).map(<[i64]>::to_vec),
                module,
            });
        }
        *flops.entry(String::new()).or_insert(0) += waiting;
        Pass { uses, flops }
    }

    fn uses_in(&self, module: &str) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(move |used| contains(module, &used.module))
    }

    fn flops_in(&self, module: &str) -> u64 {
        self.flops.iter().filter(|(inner, _)| contains(module, inner)).map(|(_, flops)| flops).sum()
    }
}

/// The top-level operations, each with the cost of the operations it called.
fn outermost(ops: &[OpRecord]) -> Vec<(&OpRecord, u64)> {
    let mut found: Vec<(&OpRecord, u64)> = Vec::new();
    for op in ops {
        if op.parent.is_none() {
            found.push((op, 0));
        }
        // Operations since then belong to the last top-level one: one thread runs the pass.
        if let Some((_, cost)) = found.last_mut() {
            *cost += op_flops(op);
        }
    }
    found
}

/// The innermost module that contains both.
fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let mut shared = a;
    while !contains(shared, b) {
        shared = shared.rsplit_once('.').map_or("", |(outer, _)| outer);
    }
    shared
}

/// The modules that own a storage, ordered by name.
struct Owners<'a>(HashMap<usize, Vec<&'a str>>);

impl<'a> Owners<'a> {
    fn new(variables: &'a [Variable]) -> Owners<'a> {
        let mut owners: HashMap<usize, Vec<&str>> = HashMap::new();
        for variable in variables {
            if let Ok(storage) = storage_id(&variable.tensor) {
                let modules = owners.entry(storage).or_default();
                if !modules.contains(&variable.module()) {
                    modules.push(variable.module());
                }
            }
        }
        Owners(owners)
    }

    fn of(&self, tensor: &TensorRecord) -> Option<&Vec<&'a str>> {
        self.0.get(&tensor.storage_id)
    }

    /// The module whose parameter an operation uses. An operation that only takes a view of a parameter uses none. Tied
    /// parameters are assigned to their modules in turn.
    fn module(&self, op: &OpRecord, times_used: &mut HashMap<usize, usize>) -> Option<String> {
        let inputs = op.input_tensors();
        let used = inputs.iter().find(|tensor| self.of(tensor).is_some())?;
        let outputs = op.output_tensors();
        if !outputs.is_empty() && outputs.iter().all(|output| self.of(output).is_some()) {
            return None;
        }
        let modules = self.of(used)?;
        let times = times_used.entry(used.storage_id).or_insert(0);
        let module = modules.get(*times).or(modules.last())?;
        *times += 1;
        Some((*module).to_owned())
    }

    /// The shape of the first input that is not a parameter.
    fn first_input(&self, op: &OpRecord) -> Option<Vec<i64>> {
        op.input_tensors().into_iter().find(|tensor| self.of(tensor).is_none()).map(|tensor| tensor.shape.clone())
    }
}

/// The PyTorch layer that runs an operation.
fn type_of_op(op: &OpRecord) -> Option<String> {
    let spatial = |index: usize| op.input_shape(index).map(|shape| shape.len().saturating_sub(2));
    let name = match op.name.strip_prefix("aten::")? {
        "linear" | "addmm" | "matmul" | "mm" => "Linear",
        "bilinear" => "Bilinear",
        "embedding" => "Embedding",
        "embedding_bag" => "EmbeddingBag",
        "conv1d" => "Conv1d",
        "conv2d" => "Conv2d",
        "conv3d" => "Conv3d",
        "conv_transpose1d" => "ConvTranspose1d",
        "conv_transpose2d" => "ConvTranspose2d",
        "conv_transpose3d" => "ConvTranspose3d",
        "convolution" | "_convolution" => {
            let transposed = matches!(op.inputs.get(6), Some(Argument::Bool(true)));
            return Some(format!("Conv{}{}d", if transposed { "Transpose" } else { "" }, spatial(1)?));
        }
        "batch_norm" => return Some(format!("BatchNorm{}d", spatial(0)?.max(1))),
        "instance_norm" => return Some(format!("InstanceNorm{}d", spatial(0)?.max(1))),
        "layer_norm" => "LayerNorm",
        "group_norm" => "GroupNorm",
        "rms_norm" => "RMSNorm",
        "lstm" => "LSTM",
        "gru" => "GRU",
        "rnn_tanh" | "rnn_relu" => "RNN",
        "lstm_cell" => "LSTMCell",
        "gru_cell" => "GRUCell",
        "prelu" => "PReLU",
        _ => return None,
    };
    Some(name.to_owned())
}

/// The PyTorch layer with such parameters, if there is only one.
fn type_of_shapes(module: &str, variables: &[Variable]) -> Option<String> {
    let find = |name: &str| variables.iter().find(|v| v.module() == module && v.name.ends_with(&format!(".{name}")));
    if find("running_mean").is_some() {
        return Some("BatchNorm".to_owned());
    }
    let (weight, bias) = (find("weight")?.tensor.size(), find("bias")?.tensor.size());
    match (weight.len(), bias.first()) {
        (2, Some(bias)) if weight[0] == *bias => Some("Linear".to_owned()),
        (dims @ 3..=5, Some(bias)) if weight[0] == *bias && weight[1] != *bias => Some(format!("Conv{}d", dims - 2)),
        (dims @ 3..=5, Some(bias)) if weight[1] == *bias && weight[0] != *bias => {
            Some(format!("ConvTranspose{}d", dims - 2))
        }
        _ => None,
    }
}
