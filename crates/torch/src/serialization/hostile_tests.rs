//! Pickles made to do harm, read by a process whose memory is limited: an error within it, each time.

use std::io::Cursor;
use std::process::Command;

use super::archive_writer::ArchiveWriter;
use super::*;

/// What a reader may take beyond what it has at the start: what a small pickle may expand to, in memory and again while
/// it grows.
const MEMORY: u64 = 768 << 20;

const SEARCHED: &str = "serialization::hostile_tests::a_process_with_little_memory";

fn repeated(part: &[u8], times: usize) -> Vec<u8> {
    part.repeat(times)
}

fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    let mut pickle = b"\x80\x02".to_vec();
    parts.iter().for_each(|part| pickle.extend(*part));
    pickle.push(b'.');
    pickle
}

/// A storage of 8 bytes, and the arguments before and after the size of a tensor over it.
const STORAGE: &[u8] = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ";
const REBUILD: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n";
const END_OF_TENSOR: &[u8] = b"\x89ccollections\nOrderedDict\n)Rt";

/// Each with a part of what is said about it.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let text = |size: usize| repeated_text(size, b'a');
    let memo: Vec<u8> =
        (0..1_000_000u32).flat_map(|place| [vec![b'r'], place.to_le_bytes().to_vec()].concat()).collect();
    let shapes = |dimensions: usize| [b"(".to_vec(), repeated(b"K\x01", dimensions), b"t".to_vec()].concat();
    vec![
        ("lists in lists", pickle(&[&repeated(b"]", 1_000_000), &repeated(b"a", 999_999)]), "nested deeper than 256"),
        ("tuples in tuples", pickle(&[b"N", &repeated(b"\x85", 1_000_000)]), "nested deeper than 256"),
        ("a list in itself", pickle(&[b"]q\0h\0a"]), "nested deeper than 256 levels, or contains itself"),
        ("a dict in itself", pickle(&[b"}q\0K\x01h\0s"]), "nested deeper than 256 levels, or contains itself"),
        ("marks", pickle(&[&repeated(b"(", 4_000_000), b"N"]), "makes more than it uses"),
        ("many places of the memo", pickle(&[b"]", &memo]), ""),
        ("a text of 4 GiB", pickle(&[b"X\xff\xff\xff\xff"]), "its pickle is cut"),
        ("an integer of 255 bytes", pickle(&[b"\x8a\xff", &repeated(b"\x7f", 255)]), "more than 64 bits"),
        ("a name without end", [b"\x80\x02c".to_vec(), repeated(b"a", 1 << 20)].concat(), "its pickle is cut"),
        ("a long name", pickle(&[b"c", &repeated(b"a", 1 << 20), b"\nb\n"]), "which is not plain data"),
        ("a shell", pickle(&[b"cposix\nsystem\nX\x02\0\0\0id\x85R"]), "`posix.system`, which is not plain data"),
        ("an import", pickle(&[b"c__builtin__\n__import__\nX\x02\0\0\0os\x85R"]), "`__builtin__.__import__`"),
        ("an attribute", pickle(&[b"ctorch\nhub.load\n)R"]), "`torch.hub.load`"),
        ("an escape sequence", pickle(&[b"c\x1b[31m\nx\n"]), "`\\u{1b}[31m.x`"),
        ("a call of a list", pickle(&[b"])R"]), "calls something that is not a name"),
        ("a call of a dtype", pickle(&[b"ctorch\nfloat32\n)R"]), "wrong arguments"),
        ("items of a list", pickle(&[b"]K\x01K\x02s"]), "something that is not a dict"),
        ("an item of a dict", pickle(&[b"}K\x01a"]), "something that is not a list"),
        ("a list as a key", pickle(&[b"}]K\x02s"]), "a dict has a key that is list"),
        ("a key twice", pickle(&[b"}K\x01K\x02sK\x01K\x03s"]), "the same key twice"),
        (
            "a tensor's item",
            pickle(&[REBUILD, b"(", STORAGE, b"K\0K\x01\x85K\x01\x85", END_OF_TENSOR, b"RK\x01a"]),
            "not a list",
        ),
        (
            "a sum of sizes that overflows",
            pickle(&[
                REBUILD,
                b"(",
                STORAGE,
                b"K\0\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85",
                END_OF_TENSOR,
                b"R",
            ]),
            "does not fit its storage",
        ),
        (
            "a million dimensions",
            pickle(&[REBUILD, b"(", STORAGE, b"K\0", &shapes(1_000_000), &shapes(1_000_000), END_OF_TENSOR, b"R"]),
            "1000000 dimensions",
        ),
        ("a million arguments", pickle(&[b"ctorch\nSize\n", &shapes(1_000_000), b"R"]), "1000000 arguments"),
        (
            "two million tensors",
            pickle(&[
                b"](",
                REBUILD,
                b"q\0(",
                STORAGE,
                b"K\0K\x01\x85K\x01\x85",
                END_OF_TENSOR,
                b"q\x01R",
                &repeated(b"h\0h\x01R", 2_000_000),
                b"e",
            ]),
            "they fill memory",
        ),
        (
            "another size of a storage",
            pickle(&[b"]", STORAGE, b"a", &replaced(STORAGE, b"K\x02tQ", b"K\x03tQ")]),
            "8 bytes, expected 12",
        ),
        (
            "a storage that is not there",
            pickle(&[&replaced(STORAGE, b"\x000X", b"\x001X")]),
            "entry `data/1` is missing",
        ),
        (
            "a storage by a path",
            pickle(&[b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x0b\0\0\0../data.pkl0X\x03\0\0\0cpuK\x02tQ"]),
            "",
        ),
        ("a bare storage", pickle(&[STORAGE]), "a bare storage"),
        (
            "a long text, copied",
            pickle(&[
                &text(1 << 20),
                b"q\0X\x06\0\0\0latin1q\x01",
                &repeated(b"c_codecs\nencode\nh\0h\x01\x86R", 10_000),
            ]),
            "they fill memory",
        ),
        (
            "a long list, copied",
            pickle(&[b"](", &repeated(b"N", 100_000), b"e\x85q\0", &repeated(b"c__builtin__\nset\nh\0R", 100_000)]),
            "they fill memory",
        ),
        (
            "keys of control characters, each of them long",
            pickle(&[
                &repeated_text(1 << 20, 1),
                b"q\0}(",
                &(0..400u32).flat_map(|n| [&b"h\0J"[..], &n.to_le_bytes(), b"\x86N"].concat()).collect::<Vec<u8>>(),
                b"u\x86",
            ]),
            "they fill memory",
        ),
        (
            "many keys of control characters",
            pickle(&[
                b"}(",
                &(0..100_000u32)
                    .flat_map(|n| [&b"X\x06\0\0\0\x01"[..], format!("{n:05}").as_bytes(), b"N"].concat())
                    .collect::<Vec<u8>>(),
                b"u",
            ]),
            "",
        ),
        ("four million objects", pickle(&[b"(", &repeated(b"N", 4_000_000), b"t"]), ""),
    ]
}

fn repeated_text(size: usize, letter: u8) -> Vec<u8> {
    [&b"X"[..], &(size as u32).to_le_bytes(), &vec![letter; size]].concat()
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|part| part == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new(), "x");
    archive.entry("data.pkl", pickle).unwrap();
    archive.entry("data/0", &[0; 8]).unwrap();
    archive.finish().unwrap()
}

#[test]
fn hostile_pickles_are_errors_within_limited_memory() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", SEARCHED, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    assert!(
        child.status.success(),
        "{}{}",
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr)
    );
}

#[test]
#[ignore = "run in a process of its own by the test above"]
fn a_process_with_little_memory() {
    let files: Vec<_> = hostile().into_iter().map(|(name, pickle, said)| (name, checkpoint(&pickle), said)).collect();
    // So that libtorch has made what it makes once.
    let _ = load_from(Cursor::new(include_bytes!("../../tests/files/torch-2.11-adam.pt"))).unwrap();
    limit_memory();
    for (name, file, said) in files {
        // In its own thread, with the little stack that threads have.
        let outcome = std::thread::spawn(move || {
            let verified = verify_from(Cursor::new(&file)).map_err(|error| error.to_string());
            let loaded = load_from(Cursor::new(&file)).map(drop).map_err(|error| error.to_string());
            assert_eq!(verified, loaded);
            loaded
        });
        match outcome.join().unwrap() {
            Ok(()) => assert!(said.is_empty(), "{name}: no error"),
            Err(message) => assert!(message.contains(said) && message.len() < 1000, "{name}: {message}"),
        }
    }
}

/// A tensor of four `bool`s, and the same storage as bytes.
#[test]
fn a_bool_is_true_or_false_whatever_its_byte_is() {
    let storage = replaced(STORAGE, b"FloatStorage", b"BoolStorage");
    let storage = replaced(&storage, b"K\x02tQ", b"K\x08tQ");
    let rebuild = [REBUILD, b"(", &storage, b"K\0K\x04\x85K\x01\x85", END_OF_TENSOR, b"R"].concat();
    let mut archive = ArchiveWriter::new(Vec::new(), "x");
    archive.entry("data.pkl", &pickle(&[b"](", &rebuild, &rebuild, b"e"])).unwrap();
    archive.entry("data/0", &[0, 1, 2, 255, 0, 0, 0, 0]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    std::fs::write(&path, archive.finish().unwrap()).unwrap();
    for value in [load(&path).unwrap(), load_mmap(&path).unwrap()] {
        let [a, b] = value.as_list().unwrap() else { panic!("{value:?}") };
        let (a, b) = (a.as_tensor().unwrap(), b.as_tensor().unwrap());
        assert_eq!(writing::bytes(a), [0, 1, 1, 1]);
        assert_eq!(a.data_ptr(), b.data_ptr(), "tied tensors stay tied");
    }
}

/// Every opcode, and every name, with nothing to work on and in front of every prefix of a sound pickle.
#[test]
fn a_pickle_that_is_cut_anywhere_is_an_error() {
    let file = include_bytes!("../../tests/files/torch-2.11-adam.pt");
    let mut archive = archive_reader::ArchiveReader::open(Cursor::new(file)).unwrap();
    let whole = archive.read("data.pkl", 1 << 20).unwrap();
    for length in 0..whole.len() {
        assert!(load_from(Cursor::new(checkpoint(&whole[..length]))).is_err(), "{length}");
    }
    for opcode in 0..=255 {
        for at in (0..whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[at] = opcode;
            let _ = load_from(Cursor::new(checkpoint(&changed)));
        }
    }
}

#[cfg(target_os = "linux")]
fn limit_memory() {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split_whitespace().next().unwrap().parse().unwrap();
    let limit = libc::rlimit { rlim_cur: pages * 4096 + MEMORY, rlim_max: pages * 4096 + MEMORY };
    // SAFETY: a system call that reads the struct it is given.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

#[cfg(not(target_os = "linux"))]
fn limit_memory() {}
