//! What a loader promises: order, completeness, errors and an end, with any number of workers.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fulgurite_data::rand::RngExt;
use fulgurite_data::torch::tch::Tensor;
use fulgurite_data::{
    BatchIter, BoxError, DataError, DataLoader, Dataset, InMemory, IntoLoader, ItemRng, IterableDataLoader,
    IterableDataset, IterableFn, Loader, RandomSampler, SampleIter, Sampler, TensorDataset, WeightedRandomSampler,
    random_split,
};

const WORKERS: [usize; 4] = [0, 1, 2, 4];

fn numbers(batches: BatchIter<Tensor>) -> Vec<Vec<i64>> {
    batches.map(|batch| Vec::try_from(batch.unwrap()).unwrap()).collect()
}

fn loader(workers: usize) -> DataLoader<impl Dataset<Item = i64>> {
    let slow_first = |i: i64, _: &mut ItemRng| {
        // The first batches take longest, so that workers finish out of order.
        std::thread::sleep(Duration::from_micros(if i % 3 == 0 { 200 } else { 0 }));
        i
    };
    DataLoader::new(InMemory::new(0..103i64).map(slow_first)).batch_size(8).num_workers(workers).seed(7)
}

#[test]
fn order_depends_on_seed_and_epoch_alone() {
    let order = |workers, seed, epoch| numbers(loader(workers).shuffle(true).seed(seed).iter(epoch, 0).unwrap());
    let reference = order(0, 7, 3);
    for workers in WORKERS {
        assert_eq!(order(workers, 7, 3), reference);
        assert_ne!(order(workers, 8, 3), reference);
        assert_ne!(order(workers, 7, 4), reference);
    }
}

#[test]
fn every_item_comes_once() {
    for workers in WORKERS {
        let mut items = numbers(loader(workers).shuffle(true).iter(0, 0).unwrap()).concat();
        items.sort();
        assert_eq!(items, (0..103).collect::<Vec<_>>());
        let in_order = numbers(loader(workers).iter(0, 0).unwrap()).concat();
        assert_eq!(in_order, (0..103).collect::<Vec<_>>());
    }
}

#[test]
fn indices_of_batches_are_known_without_loading_them() {
    for workers in WORKERS {
        // Each item is its own index.
        let loader = loader(workers).shuffle(true);
        let loaded = numbers(loader.iter(3, 0).unwrap());
        let indices = Box::new(loader).batch_indices(3).unwrap();
        let indices: Vec<Vec<i64>> = indices.map(|batch| batch.into_iter().map(|i| i as i64).collect()).collect();
        assert_eq!(indices, loaded);
    }
    assert!(vec![1i64].into_loader().batch_indices(0).is_none());
}

#[test]
fn skipping_equals_dropping() {
    for workers in WORKERS {
        let loader = loader(workers).shuffle(true);
        let all = numbers(loader.iter(2, 0).unwrap());
        for skip in [0, 1, 5, 12, 13, 20] {
            assert_eq!(numbers(loader.iter(2, skip).unwrap()), all[skip.min(13)..]);
        }
    }
}

#[test]
fn skipped_items_are_not_loaded() {
    let loaded = Arc::new(AtomicUsize::new(0));
    let counter = loaded.clone();
    let dataset = InMemory::new(0..100i64).map(move |i, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        i
    });
    assert_eq!(DataLoader::new(dataset).batch_size(10).shuffle(true).iter(0, 8).unwrap().count(), 2);
    assert_eq!(loaded.load(Ordering::Relaxed), 20);
}

#[test]
fn lengths_and_the_last_batch() {
    assert_eq!(loader(0).len(), Some(13));
    assert_eq!(loader(0).drop_last(true).len(), Some(12));
    assert_eq!(numbers(loader(2).drop_last(true).iter(0, 0).unwrap()).len(), 12);
    assert_eq!(numbers(loader(2).iter(0, 0).unwrap())[12].len(), 7);
    assert_eq!(DataLoader::new(InMemory::new(0..0i64)).shuffle(true).len(), Some(0));
    assert_eq!(DataLoader::new(InMemory::new(0..0i64)).num_workers(2).iter(0, 0).unwrap().count(), 0);
}

#[test]
fn augmentation_is_the_same_with_any_workers_and_differs_by_epoch_and_item() {
    let noise = |workers, epoch| {
        let dataset = InMemory::new(0..40i64).map(|_, rng| rng.random_range(0..1_000_000i64));
        numbers(DataLoader::new(dataset).batch_size(4).num_workers(workers).seed(1).iter(epoch, 0).unwrap()).concat()
    };
    let reference = noise(0, 0);
    for workers in WORKERS {
        assert_eq!(noise(workers, 0), reference);
        assert_ne!(noise(workers, 1), reference);
    }
    assert!(reference.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn an_item_drawn_twice_is_augmented_twice() {
    let dataset = InMemory::new([0i64]).map(|_, rng| rng.random_range(0..1_000_000i64));
    let loader = DataLoader::new(dataset).sampler(RandomSampler::new(1).replacement(true).num_samples(20)).seed(3);
    let drawn = numbers(loader.iter(0, 0).unwrap()).concat();
    assert!(drawn.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(numbers(loader.num_workers(2).iter(0, 5).unwrap()).concat(), drawn[5..]);
}

#[test]
fn an_error_names_the_item_and_ends_the_epoch() {
    for workers in WORKERS {
        let dataset =
            InMemory::new(0..20i64).try_map(|i, _| if i == 9 { Err("the scan is blank".into()) } else { Ok(i) });
        let mut batches = DataLoader::new(dataset).batch_size(4).num_workers(workers).iter(0, 0).unwrap();
        assert!(batches.by_ref().take(2).all(|batch| batch.is_ok()));
        let error = batches.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "item 9 of InMemory could not be loaded: the scan is blank");
        assert!(batches.next().is_none());
    }
}

#[test]
fn a_panic_names_the_item() {
    for workers in WORKERS {
        let dataset = InMemory::new(0..20i64).map(|i, _| if i == 5 { panic!("cannot take {i}") } else { i });
        let error = DataLoader::new(dataset).num_workers(workers).iter(0, 0).unwrap().find_map(Result::err).unwrap();
        assert_eq!(
            error.to_string(),
            "item 5 of InMemory could not be loaded: the code of the dataset panicked: cannot take 5"
        );
    }
}

#[test]
fn a_failing_collate_names_the_batch() {
    type Made = fn(Vec<i64>) -> Result<i64, BoxError>;
    let error = |loader: DataLoader<InMemory<i64>, Made>| {
        loader.batch_size(2).num_workers(1).iter(0, 3).unwrap().next().unwrap().unwrap_err().to_string()
    };
    let base = || DataLoader::new(InMemory::new(0..20i64));
    assert_eq!(
        error(base().collate(|_| Err("no two are alike".into()))),
        "batch 3 of InMemory could not be collated: no two are alike"
    );
    assert_eq!(
        error(base().collate(|items| panic!("{items:?}"))),
        "batch 3 of InMemory could not be collated: the collate function panicked: [6, 7]"
    );
}

/// Asks for an item that is not there, and then panics.
struct Wild;

impl Sampler for Wild {
    fn iter(&self, _: u64, _: u64) -> SampleIter {
        Box::new((0..5).map(|i| if i == 4 { panic!("out of ideas") } else { i }))
    }

    fn len(&self) -> usize {
        5
    }
}

#[test]
fn a_wild_sampler_is_named() {
    for workers in WORKERS {
        let error = |len: i64| {
            let loader = DataLoader::new(InMemory::new(0..len)).sampler(Wild).num_workers(workers);
            loader.iter(0, 0).unwrap().find_map(Result::err).unwrap().to_string()
        };
        assert_eq!(
            error(3),
            "item 3 of InMemory could not be loaded: the sampler yielded it, but there are only 3 items"
        );
        assert_eq!(
            error(9),
            "the items of batch 4 of InMemory could not be chosen: its sampler or stream panicked: out of ideas"
        );
    }
}

#[test]
fn settings_that_contradict_each_other_are_explained() {
    let message = |result: Result<(), DataError>| result.unwrap_err().to_string();
    let base = || DataLoader::new(InMemory::new(0..3i64));
    assert_eq!(message(base().batch_size(0).check()), "batch_size is 0; a batch has at least one item");
    assert_eq!(
        message(base().shuffle(true).sampler(RandomSampler::new(3)).check()),
        "sampler is mutually exclusive with shuffle; leave one of them out"
    );
    let batches = fulgurite_data::BatchSampler::new(RandomSampler::new(3), 2, false).unwrap();
    assert_eq!(
        message(base().batch_sampler(batches).batch_size(2).drop_last(true).check()),
        "batch_sampler is mutually exclusive with batch_size, drop_last; leave one of them out"
    );
    assert_eq!(
        message(base().prefetch_factor(0).check()),
        "prefetch_factor is 0; a worker loads at least one batch ahead"
    );
    assert!(base().batch_size(0).iter(0, 0).is_err());
    assert_eq!(base().batch_size(0).len(), None);
}

#[test]
fn weights_that_cannot_work_are_explained() {
    let message = |weights: &[f64]| WeightedRandomSampler::new(weights, 2).unwrap_err().to_string();
    assert_eq!(message(&[1.0, -1.0]), "the weight of item 1 is -1; weights are finite and not negative");
    assert_eq!(message(&[0.0, 0.0]), "none of the 2 weights is above zero, so no item could be drawn");
    assert_eq!(
        WeightedRandomSampler::new([0.0, 1.0], 2).unwrap().without_replacement().unwrap_err().to_string(),
        "2 samples without replacement need as many items with a weight above zero; there are 1"
    );
}

#[test]
fn dropping_early_ends_the_workers_and_loads_no_more() {
    let (alive, loaded) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
    let (held, counter) = (alive.clone(), loaded.clone());
    let dataset = InMemory::new(0..100_000i64).map(move |i, _| {
        let _ = &held;
        counter.fetch_add(1, Ordering::Relaxed);
        i
    });
    let loader = DataLoader::new(dataset).batch_size(10).num_workers(4);
    let mut batches = loader.iter(0, 0).unwrap();
    assert!(batches.next().unwrap().is_ok());
    let start = Instant::now();
    drop(batches);
    drop(loader);
    assert!(start.elapsed() < Duration::from_secs(5));
    // The workers held the dataset: they are gone, and were at most 4 × 2 batches ahead of the one taken.
    assert_eq!(Arc::strong_count(&alive), 1);
    assert!(loaded.load(Ordering::Relaxed) <= 90, "{loaded:?}");
}

#[test]
fn a_loader_can_be_walked_twice_at_once_and_put_in_order() {
    let shuffled = loader(2).shuffle(true);
    let both: Vec<_> = shuffled.iter(0, 0).unwrap().zip(shuffled.clone().iter(0, 0).unwrap()).collect();
    assert!(both.into_iter().all(|(a, b)| a.unwrap() == b.unwrap()));
    assert!(shuffled.is_shuffled());
    let in_order = shuffled.sequential().unwrap();
    assert_eq!(numbers(in_order.iter(5, 0).unwrap()).concat(), (0..103).collect::<Vec<_>>());
    assert!(in_order.sequential().is_none());
}

#[test]
fn tensors_come_in_one_piece() {
    let x = Tensor::from_slice(&(0..100i64).collect::<Vec<_>>());
    let loader = DataLoader::new(TensorDataset::new((x.view([50, 2]), x.slice(0, 0, 50, 1))).unwrap()).batch_size(20);
    let batches: Vec<_> = loader.num_workers(2).iter(0, 0).unwrap().map(Result::unwrap).collect();
    let sizes: Vec<_> = batches.iter().map(|(x, y)| (x.size(), y.size())).collect();
    assert_eq!(sizes, [(vec![20, 2], vec![20]), (vec![20, 2], vec![20]), (vec![10, 2], vec![10])]);
    assert_eq!(batches[2].1.int64_value(&[9]), 49);
}

#[test]
fn a_worker_computes_on_its_own_thread_alone() {
    let threads = |workers| {
        let dataset = InMemory::new(0..8i64).map(|_, _| i64::from(fulgurite_data::torch::tch::get_num_threads()));
        numbers(DataLoader::new(dataset).num_workers(workers).iter(0, 0).unwrap()).concat()
    };
    let here = i64::from(fulgurite_data::torch::tch::get_num_threads());
    assert_eq!(threads(0), [here; 8]);
    assert_eq!(threads(2), [if cfg!(target_os = "linux") { 1 } else { here }; 8]);
    assert_eq!(i64::from(fulgurite_data::torch::tch::get_num_threads()), here);
}

fn stream(workers: usize) -> IterableDataLoader<impl IterableDataset<Item = i64>> {
    let numbers = IterableFn::new("a stream", |epoch| Ok((0..50).map(move |i| Ok(epoch as i64 * 1000 + i))));
    let noisy = numbers.try_map(|i, rng| {
        std::thread::sleep(Duration::from_micros(if i % 3 == 0 { 200 } else { 0 }));
        Ok(i * 1000 + rng.random_range(0..1000))
    });
    IterableDataLoader::new(noisy).batch_size(8).num_workers(workers).seed(1)
}

#[test]
fn streams_come_in_order_once_with_any_workers() {
    let reference = numbers(stream(0).iter(1, 0).unwrap());
    assert_eq!(reference.concat().iter().map(|i| i / 1000).collect::<Vec<_>>(), (1000..1050).collect::<Vec<_>>());
    assert_eq!(stream(0).len(), None);
    for workers in WORKERS {
        assert_eq!(numbers(stream(workers).iter(1, 0).unwrap()), reference);
        assert_eq!(numbers(stream(workers).iter(1, 4).unwrap()), reference[4..]);
        assert_eq!(numbers(stream(workers).drop_last(true).iter(1, 0).unwrap()), reference[..6]);
    }
    assert_eq!(
        stream(0).batch_size(0).check().unwrap_err().to_string(),
        "batch_size is 0; a batch has at least one item"
    );
}

#[test]
fn a_broken_stream_names_the_record() {
    for workers in WORKERS {
        let items = |_| Ok((0..9i64).map(|i| if i == 6 { Err("connection reset".into()) } else { Ok(i) }));
        let loader = IterableDataLoader::new(IterableFn::new("ticks", items)).batch_size(2).num_workers(workers);
        let results: Vec<_> = loader.iter(0, 0).unwrap().collect();
        assert_eq!(results.len(), 4);
        let error = results.last().unwrap().as_ref().unwrap_err().to_string();
        assert_eq!(error, "record 6 of ticks could not be read: connection reset");
        let decode = loader.dataset().clone().try_map(|i, _| if i == 3 { panic!("bad tick") } else { Ok(i) });
        let error = IterableDataLoader::new(decode).num_workers(workers).iter(0, 0).unwrap().find_map(Result::err);
        assert_eq!(
            error.unwrap().to_string(),
            "item 3 of ticks could not be loaded: the code of the dataset panicked: bad tick"
        );
    }
}

/// What no machine can do is refused, and does not end the program.
#[test]
fn numbers_beyond_all_bounds() {
    let loader = || DataLoader::new(InMemory::new(0..10i64));
    let refused = |loader: DataLoader<InMemory<i64>>| loader.iter(0, 0).map(drop).unwrap_err().to_string();
    for huge in [1 << 63, usize::MAX] {
        assert_eq!(
            refused(loader().num_workers(huge)),
            format!(
                "num_workers is {huge}; a loader can have 4096 threads, and more than processors are rarely faster"
            )
        );
        assert_eq!(
            refused(loader().num_workers(2).prefetch_factor(huge)),
            format!(
                "prefetch_factor is {huge}; the workers of a loader can be 1048576 batches ahead together, and 2 each are \
                 mostly enough"
            )
        );
        let whole = loader().batch_size(huge);
        assert_eq!(whole.len(), Some(1));
        assert_eq!(whole.iter(0, 0).unwrap().count(), 1);
        assert_eq!(whole.iter(0, 3).unwrap().count(), 0);
        let stream = IterableDataLoader::new(IterableFn::new("numbers", |_| Ok((0..10i64).map(Ok)))).batch_size(huge);
        assert_eq!(stream.iter(0, 0).unwrap().count(), 1);
        assert_eq!(stream.iter(0, 2).unwrap().count(), 0);
        let endless = loader().sampler(RandomSampler::new(10).num_samples(huge));
        assert_eq!(endless.iter(0, 0).unwrap().take(25).count(), 25);
        // Together they would be the ten that there are, if sums went round.
        assert!(random_split(InMemory::new(0..10i64), [usize::MAX, 11], 0).is_err());
        assert_eq!(loader().num_workers(1).prefetch_factor(1000).iter(0, 0).unwrap().count(), 10);
    }
}
