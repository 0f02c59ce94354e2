//! The names of precisions, as Lightning spells them.

use fulgurite_torch::tch::Device;

use super::{GradScaler, MixedPrecision, Precision, TruePrecision};
use crate::FabricError;

/// The names of precisions.
pub const NAMES: &[&str] = &["16-mixed", "16-true", "32-true", "64-true", "bf16-mixed", "bf16-true"];

/// The precision that a name selects on a device.
pub struct Named {
    /// The precision.
    pub precision: Box<dyn Precision>,
    /// Warnings for the user about the choice, one sentence each.
    pub warnings: Vec<String>,
}

/// The precision of a name, for a run on `device`: one of [`NAMES`], or Lightning's older `16`, `bf16`, `32` and `64`.
///
/// As in Lightning, `16-mixed` on a CPU is `bf16-mixed`, with a warning.
///
/// # Errors
///
/// Fails if the name is unknown; the message suggests the nearest name.
pub fn precision(name: &str, device: Device) -> Result<Named, FabricError> {
    let mut warnings = Vec::new();
    let canonical = match name {
        "16" => "16-mixed",
        "bf16" => "bf16-mixed",
        "32" => "32-true",
        "64" => "64-true",
        name => name,
    };
    if matches!(name, "16" | "bf16") {
        warnings.push(format!("precision `{name}` is a deprecated name of `{canonical}`; write `{canonical}`"));
    }
    let precision: Box<dyn Precision> = match canonical {
        "16-mixed" if device == Device::Cpu => {
            warnings.push(
                "precision `16-mixed` is not supported on CPUs, so `bf16-mixed` is used instead; write `bf16-mixed`, or use a GPU"
                    .into(),
            );
            Box::new(MixedPrecision::bf16())
        }
        "16-mixed" => Box::new(MixedPrecision::fp16(GradScaler::default())),
        "bf16-mixed" => Box::new(MixedPrecision::bf16()),
        "16-true" => Box::new(TruePrecision::FP16),
        "bf16-true" => Box::new(TruePrecision::BF16),
        "32-true" => Box::new(TruePrecision::FP32),
        "64-true" => Box::new(TruePrecision::FP64),
        _ => return Err(FabricError::Unknown { what: "precision", given: name.into(), known: NAMES }),
    };
    Ok(Named { precision, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(name: &str, device: Device, expected: &str, warnings: &[&str]) {
        let named = precision(name, device).unwrap();
        assert_eq!(named.precision.name(), expected);
        assert_eq!(named.warnings, warnings);
    }

    #[test]
    fn names_and_old_names() {
        for name in NAMES {
            is(name, Device::Cuda(0), name, &[]);
        }
        is("32", Device::Cpu, "32-true", &[]);
        is("64", Device::Cpu, "64-true", &[]);
        let old = "precision `16` is a deprecated name of `16-mixed`; write `16-mixed`";
        is("16", Device::Cuda(0), "16-mixed", &[old]);
        is(
            "bf16",
            Device::Cpu,
            "bf16-mixed",
            &["precision `bf16` is a deprecated name of `bf16-mixed`; write `bf16-mixed`"],
        );
        let not_here = "precision `16-mixed` is not supported on CPUs, so `bf16-mixed` is used instead; write `bf16-mixed`, or use a GPU";
        is("16-mixed", Device::Cpu, "bf16-mixed", &[not_here]);
        is("16", Device::Cpu, "bf16-mixed", &[old, not_here]);
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let error = |name: &str| precision(name, Device::Cpu).map(|_| ()).unwrap_err().to_string();
        let all = "choose one of 16-mixed, 16-true, 32-true, 64-true, bf16-mixed, bf16-true";
        assert_eq!(error("bf16-mixd"), format!("unknown precision `bf16-mixd`; did you mean `bf16-mixed`? Else {all}"));
        assert_eq!(error("fp16"), format!("unknown precision `fp16`; did you mean `16-mixed`? Else {all}"));
        assert_eq!(error("float32"), format!("unknown precision `float32`; did you mean `32-true`? Else {all}"));
        assert_eq!(error("zzz"), format!("unknown precision `zzz`; {all}"));
    }
}
