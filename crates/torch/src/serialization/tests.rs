//! Round trips, and files that are not what they should be.

use std::io::Cursor;

use super::archive_reader::ArchiveReader;
use super::archive_writer::ArchiveWriter;
use super::*;
use crate::tch::{Device, Kind, Tensor};
use crate::value::Dict;

fn written(value: &Value) -> Vec<u8> {
    let mut file = Vec::new();
    write_to(&mut file, value).unwrap();
    file
}

fn read(file: &[u8]) -> Result<Value, TorchError> {
    load_from(Cursor::new(file))
}

fn round_trip(value: impl Into<Value>) -> Value {
    read(&written(&value.into())).unwrap()
}

/// A checkpoint around a pickle.
fn with_pickle(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new(), "x");
    archive.entry("data.pkl", pickle).unwrap();
    for (key, storage) in storages.iter().enumerate() {
        archive.entry(&format!("data/{key}"), storage).unwrap();
    }
    archive.entry("version", b"3\n").unwrap();
    archive.finish().unwrap()
}

fn error(file: &[u8]) -> String {
    read(file).unwrap_err().to_string()
}

#[test]
fn plain_data_comes_back_as_it_was() {
    let value = Dict::new()
        .with("none", ())
        .with("bools", vec![true, false])
        .with("ints", vec![0, 255, 256, -1, i64::from(i32::MIN), i64::MAX, i64::MIN])
        .with("floats", vec![0.1, -0.0, f64::INFINITY, 1e300])
        .with("text", "räksmörgås \u{1F980}\n")
        .with("bytes", Value::Bytes((0..=255).collect()))
        .with("pair", (1, "two"))
        .with("empty", vec![Value::List(vec![]), Value::Tuple(vec![]), Value::Dict(Dict::new()), "".into()])
        .with(7, Dict::new().with(Value::Tuple(vec![1.into(), 2.into()]), 3));
    assert_eq!(round_trip(value.clone()), Value::Dict(value));
}

#[test]
fn every_kind_of_tensor_comes_back_as_it_was() {
    let base = Tensor::from_slice(&[0.0f64, 1.0, 2.0, 100.0]);
    for kind in [
        Kind::Float,
        Kind::Double,
        Kind::Half,
        Kind::BFloat16,
        Kind::Int64,
        Kind::Int,
        Kind::Int16,
        Kind::Int8,
        Kind::Uint8,
        Kind::Bool,
        Kind::ComplexFloat,
        Kind::ComplexDouble,
    ] {
        let tensor = base.to_kind(kind);
        assert_eq!(round_trip(&tensor), Value::from(tensor), "{kind:?}");
    }
    // `equal` is not implemented for these.
    for kind in [Kind::ComplexHalf, Kind::Float8e5m2, Kind::Float8e4m3fn, Kind::Float8e5m2fnuz, Kind::Float8e4m3fnuz] {
        let read = round_trip(base.to_kind(kind));
        let read = read.as_tensor().unwrap();
        assert_eq!(read.kind(), kind);
        let complex = kind == Kind::ComplexHalf;
        let comparable = if complex { Kind::ComplexDouble } else { Kind::Double };
        assert_eq!(read.to_kind(comparable), base.to_kind(kind).to_kind(comparable), "{kind:?}");
    }
}

#[test]
fn shapes_and_strides_come_back_as_they_were() {
    let base = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
    for tensor in [
        base.transpose(0, 1),
        Tensor::from(2.5),
        Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)),
        Tensor::ones([1], (Kind::Int64, Device::Cpu)).expand([4], false),
        base.to_kind(Kind::ComplexFloat).conj(),
    ] {
        let read = round_trip(&tensor);
        let read = read.as_tensor().unwrap();
        assert!(read.equal(&tensor.resolve_conj()), "{tensor:?}");
        assert_eq!(read.stride(), tensor.stride());
    }
}

#[test]
fn tied_tensors_stay_tied() {
    let weight = Tensor::zeros([1000], (Kind::Float, Device::Cpu));
    let state = Dict::new()
        .with("encoder", &weight)
        .with("decoder", weight.view([10, 100]))
        .with("part", weight.narrow(0, 5, 2));
    let file = written(&Value::Dict(state));
    assert!(file.len() < 2 * 4000, "the storage is written once, the file has {} bytes", file.len());
    let read = read(&file).unwrap();
    let read = read.as_dict().unwrap();
    let _ = read.tensor("encoder").unwrap().narrow(0, 5, 1).fill_(7.0);
    assert_eq!(read.tensor("decoder").unwrap().double_value(&[0, 5]), 7.0);
    assert_eq!(read.tensor("part").unwrap().double_value(&[0]), 7.0);
}

#[test]
fn a_small_part_of_a_large_storage_is_written_alone() {
    let large = Tensor::arange(100_000, (Kind::Float, Device::Cpu));
    let part = large.narrow(0, 500, 2);
    let file = written(&Value::List(vec![Value::from(&part), Value::from(&part)]));
    assert!(file.len() < 4000, "the file has {} bytes", file.len());
    let read = read(&file).unwrap();
    let [first, second] = read.as_list().unwrap() else { panic!("two items") };
    assert_eq!(first, &Value::from(part));
    let _ = first.as_tensor().unwrap().shallow_clone().fill_(1.0);
    assert_eq!(first, second);
}

#[test]
fn a_tensor_keeps_whether_it_requires_a_gradient() {
    let parameter = Tensor::from(1.0).set_requires_grad(true);
    assert!(round_trip(&parameter).as_tensor().unwrap().requires_grad());
    assert!(!round_trip(parameter.detach()).as_tensor().unwrap().requires_grad());
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    let state = || Value::Dict(Dict::new().with("w", Tensor::from_slice(&[1.0f32, 2.0])));
    assert_eq!(written(&state()), written(&state()));
}

#[test]
fn save_replaces_the_file_and_leaves_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    save(&path, &Value::Int(1)).unwrap();
    save(&path, &Value::Int(2)).unwrap();
    assert_eq!(load(&path).unwrap(), Value::Int(2));
    let sparse = Value::Dict(
        Dict::new().with("w", Tensor::eye(2, (Kind::Float, Device::Cpu)).to_sparse(None, None::<i64>, None)),
    );
    assert!(save(&path, &sparse).is_err());
    assert_eq!(load(&path).unwrap(), Value::Int(2));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_written_is_named() {
    let message = |value: Value| write_to(Vec::new(), &value).unwrap_err().to_string();
    let sparse = Tensor::eye(2, (Kind::Float, Device::Cpu)).to_sparse(None, None::<i64>, None);
    let state = Dict::new().with("fc.weight", vec![Value::Int(1), Value::Tensor(sparse)]);
    assert_eq!(
        message(Value::Dict(Dict::new().with("state_dict", state))),
        "`state_dict.fc.weight.1` cannot be written to a checkpoint: it is a sparse, or otherwise not strided, tensor; \
         make it dense with `.to_dense(..)`"
    );
    assert_eq!(
        message(Value::Tensor(Tensor::new())),
        "the value cannot be written to a checkpoint: it is an undefined tensor"
    );
    assert_eq!(
        message(Value::Dict(Dict::new().with(Value::List(vec![]), 1))),
        "the value cannot be written to a checkpoint: a dict has a key that is list"
    );
    let deep = (0..300).fold(Value::None, |inner, _| Value::List(vec![inner]));
    assert!(message(deep).ends_with("it is nested deeper than 256 levels"));
}

#[test]
fn a_folder_that_is_not_there_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = save(folder.path().join("no/such/last.ckpt"), &Value::None).unwrap_err().to_string();
    assert_eq!(error, "cannot write the checkpoint: No such file or directory (os error 2)");
    let error = load(folder.path().join("none.ckpt")).unwrap_err().to_string();
    assert_eq!(error, "cannot open the checkpoint: No such file or directory (os error 2)");
}

#[test]
fn foreign_files_are_recognised() {
    for (file, reason) in [
        (&b""[..], "it is empty"),
        (
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
            "it is a pickle outside of a zip file, as PyTorch wrote before 1.6; load it in Python and torch.save it \
             again",
        ),
        (b"\x10\0\0\0\0\0\0\0{\"a\": 1}        ", "it looks like safetensors"),
        (b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer; run `git lfs pull`"),
        (b"<html>", "it does not begin like a zip file"),
    ] {
        assert_eq!(error(file), format!("not a PyTorch checkpoint: {reason}"));
    }
    let mut zip = ArchiveWriter::new(Vec::new(), "docs");
    zip.entry("readme.txt", b"hello").unwrap();
    assert_eq!(error(&zip.finish().unwrap()), "not a PyTorch checkpoint: it is a zip file without a data.pkl");
    let mut script = ArchiveWriter::new(Vec::new(), "model");
    script.entry("data.pkl", b"").unwrap();
    script.entry("constants.pkl", b"").unwrap();
    assert_eq!(
        error(&script.finish().unwrap()),
        "not a PyTorch checkpoint: it is a TorchScript module; save its state_dict"
    );
}

#[test]
fn a_wrong_checksum_is_an_error_and_none_is_allowed() {
    let mut file = written(&Value::from(Tensor::from_slice(&[1.0f32])));
    let data = file.windows(4).position(|bytes| bytes == 1.0f32.to_le_bytes()).unwrap();
    file[data] ^= 1;
    assert_eq!(error(&file), "the checkpoint is damaged: the checksum of entry `data/0` is wrong; use an earlier one");
    let mut archive = ArchiveWriter::new(Vec::new(), "x");
    archive.summed_entry("data.pkl", b"\x80\x02K\x01.", 0).unwrap();
    let file = archive.finish().unwrap();
    assert_eq!(read(&file).unwrap(), Value::Int(1));
    verify_from(Cursor::new(&file)).unwrap();
}

#[test]
fn classes_are_never_run() {
    assert_eq!(
        error(&with_pickle(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.", &[])),
        "the checkpoint cannot be read: it contains a `os.system`, which is not plain data and is never run; load it in \
         Python and save it again with dicts, lists, numbers, text and dense tensors in its place"
    );
    assert!(error(&with_pickle(b"\x80\x02cbuiltins\neval\n.", &[])).contains("`builtins.eval`"));
    assert!(error(&with_pickle(b"\x80\x02ctorch\nload\n.", &[])).contains("`torch.load`"));
}

#[test]
fn dict_like_classes_are_read_as_dicts() {
    let namespace = b"\x80\x02cargparse\nNamespace\n)\x81}X\x02\0\0\0lrG\x3f\xb9\x99\x99\x99\x99\x99\x9asb.";
    assert_eq!(read(&with_pickle(namespace, &[])).unwrap(), Value::Dict(Dict::new().with("lr", 0.1)));
    let attributes = b"\x80\x02clightning.fabric.utilities.data\nAttributeDict\n)\x81X\x01\0\0\0aK\x01s.";
    assert_eq!(read(&with_pickle(attributes, &[])).unwrap(), Value::Dict(Dict::new().with("a", 1)));
    let metadata = b"\x80\x02ccollections\nOrderedDict\n)RX\x01\0\0\0aK\x01s}X\x09\0\0\0_metadataK\x02sb.";
    assert_eq!(read(&with_pickle(metadata, &[])).unwrap(), Value::Dict(Dict::new().with("a", 1)));
}

#[test]
fn broken_pickles_are_errors() {
    for pickle in [
        &b""[..],
        b"\x80",
        b"\x80\x02",
        b".",
        b"t.",
        b"\x85.",
        b"N(\x85.",
        b"N(.",
        b"h\0.",
        b"q\0.",
        b"Na.",
        b"K\x01K\x02s.",
        b"}(K\x01u.",
        b"X\xff\xff\xff\xffabc.",
        b"X\x01\0\0\0\xff.",
        b"NNR.",
        b"ctorch\nSize\nNR.",
        b"ctorch\nSize\n)R.",
        b"ctorch\nFloatStorage\n)R.",
        b"ctorch\nFloatStorage\n.",
        b"NQ.",
        b"X\x07\0\0\0storage\x85Q.",
        b"\x95\0\0\0\0\0\0\0\0.",
        b"\x8a\x09\0\0\0\0\0\0\0\0\x01.",
        b"cno newline",
        b"]q\0h\0a.",
    ] {
        assert!(read(&with_pickle(pickle, &[])).is_err(), "{pickle:?}");
    }
}

#[test]
fn a_tensor_may_not_reach_outside_of_its_storage() {
    let file = written(&Value::from(Tensor::from_slice(&[1.0f32, 2.0])));
    let pickle = ArchiveReader::open(Cursor::new(&file)).unwrap().read("data.pkl", 1000).unwrap();
    let size = pickle.windows(3).rposition(|bytes| bytes == b"K\x02t").unwrap();
    let mut larger = pickle.clone();
    larger[size + 1] = 3;
    assert_eq!(
        error(&with_pickle(&larger, &[&[0; 8]])),
        "the checkpoint is damaged: a tensor of size [3], stride [1] and offset 0 does not fit its storage of 2 \
         elements; use an earlier one"
    );
    assert_eq!(
        error(&with_pickle(&pickle, &[&[0; 4]])),
        "the checkpoint is damaged: storage 0 has 4 bytes, expected 8; use an earlier one"
    );
    assert_eq!(
        error(&with_pickle(&pickle, &[])),
        "the checkpoint is damaged: entry `data/0` is missing; use an earlier one"
    );
}

#[test]
fn a_small_file_cannot_fill_memory() {
    // Thirty lists, each of which holds the one before ten times.
    let mut doubling = b"\x80\x02(]q\0".to_vec();
    for level in 0..30u8 {
        doubling.extend(b"](");
        doubling.extend([b'h', level].repeat(10));
        doubling.extend([b'e', b'q', level + 1]);
    }
    doubling.extend(b"t.");
    let message = "the checkpoint cannot be read: it repeats its own parts so often that they fill memory";
    assert_eq!(error(&with_pickle(&doubling, &[])), message);

    // A long text, encoded again and again.
    let mut copying = b"\x80\x02(X\x00\x00\x10\x00".to_vec();
    copying.resize(copying.len() + (1 << 20), b'a');
    copying.extend(b"q\0X\x06\0\0\0latin1q\x01");
    for _ in 0..1000 {
        copying.extend(b"c_codecs\nencode\nh\0h\x01\x86R");
    }
    copying.extend(b"t.");
    assert_eq!(error(&with_pickle(&copying, &[])), message);
}

#[test]
fn a_big_endian_file_says_so() {
    let mut archive = ArchiveWriter::new(Vec::new(), "x");
    archive.entry("data.pkl", b"\x80\x02N.").unwrap();
    archive.entry("byteorder", b"big").unwrap();
    assert_eq!(
        error(&archive.finish().unwrap()),
        "the checkpoint cannot be read: it was written on a big-endian machine"
    );
}
