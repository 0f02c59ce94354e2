//! [`Console`]: the only writer to the terminal, so that lines and bars do not interleave and untrusted text is
//! escaped.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fulgurite_torch::printable;
use indexmap::IndexSet;
use indicatif::{MultiProgress, ProgressDrawTarget};

/// The output of a run's messages and bars: standard error, or memory. Clones share it.
///
/// Control characters are escaped ([`printable`]), because messages contain names and texts from files.
#[derive(Clone)]
pub struct Console(Arc<Inner>);

struct Inner {
    bars: MultiProgress,
    sink: Sink,
    /// In the order in which they were printed.
    warned: Mutex<IndexSet<String>>,
    /// How many there are.
    warnings: AtomicUsize,
}

enum Sink {
    Stderr,
    Memory(Mutex<String>),
}

impl Console {
    /// Writes to standard error; bars are drawn if it is a terminal.
    pub fn stderr() -> Console {
        Console::new(Sink::Stderr, ProgressDrawTarget::stderr())
    }

    /// Writes to memory, readable with [`Console::contents`]; draws no bars.
    pub fn memory() -> Console {
        Console::new(Sink::Memory(Mutex::default()), ProgressDrawTarget::hidden())
    }

    fn new(sink: Sink, target: ProgressDrawTarget) -> Console {
        Console(Arc::new(Inner {
            bars: MultiProgress::with_draw_target(target),
            sink,
            warned: Mutex::default(),
            warnings: AtomicUsize::new(0),
        }))
    }

    /// Whether bars can be redrawn: in a terminal, as opposed to a pipe or a file.
    pub fn is_terminal(&self) -> bool {
        matches!(self.0.sink, Sink::Stderr) && std::io::stderr().is_terminal()
    }

    /// The progress bars.
    pub fn bars(&self) -> &MultiProgress {
        &self.0.bars
    }

    /// Prints a line, above any bars.
    #[expect(clippy::print_stderr, reason = "this is the reporter")]
    pub fn print(&self, line: &str) {
        let line = printable(line);
        match &self.0.sink {
            Sink::Stderr => self.0.bars.suspend(|| eprintln!("{line}")),
            Sink::Memory(text) => {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
            }
        }
    }

    /// Prints requested output, such as help, to standard output.
    pub fn print_out(&self, text: &str) {
        use std::io::Write;
        let text = printable(text);
        match &self.0.sink {
            // The reader may close the pipe early.
            Sink::Stderr => drop(std::io::stdout().write_all(text.as_bytes())),
            Sink::Memory(contents) => contents.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text),
        }
    }

    /// Prints a warning, once per text.
    pub fn warn(&self, message: &str) {
        let message = printable(message);
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(message.clone().into_owned()) {
            self.0.warnings.store(warned.len(), Ordering::Relaxed);
            drop(warned);
            tracing::warn!("{message}");
            self.print(&format!("warning: {message}"));
        }
    }

    /// How many warnings were printed.
    pub(crate) fn num_warnings(&self) -> usize {
        self.0.warnings.load(Ordering::Relaxed)
    }

    /// The warnings that were printed after the first `skip`.
    pub(crate) fn warnings_after(&self, skip: usize) -> Vec<String> {
        let warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.iter().skip(skip).cloned().collect()
    }

    /// The text printed to memory so far.
    pub fn contents(&self) -> String {
        match &self.0.sink {
            Sink::Stderr => String::new(),
            Sink::Memory(text) => text.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
