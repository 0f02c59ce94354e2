//! Files that were cut or changed, bit by bit and entry by entry: an error, or the same value, and never another one.

use std::io::Cursor;

use super::archive_writer::ArchiveWriter;
use super::zip_layout::{ALIGNMENT, Entry, directory};
use super::*;
use crate::tch::Tensor;
use crate::value::Dict;

/// What torch.save of PyTorch 2.11 wrote.
const FROM_TORCH: &[u8] = include_bytes!("../../tests/files/torch-2.11-small.pt");
const FROM_TORCH_UNSUMMED: &[u8] = include_bytes!("../../tests/files/torch-2.11-no-checksums.pt");

fn written() -> (Vec<u8>, Value) {
    let weights =
        Dict::new().with("a", Tensor::from_slice(&[1.0f32, 2.0])).with("b", Tensor::from_slice(&[3.0f32, 4.0]));
    let value = Value::Dict(Dict::new().with("state_dict", weights).with("epoch", 3));
    let mut file = Vec::new();
    write_to(&mut file, &value).unwrap();
    (file, value)
}

fn read(file: &[u8]) -> Result<Value, TorchError> {
    load_from(Cursor::new(file))
}

fn error(file: &[u8]) -> String {
    let error = read(file).unwrap_err().to_string();
    assert_eq!(verify_from(Cursor::new(file)).unwrap_err().to_string(), error);
    error
}

#[test]
fn a_cut_file_is_an_error_wherever_it_is_cut() {
    for file in [&written().0[..], FROM_TORCH, FROM_TORCH_UNSUMMED] {
        for length in 0..file.len() {
            let error = error(&file[..length]);
            assert_eq!(outline_from(Cursor::new(&file[..length])).unwrap_err().to_string(), error);
            assert!(error.contains("not a PyTorch checkpoint") || error.contains("damaged"), "at {length}: {error}");
        }
    }
    let (file, _) = written();
    assert_eq!(
        error(&file[..file.len() - 10]),
        format!(
            "the checkpoint is damaged: it begins like a checkpoint and has no end, at {} bytes; it was cut while \
             being written or copied; use an earlier one",
            file.len() - 10
        )
    );
}

#[test]
fn a_changed_bit_is_an_error_or_harmless_and_verification_sees_every_one() {
    let (mut file, value) = written();
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            if let Ok(outline) = outline_from(Cursor::new(&file)) {
                assert_eq!(outline, value.clone().without_tensors(), "bit {bit} of byte {at}");
            }
            if let Ok(read) = read(&file) {
                assert_eq!(read, value, "bit {bit} of byte {at}");
            }
            assert!(verify_from(Cursor::new(&file)).is_err(), "bit {bit} of byte {at}");
            file[at] ^= 1 << bit;
        }
    }
    verify_from(Cursor::new(&file)).unwrap();
}

#[test]
fn a_changed_bit_of_a_file_from_torch_is_an_error_or_harmless() {
    let mut file = FROM_TORCH.to_vec();
    let value = read(&file).unwrap();
    let mut errors = 0;
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            match read(&file) {
                Ok(read) => assert_eq!(read, value, "bit {bit} of byte {at}"),
                Err(_) => errors += 1,
            }
            let _ = verify_from(Cursor::new(&file));
            file[at] ^= 1 << bit;
        }
    }
    assert!(errors > 2000, "{errors}");
}

#[test]
fn a_changed_bit_of_a_file_without_checksums_is_no_crash() {
    let mut file = FROM_TORCH_UNSUMMED.to_vec();
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            let _ = (read(&file), verify_from(Cursor::new(&file)));
            file[at] ^= 1 << bit;
        }
    }
    verify_from(Cursor::new(&file)).unwrap();
}

#[test]
fn parts_of_other_files_are_errors() {
    let (file, _) = written();
    // A run of bytes of the file in another place, as a disk or a copy that mixes up blocks leaves it.
    let size = ALIGNMENT as usize;
    for from in (0..file.len() - size).step_by(size) {
        for to in (0..file.len() - size).step_by(size) {
            let mut mixed = file.clone();
            mixed.copy_within(from..from + size, to);
            if mixed != file {
                assert!(verify_from(Cursor::new(&mixed)).is_err(), "{from} to {to}");
            }
        }
    }
    let swapped = (|| {
        let at = |number: f32| file.windows(4).position(|bytes| bytes == number.to_le_bytes());
        let (a, b) = (at(1.0)?, at(3.0)?);
        let mut swapped = file.clone();
        swapped.copy_within(b..b + 8, a);
        swapped[b..b + 8].copy_from_slice(&file[a..a + 8]);
        Some(swapped)
    })();
    assert!(error(&swapped.unwrap()).contains("the checksum of entry `data/0` is wrong"));
}

/// The entries of [`written`], one of them changed by `change`, under the list of the unchanged ones.
fn rewritten(change: impl Fn(&str, &[u8]) -> Vec<(String, Vec<u8>)>) -> Vec<u8> {
    let (file, _) = written();
    let mut archive = zip::ZipArchive::new(Cursor::new(&file)).unwrap();
    let mut writer = ArchiveWriter::new(Vec::new(), "archive");
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let name = entry.name().strip_prefix("archive/").unwrap().to_owned();
        let mut data = Vec::new();
        io::Read::read_to_end(&mut entry, &mut data).unwrap();
        for (name, data) in change(&name, &data) {
            writer.entry(&name, &data).unwrap();
        }
    }
    writer.finish().unwrap()
}

#[test]
fn entries_that_are_exchanged_missing_or_added_are_errors() {
    let same = |name: &str, data: &[u8]| vec![(name.to_owned(), data.to_vec())];
    assert_eq!(rewritten(same), written().0);
    let exchanged = rewritten(|name, data| match name {
        "data/0" => same("data/1", data),
        "data/1" => same("data/0", data),
        _ => same(name, data),
    });
    let missing = rewritten(|name, data| if name == "data/1" { vec![] } else { same(name, data) });
    for file in [exchanged, missing] {
        assert!(error(&file).contains("is not what the file's own list says: "), "{}", error(&file));
    }
    let replaced = rewritten(|name, data| same(name, if name == "data/0" { &[0; 8] } else { data }));
    assert!(error(&replaced).contains("entry `data/0` is not what the file's own list says: 8 bytes at "));
    let added = rewritten(|name, data| match name {
        "version" => [same("data/2", b"more"), same(name, data)].concat(),
        _ => same(name, data),
    });
    assert!(error(&added).contains("entry `version` is not what the file's own list says"), "{}", error(&added));
    let appended = rewritten(|name, data| match name {
        manifest::NAME => [same(name, data), same("data/2", b"more")].concat(),
        _ => same(name, data),
    });
    assert!(error(&appended).contains("its list of entries is not its last entry"));
    let before_the_list = rewritten(|name, data| match name {
        manifest::NAME => [same("data/2", b"more"), same(name, data)].concat(),
        _ => same(name, data),
    });
    assert!(
        error(&before_the_list).contains("it has 9 entries, and its own list 8; it was changed after it was written")
    );
    let later = rewritten(|name, data| match name {
        manifest::NAME => {
            let text = String::from_utf8(data.to_vec()).unwrap().replace("entries 1", "entries 2");
            let lines = &text[..text.len() - 9];
            same(name, format!("{lines}{:08x}\n", crc32fast::hash(lines.as_bytes())).as_bytes())
        }
        _ => same(name, data),
    });
    assert!(error(&later).contains("its list of entries is of a later version of Fulgurite"));
}

/// A container whose parts say what they like.
fn container(entries: &[(Entry, &[u8])], listed: &[usize]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut found = Vec::new();
    for (entry, data) in entries {
        found.push(file.len() as u64);
        file.extend(entry.local_header());
        file.extend(*data);
    }
    let at = file.len() as u64;
    let listed = listed.iter().map(|&index| {
        let (entry, _) = &entries[index];
        Entry { name: entry.name.clone(), header_at: found[index], ..*entry }
    });
    file.extend(directory(&listed.collect::<Vec<_>>(), at));
    file
}

fn entry(name: &str, data: &'static [u8]) -> (Entry, &'static [u8]) {
    (Entry { name: name.into(), header_at: 0, size: data.len() as u64, crc: crc32fast::hash(data) }, data)
}

const PICKLE: &[u8] = b"\x80\x02N.";

#[test]
fn entries_may_not_overlap_repeat_or_leave_the_folder() {
    let pickle = || entry("x/data.pkl", PICKLE);
    assert_eq!(read(&container(&[pickle(), entry("x/data/0", b"1")], &[0, 1])).unwrap(), Value::None);
    assert!(error(&container(&[pickle(), pickle()], &[0, 1])).contains("two entries are named `x/data.pkl`"));
    assert!(error(&container(&[pickle()], &[0, 0])).contains("two entries are named `x/data.pkl`"));
    for name in ["/data/0", "x/../../etc/passwd", "x/./0", "x//0", "../x/0", "x\\0", "C:/0", "x/\u{1b}[31m", "x/0\n"] {
        let message = error(&container(&[pickle(), entry(name, b"1")], &[0, 1]));
        assert!(message.contains(&format!("the name of an entry, {name:?}, is not a relative path")), "{message}");
    }
    // The first entry covers the second.
    let inner = container(&[entry("x/data/1", b"1")], &[0]);
    let (mut outer, _) = entry("x/data/0", b"");
    outer.size = inner.len() as u64;
    let file = container(&[pickle(), (outer, b""), entry("x/data/1", b"1")], &[0, 1, 2]);
    assert!(error(&file).contains("overlaps the one before it") || error(&file).contains("beyond"), "{}", error(&file));
}

/// What PyTorch, which believes the last mark of an end, and another reader could take for different files.
#[test]
fn archives_that_can_be_read_in_two_ways_are_refused() {
    let one = container(&[entry("x/data.pkl", PICKLE)], &[0]);
    let mut other = one.clone();
    let at = one.windows(4).position(|part| part == PICKLE).unwrap();
    other[at + 2] = 0x88;
    // The directory and the end of the other one, in a comment of the first; and what is no end in it.
    let directory = one.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    for comment in [other[directory..].to_vec(), [&other[directory..], b"."].concat(), b"a comment".to_vec()] {
        let mut commented = one.clone();
        let length = commented.len();
        commented[length - 2..].copy_from_slice(&(comment.len() as u16).to_le_bytes());
        commented.extend(comment);
        assert!(error(&commented).contains("programs could read it in different ways"), "{}", error(&commented));
    }
    // Bytes after the end, which PyTorch ignores.
    assert!(error(&[&one[..], b"more"].concat()).contains("has no end"));
    let pickle = || entry("x/data.pkl", PICKLE);
    // PyTorch finds either.
    let message = error(&container(&[pickle(), entry("x/Data.PKL", PICKLE)], &[0, 1]));
    assert!(message.contains("two entries are named `x/Data.PKL`"), "{message}");
    let message = error(&container(&[pickle(), entry("y/data.pkl", PICKLE)], &[0, 1]));
    assert!(message.contains("entry `y/data.pkl` is in another folder than the first one"), "{message}");
}

#[test]
fn sizes_beyond_the_file_are_errors_before_memory_is_taken() {
    for size in [5, 1 << 20, u64::from(u32::MAX), 1 << 40, i64::MAX as u64, u64::MAX - 100, u64::MAX] {
        let (mut lying, data) = entry("x/data.pkl", PICKLE);
        lying.size = size;
        let message = error(&container(&[(lying, data)], &[0]));
        assert!(message.contains("entry `data.pkl` reaches beyond the end of the file"), "{size}: {message}");
    }
}

#[test]
fn the_end_of_the_directory_may_not_lie() {
    let count = 70_000u32;
    let mut writer = ArchiveWriter::new(Vec::new(), "x");
    writer.entry("data.pkl", PICKLE).unwrap();
    for index in 1..count {
        writer.entry(&index.to_string(), b"").unwrap();
    }
    // With 64-bit numbers, as more than 65535 entries need.
    let file = writer.finish().unwrap();
    assert_eq!(read(&file).unwrap(), Value::None);
    let end = file.len() - 22;
    let locator = end - 20;
    let large_end = locator - 56;
    for (at, bytes) in [
        // Fewer entries than 16 bits would need, and more.
        (end + 8, &[1, 0, 1, 0][..]),
        (large_end + 24, &[0x71; 8]),
        (large_end + 32, &[0x71; 8]),
        // A directory beyond the file, and one that begins elsewhere.
        (large_end + 40, &[0xff; 8]),
        (large_end + 48, &[0xff; 8]),
        (large_end + 48, &[1, 0, 0, 0, 0, 0, 0, 0]),
        // The record itself elsewhere, or larger.
        (locator + 8, &[0xff; 8]),
        (locator + 8, &[0; 8]),
        (large_end + 4, &[0xff; 8]),
        (large_end, &[0; 4]),
        // Several disks.
        (locator + 16, &[9, 0, 0, 0]),
        (end + 4, &[1, 0]),
    ] {
        let mut lying = file.clone();
        lying[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(error(&lying).contains("damaged"), "at {at}: {}", error(&lying));
    }
}

#[test]
fn compressed_and_encrypted_entries_are_refused() {
    let file = container(&[entry("x/data.pkl", PICKLE)], &[0]);
    let central = file.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    let mut deflated = file.clone();
    deflated[8] = 8;
    deflated[central + 10] = 8;
    assert_eq!(
        error(&deflated),
        "the checkpoint cannot be read: entry `x/data.pkl` is compressed; write the file with torch.save"
    );
    let mut encrypted = file.clone();
    encrypted[6] |= 1;
    encrypted[central + 8] |= 1;
    assert_eq!(error(&encrypted), "the checkpoint cannot be read: entry `x/data.pkl` is encrypted");
    let mut only_in_the_directory = file;
    only_in_the_directory[central + 8] ^= 2;
    assert!(error(&only_in_the_directory).contains("`data.pkl` is another one in the file than in its directory"));
}
