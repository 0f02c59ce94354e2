//! [`EntryPoint`]: an entry point of the trainer, with its options.

use std::path::{Path, PathBuf};

use fulgurite_engine::{Engine, Error, EvalResults, IntoData, LightningModule, Outcome, TrainerFn};
use fulgurite_torch::Value;

use crate::outside::ReportLines;
use crate::report;

/// An entry point with options, not run yet: `trainer.ckpt_path("best").test(&mut model, &mut data)?`.
#[must_use = "nothing runs before `fit`, `validate`, `test` or `predict` is called on it"]
pub struct EntryPoint<'t> {
    engine: &'t mut Engine,
    lines: Option<&'t ReportLines>,
    ckpt_path: Option<String>,
    verbose: bool,
    return_predictions: bool,
}

/// The checkpoint that an entry point starts from, if any: a keyword such as `best`, or a path.
pub struct CkptPath(pub(crate) Option<String>);

impl From<&str> for CkptPath {
    fn from(path: &str) -> CkptPath {
        CkptPath(Some(path.to_owned()))
    }
}

impl From<String> for CkptPath {
    fn from(path: String) -> CkptPath {
        CkptPath(Some(path))
    }
}

impl From<&String> for CkptPath {
    fn from(path: &String) -> CkptPath {
        path.as_str().into()
    }
}

impl From<&Path> for CkptPath {
    fn from(path: &Path) -> CkptPath {
        CkptPath(Some(path.to_string_lossy().into_owned()))
    }
}

impl From<&PathBuf> for CkptPath {
    fn from(path: &PathBuf) -> CkptPath {
        path.as_path().into()
    }
}

impl From<PathBuf> for CkptPath {
    fn from(path: PathBuf) -> CkptPath {
        path.as_path().into()
    }
}

impl<P: Into<CkptPath>> From<Option<P>> for CkptPath {
    fn from(path: Option<P>) -> CkptPath {
        path.map_or(CkptPath(None), Into::into)
    }
}

impl<'t> EntryPoint<'t> {
    pub(crate) fn new(engine: &'t mut Engine, lines: Option<&'t ReportLines>) -> EntryPoint<'t> {
        EntryPoint { engine, lines, ckpt_path: None, verbose: true, return_predictions: true }
    }

    /// Sets the checkpoint that the entry point starts from. `fit` resumes from it; the others load its weights.
    ///
    /// | value | meaning |
    /// |---|---|
    /// | `best` | the best of the first callback that writes checkpoints; an error if there is none |
    /// | `last` | the furthest of the `last` checkpoints of every `ModelCheckpoint` and of those written on an error or a signal; a fresh start, with a warning, if there is none |
    /// | `hpc` | the furthest `hpc_ckpt_N.ckpt` in `default_root_dir`, written by a job of a scheduler; an error if there is none |
    /// | `auto` | the furthest intact checkpoint of a run with these hyper-parameters; a fresh start if there is none |
    /// | a folder | the furthest intact checkpoint of this run folder, or of the runs in this folder; a fresh start if there is none |
    /// | anything else | the path of a file |
    ///
    /// The furthest has the most optimizer steps, and then batches; ties are broken by time. If it is damaged, a
    /// warning says so, and the furthest intact one is used. `hpc`, `auto` and a folder also continue the logs of the
    /// run that wrote the file, without what it logged later.
    pub fn ckpt_path(mut self, ckpt_path: impl Into<CkptPath>) -> EntryPoint<'t> {
        self.ckpt_path = ckpt_path.into().0;
        self
    }

    /// Whether `validate` and `test` print their results (on by default).
    pub fn verbose(mut self, verbose: bool) -> EntryPoint<'t> {
        self.verbose = verbose;
        self
    }

    /// Whether `predict` returns its predictions (on by default), or only passes them to callbacks.
    pub fn return_predictions(mut self, return_predictions: bool) -> EntryPoint<'t> {
        self.return_predictions = return_predictions;
        self
    }

    /// Trains `module`. `data` is `&mut` a data module, a loader, a pair of training and validation loaders, or `()`
    /// for the module's own loader methods.
    ///
    /// # Errors
    ///
    /// Fails if the arguments, data or module are invalid, or a hook fails. Teardown has run by then.
    pub fn fit<'a, M: LightningModule, K>(
        self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
    ) -> Result<Outcome, Error> {
        let ended = self.engine.fit(module, data, self.ckpt_path);
        if let Some(lines) = self.lines {
            let best = self.engine.checkpointers().find_map(|checkpointer| checkpointer.best_model_path());
            lines.end(&ended, best);
        }
        ended
    }

    /// Evaluates `module` on the validation loaders. Returns, and prints, the logged values of each loader.
    ///
    /// # Errors
    ///
    /// Fails as [`fit`](EntryPoint::fit) does.
    pub fn validate<'a, M: LightningModule, K>(
        self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
    ) -> Result<Vec<EvalResults>, Error> {
        self.evaluate(TrainerFn::Validate, module, data)
    }

    /// Evaluates `module` on the test loaders. Returns, and prints, the logged values of each loader.
    ///
    /// # Errors
    ///
    /// Fails as [`fit`](EntryPoint::fit) does.
    pub fn test<'a, M: LightningModule, K>(
        self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
    ) -> Result<Vec<EvalResults>, Error> {
        self.evaluate(TrainerFn::Test, module, data)
    }

    /// Runs prediction and returns the predictions of `module`, per loader and batch, on the CPU; none with
    /// [`return_predictions(false)`](EntryPoint::return_predictions).
    ///
    /// # Errors
    ///
    /// Fails as [`fit`](EntryPoint::fit) does.
    pub fn predict<'a, M: LightningModule, K>(
        self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
    ) -> Result<Vec<Vec<Value>>, Error> {
        self.engine.predict(module, data, self.ckpt_path, self.return_predictions)
    }

    fn evaluate<'a, M: LightningModule, K>(
        self,
        entry: TrainerFn,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
    ) -> Result<Vec<EvalResults>, Error> {
        let results = self.engine.evaluate(entry, module, data, self.ckpt_path)?;
        if self.verbose && !results.is_empty() {
            self.engine.state().print(&report::results_table(entry.name(), &results));
        }
        Ok(results)
    }
}
