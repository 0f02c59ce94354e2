//! Streams of files of which each rank reads a part: in a run that is killed and resumed no item is lost, and none comes twice.

use std::fs;
use std::path::Path;

use fulgurite::data::datasets::{ParquetDataset, WebDataset};
use fulgurite::data::{IterableDataLoader, IterableDataset};
use fulgurite::prelude::*;

use super::program::{Plan, Report, point};
use super::{failed, folder, reports};

/// Items of the tar shards.
const ITEMS: usize = 32;

pub(crate) fn loader(kind: &str, folder: &Path, batch_size: usize) -> Result<Loaders<(Tensor, Tensor)>> {
    let (batch_size, workers) = (batch_size, 2);
    if kind == "parquet" {
        let pattern = format!("{}/../data/tests/data/fixtures/rows-{{0..2}}.parquet", env!("CARGO_MANIFEST_DIR"));
        let rows = ParquetDataset::open(&pattern)?.shuffle_groups(true).shuffle(4);
        let points = rows.try_map(|row, _| Ok(point(usize::try_from(row.int("id")?)?)));
        return Ok(IterableDataLoader::new(points).batch_size(batch_size).num_workers(workers).into());
    }
    let shards = WebDataset::open(&format!("{}/shard-{{0..3}}.tar", folder.display()))?.shuffle_shards(true).shuffle(4);
    let points = shards.try_map(|sample, _| Ok(point(usize::try_from(sample.class("cls")?)?)));
    Ok(IterableDataLoader::new(points).batch_size(batch_size).num_workers(workers).into())
}

/// Four shards, whose samples are a number each.
fn write_shards(folder: &Path) {
    for shard in 0..4 {
        let mut tar = Vec::new();
        for item in (shard * ITEMS / 4)..(shard + 1) * ITEMS / 4 {
            let text = item.to_string();
            let mut header = [0u8; 512];
            let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
            field(0, &format!("{item:04}.cls"));
            field(100, "0000644\0");
            field(124, &format!("{:011o}\0", text.len()));
            field(148, "        ");
            field(156, "0");
            field(257, "ustar\x0000");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            tar.extend(header);
            tar.extend(text.as_bytes());
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
        tar.resize(tar.len() + 1024, 0);
        fs::write(folder.join(format!("shard-{shard}.tar")), tar).unwrap();
    }
}

/// The items that all ranks saw from batch `from` to batch `to`, in the order of their numbers.
fn seen(reports: &[Report], batches: std::ops::Range<usize>) -> Vec<i64> {
    let mut items: Vec<i64> = reports.iter().flat_map(|report| report.seen[batches.clone()].concat()).collect();
    items.sort_unstable();
    items
}

#[test]
fn a_killed_run_over_files_goes_on_with_the_item_that_is_next() {
    for (kind, items) in [("parquet", 30), ("tar", ITEMS as i64)] {
        let (whole, killed) = (folder(), folder());
        [&whole, &killed].into_iter().for_each(|folder| write_shards(folder.path()));
        let plan = |folder: &tempfile::TempDir| Plan {
            folder: folder.path().into(),
            files: Some(kind.to_owned()),
            batch_size: 2,
            save_every: Some(3),
            ..Plan::default()
        };
        let undisturbed = reports(&plan(&whole), 2);
        assert_eq!(undisturbed[0].seen.len(), 16, "{kind}");
        for epoch in [0..8, 8..16] {
            assert_eq!(seen(&undisturbed, epoch), (0..items).collect::<Vec<_>>(), "{kind}");
        }
        assert_ne!(undisturbed[0].seen[..8], undisturbed[0].seen[8..], "the epochs of {kind} have one order");

        // In the second epoch, two batches after a checkpoint.
        failed(&Plan { kill_at: Some(12), ..plan(&killed) });
        let last = killed.path().join("saved/last.ckpt").display().to_string();
        let resumed = reports(&Plan { ckpt_path: Some(last), ..plan(&killed) }, 2);
        for (resumed, undisturbed) in resumed.iter().zip(&undisturbed) {
            let done = undisturbed.seen.len() - resumed.seen.len();
            assert!([9, 10, 11].contains(&done), "{kind}: {done} batches were done");
            assert_eq!(resumed.seen, undisturbed.seen[done..], "{kind}");
            assert_eq!(resumed.weights, undisturbed.weights, "{kind}");
        }
    }
}
