//! Loaders, readers and the derive of batches, as a user's crate sees them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod combined_loader;
mod derive;
#[cfg(feature = "image")]
mod images;
mod loader;
mod readers;
#[cfg(any(feature = "parquet", feature = "webdataset"))]
mod streams;
mod tabular;
mod text;
mod tokens;
mod transforms;
