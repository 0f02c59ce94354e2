//! The readers of files, on small files written here; damaged and foreign ones included.
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use fulgurite_data::datasets::{Cifar10, CsvTable, FashionMnist, Mnist, TokenBlocks};
use fulgurite_data::torch::tch::{Device, Kind, Tensor};
use fulgurite_data::{DataError, DataLoader, Dataset, Loader};
use tempfile::{TempDir, tempdir};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn idx(size: &[u32], data: &[u8]) -> Vec<u8> {
    let header = [0, 0, 8, size.len() as u8];
    [&header[..], &size.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>(), data].concat()
}

/// Three images of 2×2 for training, one for testing.
fn write_mnist(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let write = |name: &str, bytes: Vec<u8>| fs::write(folder.join(name), bytes).unwrap();
    write("train-images-idx3-ubyte", idx(&[3, 2, 2], &[0, 51, 102, 153, 204, 255, 0, 0, 1, 2, 3, 4]));
    write("train-labels-idx1-ubyte.gz", gzip(&idx(&[3], &[7, 0, 9])));
    write("t10k-images-idx3-ubyte.gz", gzip(&idx(&[1, 2, 2], &[255; 4])));
    write("t10k-labels-idx1-ubyte", idx(&[1], &[3]));
}

fn mnist_with(name: &str, bytes: &[u8]) -> String {
    let root = tempdir().unwrap();
    write_mnist(root.path());
    fs::write(root.path().join(name), bytes).unwrap();
    plain(&root, Mnist::load(root.path()).unwrap_err())
}

/// The message without the folder's random name.
fn plain(root: &TempDir, error: DataError) -> String {
    error.to_string().replace(&root.path().display().to_string(), "ROOT")
}

#[test]
fn mnist_is_read_plain_and_gzipped_from_both_folders() {
    for below in ["", "MNIST/raw"] {
        let root = tempdir().unwrap();
        write_mnist(&root.path().join(below));
        let Mnist { train, test } = Mnist::load(root.path()).unwrap();
        let (images, labels) = train.tensors().unwrap();
        assert_eq!((images.size(), images.kind()), (vec![3, 1, 2, 2], Kind::Float));
        assert_eq!(labels, Tensor::from_slice(&[7i64, 0, 9]));
        assert_eq!(images.get(0), Tensor::from_slice(&[0.0f32, 0.2, 0.4, 0.6]).view([1, 2, 2]));
        // Batches gathered at once equal items stacked one by one.
        let (x, y) = DataLoader::new(test).batch_size(1).iter(0, 0).unwrap().next().unwrap().unwrap();
        assert_eq!((x, y), (Tensor::ones([1, 1, 2, 2], (Kind::Float, Device::Cpu)), Tensor::from_slice(&[3i64])));
    }
}

#[test]
fn missing_mnist_says_what_to_put_where() {
    let root = tempdir().unwrap();
    assert_eq!(
        plain(&root, FashionMnist::load(root.path()).unwrap_err()),
        "Fashion-MNIST needs the file train-images-idx3-ubyte or train-images-idx3-ubyte.gz in ROOT or \
         ROOT/FashionMNIST/raw, and it is in neither; download it from \
         http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/ and put it there, or turn on the feature \
         `download` and call `download` first"
    );
}

#[test]
fn damaged_mnist_is_explained() {
    assert_eq!(
        mnist_with("train-images-idx3-ubyte", &idx(&[3, 2, 2], &[0; 11])),
        "ROOT/train-images-idx3-ubyte is not usable: its header announces [3, 2, 2] bytes, but 11 follow; it is cut off \
         or damaged, download it again"
    );
    assert_eq!(
        mnist_with("train-images-idx3-ubyte", &idx(&[u32::MAX; 3], &[0; 11])),
        "ROOT/train-images-idx3-ubyte is not usable: its header announces [4294967295, 4294967295, 4294967295] bytes, \
         but 11 follow; it is cut off or damaged, download it again"
    );
    assert_eq!(
        mnist_with("train-images-idx3-ubyte", b"<html>404</html>"),
        "ROOT/train-images-idx3-ubyte is not usable: an IDX file of bytes with 3 dimensions begins with 00 00 08 03, \
         this one with 3c 68 74 6d"
    );
    assert_eq!(
        mnist_with("train-images-idx3-ubyte", &[0, 0]),
        "ROOT/train-images-idx3-ubyte is not usable: an IDX file of bytes with 3 dimensions begins with 00 00 08 03, \
         this one with 00 00"
    );
    assert_eq!(
        mnist_with("train-labels-idx1-ubyte", &idx(&[2], &[1, 2])),
        "ROOT/train-labels-idx1-ubyte is not usable: it has 2 labels for the 3 images of ROOT/train-images-idx3-ubyte"
    );
    assert_eq!(
        mnist_with("train-labels-idx1-ubyte", &idx(&[3], &[7, 255, 9])),
        "ROOT/train-labels-idx1-ubyte is not usable: item 1 has the label 255, but MNIST has classes 0 to 9"
    );
    assert_eq!(
        mnist_with("train-images-idx3-ubyte", &idx(&[3, 2, 2], &[0; 13])),
        "ROOT/train-images-idx3-ubyte is not usable: its header announces [3, 2, 2] bytes, but more follow; it is \
         damaged, download it again"
    );
    let cut = gzip(&idx(&[3], &[7, 0, 9]));
    let message = mnist_with("train-labels-idx1-ubyte.gz", &cut[..cut.len() - 6]);
    assert!(
        message.starts_with("ROOT/train-labels-idx1-ubyte.gz is not usable: its gzip data is damaged or cut off ("),
        "{message}"
    );
}

/// Gzip data of so many zeros after `head`: a thousandth of their number.
fn bomb(head: &[u8], zeros: u64) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(head).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(zeros), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_bombs_are_not_unpacked_whole() {
    let zeros = 257 << 20;
    let too_much = "it is gzip data that unpacks to more than 256 MiB, too much for its length; if that is right, unpack \
                    it with gunzip first";
    assert_eq!(
        mnist_with("train-labels-idx1-ubyte.gz", &bomb(&idx(&[3], &[7, 0, 9]), 1 << 24)),
        "ROOT/train-labels-idx1-ubyte.gz is not usable: its header announces [3] bytes, but more follow; it is damaged, \
         download it again"
    );
    // The header announces as much.
    assert_eq!(
        mnist_with("train-labels-idx1-ubyte.gz", &bomb(&idx(&[zeros], &[]), zeros.into())),
        format!("ROOT/train-labels-idx1-ubyte.gz is not usable: {too_much}")
    );
    let root = tempdir().unwrap();
    let bomb = bomb(&[], zeros.into());
    write_cifar(root.path(), 1, 0);
    fs::remove_file(root.path().join("data_batch_1.bin")).unwrap();
    fs::write(root.path().join("data_batch_1.bin.gz"), &bomb).unwrap();
    assert_eq!(
        plain(&root, Cifar10::load(root.path()).unwrap_err()),
        "ROOT/data_batch_1.bin.gz is not usable: it has more than the 10000 records that each file of CIFAR-10 has"
    );
    let path = root.path().join("text.gz");
    fs::write(&path, &bomb).unwrap();
    let error = plain(&root, TokenBlocks::from_file(&path, 8).unwrap_err());
    assert_eq!(error, format!("ROOT/text.gz is not usable: {too_much}"));
    let error = plain(&root, CsvTable::read(&path).unwrap_err());
    assert_eq!(error, format!("ROOT/text.gz is not usable: {too_much}"));
}

#[test]
fn devices_without_an_end_are_refused() {
    let error = TokenBlocks::from_file("/dev/zero", 8).unwrap_err().to_string();
    assert_eq!(
        error,
        "/dev/zero is not usable: more than 256 MiB come out of it, and it is no regular file; save it to one first"
    );
}

/// As `cat a.gz b.gz` and `bgzip` make them.
#[test]
fn gzip_data_of_several_members_is_read_whole() {
    let root = tempdir().unwrap();
    let path = root.path().join("text.gz");
    fs::write(&path, [gzip(b"abcde"), gzip(b"fghij")].concat()).unwrap();
    assert_eq!(TokenBlocks::from_file(&path, 3).unwrap().num_tokens(), 10);
    fs::write(root.path().join("table.csv.gz"), gzip(b"a,b\n1,2\n")).unwrap();
    assert_eq!(CsvTable::read(root.path().join("table.csv.gz")).unwrap().columns(), ["a", "b"]);
}

fn write_cifar(root: &Path, records: usize, label: u8) {
    for name in (1..=5).map(|i| format!("data_batch_{i}.bin")).chain(["test_batch.bin".into()]) {
        let record = [vec![label], vec![255; 1024], vec![0; 2048]].concat();
        fs::write(root.join(name), record.repeat(records)).unwrap();
    }
}

#[test]
fn cifar_is_read() {
    let root = tempdir().unwrap();
    write_cifar(root.path(), 2, 4);
    let Cifar10 { train, test } = Cifar10::load(root.path()).unwrap();
    assert_eq!((train.len(), test.len()), (10, 2));
    let (images, labels) = test.tensors().unwrap();
    assert_eq!(images.size(), [2, 3, 32, 32]);
    assert_eq!(
        images.mean_dim([2i64, 3].as_slice(), false, Kind::Float).get(1),
        Tensor::from_slice(&[1.0f32, 0.0, 0.0])
    );
    assert_eq!(Cifar10::CLASSES[labels.int64_value(&[0]) as usize], "deer");
}

#[test]
fn damaged_cifar_is_explained() {
    let root = tempdir().unwrap();
    write_cifar(root.path(), 1, 10);
    assert_eq!(
        plain(&root, Cifar10::load(root.path()).unwrap_err()),
        "ROOT/data_batch_1.bin is not usable: record 0 has the label 10, but CIFAR-10 has classes 0 to 9"
    );
    fs::write(root.path().join("data_batch_1.bin"), [0; 5000]).unwrap();
    assert_eq!(
        plain(&root, Cifar10::load(root.path()).unwrap_err()),
        "ROOT/data_batch_1.bin is not usable: its 5000 bytes are not whole records of 3073 (a label, and 3×32×32 \
         pixels); it is cut off or not a file of the binary version of CIFAR-10"
    );
    fs::remove_file(root.path().join("data_batch_1.bin")).unwrap();
    let missing = plain(&root, Cifar10::load(root.path()).unwrap_err());
    assert!(missing.starts_with("CIFAR-10 needs the file data_batch_1.bin or data_batch_1.bin.gz in ROOT or"));
}

fn csv(content: &[u8]) -> (TempDir, Result<CsvTable, DataError>) {
    let root = tempdir().unwrap();
    let path = root.path().join("table.csv");
    fs::write(&path, content).unwrap();
    let table = CsvTable::read(&path);
    (root, table)
}

#[test]
fn csv_columns_become_tensors() {
    let (_root, table) = csv(b"length, width,species\n1.5,2,versicolor\n-3,4e1,\"setosa\"\n5,6,versicolor\n");
    let table = table.unwrap();
    assert_eq!((table.columns().join("|"), table.num_rows()), ("length|width|species".into(), 3));
    let numbers = table.numbers(&["width", "length"]).unwrap();
    assert_eq!(numbers, Tensor::from_slice(&[2.0f32, 1.5, 40.0, -3.0, 6.0, 5.0]).view([3, 2]));
    let (labels, names) = table.classes("species").unwrap();
    assert_eq!(labels, Tensor::from_slice(&[1i64, 0, 1]));
    assert_eq!(names, ["setosa", "versicolor"]);
}

/// Looking each name up in the list of all takes a minute.
#[test]
fn a_hundred_thousand_columns_are_found_at_once() {
    let names: Vec<String> = (0..100_000).map(|at| format!("column_{at}")).collect();
    let numbers: Vec<String> = (0..100_000).map(|at| at.to_string()).collect();
    let (root, table) = csv(format!("{}\n{}\n", names.join(","), numbers.join(",")).as_bytes());
    let table = table.unwrap();
    let begun = std::time::Instant::now();
    let values = table.numbers(&names).unwrap();
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    assert_eq!(values, Tensor::arange(100_000, (Kind::Float, Device::Cpu)).view([1, -1]));
    let error = plain(&root, table.numbers(&["x"]).unwrap_err());
    assert!(error.ends_with("column_30, column_31 and 99968 others") && error.len() < 600, "{error}");
    let (_root, twice) = csv(b"a,a\n1,2\n");
    assert_eq!(twice.unwrap().numbers(&["a"]).unwrap(), Tensor::from_slice(&[1.0f32]).view([1, 1]));
}

#[test]
fn csv_without_names_and_with_other_delimiters() {
    let root = tempdir().unwrap();
    let path = root.path().join("table.tsv");
    fs::write(&path, "1\t2\n3\t4\n").unwrap();
    let table = CsvTable::read_delimited(&path, b'\t', false).unwrap();
    assert_eq!(table.numbers(&["1"]).unwrap(), Tensor::from_slice(&[2.0f32, 4.0]).view([2, 1]));
}

#[test]
fn damaged_csv_is_explained() {
    let message = |content: &[u8], read: fn(CsvTable) -> DataError| {
        let (root, table) = csv(content);
        plain(&root, table.map_or_else(|error| error, read))
    };
    let numbers = |table: CsvTable| table.numbers(&["age"]).unwrap_err();
    assert_eq!(
        message(b"name,age\nAda,36\nBob,old\n", numbers),
        "ROOT/table.csv is not usable: `old` in line 3, column `age`, is not a number"
    );
    assert_eq!(
        message(b"name,age\nAda,36\nBob,n/a\n", numbers),
        "ROOT/table.csv is not usable: `n/a` in line 3, column `age`, is a missing value; leave out its row with \
         drop_missing, or read it as NaN with numbers_or_nan"
    );
    assert_eq!(
        message(b"name,years\nAda,36\n", numbers),
        "ROOT/table.csv is not usable: it has no column `age`; there are: name, years"
    );
    assert_eq!(
        message(b"name,age\nAda,36\nBob\n", numbers),
        "ROOT/table.csv is not usable: line 3 has 1 values, the lines before have 2"
    );
    assert_eq!(
        message(b"name,age\nAd\xff,36\n", numbers),
        "ROOT/table.csv is not usable: line 2 is not text in UTF-8; save the file as UTF-8"
    );
    assert_eq!(message(b"name,age\n", numbers), "ROOT/table.csv is not usable: it has no rows");
    let missing = CsvTable::read("nowhere/table.csv").unwrap_err().to_string();
    assert_eq!(missing, "cannot read nowhere/table.csv: No such file or directory (os error 2)");
}

#[test]
fn text_is_cut_into_blocks_with_their_successors() {
    let root = tempdir().unwrap();
    let path = root.path().join("text");
    fs::write(&path, "abcdefghij").unwrap();
    let blocks = TokenBlocks::from_file(&path, 3).unwrap();
    let (inputs, targets) = DataLoader::new(blocks).batch_size(3).iter(0, 0).unwrap().next().unwrap().unwrap();
    let text = |tensor: Tensor| {
        let bytes = Vec::<i64>::try_from(tensor.view(-1)).unwrap();
        String::from_utf8(bytes.into_iter().map(|byte| byte as u8).collect()).unwrap()
    };
    assert_eq!(inputs.size(), [3, 3]);
    assert_eq!((text(inputs).as_str(), text(targets).as_str()), ("abcdefghi", "bcdefghij"));
}

#[test]
fn random_blocks_differ_by_epoch_not_by_workers() {
    let starts = |workers, epoch| {
        let blocks = TokenBlocks::new((0..1000).collect::<Vec<_>>(), 8).unwrap().random(32);
        let loader = DataLoader::new(blocks).batch_size(4).num_workers(workers).seed(5);
        loader.iter(epoch, 0).unwrap().map(|batch| batch.unwrap()).fold(vec![], |mut all, (inputs, targets)| {
            assert_eq!(&inputs + 1, targets);
            all.extend(Vec::<i64>::try_from(inputs.select(1, 0)).unwrap());
            all
        })
    };
    assert_eq!(starts(0, 0).len(), 32);
    assert_eq!(starts(0, 0), starts(3, 0));
    assert_ne!(starts(0, 0), starts(0, 1));
}

#[test]
fn texts_too_short_are_explained() {
    let message = |result: Result<TokenBlocks, DataError>| result.unwrap_err().to_string();
    assert_eq!(
        message(TokenBlocks::from_bytes(b"short", 5)),
        "one block of 5 tokens and their successors needs 6 tokens, but the text has 5; use more text or a smaller \
         block_size"
    );
    assert_eq!(message(TokenBlocks::from_bytes(b"short", 0)), "block_size is 0; a block has at least one token");
    let text = TokenBlocks::from_bytes(b"a longer text", 2).unwrap();
    assert_eq!(
        text.split(1.0).unwrap_err().to_string(),
        "a text cannot be split at 1; give a fraction between 0 and 1"
    );
}

#[cfg(feature = "tokenizers")]
#[test]
fn a_tokenizer_json_gives_the_tokens() {
    let root = tempdir().unwrap();
    let (text, tokenizer) = (root.path().join("text"), root.path().join("tokenizer.json"));
    fs::write(&text, "to be or not to be").unwrap();
    let description = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "to": 1, "be": 2, "or": 3}}}"#;
    fs::write(&tokenizer, description).unwrap();
    let blocks = TokenBlocks::from_file_tokenized(&text, &tokenizer, 2).unwrap();
    assert_eq!(blocks.tokens(0..6).unwrap(), [1, 2, 3, 0, 1, 2]);
    fs::write(&tokenizer, "{}").unwrap();
    let error = plain(&root, TokenBlocks::from_file_tokenized(&text, &tokenizer, 2).unwrap_err());
    assert!(
        error.starts_with("ROOT/tokenizer.json is not usable: it is not a tokenizer.json of Hugging Face: "),
        "{error}"
    );
    fs::write(&tokenizer, description).unwrap();
    assert_eq!(TokenBlocks::from_text_tokenized("or be", &tokenizer, 1).unwrap().tokens(0..2).unwrap(), [3, 2]);
    fs::write(&text, [0xff]).unwrap();
    let error = plain(&root, TokenBlocks::from_file_tokenized(&text, &tokenizer, 2).unwrap_err());
    assert!(error.starts_with("ROOT/text is not usable: it is not text in UTF-8: "), "{error}");
    // A file with a hole has a length and takes no room.
    fs::File::create(&text).unwrap().set_len(1536 << 20).unwrap();
    assert_eq!(
        plain(&root, TokenBlocks::from_file_tokenized(&text, &tokenizer, 2).unwrap_err()),
        "ROOT/text is not usable: it is a text of more than 256 MiB, and a tokenizer takes ten times as much memory; take \
         a part of it, or hand the text to TokenBlocks::from_text_tokenized"
    );
}
