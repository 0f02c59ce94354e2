//! [`TruePrecision`]: one kind for everything.

use fulgurite_torch::params;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Kind;

use super::Precision;
use crate::FabricError;

/// Parameters, inputs and operations of one kind: `16-true`, `bf16-true`, `32-true` and `64-true`.
///
/// Lightning also switches PyTorch's default kind during steps. Here it stays: it is the whole process's, so that
/// data workers, which are threads, would see it change at random, and `tch` names the kind of every tensor it makes.
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

    /// In 32 bits everything is left as it is: what the module makes in another kind, it means to.
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
