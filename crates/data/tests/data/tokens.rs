//! Files of tokens that are mapped into memory.

use std::fs;

use fulgurite_data::datasets::{TokenBlocks, TokenType};
use fulgurite_data::{DataError, DataLoader, Dataset, Loader};
use tempfile::tempdir;

const NPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fixtures/tokens.npy");

/// The first inputs and targets of each batch, with workers.
fn blocks(blocks: TokenBlocks) -> Vec<(Vec<i64>, Vec<i64>)> {
    let numbers = |tensor: fulgurite_data::torch::tch::Tensor| Vec::try_from(tensor.view(-1)).unwrap();
    let batches = DataLoader::new(blocks).batch_size(2).num_workers(2).seed(4).iter(0, 0).unwrap();
    batches.map(Result::unwrap).map(|(inputs, targets)| (numbers(inputs), numbers(targets))).collect()
}

#[test]
fn mapped_tokens_are_those_in_memory() {
    let root = tempdir().unwrap();
    let (short, long) = (root.path().join("u16.bin"), root.path().join("u32.bin"));
    let tokens: Vec<u32> = (0..1000).map(|n| n * 65 % 65_536).collect();
    fs::write(&short, tokens.iter().flat_map(|&token| (token as u16).to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    fs::write(&long, tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let memory = TokenBlocks::new(tokens, 8).unwrap();
    for mapped in [
        TokenBlocks::from_bin(&short, TokenType::U16, 8).unwrap(),
        TokenBlocks::from_bin(&long, TokenType::U32, 8).unwrap(),
    ] {
        assert_eq!((mapped.num_tokens(), mapped.len()), (1000, 124));
        assert_eq!(blocks(mapped.clone()), blocks(memory.clone()));
        assert_eq!(blocks(mapped.clone().random(6)), blocks(memory.clone().random(6)));
        let ((train, val), (expected_train, expected_val)) = (mapped.split(0.9).unwrap(), memory.split(0.9).unwrap());
        assert_eq!((blocks(train), blocks(val)), (blocks(expected_train), blocks(expected_val)));
    }
}

#[test]
fn arrays_of_numpy_are_tokens() {
    let blocks = TokenBlocks::from_npy(NPY, 5).unwrap();
    assert_eq!(blocks.tokens(0..11).unwrap(), (60_000..60_011).collect::<Vec<i64>>());
    assert_eq!(blocks.len(), 2);
    let error = blocks.tokens(3..12).unwrap_err().to_string();
    assert_eq!(error, "there are 11 tokens, and 3..12 was asked for");
}

#[test]
fn files_that_hold_no_tokens_are_explained() {
    let root = tempdir().unwrap();
    let path = root.path().join("tokens");
    let plain = |error: DataError| error.to_string().replace(&root.path().display().to_string(), "ROOT");
    fs::write(&path, [0; 7]).unwrap();
    assert_eq!(
        plain(TokenBlocks::from_bin(&path, TokenType::U16, 1).unwrap_err()),
        "ROOT/tokens is not usable: it has 7 bytes, and tokens of U16 have 2 each; it is cut off, or of another type"
    );
    assert_eq!(plain(TokenBlocks::from_npy(&path, 1).unwrap_err()), "ROOT/tokens is not usable: its header is cut off");
    let mut bytes = fs::read(NPY).unwrap();
    bytes.pop();
    fs::write(&path, &bytes).unwrap();
    assert_eq!(
        plain(TokenBlocks::from_npy(&path, 1).unwrap_err()),
        "ROOT/tokens is not usable: an array of [11] needs 22 bytes after the header, and there are 21; it is cut off or \
         damaged"
    );
    let signed = String::from_utf8_lossy(&fs::read(NPY).unwrap()[..128]).replace("<u2", "<i2");
    fs::write(
        &path,
        [&b"\x93NUMPY"[..], &signed.as_bytes()[signed.find("NUMPY").unwrap() + 5..], &[0xff; 22]].concat(),
    )
    .unwrap();
    assert_eq!(
        plain(DataError::Setting(TokenBlocks::from_npy(&path, 1).unwrap().tokens(2..4).unwrap_err().to_string())),
        "token 2 of ROOT/tokens is -1; tokens are not negative"
    );
    assert_eq!(
        plain(TokenBlocks::from_bin(root.path().join("none"), TokenType::U32, 1).unwrap_err()),
        "cannot read ROOT/none: No such file or directory (os error 2)"
    );
}
