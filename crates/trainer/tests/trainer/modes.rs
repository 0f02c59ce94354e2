//! Which layers train and which evaluate, in every stage; and that each is afterwards as it was before.

use expect_test::expect;
use fulgurite::Console;
use fulgurite::callbacks::{BackboneFinetuning, LearningRateFinder};
use fulgurite::fabric::Fabric;
use fulgurite::prelude::*;
use fulgurite::torch::{params, serialization};
use fulgurite::tuner::{LearningRateFinderOptions, Tuner};
use fulgurite_test_support::{ones, quiet};

/// No step of it takes the mode as an argument.
struct Net {
    vars: nn::VarStore,
    fc: nn::Linear,
    norm: nn::BatchNorm,
    dropout: nn::Dropout,
    head: nn::Linear,
    /// What each step found, once in a row: `T` for a layer that trains, `e` for one that evaluates.
    found: Vec<String>,
    /// Validations fail.
    fails: bool,
    /// The norm is switched to training when training starts.
    thaws: bool,
}

impl Net {
    fn new() -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let root = vars.root();
        Net {
            fc: nn::linear(4, 3).at(&root / "backbone" / "fc").unwrap(),
            norm: nn::batch_norm1d(3).at(&root / "backbone" / "norm").unwrap(),
            dropout: nn::dropout(0.5).at(&root / "dropout").unwrap(),
            head: nn::linear(3, 1).at(&root / "head").unwrap(),
            vars,
            found: Vec::new(),
            fails: false,
            thaws: false,
        }
    }

    /// The backbone's norm, the dropout, and the whole.
    fn modes(&self) -> String {
        let modes = [self.norm.is_training(), self.dropout.is_training(), self.vars.is_training()];
        modes.map(|trains| if trains { "T" } else { "e" }).concat()
    }

    fn forward(&mut self, step: &str, x: &Tensor) -> Tensor {
        let found = format!("{step} {}", self.modes());
        if self.found.last() != Some(&found) {
            self.found.push(found);
        }
        let hidden = self.norm.forward(&self.fc.forward(x)).tanh();
        self.head.forward(&self.dropout.forward(&hidden))
    }

    fn count(&self) -> i64 {
        self.norm.num_batches_tracked.as_ref().unwrap().int64_value(&[])
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> {
        Ok(self.forward("train", &x).square().mean(Kind::Float).into())
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        let name = if step.trainer().is_sanity_checking() { "sanity" } else { "validate" };
        let _ = self.forward(name, &x);
        if self.fails { Err("out of luck".into()) } else { Ok(()) }
    }

    fn test_step(&mut self, x: Tensor, _: &mut Step) -> Result<()> {
        let _ = self.forward("test", &x);
        Ok(())
    }

    fn predict_step(&mut self, x: Tensor, _: &mut Step) -> Result<Value> {
        Ok(self.forward("predict", &x).into())
    }

    fn example_forward(&mut self) -> Result<Tensor> {
        Ok(self.forward("example", &Tensor::ones([2, 4], (Kind::Float, Device::Cpu))))
    }

    fn on_train_start(&mut self, _: &mut TrainerState) -> Result<()> {
        if self.thaws {
            self.norm.train(true);
        }
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(params::trainable_parameters(&self.vars)).lr(0.01).into())
    }
}

fn batches() -> Vec<Tensor> {
    ones(2, [2, 4])
}

/// Everything that a trainer does with a module; what it warned of.
fn run_everything(net: &mut Net) -> String {
    let console = Console::memory();
    let trainer = quiet().max_epochs(2).enable_model_summary(true).console(console.clone());
    let mut trainer = trainer.build().unwrap();
    trainer.fit(net, (batches(), batches())).unwrap().completed().unwrap();
    trainer.validate(net, Loaders::from(batches())).unwrap();
    trainer.test(net, Loaders::from(batches())).unwrap();
    trainer.predict(net, Loaders::from(batches())).unwrap();
    console.contents()
}

#[test]
fn layers_train_in_training_and_evaluate_otherwise() {
    let mut net = Net::new();
    let said = run_everything(&mut net);
    expect![[r#"
        example eee
        sanity eee
        train TTT
        validate eee
        train TTT
        validate eee
        test eee
        predict eee"#]]
    .assert_eq(&net.found.join("\n"));
    assert_eq!((net.modes().as_str(), net.count()), ("TTT", 4));
    assert!(!said.contains("evaluation mode"), "{said}");
}

#[test]
fn a_layer_that_was_frozen_by_hand_stays_frozen() {
    let mut net = Net::new();
    (net.vars.root() / "backbone").train(false);
    let said = run_everything(&mut net);
    expect![[r#"
        example eee
        sanity eee
        train eTT
        validate eee
        train eTT
        validate eee
        test eee
        predict eee"#]]
    .assert_eq(&net.found.join("\n"));
    assert_eq!((net.modes().as_str(), net.count()), ("eTT", 0));
    assert_eq!(net.norm.running_mean, Some(Tensor::zeros([3], (Kind::Float, Device::Cpu))));
    let warning = "1 layer(s) are in evaluation mode at the start of training, such as `backbone.norm`, and stay in it";
    assert!(said.contains(warning), "{said}");
    // The backbone's only mode is the norm's.
    assert!(said.contains("0 | backbone |         | 21     | eval"), "{said}");
    assert!(said.contains("Modules in eval mode"), "{said}");
}

#[test]
fn a_module_in_evaluation_mode_stays_in_it() {
    let mut net = Net::new();
    net.vars.eval();
    run_everything(&mut net);
    assert!(net.found.iter().all(|found| found.ends_with(" eee")), "{:?}", net.found);
    assert_eq!(net.modes(), "eee");
}

#[test]
fn an_evaluation_that_fails_puts_every_mode_back() {
    let mut net = Net::new();
    (net.fails, net.found) = (true, Vec::new());
    net.norm.train(false);
    let mut trainer = quiet().num_sanity_val_steps(0).build().unwrap();
    trainer.validate(&mut net, Loaders::from(batches())).unwrap_err();
    assert_eq!(net.modes(), "eTT");
    trainer.fit(&mut net, (batches(), batches())).unwrap_err();
    assert_eq!(net.modes(), "eTT");
    quiet().build().unwrap().fit(&mut net, (batches(), batches())).unwrap_err();
    assert_eq!((net.modes().as_str(), net.found.last().unwrap().as_str()), ("eTT", "sanity eee"));
}

#[test]
fn trials_leave_the_modes_as_they_were() {
    let options = LearningRateFinderOptions::default().num_training(20).update_attr(false);
    let mut net = Net::new();
    net.thaws = true;
    net.norm.train(false);
    let mut trainer = quiet().build().unwrap();
    Tuner::new(&mut trainer).lr_find(&mut net, Loaders::from(batches()), options).unwrap();
    assert_eq!((net.modes().as_str(), net.count()), ("eTT", 0));

    net.found.clear();
    let finder = LearningRateFinder::new().num_training(20).update_attr(false);
    _ = quiet().callback(finder).build().unwrap().fit(&mut net, (batches(), batches())).unwrap();
    assert_eq!((net.modes().as_str(), net.count()), ("TTT", 2));
}

#[test]
fn a_norm_that_trains_while_its_backbone_is_frozen_is_no_surprise_later() {
    let (mut net, console) = (Net::new(), Console::memory());
    let finetuning = BackboneFinetuning::new().unfreeze_backbone_at_epoch(1);
    let mut trainer = quiet().max_epochs(2).callback(finetuning).console(console.clone()).build().unwrap();
    trainer.fit(&mut net, batches()).unwrap().completed().unwrap();
    let groups = trainer.state().optimizer(0).unwrap().param_groups();
    // The head and the norm at first, then the linear layer of the backbone.
    assert_eq!(groups.iter().map(|group| group.params.len()).collect::<Vec<_>>(), [4, 2]);
    assert!(!console.contents().contains("to unfreeze"), "{}", console.contents());
}

/// Keeps a mode itself, and leaves evaluation mode in its own way.
struct Own {
    net: Net,
    called: Vec<String>,
}

impl LightningModule for Own {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.net.vars
    }

    fn train(&mut self, mode: bool) -> Result<()> {
        self.called.push(format!("train({mode})"));
        params::train(&self.net.vars, mode);
        Ok(())
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        self.net.training_step(x, step)
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        self.net.validation_step(x, step)
    }

    fn test_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        self.net.test_step(x, step)
    }

    fn predict_step(&mut self, x: Tensor, step: &mut Step) -> Result<Value> {
        self.net.predict_step(x, step)
    }

    fn on_validation_model_train(&mut self, _: &mut TrainerState) -> Result<()> {
        self.called.push("on_validation_model_train".into());
        self.net.dropout.train(true);
        Ok(())
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.net.configure_optimizers(trainer)
    }
}

#[test]
fn a_hook_that_leaves_evaluation_mode_is_all_that_happens() {
    let mut own = Own { net: Net::new(), called: Vec::new() };
    own.net.norm.train(false);
    let mut trainer = quiet().num_sanity_val_steps(0).build().unwrap();
    _ = trainer.fit(&mut own, (batches(), batches())).unwrap();
    assert_eq!(
        (own.net.modes().as_str(), own.called.join(" ").as_str()),
        ("eTe", "train(false) on_validation_model_train")
    );
    own.net.vars.train(true);
    own.net.norm.train(false);
    own.called.clear();
    trainer.test(&mut own, Loaders::from(batches())).unwrap();
    trainer.predict(&mut own, Loaders::from(batches())).unwrap();
    assert_eq!(own.net.modes(), "eTT");
    assert_eq!(own.called.join(" "), "train(false) train(true) train(false) train(true)");
}

#[test]
fn the_count_of_a_batch_norm_is_in_checkpoints_and_a_file_without_it_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let [weights, without] = ["weights.ckpt", "without.pt"].map(|name| folder.path().join(name));
    let mut net = Net::new();
    let mut trainer = quiet().build().unwrap();
    _ = trainer.fit(&mut net, Loaders::from(batches())).unwrap();
    trainer.save_checkpoint(&mut net, &weights, true).unwrap();
    let mut state = params::state_dict(&net.vars).unwrap();

    let loaded = Net::new();
    Checkpoint::open(&weights).unwrap().load_into(&loaded.vars).unwrap();
    assert_eq!((loaded.count(), &params::state_dict(&loaded.vars).unwrap()), (2, &state));

    // As the layers of `tch` are saved.
    state.remove("backbone.norm.num_batches_tracked").unwrap();
    serialization::save(&without, &Value::Dict(state)).unwrap();
    let loaded = Net::new();
    Checkpoint::open(&without).unwrap().load_into(&loaded.vars).unwrap();
    assert_eq!((loaded.count(), loaded.norm.running_mean), (0, net.norm.running_mean));
}

#[test]
fn a_fabric_leaves_modes_to_the_loop() {
    let mut fabric = Fabric::builder().accelerator("cpu").devices(1).build().unwrap();
    let make = |root: &nn::Path<'_>| nn::sequential().add(nn::linear(2, 2)).add(nn::dropout(0.5)).at(root / "net");
    let (vars, net) = fabric.init_module(make).unwrap();
    vars.eval();
    let mut optimizer = fabric.setup(&vars, SGD::new(&vars).lr(0.1).build().unwrap()).unwrap();
    let x = Tensor::ones([4, 2], (Kind::Float, Device::Cpu));
    let mut outputs = || fabric.forward(|| net.forward(&x)).unwrap();
    assert_eq!(outputs(), outputs());
    assert!(!vars.is_training());
    vars.train(true);
    let loss = outputs().sum(Kind::Float);
    fabric.backward(&loss).unwrap();
    fabric.optimizer_step(optimizer.as_mut()).unwrap();
    assert!(vars.is_training());

    let error = fabric.init_module(|root| nn::linear(0, 1).at(root / "fc")).unwrap_err().to_string();
    assert!(error.starts_with("cannot create the module: `fc` (Linear"), "{error}");
}
