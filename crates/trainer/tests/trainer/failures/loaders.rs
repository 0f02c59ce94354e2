//! Loaders that panic where no batch is asked for: the error names the loader, not the hook that ran last.

use fulgurite::Error;
use fulgurite::data::{BatchIter, BoxLoader, DataError, Loader, SampleIter};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite_test_support::quiet;

/// Panics in the method of this name.
#[derive(Clone, Copy)]
struct Panics(&'static str);

impl Panics {
    fn reach(self, method: &str) {
        assert_ne!(self.0, method, "out of tape");
    }
}

impl Loader for Panics {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        self.reach("len");
        Some(2)
    }

    fn len_is_exact(&self) -> bool {
        self.reach("len_is_exact");
        true
    }

    fn iter(&self, _: u64, skip: usize) -> std::result::Result<BatchIter<Tensor>, DataError> {
        Ok(Box::new((skip..2).map(|_| Ok(Tensor::from(1.0f32)))))
    }

    fn state(&self) -> std::result::Result<Option<Dict>, DataError> {
        self.reach("state");
        Ok(None)
    }

    fn batch_indices(&self, _: u64) -> Option<SampleIter<Vec<usize>>> {
        self.reach("batch_indices");
        let panics = *self;
        Some(Box::new((0..2).map(move |batch| {
            panics.reach("an index");
            vec![batch]
        })))
    }

    fn is_shuffled(&self) -> bool {
        self.reach("is_shuffled");
        true
    }

    fn sequential(&self) -> Option<BoxLoader<Tensor>> {
        self.reach("sequential");
        None
    }

    fn sequence(&self) -> Option<Vec<BoxLoader<Tensor>>> {
        self.reach("sequence");
        None
    }
}

struct Weight(nn::VarStore, Tensor);

impl Weight {
    fn new() -> Weight {
        let vars = nn::VarStore::new(Device::Cpu);
        let weight = vars.root().var("w", &[], nn::Init::Const(1.0));
        Weight(vars, weight)
    }
}

impl LightningModule for Weight {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0
    }

    fn training_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Loss> {
        Ok((batch * &self.1).into())
    }

    fn validation_step(&mut self, _: Tensor, _: &mut Step) -> Result<()> {
        Ok(())
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        Ok(batch.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.0).into())
    }
}

#[track_caller]
fn check<T>(result: std::result::Result<T, Error>, stage: &str, method: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{method} was not called in {stage}")).to_string();
    let start = format!("the {stage} data loader failed: its code panicked: ");
    assert!(error.starts_with(&start) && error.contains("out of tape"), "{method}: {error}");
}

#[test]
fn a_panic_outside_of_a_pass_is_the_loaders() {
    let fit = |method: &'static str| quiet().build().unwrap().fit(&mut Weight::new(), Panics(method));
    for method in ["len", "len_is_exact", "sequence", "state"] {
        check(fit(method), "training", method);
    }
    for method in ["is_shuffled", "sequential", "batch_indices", "state"] {
        let mut trainer = quiet().overfit_batches(1).build().unwrap();
        check(trainer.fit(&mut Weight::new(), Panics(method)), "training", method);
    }
    for method in ["len", "len_is_exact", "sequence", "is_shuffled"] {
        let mut trainer = quiet().build().unwrap();
        check(trainer.validate(&mut Weight::new(), Panics(method)), "validation", method);
    }
    for method in ["len", "is_shuffled", "batch_indices", "an index"] {
        let mut trainer = quiet().build().unwrap();
        check(trainer.predict(&mut Weight::new(), Panics(method)), "prediction", method);
    }
}
