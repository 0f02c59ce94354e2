//! Tar shards, written by Python's `tarfile` in three formats.

use std::collections::BTreeSet;
use std::fs;

use fulgurite_data::datasets::{WebDataset, WebSample};
use fulgurite_data::torch::tch::Tensor;
use fulgurite_data::{BoxError, IterableDataLoader, IterableDataset, Loader};
use tempfile::{TempDir, tempdir};

use super::{check_resuming_and_dividing, error_of, fixture, names};

fn key(sample: WebSample) -> Result<String, BoxError> {
    Ok(sample.key().to_owned())
}

fn all() -> WebDataset {
    WebDataset::open(&fixture("shard-{00..02}.tar")).unwrap()
}

#[test]
fn members_with_a_common_name_are_one_sample() {
    let described = all().try_map(|sample, _| {
        // The file `b.c.jpg` is the part `c.jpg` of `b`.
        let number = sample.class("cls;c.cls")?;
        assert_eq!(sample.bytes("png;jpg;c.jpg")?, [number as u8, 1, 2]);
        assert_eq!(sample.json("json;c.json")?["number"], number);
        assert_eq!(sample.npy("x.npy;c.x.npy")?, Tensor::from_slice(&[number as f32, 0.5]).view([1, 2]));
        assert_eq!(sample.text("cls;c.cls")?, format!("{number}\n"));
        Ok((number, sample.key().to_owned()))
    });
    let batches = IterableDataLoader::new(described).batch_size(9).num_workers(2).iter(0, 0).unwrap();
    let (numbers, keys) = batches.map(Result::unwrap).next().unwrap();
    assert_eq!(numbers, Tensor::from_slice(&[0i64, 1, 2, 3, 4]));
    let long = format!("deep/{}", "folder/".repeat(20));
    assert_eq!(keys, ["a".to_owned(), "b".to_owned(), format!("{long}c"), format!("{long}d"), format!("{long}é")]);
}

#[test]
fn what_follows_the_first_dot_is_the_name_of_a_part() {
    let dotted = all().try_map(|sample, _| Ok(sample.parts().keys().cloned().collect::<Vec<_>>().join(" ")));
    let parts: Vec<String> = IterableDataLoader::new(dotted).iter(0, 0).unwrap().flat_map(Result::unwrap).collect();
    assert_eq!(parts[1], "c.cls c.jpg c.json c.x.npy");
}

#[test]
fn a_resumed_stream_goes_on_and_processes_share_it() {
    check_resuming_and_dividing(&all(), key);
    check_resuming_and_dividing(&all().shuffle_shards(true).shuffle(3), key);
    let (_root, one) =
        shard(&[("x0.cls", b"0"), ("x1.cls", b"1"), ("x2.cls", b"2"), ("x3.cls", b"3"), ("x4.cls", b"4")]);
    check_resuming_and_dividing(&one, key);
}

#[test]
fn shards_come_in_another_order_every_epoch() {
    let shuffled = names(&all().shuffle_shards(true), 0, key);
    let orders: BTreeSet<Vec<String>> = (0..12).map(|epoch| super::items(&shuffled, epoch, 0)).collect();
    assert!(orders.len() > 2, "{orders:?}");
    assert!(orders.iter().all(|order| order.len() == 5));
}

#[test]
fn parts_that_are_not_there_are_explained() {
    let (root, samples) = shard(&[("x.cls", b"one"), ("x.json", b"{"), ("x.txt", b"\xff"), ("x.npy", b"1")]);
    let error = |read: fn(WebSample) -> Result<String, BoxError>| error_of(&samples, root.path(), read);
    let begin = "item 0 of ROOT/shard.tar could not be loaded: ";
    assert_eq!(
        error(|sample| Ok(format!("{:?}", sample.bytes("jpg;jpeg")?))),
        format!("{begin}jpg;jpeg of x in ROOT/shard.tar: it is not there; there are: cls, json, npy, txt")
    );
    assert_eq!(
        error(|sample| Ok(sample.class("cls")?.to_string())),
        format!("{begin}cls of x in ROOT/shard.tar: `one` is no whole number")
    );
    assert_eq!(
        error(|sample| Ok(sample.json("json")?.to_string())),
        format!("{begin}json of x in ROOT/shard.tar: EOF while parsing an object at line 1 column 1")
    );
    assert_eq!(
        error(|sample| Ok(sample.text("txt")?.to_owned())),
        format!("{begin}txt of x in ROOT/shard.tar: it is not text in UTF-8")
    );
    assert_eq!(
        error(|sample| Ok(format!("{:?}", sample.npy("npy")?))),
        format!("{begin}npy of x in ROOT/shard.tar: its header is cut off")
    );
}

/// A header as `tar` writes it, and the data.
fn member(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    header[156] = b'0';
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = [&header[..], data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn shard(members: &[(&str, &[u8])]) -> (TempDir, WebDataset) {
    let mut bytes: Vec<u8> = members.iter().flat_map(|(name, data)| member(name, data)).collect();
    bytes.extend([0; 1024]);
    write(&bytes)
}

fn write(bytes: &[u8]) -> (TempDir, WebDataset) {
    let root = tempdir().unwrap();
    let path = root.path().join("shard.tar");
    fs::write(&path, bytes).unwrap();
    (root, WebDataset::from_paths([path]).unwrap())
}

#[test]
fn damaged_shards_are_named() {
    let error = |bytes: &[u8]| {
        let (root, samples) = write(bytes);
        error_of(&samples, root.path(), key)
    };
    let (one, two) = (member("a.cls", &[1; 600]), member("b.cls", b"2"));
    let whole = [&one[..], &two].concat();
    let begin = |position| {
        format!("record {position} of ROOT/shard.tar could not be read: ROOT/shard.tar is not usable: it is ")
    };
    assert_eq!(
        error(&whole[..1000]),
        begin(0) + "cut off: a member from byte 512 on has 600 bytes, and the file ends after 1000"
    );
    // At the end of a member, only the missing end of the file shows it.
    let cut_off = "cut off: it ends after 2560 bytes, without the empty blocks that end a tar file";
    assert_eq!(error(&whole), begin(1) + cut_off);
    let mut damaged = whole.clone();
    damaged[one.len() + 3] ^= 1;
    assert_eq!(error(&damaged), begin(0) + "damaged at byte 1536: no header of a tar file is there");
    let gzip = [&[0x1f, 0x8b][..], &[0; 600]].concat();
    assert_eq!(
        error(&gzip),
        begin(0) + "compressed, so that nothing in it can be found without unpacking all before it; unpack it"
    );
    let twice = [&member("a.cls", b"1")[..], &member("a.cls", b"1"), &[0; 1024]].concat();
    assert_eq!(
        error(&twice),
        "record 0 of ROOT/shard.tar could not be read: ROOT/shard.tar has two members a.cls in one sample"
    );
    let missing = WebDataset::open("nowhere/{0..1}.tar").unwrap_err().to_string();
    assert_eq!(missing, "the shard nowhere/0.tar is not there, or is no file");
}
