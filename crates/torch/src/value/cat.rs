//! [`Value::cat`].

use tch::Tensor;

use super::{Dict, Value, ValueError};

impl Value {
    /// Concatenates trees of one form, such as the predictions of batches: their tensors along the first dimension, as
    /// `torch.cat` does. Tensors without dimensions are stacked, and other values become a list.
    ///
    /// ```
    /// use fulgurite_torch::{Value, tch::Tensor};
    ///
    /// let batches = [Value::from(Tensor::from_slice(&[1i64, 2])), Value::from(Tensor::from_slice(&[3i64]))];
    /// assert_eq!(Value::cat(&batches)?, Value::from(Tensor::from_slice(&[1i64, 2, 3])));
    /// # Ok::<(), fulgurite_torch::ValueError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if there is no value, if the trees differ in their types, lengths or keys, or if the tensors differ in any
    /// dimension but the first.
    pub fn cat(values: &[Value]) -> Result<Value, ValueError> {
        let Some(first) = values.first() else {
            return Err(ValueError::Cat("there is none".into()));
        };
        match first {
            Value::Tensor(_) => cat_tensors(values),
            Value::List(_) | Value::Tuple(_) => cat_lists(first, values),
            Value::Dict(dict) => cat_dicts(dict, values),
            _ => Ok(Value::List(all_of(values, first, |value| {
                (value.type_name() == first.type_name()).then(|| value.clone())
            })?)),
        }
    }
}

/// What `pick` finds in each; `first` is what they should be like.
fn all_of<'a, T>(
    values: &'a [Value],
    first: &Value,
    pick: impl Fn(&'a Value) -> Option<T>,
) -> Result<Vec<T>, ValueError> {
    let found = values.iter().enumerate().map(|(index, value)| {
        let differs =
            || format!("the first is {}, and the one at index {index} is {}", described(first), described(value));
        pick(value).ok_or_else(|| ValueError::Cat(differs()))
    });
    found.collect()
}

fn described(value: &Value) -> String {
    match value {
        Value::List(items) | Value::Tuple(items) => format!("a {} of {}", value.type_name(), items.len()),
        Value::Dict(dict) => format!("a dict of {}", dict.keys().collect::<Vec<_>>().join(", ")),
        other => other.type_name().to_owned(),
    }
}

fn cat_tensors(values: &[Value]) -> Result<Value, ValueError> {
    let tensors = all_of(values, &values[0], Value::as_tensor)?;
    let joined = match tensors[0].dim() {
        0 => Tensor::f_stack(&tensors, 0),
        _ => Tensor::f_cat(&tensors, 0),
    };
    let sizes = || tensors.iter().map(|tensor| format!("{:?}", tensor.size())).collect::<Vec<_>>();
    joined.map(Value::Tensor).map_err(|_| {
        let mut sizes = sizes();
        sizes.dedup();
        ValueError::Cat(format!("tensors of sizes {} differ in more than the first dimension", sizes.join(", ")))
    })
}

fn cat_lists(first: &Value, values: &[Value]) -> Result<Value, ValueError> {
    let len = first.as_list().map_or(0, <[Value]>::len);
    let alike = |value: &&[Value]| value.len() == len;
    let lists = all_of(values, first, |value| value.as_list().filter(alike))?;
    let items: Vec<Value> = (0..len)
        .map(|index| Value::cat(&lists.iter().map(|list| list[index].clone()).collect::<Vec<_>>()))
        .collect::<Result<_, _>>()?;
    Ok(if matches!(first, Value::Tuple(_)) { Value::Tuple(items) } else { Value::List(items) })
}

fn cat_dicts(first: &Dict, values: &[Value]) -> Result<Value, ValueError> {
    let alike = |dict: &&Dict| dict.len() == first.len() && first.iter().all(|(key, _)| dict.get_value(key).is_some());
    let dicts = all_of(values, &values[0], |value| value.as_dict().filter(alike))?;
    let entries = first.iter().map(|(key, _)| {
        let of_key: Vec<Value> = dicts.iter().filter_map(|dict| dict.get_value(key)).cloned().collect();
        Ok((key.clone(), Value::cat(&of_key)?))
    });
    Ok(Value::Dict(entries.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Value {
        Tensor::from_slice(values).into()
    }

    #[test]
    fn trees_are_joined_entry_by_entry() {
        let batch = |values: &[f32], loss: f32, name: &str| {
            let pair = Value::Tuple(vec![tensor(values), Tensor::from(loss).into()]);
            Value::from(Dict::new().with("pair", pair).with("name", name))
        };
        let joined = Value::cat(&[batch(&[1., 2.], 0.5, "a"), batch(&[3.], 0.25, "b")]).unwrap();
        let pair = Value::Tuple(vec![tensor(&[1., 2., 3.]), tensor(&[0.5, 0.25])]);
        assert_eq!(joined, Dict::new().with("pair", pair).with("name", vec!["a", "b"]).into());
    }

    #[test]
    fn trees_of_other_forms_are_refused() {
        let refused = |values: &[Value]| Value::cat(values).unwrap_err().to_string();
        assert_eq!(refused(&[]), "values cannot be concatenated: there is none");
        let wide = Value::from(Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu)));
        assert_eq!(
            refused(&[tensor(&[1.]), wide]),
            "values cannot be concatenated: tensors of sizes [1], [2, 3] differ in more than the first dimension"
        );
        assert_eq!(
            refused(&[tensor(&[1.]), Value::None]),
            "values cannot be concatenated: the first is tensor, and the one at index 1 is None"
        );
        let dicts = [Dict::new().with("a", 1).into(), Dict::new().with("b", 1).into()];
        assert_eq!(
            refused(&dicts),
            "values cannot be concatenated: the first is a dict of a, and the one at index 1 is a dict of b"
        );
    }
}
