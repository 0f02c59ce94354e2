//! [`ImageFolder`]: one folder of pictures per class.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fulgurite_torch::tch::{Kind, Tensor};

use super::files::unusable;
use crate::images::{ImageDecoder, ImageReadMode};
use crate::transforms::{Transform, functional};
use crate::{BoxError, DataError, Dataset, ItemRng};

/// Pictures in one sub-folder per class, decoded when they are loaded; follows `torchvision.datasets.ImageFolder`.
///
/// Classes are the names of the sub-folders, sorted; pictures are sorted by path. They are the files that end in `.jpg`,
/// `.jpeg`, `.png`, `.ppm`, `.bmp`, `.pgm`, `.tif`, `.tiff` or `.webp`. An item is an `f32` image between 0 and 1,
/// `[3, H, W]`, and its label; with a [`transform`](ImageFolder::transform), what that makes of the bytes.
///
/// Links are followed; a folder that several of them lead to, such as one that contains the link, is part of a class once.
///
/// ```no_run
/// use fulgurite_data::datasets::ImageFolder;
/// use fulgurite_data::torch::tch::Kind;
/// use fulgurite_data::transforms::{Normalize, RandomHorizontalFlip, RandomResizedCrop, ToDtype};
/// use fulgurite_data::DataLoader;
///
/// let train = ImageFolder::open("imagenet/train")?.transform((
///     RandomResizedCrop::new(224),
///     RandomHorizontalFlip::default(),
///     ToDtype::scaled(Kind::Float),
///     Normalize::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
/// ));
/// let loader = DataLoader::new(train).batch_size(64).shuffle(true).num_workers(8);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Clone)]
pub struct ImageFolder {
    root: PathBuf,
    classes: Vec<String>,
    pictures: Vec<(PathBuf, i64)>,
    decoder: ImageDecoder,
    transform: Option<Arc<dyn Transform>>,
}

impl fmt::Debug for ImageFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root, classes, pictures, decoder, .. } = self;
        let mut debug = f.debug_struct("ImageFolder");
        debug.field("root", root).field("classes", classes).field("pictures", &pictures.len());
        debug.field("decoder", decoder).finish_non_exhaustive()
    }
}

/// torchvision's `IMG_EXTENSIONS`.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];

impl ImageFolder {
    /// Lists the pictures below `root`. A folder without classes, or a class without pictures, is an error.
    pub fn open(root: impl AsRef<Path>) -> Result<ImageFolder, DataError> {
        let root = root.as_ref();
        let mut classes = Vec::new();
        let mut pictures = Vec::new();
        for folder in sorted(root)?.into_iter().filter(|path| path.is_dir()) {
            let label = classes.len() as i64;
            let before = pictures.len();
            // A link to the root would make pictures of all classes some of this one's.
            let mut listed = HashSet::from([real(root)?]);
            list(&folder, label, &mut pictures, &mut listed)?;
            if pictures.len() == before {
                let problem = format!("this class has no picture that ends in .{}", EXTENSIONS.join(", ."));
                return Err(unusable(&folder, problem));
            }
            classes.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        if classes.is_empty() {
            return Err(unusable(
                root,
                "an image folder needs one sub-folder of pictures per class, and this has none",
            ));
        }
        let decoder = ImageDecoder::new().mode(ImageReadMode::Rgb);
        Ok(ImageFolder { root: root.to_path_buf(), classes, pictures, decoder, transform: None })
    }

    /// Transforms each image as it is loaded, with random numbers of its own. The transform is given bytes, `[3, H, W]` from
    /// 0 to 255, and what it returns is the item's image: it ends with [`ToDtype`](crate::transforms::ToDtype) where a
    /// model is to take it, and makes images of one size where a batch is to have several.
    pub fn transform(mut self, transform: impl Transform) -> ImageFolder {
        self.transform = Some(Arc::new(transform));
        self
    }

    /// How pictures are decoded. Default: three colors, not turned, as in torchvision.
    pub fn decoder(mut self, decoder: ImageDecoder) -> ImageFolder {
        self.decoder = decoder;
        self
    }

    /// The channels. Default: three colors.
    pub fn mode(mut self, mode: ImageReadMode) -> ImageFolder {
        self.decoder = self.decoder.mode(mode);
        self
    }

    /// The names of the classes, by label.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The pictures' paths and labels.
    pub fn pictures(&self) -> &[(PathBuf, i64)] {
        &self.pictures
    }
}

impl Dataset for ImageFolder {
    type Item = (Tensor, i64);

    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn get(&self, index: usize, rng: &mut ItemRng) -> Result<(Tensor, i64), BoxError> {
        let (path, label) = &self.pictures[index];
        let image = self.decoder.decode(path)?;
        let Some(transform) = &self.transform else {
            let image = functional::to_dtype(&image, Kind::Float, true)?;
            return Ok((image.f_contiguous()?, *label));
        };
        let image = transform.apply(image, rng).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((image, *label))
    }

    fn name(&self) -> String {
        format!("the images in {}", self.root.display())
    }
}

/// The entries of a folder, sorted.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Io { path: folder.to_path_buf(), source };
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// What a path stands for, whatever links lead to it.
fn real(folder: &Path) -> Result<PathBuf, DataError> {
    folder.canonicalize().map_err(|source| DataError::Io { path: folder.to_path_buf(), source })
}

/// Adds the pictures below `folder`, without those of folders that were `listed` before.
fn list(
    folder: &Path,
    label: i64,
    pictures: &mut Vec<(PathBuf, i64)>,
    listed: &mut HashSet<PathBuf>,
) -> Result<(), DataError> {
    if !listed.insert(real(folder)?) {
        return Ok(());
    }
    for path in sorted(folder)? {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_picture = EXTENSIONS.contains(&extension.as_str());
        match fs::metadata(&path) {
            Ok(entry) if entry.is_dir() => list(&path, label, pictures, listed)?,
            _ if !is_picture => {}
            Ok(entry) if !entry.is_file() => {
                return Err(unusable(&path, "it is called a picture, but it is a pipe, a socket or a device"));
            }
            // An unreadable one is reported when it is loaded.
            _ => pictures.push((path, label)),
        }
    }
    Ok(())
}
