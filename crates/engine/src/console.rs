//! [`Console`]: the one place that writes to the terminal, so that lines and bars do not tear each other, and so that no
//! text of a stranger's is obeyed by it.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use fulgurite_torch::printable;
use indicatif::{MultiProgress, ProgressDrawTarget};

/// Where a run's lines and bars go: standard error, or memory. Clones share it.
///
/// Control characters are printed escaped ([`printable`]): lines speak of names and texts of files.
#[derive(Clone)]
pub struct Console(Arc<Inner>);

struct Inner {
    bars: MultiProgress,
    sink: Sink,
    warned: Mutex<HashSet<String>>,
}

enum Sink {
    Stderr,
    Memory(Mutex<String>),
}

impl Console {
    /// Standard error; bars are drawn there if it is a terminal.
    pub fn stderr() -> Console {
        Console::new(Sink::Stderr, ProgressDrawTarget::stderr())
    }

    /// Memory, to be read with [`Console::contents`]; no bars.
    pub fn memory() -> Console {
        Console::new(Sink::Memory(Mutex::default()), ProgressDrawTarget::hidden())
    }

    fn new(sink: Sink, target: ProgressDrawTarget) -> Console {
        Console(Arc::new(Inner { bars: MultiProgress::with_draw_target(target), sink, warned: Mutex::default() }))
    }

    /// Whether bars can move here: a terminal, as opposed to a pipe or a file.
    pub fn is_terminal(&self) -> bool {
        matches!(self.0.sink, Sink::Stderr) && std::io::stderr().is_terminal()
    }

    /// The bars.
    pub fn bars(&self) -> &MultiProgress {
        &self.0.bars
    }

    /// Prints a line, above the bars if there are any.
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

    /// Prints to standard output what the program was asked for, such as its help.
    pub fn print_out(&self, text: &str) {
        use std::io::Write;
        let text = printable(text);
        match &self.0.sink {
            // A reader that went away has read enough.
            Sink::Stderr => drop(std::io::stdout().write_all(text.as_bytes())),
            Sink::Memory(contents) => contents.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text),
        }
    }

    /// Prints a warning, once per text.
    pub fn warn(&self, message: &str) {
        let message = printable(message);
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(message.clone().into_owned()) {
            drop(warned);
            tracing::warn!("{message}");
            self.print(&format!("warning: {message}"));
        }
    }

    /// What was printed to memory so far.
    pub fn contents(&self) -> String {
        match &self.0.sink {
            Sink::Stderr => String::new(),
            Sink::Memory(text) => text.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
