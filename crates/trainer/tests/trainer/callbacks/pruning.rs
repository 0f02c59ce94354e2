//! What is pruned stays pruned. Which parameters are, and what becomes of the others, is compared with Lightning in
//! `tests/parity`.

use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use fulgurite::callbacks::{LambdaCallback, ModelPruning, ModelPruningOptions, PruningFn};
use fulgurite::config::Configurable;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{params, serialization};
use fulgurite::{Console, ModuleView};

use crate::callbacks::scripted::quiet;

/// Two layers, whose optimizers are stepped by hand if asked to, twice per batch.
struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    fc2: nn::Linear,
    manual: bool,
    optimizer: fn(&nn::VarStore) -> Optimizers,
    /// Pruned weights that were not zero in some forward pass.
    leaks: Arc<Mutex<usize>>,
}

impl Net {
    fn new() -> Net {
        // No unit is dead: its weights would stay zero without a mask.
        tch::manual_seed(1);
        let vars = nn::VarStore::new(Device::Cpu);
        let fc1 = nn::linear(vars.root() / "fc1", 4, 6, Default::default());
        let fc2 = nn::linear(vars.root() / "fc2", 6, 1, Default::default());
        // Momentum and decay move weights that have no gradient.
        let optimizer = |vars: &nn::VarStore| SGD::new(vars).lr(0.05).momentum(0.9).weight_decay(0.1).into();
        Net { vars, fc1, fc2, manual: false, optimizer, leaks: Arc::default() }
    }

    fn zeros(&self) -> usize {
        let zeros = |tensor: &Tensor| (tensor.numel() as i64 - tensor.count_nonzero(None).int64_value(&[])) as usize;
        params::named_parameters(&self.vars).iter().map(|(_, tensor)| zeros(tensor)).sum()
    }

    fn weights(&self) -> Vec<f32> {
        let all = params::named_parameters(&self.vars);
        all.iter().flat_map(|(_, w)| Vec::<f32>::try_from(w.detach().flatten(0, -1)).unwrap()).collect()
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        !self.manual
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = |net: &Net| (x.apply(&net.fc1).tanh().apply(&net.fc2) - 3).square().mean(Kind::Float);
        if !self.manual {
            return Ok(loss(self).into());
        }
        let mut zeros = self.zeros();
        for _ in 0..2 {
            step.zero_grad(0)?;
            let loss = loss(self);
            step.manual_backward(self, &loss)?;
            step.optimizer_step(self, 0)?;
            *self.leaks.lock().unwrap() += zeros.saturating_sub(self.zeros());
            zeros = self.zeros();
        }
        Ok(Loss::skip())
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        step.log("val_loss", x.apply(&self.fc1).tanh().apply(&self.fc2).mean(Kind::Float));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok((self.optimizer)(&self.vars))
    }
}

fn batches(n: i64) -> Vec<Tensor> {
    (0..n).map(|i| Tensor::arange(8, (Kind::Float, Device::Cpu)).reshape([2, 4]) / 8 + i).collect()
}

fn trainer(pruning: ModelPruning, epochs: u64) -> Trainer {
    let folder = tempfile::tempdir().unwrap();
    let builder = quiet(folder.path()).max_epochs(epochs).enable_checkpointing(false);
    builder.callback(pruning).build().unwrap()
}

fn plain() -> ModelPruning {
    ModelPruning::new(PruningFn::L1Unstructured).use_lottery_ticket_hypothesis(false)
}

/// 37 parameters: half of what is left after each of four epochs, rounded to even.
const FOUR_HALVES: usize = 18 + 10 + 4 + 2;

#[test]
fn optimizers_do_not_bring_back_what_is_pruned() {
    let optimizers: [fn(&nn::VarStore) -> Optimizers; 6] = [
        |vars| SGD::new(vars).lr(0.05).momentum(0.9).nesterov(true).weight_decay(0.1).into(),
        |vars| Adam::new(vars).lr(0.01).weight_decay(0.1).into(),
        |vars| AdamW::new(vars).lr(0.01).into(),
        |vars| fulgurite::optim::RMSprop::new(vars).lr(0.01).momentum(0.9).into(),
        |vars| fulgurite::optim::Lion::new(vars).lr(0.01).into(),
        |vars| fulgurite::optim::Rprop::new(vars).lr(0.01).into(),
    ];
    for optimizer in optimizers {
        for manual in [false, true] {
            let mut net = Net { manual, optimizer, ..Net::new() };
            _ = trainer(plain(), 4).fit(&mut net, batches(3)).unwrap();
            assert_eq!(*net.leaks.lock().unwrap(), 0);
            assert_eq!(net.zeros(), FOUR_HALVES);
        }
    }
}

/// LBFGS mixes all parameters, and its memory cannot be told apart by parameter.
#[test]
fn what_an_optimizer_moves_anyway_is_zero_again_after_the_batch() {
    let mut net = Net { optimizer: |vars| fulgurite::optim::LBFGS::new(vars).lr(0.1).into(), ..Net::new() };
    let mut trainer = trainer(plain().apply_pruning_by_epoch(|epoch| epoch == 0).make_pruning_permanent(false), 3);
    _ = trainer.fit(&mut net, batches(2)).unwrap();
    assert_eq!(net.zeros(), 18);
}

#[test]
fn nothing_of_what_is_pruned_remains() {
    // Not even NaN, which no factor turns into zero.
    let mut net = Net::new();
    let _ = tch::no_grad(|| net.fc1.ws.get(0).fill_(f64::NAN));
    let pruning = ModelPruning::new(PruningFn::RandomUnstructured).amount(1.0).use_lottery_ticket_hypothesis(false);
    _ = trainer(pruning, 1).fit(&mut net, batches(1)).unwrap();
    assert_eq!(net.weights(), [0.0; 37]);
}

#[test]
fn gradients_of_what_is_pruned_do_not_count_when_clipping() {
    // All but one weight is pruned, so its clipped gradient has the norm by itself, and the step the length of it.
    let folder = tempfile::tempdir().unwrap();
    let pruning = plain().parameters_to_prune(["fc1.weight", "fc1.bias", "fc2.weight"]).amount(36);
    let pruning = pruning.apply_pruning_by_epoch(|epoch| epoch == 0);
    let mut net = Net { optimizer: |vars| SGD::new(vars).lr(1.0).into(), ..Net::new() };
    let biases: Arc<Mutex<Vec<f64>>> = Arc::default();
    let seen = biases.clone();
    let watch = LambdaCallback::new().on_train_epoch_end(move |_, module: &mut dyn ModuleView| {
        let bias = params::named_parameters(module.vars()).remove(3).1;
        seen.lock().unwrap().push(bias.double_value(&[0]));
        Ok(())
    });
    let builder = quiet(folder.path()).max_epochs(2).gradient_clip_val(0.25).enable_checkpointing(false);
    let mut trainer = builder.callback(pruning).callback(watch).build().unwrap();
    _ = trainer.fit(&mut net, batches(1)).unwrap();
    let biases = biases.lock().unwrap();
    assert!(((biases[1] - biases[0]).abs() - 0.25).abs() < 1e-4, "{biases:?}");
}

#[test]
fn masks_are_dropped_or_kept_for_a_later_fit() {
    for (permanent, zeros) in [(true, 0), (false, 18)] {
        let folder = tempfile::tempdir().unwrap();
        let once = plain().apply_pruning_by_epoch(|epoch| epoch == 0).make_pruning_permanent(permanent);
        let one_epoch = LambdaCallback::new().on_train_epoch_end(|trainer, _| {
            trainer.request_stop("one epoch per fit");
            Ok(())
        });
        let builder = quiet(folder.path()).max_epochs(Maximum::Unlimited).enable_checkpointing(false);
        let mut trainer = builder.callback(once).callback(one_epoch).build().unwrap();
        let mut net = Net::new();
        _ = trainer.fit(&mut net, batches(2)).unwrap();
        assert_eq!(net.zeros(), 18);
        let masks = |trainer: &Trainer| trainer.callback::<ModelPruning>().unwrap().masks().count();
        assert_eq!(masks(&trainer), if permanent { 0 } else { 4 });
        _ = trainer.fit(&mut net, batches(2)).unwrap();
        assert_eq!(trainer.state().current_epoch(), 2);
        assert_eq!(net.zeros(), zeros);
    }
}

#[test]
fn a_resumed_run_goes_on_with_its_masks_and_first_values() {
    for lottery in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let run = |epochs: u64, net: &mut Net, from: Option<&str>| {
            let pruning = ModelPruning::new(PruningFn::L1Unstructured).amount(0.3);
            let pruning = pruning.use_lottery_ticket_hypothesis(lottery);
            let checkpoint =
                ModelCheckpoint::new().dirpath(folder.path()).filename("{epoch}").save_top_k(Maximum::Unlimited);
            let builder = quiet(folder.path()).max_epochs(epochs).callback(pruning).callback(checkpoint);
            let mut trainer = builder.build().unwrap();
            _ = trainer.ckpt_path(from.map(|from| folder.path().join(from))).fit(net, batches(3)).unwrap();
        };
        let mut whole = Net::new();
        run(3, &mut whole, None);
        let mut resumed = Net::new();
        run(3, &mut resumed, Some("epoch=0.ckpt"));
        assert_eq!(resumed.weights(), whole.weights());

        // The file has the names that a module without pruning has, and zeros.
        let file = serialization::load(folder.path().join("epoch=0.ckpt")).unwrap();
        let weights = file.as_dict().unwrap().dict("state_dict").unwrap();
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]);
        params::load_state_dict(&resumed.vars, weights, true).unwrap();
        assert_eq!(resumed.zeros(), 11);
    }
}

#[test]
fn what_is_left_may_be_drawn_anew() {
    let before = Net::new();
    let mut net = Net::new();
    params::load_state_dict(&net.vars, &params::state_dict(&before.vars).unwrap(), true).unwrap();
    let pruning = ModelPruning::new(PruningFn::L1Unstructured).resample_parameters(true);
    _ = trainer(pruning, 1).fit(&mut net, batches(1)).unwrap();
    assert_eq!(net.zeros(), 18);
    let (new, old) = (net.weights(), before.weights());
    assert!(new.iter().all(|w| w.abs() <= 0.5 && (*w == 0.0 || !old.contains(w))), "{new:?}, {old:?}");

    let pruning =
        ModelPruning::new(PruningFn::L1Unstructured).resample_parameters(true).resample_with(|name, tensor| {
            let _ = tensor.fill_(if name.ends_with("bias") { 2.0 } else { 1.0 });
            Ok(())
        });
    _ = trainer(pruning, 1).fit(&mut net, batches(1)).unwrap();
    assert!(net.weights().iter().all(|w| [0.0, 1.0, 2.0].contains(w)), "{:?}", net.weights());
}

#[test]
fn a_method_of_ones_own() {
    let largest = |left: &Tensor, _| Ok(left.abs().lt_tensor(&left.abs().max()));
    let mut net = Net::new();
    let pruning = ModelPruning::with_method(largest).use_lottery_ticket_hypothesis(false);
    _ = trainer(pruning, 3).fit(&mut net, batches(1)).unwrap();
    assert_eq!(net.zeros(), 3);
}

#[test]
fn two_may_prune_different_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| plain().parameters_to_prune([name]);
    let builder = quiet(folder.path()).max_epochs(1).callback(of("fc1.weight")).callback(of("fc2.weight"));
    let mut trainer = builder.build().unwrap();
    _ = trainer.fit(&mut Net::new(), batches(1)).unwrap();
    let file = serialization::load(trainer.best_model_path().unwrap()).unwrap();
    let states = file.as_dict().unwrap().dict("callbacks").unwrap();
    for name in ["fc1.weight", "fc2.weight"] {
        let state = states.dict(&format!("ModelPruning{{'parameters_to_prune': ['{name}']}}")).unwrap();
        assert_eq!(state.dict("masks").unwrap().keys().collect::<Vec<_>>(), [name]);
    }
    let builder = quiet(folder.path()).max_epochs(1).callback(plain()).callback(plain());
    let error = builder.build().unwrap().fit(&mut Net::new(), batches(1)).unwrap_err().to_string();
    assert!(error.starts_with("two callbacks have the state key `ModelPruning`"), "{error}");
}

#[test]
fn pruning_may_wait_for_validation() {
    let mut net = Net::new();
    let mut trainer = trainer(plain().prune_on_train_epoch_end(false), 2);
    _ = trainer.fit(&mut net, (batches(2), batches(1))).unwrap();
    assert_eq!(net.zeros(), 28);
    // Outside fit there is nothing to prune.
    trainer.verbose(false).validate(&mut net, batches(1)).unwrap();
    assert_eq!(net.zeros(), 28);
}

#[test]
fn each_pruning_is_reported() {
    let report = |verbose: u8| {
        let console = Console::memory();
        let folder = tempfile::tempdir().unwrap();
        let pruning = plain().parameter_names(["weight"]).amount(6).use_global_unstructured(false).verbose(verbose);
        let builder = quiet(folder.path()).max_epochs(1).enable_checkpointing(false).console(console.clone());
        _ = builder.callback(pruning).build().unwrap().fit(&mut Net::new(), batches(1)).unwrap();
        let contents = console.contents();
        contents.lines().filter(|line| line.contains("Applied")).map(|line| format!("{line}\n")).collect::<String>()
    };
    expect![""].assert_eq(&report(0));
    expect![[r#"
        Applied `l1_unstructured`. Pruned: 0/30 (0.00%) -> 12/30 (40.00%)
    "#]]
    .assert_eq(&report(1));
    expect![[r#"
        Applied `l1_unstructured`. Pruned: 0/30 (0.00%) -> 12/30 (40.00%)
        Applied `l1_unstructured` to `fc1.weight` with amount=6. Pruned: 0 (0.00%) -> 6 (25.00%)
        Applied `l1_unstructured` to `fc2.weight` with amount=6. Pruned: 0 (0.00%) -> 6 (100.00%)
    "#]]
    .assert_eq(&report(2));
}

#[track_caller]
fn refused(pruning: ModelPruning, expected: Expect) {
    let error = trainer(pruning, 1).fit(&mut Net::new(), batches(1)).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn what_cannot_be_is_refused() {
    let new = ModelPruning::new;
    refused(
        new(PruningFn::LnStructured),
        expect![
            "ModelPruning with ln_structured takes whole slices, which cannot be compared across parameters; set use_global_unstructured to false"
        ],
    );
    refused(
        new(PruningFn::RandomStructured).use_global_unstructured(false),
        expect![
            "ModelPruning with random_structured needs pruning_dim, the dimension whose slices are pruned; 0 is a layer's outputs"
        ],
    );
    refused(
        new(PruningFn::LnStructured).use_global_unstructured(false).pruning_dim(0),
        expect!["ModelPruning with ln_structured needs pruning_norm, such as 1.0 or 2.0"],
    );
    let structured = || new(PruningFn::RandomStructured).use_global_unstructured(false);
    refused(
        structured().pruning_dim(0),
        expect![[
            r#"ModelPruning with random_structured takes slices of at least two dimensions, and fc1.bias has shape [6]; leave it out, for example with `parameter_names(["weight"])`"#
        ]],
    );
    refused(
        structured().pruning_dim(2).parameter_names(["weight"]),
        expect![
            "ModelPruning::pruning_dim(2) is not a dimension of fc1.weight, which has shape [6, 4]; write one from -2 to 1"
        ],
    );
    refused(
        plain().amount(1.5),
        expect![
            "ModelPruning::amount(1.5) is not a fraction of the parameters; write a fraction from 0.0 to 1.0, or a count"
        ],
    );
    refused(
        plain().amount(-1),
        expect![
            "ModelPruning::amount(-1.0) is not a fraction of the parameters; write a fraction from 0.0 to 1.0, or a count"
        ],
    );
    refused(
        plain().amount(38),
        expect![
            "ModelPruning::amount(38) is more than the 37 that are left of the parameters; lower it, or write a fraction"
        ],
    );
    refused(plain().verbose(3), expect!["ModelPruning::verbose(3) is not a level; write 0, 1 or 2"]);
    refused(
        plain().parameters_to_prune(["fc3.weight"]),
        expect![
            "ModelPruning was given the parameter `fc3.weight`, which Net does not have; write one of fc1.weight, fc1.bias, fc2.weight, fc2.bias"
        ],
    );
    refused(
        plain().parameter_names(["kernel"]),
        expect![
            "ModelPruning has nothing to prune: no parameter of Net is selected; name some of fc1.weight, fc1.bias, fc2.weight, fc2.bias in parameters_to_prune"
        ],
    );
    refused(
        ModelPruning::with_method(|_, _| Ok(Tensor::from(1.0))),
        expect![
            "the pruning method of ModelPruning returned a mask of shape [] for [37] numbers; return one value for each, 0 for those to prune"
        ],
    );
}

#[test]
fn options_are_data() {
    let options: ModelPruningOptions =
        serde_json::from_str(r#"{"pruning_fn": "ln_structured", "amount": 3, "pruning_dim": 0}"#).unwrap();
    assert_eq!(serde_json::to_value(&options).unwrap()["amount"], 3);
    assert!(ModelPruning::from_options(options).is_err());
    assert!(serde_json::from_str::<ModelPruningOptions>(r#"{"pruning_fn": "l2"}"#).is_err());
}
