//! [`Checkpoint`]: loads hyper-parameters, a whole module, or some weights from a file.

mod hparams;
mod keys;
mod report;
pub(crate) mod source;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use fulgurite_engine::{Console, Error, LightningDataModule, LightningModule, Result};
use fulgurite_fabric::CheckpointIo;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::{Device, Kind};
use fulgurite_torch::{Dict, TorchError, Value, params};
use serde::de::DeserializeOwned;

pub(crate) use self::keys::Keys;
use self::report::first_of;
pub use self::report::{LoadReport, SizeMismatch};
use self::source::Checksums;
use crate::cli::FromConfig;

/// `load_from_checkpoint`, for every module that can be created from its hyper-parameters.
pub trait LoadFromCheckpoint: LightningModule + FromConfig {
    /// Creates a module from the hyper-parameters and weights of a checkpoint. [`Checkpoint`] does the same in steps,
    /// and can change hyper-parameters, names and types on the way.
    ///
    /// # Errors
    ///
    /// Fails as [`Checkpoint::open`] and [`Checkpoint::load`] do.
    fn load_from_checkpoint(path: impl AsRef<Path>) -> Result<Self> {
        Checkpoint::open(path)?.load()
    }
}

impl<M: LightningModule + FromConfig> LoadFromCheckpoint for M {}

/// The key that every Lightning checkpoint has.
pub(crate) const VERSION_KEY: &str = "pytorch-lightning_version";

/// Common keys of a state dict in PyTorch files.
const STATE_DICT_KEYS: [&str; 5] = ["state_dict", "model_state_dict", "model", "module", "weights"];

/// A checkpoint to load from: Lightning's `load_from_checkpoint`, in steps.
///
/// It reads Lightning's `.ckpt`, PyTorch's `.pt` (a state dict, also one under `state_dict`, `model_state_dict`,
/// `model`, `module` or `weights`), `.safetensors`, and a folder or index of shards. The format is detected from the
/// content, not from the name.
///
/// A whole module, created from the hyper-parameters in the file, one of them changed:
///
/// ```
/// use fulgurite::prelude::*;
///
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Hparams {
///     hidden: i64,
///     lr: f64,
/// }
///
/// struct Classifier { vars: nn::VarStore, hparams: Hparams }
///
/// impl Classifier {
///     fn new(hparams: Hparams) -> Result<Classifier> {
///         let vars = nn::VarStore::new(Device::Cpu);
///         let _hidden = nn::linear(2, hparams.hidden).at(vars.root() / "hidden")?;
///         Ok(Classifier { vars, hparams })
///     }
/// }
///
/// impl LightningModule for Classifier {
///     type Batch = Tensor;
///
///     fn vars(&self) -> &dyn Parameters { &self.vars }
///
///     fn hparams(&self) -> Result<Dict> { Ok(Dict::from_serialize(&self.hparams)) }
/// #   fn training_step(&mut self, _: Self::Batch, _: &mut Step) -> Result<Loss> { Ok(Loss::skip()) }
/// }
///
/// # fn main() -> Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("best.ckpt");
/// let mut trained = Classifier::new(Hparams { hidden: 8, lr: 0.1 })?;
/// Trainer::builder().build()?.save_checkpoint(&mut trained, &path, false)?;
///
/// let model = Checkpoint::open(&path)?.hparam("lr", 3e-4).load_with(Classifier::new)?;
/// assert_eq!((model.hparams.hidden, model.hparams.lr), (8, 3e-4));
/// # Ok(()) }
/// ```
///
/// Some of the weights, for another model (transfer learning):
///
/// ```
/// use fulgurite::prelude::*;
///
/// # fn main() -> Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pretrained.pt");
/// # let state = Dict::new()
/// #     .with("model.backbone.weight", Tensor::ones([8, 2], (Kind::Float, Device::Cpu)))
/// #     .with("model.backbone.bias", Tensor::zeros([8], (Kind::Float, Device::Cpu)))
/// #     .with("model.head.weight", Tensor::zeros([1000, 8], (Kind::Float, Device::Cpu)));
/// # fulgurite::torch::serialization::save(&path, &Value::Dict(state))?;
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let _backbone = nn::linear(2, 8).at(vars.root() / "backbone")?;
/// let _head = nn::linear(8, 10).at(vars.root() / "head")?;
///
/// let report = Checkpoint::open(&path)?.strip_prefix("model.").only("backbone").load_into(&vars)?;
/// assert_eq!(report.loaded_keys, ["backbone.weight", "backbone.bias"]);
/// assert_eq!(report.skipped_keys, ["model.head.weight"]);
/// # Ok(()) }
/// ```
///
/// Reading a file never executes code. The file is memory-mapped, so that loading takes no memory besides the model's.
#[must_use]
pub struct Checkpoint {
    path: PathBuf,
    contents: Dict,
    overrides: Vec<(String, Value)>,
    datamodule_overrides: Vec<(String, Value)>,
    state_dict_key: Option<String>,
    keys: Keys,
    lenient: bool,
    ignore_mismatched_sizes: bool,
    map_location: Option<Device>,
    dtype: Option<Kind>,
}

impl Checkpoint {
    /// Opens a local file or folder of shards. Its checksums are verified, for which the file is read once.
    ///
    /// # Errors
    ///
    /// Fails if the file does not exist, is damaged, is not a checkpoint, or contains more than plain data.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        let path = path.as_ref();
        Checkpoint::new(path, source::read(path, Checksums::Compared)?.value)
    }

    /// Like [`open`](Checkpoint::open), but reads only the parts that are used, such as a small part of a large file,
    /// and does not verify the checksums of tensors.
    ///
    /// # Errors
    ///
    /// Fails as [`open`](Checkpoint::open) does.
    pub fn open_mmap(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        let path = path.as_ref();
        Checkpoint::new(path, source::read(path, Checksums::Ignored)?.value)
    }

    /// Opens `path` with `io`, such as a URL of an object store.
    ///
    /// # Errors
    ///
    /// Fails if `io` cannot read it, or the checkpoint is not a dict.
    pub fn open_with(io: &mut dyn CheckpointIo, path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        let path = path.as_ref();
        Checkpoint::new(path, io.load(path)?)
    }

    fn new(path: &Path, value: Value) -> Result<Checkpoint, Error> {
        let Value::Dict(contents) = value else {
            let problem = format!("contains a {}, but a checkpoint is a dict", value.type_name());
            return Err(Error::Checkpoint { path: path.into(), problem });
        };
        Ok(Checkpoint {
            path: path.into(),
            contents,
            overrides: Vec::new(),
            datamodule_overrides: Vec::new(),
            state_dict_key: None,
            keys: Keys::default(),
            lenient: false,
            ignore_mismatched_sizes: false,
            map_location: None,
            dtype: None,
        })
    }

    // Contents --------------------------------------------------------------------------------------------------------

    /// The whole content of the file. Tensors are read when they are used.
    pub fn contents(&self) -> &Dict {
        &self.contents
    }

    /// The weights, under the names that the file has for them.
    ///
    /// # Errors
    ///
    /// Fails if the file has no weights at the expected key.
    pub fn state_dict(&self) -> Result<&Dict, Error> {
        find_state_dict(&self.contents, self.state_dict_key.as_deref()).map_err(|problem| self.wrong(problem))
    }

    /// The module's hyper-parameters, with the changes of [`hparam`](Checkpoint::hparam); empty if the file has none.
    pub fn hparams(&self) -> Dict {
        hparams::merged(&self.contents, "hyper_parameters", &self.overrides)
    }

    /// The data module's hyper-parameters, with the changes of [`datamodule_hparam`](Checkpoint::datamodule_hparam).
    pub fn datamodule_hparams(&self) -> Dict {
        hparams::merged(&self.contents, "datamodule_hyper_parameters", &self.datamodule_overrides)
    }

    /// [`hparams`](Checkpoint::hparams) as a struct.
    ///
    /// # Errors
    ///
    /// Fails if a hyper-parameter is missing or has another type, or one that was set with
    /// [`hparam`](Checkpoint::hparam) does not exist in the struct.
    pub fn hparams_as<H: DeserializeOwned>(&self) -> Result<H, Error> {
        hparams::parse(&self.hparams(), &self.overrides).map_err(|problem| self.wrong(problem))
    }

    /// [`datamodule_hparams`](Checkpoint::datamodule_hparams) as a struct.
    ///
    /// # Errors
    ///
    /// Fails as [`hparams_as`](Checkpoint::hparams_as) does.
    pub fn datamodule_hparams_as<H: DeserializeOwned>(&self) -> Result<H, Error> {
        hparams::parse(&self.datamodule_hparams(), &self.datamodule_overrides).map_err(|problem| self.wrong(problem))
    }

    // Options ---------------------------------------------------------------------------------------------------------

    /// Sets a hyper-parameter. `optimizer.lr` is `lr` within `optimizer`.
    pub fn hparam(mut self, name: impl Into<String>, value: impl Into<Value>) -> Checkpoint {
        self.overrides.push((name.into(), value.into()));
        self
    }

    /// Sets a hyper-parameter of the data module.
    pub fn datamodule_hparam(mut self, name: impl Into<String>, value: impl Into<Value>) -> Checkpoint {
        self.datamodule_overrides.push((name.into(), value.into()));
        self
    }

    /// Whether names that exist only in the file or only in the model are an error (on by default).
    pub fn strict(mut self, strict: bool) -> Checkpoint {
        self.lenient = !strict;
        self
    }

    /// The key of the weights in the file, such as `current_model_state` (the weights in training) or `ema.model`.
    pub fn state_dict_key(mut self, key: impl Into<String>) -> Checkpoint {
        self.state_dict_key = Some(key.into());
        self
    }

    /// Strips `prefix` from the names in the file.
    pub fn strip_prefix(self, prefix: impl Into<String>) -> Checkpoint {
        self.replace_prefix(prefix, "")
    }

    /// Replaces the prefix `from` of names in the file by `to`; an empty `from` adds `to` to every name.
    pub fn replace_prefix(mut self, from: impl Into<String>, to: impl Into<String>) -> Checkpoint {
        self.keys.replace_prefix(from.into(), to.into());
        self
    }

    /// Renames entries of the file; `None` skips an entry. Renamings are applied in the order of the calls.
    pub fn map_keys(mut self, rename: impl Fn(&str) -> Option<String> + Send + 'static) -> Checkpoint {
        self.keys.map(Box::new(rename));
        self
    }

    /// Loads only this part of the model: a name, everything below it (`backbone` includes `backbone.*`), or a pattern
    /// with `*` and `?`. The rest is unchanged and does not count as missing. Repeated calls add parts.
    pub fn only(mut self, pattern: impl Into<String>) -> Checkpoint {
        self.keys.only(pattern.into());
        self
    }

    /// Skips this part of the model; a pattern as in [`only`](Checkpoint::only).
    pub fn except(mut self, pattern: impl Into<String>) -> Checkpoint {
        self.keys.except(pattern.into());
        self
    }

    /// Whether tensors with another shape in the file are skipped, instead of being an error.
    pub fn ignore_mismatched_sizes(mut self, ignore: bool) -> Checkpoint {
        self.ignore_mismatched_sizes = ignore;
        self
    }

    /// Moves the model to this device. By default it stays where it was created.
    pub fn map_location(mut self, device: Device) -> Checkpoint {
        self.map_location = Some(device);
        self
    }

    /// Converts the model's floating-point tensors to this kind. By default they keep theirs, and values are converted
    /// when they are copied.
    pub fn dtype(mut self, dtype: Kind) -> Checkpoint {
        self.dtype = Some(dtype);
        self
    }

    // Loading ---------------------------------------------------------------------------------------------------------

    /// Creates a module from its hyper-parameters, and loads its weights.
    ///
    /// Hyper-parameters that its configuration does not have are left out. With [`strict(false)`](Checkpoint::strict)
    /// and [`ignore_mismatched_sizes`](Checkpoint::ignore_mismatched_sizes) a warning lists what the file lacks.
    ///
    /// # Errors
    ///
    /// Fails as [`hparams_as`](Checkpoint::hparams_as) and [`load_into`](Checkpoint::load_into) do, and if creating the
    /// module fails.
    pub fn load<M: LightningModule + FromConfig>(&self) -> Result<M> {
        let config = hparams::parse_config::<M::Config>(self.hparams(), &self.overrides);
        self.finish(M::from_config(config.map_err(|problem| self.wrong(problem))?)?)
    }

    /// Creates a module with a function of its hyper-parameters, and loads its weights. The function can also change
    /// them: `load_with(|hparams: Hparams| Classifier::new(Hparams { lr: 3e-4, ..hparams }))`. Its argument is a struct that
    /// implements `Deserialize`, or a [`Dict`].
    ///
    /// # Errors
    ///
    /// Fails as [`load`](Checkpoint::load) does.
    pub fn load_with<H: DeserializeOwned, M: LightningModule>(&self, make: impl FnOnce(H) -> Result<M>) -> Result<M> {
        self.finish(make(self.hparams_as()?)?)
    }

    fn finish<M: LightningModule>(&self, mut module: M) -> Result<M> {
        let mut contents = self.contents.clone();
        if contents.get(VERSION_KEY).is_some() {
            module.on_load_checkpoint(None, &mut contents)?;
        }
        let state =
            find_state_dict(&contents, self.state_dict_key.as_deref()).map_err(|problem| self.wrong(problem))?;
        let report = self.copy(state, module.vars())?;
        if let Some(warning) = report.warning() {
            Console::stderr().warn(&format!("{}: {warning}", self.path.display()));
        }
        Ok(module)
    }

    /// Copies weights into an existing model, and reports what was copied.
    ///
    /// Everything is checked before anything is copied.
    ///
    /// # Errors
    ///
    /// Fails with all problems at once ([`StateDictMismatch`](fulgurite_torch::params::StateDictMismatch)), of which the
    /// first ten are listed: names that only one of file and model has (unless
    /// [`strict(false)`](Checkpoint::strict)), other shapes (unless
    /// [`ignore_mismatched_sizes`](Checkpoint::ignore_mismatched_sizes)), entries that are not tensors; two names that
    /// become equal by a renaming.
    pub fn load_into(&self, vars: &dyn Parameters) -> Result<LoadReport, Error> {
        self.copy(self.state_dict()?, vars)
    }

    fn copy(&self, state: &Dict, vars: &dyn Parameters) -> Result<LoadReport, Error> {
        let mut report = LoadReport::default();
        let mut wanted = self.keys.apply(state, &mut report.skipped_keys).map_err(|problem| self.wrong(problem))?;
        if self.ignore_mismatched_sizes {
            wanted = report.without_mismatched(wanted, &params::state_dict(vars)?);
        }
        let mismatched: HashSet<&str> = report.mismatched.iter().map(|mismatch| mismatch.key.as_str()).collect();
        let is_wanted = |name: &str| self.keys.selects(name) && !mismatched.contains(name);
        let check_and_copy = |dry: bool| params::load_state_dict_of(vars, &wanted, !self.lenient, is_wanted, dry);
        let fits = |error| self.wrong(format!("does not fit: {}", misfit(error)));
        if self.dtype.is_some() || self.map_location.is_some() {
            check_and_copy(true).map_err(fits)?;
        }
        if let Some(kind) = self.dtype {
            params::to_kind(vars, kind)?;
        }
        if let Some(device) = self.map_location {
            params::move_to(vars, device)?;
        }
        let keys = check_and_copy(false).map_err(fits)?;
        let unexpected: HashSet<&str> = keys.unexpected_keys.iter().map(String::as_str).collect();
        report.loaded_keys = wanted.keys().filter(|key| !unexpected.contains(key)).map(String::from).collect();
        report.missing_keys = keys.missing_keys;
        report.unexpected_keys = keys.unexpected_keys;
        Ok(report)
    }

    /// Creates a data module from its hyper-parameters, and restores its state.
    ///
    /// # Errors
    ///
    /// Fails as [`load`](Checkpoint::load) does.
    pub fn load_datamodule<D: LightningDataModule + FromConfig>(&self) -> Result<D> {
        let config = hparams::parse_config::<D::Config>(self.datamodule_hparams(), &self.datamodule_overrides);
        self.finish_datamodule(D::from_config(config.map_err(|problem| self.wrong(problem))?)?)
    }

    /// Creates a data module with a function of its hyper-parameters, and restores its state.
    ///
    /// # Errors
    ///
    /// Fails as [`load`](Checkpoint::load) does.
    pub fn load_datamodule_with<H: DeserializeOwned, D: LightningDataModule>(
        &self,
        make: impl FnOnce(H) -> Result<D>,
    ) -> Result<D> {
        self.finish_datamodule(make(self.datamodule_hparams_as()?)?)
    }

    fn finish_datamodule<D: LightningDataModule>(&self, mut data: D) -> Result<D> {
        if let Ok(state) = self.contents.dict(data.name()) {
            data.load_state_dict(state)?;
        }
        Ok(data)
    }

    fn wrong(&self, problem: String) -> Error {
        Error::Checkpoint { path: self.path.clone(), problem }
    }
}

/// Why weights do not fit a model, and what to do.
fn misfit(error: TorchError) -> String {
    let TorchError::StateDict(mismatch) = error else { return error.to_string() };
    format!(
        "{mismatch}\n\tNothing was loaded. Load it into a model of the class and hyper-parameters that it was saved from, \
         or a part of it: `only` and `except` select parts, `strip_prefix`, `replace_prefix` and `map_keys` rename, \
         `strict(false)` allows missing and unexpected names, `ignore_mismatched_sizes(true)` skips other shapes"
    )
}

/// The weights of a checkpoint: under `key`, under one of the usual keys, or the whole.
pub(crate) fn find_state_dict<'a>(contents: &'a Dict, key: Option<&str>) -> Result<&'a Dict, String> {
    if let Some(key) = key {
        let parts = key.split('.').try_fold(contents, |dict, part| dict.dict(part));
        return contents.dict(key).or(parts).map_err(|error| format!("has no weights under `{key}`: {error}"));
    }
    if let Some(found) = STATE_DICT_KEYS.iter().find_map(|key| contents.dict(key).ok()) {
        return Ok(found);
    }
    if contents.iter().any(|(_, value)| value.as_tensor().is_some()) {
        return Ok(contents);
    }
    let present = first_of(contents.keys().map(|key| key.escape_debug().to_string()));
    Err(format!(
        "has no weights under {}; it has: {}. Set their key with `state_dict_key`",
        STATE_DICT_KEYS.join(", "),
        if present.is_empty() { "nothing" } else { &present }
    ))
}
