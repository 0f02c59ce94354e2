//! Whether a signal ends a run for good.

use fulgurite_engine::Error;

/// Says so.
pub(crate) const VARIABLE: &str = "FULGURITE_PRUNE";

/// Whether a run that a signal ends leaves no checkpoint, because nobody will go on with it.
///
/// # Errors
///
/// Fails if the variable is neither 0 nor 1.
pub(crate) fn is_pruned_by_signals() -> Result<bool, Error> {
    let Some(given) = std::env::var_os(VARIABLE) else { return Ok(false) };
    match given.to_string_lossy().as_ref() {
        "1" => Ok(true),
        "0" | "" => Ok(false),
        other => Err(Error::Config(format!(
            "the environment variable {VARIABLE} is `{other}`; it must be 1, for no checkpoint when a signal ends the run, or 0"
        ))),
    }
}
