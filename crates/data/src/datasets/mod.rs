//! Datasets ready to use.

mod cifar;
mod csv;
mod digits;
#[cfg(feature = "download")]
mod download;
mod files;
#[cfg(feature = "image")]
mod image_folder;
mod images;
mod mnist;
mod tokens;
mod windows;

pub use cifar::Cifar10;
pub use csv::CsvTable;
pub use digits::Digits;
#[cfg(feature = "image")]
pub use image_folder::ImageFolder;
pub use images::ImageDataset;
pub use mnist::{FashionMnist, Mnist};
pub use tokens::TokenBlocks;
pub use windows::SlidingWindows;
