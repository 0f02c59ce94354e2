//! Files made to take memory or time, or to say two things, through the tools.

use fulgurite::prelude::*;
use fulgurite::torch::serialization;

use super::tools::fulgurite_in;

/// `expand` of one number to a tebibyte: as little memory as the number itself.
#[test]
fn expanded_tensors_take_no_more_than_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let huge = Tensor::from_slice(&[2.5f32]).expand([1 << 19, 1 << 19], false);
    let state = |with: &Tensor| Value::Dict(Dict::new().with("huge", with));
    serialization::save(folder.path().join("a.pt"), &state(&huge)).unwrap();
    let file = std::fs::metadata(folder.path().join("a.pt")).unwrap().len();
    assert!(file < 4096, "{file}");
    let (said, status) = fulgurite_in(folder.path(), None, &["show", "a.pt", "--stats"]);
    assert!(status == 0 && said.contains("2.5"), "{said}");
    let (said, status) = fulgurite_in(folder.path(), None, &["convert", "a.pt", "b.pt", "--dtype", "bf16"]);
    assert_eq!(status, 0, "{said}");
    let converted = serialization::load(folder.path().join("b.pt")).unwrap();
    let converted = converted.as_dict().unwrap().tensor("huge").unwrap();
    assert_eq!((converted.kind(), converted.size()), (Kind::BFloat16, huge.size()));
    assert!(std::fs::metadata(folder.path().join("b.pt")).unwrap().len() < 4096);
    for arguments in [&["convert", "a.pt", "a.safetensors"][..], &["diff", "a.pt", "a.pt"]] {
        let (said, status) = fulgurite_in(folder.path(), None, arguments);
        assert_eq!(status, 2);
        assert!(said.contains("has tensors whose elements lie over each other: 4 B in memory, 1.1 TB"), "{said}");
        assert!(said.contains("--max-expansion allows more") && said.lines().count() == 1, "{said}");
    }
    // What is looked at in f64 takes eight times as much of bytes.
    let bytes = Tensor::zeros([32_767], (Kind::Uint8, Device::Cpu)).as_strided([16_384, 16_383], [1, 1], None);
    serialization::save(folder.path().join("u.pt"), &state(&bytes)).unwrap();
    for arguments in [&["show", "u.pt", "--stats"][..], &["diff", "u.pt", "u.pt"]] {
        let (said, status) = fulgurite_in(folder.path(), None, arguments);
        assert!(status == 2 && said.contains("32.8 kB in memory, 268.4 MB when each is written out"), "{said}");
    }
    // A real one that lies over itself, as windows over a series do.
    let windows = Tensor::arange(6, (Kind::Float, Device::Cpu)).unfold(0, 3, 1);
    serialization::save(folder.path().join("w.pt"), &state(&windows)).unwrap();
    for arguments in [&["convert", "w.pt", "w.safetensors"][..], &["diff", "w.pt", "w.safetensors"]] {
        let (said, status) = fulgurite_in(folder.path(), None, arguments);
        assert_eq!(status, 0, "{said}");
    }
}

/// A long key that stands at every depth is in the way to everything below it.
#[test]
fn ways_are_no_longer_than_they_need_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let key = "k".repeat(1000);
    let leaves = Value::List((0..20_000).map(|n| Value::from(n as i64)).collect());
    let deep = (0..90).fold(leaves, |value, _| Value::Dict(Dict::new().with(key.clone(), value)));
    serialization::save(folder.path().join("deep.pt"), &deep).unwrap();
    let (said, status) = fulgurite_in(folder.path(), None, &["diff", "deep.pt", "deep.pt"]);
    assert!(status == 0 && said.contains("20000 other values"), "{said}");
}

#[test]
fn keys_that_are_written_alike_are_compared_each() {
    let folder = tempfile::tempdir().unwrap();
    let ones = || Tensor::from_slice(&[1.0f32]);
    let both: Dict = [(Value::from(0), Value::from(Tensor::from_slice(&[0.0f32]))), ("0".into(), ones().into())]
        .into_iter()
        .collect();
    serialization::save(folder.path().join("one.pt"), &Value::Dict(Dict::new().with("0", ones()))).unwrap();
    serialization::save(folder.path().join("two.pt"), &Value::Dict(both)).unwrap();
    for arguments in [&["diff", "one.pt", "two.pt"][..], &["diff", "two.pt", "one.pt"]] {
        assert_eq!(fulgurite_in(folder.path(), None, arguments).1, 1);
    }
}

#[test]
fn show_compares_checksums_unless_it_is_to_be_quick() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    serialization::save(&path, &Value::Dict(Dict::new().with("w", Tensor::from_slice(&[7.25f32; 64])))).unwrap();
    let mut file = std::fs::read(&path).unwrap();
    let at = file.windows(8).position(|part| part == [7.25f32.to_le_bytes(); 2].concat()).unwrap();
    file[at] ^= 1;
    std::fs::write(&path, file).unwrap();
    let (said, status) = fulgurite_in(folder.path(), None, &["show", "a.pt"]);
    assert!(status == 2 && said.contains("the checksum of entry `data/0` is wrong"), "{said}");
    assert_eq!(fulgurite_in(folder.path(), None, &["show", "a.pt", "--quick"]).1, 0);
}

/// Time that grows with the square of the names would be minutes.
#[test]
fn hundreds_of_thousands_of_tied_names_go_through_every_tool() {
    let folder = tempfile::tempdir().unwrap();
    let weight = Tensor::from_slice(&[1.5f32]);
    let tied: Dict = (0..100_000).map(|n| (format!("n{n}").into(), (&weight).into())).collect();
    serialization::safetensors::save(folder.path().join("a.safetensors"), &tied, &Default::default()).unwrap();
    for arguments in [
        &["show", "a.safetensors", "--stats"][..],
        &["verify", "a.safetensors"],
        &["diff", "a.safetensors", "a.safetensors"],
        &["convert", "a.safetensors", "b.safetensors", "--dtype", "bf16"],
    ] {
        let (said, status) = fulgurite_in(folder.path(), Some(80), arguments);
        assert_eq!(status, 0, "{}", &said[..said.len().min(500)]);
    }
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("a.ckpt")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("f.ckpt")).status().unwrap();
    assert!(made.success());
    for (name, kind) in [("a.ckpt", "device"), ("f.ckpt", "FIFO")] {
        for arguments in [&["show", name][..], &["diff", name, name], &["convert", name, "b.pt"], &["verify", name]] {
            let (said, status) = fulgurite_in(folder.path(), None, arguments);
            assert!(status > 0 && said.contains(&format!("it is a {kind}, and only regular files are read")), "{said}");
        }
    }
}
