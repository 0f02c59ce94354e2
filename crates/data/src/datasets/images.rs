//! [`ImageDataset`]: labelled images in memory.

use std::fmt;
use std::sync::Arc;

use fulgurite_torch::tch::{Kind, Tensor};
use fulgurite_torch::{SharedTensor, TorchError};

use crate::transforms::Transform;
use crate::{BoxError, DataError, Dataset, ItemRng, Stacked};

/// Images of one size with a class each, kept as bytes.
///
/// An item is an image `[C, H, W]`, `f32` between 0 and 1, and its label, an `i64` scalar; a batch `[N, C, H, W]` and
/// `[N]`. A loader without a `map` in between gathers and converts a whole batch at once.
pub struct ImageDataset {
    name: String,
    images: SharedTensor,
    labels: SharedTensor,
    white: f64,
    transform: Option<Arc<dyn Transform>>,
}

impl fmt::Debug for ImageDataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, images, white, .. } = self;
        f.debug_struct("ImageDataset").field("name", name).field("images", images).field("white", white).finish()
    }
}

impl ImageDataset {
    /// A dataset of `images`, bytes `[N, C, H, W]` in which `white` means 1.0, and `labels`, `i64` `[N]`. Error
    /// messages call it `name`.
    pub fn new(name: impl Into<String>, images: Tensor, labels: Tensor, white: u8) -> Result<ImageDataset, DataError> {
        let name = name.into();
        let (size, kinds) = (images.size(), (images.kind(), labels.kind()));
        if kinds != (Kind::Uint8, Kind::Int64) || size.len() != 4 || labels.size() != size[..1] || white == 0 {
            return Err(DataError::Setting(format!(
                "{name} needs images of kind Uint8 and shape [N, C, H, W], labels of kind Int64 and shape [N], and a \
                 white above 0, but was given {:?} {size:?}, {:?} {:?} and {white}",
                kinds.0,
                kinds.1,
                labels.size()
            )));
        }
        let doing = || format!("keeping the images of {name}");
        let share = |t| SharedTensor::new(t).map_err(|source| DataError::Torch { doing: doing(), source });
        Ok(ImageDataset {
            images: share(images)?,
            labels: share(labels)?,
            white: f64::from(white),
            transform: None,
            name,
        })
    }

    /// Transforms each image as it is loaded. The transform is given bytes from 0 to 255, and what it returns is the item's
    /// image: it ends with [`ToDtype`](crate::transforms::ToDtype) where a model is to take it.
    pub fn transform(mut self, transform: impl Transform) -> ImageDataset {
        self.transform = Some(Arc::new(transform));
        self
    }

    /// All images, `f32` `[N, C, H, W]`, and labels, `i64` `[N]`.
    pub fn tensors(&self) -> Result<(Tensor, Tensor), DataError> {
        let all = || Ok((self.scaled(self.images.to_tensor()?)?, self.labels.to_tensor()?));
        all().map_err(|source| DataError::Torch { doing: format!("copying the images of {}", self.name), source })
    }

    /// The labels, `i64` `[N]`.
    pub fn labels(&self) -> Result<Tensor, DataError> {
        let doing = || format!("copying the labels of {}", self.name);
        self.labels.to_tensor().map_err(|source| DataError::Torch { doing: doing(), source })
    }

    /// With 255 for white.
    fn bytes(&self, image: Tensor) -> Result<Tensor, TorchError> {
        if self.white == 255.0 {
            return Ok(image);
        }
        Ok(self.scaled(image)?.f_mul_scalar_(255.0)?.f_round()?.f_to_kind(Kind::Uint8)?)
    }

    fn scaled(&self, images: Tensor) -> Result<Tensor, TorchError> {
        let mut images = images.f_to_kind(Kind::Float)?;
        Ok(images.f_div_scalar_(self.white)?)
    }
}

impl Dataset for ImageDataset {
    type Item = (Tensor, Tensor);

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn get(&self, index: usize, rng: &mut ItemRng) -> Result<(Tensor, Tensor), BoxError> {
        let (image, label) = (self.images.get(index)?, self.labels.get(index)?);
        let image = match &self.transform {
            Some(transform) => transform.apply(self.bytes(image)?, rng)?,
            None => self.scaled(image)?,
        };
        Ok((image, label))
    }

    fn get_stacked(&self, indices: &[usize]) -> Option<Result<Stacked, BoxError>> {
        if self.transform.is_some() {
            return None;
        }
        let indices: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
        let gather = || -> Result<Stacked, BoxError> {
            let images = self.scaled(self.images.index_select(&indices)?)?;
            Ok(Box::new((images, self.labels.index_select(&indices)?)))
        };
        Some(gather())
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
