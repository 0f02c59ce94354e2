//! Parquet files that pyarrow wrote: four codecs, both versions of pages, several row groups, nulls and lists.

use std::fs;

use fulgurite_data::datasets::{ParquetDataset, ParquetRow};
use fulgurite_data::torch::tch::{Kind, Tensor};
use fulgurite_data::{BoxError, DataError, IterableDataLoader, IterableDataset, Loader};
use tempfile::tempdir;

use super::{check_resuming_and_dividing, error_of, fixture, items, names};

fn all() -> ParquetDataset {
    ParquetDataset::open(&fixture("rows-{0..2}.parquet")).unwrap()
}

fn id(row: ParquetRow) -> Result<String, BoxError> {
    Ok(format!("{:02}", row.int("id")?))
}

/// What `fixtures/write.py` put into row `n`.
fn check_row(row: &ParquetRow, n: i64) -> Result<(), BoxError> {
    assert_eq!(row.int("id")?, n);
    assert_eq!((row.float("x")?, row.is_null("x")?), (n as f64 / 2.0, false));
    let y = row.numbers_or_nan(&["id", "y"])?;
    assert_eq!((y.double_value(&[0]), y.size(), y.kind()), (n as f64, vec![2], Kind::Float));
    match n % 5 {
        3 => assert!(row.is_null("y")? && row.float("y").is_err() && y.double_value(&[1]).is_nan()),
        _ => assert_eq!((row.float("y")?, y.double_value(&[1])), (-n as f64, -n as f64)),
    }
    assert_eq!((row.int("small")?, row.int("ok")?), (250 + n % 5, i64::from(n % 2 == 0)));
    match n % 7 {
        6 => assert!(row.is_null("text")?),
        _ => assert_eq!(row.text("text")?, format!("né{n}")),
    }
    match n % 6 {
        5 => assert!(row.is_null("tokens")?),
        _ => assert_eq!(Vec::<i64>::try_from(row.tensor("tokens")?)?, (0..n % 4).collect::<Vec<_>>()),
    }
    assert_eq!(
        (row.bytes("image.bytes")?, row.text("image.path")?),
        (&[n as u8, 255][..], format!("{n}.png").as_str())
    );
    Ok(())
}

#[test]
fn rows_are_those_that_pyarrow_wrote() {
    let rows = all();
    assert_eq!((rows.num_rows(), rows.num_row_groups(), rows.len()), (30, 7, Some(30)));
    let checked = rows.try_map(|row, _| {
        let n = row.int("id")?;
        check_row(&row, n)?;
        Ok(n)
    });
    let batches = IterableDataLoader::new(checked).batch_size(7).num_workers(2).iter(0, 0).unwrap();
    let read: Vec<i64> = batches.flat_map(|batch| Vec::<i64>::try_from(batch.unwrap()).unwrap()).collect();
    assert_eq!(read, (0..30).collect::<Vec<_>>());
}

#[test]
fn columns_become_tensors() {
    let rows = all().columns(&["x", "id", "ok"]).unwrap();
    assert_eq!(rows.column_names(), ["x", "id", "ok"]);
    let pairs = rows.try_map(|row, _| Ok((row.numbers(&["x", "ok"])?, row.int("id")?)));
    let (x, id) = IterableDataLoader::new(pairs).batch_size(3).iter(0, 4).unwrap().next().unwrap().unwrap();
    assert_eq!(x, Tensor::from_slice(&[6.0f32, 1.0, 6.5, 0.0, 7.0, 1.0]).view([3, 2]));
    assert_eq!(id, Tensor::from_slice(&[12i64, 13, 14]));
}

#[test]
fn a_resumed_stream_goes_on_and_processes_share_it() {
    check_resuming_and_dividing(&all(), id);
    check_resuming_and_dividing(&all().shuffle_groups(true).shuffle(6), id);
}

#[test]
fn shuffled_epochs_differ() {
    let shuffled = names(&all().shuffle_groups(true).shuffle(10), 0, id);
    let (first, second) = (items(&shuffled, 0, 0), items(&shuffled, 1, 0));
    assert_ne!(first, second);
    let in_order = items(&names(&all(), 0, id), 0, 0);
    assert_ne!(first, in_order);
    for mut order in [first, second] {
        order.sort();
        assert_eq!(order, in_order);
    }
}

#[test]
fn files_that_do_not_fit_together_are_explained() {
    let plain = |error: DataError| error.to_string().replace(&fixture(""), "");
    let error = ParquetDataset::from_paths([fixture("rows-0.parquet"), fixture("other.parquet")]).unwrap_err();
    assert_eq!(
        plain(error),
        "other.parquet is not usable: its column `y` is INT32, but that of rows-0.parquet is DOUBLE"
    );
    assert_eq!(
        plain(all().columns(&["z"]).unwrap_err()),
        "rows-0.parquet is not usable: it has no column `z`; there are: id, x, y, small, ok, text, tokens, image.bytes, \
         image.path"
    );
    let root = tempdir().unwrap();
    let path = root.path().join("x.parquet");
    fs::write(&path, b"PAR1 no more").unwrap();
    let error = ParquetDataset::from_paths([&path]).unwrap_err().to_string();
    assert!(error.contains("x.parquet is not usable: it cannot be read as a Parquet file: "), "{error}");
    // A page that is damaged where only the data shows it.
    let mut bytes = fs::read(fixture("rows-1.parquet")).unwrap();
    bytes[4..400].fill(0xee);
    fs::write(&path, bytes).unwrap();
    let error = error_of(&ParquetDataset::from_paths([&path]).unwrap(), root.path(), id);
    assert!(
        error.starts_with("record 0 of ROOT/x.parquet could not be read: ROOT/x.parquet is not usable: "),
        "{error}"
    );
}

#[test]
fn values_of_another_type_are_explained() {
    let rows = all();
    let error = |read: fn(ParquetRow) -> Result<String, BoxError>| {
        error_of(&rows, std::path::Path::new(&fixture("")), read).replace("ROOT", "")
    };
    let of = |item, column, row, message| {
        format!(
            "item {item} of rows-0.parquet and 2 other files could not be loaded: column `{column}` in row {row} of row group \
             0 of rows-0.parquet: {message}"
        )
    };
    assert_eq!(error(|row| Ok(row.float("y")?.to_string())), of(3, "y", 3, "it is null"));
    assert_eq!(error(|row| Ok(row.int("x")?.to_string())), of(0, "x", 0, "it is no whole number"));
    assert_eq!(error(|row| Ok(row.float("text")?.to_string())), of(0, "text", 0, "it is no number"));
    assert_eq!(
        error(|row| Ok(row.int("tokens")?.to_string())),
        of(0, "tokens", 0, "it is a list of 0 values; `tensor` reads it")
    );
    assert_eq!(error(|row| Ok(row.text("id")?.to_string())), of(0, "id", 0, "it is neither text nor bytes"));
}
