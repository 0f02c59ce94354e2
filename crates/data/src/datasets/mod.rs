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
mod npy;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "parquet")]
mod parquet_columns;
#[cfg(feature = "parquet")]
mod parquet_row;
#[cfg(any(feature = "parquet", feature = "webdataset"))]
mod shards;
#[cfg(feature = "webdataset")]
mod tar_walk;
mod token_source;
mod tokens;
#[cfg(feature = "webdataset")]
mod web_dataset;
mod windows;

pub use cifar::Cifar10;
pub use csv::CsvTable;
pub use digits::Digits;
#[cfg(feature = "image")]
pub use image_folder::ImageFolder;
pub use images::ImageDataset;
pub use mnist::{FashionMnist, Mnist};
#[cfg(feature = "parquet")]
pub use parquet::ParquetDataset;
#[cfg(feature = "parquet")]
pub use parquet_row::ParquetRow;
pub use token_source::TokenType;
pub use tokens::TokenBlocks;
#[cfg(feature = "webdataset")]
pub use web_dataset::{WebDataset, WebSample};
pub use windows::SlidingWindows;
