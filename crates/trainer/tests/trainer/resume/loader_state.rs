//! Loaders whose order depends on a generator of their own.

use std::sync::Mutex;

use fulgurite::data::{BatchIter, BoxLoader, CombinedLoader, DataError, IntoLoader, Loader};
use fulgurite::prelude::*;
use fulgurite::{Console, TrainerBuilder};
use fulgurite_test_support::quiet;

/// Numbers from `from` on, in an order that each pass draws from a generator that goes on from the pass before.
struct Drawing {
    from: usize,
    len: usize,
    generator: Mutex<i64>,
}

fn drawing(from: usize, len: usize) -> Drawing {
    Drawing { from, len, generator: Mutex::new(from as i64) }
}

impl Loader for Drawing {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        Some(self.len)
    }

    fn len_is_exact(&self) -> bool {
        true
    }

    fn iter(&self, _: u64, skip: usize) -> std::result::Result<BatchIter<Tensor>, DataError> {
        let mut generator = self.generator.lock().unwrap();
        let mut order: Vec<usize> = (self.from..self.from + self.len).collect();
        for at in (1..order.len()).rev() {
            *generator = generator.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(at, (*generator as u64 >> 33) as usize % (at + 1));
        }
        Ok(Box::new(order.into_iter().skip(skip).map(|number| Ok(Tensor::from(number as f32)))))
    }

    fn state(&self) -> std::result::Result<Option<Dict>, DataError> {
        Ok(Some(Dict::new().with("generator", *self.generator.lock().unwrap())))
    }

    fn restore(&mut self, state: &Dict) -> std::result::Result<(), DataError> {
        let generator = state.int("generator").map_err(|error| DataError::Setting(error.to_string()))?;
        *self.generator.lock().unwrap() = generator;
        Ok(())
    }
}

/// Writes down what it is trained on.
struct Seen<B> {
    vars: nn::VarStore,
    w: Tensor,
    seen: Vec<String>,
    text: fn(&B) -> String,
}

fn seen<B>(text: fn(&B) -> String) -> Seen<B> {
    let vars = nn::VarStore::new(Device::Cpu);
    let w = vars.root().var("w", &[], nn::Init::Const(1.0));
    Seen { vars, w, seen: Vec::new(), text }
}

impl<B: fulgurite::data::Batch> LightningModule for Seen<B> {
    type Batch = B;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: B, _: &mut Step) -> Result<Loss> {
        self.seen.push((self.text)(&batch));
        Ok((&self.w * &self.w).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.1).into())
    }
}

fn number(tensor: &Tensor) -> String {
    tensor.double_value(&[]).to_string()
}

/// Resumes a run from each of its checkpoints, after every batch and after every epoch.
fn resumes_exactly<B: fulgurite::data::Batch>(data: impl Fn() -> BoxLoader<B>, text: fn(&B) -> String) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let trainer = || quiet().max_epochs(3);
    let saves = |builder: TrainerBuilder| {
        let every = || ModelCheckpoint::new().dirpath(root.path()).save_top_k(Maximum::Unlimited);
        let batches = every().every_n_train_steps(1).filename("batch-{step}");
        let epochs = every().every_n_epochs(1).save_on_train_epoch_end(true).filename("epoch-{step}");
        builder.enable_checkpointing(true).callback(batches).callback(epochs)
    };
    let mut whole = seen(text);
    saves(trainer()).build().unwrap().fit(&mut whole, data()).unwrap();
    let mut resumed_from = 0;
    for file in std::fs::read_dir(root.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let step: usize = name.rsplit('=').next().unwrap().parse().unwrap();
        let mut resumed = seen(text);
        trainer().build().unwrap().ckpt_path(path.to_str().unwrap()).fit(&mut resumed, data()).unwrap();
        assert_eq!(resumed.seen, whole.seen[step..], "{name}");
        resumed_from += 1;
    }
    assert_eq!(resumed_from, whole.seen.len() + 3);
    whole.seen
}

#[test]
fn a_loader_with_a_generator_of_its_own_resumes_exactly() {
    let whole = resumes_exactly(|| drawing(0, 4).into_loader(), number);
    assert_ne!(whole[..4], whole[4..8], "the generator goes on");
    resumes_exactly(|| drawing(0, 5).limit(3).into_loader(), number);

    // A checkpoint of after the run, whose loader is gone.
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("after.ckpt");
    let mut trainer = quiet().max_epochs(1).build().unwrap();
    let mut first = seen(number);
    trainer.fit(&mut first, drawing(0, 4).into_loader()).unwrap();
    trainer.save_checkpoint(&mut first, &path, false).unwrap();
    let mut rest = seen(number);
    quiet()
        .max_epochs(3)
        .build()
        .unwrap()
        .ckpt_path(path.to_str().unwrap())
        .fit(&mut rest, drawing(0, 4).into_loader())
        .unwrap();
    assert_eq!([first.seen, rest.seen].concat(), whole);
}

#[test]
fn several_loaders_with_generators_resume_exactly() {
    let both = |(a, b): &(Tensor, Tensor)| format!("{}+{}", number(a), number(b));
    resumes_exactly(|| CombinedLoader::max_size_cycle((drawing(0, 5), drawing(10, 2))).into_loader(), both);
    resumes_exactly(|| CombinedLoader::min_size((drawing(0, 3), drawing(10, 2))).into_loader(), both);
}

#[test]
fn a_checkpoint_without_the_state_of_the_loader_is_told() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("last.ckpt");
    let stateless = || vec![Tensor::from(1.0f32), Tensor::from(2.0f32)];
    let mut trainer = quiet().max_epochs(1).build().unwrap();
    let mut module = seen(number);
    trainer.fit(&mut module, stateless()).unwrap();
    trainer.save_checkpoint(&mut module, &path, false).unwrap();
    let said = |data: BoxLoader<Tensor>| {
        let console = Console::memory();
        let mut trainer = quiet().max_epochs(2).console(console.clone()).build().unwrap();
        trainer.ckpt_path(path.to_str().unwrap()).fit(&mut seen(number), data).unwrap();
        console.contents()
    };
    assert!(said(drawing(0, 2).into_loader()).contains("the training loader has a state of its own"));
    assert!(!said(stateless().into_loader()).contains("a state of its own"));
}
