//! Modules whose parameters are in no `VarStore`, in two of them, or tied.

use std::path::Path;

use fulgurite::callbacks::EMAWeightAveraging;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params;

/// Plain tensors, two stores, a buffer, and a head that is the embedding transposed.
struct Composed {
    weights: Vec<Tensor>,
    seen: Tensor,
    encoder: nn::VarStore,
    decoder: nn::VarStore,
    layers: [nn::Linear; 2],
}

impl Composed {
    fn new() -> Composed {
        let [encoder, decoder] = [(); 2].map(|()| nn::VarStore::new(Device::Cpu));
        let layers = [&encoder, &decoder].map(|store| nn::linear(store.root() / "fc", 4, 4, Default::default()));
        let weights = [[3, 4], [4, 1]].map(|size| {
            let weight = Tensor::randn(size, (Kind::Float, Device::Cpu)) * 0.3;
            weight.set_requires_grad(true)
        });
        Composed {
            weights: weights.into(),
            seen: Tensor::zeros([1], (Kind::Int64, Device::Cpu)),
            encoder,
            decoder,
            layers,
        }
    }
}

impl Parameters for Composed {
    fn named_tensors(&self) -> NamedTensors {
        NamedTensors::new()
            .parameter("embed.weight", &self.weights[0])
            .parameter("scale", &self.weights[1])
            .module("encoder", &self.encoder)
            .module("decoder", &self.decoder)
            .buffer("seen", &self.seen)
            .parameter("head.weight", &self.weights[0])
    }
}

impl LightningModule for Composed {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        self
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        let x = features(&x);
        let _ = tch::no_grad(|| self.seen.f_add_scalar_(1))?;
        let hidden = x.matmul(&self.weights[0]).apply(&self.layers[0]).relu().dropout(0.2, true).apply(&self.layers[1]);
        let rebuilt = (hidden * self.weights[1].squeeze_dim(1)).matmul(&self.weights[0].transpose(0, 1));
        let loss = (rebuilt - x).square().mean(Kind::Float);
        step.log("loss", &loss);
        Ok(loss.into())
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        step.log("val_loss", features(&x).matmul(&self.weights[0]).square().mean(Kind::Float));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(AdamW::new(self.vars()).lr(0.01).into())
    }
}

fn features(x: &Tensor) -> Tensor {
    Tensor::stack(&[x, &x.ones_like(), &x.square()], 1)
}

fn loader() -> Loaders<Tensor> {
    let items = (0..16).map(|i| i as f32 / 16.0);
    DataLoader::new(fulgurite::data::InMemory::new(items)).batch_size(4).shuffle(true).into()
}

/// Trains, and saves under `saved` at the end of the first epoch.
fn fit(precision: &str, saved: Option<&Path>, ckpt_path: Option<&Path>) -> Composed {
    let mut builder =
        super::quiet_builder().max_epochs(2).precision(precision).callback(EMAWeightAveraging::new().decay(0.5));
    if let Some(path) = saved {
        builder = builder.callback(super::SaveAt { moment: super::Moment::EpochEnd, step: 4, path: path.into() });
    }
    let mut trainer = builder.build().unwrap();
    let mut module = Composed::new();
    _ = trainer.ckpt_path(ckpt_path).fit(&mut module, (loader(), loader())).unwrap();
    module
}

fn check(precision: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.ckpt");
    seed_everything(5).unwrap();
    let straight = fit(precision, Some(&path), None);
    seed_everything(6).unwrap();
    let resumed = fit(precision, None, Some(&path));
    let (straight, resumed) = (params::state_dict(&straight).unwrap(), params::state_dict(&resumed).unwrap());
    assert_eq!(straight.keys().collect::<Vec<_>>(), resumed.keys().collect::<Vec<_>>());
    for (name, tensor) in straight.iter() {
        let other = resumed.get_value(name).and_then(Value::as_tensor).unwrap();
        assert_eq!(tensor.as_tensor().unwrap(), other, "{name:?} in {precision}");
    }
    let checkpoint = fulgurite::Checkpoint::open(&path).unwrap();
    let loaded = Composed::new();
    checkpoint.load_into(&loaded).unwrap();
    let saved = checkpoint.state_dict().unwrap().tensor("head.weight").unwrap().to_kind(Kind::Float);
    assert_eq!(loaded.weights[0], saved);
}

#[test]
fn a_module_without_a_store_of_its_own_goes_on_exactly() {
    ["32-true", "16-mixed", "bf16-mixed", "bf16-true"].into_iter().for_each(check);
}

#[test]
fn a_tied_weight_has_both_names_in_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.ckpt");
    fit("32-true", Some(&path), None);
    let Value::Dict(checkpoint) = fulgurite::torch::serialization::load(&path).unwrap() else { panic!("no dict") };
    // One of them holds the averages.
    for key in ["state_dict", "current_model_state"] {
        let state = checkpoint.dict(key).unwrap();
        let [embed, head] = ["embed.weight", "head.weight"].map(|name| state.tensor(name).unwrap());
        assert_eq!(embed.data_ptr(), head.data_ptr(), "{key}");
    }
}

#[test]
fn two_tensors_of_one_name_are_noticed_before_training() {
    struct Twins(NamedTensors, Tensor);
    impl LightningModule for Twins {
        type Batch = Tensor;
        fn vars(&self) -> &dyn Parameters {
            &self.0
        }
        fn training_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Loss> {
            Ok((batch.mean(Kind::Float) * &self.1).into())
        }
        fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
            Ok(SGD::new(&self.0).lr(0.01).into())
        }
    }
    let weight = || Tensor::from(1.0f32).set_requires_grad(true);
    let (first, second) = (weight(), weight());
    let mut module = Twins(NamedTensors::new().parameter("w", &first).parameter("w", &second), first);
    let error =
        fulgurite_test_support::quiet().build().unwrap().fit(&mut module, vec![Tensor::from(1.0f32)]).unwrap_err();
    assert_eq!(error.to_string(), "the model has two tensors of the name `w`; give one of them another name");
}
