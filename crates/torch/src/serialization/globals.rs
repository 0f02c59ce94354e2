//! The closed list of names that a checkpoint may mention.

use super::dtype::{self, Dtype};
use crate::error::TorchError;
use crate::printable_in_line;

/// A name in a pickle, and what it stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    /// A class that is a dict.
    Dict,
    /// A class that is only attributes.
    Namespace,
    /// `set`.
    Set,
    /// `torch.Size`.
    Size,
    /// `torch.device`.
    Device,
    /// `bytearray`.
    ByteArray,
    /// `_codecs.encode`: how protocol 2 writes bytes.
    Encode,
    /// `torch.float32` and its like.
    Dtype(&'static Dtype),
    /// `torch.FloatStorage` and its like.
    TypedStorage(&'static Dtype),
    /// `torch.storage.UntypedStorage`.
    UntypedStorage,
    /// `torch.Tensor` and `Parameter`, where a type is an argument.
    TensorClass,
    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])`.
    RebuildTensorV2,
    /// `_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])`.
    RebuildTensorV3,
    /// `_rebuild_parameter(tensor, requires_grad, hooks)`, also with a state at the end.
    RebuildParameter,
    /// `_rebuild_from_type_v2(function, class, arguments, state)`.
    RebuildFromType,
}

impl Global {
    pub(super) fn named(module: &str, name: &str) -> Result<Global, TorchError> {
        let known = match (module, name) {
            ("collections", "OrderedDict" | "Counter") => Global::Dict,
            // What Lightning saved hyper-parameters as, under the names that its packages have had.
            (
                "lightning.fabric.utilities.data"
                | "lightning_fabric.utilities.data"
                | "lightning.pytorch.utilities.parsing"
                | "pytorch_lightning.utilities.parsing",
                "AttributeDict",
            ) => Global::Dict,
            ("argparse", "Namespace") => Global::Namespace,
            ("builtins" | "__builtin__", "set") => Global::Set,
            ("builtins" | "__builtin__", "bytearray") => Global::ByteArray,
            ("_codecs", "encode") => Global::Encode,
            ("torch", "Size") => Global::Size,
            ("torch", "device") => Global::Device,
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter") => Global::TensorClass,
            ("torch.storage", "UntypedStorage") => Global::UntypedStorage,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensorV2,
            ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
            ("torch", name) => match (dtype::of_storage(name), dtype::of_name(name)) {
                (Some(dtype), _) => Global::TypedStorage(dtype),
                (_, Some(dtype)) => Global::Dtype(dtype),
                _ => return Err(unsupported(module, name)),
            },
            _ => return Err(unsupported(module, name)),
        };
        Ok(known)
    }
}

fn unsupported(module: &str, name: &str) -> TorchError {
    let shown = |text: &str| printable_in_line(&text.chars().take(80).collect::<String>()).into_owned();
    let (module, name) = (shown(module), shown(name));
    TorchError::UnsupportedCheckpoint {
        reason: format!(
            "it contains a `{module}.{name}`, which is not plain data and is never run; load it in Python and save it \
             again with dicts, lists, numbers, text and dense tensors in its place"
        ),
    }
}
