//! A case of `nn.py`, and the layer here that is compared with it.

use std::cell::RefCell;
use std::fmt;

use fulgurite_nn::{self as nn, ConvPadding, NnError, OneOrEach, OutputSize, PadSize, PaddingMode, Reduction, Size};
use fulgurite_torch::Path;
use fulgurite_torch::tch::{Kind, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What is applied to the inputs, some of which may be left out.
pub(super) type Forward = dyn Fn(&[Option<Tensor>]) -> Result<Vec<Tensor>, NnError>;

/// A layer that was made for a case.
pub(super) struct Layer {
    pub(super) repr: String,
    pub(super) forward: Box<Forward>,
}

/// An input that is not left out.
pub(super) fn given(input: &Option<Tensor>) -> &Tensor {
    input.as_ref().expect("the case has this input")
}

#[derive(Deserialize)]
pub(super) struct Case {
    pub(super) name: String,
    args: Vec<Value>,
    options: Map<String, Value>,
    /// What is special about the call.
    pub(super) call: Map<String, Value>,
    dtype: String,
    pub(super) repr: Option<String>,
    #[serde(default)]
    pub(super) parameters: Vec<String>,
    pub(super) error: Option<String>,
    #[serde(skip)]
    read: RefCell<Vec<&'static str>>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = self.args.iter().map(Value::to_string);
        let options = self.options.iter().map(|(name, value)| format!("{name}={value}"));
        write!(f, "{}({})", self.name, args.chain(options).collect::<Vec<_>>().join(", "))?;
        if self.dtype != "float32" {
            write!(f, " of {}", self.dtype)?;
        }
        if !self.call.is_empty() {
            write!(f, " with {}", Value::from(self.call.clone()))?;
        }
        Ok(())
    }
}

impl Case {
    pub(super) fn kind(&self) -> Kind {
        match self.dtype.as_str() {
            "float16" => Kind::Half,
            "bfloat16" => Kind::BFloat16,
            "float64" => Kind::Double,
            _ => Kind::Float,
        }
    }

    pub(super) fn build(&self, path: Path<'_>) -> Result<Layer, NnError> {
        let made = super::layers::build(self, &path)
            .or_else(|| super::layers::build_pool(self, &path))
            .or_else(|| super::sequences::build(self, &path))
            .or_else(|| super::losses::build(self));
        made.unwrap_or_else(|| panic!("no layer here is {}", self.name))
    }

    /// A required argument.
    pub(super) fn arg<T: Read>(&self, at: usize) -> T {
        T::read(&self.args[at])
    }

    /// An option, if it is given.
    pub(super) fn option<T: Read>(&self, name: &'static str) -> Option<T> {
        self.read.borrow_mut().push(name);
        self.options.get(name).map(T::read)
    }

    /// An option that is given in every case.
    pub(super) fn given<T: Read>(&self, name: &'static str) -> T {
        self.option(name).unwrap_or_else(|| panic!("{self} lacks {name}"))
    }

    /// Something that is said of the call.
    pub(super) fn said<T: Read>(&self, name: &str) -> Option<T> {
        self.call.get(name).map(T::read)
    }

    /// Options that nothing has asked for.
    pub(super) fn unread(&self) -> Vec<&String> {
        let read = self.read.borrow();
        self.options.keys().filter(|name| !read.contains(&name.as_str())).collect()
    }
}

/// What can be read from an option in JSON.
pub(super) trait Read {
    fn read(value: &Value) -> Self;
}

macro_rules! read {
    ($($type:ty: $method:ident),+) => { $(
        impl Read for $type {
            fn read(value: &Value) -> $type {
                value.$method().unwrap_or_else(|| panic!("{value} is not {}", stringify!($type)))
            }
        }
    )+ };
}

read!(i64: as_i64, f64: as_f64, bool: as_bool);

impl Read for usize {
    fn read(value: &Value) -> usize {
        i64::read(value) as usize
    }
}

impl Read for String {
    fn read(value: &Value) -> String {
        value.as_str().unwrap().into()
    }
}

impl<T: Read> Read for Option<T> {
    fn read(value: &Value) -> Option<T> {
        (!value.is_null()).then(|| T::read(value))
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: &Value) -> Vec<T> {
        value.as_array().unwrap().iter().map(T::read).collect()
    }
}

impl<T: Read + fmt::Debug, const N: usize> Read for [T; N] {
    fn read(value: &Value) -> [T; N] {
        Vec::<T>::read(value).try_into().unwrap()
    }
}

/// One number for all dimensions, or one for each.
macro_rules! read_sizes {
    ($($type:ident from $item:ty),+) => { $(
        impl<const N: usize> Read for $type<N> {
            fn read(value: &Value) -> $type<N> {
                match value.as_i64() {
                    Some(size) => size.into(),
                    None => <[$item; N]>::read(value).into(),
                }
            }
        }
    )+ };
}

read_sizes!(Size from i64, PadSize from i64, OutputSize from Option<i64>);

impl<const N: usize> Read for ConvPadding<N> {
    fn read(value: &Value) -> ConvPadding<N> {
        match (value.as_str(), value.as_i64()) {
            (Some("same"), _) => ConvPadding::Same,
            (Some(_), _) => ConvPadding::Valid,
            (None, Some(amount)) => amount.into(),
            (None, None) => <[i64; N]>::read(value).into(),
        }
    }
}

impl<T: Read> Read for OneOrEach<T> {
    fn read(value: &Value) -> OneOrEach<T> {
        if value.is_array() { OneOrEach::Each(Vec::read(value)) } else { OneOrEach::One(T::read(value)) }
    }
}

impl Read for nn::NormalizedShape {
    fn read(value: &Value) -> nn::NormalizedShape {
        value.as_i64().map_or_else(|| Vec::read(value).into(), Into::into)
    }
}

/// The weights of a loss.
impl Read for Tensor {
    fn read(value: &Value) -> Tensor {
        let (values, shape) = (Vec::<f64>::read(&value["values"]), Vec::<i64>::read(&value["shape"]));
        Tensor::from_slice(&values).to_kind(Kind::Float).view(shape.as_slice())
    }
}

macro_rules! read_names {
    ($($type:ty { $($name:literal: $value:expr),+ })+) => { $(
        impl Read for $type {
            fn read(value: &Value) -> $type {
                match value.as_str() {
                    $(Some($name) => $value,)+
                    _ => panic!("{value}"),
                }
            }
        }
    )+ };
}

read_names! {
    PaddingMode {
        "zeros": PaddingMode::Zeros, "reflect": PaddingMode::Reflect, "replicate": PaddingMode::Replicate,
        "circular": PaddingMode::Circular
    }
    Reduction { "mean": Reduction::Mean, "sum": Reduction::Sum, "none": Reduction::None }
    nn::KlReduction {
        "mean": nn::KlReduction::Mean, "sum": nn::KlReduction::Sum, "none": nn::KlReduction::None,
        "batchmean": nn::KlReduction::BatchMean
    }
    nn::BagMode { "mean": nn::BagMode::Mean, "sum": nn::BagMode::Sum, "max": nn::BagMode::Max }
    nn::Nonlinearity { "tanh": nn::Nonlinearity::Tanh, "relu": nn::Nonlinearity::Relu }
    nn::Activation { "gelu": nn::gelu(), "relu": nn::relu() }
    nn::UpsampleMode {
        "nearest": nn::UpsampleMode::Nearest, "nearest-exact": nn::UpsampleMode::NearestExact,
        "linear": nn::UpsampleMode::Linear, "bilinear": nn::UpsampleMode::Bilinear,
        "bicubic": nn::UpsampleMode::Bicubic, "trilinear": nn::UpsampleMode::Trilinear
    }
}

/// Sets those of the named options that a case has.
macro_rules! with {
    ($case:expr, $options:expr $(, $name:ident: $type:ty)* $(,)?) => {{
        let options = $options;
        $(
            let options = match $case.option::<$type>(stringify!($name)) {
                Some(value) => options.$name(value),
                None => options,
            };
        )*
        options
    }};
}

pub(super) use with;
