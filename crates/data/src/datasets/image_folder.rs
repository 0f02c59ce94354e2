//! [`ImageFolder`]: one folder of pictures per class.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use fulgurite_torch::tch::{Kind, Tensor};
use image::imageops::FilterType;

use super::files::unusable;
use crate::{BoxError, DataError, Dataset, ItemRng};

/// Pictures in one sub-folder per class, PNG or JPEG, decoded when they are loaded; follows
/// `torchvision.datasets.ImageFolder`.
///
/// Classes are the names of the sub-folders, sorted; pictures are sorted by path. An item is an `f32` image between 0
/// and 1, `[3, H, W]`, or `[1, H, W]` with [`grayscale`](ImageFolder::grayscale), and its label.
///
/// Links are followed; a folder that several of them lead to, such as one that contains the link, is part of a class once.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    root: PathBuf,
    classes: Vec<String>,
    pictures: Vec<(PathBuf, i64)>,
    size: Option<(u32, u32)>,
    grayscale: bool,
}

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
                return Err(unusable(&folder, "this class has no picture that ends in .png, .jpg or .jpeg"));
            }
            classes.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        if classes.is_empty() {
            return Err(unusable(
                root,
                "an image folder needs one sub-folder of pictures per class, and this has none",
            ));
        }
        Ok(ImageFolder { root: root.to_path_buf(), classes, pictures, size: None, grayscale: false })
    }

    /// Resizes every picture, so that pictures of different sizes fit into one batch.
    pub fn resize(mut self, height: u32, width: u32) -> ImageFolder {
        self.size = Some((height, width));
        self
    }

    /// Turns every picture grey. Default: three colours.
    pub fn grayscale(mut self) -> ImageFolder {
        self.grayscale = true;
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

    fn get(&self, index: usize, _: &mut ItemRng) -> Result<(Tensor, i64), BoxError> {
        let (path, label) = &self.pictures[index];
        let mut picture = image::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if let Some((height, width)) = self.size {
            picture = picture.resize_exact(width, height, FilterType::Triangle);
        }
        let (height, width) = (i64::from(picture.height()), i64::from(picture.width()));
        let tensor = if self.grayscale {
            Tensor::f_from_data_size(picture.to_luma8().as_raw(), &[1, height, width], Kind::Uint8)?
        } else {
            Tensor::f_from_data_size(picture.to_rgb8().as_raw(), &[height, width, 3], Kind::Uint8)?
                .f_permute([2, 0, 1])?
                .f_contiguous()?
        };
        Ok((tensor.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)?, *label))
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
        let is_picture = ["png", "jpg", "jpeg"].contains(&extension.as_str());
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
