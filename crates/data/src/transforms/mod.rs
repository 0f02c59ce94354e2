//! Transforms of images, as in `torchvision.transforms.v2`.
//!
//! | what | transforms |
//! |---|---|
//! | together | [`Compose`], tuples, [`RandomApply`], [`RandomChoice`], [`RandomOrder`], closures |
//! | size | [`Resize`], [`CenterCrop`], [`RandomCrop`], [`RandomResizedCrop`], [`FiveCrop`], [`Pad`] |
//! | place | [`RandomHorizontalFlip`], [`RandomVerticalFlip`], [`RandomRotation`], [`RandomAffine`] |
//! | color | [`ColorJitter`], [`Grayscale`], [`RandomGrayscale`], [`RandomInvert`], [`RandomPosterize`], [`RandomSolarize`], [`RandomAutocontrast`], [`RandomEqualize`] |
//! | focus | [`GaussianBlur`], [`RandomAdjustSharpness`], [`RandomErasing`] |
//! | numbers | [`ToDtype`], [`Normalize`] |
//! | policies | [`AutoAugment`], [`RandAugment`], [`TrivialAugmentWide`] |
//! | whole batches | [`MixUp`], [`CutMix`] |
//! | with given parameters | [`functional`] |
//!
//! An image is a tensor `[.., C, H, W]` of bytes (`Uint8`, 0 to 255) or floating-point numbers (0 to 1). Names, parameters
//! and defaults are torchvision's, and so are results, to one level of 255. Random numbers come from the item's generator
//! ([`ItemRng`]): they depend on the seed, the epoch and the item, not on the workers, and a resumed run repeats them.
//!
//! ```
//! use fulgurite_data::datasets::ImageDataset;
//! use fulgurite_data::torch::tch::{Device, Kind, Tensor};
//! use fulgurite_data::transforms::{Normalize, RandomCrop, RandomHorizontalFlip, ToDtype};
//! use fulgurite_data::{DataLoader, Loader};
//!
//! let pictures = Tensor::zeros([50, 3, 32, 32], (Kind::Uint8, Device::Cpu));
//! let labels = Tensor::zeros([50], (Kind::Int64, Device::Cpu));
//! let train = ImageDataset::new("pictures", pictures, labels, 255)?.transform((
//!     RandomCrop::new(32).padding(4),
//!     RandomHorizontalFlip::default(),
//!     ToDtype::scaled(Kind::Float),
//!     Normalize::new([0.49, 0.48, 0.45], [0.25, 0.24, 0.26]),
//! ));
//! let loader = DataLoader::new(train).batch_size(10).shuffle(true).num_workers(2);
//! assert_eq!(loader.iter(0, 0)?.next().unwrap()?.0.size(), [10, 3, 32, 32]);
//! # Ok::<(), fulgurite_data::DataError>(())
//! ```
//!
//! A parameter that cannot be is reported by the first image, in the error of its item.

mod auto_augment;
mod color;
mod compose;
mod crop;
mod draw;
pub mod functional;
mod geometry;
mod mix;
mod numbers;
mod operation;
mod policy;

pub use auto_augment::{AutoAugment, AutoAugmentPolicy, RandAugment, TrivialAugmentWide};
pub use color::{
    ColorJitter, Grayscale, RandomAdjustSharpness, RandomAutocontrast, RandomEqualize, RandomGrayscale, RandomInvert,
    RandomPosterize, RandomSolarize,
};
pub use compose::{Compose, RandomApply, RandomChoice, RandomOrder};
pub use crop::{CenterCrop, FiveCrop, RandomCrop, RandomResizedCrop};
pub use draw::Interval;
pub use functional::{Fill, InterpolationMode, Padding, PaddingMode, ResizeSize, Size};
pub use geometry::{Pad, RandomAffine, RandomHorizontalFlip, RandomRotation, RandomVerticalFlip, Resize};
pub use mix::{CutMix, MixUp};
pub use numbers::{ErasingValue, GaussianBlur, Normalize, RandomErasing, ToDtype};

use fulgurite_torch::tch::Tensor;

use crate::{DataError, ItemRng};

/// A transform of images. Implemented by closures `Fn(Tensor, &mut ItemRng) -> Result<Tensor, DataError>`, and by tuples,
/// whose members follow one another.
///
/// ```
/// use fulgurite_data::torch::tch::Tensor;
/// use fulgurite_data::transforms::{RandomVerticalFlip, Transform, functional};
/// use fulgurite_data::{DataError, ItemRng};
///
/// fn upright() -> impl Transform {
///     let invert = |image: Tensor, _: &mut ItemRng| functional::invert(&image);
///     (RandomVerticalFlip::default(), invert)
/// }
/// # let _ = upright();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transform of images",
    note = "a closure is one with the types written out: `|image: Tensor, rng: &mut ItemRng| Ok(image)`",
    note = "a tuple of up to 12 transforms is one; a longer list is a `Compose`"
)]
pub trait Transform: Send + Sync + 'static {
    /// The image transformed. Draw random numbers from `rng` only.
    ///
    /// # Errors
    ///
    /// Fails if a parameter is out of its range, or does not fit the image.
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError>;
}

impl<F> Transform for F
where
    F: Fn(Tensor, &mut ItemRng) -> Result<Tensor, DataError> + Send + Sync + 'static,
{
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        self(image, rng)
    }
}

macro_rules! tuple {
    ($($name:ident)*) => {
        impl<$($name: Transform),*> Transform for ($($name,)*) {
            fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
                #[allow(non_snake_case)]
                let ($($name,)*) = self;
                $(let image = $name.apply(image, rng)?;)*
                Ok(image)
            }
        }
    };
}

tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);
tuple!(A B C D E);
tuple!(A B C D E F);
tuple!(A B C D E F G);
tuple!(A B C D E F G H);
tuple!(A B C D E F G H I);
tuple!(A B C D E F G H I J);
tuple!(A B C D E F G H I J K);
tuple!(A B C D E F G H I J K L);
