//! PyTorch and Lightning read our checkpoints, and we read theirs, value by value.

use fulgurite_parity::python;
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value, serialization};
use serde_json::{Value as Json, json};

const KINDS: [(Kind, &str); 17] = [
    (Kind::Float, "float32"),
    (Kind::Double, "float64"),
    (Kind::Half, "float16"),
    (Kind::BFloat16, "bfloat16"),
    (Kind::Int64, "int64"),
    (Kind::Int, "int32"),
    (Kind::Int16, "int16"),
    (Kind::Int8, "int8"),
    (Kind::Uint8, "uint8"),
    (Kind::Bool, "bool"),
    (Kind::ComplexFloat, "complex64"),
    (Kind::ComplexDouble, "complex128"),
    (Kind::ComplexHalf, "complex32"),
    (Kind::Float8e5m2, "float8_e5m2"),
    (Kind::Float8e4m3fn, "float8_e4m3fn"),
    (Kind::Float8e5m2fnuz, "float8_e5m2fnuz"),
    (Kind::Float8e4m3fnuz, "float8_e4m3fnuz"),
];

/// Every element of a tensor of doubles, bit by bit: JSON readers round.
fn bits(tensor: &Tensor) -> Vec<i64> {
    Vec::<f64>::try_from(tensor.flatten(0, -1)).unwrap().into_iter().map(|x| x.to_bits() as i64).collect()
}

/// What `describe` of the script prints.
fn describe(value: &Value) -> Json {
    let all = |items: &[Value]| items.iter().map(describe).collect::<Vec<_>>();
    match value {
        Value::None => Json::Null,
        Value::Bool(bool) => json!(bool),
        Value::Int(int) => json!(int),
        Value::Float(float) => json!({ "float": [float.to_bits() as i64] }),
        Value::Str(text) => json!(text),
        Value::Bytes(bytes) => json!({ "bytes": bytes }),
        Value::List(items) => json!({ "list": all(items) }),
        Value::Tuple(items) => json!({ "tuple": all(items) }),
        Value::Opaque(object) => json!({ "opaque": object.type_name() }),
        Value::Dict(dict) => {
            json!({ "dict": dict.iter().map(|(k, v)| [describe(k), describe(v)]).collect::<Vec<_>>() })
        }
        Value::Tensor(tensor) => {
            let name = KINDS.iter().find(|(kind, _)| *kind == tensor.kind()).unwrap().1;
            let plain = tensor.detach();
            let real = match tensor.kind() {
                Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble => {
                    plain.to_kind(Kind::ComplexDouble).view_as_real()
                }
                _ => plain.to_kind(Kind::Double),
            };
            json!({
                "dtype": format!("torch.{name}"), "size": tensor.size(), "stride": tensor.stride(),
                "requires_grad": tensor.requires_grad(), "bits": bits(&real),
            })
        }
    }
}

#[test]
fn pytorch_reads_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.ckpt");
    let base = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
    let kinds: Dict = KINDS
        .iter()
        .map(|(kind, name)| ((*name).into(), Tensor::from_slice(&[0.0, 1.0, 2.0, 100.0]).to_kind(*kind).into()))
        .collect();
    let plain = Dict::new()
        .with("none", ())
        .with("bools", vec![true, false])
        .with("ints", vec![0, 255, 256, -1, 1 << 31, i64::MAX, i64::MIN])
        .with("floats", Value::Tuple(vec![0.1.into(), f64::NEG_INFINITY.into()]))
        .with("text", "räksmörgås \u{1F980}")
        .with("bytes", Value::Bytes((0..=255).collect()))
        .with(7, vec![Value::Tuple(vec![]), Value::List(vec![]), Value::Dict(Dict::new())])
        .with(Value::Tuple(vec![1.into(), "two".into()]), 3)
        .with("kinds", kinds)
        .with("transposed", base.transpose(0, 1))
        .with("part", Tensor::arange(1000, (Kind::Int64, Device::Cpu)).narrow(0, 3, 2))
        .with("scalar", Tensor::from(2.5))
        .with("empty", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)))
        .with("parameter", Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true));
    let weight = Tensor::zeros([4], (Kind::Float, Device::Cpu));
    let tied = Dict::new().with("a", &weight).with("b", weight.view([2, 2]));
    let file = Value::Dict(Dict::new().with("plain", plain.clone()).with("tied", tied));
    serialization::save(&path, &file).unwrap();

    let found = python("checkpoint.py", &["read", path.to_str().unwrap()]);
    assert_eq!(found["state"], describe(&Value::Dict(plain.clone())));
    assert_eq!(found["mapped"], describe(&Value::Dict(plain)));
    assert_eq!(found["tied"], json!([99.0, 0.0, 0.0, 0.0]));
}

#[test]
fn we_read_what_pytorch_and_lightning_write() {
    let folder = tempfile::tempdir().unwrap();
    let expected = python("checkpoint.py", &["write", folder.path().to_str().unwrap()]);

    let read = serialization::load(folder.path().join("state.pt")).unwrap();
    let mut state = read.as_dict().unwrap().clone();
    assert_eq!(state.remove("size"), Some(Value::Tuple(vec![2.into(), 3.into()])));
    assert_eq!(state.remove("dtype"), Some("torch.float16".into()));
    assert_eq!(state.remove("device"), Some("cuda:1".into()));
    for (key, value) in state.iter() {
        let key = key.as_str().unwrap();
        assert_eq!(describe(value), expected["state"][key], "{key}");
    }
    assert_eq!(state.len(), expected["state"].as_object().unwrap().len());

    let weights = state.dict("state_dict").unwrap();
    let _ = weights.tensor("encoder.weight").unwrap().shallow_clone().fill_(5.0);
    assert_eq!(weights.tensor("decoder.weight").unwrap().double_value(&[0, 0]), 5.0, "tied weights stay tied");

    let checkpoint = serialization::load(folder.path().join("lightning.ckpt")).unwrap();
    assert_eq!(describe(&checkpoint), expected["checkpoint"]["content"]);
    let version = checkpoint.as_dict().unwrap().str("pytorch-lightning_version").unwrap();
    assert_eq!(version, expected["checkpoint"]["version"].as_str().unwrap());

    let legacy = serialization::load(folder.path().join("legacy.pt")).unwrap_err().to_string();
    assert!(legacy.starts_with("not a PyTorch checkpoint: it is a pickle outside of a zip file"), "{legacy}");
}

#[test]
fn what_we_read_from_lightning_and_write_again_is_the_same_to_python() {
    let folder = tempfile::tempdir().unwrap();
    python("checkpoint.py", &["write", folder.path().to_str().unwrap()]);
    let checkpoint = serialization::load(folder.path().join("lightning.ckpt")).unwrap();
    let weight = Tensor::zeros([2], (Kind::Float, Device::Cpu));
    let tied = Dict::new().with("a", &weight).with("b", &weight);
    let path = folder.path().join("again.ckpt");
    serialization::save(&path, &Value::Dict(Dict::new().with("plain", checkpoint.clone()).with("tied", tied))).unwrap();
    let found = python("checkpoint.py", &["read", path.to_str().unwrap()]);
    assert_eq!(found["state"], describe(&checkpoint));
}
