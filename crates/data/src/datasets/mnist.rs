//! [`Mnist`] and [`FashionMnist`]: 28×28 grey images in IDX files.

use std::path::Path;

use fulgurite_torch::TorchError;
use fulgurite_torch::tch::{Kind, Tensor};

use super::ImageDataset;
use super::files::{Content, Source, failed, unusable};
use crate::DataError;

/// Handwritten digits, 28×28, ten classes (Y. LeCun, C. Cortes, C. Burges).
///
/// ```no_run
/// use fulgurite_data::datasets::Mnist;
///
/// let Mnist { train, test } = Mnist::load("data")?;
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug)]
pub struct Mnist {
    /// 60,000 digits.
    pub train: ImageDataset,
    /// 10,000 digits.
    pub test: ImageDataset,
}

/// Articles of clothing, 28×28, ten classes (H. Xiao, K. Rasul, R. Vollgraf 2017).
#[derive(Debug)]
pub struct FashionMnist {
    /// 60,000 articles.
    pub train: ImageDataset,
    /// 10,000 articles.
    pub test: ImageDataset,
}

const MNIST: Source =
    Source { name: "MNIST", folder: "MNIST/raw", url: "https://ossci-datasets.s3.amazonaws.com/mnist/" };
const FASHION_MNIST: Source = Source {
    name: "Fashion-MNIST",
    folder: "FashionMNIST/raw",
    url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
};

impl Mnist {
    /// Reads the four IDX files, plain or with `.gz`, from `root` or from `root/MNIST/raw`.
    pub fn load(root: impl AsRef<Path>) -> Result<Mnist, DataError> {
        let root = root.as_ref();
        Ok(Mnist { train: load(&MNIST, root, "train")?, test: load(&MNIST, root, "t10k")? })
    }

    /// Downloads into `root/MNIST/raw` what is not there yet, and verifies it.
    #[cfg(feature = "download")]
    pub fn download(root: impl AsRef<Path>) -> Result<(), DataError> {
        let md5 = [
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ];
        download(&MNIST, root.as_ref(), md5)
    }
}

impl FashionMnist {
    /// The names of the classes, by label.
    pub const CLASSES: [&str; 10] =
        ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

    /// Reads the four IDX files, plain or with `.gz`, from `root` or from `root/FashionMNIST/raw`.
    pub fn load(root: impl AsRef<Path>) -> Result<FashionMnist, DataError> {
        let root = root.as_ref();
        let (train, test) = (load(&FASHION_MNIST, root, "train")?, load(&FASHION_MNIST, root, "t10k")?);
        Ok(FashionMnist { train, test })
    }

    /// Downloads into `root/FashionMNIST/raw` what is not there yet, and verifies it.
    #[cfg(feature = "download")]
    pub fn download(root: impl AsRef<Path>) -> Result<(), DataError> {
        let md5 = [
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ];
        download(&FASHION_MNIST, root.as_ref(), md5)
    }
}

#[cfg(feature = "download")]
fn download(source: &Source, root: &Path, md5: [&str; 4]) -> Result<(), DataError> {
    let names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"];
    names
        .iter()
        .zip(md5)
        .try_for_each(|(name, md5)| super::download::fetch(source, root, &format!("{name}-ubyte.gz"), md5).map(|_| ()))
}

fn load(source: &Source, root: &Path, part: &str) -> Result<ImageDataset, DataError> {
    let images_path = source.find(root, &format!("{part}-images-idx3-ubyte"))?;
    let labels_path = source.find(root, &format!("{part}-labels-idx1-ubyte"))?;
    let (labels, images) = (read_idx(&labels_path, 1)?, read_idx(&images_path, 3)?);
    let (count, label_count) = (images.size[0], labels.size[0]);
    if count != label_count {
        let message = format!("it has {label_count} labels for the {count} images of {}", images_path.display());
        return Err(unusable(&labels_path, message));
    }
    if let Some((at, label)) = labels.bytes.iter().enumerate().find(|(_, label)| **label > 9) {
        let message = format!("item {at} has the label {label}, but {} has classes 0 to 9", source.name);
        return Err(unusable(&labels_path, message));
    }
    let tensors = || -> Result<_, TorchError> {
        let tensor = |idx: &Idx| Tensor::f_from_data_size(&idx.bytes, &idx.size, Kind::Uint8);
        Ok((tensor(&images)?.f_unsqueeze(1)?, tensor(&labels)?.f_to_kind(Kind::Int64)?))
    };
    let (images, labels) =
        tensors().map_err(|error| DataError::Torch { doing: format!("reading {}", source.name), source: error })?;
    ImageDataset::new(source.name, images, labels, u8::MAX)
}

/// What is in an IDX file of bytes.
struct Idx {
    size: Vec<i64>,
    bytes: Vec<u8>,
}

/// An IDX file with `dimensions` dimensions. No more is read than its header announces.
///
/// The format: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each of them as a big-endian
/// `u32`, the elements.
fn read_idx(path: &Path, dimensions: u8) -> Result<Idx, DataError> {
    let mut content = Content::open(path)?;
    let mut read = |count: u64| content.up_to(count).map_err(|error| failed(path, error));
    let header = read(4 + 4 * u64::from(dimensions))?;
    if header.len() < 4 + 4 * usize::from(dimensions) || header[..4] != [0, 0, 8, dimensions] {
        return Err(unusable(
            path,
            format!(
                "an IDX file of bytes with {dimensions} dimensions begins with 00 00 08 {dimensions:02x}, this one with \
                 {}",
                header.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
            ),
        ));
    }
    let size: Vec<u32> = header[4..].chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
    let announced = size.iter().try_fold(1u64, |product, n| product.checked_mul(u64::from(*n)));
    let bytes = read(announced.unwrap_or(u64::MAX))?;
    if announced != Some(bytes.len() as u64) {
        return Err(unusable(
            path,
            format!(
                "its header announces {size:?} bytes, but {} follow; it is cut off or damaged, download it again",
                bytes.len()
            ),
        ));
    }
    if !read(1)?.is_empty() {
        return Err(unusable(
            path,
            format!("its header announces {size:?} bytes, but more follow; it is damaged, download it again"),
        ));
    }
    Ok(Idx { size: size.into_iter().map(i64::from).collect(), bytes })
}
