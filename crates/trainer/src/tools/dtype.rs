//! PyTorch's names of kinds.

use fulgurite_torch::tch::Kind;

/// PyTorch's name of a kind, without `torch.`.
pub(super) fn dtype_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "float32",
        Kind::Double => "float64",
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Int64 => "int64",
        Kind::Int => "int32",
        Kind::Int16 => "int16",
        Kind::Int8 => "int8",
        Kind::Uint8 => "uint8",
        Kind::Bool => "bool",
        Kind::ComplexFloat => "complex64",
        Kind::ComplexDouble => "complex128",
        Kind::ComplexHalf => "complex32",
        Kind::Float8e5m2 => "float8_e5m2",
        Kind::Float8e4m3fn => "float8_e4m3fn",
        Kind::Float8e5m2fnuz => "float8_e5m2fnuz",
        Kind::Float8e4m3fnuz => "float8_e4m3fnuz",
        Kind::QInt8 => "qint8",
        Kind::QUInt8 => "quint8",
        Kind::QInt32 => "qint32",
    }
}

/// The floating-point kind of a name, as PyTorch or the trainer's `precision` spells it.
pub(super) fn parse_dtype(name: &str) -> Result<Kind, String> {
    match name {
        "fp32" | "float32" | "float" => Ok(Kind::Float),
        "fp64" | "float64" | "double" => Ok(Kind::Double),
        "fp16" | "float16" | "half" => Ok(Kind::Half),
        "bf16" | "bfloat16" => Ok(Kind::BFloat16),
        _ => Err("choose float64, float32, bfloat16 (bf16) or float16 (fp16)".into()),
    }
}
