//! How PyTorch's files name the kinds of elements.

use crate::tch::Kind;

/// One kind of element.
#[derive(Debug, PartialEq)]
pub(super) struct Dtype {
    pub(super) kind: Kind,
    /// The name under `torch.`.
    pub(super) name: &'static str,
    /// The class of typed storages; newer kinds have none, and are written as untyped bytes.
    pub(super) storage: Option<&'static str>,
    /// Bytes per element.
    pub(super) size: usize,
}

impl Dtype {
    /// Whether such elements can require a gradient.
    pub(super) fn is_differentiable(&self) -> bool {
        !matches!(self.kind, Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Int8 | Kind::Uint8 | Kind::Bool)
    }
}

const fn dtype(kind: Kind, name: &'static str, storage: Option<&'static str>, size: usize) -> Dtype {
    Dtype { kind, name, storage, size }
}

static DTYPES: [Dtype; 17] = [
    dtype(Kind::Float, "float32", Some("FloatStorage"), 4),
    dtype(Kind::Double, "float64", Some("DoubleStorage"), 8),
    dtype(Kind::Half, "float16", Some("HalfStorage"), 2),
    dtype(Kind::BFloat16, "bfloat16", Some("BFloat16Storage"), 2),
    dtype(Kind::Int64, "int64", Some("LongStorage"), 8),
    dtype(Kind::Int, "int32", Some("IntStorage"), 4),
    dtype(Kind::Int16, "int16", Some("ShortStorage"), 2),
    dtype(Kind::Int8, "int8", Some("CharStorage"), 1),
    dtype(Kind::Uint8, "uint8", Some("ByteStorage"), 1),
    dtype(Kind::Bool, "bool", Some("BoolStorage"), 1),
    dtype(Kind::ComplexFloat, "complex64", Some("ComplexFloatStorage"), 8),
    dtype(Kind::ComplexDouble, "complex128", Some("ComplexDoubleStorage"), 16),
    dtype(Kind::ComplexHalf, "complex32", None, 4),
    dtype(Kind::Float8e5m2, "float8_e5m2", None, 1),
    dtype(Kind::Float8e4m3fn, "float8_e4m3fn", None, 1),
    dtype(Kind::Float8e5m2fnuz, "float8_e5m2fnuz", None, 1),
    dtype(Kind::Float8e4m3fnuz, "float8_e4m3fnuz", None, 1),
];

/// The entry of a kind; none for quantized ones.
pub(super) fn of_kind(kind: Kind) -> Option<&'static Dtype> {
    DTYPES.iter().find(|dtype| dtype.kind == kind)
}

/// The entry of a name under `torch.`.
pub(super) fn of_name(name: &str) -> Option<&'static Dtype> {
    DTYPES.iter().find(|dtype| dtype.name == name)
}

/// The entry of a typed storage class.
pub(super) fn of_storage(class: &str) -> Option<&'static Dtype> {
    DTYPES.iter().find(|dtype| dtype.storage == Some(class))
}
