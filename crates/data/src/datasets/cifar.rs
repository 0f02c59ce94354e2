//! [`Cifar10`]: small colour photographs.

use std::path::Path;

use fulgurite_torch::TorchError;
use fulgurite_torch::tch::{Kind, Tensor};

use super::ImageDataset;
#[cfg(feature = "download")]
use super::files::read_bytes;
use super::files::{Content, Source, failed, unusable};
use crate::DataError;

/// Photographs, 3×32×32, ten classes (A. Krizhevsky 2009), in the binary version.
#[derive(Debug)]
pub struct Cifar10 {
    /// 50,000 photographs.
    pub train: ImageDataset,
    /// 10,000 photographs.
    pub test: ImageDataset,
}

const CIFAR_10: Source = Source {
    name: "CIFAR-10",
    folder: "cifar-10-batches-bin",
    url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
};
const PIXELS: usize = 3 * 32 * 32;
/// A label, and the pixels.
const RECORD: usize = 1 + PIXELS;
/// What every file has.
const RECORDS: usize = 10_000;

impl Cifar10 {
    /// The names of the classes, by label.
    pub const CLASSES: [&str; 10] =
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

    /// Reads `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin` from `root` or from
    /// `root/cifar-10-batches-bin`.
    pub fn load(root: impl AsRef<Path>) -> Result<Cifar10, DataError> {
        let root = root.as_ref();
        let train: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}.bin")).collect();
        Ok(Cifar10 { train: load(root, &train)?, test: load(root, &["test_batch.bin".into()])? })
    }

    /// Downloads the archive into `root`, verifies it, and unpacks it into `root/cifar-10-batches-bin`.
    #[cfg(feature = "download")]
    pub fn download(root: impl AsRef<Path>) -> Result<(), DataError> {
        let root = root.as_ref();
        if root.join(CIFAR_10.folder).join("test_batch.bin").is_file() {
            return Ok(());
        }
        let archive = Source { url: "https://www.cs.toronto.edu/~kriz/", folder: "", ..CIFAR_10 };
        let path =
            super::download::fetch(&archive, root, "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")?;
        let bytes = read_bytes(&path)?;
        tar::Archive::new(bytes.as_slice()).unpack(root).map_err(|source| DataError::Io { path, source })
    }
}

/// Each record is a label and three planes of 32×32 bytes.
fn load(root: &Path, names: &[String]) -> Result<ImageDataset, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for name in names {
        let path = CIFAR_10.find(root, name)?;
        let mut content = Content::open(&path)?;
        let bytes = content.up_to((RECORDS * RECORD + 1) as u64).map_err(|error| failed(&path, error))?;
        if bytes.len() > RECORDS * RECORD {
            let message = format!("it has more than the {RECORDS} records that each file of CIFAR-10 has");
            return Err(unusable(&path, message));
        }
        if bytes.is_empty() || bytes.len() % RECORD != 0 {
            let message = format!(
                "its {} bytes are not whole records of {RECORD} (a label, and 3×32×32 pixels); it is cut off or not a \
                 file of the binary version of CIFAR-10",
                bytes.len()
            );
            return Err(unusable(&path, message));
        }
        for (at, record) in bytes.chunks_exact(RECORD).enumerate() {
            if record[0] > 9 {
                let message = format!("record {at} has the label {}, but CIFAR-10 has classes 0 to 9", record[0]);
                return Err(unusable(&path, message));
            }
            labels.push(i64::from(record[0]));
            pixels.extend_from_slice(&record[1..]);
        }
    }
    let tensors = || -> Result<_, TorchError> {
        let images = Tensor::f_from_data_size(&pixels, &[labels.len() as i64, 3, 32, 32], Kind::Uint8)?;
        Ok((images, Tensor::f_from_slice(&labels)?))
    };
    let (images, labels) = tensors().map_err(|source| DataError::Torch { doing: "reading CIFAR-10".into(), source })?;
    ImageDataset::new(CIFAR_10.name, images, labels, u8::MAX)
}
