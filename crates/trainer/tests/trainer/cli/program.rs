//! A small program with a command line.

use std::path::Path;
use std::process::ExitCode;

use fulgurite::Console;
use fulgurite::cli::{Cli, FromConfig};
use fulgurite::config::Configurable;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct LineConfig {
    /// Numbers between the layers.
    pub hidden: i64,
    /// A name, if it has one.
    pub name: Option<String>,
    /// What stands between the layers.
    pub activation: Activation,
    /// Sizes of further layers.
    pub sizes: Vec<i64>,
    /// How it begins.
    pub init: Init,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activation {
    Relu,
    Tanh,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Init {
    /// The largest weight.
    pub bound: f64,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Default for LineConfig {
    fn default() -> LineConfig {
        LineConfig { hidden: 4, name: None, activation: Activation::Relu, sizes: vec![], init: Init::default() }
    }
}

/// A model with a layer of `hidden` numbers.
pub(crate) struct Line {
    vars: nn::VarStore,
    layers: nn::Sequential,
    config: LineConfig,
}

impl FromConfig for Line {
    type Config = LineConfig;

    fn from_config(config: LineConfig) -> Result<Line> {
        if config.hidden < 1 {
            return Err(format!("a layer of {} numbers", config.hidden).into());
        }
        let vars = nn::VarStore::new(Device::Cpu);
        let layers = nn::seq()
            .add(nn::linear(vars.root() / "in", 2, config.hidden, Default::default()))
            .add(nn::linear(vars.root() / "out", config.hidden, 1, Default::default()));
        Ok(Line { vars, layers, config })
    }
}

impl LightningModule for Line {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = x.apply(&self.layers).mse_loss(&y, tch::Reduction::Mean);
        step.log("train_loss", &loss);
        Ok(loss.into())
    }

    fn validation_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<()> {
        step.log("val_loss", x.apply(&self.layers).mse_loss(&y, tch::Reduction::Mean));
        Ok(())
    }

    fn predict_step(&mut self, (x, _): Self::Batch, _: &mut Step) -> Result<Value> {
        Ok(x.apply(&self.layers).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.5).into())
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::from_serialize(&self.config))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct PointsConfig {
    /// Points per step.
    pub batch_size: usize,
}

impl Default for PointsConfig {
    fn default() -> PointsConfig {
        PointsConfig { batch_size: 8 }
    }
}

/// Sixteen points on a plane.
pub(crate) struct Points(PointsConfig);

impl FromConfig for Points {
    type Config = PointsConfig;

    fn from_config(config: PointsConfig) -> Result<Points> {
        Ok(Points(config))
    }
}

impl Points {
    fn loader(&self) -> Result<Loaders<(Tensor, Tensor)>> {
        let x = Tensor::arange(32, (Kind::Float, Device::Cpu)).view([16, 2]) / 32.0;
        let y = x.sum_dim_intlist(1, true, Kind::Float);
        Ok(DataLoader::new(TensorDataset::new((x, y))?).batch_size(self.0.batch_size).into())
    }
}

impl LightningDataModule for Points {
    type Batch = (Tensor, Tensor);

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        self.loader()
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        self.loader()
    }

    fn predict_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        self.loader()
    }
}

/// A callback of the program's own.
pub(crate) struct Greeter(GreeterOptions);

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct GreeterOptions {
    /// Whom to greet.
    pub whom: String,
}

impl Default for GreeterOptions {
    fn default() -> GreeterOptions {
        GreeterOptions { whom: "world".into() }
    }
}

impl Configurable for Greeter {
    type Options = GreeterOptions;

    fn from_options(options: GreeterOptions) -> Result<Greeter, Error> {
        if options.whom.is_empty() {
            return Err(Error::Config("Greeter needs a name to greet".into()));
        }
        Ok(Greeter(options))
    }
}

impl Callback for Greeter {
    fn on_fit_start(&mut self, trainer: &mut TrainerState, _: &mut dyn fulgurite::ModuleView) -> Result<()> {
        trainer.print(&format!("hello {}", self.0.whom));
        Ok(())
    }
}

pub(crate) fn program() -> Cli<Line, Points> {
    Cli::new("line").about("Learns a line.").callback::<Greeter>().env::<String>([])
}

/// What a program prints, and its exit code.
pub(crate) fn answer(cli: Cli<Line, Points>, args: &[&str]) -> (String, ExitCode) {
    let console = Console::memory();
    let code = cli.args(args.iter().copied()).console(console.clone()).run();
    (console.contents(), code)
}

/// The answer to arguments that are printed and not run.
#[track_caller]
pub(crate) fn printed(args: &str) -> String {
    let (text, code) = answer(program(), &args.split_whitespace().collect::<Vec<_>>());
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    text
}

/// The answer to arguments that are wrong.
#[track_caller]
pub(crate) fn refused(args: &[&str]) -> String {
    let (text, code) = answer(program(), args);
    assert_eq!(code, ExitCode::from(2), "{text}");
    text
}

/// Writes files into a folder; what follows the arguments' `@` is its path.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn with(files: &[(&str, &str)]) -> Folder {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Folder(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The arguments, `@` being the folder.
    fn spell(&self, args: &str) -> Vec<String> {
        let here = format!("{}/", self.path().display());
        args.split_whitespace().map(|arg| arg.replace('@', &here)).collect()
    }

    /// What the program answers, the folder being `@`.
    pub(crate) fn answer(&self, cli: Cli<Line, Points>, args: &str) -> (String, ExitCode) {
        let args = self.spell(args);
        let (text, code) = answer(cli, &args.iter().map(String::as_str).collect::<Vec<_>>());
        (text.replace(&format!("{}/", self.path().display()), "@"), code)
    }

    #[track_caller]
    pub(crate) fn printed(&self, args: &str) -> String {
        let (text, code) = self.answer(program(), args);
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        text
    }

    #[track_caller]
    pub(crate) fn refused(&self, args: &str) -> String {
        let (text, code) = self.answer(program(), args);
        assert_eq!(code, ExitCode::from(2), "{text}");
        text
    }
}
