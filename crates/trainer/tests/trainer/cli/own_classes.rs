//! Optimizers, schedulers and profilers of the program's own, each one struct and one line of registration.

use std::fmt::Debug;
use std::process::ExitCode;

use expect_test::expect;
use fulgurite::cli::Cli;
use fulgurite::config::Configurable;
use fulgurite::optim::{Bucket, GroupDefaults, Moment, OptimError, ParamGroup, Rule, Schedule};
use fulgurite::prelude::*;
use fulgurite::torch::foreach;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::program::{Folder, Line, Points, answer, program};

/// Momentum of the signs of gradients.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct SignSgd {
    /// Learning rate.
    lr: f64,
    /// Momentum factor.
    momentum: f64,
    /// Range of the momentum buffer.
    range: (f64, f64),
}

impl Default for SignSgd {
    fn default() -> SignSgd {
        SignSgd { lr: 1e-3, momentum: 0.5, range: (-4.0, 4.0) }
    }
}

impl Rule for SignSgd {
    const NAME: &'static str = "SignSGD";
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).momentum(self.momentum)
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let Bucket { params, grads, slots, work: [signs, _], .. } = bucket;
        foreach::sign(grads, signs)?;
        foreach::mul_scalar_(&mut slots[0], group.momentum())?;
        foreach::add_(&mut slots[0], signs, 1.0)?;
        Ok(foreach::add_(params, &slots[0], -group.lr)?)
    }
}

/// Halves the learning rate at the end of the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct LastHalf {
    /// The last step; null is the length of the run.
    last: Option<u32>,
}

impl Schedule for LastHalf {
    type State = ();
    const NAME: &'static str = "LastHalf";

    fn adapt_to_run(&mut self, run_length: &mut dyn FnMut() -> Option<u32>) {
        self.last = self.last.or_else(run_length);
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let is_last = self.last.is_some_and(|last| at.epoch >= last.into());
        Ok(if is_last { at.base_lr / 2.0 } else { at.base_lr })
    }
}

/// Counts actions.
struct Counting(u64);

impl Profiler for Counting {
    fn start(&mut self, _: &str) {
        self.0 += 1;
    }

    fn stop(&mut self, _: &str) {}

    fn summary(&mut self) -> Result<String> {
        Ok(format!("counted {} actions", self.0.min(1)))
    }
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct CountingOptions {
    /// The number to start from.
    first: u64,
}

impl Configurable for Counting {
    type Options = CountingOptions;

    fn from_options(options: CountingOptions) -> Result<Counting, Error> {
        Ok(Counting(options.first))
    }
}

fn own() -> Cli<Line, Points> {
    program().optimizer::<SignSgd>().lr_scheduler::<LastHalf>().profiler::<Counting>()
}

#[track_caller]
fn printed(args: &str) -> String {
    let (text, code) = answer(own(), &args.split_whitespace().collect::<Vec<_>>());
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    text
}

/// Says a value of a type that it is configured with.
struct Say<T: Default + Serialize>(SayOptions<T>);

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct SayOptions<T: Default + Serialize> {
    /// What to say.
    what: T,
}

impl<T: Debug + Default + Serialize + DeserializeOwned + JsonSchema> Configurable for Say<T> {
    type Options = SayOptions<T>;

    fn from_options(options: SayOptions<T>) -> Result<Say<T>, Error> {
        Ok(Say(options))
    }
}

impl<T: Debug + Default + Serialize + Send + 'static> Callback for Say<T> {
    fn on_fit_start(&mut self, trainer: &mut TrainerState, _: &mut dyn fulgurite::ModuleView) -> Result<()> {
        trainer.print(&format!("{} says {:?}", self.state_key(), self.0.what));
        Ok(())
    }
}

/// The same class under another name.
struct SayTwice(Say<Vec<String>>);

impl Configurable for SayTwice {
    type Options = SayOptions<Vec<String>>;

    fn from_options(options: Self::Options) -> Result<SayTwice, Error> {
        Say::from_options(options).map(SayTwice)
    }
}

impl Callback for SayTwice {
    fn on_fit_start(&mut self, trainer: &mut TrainerState, module: &mut dyn fulgurite::ModuleView) -> Result<()> {
        self.0.on_fit_start(trainer, module)
    }
}

#[test]
fn callbacks_with_a_parameter_of_the_programs() {
    let folder = Folder::with(&[]);
    let args = "fit --trainer.accelerator cpu --trainer.fast_dev_run 1 --trainer.enable_progress_bar false \
                --trainer.default_root_dir @. --trainer.callbacks+=Say --trainer.callbacks.what 7 \
                --trainer.callbacks+=SayTwice --trainer.callbacks.what [a,b]";
    let cli = || program().callback::<Say<u8>>().callback::<SayTwice>();
    let (text, code) = folder.answer(cli(), args);
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    assert!(text.contains("Say<u8> says 7\nSay<Vec<String>> says [\"a\", \"b\"]\n"), "{text}");
    let (text, code) = answer(cli().callback::<Say<String>>(), &["fit"]);
    assert_eq!(code, ExitCode::from(2));
    let start = "error: two classes are registered as `Say`: ";
    assert!(text.starts_with(start) && text.ends_with("; give each a name of its own with `class_name`\n"), "{text}");
}

#[test]
fn help_knows_them() {
    let help = printed("fit --help");
    for name in ["SparseAdam, SignSGD;", "ReduceLROnPlateau, LastHalf;", "PyTorchProfiler, Counting;"] {
        assert!(help.split_whitespace().collect::<Vec<_>>().join(" ").contains(name), "{name} is not in\n{help}");
    }
    expect![[r#"
        optimizer `SignSGD`

          --optimizer.lr <float>
                  Learning rate. [default: 0.001]

          --optimizer.momentum <float>
                  Momentum factor. [default: 0.5]

          --optimizer.range <[float, float]>
                  Range of the momentum buffer. [default: [-4.0,4.0]]
    "#]]
    .assert_eq(&printed("fit --optimizer.help SignSGD"));
    let (text, code) = answer(own(), &["fit", "--optimizer=SignSGD", "--optimizer.rl=1"]);
    assert_eq!(code, ExitCode::from(2));
    expect![[r#"
        error: --optimizer.rl: there is no option `SignSGD.rl`; `SignSGD` has lr, momentum, range
    "#]]
    .assert_eq(&text);
}

const FIT: &str = "fit --trainer.accelerator cpu --trainer.enable_progress_bar false --trainer.enable_model_summary false \
                   --trainer.default_root_dir @. --optimizer SignSGD --optimizer.lr 0.25 --optimizer.range [-2,2] \
                   --lr_scheduler LastHalf --lr_scheduler.interval step";

#[test]
fn they_train_and_are_saved_and_resumed_in_pytorchs_layout() {
    let folder = Folder::with(&[]);
    let (text, code) = folder.answer(own(), &format!("{FIT} --trainer.max_epochs 1 --trainer.profiler Counting"));
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    assert!(text.contains("counted 1 actions"), "{text}");
    let checkpoint = "lightning_logs/version_0/checkpoints/epoch=0-step=2.ckpt";
    let saved = fulgurite::torch::serialization::load(folder.path().join(checkpoint)).unwrap();
    let saved = saved.as_dict().unwrap();
    let optimizer = saved.list("optimizer_states").unwrap()[0].as_dict().unwrap();
    let group = optimizer.list("param_groups").unwrap()[0].as_dict().unwrap();
    let expected = Dict::new().with("lr", 0.125).with("momentum", 0.5).with("initial_lr", 0.25);
    let expected = expected.with("range", Value::Tuple(vec![(-2.0).into(), 2.0.into()]));
    assert_eq!(*group, expected.with("params", vec![0, 1, 2, 3]));
    let state = optimizer.dict("state").unwrap().get_value(&0.into()).unwrap().as_dict().unwrap();
    assert_eq!(state.tensor("momentum_buffer").unwrap().size(), [4, 2]);
    let scheduler = saved.list("lr_schedulers").unwrap()[0].as_dict().unwrap();
    assert_eq!(scheduler.int("last").unwrap(), 2);

    // The options of the file count, and the scheduler goes on where it was.
    let resume = format!("{FIT} --trainer.max_epochs 2 --optimizer.momentum 0.9 --ckpt_path @{checkpoint}");
    let cli = own().after_fit(|trainer, _, _| {
        let group = &trainer.state().optimizer(0).unwrap().param_groups()[0];
        assert_eq!((group.lr, group.momentum()), (0.125, 0.5));
        Ok(())
    });
    let (text, code) = folder.answer(cli, &resume);
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
}
