//! Mapped files.

use std::fs;

use super::archive_writer::ArchiveWriter;
use super::*;
use crate::tch::{Device, Kind, Tensor};
use crate::value::Dict;

fn state() -> Value {
    let weight = Tensor::arange(100_000, (Kind::Float, Device::Cpu)).view([1000, 100]);
    let state = Dict::new()
        .with("weight", &weight)
        .with("tied", weight.transpose(0, 1))
        .with("empty", Tensor::zeros([0], (Kind::Half, Device::Cpu)))
        .with("step", Tensor::from(3i64))
        .with("epoch", 7);
    Value::Dict(state)
}

fn tensor<'a>(value: &'a Value, name: &str) -> &'a Tensor {
    value.as_dict().unwrap().get(name).unwrap().as_tensor().unwrap()
}

#[test]
fn a_mapped_file_holds_what_a_read_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.ckpt");
    save(&path, &state()).unwrap();
    assert_eq!(load_mmap(&path).unwrap(), state());
}

#[test]
fn changes_of_mapped_tensors_stay_here_and_ties_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.ckpt");
    save(&path, &state()).unwrap();
    let mapped = load_mmap(&path).unwrap();
    let _ = tensor(&mapped, "weight").narrow(0, 0, 1).fill_(-1.0);
    assert_eq!(tensor(&mapped, "tied").double_value(&[5, 0]), -1.0);
    assert_eq!(load(&path).unwrap(), state());
    assert_eq!(load_mmap(&path).unwrap(), state());
}

#[test]
fn mapped_tensors_outlive_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.ckpt");
    save(&path, &state()).unwrap();
    let mapped = load_mmap(&path).unwrap();
    let weight = tensor(&mapped, "weight").shallow_clone();
    save(&path, &Value::Int(1)).unwrap();
    fs::remove_file(&path).unwrap();
    drop(mapped);
    assert!(weight.equal(tensor(&state(), "weight")));
}

#[test]
fn unaligned_tensors_are_copied() {
    let mut file = Vec::new();
    write_to(&mut file, &state()).unwrap();
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(file)).unwrap();
    // Without padding, as other programs write.
    let mut repacked = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        if !entry.name().ends_with(manifest::NAME) {
            let options = zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Stored);
            repacked.start_file(entry.name().replacen("archive", "odd", 1), options).unwrap();
            io::copy(&mut entry, &mut repacked).unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.ckpt");
    fs::write(&path, repacked.finish().unwrap().into_inner()).unwrap();
    assert_eq!(load_mmap(&path).unwrap(), state());
    assert_eq!(load(&path).unwrap(), state());
    verify(&path).unwrap();
}

#[test]
fn a_changed_structure_is_an_error_and_changed_numbers_are_left_to_verification() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.ckpt");
    let value = Value::Dict(Dict::new().with("w", Tensor::from_slice(&[1.0f32, 2.0])).with("epoch", 3));
    let mut file = Vec::new();
    write_to(&mut file, &value).unwrap();
    let numbers = file.windows(4).position(|bytes| bytes == 1.0f32.to_le_bytes()).unwrap();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 0x55;
        fs::write(&path, &changed).unwrap();
        assert!(verify(&path).is_err());
        if let Ok(read) = load_mmap(&path)
            && !(numbers..numbers + 8).contains(&at)
        {
            assert_eq!(read, value, "a change at {at}");
        }
    }
    for length in 0..file.len() {
        fs::write(&path, &file[..length]).unwrap();
        assert!(load_mmap(&path).is_err());
    }
}

#[test]
fn an_empty_file_and_a_folder_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.ckpt");
    fs::write(&path, b"").unwrap();
    assert_eq!(load_mmap(&path).unwrap_err().to_string(), "not a PyTorch checkpoint: it is empty");
    assert!(load_mmap(folder.path()).unwrap_err().to_string().starts_with("cannot read the checkpoint: "));
    let mut archive = ArchiveWriter::new(Vec::new(), "x");
    archive.entry("data.pkl", b"\x80\x02K\x07.").unwrap();
    fs::write(&path, archive.finish().unwrap()).unwrap();
    assert_eq!(load_mmap(&path).unwrap(), Value::Int(7));
}
