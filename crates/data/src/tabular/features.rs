//! What fitted objects share: a tensor seen as features, and numbers in a [`Dict`].

use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value, ValueError};

use crate::DataError;

/// The values of each feature, on the host, without NaN.
pub(super) struct Columns(pub(super) Vec<Vec<f64>>);

impl Columns {
    /// The features of what `who` is fitted on. A feature without a value, and infinities, are errors.
    pub(super) fn of(data: &Tensor, who: &str) -> Result<Columns, DataError> {
        let features = features(data, who)?;
        let flat = data
            .f_to_device(Device::Cpu)
            .and_then(|data| data.f_to_kind(Kind::Double)?.f_contiguous()?.f_reshape([-1]));
        let flat = flat.and_then(Vec::<f64>::try_from).map_err(|error| torch_error(who, error))?;
        let mut columns = vec![Vec::with_capacity(flat.len() / features.max(1)); features];
        for (at, value) in flat.into_iter().enumerate() {
            let feature = at % features;
            if value.is_infinite() {
                let row = at / features;
                return Err(DataError::Setting(format!(
                    "feature {feature} of row {row} is {value}; {who} is fitted on finite numbers and NaN"
                )));
            }
            if !value.is_nan() {
                columns[feature].push(value);
            }
        }
        match columns.iter().position(Vec::is_empty) {
            Some(feature) => Err(DataError::Setting(format!(
                "feature {feature} has no value in what {who} is fitted on, {:?} of {:?}; leave it out, or fit on more rows",
                data.kind(),
                data.size()
            ))),
            None => Ok(Columns(columns)),
        }
    }

    /// A number of each feature.
    pub(super) fn map(self, f: impl Fn(&mut Vec<f64>) -> f64) -> Vec<f64> {
        self.0.into_iter().map(|mut column| f(&mut column)).collect()
    }
}

/// The number of features of a tensor.
pub(super) fn features(data: &Tensor, who: &str) -> Result<usize, DataError> {
    let size = data.size();
    let features = match size.len() {
        0 => 0,
        1 => 1,
        _ => size[size.len() - 1],
    };
    match usize::try_from(features) {
        Ok(features) if features > 0 => Ok(features),
        _ => Err(DataError::Setting(format!(
            "{who} needs a tensor whose last dimension are the features, or one dimension of values; this is {size:?}"
        ))),
    }
}

/// A number of each feature as a tensor that broadcasts with `data`, in double precision.
pub(super) fn row(data: &Tensor, numbers: &[f64], who: &str) -> Result<Tensor, DataError> {
    let found = features(data, who)?;
    if found != numbers.len() {
        return Err(DataError::Setting(format!(
            "{who} was fitted on {} features, but this tensor of {:?} has {found}",
            numbers.len(),
            data.size()
        )));
    }
    let row = Tensor::f_from_slice(numbers).and_then(|row| row.f_to_device(data.device()));
    row.map_err(|error| torch_error(who, error))
}

/// `f` of `data` in double precision, back in the kind of `data`, or in `f32` if those are integers.
pub(super) fn in_double(
    data: &Tensor,
    who: &str,
    f: impl FnOnce(Tensor) -> Result<Tensor, fulgurite_torch::tch::TchError>,
) -> Result<Tensor, DataError> {
    let kind = if data.is_floating_point() { data.kind() } else { Kind::Float };
    let made = data.f_to_kind(Kind::Double).and_then(f).and_then(|made| made.f_to_kind(kind));
    made.map_err(|error| torch_error(who, error))
}

fn torch_error(who: &str, error: fulgurite_torch::tch::TchError) -> DataError {
    DataError::Torch { doing: format!("computing {who}"), source: error.into() }
}

/// The numbers of an entry.
pub(super) fn numbers(dict: &Dict, key: &str, who: &str) -> Result<Vec<f64>, DataError> {
    let wrong = |error: ValueError| not_one(who, &error.to_string());
    let list = dict.list(key).map_err(wrong)?;
    let number = |value: &Value| {
        value.as_float().ok_or_else(|| not_one(who, &format!("entry `{key}` holds {}, not numbers", value.type_name())))
    };
    list.iter().map(number).collect()
}

/// The error for a dict that is not one of `who`.
pub(super) fn not_one(who: &str, why: &str) -> DataError {
    DataError::Setting(format!("this is not what `to_dict` of {who} returned: {why}"))
}
