//! Streams of files: what is in them, resuming in the middle, and dividing them.

#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "webdataset")]
mod web_dataset;

use fulgurite_data::{BoxError, IterableDataLoader, IterableDataset, Loader, Remainder, Shard};

/// A file that `fixtures/write.py` wrote.
fn fixture(name: &str) -> String {
    format!("{}/tests/data/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The items of the batches of a loader, as texts.
fn items(loader: &dyn Loader<Batch = Vec<String>>, epoch: u64, skip: usize) -> Vec<String> {
    loader.iter(epoch, skip).unwrap().flat_map(Result::unwrap).collect()
}

/// A loader of batches of 2 of what `name` says of each item.
fn names<D: IterableDataset + Clone>(
    dataset: &D,
    workers: usize,
    name: fn(D::Item) -> Result<String, BoxError>,
) -> impl Loader<Batch = Vec<String>> + use<D> {
    let named = dataset.clone().try_map(move |item, _| name(item));
    IterableDataLoader::new(named).batch_size(2).num_workers(workers).seed(11)
}

/// Resumes at every batch, and reads the parts of 2 and 4 processes with 2 workers each: together everything once.
#[track_caller]
fn check_resuming_and_dividing<D: IterableDataset + Clone>(dataset: &D, name: fn(D::Item) -> Result<String, BoxError>) {
    let whole = names(dataset, 0, name);
    let all = items(&whole, 3, 0);
    for skip in 0..=all.len() / 2 + 2 {
        let rest = &all[(2 * skip).min(all.len())..];
        assert_eq!(items(&names(dataset, 2, name), 3, skip), rest, "resumed at batch {skip}");
    }
    let mut sorted = all.clone();
    sorted.sort();
    for count in [2, 4] {
        let part = |rank| {
            let shard = Shard::new(count, rank).unwrap().remainder(Remainder::Keep);
            let part = names(dataset, 2, name).shard(shard).unwrap();
            assert!(part.shard(shard).is_none(), "a part is divided again");
            let items = items(&part, 3, 0);
            // A part is resumed as the whole is.
            let rest: Vec<String> = part.iter(3, 1).unwrap().flat_map(Result::unwrap).collect();
            assert_eq!(rest, items[2.min(items.len())..]);
            items
        };
        let mut together: Vec<String> = (0..count).flat_map(part).collect();
        together.sort();
        assert_eq!(together, sorted, "{count} processes");
    }
}

/// The error that ends an epoch, without the folder of the files.
#[track_caller]
fn error_of<D: IterableDataset + Clone>(
    dataset: &D,
    folder: &std::path::Path,
    name: fn(D::Item) -> Result<String, BoxError>,
) -> String {
    let failed = names(dataset, 1, name).iter(0, 0).unwrap().find_map(Result::err).unwrap();
    failed.to_string().replace(&folder.display().to_string(), "ROOT")
}
