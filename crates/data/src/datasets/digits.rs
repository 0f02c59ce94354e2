//! [`Digits`]: real handwriting that comes with the crate.

use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use fulgurite_torch::TorchError;
use fulgurite_torch::tch::Tensor;

use super::ImageDataset;
use crate::seed::{self, Purpose};
use crate::{DataError, Subset};

/// 1,797 handwritten digits, 1×8×8 pixels, ten classes: *Optical Recognition of Handwritten Digits*, E. Alpaydin and
/// C. Kaynak, UCI Machine Learning Repository, CC BY 4.0.
///
/// ```
/// use fulgurite_data::datasets::Digits;
/// use fulgurite_data::{DataLoader, Dataset, Loader};
///
/// let Digits { train, val, test } = Digits::load()?;
/// assert_eq!((train.len(), val.len(), test.len()), (1437, 180, 180));
/// let loader = DataLoader::new(train).batch_size(64).shuffle(true);
/// let (images, labels) = loader.iter(0, 0)?.next().unwrap()?;
/// assert_eq!((images.size(), labels.size()), (vec![64, 1, 8, 8], vec![64]));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Digits {
    /// 1,437 digits for training.
    pub train: Subset<ImageDataset>,
    /// 180 digits for validation.
    pub val: Subset<ImageDataset>,
    /// 180 digits for testing.
    pub test: Subset<ImageDataset>,
}

const FILE: &[u8] = include_bytes!("../../data/digits.csv.gz");
const COUNT: usize = 1797;
const PIXELS: usize = 64;
const WHITE: u8 = 16;

impl Digits {
    /// The digits in their standard parts: a fixed random order, 1,437 for training and 180 each to validate and test.
    pub fn load() -> Result<Digits, DataError> {
        let dataset = std::sync::Arc::new(Digits::all()?);
        let mut order: Vec<usize> = (0..COUNT).collect();
        seed::shuffle(&mut order, &mut seed::generator(0, 0, Purpose::Split));
        let part = |range: std::ops::Range<usize>| Subset::of(dataset.clone(), &order[range]);
        Ok(Digits { train: part(0..1437)?, val: part(1437..1617)?, test: part(1617..COUNT)? })
    }

    /// All digits, in the order of the file.
    pub fn all() -> Result<ImageDataset, DataError> {
        let damaged =
            |message: &str| DataError::Format { path: PathBuf::from("digits.csv.gz"), message: message.into() };
        let mut text = String::new();
        GzDecoder::new(FILE).read_to_string(&mut text).map_err(|error| damaged(&error.to_string()))?;
        let (mut pixels, mut labels) = (Vec::with_capacity(COUNT * PIXELS), Vec::with_capacity(COUNT));
        for line in text.lines() {
            let values: Result<Vec<u8>, _> = line.split(',').map(str::parse).collect();
            match values.as_deref() {
                Ok([image @ .., label]) if image.len() == PIXELS => {
                    pixels.extend_from_slice(image);
                    labels.push(i64::from(*label));
                }
                _ => return Err(damaged("a line does not have 64 pixels and a label")),
            }
        }
        let tensors = || -> Result<_, TorchError> {
            let images = Tensor::f_from_slice(&pixels)?.f_view([labels.len() as i64, 1, 8, 8])?;
            Ok((images, Tensor::f_from_slice(&labels)?))
        };
        let (images, labels) =
            tensors().map_err(|source| DataError::Torch { doing: "making tensors of the digits".into(), source })?;
        ImageDataset::new("digits", images, labels, WHITE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;

    #[test]
    fn every_digit_is_there_once() {
        let (images, labels) = Digits::all().unwrap().tensors().unwrap();
        assert_eq!(images.size(), [1797, 1, 8, 8]);
        assert_eq!((images.min().double_value(&[]), images.max().double_value(&[])), (0.0, 1.0));
        let counts = Vec::<i64>::try_from(labels.bincount::<Tensor>(None, 10)).unwrap();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        // The first row of the first digit, in sixteenths.
        let row = Vec::<f32>::try_from(images.get(0).get(0).get(0) * 16).unwrap();
        assert_eq!(row, [0.0, 0.0, 5.0, 13.0, 9.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn parts_share_nothing_and_never_change() {
        let Digits { train, val, test } = Digits::load().unwrap();
        let mut all = [train.indices(), val.indices(), test.indices()].concat();
        all.sort();
        assert_eq!(all, (0..1797).collect::<Vec<_>>());
        assert_eq!(test.len(), 180);
        assert_eq!(test.indices()[..5], [1030, 773, 772, 1562, 1143]);
    }
}
