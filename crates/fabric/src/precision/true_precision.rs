//! [`TruePrecision`]: a single kind for parameters, inputs and operations.

use fulgurite_torch::params;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Kind;

use super::Precision;
use crate::FabricError;

/// Parameters, inputs and operations of one kind: `16-true`, `bf16-true`, `32-true` and `64-true`.
///
/// Unlike Lightning, it does not change PyTorch's default dtype during steps: the default applies to the whole process, so
/// that data workers, which are threads, would observe the change, and `tch` specifies the kind of every tensor it creates.
#[derive(Debug, Clone, Copy)]
pub struct TruePrecision {
    name: &'static str,
    kind: Kind,
}

impl TruePrecision {
    /// `16-true`.
    pub const FP16: TruePrecision = TruePrecision { name: "16-true", kind: Kind::Half };
    /// `bf16-true`.
    pub const BF16: TruePrecision = TruePrecision { name: "bf16-true", kind: Kind::BFloat16 };
    /// `32-true`.
    pub const FP32: TruePrecision = TruePrecision { name: "32-true", kind: Kind::Float };
    /// `64-true`.
    pub const FP64: TruePrecision = TruePrecision { name: "64-true", kind: Kind::Double };
}

impl Precision for TruePrecision {
    fn name(&self) -> &'static str {
        self.name
    }

    fn state_key(&self) -> &'static str {
        match self.kind {
            Kind::Float => "Precision",
            Kind::Double => "DoublePrecision",
            _ => "HalfPrecision",
        }
    }

    /// `32-true` converts nothing: a module that creates tensors of another kind does so intentionally.
    fn input_kind(&self) -> Option<Kind> {
        (self.kind != Kind::Float).then_some(self.kind)
    }

    fn init_kind(&self) -> Kind {
        self.kind
    }

    fn convert_module(&self, vars: &dyn Parameters) -> Result<(), FabricError> {
        match self.input_kind() {
            Some(kind) => Ok(params::to_kind(vars, kind)?),
            None => Ok(()),
        }
    }
}
