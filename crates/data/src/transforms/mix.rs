//! Mixtures of the images of a batch, with soft labels.

use fulgurite_torch::tch::{Kind, TchError, Tensor};

use super::draw;
use super::functional::{copied, is_float, run, setting};
use crate::{DataError, ItemRng};

/// Mixes each image of a batch with the one before it; follows `torchvision.transforms.v2.MixUp` (Zhang et al., "mixup:
/// Beyond Empirical Risk Minimization").
///
/// A loader applies it with [`DataLoader::map_batch`](crate::DataLoader::map_batch), which provides a generator for each
/// batch. Labels become probabilities, `[N, num_classes]`, which `cross_entropy_loss` takes.
///
/// ```
/// use fulgurite_data::torch::tch::{Device, Kind, Tensor};
/// use fulgurite_data::transforms::MixUp;
/// use fulgurite_data::{DataLoader, Loader, TensorDataset};
///
/// let images = Tensor::rand([20, 3, 8, 8], (Kind::Float, Device::Cpu));
/// let labels = Tensor::randint(10, [20], (Kind::Int64, Device::Cpu));
/// let mix = MixUp::new(10).alpha(0.2);
/// let loader = DataLoader::new(TensorDataset::new((images, labels))?)
///     .batch_size(5)
///     .map_batch(move |(images, labels), rng| Ok(mix.apply(&images, &labels, rng)?));
/// assert_eq!(loader.iter(0, 0)?.next().unwrap()?.1.size(), [5, 10]);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct MixUp(Mixing);

/// Puts a rectangle of the image before into each image of a batch; follows `torchvision.transforms.v2.CutMix` (Yun et al.,
/// "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features"). Used as [`MixUp`] is.
#[derive(Debug, Clone)]
pub struct CutMix(Mixing);

#[derive(Debug, Clone)]
struct Mixing {
    num_classes: i64,
    alpha: f64,
    name: &'static str,
}

macro_rules! options {
    ($name:ident) => {
        impl $name {
            /// For labels of `num_classes` classes.
            pub fn new(num_classes: i64) -> $name {
                $name(Mixing { num_classes, alpha: 1.0, name: stringify!($name) })
            }

            /// The parameter of the distribution Beta(`alpha`, `alpha`) of the images' weight. Default: 1.
            pub fn alpha(mut self, alpha: f64) -> $name {
                self.0.alpha = alpha;
                self
            }
        }
    };
}

options!(MixUp);
options!(CutMix);

impl MixUp {
    /// Mixes `images`, `[N, C, H, W]` of floating-point numbers, and `labels`: classes `[N]`, or probabilities
    /// `[N, num_classes]`, with a weight drawn from `rng`.
    ///
    /// # Errors
    ///
    /// Fails if images and labels are not such, or `alpha` is not above 0.
    pub fn apply(&self, images: &Tensor, labels: &Tensor, rng: &mut ItemRng) -> Result<(Tensor, Tensor), DataError> {
        let weight = self.0.weight(rng)?;
        self.mix(images, labels, weight)
    }

    /// [`apply`](MixUp::apply) with the weight `lam` of each image; the one before it has the rest.
    ///
    /// # Errors
    ///
    /// As [`apply`](MixUp::apply).
    pub fn mix(&self, images: &Tensor, labels: &Tensor, lam: f64) -> Result<(Tensor, Tensor), DataError> {
        self.0.check(images, labels)?;
        if !is_float(images.kind()) {
            return setting(format!(
                "MixUp takes images of floating-point numbers, but was given {:?}; put ToDtype::scaled(Kind::Float) before it",
                images.kind()
            ));
        }
        run("mixing images", || Ok((mixed(images, lam)?, self.0.mixed_labels(labels, lam)?)))
    }
}

impl CutMix {
    /// Mixes `images`, `[N, C, H, W]`, and `labels`: classes `[N]`, or probabilities `[N, num_classes]`, with a rectangle
    /// drawn from `rng`.
    ///
    /// # Errors
    ///
    /// Fails if images and labels are not such, or `alpha` is not above 0.
    pub fn apply(&self, images: &Tensor, labels: &Tensor, rng: &mut ItemRng) -> Result<(Tensor, Tensor), DataError> {
        let weight = self.0.weight(rng)?;
        let [height, width] = self.0.check(images, labels)?;
        let (x, y) = (draw::index(rng, width), draw::index(rng, height));
        let half = 0.5 * (1.0 - weight).sqrt();
        let around = |at: i64, edge: i64| {
            let half = (half * edge as f64) as i64;
            ((at - half).max(0), (at + half).min(edge))
        };
        let ((left, right), (top, bottom)) = (around(x, width), around(y, height));
        self.cut(images, labels, [left, top, right, bottom])
    }

    /// [`apply`](CutMix::apply) with the rectangle from `left` to `right` and `top` to `bottom`, the ends excluded.
    ///
    /// # Errors
    ///
    /// As [`apply`](CutMix::apply), and if the rectangle is not within the images.
    pub fn cut(
        &self,
        images: &Tensor,
        labels: &Tensor,
        [left, top, right, bottom]: [i64; 4],
    ) -> Result<(Tensor, Tensor), DataError> {
        let [height, width] = self.0.check(images, labels)?;
        if !(0 <= left && left <= right && right <= width && 0 <= top && top <= bottom && bottom <= height) {
            return setting(format!(
                "CutMix was given the rectangle [{left}, {top}, {right}, {bottom}] of images of {height} x {width}"
            ));
        }
        let kept = 1.0 - ((right - left) * (bottom - top)) as f64 / (height * width) as f64;
        run("mixing images", || {
            let part = |images: &Tensor| images.f_narrow(-2, top, bottom - top)?.f_narrow(-1, left, right - left);
            let mixed = copied(images)?;
            part(&mixed)?.f_copy_(&part(images)?.f_roll([1], [0])?)?;
            Ok((mixed, self.0.mixed_labels(labels, kept)?))
        })
    }
}

impl Mixing {
    fn weight(&self, rng: &mut ItemRng) -> Result<f64, DataError> {
        if self.alpha > 0.0 && self.alpha.is_finite() {
            return Ok(draw::beta(rng, self.alpha));
        }
        setting(format!("{} was given alpha {}; it is above 0", self.name, self.alpha))
    }

    /// Height and width of the images.
    fn check(&self, images: &Tensor, labels: &Tensor) -> Result<[i64; 2], DataError> {
        let (images, classes) = (images.size(), labels.size());
        let index_based = labels.kind() == Kind::Int64;
        match (&images[..], &classes[..]) {
            ([n, _, height, width], [m]) if n == m && index_based => Ok([*height, *width]),
            ([n, _, height, width], [m, classes]) if n == m && *classes == self.num_classes => Ok([*height, *width]),
            _ => setting(format!(
                "{} takes images [N, C, H, W] and labels, classes [N] of kind Int64 or probabilities [N, {}], but was \
                 given {images:?} and {:?} {classes:?}",
                self.name,
                self.num_classes,
                labels.kind()
            )),
        }
    }

    fn mixed_labels(&self, labels: &Tensor, lam: f64) -> Result<Tensor, TchError> {
        let labels = if labels.dim() == 1 { labels.f_one_hot(self.num_classes)? } else { labels.shallow_clone() };
        mixed(&if is_float(labels.kind()) { labels } else { labels.f_to_kind(Kind::Float)? }, lam)
    }
}

/// Each entry with the weight `lam`, the one before it with the rest.
fn mixed(batch: &Tensor, lam: f64) -> Result<Tensor, TchError> {
    batch.f_roll([1], [0])?.f_mul_scalar_(1.0 - lam)?.f_add_(&batch.f_mul_scalar(lam)?)
}
