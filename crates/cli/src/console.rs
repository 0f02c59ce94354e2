//! What is said to the user, with what a terminal would obey made visible: messages contain paths, and texts of pip.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the reporter")]

use std::io::{self, IsTerminal, Write};

/// Prints a line, or several. That nobody reads on, such as `head`, is no error of what was done.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{}", printable(text));
}

/// Prints a line on the error output.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}

/// Prints a text in place of all that the terminal shows.
///
/// # Errors
///
/// Fails if nobody reads it any more.
pub(crate) fn show_anew(text: &str) -> io::Result<()> {
    let clear = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    writeln!(io::stdout(), "{clear}{}", printable(text.trim_end()))
}

/// The columns of the terminal.
pub(crate) fn columns() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(100, |(width, _)| width.0.into())
}

/// A line that is drawn again and again where there is a terminal, and is a new one each time elsewhere.
pub(crate) struct StatusLine {
    terminal: bool,
}

impl StatusLine {
    pub(crate) fn new() -> StatusLine {
        StatusLine { terminal: io::stdout().is_terminal() }
    }

    pub(crate) fn is_redrawn(&self) -> bool {
        self.terminal
    }

    pub(crate) fn show(&self, text: &str) {
        match self.terminal {
            true => print!("\r  {} ", printable(text)),
            false => println!("  {}", printable(text)),
        }
        // A line that cannot be shown is no reason to stop.
        let _ = io::stdout().flush();
    }

    pub(crate) fn end(&self) {
        if self.terminal {
            print!("\r\x1b[K");
        }
    }
}

/// The text with control characters other than line breaks escaped.
fn printable(text: &str) -> String {
    let escaped = |c: char| match c.is_control() && c != '\n' {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_terminal_is_given_nothing_to_obey() {
        assert_eq!(printable("a/\u{1b}[2J\r\u{9b}/größer\nb"), "a/\\u{1b}[2J\\r\\u{9b}/größer\nb");
    }
}
