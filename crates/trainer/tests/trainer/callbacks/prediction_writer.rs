//! Predictions written while they are made.

use std::any::Any;
use std::path::Path;

use fulgurite::ModuleView;
use fulgurite::callbacks::{PredictionWriter, WriteInterval, WritePredictions};
use fulgurite::data::{InMemory, IntoLoader};
use fulgurite::prelude::*;
use fulgurite::tch::nn;

use crate::callbacks::scripted::quiet;

/// Predicts ten times its input.
struct Tenfold(nn::VarStore);

impl LightningModule for Tenfold {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0
    }

    fn training_step(&mut self, _: Tensor, _: &mut Step) -> Result<Loss> {
        Err("it only predicts".into())
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        Ok((batch * 10).into())
    }
}

#[derive(Default)]
struct Notes {
    batches: Vec<String>,
    epochs: Vec<String>,
}

fn numbers(value: &Value) -> Vec<i64> {
    Vec::try_from(value.as_tensor().unwrap()).unwrap()
}

impl PredictionWriter for Notes {
    fn write_on_batch_end(
        &mut self,
        _: &mut TrainerState,
        module: &mut dyn ModuleView,
        prediction: &Value,
        batch_indices: Option<&[usize]>,
        batch: &dyn Any,
        batch_idx: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        assert_eq!(module.name(), "Tenfold");
        let batch = batch.downcast_ref::<Tensor>().unwrap().size();
        let prediction = numbers(prediction);
        self.batches.push(format!("{dataloader_idx}.{batch_idx} {batch:?} {prediction:?} {batch_indices:?}"));
        Ok(())
    }

    fn write_on_epoch_end(
        &mut self,
        _: &mut TrainerState,
        _: &mut dyn ModuleView,
        predictions: &[Vec<Value>],
        batch_indices: &[Vec<Option<Vec<usize>>>],
    ) -> Result<()> {
        let predictions: Vec<Vec<Vec<i64>>> = predictions.iter().map(|l| l.iter().map(numbers).collect()).collect();
        self.epochs.push(format!("{predictions:?} {batch_indices:?}"));
        Ok(())
    }
}

/// What a writer is told of two loaders: one that knows which items a batch has, and one that does not.
fn notes(write_interval: WriteInterval, num_workers: usize) -> (Vec<String>, Vec<String>) {
    let items = InMemory::new(5..10i64);
    let shuffled = DataLoader::new(items).batch_size(2).shuffle(true).seed(3).num_workers(num_workers);
    let loaders = Loaders(vec![shuffled.into_loader(), vec![Tensor::from_slice(&[1i64])].into_loader()]);
    let writer = WritePredictions::new(Notes::default(), write_interval);
    let mut trainer = quiet(Path::new(".")).callback(writer).build().unwrap();
    let mut module = Tenfold(nn::VarStore::new(Device::Cpu));
    trainer.predict(&mut module, loaders).unwrap();
    assert_eq!(trainer.state().batch_indices(), None);
    let Notes { batches, epochs } = trainer.callback::<WritePredictions<Notes>>().unwrap().writer();
    (batches.clone(), epochs.clone())
}

#[test]
fn indices_belong_to_their_predictions() {
    for num_workers in [0, 2] {
        let (batches, epochs) = notes(WriteInterval::BatchAndEpoch, num_workers);
        assert_eq!(batches.len(), 4);
        assert_eq!(batches[3], "1.0 [1] [10] None");
        // Item `i` is the number `i + 5`.
        for batch in &batches[..3] {
            let (predictions, indices) = batch.split_once(" Some(").unwrap();
            let numbers = |text: &str| -> Vec<i64> {
                let digits = text.rsplit_once('[').unwrap().1;
                digits.trim_end_matches([']', ')']).split(", ").map(|n| n.parse().unwrap()).collect()
            };
            let expected: Vec<i64> = numbers(indices).iter().map(|index| (index + 5) * 10).collect();
            assert_eq!(numbers(predictions), expected);
        }
        assert_eq!(epochs.len(), 1);
        assert!(epochs[0].starts_with("[[["), "{epochs:?}");
        assert!(epochs[0].ends_with(", [None]]"), "{epochs:?}");
    }
}

#[test]
fn a_writer_is_called_at_its_interval_alone() {
    let counts = |interval| {
        let (batches, epochs) = notes(interval, 0);
        (batches.len(), epochs.len())
    };
    assert_eq!(counts(WriteInterval::Batch), (4, 0));
    assert_eq!(counts(WriteInterval::Epoch), (0, 1));
    assert_eq!(counts(WriteInterval::BatchAndEpoch), (4, 1));
    assert_eq!(serde_json::to_string(&WriteInterval::BatchAndEpoch).unwrap(), r#""batch_and_epoch""#);
}
