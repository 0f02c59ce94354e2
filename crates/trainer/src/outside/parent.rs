//! The parent watch: a run ends when the process is gone that has started it.

use std::sync::Once;

use fulgurite_engine::Error;
use fulgurite_fabric::environments;

/// Has the number of the process.
pub(crate) const VARIABLE: &str = "FULGURITE_PARENT";

/// Ends the run, as SIGTERM would, once the process that the environment names is no longer its parent. A process that is killed
/// hard, as Ray does, cannot end its children itself.
///
/// # Errors
///
/// Fails if the variable names no process, or one that is not the parent.
pub(crate) fn watch() -> Result<(), Error> {
    let Some(given) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let wrong = |problem: String| Err(Error::Config(format!("the environment variable {VARIABLE} {problem}")));
    let given = given.to_string_lossy();
    let Some(parent) = given.parse::<u32>().ok().filter(|id| *id > 0) else {
        return wrong(format!("is `{given}`; it must be the number of the process that starts this one, or be unset"));
    };
    // The launcher of a rank watches, and ends it.
    if environments::is_supervised() {
        return Ok(());
    }
    let Some(found) = parent_id() else { return wrong("works on Unix only; unset it".into()) };
    if found != parent {
        return wrong(format!(
            "is {parent}, but the parent of this process is {found}: that process has ended, or it started this one \
             by another; in a shell, write `exec` before the command"
        ));
    }
    static STARTED: Once = Once::new();
    STARTED.call_once(|| watch_in_background(parent));
    Ok(())
}

#[cfg(unix)]
fn parent_id() -> Option<u32> {
    Some(std::os::unix::process::parent_id())
}

#[cfg(not(unix))]
fn parent_id() -> Option<u32> {
    None
}

fn watch_in_background(parent: u32) {
    use std::time::Duration;

    const INTERVAL: Duration = Duration::from_millis(200);
    /// Enough to write a checkpoint.
    const GRACE: Duration = Duration::from_secs(120);
    let watch = move || {
        while parent_id() == Some(parent) {
            std::thread::sleep(INTERVAL);
        }
        // A second signal ends a run that hangs.
        for _ in 0..2 {
            _ = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
            std::thread::sleep(GRACE);
        }
    };
    // Without the thread the run goes on as without the variable.
    _ = std::thread::Builder::new().name("fulgurite-parent".into()).spawn(watch);
}
