//! What a person sees of an error of libtorch: the output of whole processes.

use anyhow::Context;
use fulgurite::Console;
use fulgurite::data::{DataLoader, Dataset, ItemRng};
use fulgurite::metrics::MeanMetric;
use fulgurite::optim::{Bucket, GroupDefaults, OptimError, OptimizerBuilder, ParamGroup, Rule};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const WHERE: &str = "FULGURITE_TEST_FAILS_IN";

/// A program that fails where it is told to.
struct Net {
    vars: nn::VarStore,
    hidden: nn::Linear,
    mean: MeanMetric,
    fails_in: String,
}

impl Net {
    fn is_in(&self, place: &str) -> bool {
        self.fails_in == place
    }

    /// The loss of a batch that has a number too many.
    fn wrong(&self, x: &Tensor) -> Tensor {
        Tensor::cat(&[x, x], 1).apply(&self.hidden)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the encoder failed: {source}")]
struct OwnError {
    #[from]
    source: tch::TchError,
}

fn encode(x: &Tensor) -> Result<Tensor, OwnError> {
    Ok(x.f_view([7, 7])?)
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> {
        if self.is_in("step panic") {
            return Ok(self.wrong(&x).mean(Kind::Float).into());
        }
        if self.is_in("step error") {
            return Ok(x.f_matmul(&self.hidden.ws)?.mean(Kind::Float).into());
        }
        if self.is_in("own error") {
            return Ok(encode(&x)?.mean(Kind::Float).into());
        }
        if self.is_in("context") {
            return Ok(encode(&x).context("of the first layer")?.mean(Kind::Float).into());
        }
        Ok(x.apply(&self.hidden).mean(Kind::Float).into())
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        if self.is_in("validation") {
            let _ = self.wrong(&x);
        }
        if self.is_in("metric") {
            self.mean.update_weighted(&x, &Tensor::ones([3, 5], (Kind::Float, Device::Cpu)))?;
        }
        step.log("val_loss", 1.0);
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(match self.is_in("optimizer") {
            true => OptimizerBuilder::<Wrong>::new(&self.vars).into(),
            false => SGD::new(&self.vars).lr(0.1).into(),
        })
    }
}

/// An optimizer that adds what does not fit.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
struct Wrong {
    lr: f64,
}

impl Rule for Wrong {
    const NAME: &'static str = "Wrong";
    const SLOTS: &'static [&'static str] = &[];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(0.1)
    }

    fn update(&self, _: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let _ = bucket.params.get(1)?.f_add(&Tensor::ones([5, 7], (Kind::Float, Device::Cpu)))?;
        Ok(())
    }
}

/// Two numbers per item.
struct Items(String);

impl Dataset for Items {
    type Item = Tensor;

    fn len(&self) -> usize {
        4
    }

    fn get(&self, index: usize, _: &mut ItemRng) -> Result<Tensor> {
        let item = Tensor::ones([2], (Kind::Float, Device::Cpu));
        Ok(match self.0.as_str() {
            "worker panic" if index == 3 => item.view([3]),
            "worker error" if index == 3 => item.f_view([3])?,
            _ => item,
        })
    }
}

fn train(fails_in: &str) -> Result<()> {
    let vars = nn::VarStore::new(Device::Cpu);
    let hidden = nn::linear(vars.root() / "hidden", 2, 3, Default::default());
    let mut net = Net { hidden, vars, mean: MeanMetric::new(), fails_in: fails_in.to_owned() };
    let mut trainer = fulgurite_test_support::quiet().num_sanity_val_steps(0).console(Console::stderr()).build()?;
    let loader = || DataLoader::new(Items(fails_in.to_owned())).batch_size(2);
    trainer.fit(&mut net, (loader().num_workers(2), loader()))?.completed()?;
    Ok(())
}

/// The program; nothing when the tests run as usual.
#[test]
fn child() {
    let Ok(place) = std::env::var(WHERE) else { return };
    match place.split_once(", ") {
        // What `main` prints of an error that it returns.
        None => eprintln!("Error: {:?}", train(&place).unwrap_err()),
        Some((place, "anyhow")) => {
            let error = anyhow::Error::from_boxed(train(place).unwrap_err());
            eprintln!("Error: {error:?}");
        }
        Some((_, "uncaught")) => {
            let _fabric = fulgurite::fabric::Fabric::builder().accelerator("cpu").build().unwrap();
            let _ = std::thread::Builder::new()
                .name("loop".into())
                .spawn(|| Tensor::ones([2], (Kind::Float, Device::Cpu)).view([3]))
                .unwrap()
                .join();
        }
        Some((place, _)) => _ = fulgurite::exit_code(train(place)),
    }
}

/// What the program writes to standard error.
fn said(place: &str, variables: &[(&str, &str)]) -> String {
    let mut command = fulgurite_test_support::this_program("readable_errors::child");
    let output =
        command.env(WHERE, place).env_remove("RUST_BACKTRACE").envs(variables.iter().copied()).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn one_sentence_without_frames() {
    if std::env::var_os(WHERE).is_some() {
        return;
    }
    const PRODUCT: &str = "linear: mat1 and mat2 shapes cannot be multiplied (2x4 and 2x3)";
    const PARAMETER: &str = "; 2x3 is the shape of `hidden.weight`, transposed\n";
    let view = "view: shape '[7, 7]' is invalid for input of size 4\n";
    let item = "view: shape '[3]' is invalid for input of size 2";
    for (place, start, end) in [
        ("step panic", &*format!("Error: Net::training_step panicked (epoch 0, batch 0): {PRODUCT}"), PARAMETER),
        (
            "step error",
            "Error: Net::training_step failed (epoch 0, batch 0): matmul: mat1 and mat2 shapes",
            "; 3x2 is the shape of `hidden.weight`\n",
        ),
        (
            "own error",
            "Error: Net::training_step failed (epoch 0, batch 0): view: the encoder failed: shape",
            "of size 4\n",
        ),
        ("context", "Error: Net::training_step failed (epoch 0, batch 0): of the first layer", "\n"),
        (
            "context, exit code",
            "error: Net::training_step failed (epoch 0, batch 0): of the first layer: view: the encoder",
            view,
        ),
        ("validation", &*format!("Error: Net::validation_step panicked (epoch 0, batch 0): {PRODUCT}"), PARAMETER),
        ("metric", "Error: Net::validation_step failed (epoch 0, batch 0): ", "\n"),
        ("optimizer", "Error: Net::optimizer_step failed (epoch 0, batch 0): add: The size of tensor a", "\n"),
        (
            "worker panic",
            &*format!(
                "Error: the training data loader failed at batch 1: item 3 of Items could not be loaded: the code of the dataset panicked: {item}"
            ),
            "\n",
        ),
        (
            "worker error",
            &*format!(
                "Error: the training data loader failed at batch 1: item 3 of Items could not be loaded: {item}\n"
            ),
            "\n",
        ),
    ] {
        let text = said(place, &[]);
        assert!(text.starts_with(start) && text.ends_with(end), "{place}: {text}");
        assert_eq!(text.lines().count(), 1, "{place}: {text}");
        assert!(text.len() < 400, "{place}: {text}");
    }
    for place in ["own error", "context", "step error", "worker error", "metric"] {
        let text = said(&format!("{place}, anyhow"), &[]);
        assert!(text.starts_with("Error: ") && text.len() < 1000, "{place}: {text}");
        assert!(!text.contains("frame #") && !text.contains("Exception raised"), "{place}: {text}");
    }
}

#[test]
fn frames_on_request_and_panics_that_nobody_catches() {
    if std::env::var_os(WHERE).is_some() {
        return;
    }
    let text = said("step error", &[("TORCH_SHOW_CPP_STACKTRACES", "1")]);
    assert!(text.contains("`hidden.weight`\nException raised from ") && text.contains("\nframe #1: "), "{text}");
    let text = said("nothing, uncaught", &[]);
    assert!(
        text.starts_with("thread 'loop' panicked at ")
            && text.ends_with(&format!(":\n{}\n", "view: shape '[3]' is invalid for input of size 2")),
        "{text}"
    );
    let text = said("step panic", &[("RUST_BACKTRACE", "1")]);
    assert!(text.contains("readable_errors::child' panicked at ") && text.contains("training_step"), "{text}");
}
