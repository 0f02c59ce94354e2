//! `estimated_stepping_batches`, asked for before and after the training loader is there.

use fulgurite::optim::OneCycleLR;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{Console, TrainerBuilder};

use super::{batches, quiet, scalars};

/// Asks for the length of the run when it configures its optimizers.
struct Asks {
    vars: nn::VarStore,
    w: Tensor,
    heard: Vec<Option<u64>>,
    configured: usize,
    loaders_asked: usize,
    own_batches: usize,
}

fn asks() -> Asks {
    let (vars, [w]) = scalars(["w"]);
    Asks { vars, w, heard: Vec::new(), configured: 0, loaders_asked: 0, own_batches: 5 }
}

impl LightningModule for Asks {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> {
        Ok((&self.w * x).into())
    }

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.loaders_asked += 1;
        Ok(batches(&vec![0.1; self.own_batches]).into())
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.configured += 1;
        let steps = trainer.estimated_stepping_batches()?;
        self.heard.push(steps);
        let optimizers = Optimizers::from(SGD::new(&self.vars).lr(0.1));
        Ok(match steps {
            Some(steps @ 1..) => {
                let scheduler = OneCycleLR::new(0.2, u32::try_from(steps)?);
                optimizers.scheduler(LrSchedulerConfig::new(scheduler).interval(Interval::Step))
            }
            _ => optimizers,
        })
    }
}

struct Data(usize);

impl LightningDataModule for Data {
    type Batch = Tensor;

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        self.0 += 1;
        Ok(batches(&[0.1; 4]).into())
    }
}

#[test]
fn it_is_known_wherever_the_loader_comes_from() {
    let mut module = asks();
    _ = quiet().max_epochs(3).build().unwrap().fit(&mut module, batches(&[0.1; 7])).unwrap();
    assert_eq!((module.heard, module.configured), (vec![Some(21)], 2));

    let (mut module, mut data) = (asks(), Data(0));
    _ = quiet().max_epochs(3).accumulate_grad_batches(3).build().unwrap().fit(&mut module, &mut data).unwrap();
    assert_eq!((module.heard, data.0), (vec![Some(6)], 1));

    let mut module = asks();
    _ = quiet().max_epochs(2).build().unwrap().fit(&mut module, ()).unwrap();
    assert_eq!((module.heard, module.loaders_asked), (vec![Some(10)], 1));

    // More steps than can be counted are not none.
    let mut module = asks();
    _ = quiet().max_epochs(1 << 62).max_steps(3).build().unwrap().fit(&mut module, batches(&[0.1; 4])).unwrap();
    assert_eq!(module.heard, [Some(3)]);
}

#[test]
fn limits_count() {
    let heard = |trainer: TrainerBuilder| {
        let mut module = asks();
        _ = trainer.build().unwrap().fit(&mut module, batches(&[0.1; 10])).unwrap();
        assert_eq!(module.heard.len(), 1);
        module.heard[0]
    };
    assert_eq!(heard(quiet().max_epochs(2).max_steps(7)), Some(7));
    assert_eq!(heard(quiet().max_epochs(Maximum::Unlimited).max_steps(7)), Some(7));
    assert_eq!(heard(quiet().max_epochs(2).limit_train_batches(3)), Some(6));
    assert_eq!(heard(quiet().max_epochs(2).limit_train_batches(0.5)), Some(10));
    assert_eq!(heard(quiet().max_epochs(2).limit_train_batches(0)), Some(0));
    assert_eq!(heard(quiet().max_epochs(0)), Some(10));
    assert_eq!(heard(quiet().fast_dev_run(2)), Some(2));
}

#[test]
fn nobody_knows_the_length_of_an_endless_run() {
    let mut module = asks();
    let mut trainer =
        quiet().max_epochs(Maximum::Unlimited).callback(Timer::new(std::time::Duration::ZERO)).build().unwrap();
    _ = trainer.fit(&mut module, batches(&[0.1])).unwrap();
    assert_eq!((module.heard, module.configured), (vec![None], 1));
}

#[test]
fn a_resumed_run_is_as_long_as_the_whole() {
    let root = tempfile::tempdir().unwrap();
    let data = || batches(&[0.1, 0.2, 0.3]);
    let every = ModelCheckpoint::new().dirpath(root.path()).every_n_train_steps(4).filename("{step}");
    let mut whole = asks();
    _ = quiet()
        .max_epochs(2)
        .enable_checkpointing(true)
        .callback(every)
        .build()
        .unwrap()
        .fit(&mut whole, data())
        .unwrap();
    let mut resumed = asks();
    let mut trainer = quiet().max_epochs(2).build().unwrap();
    _ = trainer.ckpt_path(root.path().join("step=4.ckpt").to_str().unwrap()).fit(&mut resumed, data()).unwrap();
    assert_eq!(resumed.heard, [Some(6)]);
    assert_eq!(resumed.w.double_value(&[]), whole.w.double_value(&[]));
}

#[test]
fn elsewhere_it_is_known_once_training_starts() {
    struct Early;
    impl Callback for Early {
        fn on_fit_start(&mut self, trainer: &mut TrainerState, _: &mut dyn fulgurite::ModuleView) -> Result<()> {
            trainer.estimated_stepping_batches()?;
            Ok(())
        }
    }
    struct InTime;
    impl Callback for InTime {
        fn on_train_start(&mut self, trainer: &mut TrainerState, _: &mut dyn fulgurite::ModuleView) -> Result<()> {
            let steps = trainer.estimated_stepping_batches()?;
            trainer.print(&format!("{steps:?}"));
            Ok(())
        }
    }
    struct Silent(Asks);
    impl LightningModule for Silent {
        type Batch = Tensor;

        fn vars(&self) -> &dyn Parameters {
            &self.0.vars
        }

        fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
            self.0.training_step(x, step)
        }

        fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
            Ok(SGD::new(&self.0.vars).lr(0.1).into())
        }
    }
    let error = quiet().callback(Early).build().unwrap().fit(&mut Silent(asks()), batches(&[1.0])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Early::on_fit_start failed (epoch 0): the number of training batches is not known yet; return this error from `configure_optimizers`, which is then called again, or call it from `on_train_start` on"
    );
    let console = Console::memory();
    let mut trainer = quiet().callback(InTime).console(console.clone()).build().unwrap();
    _ = trainer.fit(&mut Silent(asks()), batches(&[1.0, 1.0])).unwrap();
    assert!(console.contents().starts_with("Some(2)\n"), "{}", console.contents());
}
