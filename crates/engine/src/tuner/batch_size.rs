//! The batch-size finder.

use fulgurite_torch::Value;

use super::options::{BatchSizeFinderOptions, ScaleMode};
use super::trial::Before;
use crate::data_module::Source;
use crate::error::Error;
use crate::loops::{Run, of_loader};
use crate::module::LightningModule;
use crate::stage::Stage;

/// The result of a trial with one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// The batch size fits.
    Fits,
    /// The batch size fits, and so does every larger one, because a batch holds all the data.
    HoldsEverything,
    OutOfMemory,
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// Finds the largest batch size that fits, and sets the hyper-parameter to it.
    pub(crate) fn scale_batch_size(&mut self, options: &BatchSizeFinderOptions) -> Result<Option<u64>, Error> {
        options.validate()?;
        let state = &self.engine.state;
        if state.config.fast_dev_run > 0 {
            state.warn("the batch-size finder does nothing under fast_dev_run");
            return Ok(None);
        }
        if state.is_distributed() {
            return Err(Error::Config(
                "the batch-size finder runs out of memory on purpose, and with several processes one would while the others go on; find the size with devices=1, and write it down".into(),
            ));
        }
        if matches!(self.data, Source::Loaders(..)) {
            return Err(Error::Config(
                "the batch-size finder makes the loaders anew with another batch size, and these were passed directly; give a data module, or `()` and the module's own loader methods".into(),
            ));
        }
        let configured = self.hparam(&options.batch_arg_name)?;
        self.set_batch_size(options, options.init_val)?;
        let found = self.with_trials(|run, before| run.search(options, before));
        self.forget_loaders();
        let size = match found {
            Ok(size) => size,
            Err(error) => {
                if let Some(configured) = configured {
                    self.set_hparam(&options.batch_arg_name, &configured)?;
                }
                return Err(error);
            }
        };
        self.set_batch_size(options, size)?;
        self.engine.state.print(&format!("batch-size finder: {size}"));
        Ok(Some(size))
    }

    fn search(&mut self, options: &BatchSizeFinderOptions, before: &Before) -> Result<u64, Error> {
        let (mut fits, mut too_large) = (None, None);
        let mut size = options.init_val.min(options.max_val);
        for _ in 0..options.max_trials {
            match self.try_batch_size(options, size, before)? {
                Trial::HoldsEverything => {
                    fits = Some(size);
                    break;
                }
                Trial::Fits => fits = Some(size),
                Trial::OutOfMemory => too_large = Some(size),
            }
            let next = match (options.mode, fits, too_large) {
                (_, Some(fits), None) => fits.saturating_mul(2).min(options.max_val),
                (_, None, Some(too_large)) => too_large / 2,
                (ScaleMode::BinSearch, Some(fits), Some(too_large)) => fits.midpoint(too_large),
                _ => break,
            };
            if next == 0 || Some(next) == fits {
                break;
            }
            size = next;
        }
        let Some(fits) = fits else {
            return Err(Error::Config(format!(
                "the batch-size finder ran out of memory with every size it tried, down to {size}; begin with a smaller init_val, or make the model smaller"
            )));
        };
        let is_bounded = too_large.is_some() && options.mode == ScaleMode::BinSearch;
        Ok(if is_bounded { ((fits as f64 * (1.0 - options.margin)) as u64).max(1) } else { fits })
    }

    fn try_batch_size(&mut self, options: &BatchSizeFinderOptions, size: u64, before: &Before) -> Result<Trial, Error> {
        self.set_batch_size(options, size)?;
        self.forget_loaders();
        let tried = self.trial(options.steps_per_trial);
        let holds_everything = self.one_batch_holds_everything();
        self.forget_loaders();
        self.rewind(before)?;
        match tried {
            Ok(()) if holds_everything? => Ok(Trial::HoldsEverything),
            Ok(()) => Ok(Trial::Fits),
            Err(error) if is_out_of_memory(&error) => {
                self.engine.state.print(&format!("batch-size finder: no memory for {size}"));
                fulgurite_torch::runtime::release_memory();
                Ok(Trial::OutOfMemory)
            }
            Err(error) => Err(error),
        }
    }

    fn one_batch_holds_everything(&self) -> Result<bool, Error> {
        let lengths: Vec<Option<usize>> = match (&self.train_loader, &self.eval) {
            (Some(loader), _) if self.engine.state.position.is_fit() => of_loader(Stage::Train, || vec![loader.len()])?,
            (_, Some(eval)) => {
                let stage = self.engine.state.stage();
                of_loader(stage, || eval.loaders.iter().map(|loader| loader.len()).collect())?
            }
            _ => Vec::new(),
        };
        Ok(!lengths.is_empty() && lengths.iter().all(|len| len.is_some_and(|len| len <= 1)))
    }

    pub(super) fn set_batch_size(&mut self, options: &BatchSizeFinderOptions, size: u64) -> Result<(), Error> {
        let name = &options.batch_arg_name;
        if self.set_hparam(name, &Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))? {
            return Ok(());
        }
        Err(Error::Config(format!(
            "the batch-size finder sets the hyper-parameter `{name}`, and neither the data module nor `{}` has one; set the field in `set_hparam` and return true, or name another with batch_arg_name",
            self.module.name()
        )))
    }
}

/// Whether an error, at any depth, is an out-of-memory error.
fn is_out_of_memory(error: &Error) -> bool {
    let text = error.to_string();
    ["out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"]
        .iter()
        .any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocators_are_understood() {
        let says = |message: &str| is_out_of_memory(&Error::Config(message.into()));
        assert!(says("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"));
        assert!(says("CUDA out of memory. Tried to allocate 20.00 GiB"));
        assert!(!says("mat1 and mat2 shapes cannot be multiplied"));
    }
}
