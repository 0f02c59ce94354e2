//! Python's safetensors reads our files, and we read its.

use fulgurite_parity::python;
use fulgurite_torch::Dict;
use fulgurite_torch::serialization::safetensors::{self, Metadata};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use serde_json::json;

const KINDS: [(Kind, &str); 13] = [
    (Kind::Float, "torch.float32"),
    (Kind::Double, "torch.float64"),
    (Kind::Half, "torch.float16"),
    (Kind::BFloat16, "torch.bfloat16"),
    (Kind::Int64, "torch.int64"),
    (Kind::Int, "torch.int32"),
    (Kind::Int16, "torch.int16"),
    (Kind::Int8, "torch.int8"),
    (Kind::Uint8, "torch.uint8"),
    (Kind::Bool, "torch.bool"),
    (Kind::ComplexFloat, "torch.complex64"),
    (Kind::Float8e5m2, "torch.float8_e5m2"),
    (Kind::Float8e4m3fn, "torch.float8_e4m3fn"),
];

fn values(tensor: &Tensor) -> Vec<f64> {
    let real = match tensor.kind() {
        Kind::ComplexFloat => tensor.to_kind(Kind::ComplexDouble).view_as_real(),
        _ => tensor.to_kind(Kind::Double),
    };
    Vec::try_from(real.flatten(0, -1)).unwrap()
}

#[test]
fn safetensors_go_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs, tied] = ["ours", "theirs", "tied"].map(|name| folder.path().join(name));
    let base = Tensor::from_slice(&[0.0f32, 1.0, 2.0, 4.0, 0.5, 100.0]).view([2, 3]);
    let mut tensors = Dict::new();
    for (kind, name) in KINDS {
        tensors.push(name, base.to_kind(kind));
    }
    tensors.push("transposed", base.transpose(0, 1));
    let double = tensors.tensor("torch.float64").unwrap().shallow_clone();
    tensors.push("tied", double);
    let metadata: Metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::save(&ours, &tensors, &metadata).unwrap();

    let paths = [&ours, &theirs, &tied].map(|path| path.to_str().unwrap());
    let python = python("tensor_files.py", &paths);
    // The second name of a tensor is a note, as `save_model` leaves one: alphabetically, "tied" is the first.
    assert_eq!(python["metadata"], json!({ "format": "pt", "torch.float64": "tied" }));
    let read = python["read"].as_object().unwrap();
    assert_eq!(read.len(), KINDS.len() + 1);
    for (name, row) in read {
        let tensor = tensors.tensor(name).unwrap();
        let kind = KINDS.iter().find(|(kind, _)| *kind == tensor.kind()).unwrap().1;
        assert_eq!(*row, json!([kind, tensor.size(), values(tensor)]), "{name}");
    }

    for (read, metadata) in [safetensors::load(&theirs).unwrap(), safetensors::load_mmap(&theirs).unwrap()] {
        assert_eq!(metadata, [("format".to_owned(), "pt".to_owned())].into());
        assert_eq!(read.len(), KINDS.len() + 1);
        assert_eq!(read.tensor("number").unwrap(), &Tensor::from(2.5f32));
        for (kind, name) in KINDS {
            let tensor = read.tensor(name).unwrap();
            assert_eq!((tensor.kind(), tensor.size()), (kind, vec![2, 3]), "{name}");
            assert_eq!(values(tensor), values(&base.to_kind(kind)), "{name}");
        }
    }

    let (read, _) = safetensors::load(&tied).unwrap();
    let [first, second] = ["0.weight", "1.weight"].map(|name| read.tensor(name).unwrap());
    assert_eq!(json!(values(first)), python["tied"]);
    let _ = first.shallow_clone().fill_(1.0);
    assert_eq!(second, &Tensor::ones([3, 3], (Kind::Float, Device::Cpu)));
}
